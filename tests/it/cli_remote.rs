//! The command line and the pgsplit that runs: what it shows, and the orders it gives.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::balancer::{BALANCER, Balancer, binary};
use crate::support::client::{connect, value};
use crate::support::cluster::{Cluster, shared};
use crate::support::home;
use crate::support::postgres::Settings;
use crate::support::wait::wait_until;
use crate::tools::output;

const TOKEN: &str = "canary-cli-0123456789";

async fn start(cluster: &Cluster) -> Balancer {
    let admin = format!("admin: {{bind: \"{BALANCER}:8404\", token: {TOKEN}}}\n");
    let balancer = Balancer::start(&(cluster.config() + &admin)).await;
    balancer.wait_ready().await;
    balancer
}

/// Runs a verb against the balancer: exit code, standard output, standard error.
async fn verb(balancer: &Balancer, args: &[&str]) -> (Option<i32>, String, String) {
    let config = balancer.config_path().display().to_string();
    run(&[args, &["-c", &config]].concat(), &[("COLUMNS", "200")]).await
}

async fn run(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.args(args).env_clear().envs(env.iter().copied()).current_dir(std::env::temp_dir());
    let Output { status, stdout, stderr } = output(command).await;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert!(!stdout.contains(TOKEN) && !stderr.contains(TOKEN), "{stdout}{stderr}");
    (status.code(), stdout, stderr)
}

#[tokio::test]
async fn status_shows_nodes_and_listeners_on_any_width() {
    let balancer = start(shared().await).await;
    let (code, said, _) = verb(&balancer, &["status"]).await;
    assert_eq!(code, Some(0));
    let rw = balancer.rw().to_string();
    for part in
        ["LISTENER  BIND", &rw, "prefer-standby", "NODE  ADDRESS", "n0", "primary", "standby", "lag ok "]
    {
        assert!(said.contains(part), "{part}:\n{said}");
    }
    assert!(!said.contains('\x1b'), "no colours but on a terminal: {said}");
    let config = balancer.config_path().display().to_string();
    for columns in ["80", "60"] {
        let (_, said, _) = run(&["status", "-c", &config], &[("COLUMNS", columns)]).await;
        let most: usize = columns.parse().unwrap();
        assert!(
            said.contains("n2") && said.lines().all(|line| line.chars().count() <= most),
            "{columns}:\n{said}"
        );
    }
    let (_, json, _) = verb(&balancer, &["status", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["nodes"].as_array().unwrap().len(), 3);
    let admin = format!("http://{}", balancer.admin());
    let (code, by_url, _) = run(&["status", "--admin", &admin], &[]).await;
    assert_eq!((code, by_url.contains("n0")), (Some(0), true), "needs no file");
    let (code, by_variable, _) = run(&["status"], &[("PGSPLIT_ADMIN", &admin)]).await;
    assert_eq!((code, by_variable.contains("n0")), (Some(0), true));
}

#[tokio::test]
async fn status_fails_when_a_listener_has_no_node() {
    let cluster = Cluster::start(0, Settings::default()).await;
    let config = format!("nodes: [{{name: n0, addr: \"{}\", role: primary}}]\n", cluster.primary().addr());
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    assert_eq!(verb(&balancer, &["status", "--fail"]).await.0, Some(0));
    cluster.primary().kill9().await;
    balancer.wait_health("n0", "down").await;
    let (code, said, _) = verb(&balancer, &["status", "--fail"]).await;
    assert_eq!((code, said.contains("no node") && said.contains("down")), (Some(1), true), "{said}");
    assert_eq!(verb(&balancer, &["status"]).await.0, Some(0), "it was shown");
}

#[tokio::test]
async fn nobody_there_is_an_exit_code_of_its_own() {
    let gone = home::directory("gone").join("admin.sock").display().to_string();
    for args in [
        &["status"][..],
        &["events"],
        &["sessions"],
        &["drain", "n0"],
        &["weight", "n0", "5"],
        &["kill", "s-1"],
        &["pause", "rw"],
    ] {
        for admin in ["127.0.0.1:1", &format!("unix:{gone}")] {
            let (code, out, said) = run(&[args, &["--admin", admin]].concat(), &[]).await;
            assert_eq!((code, out.as_str()), (Some(69), ""), "{args:?}: {said}");
            assert!(said.contains(admin) && said.contains("Is it running?"), "what was tried: {said}");
        }
    }
    // Both ways that the file names.
    let file = home::directory("gone").join("config.yaml");
    let text = format!(
        "nodes: [{{addr: db1, role: primary}}]\nadmin: {{bind: \"127.0.0.1:1\", socket: \"{gone}\"}}\n"
    );
    std::fs::write(&file, text).unwrap();
    let (code, _, said) = run(&["status", "-c", &file.display().to_string()], &[]).await;
    let expected = format!(
        "pgsplit: no answer from a running pgsplit\n  unix:{gone}: No such file or directory\n  \
         http://127.0.0.1:1: connection refused\nIs it running? "
    );
    assert_eq!((code, said.starts_with(&expected)), (Some(69), true), "{said}");
    for (args, part) in [
        (&["status", "--admin", "here"][..], "IP:PORT"),
        (&["status", "--admin", "https://lb"], "http://HOST:PORT"),
        (&["weight", "n0", "257"], "0 to 256"),
        (&["kill"], "name sessions by their ids"),
        (&["kill", "s-1", "--node", "n0"], "name sessions by their ids"),
        (&["drain", "n0", "--kill-after", "1s"], "--wait"),
    ] {
        let (code, _, said) = run(args, &[]).await;
        assert_eq!((code, said.contains(part)), (Some(2), true), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn a_closed_pipe_is_no_error() {
    let balancer = start(shared().await).await;
    let config = balancer.config_path().display().to_string();
    // The second would never end if it were told by its next line alone: nothing happens any more.
    for verb in ["status --watch", "events -f", "status --json", "sessions"] {
        let line = format!("{} {verb} -c {config} | head -n 1", binary().display());
        let what = format!("{verb} to end with its reader");
        let Output { status, stdout, stderr } = wait_until(&what, async || {
            let mut command = Command::new("sh");
            command.args(["-c", &line]);
            Some(output(command).await)
        })
        .await;
        assert!(status.success() && stderr.is_empty(), "{verb}: {}", String::from_utf8_lossy(&stderr));
        assert_eq!(String::from_utf8_lossy(&stdout).lines().count(), 1, "{verb}");
    }
}

#[tokio::test]
async fn a_node_is_drained_and_put_back() {
    let cluster = shared().await;
    let balancer = start(cluster).await;
    let client = connect(balancer.ro()).await.unwrap();
    let on = value(&client, "select host(inet_server_addr())").await.unwrap();
    let node = cluster.name_of(on.parse().unwrap()).unwrap();
    // In a transaction, the session stays as long as that.
    value(&client, "begin; select 1").await.unwrap();
    let (code, said, _) = verb(&balancer, &["drain", &node]).await;
    let expected = format!("node \"{node}\" drains: no new sessions; 1 session on it\n");
    assert_eq!((code, said.starts_with(&expected)), (Some(0), true), "{said}");
    assert_eq!(balancer.node(&node).await["admin"], "drain");
    let (_, status, _) = verb(&balancer, &["status"]).await;
    assert!(status.lines().any(|line| line.starts_with(&node) && line.contains(" drain ")), "{status}");

    let (code, said, err) = verb(&balancer, &["drain", &node, "--wait", "300ms"]).await;
    assert_eq!((code, said.contains("1 session left\n")), (Some(1), true), "{said}");
    assert!(err.contains("1 session left after"), "{err}");
    // Whether somebody reads that or not.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut unread = Command::new(binary());
    unread.args(["drain", &node, "--wait", "300ms", "-c"]).arg(balancer.config_path());
    let mut unread = unread.stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    let status = wait_until("its time to be over", async || unread.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(1));
    drop(client);
    let (code, said, _) = verb(&balancer, &["maint", &node, "--wait", "20s"]).await;
    assert_eq!((code, said.contains("no session is left after")), (Some(0), true), "{said}");
    assert_eq!(balancer.node(&node).await["admin"], "maint");

    let (code, said, _) = verb(&balancer, &["ready", &node, "--wait", "20s"]).await;
    assert_eq!((code, said.contains("it is up after")), (Some(0), true), "{said}");
    let (code, said, _) = verb(&balancer, &["weight", &node, "7"]).await;
    assert_eq!((code, said), (Some(0), format!("node \"{node}\" has weight 7\n")));
    let (code, json, _) = verb(&balancer, &["weight", &node, "default", "--json"]).await;
    assert_eq!(
        (code, serde_json::from_str::<Value>(&json).unwrap()["weight"].clone()),
        (Some(0), 100.into())
    );

    let (code, _, said) = verb(&balancer, &["drain", "n9"]).await;
    assert_eq!((code, said.contains("answered 404") && said.contains("n0")), (Some(1), true), "{said}");
    let admin = balancer.admin().to_string();
    for (env, part) in
        [(&[][..], "only with the token"), (&[("PGSPLIT_ADMIN_TOKEN", "x")], "this is not the token")]
    {
        let (code, out, said) = run(&["drain", &node, "--admin", &admin], env).await;
        assert_eq!((code, out.as_str(), said.contains("answered 401")), (Some(77), "", true), "{said}");
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(balancer.node(&node).await["admin"], "ready");
}
