//! The command line where what it prints cannot be written: on a disk that is full.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::balancer::{Balancer, binary};
use crate::support::client::{connect, value};
use crate::support::cluster::shared;
use crate::support::home;
use crate::support::wait::wait_until;
use crate::tools::output;

const LOST: &str = "pgsplit: cannot write to standard output: No space left on device (os error 28)\n";

/// A balancer over the shared servers that is asked by its socket.
async fn start() -> Balancer {
    let socket = home::directory("full").join("admin.sock").display().to_string();
    let admin = format!("admin: {{bind: \"BALANCER:8404\", socket: \"{socket}\"}}\n");
    let balancer = Balancer::start(&(shared().await.config() + &admin)).await;
    balancer.wait_ready().await;
    balancer
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).env_clear().current_dir(std::env::temp_dir());
    command
}

/// Exit code and standard error of a verb whose standard output is a disk that is full.
async fn on_full_disk(args: &[&str]) -> (Option<i32>, String) {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = command(args);
    command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    let child = command.kill_on_drop(true).spawn().unwrap();
    let what = format!("the end of {args:?}");
    let mut ended = std::pin::pin!(child.wait_with_output());
    let Output { status, stderr, .. } = wait_until(&what, async || Some(ended.as_mut().await.unwrap())).await;
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// The verbs that the help names.
async fn verbs() -> BTreeSet<String> {
    let help = String::from_utf8(output(command(&["--help"])).await.stdout).unwrap();
    let verbs = help.lines().filter(|line| line.starts_with("  ") && !line.trim_start().starts_with('-'));
    verbs.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

#[tokio::test]
async fn every_verb_says_that_its_words_are_lost_and_what_it_has_done() {
    let balancer = start().await;
    let config = balancer.config_path().display().to_string();
    let node = shared().await.primary().addr().to_string();
    let good = home::directory("good").join("config.yaml");
    std::fs::write(&good, format!("nodes: [{{addr: \"{node}\", role: primary}}]\n")).unwrap();
    let good = good.display().to_string();
    let mut tried = BTreeSet::new();
    let mut check = async |args: &[&str], done: &str| {
        let (code, said) = on_full_disk(args).await;
        let rest = said.strip_prefix(LOST);
        let expected =
            if done.is_empty() { String::new() } else { format!("pgsplit: it is done all the same: {done}") };
        let is_right = rest
            .is_some_and(|rest| if done.is_empty() { rest.is_empty() } else { rest.starts_with(&expected) });
        assert!(code == Some(74) && is_right, "{args:?}: {code:?}: {said}\nexpected: {expected}");
        tried.insert(args[0].to_owned());
    };
    for args in [
        &["--help"][..],
        &["--version"],
        &["help"],
        &["help", "drain"],
        &["completions", "zsh"],
        &["man"],
        &["man", "--markdown"],
        &["init", "-o", "-"],
        &["check", &good],
        &["check", "--connect", &good],
        &["config", "schema"],
        &["config", "show", &good],
        &["config", "explain"],
        &["config", "explain", "check.interval"],
        &["probe", &node],
        // Whoever runs is asked.
        &["config", "diff", "-c", &config],
        &["status", "-c", &config],
        &["status", "--json", "-c", &config],
        // These two would never end by themselves.
        &["status", "--watch", "-c", &config],
        &["events", "--follow", "-c", &config],
        &["events", "-c", &config],
        &["sessions", "-c", &config],
    ] {
        check(args, "").await;
    }
    for (args, done) in [
        (&["drain", "n1"][..], "node \"n1\" drains: no new sessions;"),
        (&["drain", "n1", "--json"], "{"),
        (
            &["drain", "n1", "--wait"],
            "node \"n1\" drains: no new sessions; 0 sessions on it\npgsplit: it is done all the same: no session is left after ",
        ),
        (&["maint", "n1"], "node \"n1\" is out of use:"),
        (&["ready", "n1"], "node \"n1\" is back in use\n"),
        (&["weight", "n1", "7"], "node \"n1\" has weight 7\n"),
        (&["pause", "ro"], "listener \"ro\" is paused:"),
        (&["resume", "ro"], "listener \"ro\" is resumed:"),
        (&["reload"], "nothing is different\n"),
    ] {
        check(&[args, &["-c", &config]].concat(), done).await;
    }
    let clients = [connect(balancer.rw()).await.unwrap(), connect(balancer.rw()).await.unwrap()];
    let ids = wait_until("two sessions", async || {
        let said = output(command(&["sessions", "--json", "--state", "active", "-c", &config])).await.stdout;
        let found = serde_json::from_slice::<Value>(&said).unwrap()["sessions"].clone();
        let ids: Vec<_> =
            found.as_array()?.iter().filter_map(|one| Some(one["id"].as_str()?.to_owned())).collect();
        (ids.len() == 2).then_some(ids)
    })
    .await;
    let [one, other] = [&ids[0], &ids[1]];
    // Each of them: the first that cannot be told does not spare the next.
    let both =
        format!("session {one} is ended\npgsplit: it is done all the same: session {other} is ended\n");
    check(&["kill", one, other, "-c", &config], &both).await;
    for client in clients {
        value(&client, "select 1").await.unwrap_err();
    }
    let _client = connect(balancer.rw()).await.unwrap();
    check(&["kill", "--listener", "rw", "--yes", "-c", &config], "1 session is ended\n").await;

    let (code, said) = on_full_disk(&["upgrade", "-c", &config]).await;
    let pid =
        said.split_once(" runs as process ").and_then(|(_, rest)| rest.split_once(',')).map(|(pid, _)| pid);
    balancer.succeeded_by(pid.unwrap_or_else(|| panic!("{code:?}: {said}")).parse().unwrap());
    let expected = format!("{LOST}pgsplit: it is done all the same: pgsplit ");
    assert_eq!((code, said.starts_with(&expected)), (Some(74), true), "{said}");

    // Its answer is its exit code.
    assert_eq!(on_full_disk(&["healthcheck", &config]).await, (Some(0), LOST.to_owned()));
    // A verdict stays what it is.
    check(&["pause", "rw", "-c", &config], "listener \"rw\" is paused:").await;
    let failed = on_full_disk(&["probe", "127.0.0.1:1"]).await;
    assert_eq!(failed, (Some(2), LOST.to_owned()));

    // `run` goes on, and `top` wants a terminal.
    tried.extend(["run", "top", "upgrade", "healthcheck"].map(str::to_owned));
    let verbs = verbs().await;
    assert!(verbs.contains("status") && verbs.is_subset(&tried), "not tried: {:?}", verbs.difference(&tried));
}
