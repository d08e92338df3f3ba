//! `pgsplit init`: what it writes runs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::process::{Command, Output};

use crate::support::balancer::{BALANCER, Balancer, binary};
use crate::support::client::{PASSWORD, connect, value};
use crate::support::cluster::shared;
use crate::support::home;
use crate::support::wait::wait_until;
use crate::tools::output;

/// Exit code, standard output, standard error.
async fn run(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.args(args).env_clear().envs(env.iter().copied()).current_dir(std::env::temp_dir());
    let Output { status, stdout, stderr } = output(command).await;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test]
async fn an_haproxy_cfg_becomes_a_file_that_runs() {
    let cluster = shared().await;
    let haproxy = format!(
        "defaults\n mode tcp\n timeout connect 2s\nlisten rw\n bind BALANCER:6432\n option pgsql-check user lb_check\n \
         default-server inter 200ms fall 2 rise 1 on-marked-down shutdown-sessions\n server n0 {0} check\n \
         server n1 {1} check backup\nlisten ro\n bind BALANCER:6433\n option pgsql-check user lb_check\n \
         server n0 {0} check\n server n1 {1} check\n server n2 {2} check\n",
        cluster.node(0).addr(),
        cluster.node(1).addr(),
        cluster.node(2).addr(),
    );
    let dir = home::directory("haproxy");
    // Its own address is only known to the balancer: it stands for a name that a test replaces.
    let (from, to) = (dir.join("haproxy.cfg"), dir.join("pgsplit.yaml"));
    std::fs::write(&from, haproxy.replace("BALANCER", "127.9.9.9")).unwrap();
    let (from, to) = (from.display().to_string(), to.display().to_string());
    let args = ["init", "--from-haproxy", &from, "-o", &to];
    let (code, _, said) = run(&args, &[]).await;
    assert_eq!((code, said.contains("is written")), (Some(0), true), "{said}");
    let (code, _, said) = run(&args, &[]).await;
    assert_eq!((code, said.contains("--force")), (Some(1), true), "it does not write over a file: {said}");
    let text = std::fs::read_to_string(&to).unwrap();
    let variables = [("PGSPLIT_CHECK_PASSWORD", PASSWORD)];
    assert_eq!(run(&["check", &to, "--connect"], &variables).await.0, Some(0));
    let balancer = Balancer::start_with(&text.replace("127.9.9.9", BALANCER), &variables).await;
    balancer.wait_ready().await;
    for (addr, in_recovery) in [(balancer.rw(), "f"), (balancer.ro(), "t")] {
        let client = connect(addr).await.unwrap();
        assert_eq!(value(&client, "select pg_is_in_recovery()").await.unwrap(), in_recovery);
    }
}

#[tokio::test]
async fn init_writes_a_file_that_runs() {
    let dir = home::directory("init");
    let path = dir.join("config.yaml").display().to_string();
    let (code, _, said) = run(&["init", "-o", &path], &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(run(&["check", &path], &[]).await.0, Some(0));
    let cluster = shared().await;
    let addr = cluster.primary().addr();
    let url = format!("postgres://lb_check:canary-9@{addr}/postgres");
    let (code, text, said) = run(&["init", "--from-url", &url, "-o", "-"], &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(!text.contains("canary") && said.contains("PGSPLIT_CHECK_PASSWORD"), "{text}{said}");
    let variables = [("PGSPLIT_CHECK_PASSWORD", PASSWORD)];
    let balancer = Balancer::start_with(&text, &variables).await;
    wait_until("the role", async || balancer.status().await["nodes"][0]["role"] == "primary").await;
}
