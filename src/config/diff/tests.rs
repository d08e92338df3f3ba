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
        differences("admin: {socket: off}\n", new),
        "~ check.type: startup -> login\n\
         ~ check.interval: 1s -> 250ms\n\
         ~ check.fast_interval: 500ms -> 250ms\n\
         ~ check.down_interval: 1s -> 250ms\n\
         ~ check.user: postgres -> lb\n\
         ~ check.max_lag: 0 -> 16MiB\n\
         ~ sessions.queue_timeout: 10s -> 0\n\
         ~ sessions.keepalive: {idle: 1m, interval: 10s, count: 3} -> off\n\
         ~ admin: {bind: 127.0.0.1:8404, socket: off, hosts: [], token: \"\"} -> off\n\
         ~ log.requests: all -> 1/100\n\
         ~ runtime.threads: 0 -> 4  (needs a restart)\n\
         ~ runtime.drain_timeout: 1m -> 1m30s\n"
    );
}

/// Without a user nobody logs in beside Patroni, whoever that would be.
#[test]
fn a_user_for_checks_beside_patroni_is_a_difference() {
    let differences = differences("check: {type: patroni}\n", "check: {type: patroni, user: postgres}\n");
    assert_eq!(differences, "~ check.user: \"\" -> postgres\n");
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
        "+ nodes.db4: {addr: db4:5432, role: standby, weight: 50, backup: false, max_connections: 0, patroni: \"8008\"}\n\
         ~ nodes.db3.backup: false -> true\n\
         - nodes.db2: {addr: db2:5432, role: standby, weight: 100, backup: false, max_connections: 0, patroni: \"8008\"}\n\
         ~ nodes: [db1, db3] -> [db3, db1]\n\
         ~ listeners.rw.bind: 127.0.0.1:6432 -> 127.0.0.1:7000\n\
         + listeners.all: {bind: 127.0.0.1:6433, cluster: main, target: any, balance: leastconn, max_connections: 1000, tls: {mode: passthrough}}\n\
         - listeners.ro: {bind: 127.0.0.1:6433, cluster: main, target: prefer-standby, balance: leastconn, max_connections: 1000, tls: {mode: passthrough}}\n"
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
    let expected = "~ clusters.main.nodes.db1.weight: 100 -> 7\n+ clusters.logs: {nodes: [{addr: db9:5432, ";
    assert!(text.starts_with(expected) && text.lines().count() == 2, "{text}");
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
        "+ http.api.upstreams.users3:8080: {weight: 10, backup: false, max_connections: 0}\n\
         - http.api.upstreams.users1:8080: {weight: 100, backup: false, max_connections: 0}\n\
         ~ http.api.check.path: /health -> /healthz\n\
         ~ http.api.max_body: 1MiB -> 0\n\
         ~ http.api.retries.max: 2 -> 0\n\
         ~ http.api.cache: off -> {size: 1MiB, max_entry: 1MiB, stale_while_revalidate: 10s, stale_if_error: 1m}\n"
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
fn another_front_does_not_make_the_first_another_one() {
    let one = "http: {name: api, upstreams: ['users1:8080']}\n";
    let two = "http: [{name: api, bind: '127.0.0.1:8080', upstreams: ['users1:8080']}, {name: web, bind: '127.0.0.1:8081', upstreams: ['web1:80']}]\n";
    let text = differences(one, two);
    assert!(
        text.starts_with("+ http.web: {bind: 127.0.0.1:8081, upstreams: ") && text.lines().count() == 1,
        "{text}"
    );
    assert!(differences("", one).starts_with("+ http: [{name: api, "), "{}", differences("", one));
}

#[test]
fn a_password_beside_the_file_is_compared_too() {
    let old = config(NODES);
    let mut new = old.clone();
    let cluster = Arc::make_mut(&mut new.clusters[0]);
    Arc::make_mut(&mut cluster.nodes[1]).password = Some(Secret::new("hunter2"));
    let change = diff(&old, &new);
    assert_eq!(change.to_string(), "+ nodes.db2.password: ***\n");
    assert!(change.is_applied() && !format!("{change:?}").contains("hunter"));
}

/// What a running pgsplit with this file would show of itself.
fn running(yaml: &str) -> Shown {
    serde_json::from_str(&serde_json::to_string_pretty(&show(&config(yaml))).unwrap()).unwrap()
}

#[test]
fn a_running_one_is_compared_by_what_it_shows() {
    let all = "check: {user: lb, password: hunter2, max_lag: 16MiB}\nadmin: {token: abcdefghijklmnop, hosts: [lb.example.com]}\n\
               http: {name: api, upstreams: ['users1:8080'], routes: [{path: /a, group: default}], cache: 64MiB}\n";
    let same = format!("{NODES}{all}");
    let (diff, hidden) = diff_to_running(&running(&same), &config(&same));
    assert_eq!(diff.to_string(), "");
    assert_eq!(hidden, ["check.password", "admin.token"], "it does not show them");
    let (diff, hidden) =
        diff_to_running(&running(&same), &config(&format!("{NODES}runtime: {{threads: 2}}\n")));
    let text = diff.to_string();
    for line in [
        "~ check.password: *** -> \"\"",
        "~ check.max_lag: 16MiB -> 0",
        "~ admin.token: *** -> \"\"",
        "~ runtime.threads: 0 -> 2  (needs a restart)",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}:\n{text}");
    }
    assert_eq!(hidden, [""; 0]);
    let (diff, _) = diff_to_running(&running(NODES), &config(&same));
    assert!(diff.to_string().contains("~ admin.token: \"\" -> ***\n"), "{diff}");
}

#[test]
fn every_key_that_needs_a_restart_is_kept_until_then() {
    let all = crate::config::explain::all();
    let keys: Vec<_> =
        all.iter().filter(|key| !key.about.is_reloadable).map(|key| key.path.as_str()).collect();
    assert_eq!(keys, ["runtime.threads"], "`keep_until_restart` must take over another one, too");
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
