//! A real PostgreSQL server with the table `users`.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::wait::wait_until;
use super::{PASSWORD, Signal, signal};

const TABLE: &str = "
CREATE TABLE users (
    id bigint generated always as identity primary key,
    name text not null,
    email text not null unique,
    created_at timestamptz not null default now()
);
INSERT INTO users (name, email, created_at)
    SELECT 'User ' || i, 'user' || i || '@example.org', '2026-01-02 03:04:05.678901+00' FROM generate_series(1, 998) i;
INSERT INTO users (name, email) VALUES ('100% Ännie', 'a_b@example.org'), ('Back\\slash', 'axb@example.org');
GRANT SELECT ON users TO users;
";

/// A server. Dropping it kills it and deletes its data.
#[derive(Debug)]
pub(crate) struct Postgres {
    ip: Ipv4Addr,
    /// A bound UDP port claims the address for as long as this process lives: nothing else here talks UDP.
    _claim: UdpSocket,
    dir: TempDir,
    server: Mutex<Option<Child>>,
}

impl Postgres {
    /// A running server with 1,000 users.
    pub(crate) fn start_new() -> Self {
        let (ip, claim) = claim();
        let dir = TempDir::with_prefix("users-service-").unwrap();
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = account();
            chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        let postgres = Self { ip, _claim: claim, dir, server: Mutex::default() };
        let mut initdb = postgres.program("initdb");
        initdb.args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]);
        let made = initdb.arg("-D").arg(postgres.data()).stdout(Stdio::null()).status().unwrap();
        assert!(made.success());
        let hba = "host all postgres all trust\nhost all all all scram-sha-256\n";
        fs::write(postgres.data().join("pg_hba.conf"), hba).unwrap();
        postgres.start();
        assert!(postgres.psql("postgres", "CREATE DATABASE users").status.success());
        postgres.sql(&format!("CREATE ROLE users LOGIN PASSWORD '{PASSWORD}'"));
        postgres.sql(TABLE);
        postgres
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn start(&self) {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data());
        let addresses = format!("listen_addresses={}", self.ip);
        for option in [&addresses, "unix_socket_directories=", "fsync=off", "cluster_name=db-1"] {
            command.args(["-c", option]);
        }
        *self.server.lock().unwrap() = Some(command.stderr(log).spawn().unwrap());
        wait_until("the server to answer", || self.psql("postgres", "SELECT").status.success());
    }

    /// Ends its sessions and itself, as a restart does.
    pub(crate) fn stop(&self) {
        let mut server = self.server.lock().unwrap().take().expect("it runs");
        signal(server.id(), Signal::INT);
        server.wait().unwrap();
    }

    /// Freezes the server, or lets it go on. The kernel still takes its connections.
    pub(crate) fn signal_all(&self, word: Signal) {
        let server = self.server.lock().unwrap().as_ref().expect("it runs").id();
        signal(server, word);
        for child in children(server) {
            signal(child, word);
        }
    }

    pub(crate) fn url(&self, password: &str) -> String {
        format!("postgres://users:{password}@{}:5432/users", self.ip)
    }

    pub(crate) fn ip(&self) -> String {
        self.ip.to_string()
    }

    /// What SQL says, as superuser in the database of the service.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let output = self.psql("users", sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The sessions of the service: their processes.
    pub(crate) fn sessions(&self, condition: &str) -> Vec<u32> {
        let sql = format!("SELECT pid FROM pg_stat_activity WHERE usename = 'users' AND {condition}");
        self.sql(&sql).lines().map(|pid| pid.parse().unwrap()).collect()
    }

    /// How many of them wait for [`Lock`].
    pub(crate) fn blocked(&self) -> usize {
        self.sessions("wait_event_type = 'Lock'").len()
    }

    /// Lets nobody read the table as long as the value lives.
    pub(crate) fn lock(&self) -> Lock {
        let mut session = self.program("psql");
        session.args(["-XAtq", "-h", &self.ip(), "-U", "postgres", "users"]);
        let mut session = session.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stdin = session.stdin.take().unwrap();
        writeln!(stdin, "BEGIN; LOCK TABLE users;").unwrap();
        wait_until("the lock", || {
            self.sql(
                "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' \
                 AND relation = 'users'::regclass",
            ) == "1"
        });
        Lock { stdin: Some(stdin), session }
    }

    fn psql(&self, database: &str, sql: &str) -> std::process::Output {
        let mut psql = self.program("psql");
        psql.args([
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            &self.ip(),
            "-U",
            "postgres",
            "-c",
            sql,
            database,
        ]);
        psql.output().unwrap()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Run by the user that owns the data: the server refuses to run as root.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(programs().join(name));
        command.env_clear().env("LC_ALL", "C.UTF-8").current_dir("/").stdin(Stdio::null());
        let owner = fs::metadata(self.dir.path()).unwrap();
        if rustix::process::geteuid().is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(mut server) = self.server.lock().unwrap().take() else { return };
        // It takes its children with it, and frees what it shares with them; a frozen one cannot.
        let children = children(server.id());
        signal(server.id(), Signal::CONT);
        for child in children {
            signal(child, Signal::CONT);
        }
        signal(server.id(), Signal::QUIT);
        let _ = server.wait();
    }
}

/// A session that holds a lock.
#[derive(Debug)]
pub(crate) struct Lock {
    stdin: Option<ChildStdin>,
    session: Child,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The end of its input ends psql, and with it the transaction.
        drop(self.stdin.take());
        let _ = self.session.wait();
    }
}

fn claim() -> (Ipv4Addr, UdpSocket) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(0x9e37_79b1) >> 8;
    loop {
        let [_, a, b, c] = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes();
        let ip = Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254));
        if let Ok(claim) = UdpSocket::bind((ip, 5432)) {
            return (ip, claim);
        }
    }
}

/// The newest version of this machine.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let numbers = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let newest = numbers.max().expect("PostgreSQL: run `make postgres` in the root of the project");
    Path::new("/usr/lib/postgresql").join(newest.to_string()).join("bin")
}

/// The user `postgres`, which Debian's package makes.
fn account() -> (u32, u32) {
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let fields: Vec<&str> =
        accounts.lines().find(|line| line.starts_with("postgres:")).expect("postgres").split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let list = fs::read_to_string(path).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
