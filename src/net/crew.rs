//! Workers, and the doors they serve: some from the start, others opened and closed while they work.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use tokio_util::sync::CancellationToken;

use crate::net::accept::{Door, Doorway, Workers, accept};
use crate::net::descriptors::Descriptors;
use crate::net::gate::Gate;
use crate::net::listen::{Listening, Sockets};
use crate::net::options::Options;
use crate::net::roll_call::RollCall;
use crate::net::worker::{Accepted, Served, Worker, WorkerHandle};

/// Workers that serve connections which lead to `To`. Their threads end when this is gone, `stop` is cancelled and their
/// last connection has ended.
#[derive(Debug)]
pub struct Crew<To> {
    workers: Arc<[WorkerHandle<To>]>,
    descriptors: Descriptors,
    gate: Gate,
    stop: CancellationToken,
}

impl<To> Clone for Crew<To> {
    fn clone(&self) -> Self {
        let Self { workers, descriptors, gate, stop } = self;
        let (workers, descriptors) = (Arc::clone(workers), descriptors.clone());
        Self { workers, descriptors, gate: gate.clone(), stop: stop.clone() }
    }
}

impl<To: Send + 'static> Crew<To> {
    /// Starts so many workers. `serve` is asked by each worker's number for what it does with a connection. `name` is what
    /// their threads are called, before a number; connections take their descriptors from `descriptors`, and nothing is
    /// accepted while `gate` is shut, and once `stop` is cancelled. `roll` asks their threads whether they still answer.
    ///
    /// # Errors
    /// The system has no more threads or descriptors.
    pub fn start<Serve, Life>(
        name: &str,
        workers: usize,
        descriptors: Descriptors,
        roll: &RollCall,
        (gate, stop): (Gate, CancellationToken),
        serve: impl Fn(usize) -> Serve,
    ) -> io::Result<(Self, Vec<JoinHandle<()>>)>
    where
        Serve: Fn(Box<Accepted<To>>) -> Life + Send + 'static,
        Life: Future<Output = ()> + Send + 'static,
    {
        let made: Vec<_> = (0..workers).map(|_| Worker::new()).collect::<io::Result<_>>()?;
        let (handles, workers): (Vec<_>, Vec<_>) = made.into_iter().unzip();
        let start = |(here, worker): (usize, Worker<To>)| {
            let name = format!("{name}-{here}");
            let answering = roll.enter(&name);
            worker.start(name, answering, serve(here))
        };
        let threads = workers.into_iter().enumerate().map(start).collect::<io::Result<_>>()?;
        Ok((Self { workers: handles.into(), descriptors, gate, stop }, threads))
    }

    /// Lets the workers wait for what comes to `sockets`, which nobody is told of before the door is open.
    ///
    /// # Errors
    /// The system has no room for more.
    pub fn ready(&self, sockets: Sockets) -> io::Result<Ready> {
        let addr = sockets.addr();
        let mut listening = Vec::new();
        for ((here, worker), sockets) in
            self.workers.iter().enumerate().zip(dealt(sockets, self.workers.len()))
        {
            for socket in sockets {
                listening.push((here, Arc::new(worker.listen(socket)?)));
            }
        }
        Ok(Ready { addr, listening })
    }

    /// Accepts what comes there, for `door`.
    pub fn open<D: Door<To = To>>(&self, door: &Arc<D>, Ready { addr, listening }: Ready) -> OpenDoor {
        let (doorway, closed) = (Arc::new(Doorway::new(Arc::clone(door))), self.stop.child_token());
        for (here, listening) in &listening {
            let Some(worker) = self.workers.get(*here) else { continue };
            let workers = Workers { all: Arc::clone(&self.workers), here: *here };
            let (descriptors, listening) = (self.descriptors.clone(), Arc::clone(listening));
            let terms = (self.gate.clone(), closed.clone());
            worker.run(accept(Arc::clone(&doorway), listening, descriptors, workers, terms));
        }
        OpenDoor { addr, listening, closed }
    }

    /// Connections that are served now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.workers.iter().map(WorkerHandle::connections).sum()
    }

    /// Gives a connection that no door has brought to the worker with the fewest: `life` is asked for what is to be done
    /// with it, by that worker's number, and is polled on its thread.
    pub fn adopt<Life>(&self, life: impl FnOnce(usize, Served) -> Life)
    where
        Life: Future<Output = ()> + Send + 'static,
    {
        let fewest = self.workers.iter().enumerate().min_by_key(|(_, worker)| worker.connections());
        if let Some((number, worker)) = fewest {
            worker.run(life(number, worker.serve()));
        }
    }
}

/// Sockets that workers wait at.
#[derive(Debug)]
pub struct Ready {
    addr: SocketAddr,
    /// Each with the number of its worker.
    listening: Vec<(usize, Arc<Listening>)>,
}

impl Ready {
    /// Their address, with the port the system chose.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// A door that connections come through, until it is closed.
#[derive(Debug)]
#[must_use = "it cannot be closed without"]
pub struct OpenDoor {
    addr: SocketAddr,
    /// Each with the number of its worker.
    listening: Vec<(usize, Arc<Listening>)>,
    closed: CancellationToken,
}

impl OpenDoor {
    /// Its address, with the port the system chose.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Copies of its sockets, for another process.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        self.listening.iter().map(|(_, listening)| listening.copy()).collect()
    }

    /// How many sockets listen there.
    #[must_use]
    pub const fn sockets(&self) -> usize {
        self.listening.len()
    }

    /// Lets connections that come from now on inherit these.
    ///
    /// # Errors
    /// What the system said.
    pub fn set_options(&self, options: Options) -> io::Result<()> {
        self.listening.iter().try_for_each(|(_, listening)| listening.set_options(options))
    }

    /// Accepts what has come until now, and nothing more. The sockets are closed a moment later, which the return value tells.
    #[must_use]
    pub fn close(self) -> Closing {
        self.closed.cancel();
        let listening = self.listening.iter().map(|(_, listening)| listening.is_open());
        Closing { addr: self.addr, listening: listening.collect() }
    }
}

/// A door that nobody opens any more.
#[derive(Debug)]
pub struct Closing {
    addr: SocketAddr,
    listening: Vec<Weak<()>>,
}

impl Closing {
    /// Its address.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether one of its sockets may be open still.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.listening.iter().any(|listening| 0 < listening.strong_count())
    }
}

/// The sockets of each worker: one at most, but where more were handed over than there are workers.
fn dealt(sockets: Sockets, workers: usize) -> Vec<Vec<TcpListener>> {
    let mut hands: Vec<_> = (0..workers).map(|_| Vec::new()).collect();
    for (index, socket) in sockets.into_each().enumerate() {
        if let Some(hand) = hands.get_mut(index % workers) {
            hand.push(socket);
        }
    }
    hands
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::gate::Word;
    use crate::net::options::Options;
    use std::io::Read;
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Door for Counting {
        type To = ();

        fn name(&self) -> String {
            "test".to_owned()
        }

        fn leads_to(&self) {}

        fn accepted(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn turned_away(&self) {}

        fn failed(&self) {}
    }

    /// Workers that close what they are given.
    fn start(workers: usize, gate: Gate, stop: &CancellationToken) -> (Crew<()>, Vec<JoinHandle<()>>) {
        let serve = |_| |accepted| async move { drop(accepted) };
        let (all, roll) = (Descriptors::of_process(), RollCall::default());
        Crew::start("test", workers, all, &roll, (gate, stop.clone()), serve).unwrap()
    }

    #[tokio::test]
    async fn all_are_served_until_it_stops_and_then_nobody_listens() {
        let door = Arc::new(Counting::default());
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap(), Options::default(), 3).unwrap();
        let (addr, stop) = (sockets.addr(), CancellationToken::new());
        let (crew, threads) = start(3, Gate::new(Word::Open), &stop);
        let open = crew.open(&door, crew.ready(sockets).unwrap());
        assert_eq!((open.addr(), open.sockets()), (addr, 3));
        for _ in 0..30 {
            assert_eq!(TcpStream::connect(addr).unwrap().read(&mut [0]).unwrap(), 0);
        }
        stop.cancel();
        drop((crew, open));
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(door.0.load(Ordering::Relaxed), 30);
        assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_door_that_is_closed_serves_who_has_come_and_the_others_stay_open() {
        let stop = CancellationToken::new();
        let (crew, threads) = start(2, Gate::new(Word::Open), &stop);
        let open = || {
            let door = Arc::new(Counting::default());
            let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap(), Options::default(), 2).unwrap();
            (crew.open(&door, crew.ready(sockets).unwrap()), door)
        };
        let ((first, counted), (second, _)) = (open(), open());
        let (gone, stays) = (first.addr(), second.addr());
        let mut early: Vec<_> = (0..30).map(|_| TcpStream::connect(gone).unwrap()).collect();
        let closing = first.close();
        for client in &mut early {
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "none is reset");
        }
        assert_eq!(counted.0.load(Ordering::Relaxed), 30);
        while TcpStream::connect(gone).is_ok() {
            std::thread::yield_now();
        }
        assert_eq!((closing.addr(), closing.is_open()), (gone, false));
        assert_eq!(TcpStream::connect(stays).unwrap().read(&mut [0]).unwrap(), 0);
        stop.cancel();
        drop((crew, second));
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[tokio::test]
    async fn every_socket_has_a_worker_and_every_worker_its_share() {
        let sockets =
            |count| Sockets::bind("127.0.0.1:0".parse().unwrap(), Options::default(), count).unwrap();
        let dealt = |count, workers| dealt(sockets(count), workers).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(dealt(3, 3), [1, 1, 1]);
        assert_eq!(dealt(1, 3), [1, 0, 0]);
        assert_eq!(dealt(3, 2), [2, 1]);
    }

    #[tokio::test]
    async fn who_comes_while_the_gate_is_shut_waits_for_whoever_opens_it() {
        let (gate, stop) = (Gate::new(Word::Shut), CancellationToken::new());
        let (crew, threads) = start(2, gate.clone(), &stop);
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap(), Options::default(), 2).unwrap();
        let (addr, door) = (sockets.addr(), Arc::new(Counting::default()));
        let open = crew.open(&door, crew.ready(sockets).unwrap());
        let mut clients: Vec<_> = (0..30).map(|_| TcpStream::connect(addr).unwrap()).collect();
        gate.set(Word::Open);
        for client in &mut clients {
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        // What is left to another process is not taken on the way out.
        gate.set(Word::Left);
        let copies = open.copies().unwrap();
        let late = TcpStream::connect(addr).unwrap();
        stop.cancel();
        drop((crew, open));
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!((door.0.load(Ordering::Relaxed), copies.len()), (30, 2));
        drop(late);
    }
}
