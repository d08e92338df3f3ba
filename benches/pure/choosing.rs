//! From a topology to a node: those that fit, one of them, and both with a place on it, as each session does.

use std::fmt::Write;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use criterion::{BenchmarkId, Criterion};
use pgsplit::balance::judge::Verdict;
use pgsplit::balance::pick::{Candidate, Picker};
use pgsplit::base::id::NodeId;
use pgsplit::base::role::Target;
use pgsplit::config::{Balance, Config};
use pgsplit::net::options::Options;
use pgsplit::session::place::{Chosen, choose};
use pgsplit::session::queue::Queue;
use pgsplit::session::shared::Listener;
use pgsplit::telemetry::metrics::Metrics;
use pgsplit::telemetry::shape::Shape;
use pgsplit::topology::choose::fitting;
use pgsplit::topology::keeper::{Life, Watched};
use pgsplit::topology::order::Orders;
use pgsplit::topology::outcome::Outcomes;
use pgsplit::topology::{Node, Topology};
use tokio::sync::watch;

const BALANCES: [Balance; 5] =
    [Balance::Leastconn, Balance::Roundrobin, Balance::Random, Balance::First, Balance::Source];
const NODES: [usize; 2] = [2, 1000];
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) fn bench(criterion: &mut Criterion) {
    fit(criterion);
    pick(criterion);
    choose_one(criterion);
}

fn fit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fitting");
    for nodes in NODES {
        let topology = topology(&config(nodes, Balance::Leastconn));
        for target in [Target::Primary, Target::PreferStandby] {
            group.bench_function(BenchmarkId::new(target.to_string(), nodes), |bencher| {
                bencher.iter(|| fitting(black_box(&topology), target, Node::has_room).len());
            });
        }
    }
    group.finish();
}

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for balance in BALANCES {
        for nodes in NODES {
            // None as loaded as its neighbour, and several with the least.
            let load = |index: usize| u32::try_from(index % 10).expect("small");
            let candidates: Vec<_> =
                (0..nodes).map(|index| Candidate { index, weight: 100, load: load(index) }).collect();
            let mut picker = Picker::new(balance, nodes, 7);
            group.bench_function(BenchmarkId::new(balance.as_str(), nodes), |bencher| {
                bencher.iter(|| picker.pick(black_box(&candidates), CLIENT));
            });
        }
    }
    group.finish();
}

fn choose_one(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("choose");
    for balance in [Balance::Leastconn, Balance::Random] {
        for nodes in NODES {
            let config = config(nodes, balance);
            let listener = listener(&config, topology(&config));
            assert!(matches!(choose(&listener, CLIENT, &[]), Chosen::Node(_)), "a node fits");
            group.bench_function(BenchmarkId::new(balance.as_str(), nodes), |bencher| {
                bencher.iter(|| choose(black_box(&listener), CLIENT, &[]));
            });
        }
    }
    group.finish();
}

/// A primary and its standbys, and a listener for reads.
fn config(nodes: usize, balance: Balance) -> Config {
    let mut text = format!(
        "listeners: [{{name: ro, bind: \"127.0.0.1:0\", target: prefer-standby, balance: {}}}]\nnodes:\n",
        balance.as_str()
    );
    for place in 0..nodes {
        let role = if place == 0 { "primary" } else { "standby" };
        writeln!(text, "  - {{name: n{place}, addr: \"127.0.0.1:{}\", role: {role}}}", place + 1)
            .expect("memory");
    }
    Config::from_yaml(&text, "the benchmark", &|_| None).expect("a configuration")
}

/// All of them up.
fn topology(config: &Config) -> Topology {
    let cluster = config.clusters.first().expect("a cluster");
    let mut topology = Topology::starting(cluster, &Arc::default());
    for node in &mut topology.nodes {
        (node.verdict, node.progress) = (Verdict::Up, (0, 3));
    }
    topology.primary = Some(NodeId::first(0));
    topology
}

fn listener(config: &Config, topology: Topology) -> Listener {
    let nodes = topology.nodes.len();
    let written = config.listeners.first().expect("a listener");
    // Nobody tells and nobody hears here, so neither end need be kept.
    let (clusters, listeners, fronts) = (Vec::new(), Vec::new(), Vec::new());
    let shape = Shape { version: "", clusters, listeners, fronts, workers: 1 };
    let (outcomes, _) = Outcomes::channel();
    let current = watch::channel(Arc::new(topology)).1;
    Listener {
        index: 0,
        metrics: Metrics::new(&shape).listener(0),
        config: Arc::clone(written),
        cluster: Arc::clone(config.clusters.first().expect("a cluster")),
        watched: Watched {
            index: 0,
            current,
            outcomes,
            freed: Arc::default(),
            orders: Orders::nowhere(),
            life: Life::default(),
        },
        addr: SocketAddr::new(CLIENT, 0),
        options: Options::default(),
        picker: Mutex::new(Picker::new(written.balance, nodes, 7)),
        sessions: Arc::default(),
        queue: Arc::<Queue>::default(),
        pause: watch::Sender::new(false),
        is_outdated: tokio_util::sync::CancellationToken::new(),
    }
}
