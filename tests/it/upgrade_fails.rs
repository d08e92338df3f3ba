//! An upgrade that comes to nothing: the old process goes on as if nothing had been, and says why.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;

use serde_json::json;

use crate::support::balancer::Balancer;
use crate::support::client::{connect, value};
use crate::support::cluster::shared;
use crate::support::process::{Signal, children};
use crate::support::raw::Raw;
use crate::support::wait::wait_until;
use crate::tools::whole;
use crate::upgrade::{PID, comes, is_gone, post, start, upgrade, wait_gone, with_token};

/// What a script begins with that speaks as a new process does.
const SPEAKS: &str = r#"export LC_ALL=C
frame() { printf "\\x00\\x00\\x00\\x$(printf %02x $((${#1} + 4)))\\x00\\x00\\x00\\x00\\x00\\x$(printf %02x ${#1})%s" "$1" >&0; }
until_said() { while IFS= read -r -d '}' said; do case $said in *"$1"*) return;; esac; done; }
"#;
const GREETS: &str = r#"frame '{"Hello":{"protocol":1,"version":"9"}}'; "#;
const BEGINS: &str = r#"frame '"Ready"'; until_said Begin; frame '"Begun"'; "#;

#[tokio::test]
async fn a_program_that_does_not_take_over_changes_nothing() {
    let balancer = start("").await;
    let client = connect(balancer.rw()).await.unwrap();
    let pid = value(&client, PID).await.unwrap();
    let begins = |rest: &str| greets(&format!("{BEGINS}{rest}"));
    let cases = [
        ("ends", "exit 3".to_owned(), "ended before it was ready (exit status: 3)"),
        ("hangs", "exec sleep 100".to_owned(), "was not ready within 1s"),
        ("babbles", "printf 'HTTP/1.1 200 OK' >&0; exec sleep 100".to_owned(), "is not understood"),
        (
            "refuses",
            format!("{SPEAKS}frame '{{\"Refused\":{{\"why\":\"no thanks\"}}}}'; exit 1"),
            "refused: no thanks",
        ),
        (
            "is foreign",
            format!("{SPEAKS}frame '{{\"Hello\":{{\"protocol\":7,\"version\":\"9\"}}}}'; exec sleep 100"),
            "in another way (7)",
        ),
        ("has no time", greets("until_said Prepare; exit 4"), "(exit status: 4)"),
        ("leaves", greets("frame '\"Ready\"'; until_said Begin; exit 5"), "(exit status: 5)"),
        ("does not begin", greets("frame '\"Ready\"'; until_said Begin; exec sleep 100"), "it was ended"),
        ("sleeps", begins("until_said Session; exec sleep 100"), "it was ended"),
        ("dies with a session", begins("until_said Session; exit 6"), "(exit status: 6)"),
    ];
    for (n, (name, script, expected)) in cases.into_iter().enumerate() {
        balancer.replace_program(Some(&script));
        // Only who hangs is waited for to the end.
        let wait = if name == "hangs" { 1 } else { 50 };
        let (status, failed) = post(&balancer, &format!("/api/v1/upgrade?wait={wait}")).await;
        assert_eq!(status, 500, "{name}: {failed}");
        let error = failed["error"].as_str().unwrap();
        assert!(error.contains(expected), "{name}: {error}");
        balancer.wait_log("upgrade_failed", |line| line["error"] == error && line["by"] == "api").await;
        let last = &balancer.status().await["upgrade"];
        assert_eq!((&last["last"], &last["last_error"]), (&json!("failed"), &json!(error)), "{name}");
        let count = whole(balancer.metric("pgsplit_upgrades_total{result=\"failed\"}").await);
        assert_eq!(usize::try_from(count), Ok(n + 1), "{name}");
        assert_eq!(value(&client, PID).await.unwrap(), pid, "{name}");
        assert_eq!(comes(balancer.rw()).await.as_deref(), Ok("1"), "{name}");
        assert_eq!(children(balancer.pid()), [0; 0], "{name}");
    }
    // One that has a session of its own by then takes that with it, and nothing else.
    let other = connect(balancer.ro()).await.unwrap();
    let takes = r#"until_said '"Session"'; id=${said#*\"id\":}; frame "{\"Taken\":${id%%,*}}"; until_said Yours; exit 7"#;
    balancer.replace_program(Some(&begins(takes)));
    let (status, failed) = post(&balancer, "/api/v1/upgrade?wait=50").await;
    let error = failed["error"].as_str().unwrap();
    assert!(status == 500 && error.ends_with("(exit status: 7); sessions lost with it: 1"), "{failed}");
    let [one, two] = [value(&client, PID).await, value(&other, PID).await];
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    let left = if one.is_ok() { client } else { other };
    let pid = value(&left, PID).await.unwrap();
    let page = balancer.get("/").await.unwrap().1;
    assert!(page.contains("the last upgrade failed, this process goes on: the new process"), "{page}");
    // And all the same one that works does.
    balancer.replace_program(None);
    let done = upgrade(&balancer).await;
    assert_eq!(done["moved"], 1);
    assert_eq!(value(&left, PID).await.unwrap(), pid);
}

/// A script that goes on like that once it has greeted.
pub(crate) fn greets(rest: &str) -> String {
    format!("{SPEAKS}{GREETS}{rest}")
}

#[tokio::test]
async fn an_order_given_while_the_new_process_gets_ready_goes_over() {
    let balancer = start("").await;
    let script = greets(
        r#"until_said Prepare; : >prepared; until [ -e go_on ]; do sleep 0.05; done; frame '"Ready"'; until_said Begin
case $said in *'"rw","is_paused":true'*) : >begun;; *) exit 9;; esac; until [ -e ask ]; do sleep 0.05; done; exit 8"#,
    );
    balancer.replace_program(Some(&script));
    let file = |name| balancer.config_path().with_file_name(name);
    let given = async {
        wait_until("it to be prepared", async || file("prepared").exists()).await;
        let mut admin = Raw::connect(balancer.admin()).await.unwrap();
        let mut order = async |what: &str| {
            let token = "Authorization: Bearer canary-38c1f0a9e5";
            let request =
                format!("POST /api/v1/listeners/rw/{what} HTTP/1.1\r\nHost: localhost\r\n{token}\r\n\r\n");
            admin.send(request).await.unwrap();
            let reply = admin.reply().await.unwrap();
            (reply.status, reply.text())
        };
        let paused = order("pause").await;
        fs::write(file("go_on"), "").unwrap();
        wait_until("it to begin", async || file("begun").exists()).await;
        // It would be so here, and not there.
        let refused = order("resume").await;
        fs::write(file("ask"), "").unwrap();
        (paused, refused)
    };
    let (failed, (paused, refused)) = tokio::join!(post(&balancer, "/api/v1/upgrade?wait=50"), given);
    assert_eq!(paused.0, 200, "{}", paused.1);
    assert!(refused.0 == 409 && refused.1.contains("another process is taking"), "{refused:?}");
    assert!(failed.1["error"].as_str().unwrap().contains("(exit status: 8)"), "{}", failed.1);
}

#[tokio::test]
async fn there_is_one_at_a_time_and_none_without_the_token() {
    let balancer = start("").await;
    let denied = crate::support::web::send(balancer.admin(), "POST", "/api/v1/upgrade", &[], "").await;
    assert_eq!(denied.status, 401);
    balancer.replace_program(Some("until [ -e go_on ]; do sleep 0.05; done; exit 3"));
    let under_way = async {
        balancer.wait_log("upgrade_started", |_| true).await;
        let refused = post(&balancer, "/api/v1/upgrade").await;
        balancer.signal(Signal::USR2);
        balancer.wait_log("upgrade_refused", |line| line["by"] == "signal").await;
        assert_eq!(comes(balancer.rw()).await.as_deref(), Ok("1"), "nobody waits for it");
        fs::write(balancer.config_path().with_file_name("go_on"), "").unwrap();
        refused
    };
    let (first, second) = tokio::join!(post(&balancer, "/api/v1/upgrade?wait=50"), under_way);
    assert_eq!((second.0, &second.1["error"]), (409, &json!("an upgrade is under way")));
    assert_eq!(first.0, 500, "{}", first.1);
    assert!(first.1["error"].as_str().unwrap().contains("(exit status: 3)"), "{}", first.1);
}

#[tokio::test]
async fn a_bad_file_is_told_and_who_has_no_place_in_a_good_one_ends_where_it_is() {
    let listeners = "listeners:\n  - {name: rw, bind: \"BALANCER:6432\", target: primary}\n";
    let config = with_token(&(shared().await.config() + listeners + "runtime: {watch_config: false}\n"));
    let balancer = Balancer::start(&config).await;
    balancer.wait_ready().await;
    let client = connect(balancer.rw()).await.unwrap();
    let pid = value(&client, PID).await.unwrap();
    balancer.write(&(config.clone() + "nonsense: 1\n"));
    let (status, failed) = post(&balancer, "/api/v1/upgrade").await;
    let error = failed["error"].as_str().unwrap();
    assert!(status == 500 && error.contains("refused") && error.contains("nonsense"), "{failed}");
    fs::remove_file(balancer.config_path()).unwrap();
    let (status, failed) = post(&balancer, "/api/v1/upgrade").await;
    assert!(status == 500 && failed["error"].as_str().unwrap().contains("cannot read"), "{failed}");
    assert_eq!(value(&client, PID).await.unwrap(), pid);
    assert_eq!(comes(balancer.rw()).await.as_deref(), Ok("1"));

    // The listener of this session is called otherwise there.
    balancer.write(&config.replace("name: rw,", "name: main,"));
    let old = balancer.pid();
    let (status, done) = post(&balancer, "/api/v1/upgrade").await;
    assert_eq!((status, &done["moved"], &done["stayed"]), (200, &json!(0), &json!(1)), "{done}");
    balancer.succeeded_by(u32::try_from(done["pid"].as_u64().unwrap()).unwrap());
    assert_eq!(value(&client, PID).await.unwrap(), pid);
    assert_eq!(comes(balancer.rw()).await.as_deref(), Ok("1"));
    let ends = wait_until("the end of who has come", async || {
        balancer
            .log_lines()
            .into_iter()
            .find(|line| line["event"] == "session_end" && line["listener"] == "main")
    });
    ends.await;
    assert!(!is_gone(old));
    drop(client);
    wait_gone(old).await;
}
