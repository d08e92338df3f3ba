//! One running `PostgreSQL` server.
//!
//! `initdb` takes seconds, a copy of its result a fraction of one. So the first test on a machine makes a
//! template, under a lock, and every server starts as a copy of it.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_postgres::{Client, Config, Error};

use super::address::Address;
use super::client::{self, PASSWORD, Rows};
use super::home;
use super::process::{Signal, children, signal};
use super::programs::{Owner, programs, run};
use super::tls;
use super::wait::{wait_at_most, wait_until};

/// The role this file works through. Every `pg_hba.conf` here begins by letting it in, so that a test can shut
/// everybody else out.
const SUPPORT: &str = "support";

/// Roles of every server: `postgres` (superuser), `lb_check` (for checks) and `app` (an ordinary one, which may
/// create tables), all with [`PASSWORD`].
const ROLES: &str = "\
create role support superuser login
alter role postgres password 'pgsplit'
create role lb_check login password 'pgsplit'
create role app login password 'pgsplit'
grant create on schema public to app
";

/// No locale and no sync, because tests need neither; small segments, because they are copied.
const INITDB: [&str; 6] =
    ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--wal-segsize=1"];

/// How a server is set up. Start from `Settings::default()`.
#[derive(Clone, Debug)]
pub struct Settings {
    max_connections: u32,
    tls: bool,
    hba: Vec<String>,
    options: Vec<(String, String)>,
}

impl Default for Settings {
    /// 100 connections, no TLS, everybody trusted.
    fn default() -> Self {
        Self { max_connections: 100, tls: false, hba: Vec::new(), options: Vec::new() }.auth("trust")
    }
}

impl Settings {
    /// Three of these are reserved for superusers, as always.
    #[must_use]
    pub fn max_connections(mut self, n: u32) -> Self {
        self.max_connections = n;
        self
    }

    /// `ssl = on`, as Debian's packages have it.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// One method of `pg_hba.conf` for everybody: `trust`, `scram-sha-256`, `md5`, `password`, `reject`.
    #[must_use]
    pub fn auth(self, method: &str) -> Self {
        self.hba(&[&format!("host all,replication all all {method}")])
    }

    /// Lines of `pg_hba.conf`, for instance `hostssl all all all scram-sha-256`.
    #[must_use]
    pub fn hba(mut self, lines: &[&str]) -> Self {
        self.hba = lines.iter().map(|&line| line.to_owned()).collect();
        self
    }

    /// Any other setting.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With the method `md5` a SCRAM secret would still mean a SCRAM exchange.
    fn wants_md5(&self) -> bool {
        self.hba.iter().any(|line| line.split_whitespace().any(|word| word == "md5"))
    }
}

/// How a server is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Waits for the sessions to end.
    Smart,
    /// Ends the sessions in order.
    Fast,
    /// Drops everything; the next start recovers.
    Immediate,
}

/// A server with its own address and data. Dropping it kills it and deletes its data.
#[derive(Debug)]
pub struct Postgres {
    address: Address,
    addr: SocketAddr,
    dir: PathBuf,
    settings: Settings,
    server: Mutex<Option<Child>>,
}

impl Postgres {
    /// A running primary.
    pub async fn start_new(settings: Settings) -> Self {
        let server = Self::reserve(settings);
        server.create().await;
        server.start().await;
        server
    }

    /// An address and a directory, nothing in it and nothing running: what stands in a configuration can be known
    /// before the server is there.
    pub fn reserve(settings: Settings) -> Self {
        let address = Address::claim();
        let addr = address.port(5432);
        let dir = home::directory_of(programs().owner, "postgres");
        Self { address, addr, dir, settings, server: Mutex::new(None) }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Fills the empty directory with the data of a new primary.
    pub async fn create(&self) {
        static TEMPLATE: OnceCell<PathBuf> = OnceCell::const_new();
        let template = TEMPLATE.get_or_init(template).await;
        let mut copy = programs().system_command("cp");
        copy.arg("-a").arg(template).arg(self.data());
        run(copy).await;
    }

    /// Fills the empty directory with a copy of the running `primary`, to follow it.
    pub async fn create_standby_of(&self, primary: &Self) {
        let mut backup = programs().command("pg_basebackup");
        backup.arg("--pgdata").arg(self.data()).arg("--dbname").arg(self.conninfo_to(primary)).args([
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-sync",
        ]);
        run(backup).await;
    }

    /// Deletes the data of a stopped server and makes it a standby of `primary`, at its old address.
    pub async fn recreate_standby_of(&self, primary: &Self) {
        assert!(self.server.lock().unwrap().is_none(), "stop the server first");
        self.free_shared_memory();
        fs::remove_dir_all(self.data()).expect("our own data");
        self.create_standby_of(primary).await;
        self.start().await;
    }

    /// Starts the server, again or for the first time, and waits until it accepts sessions.
    pub async fn start(&self) {
        self.launch();
        let what = format!("the server on {} to accept sessions", self.addr);
        wait_until(&what, async || {
            self.assert_running();
            self.client().await.map(drop)
        })
        .await;
        if self.settings.wants_md5() && !self.in_recovery().await {
            let mut sql = "set password_encryption = 'md5'".to_owned();
            for role in ["postgres", "lb_check", "app"] {
                let _ = write!(sql, "; alter role {role} password '{PASSWORD}'");
            }
            self.sql(&sql).await;
        }
    }

    /// Starts the server and waits for nothing, for tests of what it answers until it is ready.
    pub fn launch(&self) {
        let mut server = self.server.lock().unwrap();
        assert!(server.is_none(), "the server on {} runs already", self.addr);
        self.write_hba();
        let log =
            OpenOptions::new().create(true).append(true).open(self.log_path()).expect("our own directory");
        let mut command = programs().command("postgres");
        command.arg("-D").arg(self.data());
        for (name, value) in self.all_options() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdout(Stdio::null()).stderr(log).process_group(0);
        *server = Some(command.spawn().expect("postgres starts"));
    }

    /// Stops the server and waits until it is gone. `Smart` waits as long as there are sessions.
    pub async fn stop(&self, how: Stop) {
        self.tell_to_stop(how);
        self.gone(&format!("the server on {} to stop ({how:?})", self.addr)).await;
    }

    /// Tells the server to stop and waits for nothing.
    pub fn tell_to_stop(&self, how: Stop) {
        let word = match how {
            Stop::Smart => Signal::TERM,
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        signal(self.pid(), word);
    }

    /// [`Self::stop`] and [`Self::start`].
    pub async fn restart(&self, how: Stop) {
        self.stop(how).await;
        self.start().await;
    }

    /// Ends the server and all its processes at once, as a power cut or the kernel's memory killer does.
    pub async fn kill9(&self) {
        let postmaster = self.pid();
        // A stopped postmaster forks no further child while its children are counted.
        signal(postmaster, Signal::STOP);
        for child in children(postmaster) {
            signal(child, Signal::KILL);
        }
        signal(postmaster, Signal::KILL);
        self.gone(&format!("the server on {} to be killed", self.addr)).await;
    }

    /// Freezes the server and all its processes. The kernel still completes TCP handshakes in its place.
    pub fn sigstop(&self) {
        signal(self.pid(), Signal::STOP);
        for child in children(self.pid()) {
            signal(child, Signal::STOP);
        }
    }

    /// Lets a frozen server go on.
    pub fn sigcont(&self) {
        for child in children(self.pid()) {
            signal(child, Signal::CONT);
        }
        signal(self.pid(), Signal::CONT);
    }

    /// Makes a standby a primary, and waits until it is one.
    pub async fn promote(&self) {
        let promoted = self.value("select pg_promote(true, 20)").await;
        assert_eq!(promoted, "t", "promotion of {}\n{}", self.addr, self.log());
    }

    /// Starts the stopped server as a standby of `primary`, which has all that it has: an old primary after an orderly
    /// stop.
    pub async fn start_as_standby_of(&self, primary: &Self) {
        let signal = self.data().join("standby.signal");
        File::create(&signal).expect("our own data");
        home::give(&signal, programs().owner);
        let mut settings = OpenOptions::new()
            .append(true)
            .open(self.data().join("postgresql.auto.conf"))
            .expect("initdb makes this file");
        writeln!(settings, "primary_conninfo = '{}'", self.conninfo_to(primary)).expect("our own data");
        self.start().await;
    }

    /// Makes a running standby follow another primary.
    pub async fn follow(&self, primary: &Self) {
        let conninfo = self.conninfo_to(primary);
        // Two messages: in one they would be a transaction block, which this statement refuses.
        self.sql(&format!("alter system set primary_conninfo = '{conninfo}'")).await;
        self.sql("select pg_reload_conf()").await;
    }

    /// Replaces the lines of `pg_hba.conf` and makes the server read them.
    pub async fn set_hba(&mut self, lines: &[&str]) {
        self.settings = self.settings.clone().hba(lines);
        self.write_hba();
        let loaded = self.value("select pg_conf_load_time()").await;
        self.sql("select pg_reload_conf()").await;
        wait_until("the server to read its pg_hba.conf", async || {
            self.value("select pg_conf_load_time()").await != loaded
        })
        .await;
    }

    /// Whether it is a standby.
    pub async fn in_recovery(&self) -> bool {
        self.value("select pg_is_in_recovery()").await == "t"
    }

    /// Runs SQL on this very server, whatever its `pg_hba.conf` says to others; panics when that fails.
    pub async fn sql(&self, sql: &str) -> Rows {
        self.try_sql(sql).await.unwrap_or_else(|error| panic!("{}: {sql}: {error:?}", self.addr))
    }

    /// The first field of the first row of `sql`.
    pub async fn value(&self, sql: &str) -> String {
        let rows = self.sql(sql).await;
        let field = rows.first().and_then(|row| row.first()).and_then(Clone::clone);
        field.unwrap_or_else(|| panic!("{}: `{sql}` has no value", self.addr))
    }

    /// [`Self::sql`] for a server that may be gone.
    pub async fn try_sql(&self, sql: &str) -> Result<Rows, Error> {
        client::rows(&self.client().await?, sql).await
    }

    /// What the server has logged since it was made.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The number of the postmaster.
    pub fn pid(&self) -> u32 {
        self.running_pid().unwrap_or_else(|| panic!("the server on {} does not run", self.addr))
    }

    /// Whether it was started and has not been stopped or killed by a method here.
    pub fn is_running(&self) -> bool {
        self.running_pid().is_some()
    }

    fn running_pid(&self) -> Option<u32> {
        self.server.lock().unwrap().as_ref().map(Child::id)
    }

    async fn client(&self) -> Result<Client, Error> {
        let mut config: Config = client::config(self.addr);
        config.user(SUPPORT).application_name(SUPPORT).connect_timeout(Duration::from_secs(5));
        client::connect_with(config).await
    }

    fn assert_running(&self) {
        let mut server = self.server.lock().unwrap();
        let ended = server.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = ended {
            *server = None;
            panic!("the server on {} ended with {status}:\n{}", self.addr, self.log());
        }
    }

    async fn gone(&self, what: &str) {
        wait_at_most(Duration::from_secs(60), what, async || {
            let mut server = self.server.lock().unwrap();
            let ended = server.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))));
            if ended {
                *server = None;
            }
            ended
        })
        .await;
    }

    fn all_options(&self) -> Vec<(String, String)> {
        let text = |value: &dyn ToString| value.to_string();
        let mut options = vec![
            ("listen_addresses", text(&self.addr.ip())),
            ("port", text(&self.addr.port())),
            ("unix_socket_directories", String::new()),
            ("hba_file", self.dir.join("pg_hba.conf").display().to_string()),
            ("max_connections", text(&self.settings.max_connections)),
            ("log_line_prefix", "%m [%p] %u ".to_owned()),
            // Data of a test need not survive the machine.
            ("fsync", "off".to_owned()),
            ("full_page_writes", "off".to_owned()),
            // Many servers run side by side, and shared memory in files goes when the directory goes.
            ("shared_buffers", "16MB".to_owned()),
            ("dynamic_shared_memory_type", "mmap".to_owned()),
            // A standby that lost its primary looks again soon, and finds what it missed.
            ("wal_retrieve_retry_interval", "100ms".to_owned()),
            ("wal_keep_size", "64MB".to_owned()),
        ];
        if self.settings.tls {
            let tls = tls::certificate();
            options.push(("ssl", "on".to_owned()));
            options.push(("ssl_cert_file", tls.cert.display().to_string()));
            options.push(("ssl_key_file", tls.key.display().to_string()));
        }
        let options = options.into_iter().map(|(name, value)| (name.to_owned(), value));
        options.chain(self.settings.options.clone()).collect()
    }

    fn write_hba(&self) {
        let mut text = format!("host all,replication {SUPPORT} 127.0.0.0/8 trust\n");
        for line in &self.settings.hba {
            let _ = writeln!(text, "{line}");
        }
        fs::write(self.dir.join("pg_hba.conf"), text).expect("our own directory");
    }

    fn conninfo_to(&self, primary: &Self) -> String {
        let (ip, port) = (primary.addr.ip(), primary.addr.port());
        format!("host={ip} port={port} user={SUPPORT} application_name={} sslmode=disable", self.address.ip())
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// A server that was killed leaves its small System V segment behind, of which a machine has a limited number;
    /// its next start would clear it up, but there may be none. The number is the last word of line seven.
    fn free_shared_memory(&self) {
        let Ok(lock_file) = fs::read_to_string(self.data().join("postmaster.pid")) else { return };
        let segment = lock_file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
        if let Some(segment) = segment {
            let mut command = programs().system_command("ipcrm");
            let _ = command.args(["-m", segment]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let server = self.server.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(child) = server {
            end(child);
        }
        self.free_shared_memory();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Asks for an immediate stop, which leaves nothing behind, and insists after three seconds.
fn end(mut postmaster: Child) {
    let pid = postmaster.id();
    for process in children(pid).into_iter().chain([pid]) {
        // It may be frozen.
        signal(process, Signal::CONT);
    }
    signal(pid, Signal::QUIT);
    for _ in 0..300 {
        if !matches!(postmaster.try_wait(), Ok(None)) {
            return;
        }
        // Not a wait for a test's condition: a destructor cannot be asynchronous.
        std::thread::sleep(Duration::from_millis(10));
    }
    for process in [pid].into_iter().chain(children(pid)) {
        signal(process, Signal::KILL);
    }
    let _ = postmaster.wait();
}

/// Makes the template unless it is there, and returns where it is.
async fn template() -> PathBuf {
    let programs = programs();
    let mut kind = DefaultHasher::new();
    (&programs.version, INITDB, ROLES).hash(&mut kind);
    let user = match programs.owner {
        Owner::Same => rustix::process::geteuid().as_raw(),
        Owner::Other { uid, .. } => uid,
    };
    let name = format!("pgsplit-template-{user}-{:016x}", kind.finish());
    let template = std::env::temp_dir().join(&name);

    // The lock goes with this process, so nobody waits for a dead one.
    let lock_path = std::env::temp_dir().join(format!("{name}.{}.lock", rustix::process::geteuid().as_raw()));
    let _lock = tokio::task::spawn_blocking(move || {
        let file = File::create(lock_path).expect("a lock file in the temporary directory");
        file.lock().map(|()| file)
    })
    .await
    .expect("no panic")
    .expect("a lock");
    match fs::metadata(&template) {
        // Others may write to the temporary directory, too.
        Ok(found) => assert_eq!(found.uid(), user, "{} belongs to somebody else", template.display()),
        Err(_) => make_template(&template).await,
    }
    template
}

async fn make_template(template: &Path) {
    let programs = programs();
    let dir = home::directory_of(programs.owner, "template");
    let data = dir.join("data");
    let mut initdb = programs.command("initdb");
    initdb.arg("--pgdata").arg(&data).args(INITDB);
    run(initdb).await;

    let mut single = programs.command("postgres");
    single.arg("--single").arg("-D").arg(&data).args(["-c", "fsync=off", "postgres"]).stdin(Stdio::piped());
    tokio::task::spawn_blocking(move || feed(single, ROLES)).await.expect("the roles are made");
    // Whole or not at all: a half-made template would fail every later run. Both are in the temporary directory.
    fs::rename(&data, template).expect("rename within the temporary directory");
}

/// Runs a single-user server over `sql`, one statement a line. It ends well whatever the statements did, so what
/// it says is looked at.
fn feed(mut single: Command, sql: &str) {
    let mut child = single.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("postgres --single");
    child.stdin.take().expect("piped").write_all(sql.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("ERROR"), "making roles: {said}");
}
