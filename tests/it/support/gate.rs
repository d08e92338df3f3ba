//! A steerable TCP relay in front of a node: the network, at its worst, on request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::address::Address;
use super::client::background;

/// Between two pieces of a [`Mode::Slice`], so that they arrive as two.
const SLICE_GAP: Duration = Duration::from_micros(500);

/// What the gate does to bytes and connections. A change holds for open connections as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Relays.
    Pass,
    /// Nothing listens. Open connections go on.
    Refuse,
    /// Connections are accepted and no byte moves; what was sent arrives after the freeze. Like `SIGSTOP`.
    Freeze,
    /// Connections are accepted and bytes vanish for good, like behind a firewall that drops. A connection that was
    /// accepted in this mode stays dead.
    Drop,
    /// Every piece of data is this much late.
    Delay(Duration),
    /// A connection is closed after this many bytes in the direction, counted from its start.
    Cut(Direction, u64),
    /// Connections, open and new, are reset.
    Reset,
    /// Data arrives in pieces of at most this many bytes.
    Slice(usize),
}

/// Seen from between client and node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What the client sends.
    ToNode,
    /// What the node sends.
    ToClient,
}

/// The relay. Dropping it resets its connections.
#[derive(Debug)]
pub struct Gate {
    _address: Address,
    addr: SocketAddr,
    wanted: watch::Sender<Wanted>,
    shared: Arc<Shared>,
    /// Whether the socket listens now.
    listens: watch::Receiver<bool>,
    acceptor: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    mode: Mode,
    node: SocketAddr,
}

#[derive(Debug, Default)]
struct Shared {
    accepted: AtomicU64,
    open: AtomicU64,
    to_node: AtomicU64,
    to_client: AtomicU64,
}

impl Gate {
    /// A gate that passes everything on to `node`.
    pub async fn start(node: SocketAddr) -> Self {
        let address = Address::claim();
        let addr = address.port(5432);
        let (wanted, receiver) = watch::channel(Wanted { mode: Mode::Pass, node });
        let (listening, listens) = watch::channel(false);
        let shared = Arc::<Shared>::default();
        let acceptor = background().spawn(accept(addr, receiver, listening, Arc::clone(&shared)));
        let gate = Self { _address: address, addr, wanted, shared, listens, acceptor };
        gate.set(Mode::Pass).await;
        gate
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes what the gate does. On return the socket listens, or no longer does.
    pub async fn set(&self, mode: Mode) {
        self.wanted.send_modify(|wanted| wanted.mode = mode);
        let should = mode != Mode::Refuse;
        self.listens.clone().wait_for(|&listens| listens == should).await.expect("the gate runs");
    }

    /// Sends new connections to another node.
    pub fn retarget(&self, node: SocketAddr) {
        self.wanted.send_modify(|wanted| wanted.node = node);
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Bytes passed on so far.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.shared.counter(direction).load(Ordering::SeqCst)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

impl Shared {
    fn counter(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToNode => &self.to_node,
            Direction::ToClient => &self.to_client,
        }
    }
}

async fn accept(
    addr: SocketAddr,
    mut wanted: watch::Receiver<Wanted>,
    listening: watch::Sender<bool>,
    shared: Arc<Shared>,
) {
    // Aborts the connections when the gate goes.
    let mut connections = JoinSet::new();
    loop {
        if wanted.wait_for(|wanted| wanted.mode != Mode::Refuse).await.is_err() {
            return;
        }
        let listener = TcpListener::bind(addr).await.expect("the gate's own address");
        listening.send_replace(true);
        loop {
            let refuse = async { wanted.wait_for(|wanted| wanted.mode == Mode::Refuse).await.map(drop) };
            let client = tokio::select! {
                refuse = refuse => {
                    if refuse.is_err() {
                        return;
                    }
                    break;
                }
                accepted = listener.accept() => accepted,
            };
            if let Ok((client, _)) = client {
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                connections.spawn(connection(client, wanted.clone(), Arc::clone(&shared)));
            }
            while connections.try_join_next().is_some() {}
        }
        drop(listener);
        listening.send_replace(false);
    }
}

/// One more open connection until dropped.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn connection(mut client: TcpStream, mut wanted: watch::Receiver<Wanted>, shared: Arc<Shared>) {
    shared.open.fetch_add(1, Ordering::SeqCst);
    let open = Open(shared);
    // Closing without a word of our own is what a broken network does; it is undone for an orderly end.
    reset_on_close(&client, true);
    let mut reset = wanted.clone();
    let reset = reset.wait_for(|wanted| wanted.mode == Mode::Reset);
    let relay = async {
        if wanted.borrow_and_update().mode == Mode::Drop {
            return std::future::pending().await;
        }
        let thawed = wanted.wait_for(|wanted| wanted.mode != Mode::Freeze).await;
        let node = thawed.map_err(|_| io::ErrorKind::BrokenPipe)?.node;
        let mut node = TcpStream::connect(node).await?;
        node.set_nodelay(true)?;
        client.set_nodelay(true)?;
        reset_on_close(&node, true);
        relay(&mut client, &mut node, &wanted, &open.0).await?;
        reset_on_close(&node, false);
        reset_on_close(&client, false);
        io::Result::Ok(())
    };
    tokio::select! {
        _ = reset => {}
        _ = relay => {}
    }
}

/// Returns when both directions have ended in order, or one was cut.
async fn relay(
    client: &mut TcpStream,
    node: &mut TcpStream,
    wanted: &watch::Receiver<Wanted>,
    shared: &Shared,
) -> io::Result<()> {
    let (from_client, to_client) = client.split();
    let (from_node, to_node) = node.split();
    let to_node = pump(from_client, to_node, Direction::ToNode, wanted.clone(), shared);
    let to_client = pump(from_node, to_client, Direction::ToClient, wanted.clone(), shared);
    tokio::pin!(to_node, to_client);
    let (end, first_was_to_node) = tokio::select! {
        end = &mut to_node => (end?, true),
        end = &mut to_client => (end?, false),
    };
    match (end, first_was_to_node) {
        (End::Cut, _) => {}
        (End::Eof, true) => _ = to_client.await?,
        (End::Eof, false) => _ = to_node.await?,
    }
    Ok(())
}

enum End {
    Eof,
    Cut,
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    mut wanted: watch::Receiver<Wanted>,
    shared: &Shared,
) -> io::Result<End> {
    let mut buffer = vec![0; 16 * 1024];
    let mut passed = 0;
    loop {
        let mode = wanted.borrow_and_update().mode;
        let room = match mode {
            Mode::Freeze => {
                changed(&mut wanted).await?;
                continue;
            }
            Mode::Cut(cut, after) if cut == direction => {
                if passed >= after {
                    return Ok(End::Cut);
                }
                usize::try_from(after - passed).unwrap_or(usize::MAX).min(buffer.len())
            }
            _ => buffer.len(),
        };
        let n = tokio::select! {
            // Before the read, so that no byte slips through after a change.
            biased;
            change = changed(&mut wanted) => {
                change?;
                continue;
            }
            n = from.read(&mut buffer[..room]) => n?,
        };
        let data = &buffer[..n];
        match mode {
            // The end of the stream vanishes, too; it is read again after the next change.
            Mode::Drop if n == 0 => {
                changed(&mut wanted).await?;
                continue;
            }
            Mode::Drop => continue,
            _ if n == 0 => {
                to.shutdown().await?;
                return Ok(End::Eof);
            }
            Mode::Delay(late) => {
                tokio::time::sleep(late).await;
                to.write_all(data).await?;
            }
            Mode::Slice(size) => {
                for piece in data.chunks(size.max(1)) {
                    to.write_all(piece).await?;
                    tokio::time::sleep(SLICE_GAP).await;
                }
            }
            _ => to.write_all(data).await?,
        }
        passed += n as u64;
        shared.counter(direction).fetch_add(n as u64, Ordering::SeqCst);
    }
}

async fn changed(wanted: &mut watch::Receiver<Wanted>) -> io::Result<()> {
    wanted.changed().await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
}

fn reset_on_close(stream: &TcpStream, reset: bool) {
    let _ = SockRef::from(stream).set_linger(reset.then_some(Duration::ZERO));
}
