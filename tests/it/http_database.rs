//! The whole way of a read: a client, the front, a service, a listener, a real server. And what is left of it when the
//! servers are gone.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use crate::support::balancer::Balancer;
use crate::support::client::{background, connect, which_node};
use crate::support::cluster::{config_for, gates, shared};
use crate::support::gate::{Gate, Mode};
use crate::support::upstream::{Upstream, answer, answer_with};
use crate::support::wait::wait_until;
use crate::support::web::get;

/// A service that reads from the listener `ro`: it says which server answered, or 503. `/users` may be kept.
async fn service(ro: Arc<OnceLock<SocketAddr>>) -> Upstream {
    Upstream::start(move |seen| {
        let ro = ro.get().copied();
        async move {
            if seen.target == "/health" {
                return answer(200, "");
            }
            let Some(ro) = ro else { return answer(503, "") };
            let read = background().spawn(async move { which_node(&connect(ro).await?).await });
            match read.await.unwrap() {
                Ok(node) if seen.target == "/users" => {
                    answer_with(&[("cache-control", "max-age=1")], node.to_string())
                }
                Ok(node) => answer(200, node.to_string()),
                Err(_) => answer(503, ""),
            }
        }
    })
    .await
}

async fn stack() -> (Vec<Gate>, Upstream, Upstream, Balancer) {
    let gates = gates(shared().await).await;
    let ro = Arc::new(OnceLock::new());
    let services = (service(Arc::clone(&ro)).await, service(Arc::clone(&ro)).await);
    let config = format!(
        "{}sessions: {{queue_timeout: 1s}}\nhttp:\n  bind: \"BALANCER:8080\"\n  upstreams: [\"{}\", \"{}\"]\n  \
         listener: ro\n  cache: {{size: 1MiB, stale_if_error: 10m}}\n  queue_timeout: 1s\n",
        config_for(gates.iter().map(Gate::addr)),
        services.0.addr(),
        services.1.addr()
    );
    let balancer = Balancer::start_front(&config).await;
    ro.set(balancer.ro()).unwrap();
    balancer.wait_ready().await;
    (gates, services.0, services.1, balancer)
}

/// Takes a server away, with its open sessions.
async fn stop(gate: &Gate) {
    gate.set(Mode::Reset).await;
    gate.set(Mode::Refuse).await;
}

#[tokio::test]
async fn any_one_server_and_any_one_service_may_stop() {
    let (gates, one, _other, balancer) = stack().await;
    for gate in &gates {
        stop(gate).await;
        for _ in 0..10 {
            let got = get(balancer.front(), "/").await;
            assert_eq!(got.status, 200, "{got:?}");
        }
        gate.set(Mode::Pass).await;
        balancer.wait_ready().await;
    }
    one.set(crate::support::upstream::Mode::Refuse).await;
    for _ in 0..10 {
        assert_eq!(get(balancer.front(), "/").await.status, 200);
    }
}

#[tokio::test]
async fn without_any_server_what_is_stored_goes_out_at_once_and_the_rest_waits() {
    let (gates, one, other, balancer) = stack().await;
    let kept = get(balancer.front(), "/users").await;
    assert_eq!(kept.status, 200, "{kept:?}");
    for gate in &gates {
        stop(gate).await;
    }
    balancer.wait_log("database_gone", |line| line["front"] == "http" && line["listener"] == "ro").await;
    let (ready, said) = balancer.get("/readyz?front=http").await.unwrap();
    assert!(ready == 503 && said.contains("depends on listener \"ro\""), "{said}");
    let status = balancer.status().await;
    assert_eq!((&status["http"][0]["listener"], &status["http"][0]["ready"]), (&"ro".into(), &false.into()));

    let asked = one.seen().len() + other.seen().len();
    wait_until("the stored answer to be past its time", async || {
        let got = get(balancer.front(), "/users").await;
        assert_eq!((got.status, &got.body), (200, &kept.body), "{got:?}");
        assert!(!got.header("age").is_empty(), "{got:?}");
        if got.header("x-cache") == "stale" { Ok(()) } else { Err(got) }
    })
    .await;
    let got = get(balancer.front(), "/never-asked-for").await;
    let said = (got.status, got.header("x-pgsplit-reason"), got.header("retry-after"));
    assert_eq!(said, (503, "database".to_owned(), "1".to_owned()), "{got:?}");
    assert_eq!(one.seen().len() + other.seen().len(), asked, "no service was asked");

    for gate in &gates {
        gate.set(Mode::Pass).await;
    }
    // Some requests wait for a server meanwhile.
    wait_until("an answer", async || {
        let got = get(balancer.front(), "/").await;
        if got.status == 200 { Ok(()) } else { Err(got) }
    })
    .await;
    balancer.wait_log("database_back", |line| line["listener"] == "ro").await;
    assert_eq!(balancer.get("/readyz?front=http").await.unwrap().0, 200);
}
