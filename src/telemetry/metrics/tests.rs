//! Tests of the module above.

#![allow(clippy::float_cmp, reason = "the figures are small whole numbers and quarters")]

use std::collections::BTreeMap;

use super::*;
use crate::base::role::Role;
use crate::telemetry::catalog::Kind;
use crate::telemetry::labels::{
    CheckResult, ConnectError, End, HttpMethod, NodeState, Redispatch, Rejection, StartupError,
};
use crate::telemetry::now::{ClusterNow, ListenerNow, NodeNow};
use crate::telemetry::shape::{ClusterShape, ListenerShape};

const ODD: &str = "d\"b\n3\\";
const DB2: NodeId = NodeId::first(1);

const NOTHING_KNOWN: NodeNow = NodeNow {
    place: 0,
    up: false,
    state: NodeState::Starting,
    role: None,
    superseded: false,
    held_back: false,
    lag_seconds: None,
    lag_bytes: None,
    weight: 0,
    sessions: 0,
};

fn shape() -> Shape {
    let listener = |name: &str| ListenerShape { name: name.to_owned(), cluster: 0 };
    Shape {
        version: "1.2.3",
        clusters: vec![ClusterShape {
            name: "main".to_owned(),
            nodes: vec!["db1".to_owned(), "db2".to_owned(), ODD.to_owned()],
        }],
        listeners: vec![listener("rw"), listener("ro")],
        fronts: vec![FrontShape {
            name: "http".to_owned(),
            groups: vec![("default".to_owned(), vec!["users1:8080".to_owned()])],
            methods: vec![HttpMethod::Get, HttpMethod::Other],
        }],
        workers: 2,
    }
}

fn now() -> Now {
    let node = |place, role, lag_seconds| NodeNow {
        place,
        up: true,
        state: NodeState::Up,
        role,
        superseded: false,
        held_back: false,
        lag_seconds,
        lag_bytes: None,
        weight: 100,
        sessions: 3,
    };
    let (primary, standby) = (Some(Role::Primary), Some(Role::Standby));
    let nodes = vec![node(0, primary, None), node(1, standby, Some(0.25)), node(2, None, None)];
    let listener = |name: &str, reads_on_primary| ListenerNow {
        name: name.to_owned(),
        limit: 100,
        reads_on_primary,
        ready: true,
        ..ListenerNow::default()
    };
    let (name, departed) = ("main".to_owned(), Vec::new());
    Now {
        clusters: vec![ClusterNow { number: 0, name, primaries: 1, standbys_up: 1, nodes, departed }],
        listeners: vec![listener("rw", None), listener("ro", Some(false))],
        fronts: vec![FrontNow { name: "http".to_owned(), ..FrontNow::default() }],
    }
}

/// Every series and its figure; none comes twice.
fn series(text: &str) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, figure) = line.rsplit_once(' ').expect("name and figure");
        let twin = series.insert(name.to_owned(), figure.parse().expect("a figure"));
        assert_eq!(twin, None, "{name} comes twice");
    }
    series
}

#[test]
fn every_described_metric_is_rendered_with_its_type_and_no_other() {
    let text = Metrics::new(&shape()).render(&now());
    for metric in catalog::ALL {
        assert!(text.contains(&format!("# HELP {} ", metric.name)), "{} has no help", metric.name);
        let kind = format!("# TYPE {} {}\n", metric.name, metric.kind.as_str());
        assert_eq!(text.matches(&kind).count(), 1, "{kind}");
    }
    assert_eq!(text.matches("# TYPE ").count(), catalog::ALL.len());
}

#[test]
fn every_series_exists_at_first_with_0() {
    let mut first = now();
    for node in &mut first.clusters[0].nodes {
        *node = NodeNow { place: node.place, ..NOTHING_KNOWN };
    }
    (first.clusters[0].primaries, first.clusters[0].standbys_up) = (0, 0);
    first.listeners.iter_mut().for_each(|listener| listener.ready = false);
    let series = series(&Metrics::new(&shape()).render(&first));
    for (name, figure) in &series {
        if *figure == 1.0 && (name.ends_with(r#"state="starting"}"#) || name.ends_with(r#"role="unknown"}"#))
        {
            continue;
        }
        let set = [
            "process_",
            "pgsplit_build_info",
            "pgsplit_sessions_limit",
            "pgsplit_config_last_reload_success",
        ];
        assert!(*figure == 0.0 || set.iter().any(|start| name.starts_with(start)), "{name} {figure}");
    }
    for name in [
        r#"pgsplit_connections_rejected_total{listener="rw",reason="queue_full"}"#,
        r#"pgsplit_sessions_total{listener="ro",node="db2",end="node_down"}"#,
        r#"pgsplit_login_duration_seconds_bucket{listener="ro",node="db2",le="0.0025"}"#,
        r#"pgsplit_node_connect_duration_seconds_count{node="db1"}"#,
        r#"pgsplit_node_state_changes_total{node="db1",to="going_down"}"#,
        r#"pgsplit_node_role{node="db1",role="unknown"}"#,
        r#"pgsplit_cancel_requests_total{result="broadcast"}"#,
    ] {
        assert!(series.contains_key(name), "{name}");
    }
    assert_eq!(series[r#"pgsplit_build_info{version="1.2.3"}"#], 1.0);
}

#[test]
fn states_are_shown_and_the_unknown_is_absent() {
    let series = series(&Metrics::new(&shape()).render(&now()));
    assert_eq!(series[r#"pgsplit_node_lag_seconds{node="db2"}"#], 0.25);
    assert!(!series.contains_key(r#"pgsplit_node_lag_seconds{node="db1"}"#));
    assert_eq!(series[r#"pgsplit_node_role{node="db2",role="standby"}"#], 1.0);
    assert_eq!(series[r#"pgsplit_node_role{node="db2",role="primary"}"#], 0.0);
    assert_eq!(series[r#"pgsplit_node_state{node="db1",state="up"}"#], 1.0);
    assert_eq!(series[r#"pgsplit_reads_on_primary{listener="ro"}"#], 0.0);
    assert!(!series.contains_key(r#"pgsplit_reads_on_primary{listener="rw"}"#));
    assert_eq!(series[r#"pgsplit_replicas_up{cluster="main"}"#], 1.0);
}

#[test]
fn a_strange_name_stays_in_its_label() {
    let text = Metrics::new(&shape()).render(&now());
    let series = series(&text);
    let node = r#"node="d\"b\n3\\""#;
    for name in ["pgsplit_node_up", "pgsplit_node_down_seconds_total"] {
        assert!(series.contains_key(&format!("{name}{{{node}}}")), "{name}: {text}");
    }
}

#[test]
fn an_accepted_connection_is_accounted_for_once() {
    let metrics = Metrics::new(&shape());
    let (rw, ro) = (metrics.listener(0), metrics.listener(1));
    for _ in 0..5 {
        rw.accept();
        ro.accept();
    }
    assert_eq!(metrics.opening(), 10);
    rw.reject(Rejection::Limit);
    rw.left();
    metrics.cancel(CancelResult::Routed);
    metrics.cancel(CancelResult::Limited);
    metrics.panicked();
    let pair = metrics.pair(1, 0, DB2);
    let first = pair.active_guard();
    let second = pair.active_guard();
    assert_eq!((metrics.opening(), pair.active()), (3, 2));
    pair.end(End::Client);
    drop(first);
    assert_eq!((metrics.opening(), pair.active(), pair.ended()), (3, 1, 1));
    let waiting = rw.waiting_guard();
    assert_eq!((metrics.opening(), rw.waiting()), (3, 1));
    drop(waiting);
    rw.reject(Rejection::QueueTimeout);
    let series = series(&metrics.render(&now()));
    assert_eq!(series["pgsplit_connections_opening"], 2.0);
    assert_eq!(series[r#"pgsplit_sessions_active{listener="ro",node="db2"}"#], 1.0);
    assert_eq!(series[r#"pgsplit_sessions_waiting{listener="rw"}"#], 0.0);
    drop(second);
}

#[test]
fn bytes_of_all_workers_are_added_up() {
    let metrics = Metrics::new(&shape());
    let pair = metrics.pair(0, 0, DB2);
    std::thread::scope(|scope| {
        // Worker 2 is one more than announced.
        for worker in 0..3 {
            let traffic = pair.traffic(worker);
            scope.spawn(move || {
                for _ in 0..1000 {
                    traffic.add_to_node(2);
                    traffic.add_to_client(3);
                }
            });
        }
    });
    assert_eq!(pair.bytes(), (6000, 9000));
    let series = series(&metrics.render(&now()));
    assert_eq!(series[r#"pgsplit_bytes_total{listener="rw",node="db2",direction="to_client"}"#], 9000.0);
    assert_eq!(series[r#"pgsplit_bytes_total{listener="ro",node="db2",direction="to_client"}"#], 0.0);
}

fn exercise(metrics: &Metrics) {
    let (second, listener, node) = (Duration::from_secs(1), metrics.listener(0), metrics.node(0, DB2));
    listener.accept();
    listener.accept_error();
    listener.left();
    listener.redispatch(Redispatch::CannotConnectNow);
    listener.queue_wait(second);
    listener.session_duration(second);
    node.connect_duration(second);
    node.connect_error(ConnectError::Dns);
    node.startup_error(StartupError::TooManyConnections);
    node.check(CheckResult::Full, second);
    node.state_change(NodeState::Down);
    node.down_for(Duration::from_millis(1500));
    metrics.pair(0, 0, DB2).login_duration(second);
    metrics.panicked();
}

#[test]
fn what_is_counted_is_shown_and_never_falls() {
    let metrics = Metrics::new(&shape());
    metrics.set_log_drops(|| 7);
    exercise(&metrics);
    metrics.run_upkeep();
    let first = series(&metrics.render(&now()));
    for (name, figure) in [
        (r#"pgsplit_accept_errors_total{listener="rw"}"#, 1.0),
        (r#"pgsplit_redispatches_total{listener="rw",reason="57P03"}"#, 1.0),
        (r#"pgsplit_queue_wait_seconds_bucket{listener="rw",le="1"}"#, 1.0),
        (r#"pgsplit_queue_wait_seconds_bucket{listener="rw",le="0.5"}"#, 0.0),
        (r#"pgsplit_session_duration_seconds_sum{listener="rw"}"#, 1.0),
        (r#"pgsplit_node_connect_errors_total{node="db2",reason="dns"}"#, 1.0),
        (r#"pgsplit_node_startup_errors_total{node="db2",sqlstate="53300"}"#, 1.0),
        (r#"pgsplit_node_checks_total{node="db2",result="full"}"#, 1.0),
        (r#"pgsplit_node_state_changes_total{node="db2",to="down"}"#, 1.0),
        (r#"pgsplit_node_down_seconds_total{node="db2"}"#, 1.5),
        (r#"pgsplit_login_duration_seconds_count{listener="rw",node="db2"}"#, 1.0),
        ("pgsplit_log_lines_dropped_total", 7.0),
        ("pgsplit_session_panics_total", 1.0),
    ] {
        assert_eq!(first.get(name), Some(&figure), "{name}");
    }
    assert!(first[r#"pgsplit_node_last_check_timestamp_seconds{node="db2"}"#] > 1.7e9);

    exercise(&metrics);
    let second = series(&metrics.render(&now()));
    assert!(first.keys().eq(second.keys()));
    let gauges: Vec<&str> =
        catalog::ALL.iter().filter(|metric| metric.kind == Kind::Gauge).map(|metric| metric.name).collect();
    for (name, figure) in first {
        let family = name.split('{').next().expect("a name");
        assert!(gauges.contains(&family) || second[&name] >= figure, "{name} fell");
    }
}

#[test]
fn a_scrape_is_in_the_order_of_names() {
    let text = Metrics::new(&shape()).render(&now());
    let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    assert!(types.is_sorted());
    assert!(!text.contains("\n\n") && text.ends_with('\n'));
}

#[test]
fn counting_for_what_does_not_exist_goes_nowhere() {
    let metrics = Metrics::new(&shape());
    metrics.listener(9).accept();
    metrics.node(0, NodeId::first(9)).check(CheckResult::Up, Duration::ZERO);
    metrics.pair(9, 0, NodeId::first(0)).end(End::Client);
    assert_eq!(metrics.opening(), 0);
    assert!(!metrics.render(&now()).contains(r#"node="""#));
}

#[test]
fn every_thread_may_count() {
    fn shared<T: Send + Sync>() {}
    shared::<Metrics>();
    shared::<PairMetrics>();
    assert_eq!(std::mem::align_of::<crate::telemetry::pair::Traffic>(), 128);
}

#[test]
fn a_node_that_is_added_has_series_of_its_own_and_adds_up() {
    let metrics = Metrics::new(&shape());
    let before = series(&metrics.render(&now()));
    metrics.add_node(0, "db2/2");
    let added = NodeId { place: 3, life: 7 };
    (0..3).for_each(|_| metrics.listener(1).accept());
    let pair = metrics.pair(1, 0, added);
    let guard = pair.active_guard();
    pair.end(End::Client);
    metrics.node(0, added).check(CheckResult::Up, Duration::ZERO);
    assert_eq!((metrics.opening(), metrics.pair(1, 0, DB2).active()), (1, 0));
    let mut now = now();
    now.clusters[0].nodes.push(NodeNow { place: 3, up: true, sessions: 1, ..NOTHING_KNOWN });
    let there = series(&metrics.render(&now));
    assert!(before.keys().all(|name| there.contains_key(name)));
    for (name, figure) in [
        (r#"pgsplit_node_up{node="db2/2"}"#, 1.0),
        (r#"pgsplit_node_checks_total{node="db2/2",result="up"}"#, 1.0),
        (r#"pgsplit_sessions_active{listener="ro",node="db2/2"}"#, 1.0),
        (r#"pgsplit_sessions_active{listener="rw",node="db2/2"}"#, 0.0),
        (r#"pgsplit_sessions_total{listener="ro",node="db2/2",end="client"}"#, 1.0),
        (r#"pgsplit_node_sessions_active{node="db2/2"}"#, 1.0),
    ] {
        assert_eq!(there.get(name), Some(&figure), "{name}");
    }
    drop(guard);
}

#[test]
fn a_node_that_is_gone_shows_no_state_and_keeps_its_counts() {
    let metrics = Metrics::new(&shape());
    metrics.node(0, DB2).check(CheckResult::Failed, Duration::ZERO);
    let mut now = now();
    now.clusters[0].nodes.remove(1);
    now.clusters[0].departed = vec![(1, 2), (0, 1), (1, 1)];
    let series = series(&metrics.render(&now));
    for name in ["up", "state", "role", "weight", "lag_seconds", "last_check_timestamp_seconds"] {
        let start = format!(r#"pgsplit_node_{name}{{node="db2""#);
        assert!(!series.keys().any(|name| name.starts_with(&start)), "{start}");
    }
    assert_eq!(series[r#"pgsplit_node_checks_total{node="db2",result="failed"}"#], 1.0);
    assert_eq!(series[r#"pgsplit_node_sessions_active{node="db2"}"#], 3.0);
    assert_eq!(series[r#"pgsplit_node_sessions_active{node="db1"}"#], 4.0);
    assert_eq!(series[&format!(r#"pgsplit_node_up{{node="{}"}}"#, r#"d\"b\n3\\"#)], 1.0);
}

#[test]
fn what_a_reload_adds_has_series_and_what_comes_back_has_its_own_again() {
    let metrics = Metrics::new(&shape());
    let logs = metrics.add_cluster(&["db9".to_owned(), "db2".to_owned()]);
    let listener = metrics.add_listener("logs", logs);
    assert_eq!((logs, listener), (1, 2));
    assert_eq!(metrics.add_listener("ro", 0), 1, "a name has its number for good");
    metrics.listener(listener).accept();
    metrics.pair(listener, logs, NodeId::first(0)).end(End::Client);
    let shown = series(&metrics.render(&now()));
    assert_eq!(shown[r#"pgsplit_connections_accepted_total{listener="logs"}"#], 1.0);
    assert_eq!(shown[r#"pgsplit_sessions_total{listener="logs",node="db9",end="client"}"#], 1.0);
    assert!(!shown.contains_key(r#"pgsplit_listener_ready{listener="logs"}"#), "it is not there now");
}

#[test]
fn a_listener_that_goes_to_another_cluster_counts_on_for_each_node_by_its_name() {
    let metrics = Metrics::new(&shape());
    // The node `db2` moves along, to the first place.
    let other = metrics.add_cluster(&["db2".to_owned(), "db8".to_owned()]);
    assert_eq!(metrics.add_listener("ro", other), 1);
    let (before, after) = (metrics.pair(1, 0, DB2), metrics.pair(1, other, NodeId::first(0)));
    (0..3).for_each(|_| metrics.listener(1).accept());
    before.end(End::Client);
    after.end(End::Client);
    metrics.pair(1, other, NodeId::first(1)).end(End::Client);
    assert_eq!(metrics.opening(), 0, "each is accounted for once");
    metrics.node(0, DB2).check(CheckResult::Up, Duration::ZERO);
    metrics.node(other, NodeId::first(0)).check(CheckResult::Up, Duration::ZERO);
    let mut now = now();
    now.clusters[0].departed = vec![(1, 2)];
    now.clusters[0].nodes.remove(1);
    let (name, nodes) =
        ("other".to_owned(), vec![NodeNow { place: 0, up: true, sessions: 5, ..NOTHING_KNOWN }]);
    now.clusters.push(ClusterNow { number: other, name, nodes, ..ClusterNow::default() });
    let shown = series(&metrics.render(&now));
    for (name, figure) in [
        (r#"pgsplit_sessions_total{listener="ro",node="db2",end="client"}"#, 2.0),
        (r#"pgsplit_node_checks_total{node="db2",result="up"}"#, 2.0),
        (r#"pgsplit_node_sessions_active{node="db2"}"#, 7.0),
        (r#"pgsplit_node_up{node="db2"}"#, 1.0),
    ] {
        assert_eq!(shown.get(name), Some(&figure), "{name}");
    }
}

#[test]
fn a_front_of_another_shape_goes_on_with_its_counts() {
    use crate::telemetry::front::AnsweredBy;
    use crate::telemetry::labels::CodeClass;
    let metrics = Metrics::new(&shape());
    let mut shape = shape().fronts.remove(0);
    let before = metrics.add_front(&shape);
    shape.groups = vec![
        ("new".to_owned(), vec!["new:80".to_owned()]),
        ("default".to_owned(), vec!["users2:8080".to_owned(), "users1:8080".to_owned()]),
    ];
    shape.methods.push(HttpMethod::Post);
    let after = metrics.add_front(&shape);
    let second = Duration::from_secs(1);
    before.request(AnsweredBy::Upstream(0, 0), HttpMethod::Get, CodeClass::Success, second);
    after.request(AnsweredBy::Upstream(1, 1), HttpMethod::Get, CodeClass::Success, second);
    after.request(AnsweredBy::Upstream(1, 1), HttpMethod::Post, CodeClass::Success, second);
    let guards = (before.connection_guard(), after.connection_guard());
    let shown = series(&metrics.render(&now()));
    let requests = |method| {
        let labels = r#"front="http",group="default",upstream="users1:8080""#;
        shown[&format!(r#"pgsplit_http_requests_total{{{labels},method="{method}",code="2xx"}}"#)]
    };
    assert_eq!((requests("GET"), requests("POST"), after.connections()), (2.0, 1.0, 2));
    drop(guards);
}

#[test]
fn reloads_are_counted_and_the_last_one_is_shown() {
    let metrics = Metrics::new(&shape());
    let shown = |metrics: &Metrics| {
        let shown = series(&metrics.render(&now()));
        let count = |result| shown[&format!(r#"pgsplit_config_reloads_total{{result="{result}"}}"#)];
        let time = shown["pgsplit_config_last_reload_success_timestamp_seconds"];
        let counts = ["applied", "unchanged", "failed"].map(count);
        (counts, shown["pgsplit_config_last_reload_successful"], time)
    };
    let (counts, is_good, start) = shown(&metrics);
    assert!(counts == [0.0; 3] && is_good == 1.0 && start > 1.7e9);
    metrics.reloaded(ReloadResult::Failed);
    assert_eq!(shown(&metrics), ([0.0, 0.0, 1.0], 0.0, start));
    metrics.reloaded(ReloadResult::Applied);
    metrics.reloaded(ReloadResult::Unchanged);
    let (counts, is_good, time) = shown(&metrics);
    assert!(counts == [1.0, 1.0, 1.0] && is_good == 1.0 && start <= time);
}
