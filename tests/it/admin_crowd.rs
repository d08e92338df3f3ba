//! Many at the admin address, who want nothing: others are answered all the same.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::balancer::{Balancer, binary};
use crate::support::client::background;
use crate::support::cluster::shared;
use crate::tools::output;

/// What a container runtime asks, which gives up after three seconds.
async fn assert_healthy(balancer: &Balancer) {
    let mut command = Command::new(binary());
    command.args(["healthcheck", "--admin", &balancer.admin().to_string()]);
    let said = output(command).await;
    assert!(said.status.success(), "{said:?}");
}

#[tokio::test]
async fn who_comes_first_keeps_nobody_from_the_admin_address() {
    let balancer = Balancer::start(&shared().await.config()).await;
    balancer.wait_ready().await;
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(TcpStream::connect(balancer.admin()).await.unwrap());
    }
    // Whoever is silent may be so for some seconds; nobody waits for that.
    assert_healthy(&balancer).await;
    assert_eq!(balancer.get("/readyz").await.unwrap().0, 200);
    balancer.wait_log("admin_crowded", |line| line["connections"] == 32).await;
    for (query, code) in [("listener=rw&front=x", 404), ("front=x&listener=rw", 404), ("lister=rw", 400)] {
        assert_eq!(balancer.get(&format!("/readyz?{query}")).await.unwrap().0, code, "{query}");
    }
    drop(silent);
}

#[tokio::test]
async fn who_comes_back_again_and_again_keeps_nobody_from_the_admin_address() {
    let balancer = Balancer::start(&shared().await.config()).await;
    balancer.wait_ready().await;
    // Whoever is shown out is there again at once. Every other one has said half of what it wants.
    let admin = balancer.admin();
    let mut crowd = JoinSet::new();
    for number in 0..600 {
        let one = async move {
            loop {
                if let Ok(mut stream) = TcpStream::connect(admin).await {
                    if number % 2 == 0 {
                        let _ = stream.write_all(b"GET /metrics HTT").await;
                    }
                    let _ = stream.read(&mut [0]).await;
                }
            }
        };
        crowd.spawn_on(one, background().handle());
    }
    balancer.wait_log("admin_crowded", |_| true).await;
    for _ in 0..3 {
        assert_healthy(&balancer).await;
        assert_eq!(balancer.get("/metrics").await.unwrap().0, 200);
    }
    crowd.shutdown().await;
}
