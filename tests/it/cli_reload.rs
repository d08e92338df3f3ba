//! `pgsplit reload`: a new file goes, a bad one changes nothing, and either is said.

#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;

use crate::support::balancer::Balancer;
use crate::support::cluster::shared;
use crate::tools::run_in;

const TOKEN: &str = "canary-60b1c9e7d2";

async fn config() -> String {
    let admin =
        format!("admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\nruntime: {{watch_config: no}}\n");
    shared().await.config() + &admin
}

async fn run(args: &[&str]) -> (Option<i32>, String, String) {
    run_in(&std::env::temp_dir(), args, &[]).await
}

#[tokio::test]
async fn reload_says_what_is_different_or_what_is_wrong() {
    let good = config().await;
    let balancer = Balancer::start(&good).await;
    balancer.wait_ready().await;
    let path = balancer.config_path().display().to_string();
    let reload = ["reload", "-c", &path];
    assert_eq!(run(&reload).await, (Some(0), "nothing is different\n".to_owned(), String::new()));

    let changed = good.replace("watch_config: no", "watch_config: no, threads: 3") + "log: {level: debug}\n";
    balancer.write(&changed);
    let (code, said, _) = run(&reload).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said, "~ log.level: info -> debug\n~ runtime.threads: 0 -> 3  (needs a restart)\n");
    assert_eq!(balancer.wait_log("config_reload", |_| true).await["by"], "api");
    let (code, json, _) = run(&["reload", "--json", "-c", &path]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (code, &json["result"]),
        (Some(0), &"unchanged".into()),
        "what needs a restart waits for it: {json}"
    );

    // Not `-c`: the file in which the address and the token stand is the one that is broken.
    let admin = balancer.admin().to_string();
    let token = balancer.config_path().with_file_name("token");
    std::fs::write(&token, TOKEN).unwrap();
    let reload = ["reload", "--admin", &admin, "--token-file", token.to_str().unwrap()];
    balancer.write(&(good.clone() + "check_: {password: canary-2}\nlog: {level: verbose,}\n"));
    let (code, out, said) = run(&reload).await;
    assert_eq!((code, out.as_str()), (Some(78), ""), "{said}");
    for part in ["config.yaml:", "`check_`", "pgsplit: nothing has changed: mend the file and reload again\n"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (code, _, said) = run(&["reload", "--admin", &admin]).await;
    assert_eq!((code, said.contains("answered 401")), (Some(77), true), "{said}");
}

#[tokio::test]
async fn config_diff_says_what_a_reload_would_change() {
    let running = config().await;
    let balancer = Balancer::start(&running).await;
    balancer.wait_ready().await;
    let path = balancer.config_path().display().to_string();
    let hidden = "? check.password, admin.token: secrets are not shown, and so not compared\n";
    let (code, said, _) = run(&["config", "diff", "-c", &path]).await;
    assert_eq!((code, said), (Some(0), format!("nothing is different\n{hidden}")));

    let new = balancer.config_path().with_file_name("new.yaml");
    let compare = async |text: &str| {
        std::fs::write(&new, text.replace("BALANCER", &balancer.admin().ip().to_string())).unwrap();
        run(&["config", "diff", new.to_str().unwrap(), "-c", &path]).await
    };
    let listeners = "listeners:\n  - {name: rw, bind: \"BALANCER:6432\", target: primary, balance: first}\n  \
                     - {name: ro, bind: \"BALANCER:6433\", target: prefer-standby}\n";
    let (code, said, _) = compare(&(running.clone() + listeners)).await;
    let expected =
        format!("~ listeners.rw.balance: leastconn -> first\n{hidden}A reload applies all of it.\n");
    assert_eq!((code, said), (Some(0), expected));
    let (_, said, _) = compare(&(running.replace("watch_config: no", "threads: 3") + listeners)).await;
    assert!(said.contains("~ runtime.threads: 0 -> 3  (needs a restart)\n"), "{said}");
    assert!(
        said.ends_with("A reload applies all of it but runtime.threads: that takes a restart.\n"),
        "{said}"
    );

    // What is said is what a reload does.
    balancer.write(&(running.clone() + listeners));
    let (_, reloaded, _) = run(&["reload", "-c", &path]).await;
    assert_eq!(reloaded, "~ listeners.rw.balance: leastconn -> first\n");

    let (code, said, err) = compare("nodes: [{adr: db1}]\n").await;
    assert_eq!((code, said.as_str()), (Some(78), ""), "{err}");
    assert!(err.contains("new.yaml:1:") && err.contains("did you mean `addr`?"), "{err}");
    let (code, json, _) = run(&["config", "diff", "--json", "-c", &path]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["changes"]), (Some(0), &Value::Array(Vec::new())));
    assert_eq!(json["not_compared"], serde_json::json!(["check.password", "admin.token"]));
}
