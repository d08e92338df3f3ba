//! The real binary, on its own address.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::address::Address;
use super::home;
use super::process::{Signal, signal, signal_group};
use super::wait::{wait_at_most, wait_until};

/// Stands for the balancer's own address in a configuration: `bind: "BALANCER:7000"`.
pub const BALANCER: &str = "BALANCER";

/// The link in its directory by which it is started.
const PROGRAM: &str = "pgsplit";
const LISTENERS: &str = "\
listeners:
  - {name: rw, bind: \"BALANCER:6432\", target: primary}
  - {name: ro, bind: \"BALANCER:6433\", target: prefer-standby}
";
const ADMIN: &str = "admin: {bind: \"BALANCER:8404\"}\n";

/// A running `pgsplit run`. Dropping it kills it.
#[derive(Debug)]
pub struct Balancer {
    _address: Address,
    rw: SocketAddr,
    ro: SocketAddr,
    admin: SocketAddr,
    dir: PathBuf,
    process: Mutex<Child>,
    /// The process that has taken the place of the one started here.
    heir: Mutex<Option<u32>>,
    out: Lines,
    log: Lines,
}

type Lines = Arc<Mutex<Vec<String>>>;

impl Balancer {
    /// Starts it over `config`, YAML in which `BALANCER` is its own address. Listeners `rw` and `ro` and the admin
    /// listener are added unless the text has its own. Returns when the admin listener answers.
    pub async fn start(config: &str) -> Self {
        Self::start_with(config, &[]).await
    }

    /// The same with environment variables.
    pub async fn start_with(config: &str, variables: &[(&str, &str)]) -> Self {
        Self::launch(config, variables).when_it_answers().await
    }

    async fn when_it_answers(self) -> Self {
        self.wait_answer().await;
        self
    }

    async fn wait_answer(&self) {
        wait_until("pgsplit to answer on its admin listener", async || {
            self.assert_running();
            self.get("/healthz").await.map(drop)
        })
        .await;
    }

    /// Starts it and waits for nothing, for tests of how it starts or refuses to.
    pub fn launch(config: &str, variables: &[(&str, &str)]) -> Self {
        Self::launch_logging_to(Stdio::piped(), config, variables)
    }

    /// The same with standard error led elsewhere; unless it is a new pipe, nothing of it is kept here.
    pub fn launch_logging_to(stderr: impl Into<Stdio>, config: &str, variables: &[(&str, &str)]) -> Self {
        Self::launch_under(&[], stderr, config, variables)
    }

    /// Starts it by way of another program, the words of whose command line these are and which becomes pgsplit in the
    /// end, such as `prlimit`. Returns when the admin listener answers.
    pub async fn start_under(words: &[&str], config: &str, variables: &[(&str, &str)]) -> Self {
        Self::launch_under(words, Stdio::piped(), config, variables).when_it_answers().await
    }

    fn launch_under(
        words: &[&str],
        stderr: impl Into<Stdio>,
        config: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let address = Address::claim();
        let dir = home::directory("pgsplit");
        let [rw, ro, admin] = [6432, 6433, 8404].map(|port| address.port(port));
        fs::write(dir.join("config.yaml"), complete(config, address.ip())).expect("our own directory");
        symlink(binary(), dir.join(PROGRAM)).expect("our own directory");

        let mut process = spawn(words, &dir, stderr.into(), variables);
        let out = collect(process.stdout.take().expect("piped"));
        let log = process.stderr.take().map(collect).unwrap_or_default();
        Self {
            _address: address,
            rw,
            ro,
            admin,
            dir,
            process: Mutex::new(process),
            heir: Mutex::default(),
            out,
            log,
        }
    }

    /// Kills it, and starts it again on the same addresses with the same file. Nothing that it then writes is kept
    /// here. Returns when the admin listener answers.
    pub async fn kill9_and_start_again(&self) {
        {
            let mut process = self.process.lock().unwrap();
            process.kill().expect("our own child");
            process.wait().expect("our own child");
            *process = spawn(&[], &self.dir, Stdio::null(), &[]);
            drop(process.stdout.take().map(collect));
        }
        self.wait_answer().await;
    }

    /// The listener for writes.
    pub fn rw(&self) -> SocketAddr {
        self.rw
    }

    /// The listener for reads.
    pub fn ro(&self) -> SocketAddr {
        self.ro
    }

    /// The admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Another port on its address.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.rw.ip(), port)
    }

    /// The configuration as the binary reads it.
    pub fn config_path(&self) -> PathBuf {
        self.dir.join("config.yaml")
    }

    /// Replaces the configuration, completed as in [`Self::start`], and tells nobody.
    pub fn write(&self, config: &str) {
        let SocketAddr::V4(rw) = self.rw else { unreachable!("our addresses are IPv4") };
        fs::write(self.config_path(), complete(config, *rw.ip())).expect("our own directory");
    }

    /// The body of `/metrics`.
    pub async fn metrics(&self) -> String {
        let (status, body) = self.get("/metrics").await.expect("pgsplit answers");
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The sum of the series that have this name and at least these labels, as in
    /// `pgsplit_node_up{node="n0"}`; 0 when no series has the labels. Panics when none has the name.
    pub async fn metric(&self, series: &str) -> f64 {
        sum(&self.metrics().await, series)
    }

    /// `/api/v1/status`.
    pub async fn status(&self) -> Value {
        let (status, body) = self.get("/api/v1/status").await.expect("pgsplit answers");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// The part of the status about one node.
    pub async fn node(&self, name: &str) -> Value {
        let status = self.status().await;
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes
            .into_iter()
            .find(|node| node["name"] == name)
            .unwrap_or_else(|| panic!("no node {name}: {status}"))
    }

    /// Waits until a node has this health, `up` or `down`.
    pub async fn wait_health(&self, name: &str, health: &str) {
        wait_until(&format!("{name} to be {health}"), async || {
            let node = self.node(name).await;
            if node["health"] == health { Ok(()) } else { Err(node) }
        })
        .await;
    }

    /// Waits until a node has this role, `primary` or `standby`.
    pub async fn wait_role(&self, name: &str, role: &str) {
        wait_until(&format!("{name} to be a {role}"), async || {
            let node = self.node(name).await;
            if node["role"] == role { Ok(()) } else { Err(node) }
        })
        .await;
    }

    /// Waits until every listener has a node and every node is up with a known role.
    pub async fn wait_ready(&self) {
        wait_until("pgsplit to be ready with every node up", async || {
            let (ready, _) = self.get("/readyz").await.map_err(|error| Value::from(error.to_string()))?;
            let status = self.status().await;
            let fine = |node: &Value| {
                node["health"] == "up" && matches!(node["role"].as_str(), Some("primary" | "standby"))
            };
            let all = status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(fine));
            if ready == 200 && all { Ok(()) } else { Err(status) }
        })
        .await;
    }

    /// The log so far: the lines of its error output that are JSON.
    pub fn log_lines(&self) -> Vec<Value> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The first log line with this `event` that fits.
    pub async fn wait_log(&self, event: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait_until(&format!("a fitting log line with event {event}"), async || {
            self.log_lines().into_iter().find(|line| line["event"] == event && fits(line))
        })
        .await
    }

    /// All it wrote to standard output.
    pub fn out(&self) -> String {
        joined(&self.out)
    }

    /// All it wrote to standard error.
    pub fn err(&self) -> String {
        joined(&self.log)
    }

    /// Sends a signal.
    pub fn signal(&self, word: Signal) {
        signal(self.pid(), word);
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.heir.lock().unwrap().unwrap_or_else(|| self.process.lock().unwrap().id())
    }

    /// Another process has taken its place, and writes where it wrote.
    pub fn succeeded_by(&self, pid: u32) {
        *self.heir.lock().unwrap() = Some(pid);
        fs::write(self.dir.join("pid"), format!("{pid}\n")).expect("our own directory");
    }

    /// Puts a script in the place of its program, or the program back.
    pub fn replace_program(&self, script: Option<&str>) {
        let path = self.dir.join(PROGRAM);
        fs::remove_file(&path).expect("our own directory");
        match script {
            None => symlink(binary(), path).expect("our own directory"),
            Some(script) => {
                let written = self.dir.join("script");
                fs::write(&written, format!("#!/bin/bash\n{script}\n")).expect("our own directory");
                fs::set_permissions(&written, fs::Permissions::from_mode(0o755)).expect("our own file");
                // By another process: one that another thread starts meanwhile has for a moment what is open for writing here,
                // and what is cannot be started.
                let copied = Command::new("cp").args([&written, &path]).status().expect("cp");
                assert!(copied.success());
            }
        }
    }

    /// Waits until it has ended, at most `patience`.
    pub async fn wait_exit(&self, patience: Duration) -> ExitStatus {
        wait_at_most(patience, "pgsplit to end", async || self.exited()).await
    }

    /// A GET of the admin listener: status and body.
    pub async fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        get(self.admin, path).await
    }

    fn exited(&self) -> Option<ExitStatus> {
        self.process.lock().unwrap().try_wait().expect("our own child")
    }

    fn assert_running(&self) {
        if let Some(status) = self.exited() {
            panic!("pgsplit ended with {status}:\n{}{}", self.out(), self.err());
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.err();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("the last of pgsplit's log:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        // And whoever has taken its place, or was to: all are in its group.
        signal_group(process.id(), Signal::KILL);
        let _ = process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The binary: `PGSPLIT_BIN`, what cargo built for a test, or the one beside an example.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("PGSPLIT_BIN") {
        // It is started from another directory.
        return std::path::absolute(path).expect("a path in PGSPLIT_BIN");
    }
    if let Some(path) = option_env!("CARGO_BIN_EXE_pgsplit") {
        return PathBuf::from(path);
    }
    let here = std::env::current_exe().expect("the path of this program");
    let beside = here.ancestors().skip(1).take(2).map(|dir| dir.join("pgsplit")).find(|path| path.is_file());
    beside.unwrap_or_else(|| {
        panic!("no pgsplit beside {}: run `make demo`, or say where it is in PGSPLIT_BIN", here.display())
    })
}

/// `pgsplit run` in a directory that has its configuration.
fn spawn(words: &[&str], dir: &Path, stderr: Stdio, variables: &[(&str, &str)]) -> Child {
    let binary = dir.join(PROGRAM);
    let words = words.iter().map(OsStr::new);
    let mut words = words.chain([binary.as_os_str(), OsStr::new("run"), OsStr::new("config.yaml")]);
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).current_dir(dir);
    // PGSPLIT_CONFIG, PGPASSFILE and the like of the one who runs the tests.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).process_group(0);
    let process = command.spawn().expect("pgsplit starts");
    // For the watchdog, should we be killed.
    fs::write(dir.join("pid"), format!("{}\n", process.id())).expect("our own directory");
    process
}

fn complete(config: &str, ip: Ipv4Addr) -> String {
    let mut text = config.to_owned();
    for (key, default) in [("listeners:", LISTENERS), ("admin:", ADMIN)] {
        if !config.lines().any(|line| line.starts_with(key)) {
            text.push_str(default);
        }
    }
    text.replace(BALANCER, &ip.to_string())
}

fn collect(stream: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let kept = Arc::clone(&lines);
    // A thread, so that a full pipe never stops the binary while a test is busy.
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    lines
}

fn joined(lines: &Lines) -> String {
    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}

/// A GET without keep-alive: status and body.
pub async fn get(addr: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await?;
        // HTTP/1.0: the answer is not chunked and ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::InvalidData)?;
        let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or(std::io::ErrorKind::InvalidData)?, body.to_owned()))
    };
    let deadline = Duration::from_secs(5);
    tokio::time::timeout(deadline, exchange)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

/// What [`Balancer::metric`] finds in a Prometheus text.
pub fn sum(text: &str, series: &str) -> f64 {
    find(text, series).unwrap_or_else(|| panic!("no metric of the name in {series}:\n{text}"))
}

/// The same; `None` when no series has the name.
pub fn find(text: &str, series: &str) -> Option<f64> {
    let (name, wanted) = series.split_once('{').unwrap_or((series, ""));
    let wanted: Vec<_> = wanted.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
    let mut total = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' '])) else {
            continue;
        };
        let Some((labels, value)) = rest.rsplit_once(' ') else { continue };
        let total = total.get_or_insert(0.0);
        // Each label between a brace or comma and a comma or brace, so that n1 is not found in n10.
        let labels = labels.replace(['{', '}'], ",");
        if wanted.iter().all(|label| labels.contains(&format!(",{label},"))) {
            *total += value.parse::<f64>().unwrap_or(f64::NAN);
        }
    }
    total
}
