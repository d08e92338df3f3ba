//! A cluster under Patroni: an etcd, and a Patroni with its server on each of several addresses.
//!
//! Patroni creates, starts, promotes and rewinds the servers; a test only says what it should do, as an operator would, and
//! breaks things.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use super::address::Address;
use super::balancer::get;
use super::client::PASSWORD;
use super::home;
use super::process::{Signal, children, signal};
use super::programs::programs;
use super::raw::exchange;
use super::wait::wait_at_most;

/// Patroni waits for as long as it has been told, several times in a row, and for the machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Seconds after which the place of a leader who is not heard of is free. Newer versions than 3.0 make 20 of it.
const TTL: u32 = 8;

/// Members `n0`, `n1`, …, of which Patroni makes one the primary.
#[derive(Debug)]
pub struct Patroni {
    _etcd: Etcd,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Etcd {
    _address: Address,
    client: SocketAddr,
    process: Process,
}

/// One Patroni and its server.
#[derive(Debug)]
pub struct Member {
    _address: Address,
    /// Where the server is.
    pub addr: SocketAddr,
    /// Where Patroni answers.
    pub api: SocketAddr,
    process: Process,
}

/// A program in a directory of its own, which the watchdog knows.
#[derive(Debug)]
struct Process {
    dir: PathBuf,
    child: Mutex<Option<Child>>,
}

/// What of it is not installed here; `None`: nothing is missing.
pub fn missing() -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["etcd", "patroni"]
        .into_iter()
        .find(|program| !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

impl Patroni {
    /// A primary and `members - 1` standbys that stream from it.
    pub async fn start(members: usize) -> Self {
        let etcd = Etcd::start();
        let members: Vec<_> = (0..members).map(|at| Member::start(at, etcd.client)).collect();
        let cluster = Self { _etcd: etcd, members };
        cluster.wait_whole().await;
        cluster
    }

    /// Member `n{i}`.
    pub fn member(&self, i: usize) -> &Member {
        &self.members[i]
    }

    /// The `nodes` of a configuration, and that Patroni is asked, with times that suit a busy machine.
    pub fn config(&self) -> String {
        let members = self.members.iter().enumerate();
        let nodes = members.map(|(i, Member { addr, api, .. })| {
            format!("  - {{name: n{i}, addr: \"{addr}\", patroni: \"{api}\"}}\n")
        });
        let nodes = nodes.collect::<Vec<_>>().concat();
        let check = "check: {type: patroni, interval: 500ms, fast_interval: 250ms, timeout: 3s, fall: 2}";
        format!("nodes:\n{nodes}{check}\n")
    }

    /// Who is the primary by its own account; of several the one on the latest timeline.
    pub async fn primary(&self) -> Option<usize> {
        let mut primaries = Vec::new();
        for (i, member) in self.members.iter().enumerate() {
            let said = member.says().await;
            if matches!(said["role"].as_str(), Some("primary" | "master")) && said["xlog"].is_object() {
                primaries.push((said["timeline"].as_u64(), i));
            }
        }
        primaries.into_iter().max().map(|(_, i)| i)
    }

    /// Waits until all are there and follow the primary's timeline.
    pub async fn wait_whole(&self) {
        wait_at_most(PATIENCE, "Patroni to have a primary and its standbys", async || {
            let mut said = Vec::new();
            for member in &self.members {
                said.push(member.says().await);
            }
            let timeline = &said[0]["timeline"];
            let is_whole = timeline.is_u64()
                && said.iter().all(|said| said["state"] == "running" && &said["timeline"] == timeline);
            if is_whole && self.primary().await.is_some() { Ok(()) } else { Err(said) }
        })
        .await;
    }

    /// Waits until another one than `i` is the primary.
    pub async fn wait_failover_from(&self, i: usize) -> usize {
        wait_at_most(PATIENCE, "Patroni to promote another one", async || {
            self.primary().await.filter(|primary| *primary != i)
        })
        .await
    }

    /// Has the primary hand over, as `patronictl switchover` does. Returns when that is done.
    pub async fn switch_over(&self, from: usize, to: usize) {
        let order = format!("{{\"leader\": \"n{from}\", \"candidate\": \"n{to}\"}}");
        // It refuses (503) while the candidate's last word to etcd is too old, and may say so of what it then does.
        wait_at_most(PATIENCE, "Patroni to hand over", async || {
            let answer = self.members[from].asked("POST", "/switchover", &order).await;
            if answer.contains("uccessfully") || self.primary().await == Some(to) {
                Ok(())
            } else {
                Err(answer)
            }
        })
        .await;
    }

    /// Has all of Patroni leave the cluster alone, or look after it again.
    pub async fn set_paused(&self, is_paused: bool) {
        let answer = self.members[0].asked("PATCH", "/config", &format!("{{\"pause\": {is_paused}}}")).await;
        assert!(answer.contains(" 200 "), "{answer}");
    }
}

impl Member {
    fn start(at: usize, etcd: SocketAddr) -> Self {
        let address = Address::claim();
        let (addr, api) = (address.port(5432), address.port(8008));
        let process = Process::new("patroni");
        let member = Self { _address: address, addr, api, process };
        let dir = member.process.dir.display();
        let bin = programs().bin();
        let settings = format!(
            "scope: it\nname: n{at}\nrestapi: {{listen: '{api}', connect_address: '{api}'}}\n\
             etcd3: {{host: '{etcd}'}}\n\
             bootstrap:\n  dcs:\n    {{ttl: {TTL}, loop_wait: 1, retry_timeout: 3, postgresql: {{use_pg_rewind: true}}}}\n  \
             initdb: [encoding: UTF8, no-locale, no-sync, wal-segsize: '1']\n\
             postgresql:\n  listen: '{addr}'\n  connect_address: '{addr}'\n  data_dir: '{dir}/data'\n  \
             bin_dir: '{}'\n  pgpass: '{dir}/pgpass'\n  \
             pg_hba: [host all all all scram-sha-256, host replication all all scram-sha-256]\n  \
             parameters: {{unix_socket_directories: '', fsync: 'off', wal_log_hints: 'on'}}\n  \
             authentication:\n    superuser: {{username: postgres, password: {PASSWORD}}}\n    \
             replication: {{username: replicator, password: {PASSWORD}}}\n",
            bin.display()
        );
        fs::write(member.settings(), settings).expect("our own directory");
        member.start_patroni();
        member
    }

    fn settings(&self) -> PathBuf {
        self.process.dir.join("patroni.yaml")
    }

    /// Starts Patroni, again or for the first time; it takes over the server that it finds.
    pub fn start_patroni(&self) {
        let mut command = programs().system_command("patroni");
        command.arg(self.settings());
        self.process.start(command);
    }

    /// Kills Patroni as the kernel's memory killer does. Its server knows nothing of that.
    pub fn kill9_patroni(&self) {
        self.process.kill9();
    }

    /// Kills Patroni and its server at once, as a power cut does.
    pub fn kill9(&self) {
        self.process.kill9();
        let Some(postmaster) = self.postmaster() else { return };
        // A stopped postmaster forks no further child while its children are counted.
        signal(postmaster, Signal::STOP);
        for process in children(postmaster).into_iter().chain([postmaster]) {
            signal(process, Signal::KILL);
        }
    }

    /// The process number of the server. A killed one leaves it behind, and by now it may be somebody else's.
    fn postmaster(&self) -> Option<u32> {
        let data = self.process.dir.join("data");
        let pid: u32 = fs::read_to_string(data.join("postmaster.pid")).ok()?.lines().next()?.parse().ok()?;
        let works_in = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        (works_in == data).then_some(pid)
    }

    /// A killed server leaves a piece of shared memory behind.
    fn free_shared_memory(&self) {
        let Ok(file) = fs::read_to_string(self.process.dir.join("data/postmaster.pid")) else { return };
        if let Some(segment) = file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            let mut command = programs().system_command("ipcrm");
            let _ = command.args(["-m", segment]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }

    /// Adds tags, such as `noloadbalance: true`, or removes all, and has Patroni read that.
    pub fn set_tags(&self, tags: &str) {
        let settings = fs::read_to_string(self.settings()).expect("our own directory");
        let others: Vec<_> = settings.lines().filter(|line| !line.starts_with("tags:")).collect();
        let others = others.join("\n");
        fs::write(self.settings(), format!("{others}\ntags: {{{tags}}}\n")).expect("our own directory");
        self.process.signal(Signal::HUP);
    }

    /// What Patroni says of itself; null while it says nothing.
    pub async fn says(&self) -> Value {
        let answer = get(self.api, "/health").await;
        answer.ok().and_then(|(_, body)| serde_json::from_str(&body).ok()).unwrap_or_default()
    }

    /// The whole answer to an order, once it takes any: it may just have been started.
    async fn asked(&self, method: &str, path: &str, body: &str) -> String {
        wait_at_most(PATIENCE, "Patroni to answer", async || self.says().await.is_object()).await;
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
        String::from_utf8_lossy(&exchange(self.api, request).await).into_owned()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill9();
        self.free_shared_memory();
    }
}

impl Etcd {
    fn start() -> Self {
        let address = Address::claim();
        let (client, peer) = (address.port(2379), address.port(2380));
        let process = Process::new("etcd");
        let mut command = programs().system_command("etcd");
        command.arg("--data-dir").arg(process.dir.join("etcd")).args([
            "--name",
            "it",
            "--log-level",
            "error",
        ]);
        for (name, addr) in [("client", client), ("peer", peer)] {
            command.arg(format!("--listen-{name}-urls=http://{addr}"));
        }
        command.arg(format!("--advertise-client-urls=http://{client}"));
        command.arg(format!("--initial-advertise-peer-urls=http://{peer}"));
        command.arg(format!("--initial-cluster=it=http://{peer}")).arg("--logger=zap");
        process.start(command);
        Self { _address: address, client, process }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.process.kill9();
    }
}

impl Process {
    fn new(name: &str) -> Self {
        Self { dir: home::directory_of(programs().owner, name), child: Mutex::default() }
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn start(&self, mut command: Command) {
        let mut child = self.child.lock().unwrap();
        assert!(child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log()).expect("our own directory");
        command.current_dir(&self.dir).env("LC_ALL", "C.UTF-8").process_group(0);
        command.stdout(log.try_clone().expect("a file")).stderr(log).stdin(Stdio::null());
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // For the watchdog, should we be killed.
        fs::write(self.dir.join("pid"), format!("{}\n", process.id())).expect("our own directory");
        *child = Some(process);
    }

    fn signal(&self, word: Signal) {
        signal(self.child.lock().unwrap().as_ref().expect("it runs").id(), word);
    }

    fn kill9(&self) {
        let Some(mut process) = self.child.lock().unwrap().take() else { return };
        let _ = process.kill();
        let _ = process.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "the last of {}:\n{}",
                self.log().display(),
                lines[lines.len().saturating_sub(15)..].join("\n")
            );
        }
        remove(&self.dir);
    }
}

/// Servers that have just been killed may still be at it.
fn remove(dir: &Path) {
    for _ in 0..3 {
        if fs::remove_dir_all(dir).is_ok() {
            return;
        }
    }
}
