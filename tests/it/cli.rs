//! The command line, as a person meets it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::address::Address;
use crate::support::balancer::{Balancer, get};
use crate::support::client::{connect, value};
use crate::support::cluster::{Cluster, config_for, shared};
use crate::support::home;
use crate::support::postgres::{Postgres, Settings};
use crate::support::process::{Signal, signal};
use crate::support::wait::wait_until;
use crate::tools::output;

const BINARY: &str = env!("CARGO_BIN_EXE_pgsplit");

async fn pgsplit(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(BINARY);
    command.args(args).env_clear().envs(env.iter().copied()).current_dir(std::env::temp_dir());
    let Output { status, stdout, stderr } = output(command).await;
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

/// A process that is not over a file of ours. Dropping it kills it, and the watchdog knows it.
struct Running {
    child: Child,
    dir: PathBuf,
    ip: Ipv4Addr,
    _address: Address,
}

impl Running {
    /// Starts it with the default listeners on an address of its own.
    fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let (address, dir) = (Address::claim(), home::directory("running"));
        let open = |name: &str| std::fs::File::create(dir.join(name)).unwrap();
        let mut command = Command::new(BINARY);
        command.args(args).env_clear().env("PGSPLIT_BIND", address.ip().to_string());
        command.envs(env.iter().copied()).current_dir(&dir).process_group(0);
        let child = command.stdin(Stdio::null()).stdout(open("out")).stderr(open("err")).spawn().unwrap();
        std::fs::write(dir.join("pid"), format!("{}\n", child.id())).unwrap();
        Self { child, dir, ip: address.ip(), _address: address }
    }

    fn at(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    /// What it has printed and logged.
    fn said(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.dir.join(name)).unwrap();
        read("out") + &read("err")
    }

    async fn wait_health(&self) {
        wait_until("the process to answer", async || {
            get(self.at(8404), "/healthz").await.map_err(|error| format!("{error}: {}", self.said()))
        })
        .await;
    }

    async fn end(mut self, word: Signal) -> Option<i32> {
        signal(self.child.id(), word);
        wait_until("it to end", async || self.child.try_wait().unwrap()).await.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn file(name: &str, text: &str) -> String {
    let dir = home::directory("cli");
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn check_shows_every_fault_with_its_place_and_no_secret() {
    let good = file("good.yaml", "nodes: [{addr: db1, role: primary}]\n");
    let (code, said) = pgsplit(&["check", &good], &[]).await;
    assert_eq!((code, said.contains("ok (1 node and 2 listeners)")), (Some(0), true), "{said}");
    let http = file("http.yaml", "nodes: [{addr: db1, role: primary}]\nhttp: {upstreams: [users1]}\n");
    let (code, said) = pgsplit(&["check", &http], &[]).await;
    assert_eq!((code, said.contains("ok (1 node, 2 listeners and 1 HTTP front)")), (Some(0), true), "{said}");
    let bad = file(
        "bad.yaml",
        "nodes:\n  - {addr: db1, rol: primary}\ncheck: {user: u, password: canary-1, intervall: 2s, timeout: 3}\n",
    );
    let (code, said) = pgsplit(&["check", &bad], &[]).await;
    assert_eq!(code, Some(78));
    for part in [
        "bad.yaml:2:",
        "did you mean `role`?",
        "bad.yaml:3:",
        "did you mean `interval`?",
        "did you mean 3s or 3ms?",
    ] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    assert!(!said.contains("canary"), "{said}");
    let (code, said) = pgsplit(&["check", "/nonexistent/file.yaml"], &[]).await;
    assert_eq!((code, said.contains("cannot read /nonexistent/file.yaml")), (Some(78), true), "{said}");
}

#[tokio::test]
async fn check_connect_looks_at_every_node() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let path = file("connect.yaml", &cluster.config());
    let (code, said) = pgsplit(&["check", &path, "--connect"], &[]).await;
    assert_eq!((code, said.contains("up, standby, PostgreSQL ")), (Some(0), true), "{said}");
    cluster.standby(0).kill9().await;
    let (code, said) = pgsplit(&["check", &path, "--connect"], &[]).await;
    assert_eq!((code, said.contains("down: connect: connection refused")), (Some(1), true), "{said}");
}

#[tokio::test]
async fn probe_shows_each_step_and_ends_like_pg_isready() {
    let node = Postgres::start_new(Settings::default().tls().auth("scram-sha-256")).await;
    let addr = node.addr().to_string();
    let (code, said) = pgsplit(&["probe", &addr, "--user", "lb_check"], &[("PGPASSWORD", "pgsplit")]).await;
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "resolve",
        "connect",
        "tls",
        "offered",
        "scram-sha-256",
        "primary, PostgreSQL ",
        "accepting connections, primary",
    ] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    let (code, said) = pgsplit(&["probe", &addr], &[]).await;
    assert_eq!((code, said.contains("accepting connections")), (Some(0), true), "{said}");
    node.kill9().await;
    let (code, said) = pgsplit(&["probe", &addr], &[]).await;
    assert_eq!((code, said.contains("no answer: connect: connection refused")), (Some(2), true), "{said}");
    let (code, _) = pgsplit(&["probe", "db:port"], &[]).await;
    let (_, said) = pgsplit(&["probe", "db:99999"], &[]).await;
    assert!(
        said.starts_with("probe  db:99999: ") && !said.contains("primary"),
        "only what was written: {said}"
    );
    assert_eq!(code, Some(3));
    let refusing = crate::support::wire::FakeNode::start(|mut wire| async move {
        let _ = wire.first_packet().await;
        let _ = wire
            .send(&crate::support::wire::error("FATAL", "57P03", "the database system is starting up"))
            .await;
    })
    .await;
    let (code, said) = pgsplit(&["probe", &refusing.addr().to_string()], &[]).await;
    assert_eq!(
        (code, said.contains("rejecting connections: startup: 57P03 the database system")),
        (Some(1), true),
        "{said}"
    );
}

#[tokio::test]
async fn a_url_or_nodes_are_a_whole_configuration() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let (a, b) = (cluster.primary().addr(), cluster.standby(0).addr());
    let url = format!("postgres://lb_check:pgsplit@{a},{b}/postgres");
    let (node_a, node_b) = (a.to_string(), b.to_string());
    for args in [vec!["run", "--from-url", &url], vec!["run", "--node", &node_a, "--node", &node_b]] {
        let running = Running::start(&args, &[("PGUSER", "lb_check"), ("PGPASSWORD", "pgsplit")]);
        wait_until("both listeners to serve", async || {
            let writer = connect(running.at(6432)).await.ok()?;
            let reader = connect(running.at(6433)).await.ok()?;
            let writes = value(&writer, "select pg_is_in_recovery()").await.ok()?;
            let reads = value(&reader, "select pg_is_in_recovery()").await.ok()?;
            (writes == "f" && reads == "t").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn nodes_with_written_roles_need_no_account() {
    let cluster = shared().await;
    let nodes = ["primary", "replica", "standby"];
    let nodes: Vec<_> =
        cluster.nodes().iter().zip(nodes).map(|(node, role)| format!("{}={role}", node.addr())).collect();
    let args = ["run", "--node", &nodes[0], "--node", &nodes[1], "--node", &nodes[2]];
    let running = Running::start(&args, &[]);
    running.wait_health().await;
    for (port, in_recovery) in [(6432, "f"), (6433, "t")] {
        let client = connect(running.at(port)).await.unwrap();
        assert_eq!(value(&client, "select pg_is_in_recovery()").await.unwrap(), in_recovery);
    }
}

#[tokio::test]
async fn a_password_in_a_url_or_a_variable_is_shown_nowhere() {
    const CANARY: &str = "canary-77aa01";
    let hba = ["host all secretive all scram-sha-256"];
    let server = Postgres::start_new(Settings::default().hba(&hba)).await;
    server.sql(&format!("create role secretive login password '{CANARY}'")).await;
    let addr = server.addr();
    let (node, url) = (addr.to_string(), format!("postgres://secretive:{CANARY}@{addr}/postgres"));
    let login = [("PGUSER", "secretive"), ("PGPASSWORD", CANARY), ("PGSPLIT_LOG", "trace")];
    let by_variable = [("PGSPLIT_FROM_URL", &*url), ("PGSPLIT_LOG", "trace")];
    for (args, env) in [
        (vec!["run", "--from-url", &url], &login[2..]),
        (vec!["run"], &by_variable[..]),
        (vec!["run", "--node", &node], &login[..]),
    ] {
        let running = Running::start(&args, env);
        running.wait_health().await;
        let page = async |path| get(running.at(8404), path).await.unwrap().1;
        // The password was right, so it was used.
        wait_until("the role", async || page("/api/v1/status").await.contains("\"role\": \"primary\"")).await;
        let said =
            running.said() + &page("/api/v1/status").await + &page("/metrics").await + &page("/").await;
        assert!(!said.contains(CANARY), "{said}");
    }
    // Nor in what is wrong with it.
    for bad in [
        format!("{url}?sslmode=verify-full"),
        format!("postgres://u:{CANARY}@{addr}:x/db"),
        url.replace("//", "/"),
    ] {
        let (code, said) = pgsplit(&["run", "--from-url", &bad], &[]).await;
        assert_eq!((code, said.contains(CANARY)), (Some(78), false), "{said}");
    }
    let (code, said) = pgsplit(&["run", "--from-url", &url, "--node", &node], &[]).await;
    assert_eq!((code, said.contains(CANARY)), (Some(2), false), "{said}");
    let (code, said) = pgsplit(&["run", "--frm-url", &url], &[]).await;
    assert_eq!((code, said.contains(CANARY)), (Some(2), false), "{said}");
    let (_, said) = pgsplit(&["probe", &node], &login).await;
    assert!(!said.contains(CANARY), "{said}");
}

#[tokio::test]
async fn healthcheck_tells_alive_from_ready_and_from_gone() {
    let node = Postgres::start_new(Settings::default()).await;
    let path = file("healthcheck.yaml", &format!("nodes: [{{addr: \"{}\", role: primary}}]\n", node.addr()));
    let mut running = Running::start(&["run", &path], &[]);
    running.wait_health().await;
    let here = running.ip.to_string();
    // The address is found as `run` found it: in the file, with the same environment.
    let env = [("PGSPLIT_BIND", here.as_str())];
    let ready = async |timeout| pgsplit(&["healthcheck", "--ready", "-t", timeout, &path], &env).await;
    wait_until("both listeners", async || match ready("3s").await {
        (Some(0), _) => Ok(()),
        (_, said) => Err(said),
    })
    .await;
    assert_eq!(pgsplit(&["healthcheck", &path], &env).await, (Some(0), "ok\n".to_owned()));

    node.kill9().await;
    wait_until("no listener", async || ready("3s").await.0 == Some(1)).await;
    let (_, said) = ready("3s").await;
    assert!(said.contains("/readyz answered 503\nlistener \"rw\" has no node"), "{said}");
    assert_eq!(pgsplit(&["healthcheck", &path], &env).await.0, Some(0), "alive all the same");
    let admin = running.at(8404).to_string();
    assert_eq!(pgsplit(&["healthcheck", "--admin", &admin], &[]).await.0, Some(0), "needs no file");
    let broken = file("broken.yaml", "nodes: [\n");
    assert_eq!(pgsplit(&["healthcheck", &broken], &env).await.0, Some(0), "what runs is well all the same");

    signal(running.child.id(), Signal::STOP);
    let (code, said) = ready("200ms").await;
    assert_eq!((code, said.contains("no answer within 200ms")), (Some(1), true), "{said}");
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    let (code, said) = ready("3s").await;
    assert_eq!((code, said.contains("connection refused")), (Some(1), true), "{said}");
}

#[tokio::test]
async fn healthcheck_says_why_it_cannot_ask() {
    let path = file("unasked.yaml", "nodes: [{addr: db1, role: primary}]\n");
    for (args, env, code, part) in [
        (&["healthcheck", &path][..], &[("PGSPLIT_ADMIN", "off")][..], 1, "admin is off"),
        (&["healthcheck", &path], &[("PGSPLIT_ADMIN", "127.0.0.1:0")], 1, "name it by --admin"),
        (&["healthcheck", "/nowhere.yaml"], &[("PGSPLIT_ADMIN", "127.0.0.9:1")], 1, "nobody is asked"),
        (&["healthcheck", "--admin", "here"], &[], 2, "IP:PORT"),
    ] {
        let (ended, said) = pgsplit(args, env).await;
        assert_eq!((ended, said.contains(part)), (Some(code), true), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn a_url_in_the_wrong_place_is_refused_without_its_password() {
    const URL: &str = "postgres://app:canary-3b3b@db1,db2/shop";
    for (args, code) in [
        (&["run", URL][..], 78),
        (&["check", URL], 78),
        (&["run", "--node", URL], 78),
        (&["run", "--node", "postgres://app:canary-3b3b@db1=primary"], 78),
        (&["probe", URL], 3),
    ] {
        let (ended, said) = pgsplit(args, &[]).await;
        assert_eq!((ended, said.contains("canary")), (Some(code), false), "{args:?}: {said}");
        assert!(said.contains("--from-url"), "{args:?}: {said}");
    }
    let (code, said) = pgsplit(&["run"], &[("PGSPLIT_CONFIG", URL)]).await;
    assert_eq!((code, said.contains("canary")), (Some(78), false), "{said}");
}

#[tokio::test]
async fn the_start_screen_shows_listeners_nodes_and_the_urls_to_use() {
    let server = Postgres::start_new(Settings::default()).await;
    let gone = Postgres::reserve(Settings::default());
    let balancer = Balancer::start(&config_for([server.addr(), gone.addr()])).await;
    balancer.wait_log("started", |_| true).await;
    wait_until("the start screen", async || balancer.out().contains("DATABASE_URL")).await;
    let screen = balancer.out();
    for part in [
        format!("postgres://USER:PASSWORD@{}/DATABASE   primary", balancer.rw()),
        format!("postgres://USER:PASSWORD@{}/DATABASE   prefer-standby", balancer.ro()),
        format!("http://{}/", balancer.admin()),
        format!("{}", server.addr()),
        "up, primary".to_owned(),
        "down: connect: connection refused".to_owned(),
    ] {
        assert!(screen.contains(&part), "{part} in:\n{screen}");
    }
}

#[tokio::test]
async fn sessions_that_outlast_the_drain_are_cut() {
    let config = shared().await.config() + "runtime: {drain_timeout: 300ms}\n";
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let client = connect(balancer.rw()).await.unwrap();
    value(&client, "begin; select 1").await.unwrap();
    balancer.signal(Signal::INT);
    assert_eq!(balancer.wait_exit(Duration::from_secs(20)).await.code(), Some(0));
    balancer.wait_log("sessions_cut", |_| true).await;
    value(&client, "select 1").await.unwrap_err();
    let line = balancer.wait_log("stopped", |_| true).await;
    assert_eq!(balancer.log_lines().last(), Some(&line), "nothing comes after the end");
}

#[tokio::test]
async fn a_reader_that_has_gone_is_no_fault() {
    let good = file("good.yaml", "nodes: [{addr: db1, role: primary}]\n");
    let bad = file("bad.yaml", "nodes: [{adr: db1}]\n");
    for (args, code) in [
        (vec!["check", &good], 0),
        (vec!["check", &bad], 78),
        (vec!["completions", "zsh"], 0),
        (vec!["--help"], 0),
        (vec!["probe", "db:port"], 3),
    ] {
        let (out, err) = (home::directory("gone"), std::io::pipe().unwrap());
        let mut command = Command::new(BINARY);
        command.args(&args).env_clear().current_dir(out);
        let (reader, writer) = std::io::pipe().unwrap();
        drop((reader, err.0));
        let mut child = command.stdout(writer).stderr(err.1).spawn().unwrap();
        let status = wait_until("it to end", async || child.try_wait().unwrap()).await;
        assert_eq!(status.code(), Some(code), "{args:?}: 101 is a panic");
    }
}

#[tokio::test]
async fn a_port_below_1024_needs_rights() {
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let is_guarded = first_free.is_ok_and(|port| port.trim().parse::<u16>().is_ok_and(|port| 500 < port));
    if !is_guarded || rustix::process::geteuid().is_root() {
        return;
    }
    let address = Address::claim();
    let config = format!(
        "nodes: [{{addr: db1, role: primary}}]\nadmin: off\nlisteners: [{{name: rw, bind: \"{}:500\"}}]\n",
        address.ip()
    );
    let (code, said) = pgsplit(&["run", &file("low.yaml", &config)], &[]).await;
    assert_eq!((code, said.contains("Ports below 1024 need rights")), (Some(77), true), "{said}");
}

#[tokio::test]
async fn without_a_file_it_says_what_to_do() {
    let empty = home::directory("empty");
    for args in [vec!["run"], vec!["check"], vec!["run", "nowhere.yaml"]] {
        let mut command = Command::new(BINARY);
        command.args(&args).env_clear().current_dir(&empty);
        let ended = output(command).await;
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(78), "{args:?}: {said}");
        assert!(said.contains("cannot read") && said.contains("pgsplit run --node HOST:PORT"), "{said}");
    }
}

#[tokio::test]
async fn sigterm_drains_and_a_second_one_cuts() {
    let node = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&(config_for([node.addr()]) + "runtime: {drain_timeout: 1h}\n")).await;
    balancer.wait_ready().await;
    let client = connect(balancer.rw()).await.unwrap();
    balancer.signal(Signal::HUP);
    balancer.wait_log("config_unchanged", |line| line["by"] == "signal").await;
    balancer.signal(Signal::TERM);
    balancer.wait_log("draining", |line| line["sessions"] == 1).await;
    assert!(connect(balancer.rw()).await.is_err(), "no new session");
    assert_eq!(value(&client, "select 9").await.unwrap(), "9", "the old one goes on");
    assert_eq!(balancer.get("/readyz").await.unwrap(), (503, "draining\n".into()));
    balancer.signal(Signal::TERM);
    let status = balancer.wait_exit(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0));
    let line = balancer.wait_log("session_end", |_| true).await;
    assert_eq!((&line["end"], &line["end_code"]), (&"drain".into(), &"KD".into()));
    assert!(0 < line["to_client_bytes"].as_u64().unwrap());
}

#[tokio::test]
async fn it_ends_by_itself_when_the_last_session_has_gone() {
    let node = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&config_for([node.addr()])).await;
    balancer.wait_ready().await;
    let client = connect(balancer.rw()).await.unwrap();
    balancer.signal(Signal::TERM);
    balancer.wait_log("draining", |_| true).await;
    drop(client);
    assert_eq!(balancer.wait_exit(Duration::from_secs(10)).await.code(), Some(0));
}

#[tokio::test]
async fn an_address_in_use_is_said_with_a_hint() {
    let node = Postgres::start_new(Settings::default()).await;
    let balancer = Balancer::start(&config_for([node.addr()])).await;
    balancer.wait_ready().await;
    let path = balancer.config_path().display().to_string();
    let (code, said) = pgsplit(&["run", &path], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("cannot bind") && said.contains("listener \"rw\"") && said.contains("ss -ltnp"),
        "{said}"
    );
}

#[tokio::test]
async fn every_verb_has_an_example_and_completions_work() {
    let (_, help) = pgsplit(&["--help"], &[]).await;
    let verbs = help.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    let verbs: Vec<&str> = verbs.filter(|verb| !verb.starts_with('-') && *verb != "help").collect();
    assert!(10 < verbs.len(), "{help}");
    for verb in &verbs {
        let (code, said) = pgsplit(&[verb, "--help"], &[]).await;
        let has_example = said.contains("Example") || *verb == "config";
        assert_eq!((code, has_example), (Some(0), true), "{said}");
        assert!(said.lines().all(|line| line.chars().count() <= 100), "{said}");
    }
    let (code, script) = pgsplit(&["completions", "bash"], &[]).await;
    assert_eq!((code, script.contains("_pgsplit()")), (Some(0), true));
    let (code, page) = pgsplit(&["man"], &[]).await;
    assert_eq!((code, page.contains(".SH SYNOPSIS")), (Some(0), true), "{page}");
    let pages = home::directory("man");
    assert_eq!(pgsplit(&["man", pages.to_str().unwrap()], &[]).await, (Some(0), String::new()));
    for verb in verbs {
        assert!(pages.join(format!("pgsplit-{verb}.1")).exists(), "{verb}");
    }
    assert!(pages.join("pgsplit.1").exists() && pages.join("pgsplit-config-show.1").exists());
    let reference = pgsplit(&["man", "--markdown"], &[]).await;
    assert_eq!(reference, (Some(0), include_str!("../../docs/cli.md").to_owned()));
    let (code, said) = pgsplit(&["man", "/nonexistent"], &[]).await;
    assert_eq!(
        (code, said.contains("cannot write manual pages into /nonexistent")),
        (Some(1), true),
        "{said}"
    );
    let (code, said) = pgsplit(&["--version"], &[]).await;
    assert_eq!((code, said.starts_with("pgsplit ")), (Some(0), true), "{said}");
    assert_eq!(pgsplit(&["walk"], &[]).await.0, Some(2));
}

#[tokio::test]
async fn the_file_at_the_top_runs_as_it_is() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config.yaml");
    let (code, said) = pgsplit(&["check", path], &[]).await;
    assert_eq!(code, Some(0), "{said}");
    let running = Running::start(&["run", path], &[]);
    running.wait_health().await;
    assert_eq!(running.end(Signal::TERM).await, Some(0));
}
