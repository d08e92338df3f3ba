//! Workers, and the doors they serve.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio_util::sync::CancellationToken;

use crate::net::accept::{Door, Doorway, Workers, accept};
use crate::net::descriptors::Descriptors;
use crate::net::listen::Sockets;
use crate::net::roll_call::RollCall;
use crate::net::worker::{Accepted, Worker};

/// Workers that are to be started.
pub struct Crew<D> {
    /// What their threads are called, before a number.
    pub name: &'static str,
    /// How many there are.
    pub workers: usize,
    /// Where connections come from.
    pub doors: Vec<(Arc<D>, Sockets)>,
    /// What connections take theirs from.
    pub descriptors: Descriptors,
    /// By which their threads are asked whether they still answer.
    pub roll: RollCall,
    /// Nothing is accepted from then on.
    pub stop: CancellationToken,
}

impl<D: Door> Crew<D> {
    /// Starts them. `serve` is asked by each worker's number for what it does with a connection. Their threads end when
    /// `stop` is cancelled and the last connection has ended.
    ///
    /// # Errors
    /// The system has no more threads or descriptors.
    pub fn start<Serve, Life>(self, serve: impl Fn(usize) -> Serve) -> io::Result<Vec<JoinHandle<()>>>
    where
        Serve: Fn(Box<Accepted<D::To>>) -> Life + Send + 'static,
        Life: Future<Output = ()> + Send + 'static,
    {
        let made: Vec<_> = (0..self.workers).map(|_| Worker::new()).collect::<io::Result<_>>()?;
        let (handles, workers): (Vec<_>, Vec<_>) = made.into_iter().unzip();
        let all = handles.into();
        let open = |(door, sockets): (_, Sockets)| {
            (Arc::new(Doorway::new(door)), dealt(sockets, self.workers).into_iter())
        };
        let mut doors: Vec<_> = self.doors.into_iter().map(open).collect();
        let start = |(here, worker): (usize, Worker<D::To>)| {
            let mut accepting = Vec::new();
            for (doorway, sockets) in &mut doors {
                for socket in sockets.next().unwrap_or_default() {
                    let workers = Workers { all: Arc::clone(&all), here };
                    let (descriptors, stop) = (self.descriptors.clone(), self.stop.clone());
                    let (doorway, listening) = (Arc::clone(doorway), worker.listen(socket)?);
                    accepting.push(accept(doorway, listening, descriptors, workers, stop));
                }
            }
            let name = format!("{}-{here}", self.name);
            let answering = self.roll.enter(&name);
            worker.start(name, answering, accepting, serve(here))
        };
        workers.into_iter().enumerate().map(start).collect()
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

    #[tokio::test]
    async fn all_are_served_until_it_stops_and_then_nobody_listens() {
        let door = Arc::new(Counting::default());
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap(), Options::default(), 3).unwrap();
        let (addr, stop) = (sockets.addr(), CancellationToken::new());
        let crew = Crew {
            name: "test",
            workers: 3,
            doors: vec![(Arc::clone(&door), sockets)],
            descriptors: Descriptors::of_process(),
            roll: RollCall::default(),
            stop: stop.clone(),
        };
        let threads = crew.start(|_| |accepted| async move { drop(accepted) }).unwrap();
        for _ in 0..30 {
            assert_eq!(TcpStream::connect(addr).unwrap().read(&mut [0]).unwrap(), 0);
        }
        stop.cancel();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(door.0.load(Ordering::Relaxed), 30);
        assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
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
}
