//! `pgsplit config`, as a person meets it.

#![allow(clippy::unwrap_used, reason = "tests")]

use crate::support::home;
use assert_cmd::Command;

const FILE: &str = "\
nodes: [{addr: db1, role: primary}, db2]
check: {user: lb_check, password: canary-51, interval: 5s}
admin: {token: canary-0123456789abcdef}
http: {upstreams: [users1:8080], cache: 64MiB}
";

fn pgsplit(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("pgsplit").unwrap();
    command.args(args).env_clear().current_dir(std::env::temp_dir());
    command
}

fn file(text: &str) -> String {
    let path = home::directory("cli-config").join("config.yaml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn out(command: &mut Command) -> String {
    String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap()
}

#[test]
fn show_marks_defaults_and_hides_secrets() {
    let path = file(FILE);
    let yaml = out(&mut pgsplit(&["config", "show", &path]));
    for part in [
        "  interval: 5s\n",
        "  rise: 2  # default\n",
        "  password: \"***\"\n",
        "  token: \"***\"\n",
        "    size: 64MiB  # default\n",
    ] {
        assert!(yaml.contains(part), "{part}:\n{yaml}");
    }
    // What is shown can be run.
    let again = file(&yaml);
    assert_eq!(
        out(&mut pgsplit(&["config", "show", &again])).lines().skip(1).collect::<Vec<_>>(),
        yaml.lines().skip(1).collect::<Vec<_>>()
    );
    pgsplit(&["check", &again]).assert().success();
    let json = out(&mut pgsplit(&["config", "show", &path, "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["check"]["interval"], &json["check"]["password"]), (&"5s".into(), &"***".into()));
    for shown in [yaml, json.to_string()] {
        assert!(!shown.contains("canary"), "{shown}");
    }
    let url = "postgres://lb:canary-52@db1,db2/shop";
    let shown = out(pgsplit(&["config", "show", "--from-url", url]).env("PGSPLIT_BIND", "0.0.0.0"));
    assert!(shown.contains("bind: 0.0.0.0:6432\n") && !shown.contains("canary"), "{shown}");
    let wrong = file("nodes: [db1]\ncheck: {pasword: canary-53}\n");
    let assert = pgsplit(&["config", "show", &wrong]).assert().code(78);
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(said.contains("did you mean `password`?") && !said.contains("canary"), "{said}");
}

#[test]
fn explain_tells_of_one_key_of_several_and_of_all() {
    let expected = "\
check.rise

Good checks in a row to come up. One is enough for a node without which there is none: no other node is up, or it is the primary that is awaited.

  type     1 to 1000
  default  2
  example  rise: 1
  change   is applied by a reload
";
    assert_eq!(out(&mut pgsplit(&["config", "explain", "check.rise"])), expected);
    let several = out(&mut pgsplit(&["config", "explain", "balance"]));
    assert!(several.contains("listeners[].balance\n") && several.contains("http.balance\n"), "{several}");
    // As a reload calls it.
    for path in ["listeners.rw.bind", "listeners[0].bind", "nodes.db1.example.com:5432.addr"] {
        let told = out(&mut pgsplit(&["config", "explain", path]));
        let (what, _) = path.split_once(['.', '[']).unwrap();
        assert!(told.starts_with(&format!("{what}[].")), "{path}: {told}");
    }
    let all = out(pgsplit(&["config", "explain"]).env("COLUMNS", "100"));
    assert!(50 < all.lines().count() && all.lines().all(|line| line.chars().count() <= 100), "{all}");
    let tables = out(&mut pgsplit(&["config", "explain", "--markdown"]));
    assert!(
        tables.contains("\n\n| Key | Type | Default | Example | Meaning |\n|---|---|---|---|---|\n| `max` |"),
        "{tables}"
    );
    pgsplit(&["config", "explain", "check.raise"])
        .assert()
        .code(1)
        .stderr("pgsplit: no key is called `check.raise`; did you mean `check.rise`?\n");
}

#[test]
fn the_schema_is_json() {
    let schema: serde_json::Value = serde_json::from_str(&out(&mut pgsplit(&["config", "schema"]))).unwrap();
    assert_eq!(schema["properties"]["check"]["properties"]["interval"]["default"], "1s");
}
