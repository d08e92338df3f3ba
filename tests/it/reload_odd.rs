//! What may stand where the configuration stood, and who may be there when it is loaded again.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::balancer::Balancer;
use crate::support::client::connect;
use crate::support::cluster::shared;
use crate::support::process::Signal;
use crate::support::wait::wait_until;
use crate::support::web::{Got, send};

const TOKEN: &str = "canary-93b7d0e415";
const RW: &str = "  - {name: rw, bind: \"BALANCER:6432\", target: primary}\n";
const RO: &str = "  - {name: ro, bind: \"BALANCER:6433\", target: prefer-standby}\n";

async fn config(listeners: &str) -> String {
    let nodes = shared().await.config();
    format!("{nodes}admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\nlisteners:\n{listeners}")
}

async fn post(balancer: &Balancer, path: &str) -> Got {
    let authorization = format!("Bearer {TOKEN}");
    send(balancer.admin(), "POST", path, &[("authorization", &authorization)], "").await
}

async fn reloads(balancer: &Balancer, result: &str) -> i64 {
    let metric = format!("pgsplit_config_reloads_total{{result=\"{result}\"}}");
    crate::tools::whole(balancer.metric(&metric).await)
}

#[tokio::test]
async fn a_pipe_in_the_place_of_the_file_jams_neither_reloads_nor_the_end() {
    let good = config(RW).await + "runtime: {watch_config: false}\n";
    let balancer = Balancer::start(&good).await;
    balancer.wait_ready().await;
    let path = balancer.config_path();
    for odd in ["mkfifo", "mkdir"] {
        fs::remove_file(&path).unwrap();
        assert!(Command::new(odd).arg(&path).status().unwrap().success());
        let got = post(&balancer, "/api/v1/reload").await;
        assert_eq!((got.status, got.text().contains("not a plain file")), (422, true), "{}", got.text());
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        balancer.write(&good);
    }
    assert_eq!(post(&balancer, "/api/v1/reload").await.status, 200);
    // A secret that is one: what names it is refused.
    let secret = path.with_file_name("token");
    assert!(Command::new("mkfifo").arg(&secret).status().unwrap().success());
    balancer.write(&good.replace(&format!("token: {TOKEN}"), "token_file: token"));
    let got = post(&balancer, "/api/v1/reload").await;
    assert_eq!((got.status, got.text().contains("not a plain file")), (422, true), "{}", got.text());
    balancer.signal(Signal::TERM);
    assert_eq!(balancer.wait_exit(Duration::from_secs(20)).await.code(), Some(0));
}

#[tokio::test]
async fn half_a_file_is_not_loaded_before_its_writer_closes_it() {
    let good = config(RW).await;
    let balancer = Balancer::start(&good).await;
    balancer.wait_ready().await;
    let whole = fs::read_to_string(balancer.config_path()).unwrap() + "log: {level: debug}\n";
    let half = whole.find("admin:").unwrap();
    let mut file = fs::File::create(balancer.config_path()).unwrap();
    file.write_all(&whole.as_bytes()[..half]).unwrap();
    // Longer than a writer is waited for that has closed it.
    tokio::time::sleep(Duration::from_millis(600)).await;
    file.write_all(&whole.as_bytes()[half..]).unwrap();
    drop(file);
    let line = balancer.wait_log("config_reload", |_| true).await;
    assert_eq!(line["changed"], "log.level");
    assert_eq!((reloads(&balancer, "applied").await, reloads(&balancer, "failed").await), (1, 0));
}

#[tokio::test]
async fn who_waits_on_a_paused_listener_is_let_in_when_that_is_taken_out() {
    let balancer = Balancer::start(&(config(&(RW.to_owned() + RO)).await)).await;
    balancer.wait_ready().await;
    assert_eq!(post(&balancer, "/api/v1/listeners/ro/pause").await.status, 200);
    let addr = balancer.ro();
    let mut waits = JoinSet::from_iter([async move { connect(addr).await }]);
    wait_until("one to wait", async || {
        let now = balancer.status().await["listeners"][1]["waiting"].clone();
        if now == 1 { Ok(()) } else { Err(now) }
    })
    .await;
    balancer.write(&config(RW).await);
    waits.join_next().await.unwrap().unwrap().unwrap();
}
