//! The promise: while one of two instances dies, stops, comes back or fails, no client notices.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;

use crate::support::balancer::Balancer;
use crate::support::client::background;
use crate::support::instance::Instance;
use crate::support::wait::wait_until;
use crate::support::web::{QUICK, Web, front};

/// Clients that ask as fast as they are answered, half of them on a new connection for each request.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    by: Arc<Mutex<BTreeMap<String, u64>>>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(front: SocketAddr, clients: usize) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            answered: Arc::default(),
            by: Arc::default(),
            failures: Arc::default(),
            clients: Vec::new(),
        };
        for i in 0..clients {
            load.clients.push(load.client(front, i % 2 == 0));
        }
        load
    }

    fn client(&self, front: SocketAddr, keeps: bool) -> JoinHandle<()> {
        let (stop, answered) = (Arc::clone(&self.stop), Arc::clone(&self.answered));
        let (by, failures) = (Arc::clone(&self.by), Arc::clone(&self.failures));
        background().spawn(async move {
            let mut kept: Option<Web> = None;
            while !stop.load(Ordering::SeqCst) {
                let result = async {
                    let web = match kept.take() {
                        Some(web) => web,
                        None => Web::connect(front).await?,
                    };
                    let got = web.get("/").await?;
                    if got.status != 200 {
                        return Err(format!("{got:?}"));
                    }
                    kept = keeps.then_some(web);
                    Ok(got.header("x-served-by"))
                };
                match result.await {
                    Ok(name) => {
                        answered.fetch_add(1, Ordering::SeqCst);
                        *by.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
                    }
                    Err(failure) => failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure),
                }
            }
        })
    }

    /// Waits for so many more answers, however long it takes.
    async fn more(&self, n: u64) {
        let goal = self.answered.load(Ordering::SeqCst) + n;
        wait_until("answers", async || {
            let answered = self.answered.load(Ordering::SeqCst);
            if answered >= goal { Ok(()) } else { Err((answered, self.failures.lock().unwrap().clone())) }
        })
        .await;
    }

    fn of(&self, name: &str) -> u64 {
        self.by.lock().unwrap().get(name).copied().unwrap_or_default()
    }

    /// Waits until an instance has answered again.
    async fn served_by(&self, name: &str) {
        let before = self.of(name);
        wait_until(&format!("{name} to serve"), async || self.of(name) > before + 20).await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        let failures = self.failures.lock().unwrap();
        let answered = self.answered.load(Ordering::SeqCst);
        let first: Vec<_> = failures.iter().take(5).collect();
        assert!(failures.is_empty(), "{} of {answered} failed: {first:#?}", failures.len());
    }
}

async fn two(rest: &str) -> (Instance, Instance, Balancer) {
    let (a, b) = (Instance::start("a").await, Instance::start("b").await);
    let balancer = Balancer::start_front(&front(&[a.addr(), b.addr()], rest)).await;
    balancer.wait_upstream(a.addr(), true).await;
    balancer.wait_upstream(b.addr(), true).await;
    (a, b, balancer)
}

#[tokio::test]
async fn a_killed_instance_is_not_noticed() {
    let (a, b, balancer) = two(&format!("response_timeout: 1s\n{QUICK}")).await;
    let load = Load::start(balancer.front(), 6);
    for instance in [&a, &b] {
        load.served_by(instance.name()).await;
        instance.kill9();
        load.more(500).await;
        balancer.wait_upstream(instance.addr(), false).await;
        load.more(500).await;
        instance.restart().await;
        balancer.wait_upstream(instance.addr(), true).await;
        load.served_by(instance.name()).await;
    }
    load.end().await;
}

#[tokio::test]
async fn a_stopped_instance_is_not_noticed() {
    let (a, b, balancer) = two(&format!("response_timeout: 1s\n{QUICK}")).await;
    let load = Load::start(balancer.front(), 6);
    for instance in [&a, &b] {
        load.served_by(instance.name()).await;
        instance.sigstop().await;
        balancer.wait_upstream(instance.addr(), false).await;
        load.more(500).await;
        instance.sigcont();
        balancer.wait_upstream(instance.addr(), true).await;
        load.served_by(instance.name()).await;
    }
    load.end().await;
}

#[tokio::test]
async fn a_failing_instance_is_not_noticed() {
    let (a, b, balancer) = two(&format!("response_timeout: 1s\n{QUICK}")).await;
    let load = Load::start(balancer.front(), 6);
    for instance in [&a, &b] {
        load.served_by(instance.name()).await;
        instance.set_status(503).await;
        load.more(500).await;
        balancer.wait_upstream(instance.addr(), false).await;
        load.more(500).await;
        instance.set_status(200).await;
        balancer.wait_upstream(instance.addr(), true).await;
        load.served_by(instance.name()).await;
    }
    load.end().await;
}

/// With every setting as it is when nobody sets it.
#[tokio::test]
async fn by_default_a_stopped_instance_is_not_noticed() {
    let (a, _b, balancer) = two("check: {path: /health}\n").await;
    let load = Load::start(balancer.front(), 6);
    load.served_by("a").await;
    a.sigstop().await;
    balancer.wait_upstream(a.addr(), false).await;
    load.more(500).await;
    a.sigcont();
    balancer.wait_upstream(a.addr(), true).await;
    load.served_by("a").await;
    load.end().await;
}

/// With every setting as it is when nobody sets it.
#[tokio::test]
async fn by_default_a_killed_instance_is_not_noticed() {
    let (a, _b, balancer) = two("check: {path: /health}\n").await;
    let load = Load::start(balancer.front(), 6);
    load.served_by("a").await;
    a.kill9();
    load.more(1000).await;
    a.restart().await;
    balancer.wait_upstream(a.addr(), true).await;
    load.served_by("a").await;
    load.end().await;
}

/// A client that others wrote, for what ours might be too kind to see. `make test` installs it.
#[tokio::test]
async fn wrk_notices_nothing() {
    if Command::new("wrk").arg("-v").output().is_err() {
        println!("wrk is not installed; `make httptools` installs it");
        return;
    }
    let (a, b, balancer) = two(&format!("response_timeout: 1s\n{QUICK}")).await;
    let url = format!("http://{}/", balancer.front());
    let mut wrk = tokio::process::Command::new("wrk");
    wrk.args(["-t2", "-c16", "-d8s", "--timeout", "20s", &url]).kill_on_drop(true);
    wrk.stdout(std::process::Stdio::piped());
    let wrk = wrk.spawn().unwrap();
    let load = Load::start(balancer.front(), 2);
    a.kill9();
    balancer.wait_upstream(a.addr(), false).await;
    a.restart().await;
    balancer.wait_upstream(a.addr(), true).await;
    load.served_by("a").await;
    b.sigstop().await;
    balancer.wait_upstream(b.addr(), false).await;
    b.sigcont();
    balancer.wait_upstream(b.addr(), true).await;
    load.served_by("b").await;
    load.end().await;
    let output = wrk.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("requests in"), "{said}");
    assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
}
