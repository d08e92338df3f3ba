//! Tests of the module above, against real sockets: addresses that come and go, checks, ejection.

use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::config::{Config, Env};
use crate::front::group::Group as Runtime;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::shape::{FrontShape, Shape};

const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A service that answers every request with a status; its address.
async fn service(status: u16) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    TaskTracker::new().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    addr
}

/// A group of one upstream, whose name leads to nothing by itself, and what is told about it.
struct World {
    group: Runtime,
    news: mpsc::Sender<News>,
    current: Current,
    _stop: tokio_util::sync::DropGuard,
}

fn world(rest: &str) -> World {
    let text = format!(
        "nodes: [{{addr: db1, role: primary}}]\ndns: {{refresh: 1h}}\nhttp: {{upstreams: [nowhere.invalid:80], \
         check: {{interval: 20ms, fast_interval: 20ms}}, {rest}}}\n"
    );
    let env: Env<'_> = &|_| None;
    let config = Config::from_yaml(&text, "config.yaml", env).unwrap();
    let front = Arc::clone(&config.fronts[0]);
    let shape = FrontShape {
        name: "http".into(),
        groups: vec![("default".into(), vec!["nowhere.invalid:80".into()])],
        methods: Vec::new(),
    };
    let empty = Shape { version: "0", clusters: vec![], listeners: vec![], fronts: vec![], workers: 1 };
    let metrics = Metrics::new(&empty).add_front(&shape);
    let stop = CancellationToken::new();
    let refresh = Refresh::every(config.dns.refresh);
    let place = Place { front: Arc::clone(&front), group: 0, metrics, refresh, workers: 1 };
    let watched = start(&place, &front.groups[0], &TaskTracker::new(), &stop);
    let (news, current) = (watched.news.clone(), watched.current.clone());
    World { group: Runtime::new(front.groups[0].clone(), watched), news, current, _stop: stop.drop_guard() }
}

impl World {
    async fn find(&self, addrs: &[SocketAddr]) {
        self.news.send(News::Found { upstream: 0, finding: Finding::Addrs(addrs.to_vec()) }).await.unwrap();
    }

    /// Waits until the members and their states are these.
    async fn wait(&mut self, expected: &[(SocketAddr, &str)]) {
        let is_so = |standing: &Arc<Standing>| {
            let members = standing.members.iter();
            members.map(|member| (member.instance.addr, member.state())).eq(expected.iter().copied())
        };
        let waited = timeout(Duration::from_secs(20), self.current.wait_for(is_so)).await.map(drop);
        assert!(waited.is_ok(), "{expected:?}: {:?}", self.current.borrow());
    }

    fn chosen(&self) -> Option<SocketAddr> {
        self.group.choose(&[], SOURCE).map(|chosen| chosen.instance.addr)
    }
}

#[tokio::test]
async fn an_address_joins_after_its_first_good_check_and_leaves_when_its_name_does() {
    let (good, other, bad) = (service(200).await, service(204).await, service(500).await);
    let mut world = world("balance: first");
    assert_eq!(world.chosen(), None);
    world.find(&[bad, good]).await;
    world.wait(&[(bad, "down"), (good, "up")]).await;
    assert_eq!(world.chosen(), Some(good));

    let running = world.group.choose(&[], SOURCE).unwrap();
    world.find(&[other]).await;
    world.wait(&[(other, "up")]).await;
    assert_eq!(world.chosen(), Some(other), "nothing new goes to the one that has gone");
    // What runs there goes on, and the newcomer's turns are its own.
    assert_eq!((running.instance.addr, running.instance.load.sessions()), (good, 1));
    assert_eq!(other, world.current.borrow().members[0].instance.addr);
}

#[tokio::test]
async fn what_fails_is_put_aside_for_a_while_but_never_the_last_one() {
    let (one, two) = (service(200).await, service(200).await);
    let mut world = world("balance: first");
    world.find(&[one, two]).await;
    world.wait(&[(one, "up"), (two, "up")]).await;
    let instance = |at: usize| Arc::clone(&world.group.standing().members[at].instance);

    // An answer that is none counts from the third in a row on; a success in between forgets.
    for _ in 0..2 {
        world.group.failed(&instance(0), false, "answered 503");
    }
    instance(0).succeeded();
    for _ in 0..2 {
        world.group.failed(&instance(0), false, "answered 503");
    }
    world.group.failed(&instance(0), false, "answered 503");
    world.wait(&[(one, "ejected"), (two, "up")]).await;
    assert_eq!(world.chosen(), Some(two));

    let last = Arc::clone(&world.group.standing().members[1].instance);
    world.group.failed(&last, true, "connection refused");
    // Told after it, applied after it.
    world.find(&[one, two]).await;
    world.wait(&[(one, "ejected"), (two, "up")]).await;

    // The second time it is two seconds.
    let until = |world: &World| world.current.borrow().members[0].ejected_until.unwrap();
    let first = until(&world);
    tokio::time::sleep_until(first).await;
    let again = Arc::clone(&world.group.standing().members[0].instance);
    world.group.failed(&again, true, "connection refused");
    let longer = |standing: &Arc<Standing>| standing.members[0].ejected_until != Some(first);
    timeout(Duration::from_secs(20), world.current.wait_for(longer)).await.unwrap().map(drop).unwrap();
    let left = until(&world).saturating_duration_since(first);
    assert!(Duration::from_secs(2) <= left, "{left:?}");
}

#[tokio::test]
async fn who_waits_is_let_go_when_one_is_up() {
    let good = service(200).await;
    let world = world("balance: leastconn");
    let deadline = Instant::now() + Duration::from_secs(20);
    let waiting = world.group.wait(&[], SOURCE, deadline);
    let found = [good];
    let finding = world.find(&found);
    let (chosen, ()) = tokio::join!(waiting, finding);
    assert_eq!(chosen.unwrap().instance.addr, good);
    let soon = Instant::now() + Duration::from_millis(50);
    let tried = [world.group.standing().members[0].instance.slot];
    assert!(world.group.wait(&tried, SOURCE, soon).await.is_none());
}
