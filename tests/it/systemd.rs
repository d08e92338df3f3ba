//! Run as systemd does: what it is told over `NOTIFY_SOCKET`, and sockets that it hands over.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::support::address::Address;
use crate::support::balancer::{Balancer, binary};
use crate::support::client::{connect, value};
use crate::support::cluster::{Cluster, shared};
use crate::support::home;
use crate::support::postgres::{Settings, Stop};
use crate::support::process::{Signal, signal_group};
use crate::support::wait::wait_until;
use crate::tools::output;
use crate::upgrade::{comes, post, upgrade, wait_gone, with_token};
use crate::upgrade_fails::greets;

/// Does as systemd does: binds `NAME=KIND:ADDRESS`…, hands the sockets over in this order, and becomes what comes after `--`.
const HAND_OVER: &str = r#"
import fcntl, os, socket, sys
words = sys.argv[1:]
cut = words.index("--")
names, sockets = [], []
for word in words[:cut]:
    name, place = word.split("=")
    kind, host, port = place.split(":")
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host, int(port)))
    if kind == "listen":
        made.listen()
    names.append(name)
    # Out of the way of those it is to have.
    sockets.append(fcntl.fcntl(made.fileno(), fcntl.F_DUPFD, 100))
for number, made in enumerate(sockets, 3):
    os.dup2(made, number)
    os.close(made)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names))
os.execv(words[cut + 1], words[cut + 1:])
"#;

/// The messages that systemd would have heard so far, each a list of lines.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Vec<String>>>>);

impl Heard {
    /// Starts to listen; also where.
    fn start() -> (Self, String) {
        let path = home::directory("systemd").join("notify");
        let (socket, heard) = (UnixDatagram::bind(&path).unwrap(), Self::default());
        let kept = heard.clone();
        std::thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(length) = socket.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                kept.0.lock().unwrap().push(text.lines().map(str::to_owned).collect());
            }
        });
        (heard, path.to_str().unwrap().to_owned())
    }

    fn all(&self) -> Vec<Vec<String>> {
        self.0.lock().unwrap().clone()
    }

    /// How often this line has been heard.
    fn count(&self, line: &str) -> usize {
        self.all().iter().flatten().filter(|said| *said == line).count()
    }

    /// Waits until it was asked so many times more for time to stop, which a process does each second.
    async fn asked_for_time(&self, more: usize) {
        let count =
            || self.all().iter().flatten().filter(|line| line.starts_with("EXTEND_TIMEOUT_USEC=")).count();
        let before = count();
        wait_until("it to ask for more time", async || before + more <= count()).await;
    }

    /// Waits for a message with a line that begins like this; the message.
    async fn wait(&self, line: &str) -> Vec<String> {
        wait_until(line, async || {
            let all = self.all();
            let found = all.iter().find(|message| message.iter().any(|said| said.starts_with(line)));
            found.cloned().ok_or(all)
        })
        .await
    }
}

#[tokio::test]
async fn systemd_is_told_when_it_is_ready_how_things_are_and_that_it_stops() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let (heard, socket) = Heard::start();
    let config = cluster.config() + "runtime: {drain_timeout: 1m}\n";
    // As with WatchdogSec=4s.
    let balancer = Balancer::launch(&config, &[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "4000000")]);
    let ready = heard.wait("READY=1").await;
    assert!(ready.iter().any(|line| line.starts_with("STATUS=Writes: ")), "{ready:?}");
    let session = connect(balancer.rw()).await.unwrap();
    heard.wait("STATUS=Writes: n0. Reads: n1.").await;
    heard.wait("WATCHDOG=1").await;

    cluster.standby(0).stop(Stop::Immediate).await;
    heard.wait("STATUS=Writes: n0. Reads: n0, the primary (n1 down ").await;

    // systemd has sent SIGHUP for a reload, and waits for both.
    balancer.signal(Signal::HUP);
    let reloading = heard.wait("RELOADING=1").await;
    assert!(reloading.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading:?}");
    wait_until("the end of the reload", async || heard.count("READY=1") == 2).await;

    // A drain takes as long as the file says, which systemd does not know.
    balancer.signal(Signal::TERM);
    let stopping = heard.wait("STOPPING=1").await;
    assert!(stopping.iter().any(|line| line.starts_with("EXTEND_TIMEOUT_USEC=")), "{stopping:?}");
    heard.wait("STATUS=Stopping: nothing new is accepted. Writes: n0. ").await;
    assert_eq!(value(&session, "select 1").await.unwrap(), "1");
    drop(session);
    assert_eq!(balancer.wait_exit(Duration::from_secs(20)).await.code(), Some(0));
    assert_eq!(heard.count("READY=1"), 2, "{:?}", heard.all());
}

#[tokio::test]
async fn a_socket_that_was_handed_over_is_used_and_the_others_are_bound() {
    let address = Address::claim();
    let [named, by_address] = [7001, 7002].map(|port| address.port(port));
    let words = [format!("rw=listen:{named}"), format!("pgsplit.socket=listen:{by_address}")];
    let words = ["python3", "-c", HAND_OVER, &words[0], &words[1], "--"];
    let config = shared().await.config()
        + &format!(
            "listeners:\n  - {{name: rw, bind: \"BALANCER:6432\", target: primary}}\n  \
             - {{name: ro, bind: \"{by_address}\", target: prefer-standby}}\nruntime: {{threads: 3}}\n"
        );
    let balancer = Balancer::start_under(&words, &config, &[]).await;
    balancer.wait_ready().await;
    // One thread accepts for all three.
    let mut sessions = Vec::new();
    for addr in [named, by_address].repeat(3) {
        let session = connect(addr).await.unwrap();
        assert_eq!(value(&session, "select 1").await.unwrap(), "1");
        sessions.push(session);
    }
    assert!(TcpStream::connect(balancer.rw()).await.is_err(), "its address is the socket's");
    assert_eq!(balancer.status().await["listeners"][0]["bind"], named.to_string());
    drop(sessions);
    balancer.signal(Signal::TERM);
    assert_eq!(balancer.wait_exit(Duration::from_secs(20)).await.code(), Some(0));
}

#[tokio::test]
async fn a_socket_that_a_reload_leaves_to_systemd_is_told_of_also_after_an_upgrade() {
    let address = Address::claim();
    let [named, by_address] = [7004, 7005].map(|port| address.port(port));
    let words = [format!("rw=listen:{named}"), format!("pgsplit.socket=listen:{by_address}")];
    let words = ["python3", "-c", HAND_OVER, &words[0], &words[1], "--"];
    let nodes = with_token(&shared().await.config());
    let config = |rw: &str, ro: &str| {
        format!(
            "{nodes}listeners:\n  - {{name: rw, bind: \"{rw}\", target: primary}}\n  \
             - {{name: ro, bind: \"{ro}\", target: prefer-standby}}\n"
        )
    };
    let ro = by_address.to_string();
    let balancer = Balancer::start_under(&words, &config("BALANCER:6432", &ro), &[]).await;
    balancer.wait_ready().await;
    let reload = async |rw: &str, ro: &str| {
        balancer.write(&config(rw, ro));
        let (status, said) = post(&balancer, "/api/v1/reload").await;
        assert_eq!(status, 200, "{said}");
    };
    let told = async |expected: &[&str]| {
        wait_until("it to be told", async || {
            let lines = balancer.log_lines().into_iter().filter(|line| line["event"] == "socket_left_open");
            let left: Vec<_> = lines.map(|line| line["addr"].as_str().unwrap().to_owned()).collect();
            if left == expected { Ok(()) } else { Err(left) }
        })
        .await;
    };
    reload("BALANCER:6432", "BALANCER:6433").await;
    told(&[&ro]).await;
    upgrade(&balancer).await;
    reload("BALANCER:6434", "BALANCER:6433").await;
    // Each once.
    told(&[&ro, &named.to_string()]).await;
    assert_eq!(value(&connect(balancer.at(6434)).await.unwrap(), "select 1").await.unwrap(), "1");
}

/// With which code, and with which words, it ends when this is handed over.
async fn refused(socket: &str) -> (Option<i32>, String) {
    let mut command = Command::new("python3");
    command.args(["-c", HAND_OVER, socket, "--"]).arg(binary()).args(["run", "--node", "localhost=primary"]);
    let ended = output(command).await;
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

#[tokio::test]
async fn what_is_handed_over_and_fits_nothing_is_said_in_words() {
    let address = Address::claim();
    let addr: SocketAddr = address.port(7003);
    let (code, said) = refused(&format!("web=listen:{addr}")).await;
    assert_eq!(code, Some(78), "{said}");
    for part in [&format!("the socket \"web\" on {addr}"), "\"rw\" (127.0.0.1:6432)", "FileDescriptorName="] {
        assert!(said.contains(part), "{part} in {said}");
    }
    for kind in ["udp", "stream"] {
        let (code, said) = refused(&format!("rw={kind}:{addr}")).await;
        assert_eq!(code, Some(78), "{said}");
        assert!(
            said.contains("descriptor 3 (\"rw\")") && said.contains("no TCP socket that listens"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_stop_in_the_middle_of_an_upgrade_is_none() {
    let (heard, socket) = Heard::start();
    let config = shared().await.config() + "runtime: {drain_timeout: 1m}\n";
    let balancer = Balancer::launch(&config, &[("NOTIFY_SOCKET", &socket)]);
    heard.wait("READY=1").await;
    let [one, two] = [connect(balancer.rw()).await.unwrap(), connect(balancer.rw()).await.unwrap()];
    // A new process that takes one session and says nothing of the other; told to stop it takes its time.
    let takes = r#"trap ': >hurried' TERM; frame '"Ready"'; until_said Begin; frame '"Begun"'; until_said '"Session"'
id=${said#*\"id\":}; frame "{\"Taken\":${id%%,*}}"; until_said Yours; : >taken; until_said no_more
case $said in *'"Stop"') : >told;; esac; until [ -e end ]; do sleep 0.05; done"#;
    balancer.replace_program(Some(&greets(takes)));
    balancer.signal(Signal::USR2);
    let file = |name| balancer.config_path().with_file_name(name);
    wait_until("one session to have gone", async || file("taken").exists()).await;
    balancer.signal(Signal::TERM);
    wait_until("the new process to be told", async || file("told").exists()).await;
    let line = balancer.wait_log("upgrade_interrupted", |line| line["moved"] == 1).await;
    assert_eq!(line["error"], "pgsplit is stopping", "{line}");
    assert!(!balancer.log_lines().iter().any(|line| line["event"] == "upgrade_done"));
    drop((one, two));
    // The other one ends what it has: systemd would end it with this one.
    balancer.wait_log("session_end", |_| true).await;
    heard.asked_for_time(3).await;
    assert!(!file("hurried").exists(), "a manager of services has told it once, and twice means at once");
    fs::write(file("end"), "").unwrap();
    assert_eq!(balancer.wait_exit(Duration::from_secs(20)).await.code(), Some(0));
    assert_eq!(heard.all().iter().flatten().filter(|line| line.starts_with("MAINPID=")).count(), 0);
}

#[tokio::test]
async fn who_was_left_in_the_old_process_has_a_drain_when_both_are_told_to_stop() {
    let (heard, socket) = Heard::start();
    let listeners = "listeners:\n  - {name: rw, bind: \"BALANCER:6432\", target: primary}\n";
    let config = shared().await.config() + listeners + "runtime: {drain_timeout: 1m, watch_config: false}\n";
    let balancer = Balancer::launch(&config, &[("NOTIFY_SOCKET", &socket)]);
    heard.wait("READY=1").await;
    let session = connect(balancer.rw()).await.unwrap();
    // The new process has no listener for it.
    balancer.write(&config.replace("name: rw,", "name: main,"));
    let old = balancer.pid();
    balancer.signal(Signal::USR2);
    let main = heard.wait("MAINPID=").await;
    balancer.succeeded_by(main[0]["MAINPID=".len()..].parse().unwrap());
    wait_until("the new one to be ready", async || heard.count("READY=1") == 2).await;
    // As a manager of services does, to all that it has started.
    signal_group(old, Signal::TERM);
    heard.wait("STOPPING=1").await;
    heard.asked_for_time(3).await;
    assert_eq!(value(&session, "select 1").await.unwrap(), "1");
    drop(session);
    for pid in [old, balancer.pid()] {
        wait_gone(pid).await;
    }
    assert!(!balancer.log_lines().iter().any(|line| line["event"] == "sessions_cut"));
}

#[tokio::test]
async fn a_stop_while_the_new_process_gets_ready_ends_both() {
    let (heard, socket) = Heard::start();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let node =
        format!("nodes:\n  - {{name: silent, addr: \"{}\", role: standby}}\n", silent.local_addr().unwrap());
    let config = shared().await.config().replace("nodes:\n", &node) + "runtime: {drain_delay: 1m}\n";
    let balancer = Balancer::launch(&config, &[("NOTIFY_SOCKET", &socket)]);
    heard.wait("READY=1").await;
    balancer.signal(Signal::USR2);
    let started = balancer.wait_log("upgrade_started", |_| true).await;
    let new = u32::try_from(started["pid"].as_u64().unwrap()).unwrap();
    wait_until("it to heed signals", async || heeds_term(new)).await;
    signal_group(balancer.pid(), Signal::TERM);
    heard.wait("STOPPING=1").await;
    // This one accepts for a while yet, and the new one is gone: by itself, unless it was ready before it looked.
    let failed = balancer.wait_log("upgrade_failed", |_| true).await;
    let why = failed["error"].as_str().unwrap();
    assert!(why.contains("ended before it was ready") || why == "pgsplit is stopping", "{failed}");
    wait_gone(new).await;
    assert_eq!(comes(balancer.rw()).await.as_deref(), Ok("1"));
    // Again means at once.
    balancer.signal(Signal::TERM);
    assert_eq!(balancer.wait_exit(Duration::from_secs(20)).await.code(), Some(0));
}

/// Whether a process does not simply end when it is sent SIGTERM.
fn heeds_term(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << 14) != 0)
}

#[tokio::test]
async fn systemd_is_told_which_process_is_the_main_one_after_an_upgrade() {
    let (heard, socket) = Heard::start();
    let balancer = Balancer::launch(
        &shared().await.config(),
        &[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "4000000"), ("WATCHDOG_PID", "1")],
    );
    heard.wait("READY=1").await;
    assert_eq!(heard.count("WATCHDOG=1"), 0, "it is for another process");
    let old = balancer.pid();
    balancer.signal(Signal::USR2);
    let main = heard.wait("MAINPID=").await;
    let new: u32 = main[0]["MAINPID=".len()..].parse().unwrap();
    balancer.succeeded_by(new);
    assert_ne!(new, old);
    heard.wait("WATCHDOG=1").await;
    crate::upgrade::wait_gone(old).await;
    let all = heard.all();
    let at = all.iter().position(|message| *message == main).unwrap();
    assert!(all[at..].iter().flatten().any(|line| line == "READY=1"), "{all:?}");
    assert_eq!(heard.count("STOPPING=1"), 0, "the service goes on: {all:?}");
    balancer.signal(Signal::TERM);
    heard.wait("STOPPING=1").await;
}
