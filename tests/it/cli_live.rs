//! The command line and what goes on in the pgsplit that runs: sessions looked at and ended, events followed, its socket.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::support::balancer::{Balancer, binary};
use crate::support::client::{connect, value};
use crate::support::cluster::shared;
use crate::support::home;
use crate::support::wait::wait_until;
use crate::tools::output;

/// A balancer over the shared servers that is asked by its socket.
async fn start() -> Balancer {
    let socket = home::directory("live").join("admin.sock").display().to_string();
    let admin = format!("admin: {{bind: \"BALANCER:8404\", socket: \"{socket}\"}}\n");
    let balancer = Balancer::start(&(shared().await.config() + &admin)).await;
    balancer.wait_ready().await;
    balancer
}

fn command(balancer: &Balancer, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).arg("-c").arg(balancer.config_path());
    command.env_clear().env("COLUMNS", "200").current_dir(std::env::temp_dir());
    command
}

/// Exit code, standard output, standard error.
async fn verb(balancer: &Balancer, args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = output(command(balancer, args)).await;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

async fn wait_sessions(balancer: &Balancer, n: usize) -> Vec<Value> {
    wait_until(&format!("{n} sessions"), async || {
        let (_, said, _) = verb(balancer, &["sessions", "--json"]).await;
        let answer: Value = serde_json::from_str(&said).unwrap();
        let sessions = answer["sessions"].as_array().unwrap().clone();
        let all_in = sessions.iter().all(|session| session["state"] == "active");
        if all_in && sessions.len() == n { Ok(sessions) } else { Err(answer) }
    })
    .await
}

#[tokio::test]
async fn sessions_are_shown_and_ended() {
    let balancer = start().await;
    let (_, said, _) = verb(&balancer, &["sessions"]).await;
    assert_eq!(said, "no such session\n");
    let (rw, ro) = (connect(balancer.rw()).await.unwrap(), connect(balancer.ro()).await.unwrap());
    let other = connect(balancer.rw()).await.unwrap();
    let sessions = wait_sessions(&balancer, 3).await;
    let (_, said, _) = verb(&balancer, &["sessions", "--listener", "rw", "--sort", "age"]).await;
    let rows: Vec<&str> = said.lines().collect();
    assert_eq!(rows.len(), 3, "{said}");
    assert!(rows[0].starts_with("ID ") && rows[0].ends_with("TO CLIENT"), "{said}");
    assert!(rows[1].contains(" postgres ") && rows[1].contains("  n0  "), "{said}");
    let (_, said, _) = verb(&balancer, &["sessions", "--limit", "1"]).await;
    assert!(said.ends_with("… and 2 more; --limit 3 shows all\n"), "{said}");
    for line in {
        let mut narrow = command(&balancer, &["sessions"]);
        narrow.env("COLUMNS", "80");
        String::from_utf8(output(narrow).await.stdout).unwrap()
    }
    .lines()
    {
        assert!(line.chars().count() <= 80, "{line}");
    }

    let of_ro = sessions.iter().find(|session| session["listener"] == "ro").unwrap();
    let id = of_ro["id"].as_str().unwrap();
    let (code, said, err) = verb(&balancer, &["kill", "s-0", id]).await;
    assert_eq!((code, said), (Some(1), format!("session {id} is ended\n")), "the one that there is");
    assert!(err.contains("answered 404") && err.contains("no session s-0"), "{err}");
    let error = value(&ro, "select 1").await.unwrap_err();
    assert!(error.is_closed() || error.code().is_some_and(|code| code.code() == "57P01"), "{error}");
    let line = balancer.wait_log("session_killed", |line| line["id"] == id).await;
    assert_eq!(line["by"], "cli");
    wait_sessions(&balancer, 2).await;

    let (code, _, err) = verb(&balancer, &["kill", "--user", "nobody", "--yes"]).await;
    assert_eq!((code, err.as_str()), (Some(1), "pgsplit: no such session\n"));
    assert_eq!(value(&rw, "select 1").await.unwrap(), "1");
    let (code, said, err) = verb(&balancer, &["kill", "--node", "n0", "--user", "postgres"]).await;
    assert_eq!((code, said.as_str(), err.contains("--yes")), (Some(64), "", true), "nobody was asked: {err}");
    assert_eq!(value(&rw, "select 1").await.unwrap(), "1");
    let (code, said, _) = verb(&balancer, &["kill", "--node", "n0", "--user", "postgres", "-y"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "2 sessions are ended\n"));
    for client in [rw, other] {
        value(&client, "select 1").await.unwrap_err();
    }
    let (code, _, err) = verb(&balancer, &["sessions", "--state", "asleep"]).await;
    assert_eq!((code, err.contains("opening, waiting, login or active")), (Some(1), true), "{err}");
}

/// `pgsplit events -f`, ended with its test.
struct Following {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(balancer: &Balancer, args: &[&str]) -> Self {
        let mut command =
            tokio::process::Command::from(command(balancer, &[&["events", "-f"], args].concat()));
        let mut process = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { _process: process, lines }
    }

    /// The next line with this in it.
    async fn wait_line(&mut self, part: &str) -> String {
        wait_until(&format!("a line with {part}"), async || {
            let line = self.lines.next_line().await.unwrap()?;
            line.contains(part).then_some(line)
        })
        .await
    }
}

#[tokio::test]
async fn events_are_followed_also_through_a_restart() {
    let balancer = start().await;
    let mut all = Following::start(&balancer, &[]);
    let mut of_node = Following::start(&balancer, &["--node", "n1", "--json"]);
    all.wait_line("started").await;
    verb(&balancer, &["pause", "rw"]).await;
    let line = all.wait_line("listener_paused").await;
    assert!(line.contains("  info   listener_paused") && line.contains("by=cli"), "{line}");
    balancer.kill9_and_start_again().await;
    balancer.wait_ready().await;
    all.wait_line("started").await;
    verb(&balancer, &["drain", "n1"]).await;
    all.wait_line("node_admin").await;
    let line: Value = serde_json::from_str(&of_node.wait_line("node_admin").await).unwrap();
    assert_eq!((&line["fields"]["node"], &line["fields"]["to"]), (&"n1".into(), &"drain".into()));

    let (code, said, _) = verb(&balancer, &["events", "--node", "n1", "--since", "1h"]).await;
    assert_eq!(code, Some(0));
    assert!(!said.is_empty() && said.lines().all(|line| line.contains("node=n1")), "{said}");
    let (_, said, _) = verb(&balancer, &["events", "--json"]).await;
    let ids = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64().unwrap());
    assert!(ids.is_sorted(), "{said}");
}

#[tokio::test]
async fn the_socket_needs_no_token_and_a_drain_ends_what_it_is_told_to() {
    let cluster = shared().await;
    let balancer = start().await;
    let client = connect(balancer.ro()).await.unwrap();
    let on = value(&client, "select host(inet_server_addr())").await.unwrap();
    let node = cluster.name_of(on.parse().unwrap()).unwrap();
    value(&client, "begin; select 1").await.unwrap();
    let (code, said, err) =
        verb(&balancer, &["drain", &node, "--wait", "20s", "--kill-after", "100ms"]).await;
    assert_eq!(code, Some(0), "{said}{err}");
    for part in
        ["1 session on it\n", "\n1 session left\n", "\n1 session ended\n", "\nno session is left after "]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    value(&client, "select 1").await.unwrap_err();
    let (code, said, _) = verb(&balancer, &["ready", &node, "--json", "--wait", "20s"]).await;
    let json: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &json["name"], &json["health"]), (Some(0), &node.into(), &"up".into()));

    // By the address it is the token that is missing, and nobody may have the socket.
    let admin = balancer.admin().to_string();
    let (code, _, err) = verb(&balancer, &["drain", "n0", "--admin", &admin]).await;
    assert_eq!(
        (code, err.contains("answered 403\nnobody may change anything here")),
        (Some(77), true),
        "{err}"
    );
}
