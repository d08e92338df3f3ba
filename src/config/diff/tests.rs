//! Tests of the module above.

use super::*;

fn config(yaml: &str) -> Config {
    Config::from_yaml(yaml, "config.yaml", &|_| None).unwrap()
}

const NODES: &str = "nodes: [{addr: 'db1:5432', role: primary}, {addr: 'db2:5432', role: standby}]\n";

/// The differences, one line for each.
fn differences(old: &str, new: &str) -> String {
    diff(&config(&format!("{NODES}{old}")), &config(&format!("{NODES}{new}"))).to_string()
}

#[test]
fn what_says_the_same_is_no_difference() {
    assert_eq!(differences("", "check: {interval: 1000ms}\nlog: {level: info}\n# a remark\n"), "");
    let old = config(NODES);
    assert!(
        diff(
            &old,
            &config("clusters: {main: {nodes: [{addr: db1, role: primary}, {addr: db2, role: replica}]}}")
        )
        .is_empty()
    );
}

#[test]
fn each_key_has_its_line() {
    let new = "check: {interval: 250ms, user: lb, max_lag: 16MiB}\nsessions: {queue_timeout: 0, keepalive: off}\n\
               runtime: {drain_timeout: 90s, threads: 4}\nlog: {requests: 1/100}\nadmin: off\n";
    assert_eq!(
        differences("", new),
        "~ check.type: startup -> login\n\
         ~ check.interval: 1s -> 250ms\n\
         ~ check.fast_interval: 500ms -> 250ms\n\
         ~ check.down_interval: 1s -> 250ms\n\
         ~ check.user: postgres -> lb\n\
         ~ check.max_lag: 0 -> 16MiB\n\
         ~ sessions.queue_timeout: 10s -> 0\n\
         ~ sessions.keepalive: {idle: 1m, interval: 10s, count: 3} -> off\n\
         ~ log.requests: all -> 1/100\n\
         ~ runtime.threads: 0 -> 4  (needs a restart)\n\
         ~ runtime.drain_timeout: 1m -> 1m30s\n\
         - admin: {bind: 127.0.0.1:8404, token: }\n"
    );
}

#[test]
fn entries_come_and_go_as_a_whole_and_are_known_by_name() {
    let old = config(
        "nodes: [{addr: db1, role: primary}, {addr: db2, role: standby}, {addr: db3, role: standby}]\n",
    );
    let new = config(
        "nodes: [{addr: db4, role: standby, weight: 50}, {addr: db3, role: standby, backup: true}, {addr: db1, role: primary}]\n\
         listeners: [{name: rw, bind: '127.0.0.1:7000', target: primary}, {name: all, bind: '127.0.0.1:6433', target: any}]\n",
    );
    assert_eq!(
        diff(&old, &new).to_string(),
        "+ nodes.db4: {addr: db4:5432, role: standby, weight: 50, backup: false, max_connections: 0}\n\
         ~ nodes.db3.backup: false -> true\n\
         ~ listeners.rw.bind: 127.0.0.1:6432 -> 127.0.0.1:7000\n\
         + listeners.all: {bind: 127.0.0.1:6433, cluster: main, target: any, balance: leastconn, max_connections: 1000, tls: passthrough}\n\
         - nodes.db2: {addr: db2:5432, role: standby, weight: 100, backup: false, max_connections: 0}\n\
         - listeners.ro: {bind: 127.0.0.1:6433, cluster: main, target: prefer-standby, balance: leastconn, max_connections: 1000, tls: passthrough}\n\
         ~ nodes: [db1, db3] -> [db3, db1]\n"
    );
}

#[test]
fn a_second_cluster_does_not_make_the_first_another_one() {
    let listeners = "listeners: [{name: rw, bind: '127.0.0.1:6432', cluster: main, target: primary}]";
    let old = config(&format!("nodes: [{{addr: db1, role: primary}}]\n{listeners}"));
    let new = format!(
        "clusters: {{main: {{nodes: [{{addr: db1, role: primary, weight: 7}}]}}, logs: {{nodes: [{{addr: db9, role: primary}}]}}}}\n{listeners}"
    );
    let text = diff(&old, &config(&new)).to_string();
    assert!(
        text.starts_with("~ clusters.main.nodes.db1.weight: 100 -> 7\n+ clusters.logs.nodes.db9: {"),
        "{text}"
    );
    assert_eq!(text.lines().filter(|line| !line.starts_with("+ clusters.logs.")).count(), 1, "{text}");
}

#[test]
fn fronts_are_compared_down_to_their_upstreams() {
    let front = |rest: &str| format!("http: {{name: api, {rest}}}\n");
    let old = front("upstreams: [users1:8080, users2:8080], check: {path: /health}, cache: off");
    let new = front(
        "upstreams: [users2:8080, {addr: 'users3:8080', weight: 10}], check: {path: /healthz}, cache: 1MiB, max_body: 0, retries: 0",
    );
    assert_eq!(
        differences(&old, &new),
        "~ http.api.max_body: 1MiB -> 0\n\
         ~ http.api.retries: {max: 2, methods: [GET, HEAD, OPTIONS], statuses: [502, 503, 504], budget: 20%} -> {max: 0, methods: [GET, HEAD, OPTIONS], statuses: [502, 503, 504], budget: 20%}\n\
         ~ http.api.cache: off -> {size: 1MiB, max_entry: 1MiB, stale_while_revalidate: 10s, stale_if_error: 1m}\n\
         ~ http.api.check: {path: /health, host: \"\", interval: 2s, fast_interval: 500ms, timeout: 1s, rise: 2, fall: 3, expect: 200-399} -> \
         {path: /healthz, host: \"\", interval: 2s, fast_interval: 500ms, timeout: 1s, rise: 2, fall: 3, expect: 200-399}\n\
         + http.api.upstreams.users3:8080: {weight: 10, backup: false, max_connections: 0}\n\
         - http.api.upstreams.users1:8080: {weight: 100, backup: false, max_connections: 0}\n"
    );
}

#[test]
fn of_a_secret_only_that_it_changed_is_said() {
    let old = "check: {user: lb, password: hunter2}\nadmin: {token: abcdefghijklmnop}\n";
    let new = "check: {user: lb, password: hunter3}\nadmin: {token: ponmlkjihgfedcba}\n";
    let diff = diff(&config(&format!("{NODES}{old}")), &config(&format!("{NODES}{new}")));
    assert_eq!(diff.to_string(), "~ check.password: *** -> ***\n~ admin.token: *** -> ***\n");
    let shown = format!("{diff:?} {}", serde_json::to_string(&diff).unwrap());
    for secret in ["hunter", "abcdef", "ponml"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(differences(old, "").contains("~ check.password: *** -> \"\"\n"));
}

#[test]
fn it_is_json_for_programs() {
    let diff =
        diff(&config(NODES), &config(&format!("{NODES}runtime: {{threads: 2}}\nlog: {{level: debug}}\n")));
    assert_eq!(
        serde_json::to_string(&diff).unwrap(),
        r#"[{"key":"log.level","old":"info","new":"debug","effect":"applied"},{"key":"runtime.threads","old":"0","new":"2","effect":"needs_restart"}]"#
    );
    assert_eq!(
        (diff.keys(Effect::Applied), diff.keys(Effect::NeedsRestart)),
        ("log.level".into(), "runtime.threads".into())
    );
    assert!(diff.is_applied());
}

#[test]
fn what_needs_a_restart_stays_as_it_is_until_then() {
    let old = config(NODES);
    let mut new = config(&format!("{NODES}runtime: {{threads: 2, drain_timeout: 5s}}\n"));
    keep_until_restart(&old, &mut new);
    assert_eq!((new.runtime.threads, new.runtime.drain_timeout.as_secs()), (0, 5));
    let again = diff(&new, &config(&format!("{NODES}runtime: {{threads: 2, drain_timeout: 5s}}\n")));
    assert_eq!((again.changes.len(), again.is_applied()), (1, false), "it is said again until it is done");
}
