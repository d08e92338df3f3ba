//! Whom the command line asks: who runs by the file, whatever is wrong with that by now, and never another one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::{Path, PathBuf};

use crate::support::balancer::Balancer;
use crate::support::cluster::shared;
use crate::support::home;
use crate::tools::run_in;

const TOKEN: &str = "canary-whom-0123456789";

const ORDERS: [&[&str]; 9] = [
    &["drain", "n0"],
    &["maint", "n0"],
    &["ready", "n0"],
    &["weight", "n0", "7"],
    &["kill", "--node", "n0", "--yes"],
    &["pause", "rw"],
    &["resume", "rw"],
    &["reload"],
    &["upgrade"],
];
const LOOKS: [&[&str]; 4] = [&["status"], &["events"], &["sessions"], &["config", "diff"]];
/// A file by which one may run.
const SOUND: &str = "nodes: [{addr: db1, role: primary}]\n";

/// Somebody else, in the place where one is that runs without a file.
struct Other {
    balancer: Balancer,
    dir: PathBuf,
}

impl Other {
    async fn start() -> Self {
        let dir = home::directory("whom");
        let admin = format!("admin: {{bind: \"BALANCER:8404\", socket: \"{}/admin.sock\"}}\n", dir.display());
        let balancer = Balancer::start(&(shared().await.config() + &admin)).await;
        balancer.wait_ready().await;
        Self { balancer, dir }
    }

    /// Runs a verb in the directory `here`: exit code, standard output, standard error.
    async fn verb(&self, here: &Path, args: &[&str]) -> (Option<i32>, String, String) {
        run_in(here, args, &[("RUNTIME_DIRECTORY", &self.dir.display().to_string())]).await
    }

    /// Nobody has been ordered anything.
    async fn is_untouched(&self) -> bool {
        let lines = self.balancer.log_lines();
        let orders = [
            "node_admin",
            "node_weight",
            "listener_paused",
            "listener_resumed",
            "config_reload",
            "config_unchanged",
            "config_reload_failed",
            "upgrade_started",
        ];
        let is_order = |event: &str| orders.contains(&event);
        !lines.iter().any(|line| line["event"].as_str().is_some_and(is_order))
            && self.balancer.node("n0").await["admin"] == "ready"
    }
}

#[tokio::test]
async fn a_file_that_does_not_say_whom_to_ask_lets_nobody_be_asked() {
    let other = Other::start().await;
    let here = home::directory("named");
    for (name, text, fault) in [
        ("typo.yaml", None, "cannot read typo.yaml: No such file or directory"),
        ("half.yaml", Some("nodes: [\n"), "half.yaml:"),
        ("twice.yaml", Some("admin: {socket: off}\nadmin: {}\n"), "the key `admin` is written twice"),
        ("bind.yaml", Some("admin: {bnd: '127.0.0.1:1'}\n"), "did you mean `bind`?"),
        ("unset.yaml", Some("admin: {bind: '${NOT_SET}'}\n"), "environment variable NOT_SET is not set"),
        ("other.yaml", Some("services: {db: {image: postgres}}\n"), "none of the keys of a configuration"),
        ("empty.yaml", Some(""), "none of the keys of a configuration"),
        ("list.yaml", Some("[nodes]\n"), "must be a mapping of"),
    ] {
        if let Some(text) = text {
            std::fs::write(here.join(name), text).unwrap();
        }
        for verb in ORDERS.iter().chain(&LOOKS) {
            let (code, out, said) = other.verb(&here, &[*verb, &["-c", name]].concat()).await;
            assert_eq!((code, out.as_str()), (Some(78), ""), "{verb:?} {name}: {said}");
            // `config diff` needs all of the file, and says all that is wrong with it.
            if verb[0] != "config" {
                assert!(said.contains(fault), "{verb:?} {name}: {said}");
                assert!(said.contains("nobody is asked") && said.contains("--admin"), "{verb:?}: {said}");
            }
        }
        let file = here.join(name).display().to_string();
        let environment =
            [("PGSPLIT_CONFIG", &*file), ("RUNTIME_DIRECTORY", &other.dir.display().to_string())];
        let (code, _, said) = run_in(&here, &["drain", "n0"], &environment).await;
        assert_eq!((code, said.contains("nobody is asked")), (Some(78), true), "{name}: {said}");
        let admin = format!("unix:{}/admin.sock", other.dir.display());
        let (code, _, said) = other.verb(&here, &["status", "-c", name, "--admin", &admin]).await;
        assert_eq!(code, Some(0), "{name}: {said}");
    }
    assert!(other.is_untouched().await);
}

#[tokio::test]
async fn a_file_that_nobody_named_lets_another_one_be_looked_at_and_not_ordered() {
    let other = Other::start().await;
    let here = home::directory("unnamed");
    std::fs::write(here.join("config.yaml"), "nodes: [\n").unwrap();
    for verb in ORDERS {
        let (code, out, said) = other.verb(&here, verb).await;
        assert_eq!((code, out.as_str()), (Some(78), ""), "{verb:?}: {said}");
        assert!(said.contains("config.yaml:") && said.contains("nobody is asked"), "{verb:?}: {said}");
    }
    assert!(other.is_untouched().await);
    let instead =
        format!("asking unix:{}/admin.sock, then http://127.0.0.1:8404 instead", other.dir.display());
    let (code, out, said) = other.verb(&here, &["status"]).await;
    assert_eq!((code, out.contains("n0"), said.contains(&instead)), (Some(0), true, true), "{said}");

    // By what it says as far as it is sound.
    std::fs::write(here.join("config.yaml"), "admin: {socket: /nowhere.sock, bind: 'off', x: 1}\n").unwrap();
    let (code, _, said) = other.verb(&here, &["status"]).await;
    assert_eq!((code, said.contains("asking unix:/nowhere.sock instead")), (Some(69), true), "{said}");

    // A node that there is not is said, also where nothing is to be done to it.
    std::fs::write(here.join("config.yaml"), "nodes: [\n").unwrap();
    let (code, _, said) = other.verb(&here, &["events", "--node", "n9"]).await;
    assert_eq!((code, said.contains("no such node; there are \"n0\", ")), (Some(1), true), "{said}");
    assert_eq!(other.verb(&here, &["events", "--node", "n0"]).await.0, Some(0));

    // Without a file it is the one in the usual place that is meant.
    std::fs::remove_file(here.join("config.yaml")).unwrap();
    let (code, _, said) = other.verb(&here, &["drain", "n0"]).await;
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(!other.is_untouched().await, "so an order would have been seen above");
    let environment = [("PGSPLIT_ADMIN", "here"), ("RUNTIME_DIRECTORY", &other.dir.display().to_string())];
    let (code, _, said) = run_in(&here, &["ready", "n0"], &environment).await;
    assert_eq!((code, said.contains("PGSPLIT_ADMIN")), (Some(78), true), "{said}");
    assert_eq!(other.balancer.node("n0").await["admin"], "drain");
}

#[tokio::test]
async fn who_runs_is_found_by_a_file_that_has_become_wrong_elsewhere() {
    let other = Other::start().await;
    let sound = shared().await.config();
    let own = format!("admin: {{bind: \"BALANCER:8404\", token: {TOKEN}}}\nruntime: {{watch_config: no}}\n");
    let balancer = Balancer::start(&(sound.clone() + &own)).await;
    balancer.wait_ready().await;
    let path = balancer.config_path().display().to_string();
    let here = home::directory("found");
    let verb = async |args: &[&str]| other.verb(&here, args).await;
    let all = async |file: &str| {
        let (code, _, said) = verb(&["reload", "-c", &path]).await;
        assert_eq!(code, Some(78), "{file}: {said}");
        let faults = ["`chek`", "environment variable NOT_SET is not set", "log.level"];
        assert!(faults.iter().all(|fault| said.contains(fault)), "{file}: {said}");
        assert!(said.ends_with("pgsplit: nothing has changed: mend the file and reload again\n"), "{said}");
        for args in
            [&["healthcheck", &path][..], &["healthcheck", "--ready", &path], &["status", "-c", &path]]
        {
            let (code, _, said) = verb(args).await;
            assert_eq!((code, said.as_str()), (Some(0), ""), "{file}: {args:?}");
        }
        let (code, _, said) = verb(&["weight", "n0", "9", "-c", &path]).await;
        assert_eq!((code, said.as_str()), (Some(0), ""), "{file}: the token is sent");
    };
    let wrong = "chek: {interval: 1s}\ndns: {refresh: \"${NOT_SET}\"}\nlog: {level: loud}\n";
    balancer.write(&(sound.clone() + &own + wrong));
    all("the token stands in it").await;
    std::fs::write(balancer.config_path().with_file_name("token"), TOKEN).unwrap();
    balancer.write(&(sound.clone() + &own.replace(&format!("token: {TOKEN}"), "token_file: token") + wrong));
    all("the token has a file of its own").await;

    // Without the token there is still somebody to look at, who says himself what he wants.
    for token in ["token_file: nowhere", "token: \"${NOT_SET}\""] {
        balancer.write(&(sound.clone() + &own.replace(&format!("token: {TOKEN}"), token) + wrong));
        assert_eq!(verb(&["status", "-c", &path]).await.0, Some(0), "{token}");
        let (code, _, said) = verb(&["weight", "n0", "3", "-c", &path]).await;
        assert_eq!((code, said.contains("answered 401")), (Some(77), true), "{token}: {said}");
    }
    assert_eq!(balancer.node("n0").await["weight"], 9);
    assert!(other.is_untouched().await);
}

#[tokio::test]
async fn healthcheck_asks_another_one_only_for_a_file_that_is_there() {
    let other = Other::start().await;
    let here = home::directory("health");
    let write = |name: &str, text: &str| std::fs::write(here.join(name), text).unwrap();
    let address = other.balancer.admin();
    write("half.yaml", "nodes: [\n");
    // With the address it had before somebody wrote a key twice, or one that there is not.
    write("twice.yaml", &format!("{SOUND}admin: {{bind: \"{address}\"}}\nlog: {{}}\nlog: {{}}\n"));
    write("section.yaml", &format!("{SOUND}admin: {{bind: \"{address}\", tokn: x}}\n"));
    let admin = address.to_string();
    for (args, env, code, part) in [
        (&["healthcheck", "typo.yaml"][..], &[("PGSPLIT_ADMIN", &*admin)][..], 1, "nobody is asked"),
        (&["healthcheck", "half.yaml"], &[("PGSPLIT_ADMIN", &*admin)], 0, "instead"),
        (&["healthcheck", "twice.yaml"], &[], 0, "instead"),
        (&["healthcheck", "section.yaml"], &[], 0, "instead"),
    ] {
        let (ended, _, said) = run_in(&here, args, env).await;
        assert_eq!((ended, said.contains(part)), (Some(code), true), "{args:?}: {said}");
    }
}
