//! The side of the new process: it is given everything, and goes on with it.

use std::collections::HashMap;
use std::env;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::{ByHand, Ear, Heard, Mouth, NodeByHand, PROTOCOL, ToNew, ToOld, VARIABLE, encode, open};
use crate::app::App;
use crate::net::crew::Crew;
use crate::net::handed::Handed;
use crate::net::passage::send_blocking;
use crate::session::arrival::{Agreement, Berth, take_up};
use crate::session::desk::Desk;
use crate::session::moved::{Moved, Record};
use crate::session::shared::{Listener, Shared};
use crate::topology::order::{AdminState, By, Order, Weigh};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A process that was started to take the place of another one.
#[derive(Debug)]
pub struct Heir(UnixStream);

/// It has been given the sockets.
#[derive(Debug)]
pub struct Inheritance {
    mouth: Mouth,
    ear: Ear,
    /// The sockets.
    pub handed: Handed,
    by_hand: ByHand,
}

/// Where sessions go that arrive.
#[derive(Clone)]
pub(in crate::app) struct Quarters {
    pub crew: Crew<Arc<Listener>>,
    pub desks: Arc<[Arc<Desk>]>,
}

impl fmt::Debug for Quarters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quarters").finish_non_exhaustive()
    }
}

impl Heir {
    /// As the environment says; `None`: nobody's. Its standard input is empty from then on.
    ///
    /// # Errors
    /// The variable is set, and standard input is not what it says.
    pub fn of_process() -> io::Result<Option<Self>> {
        if env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let passage = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let no_passage = |error| {
            io::Error::new(error, format!("{VARIABLE} is set, and standard input is no socket: do not set it"))
        };
        passage.peer_addr().map_err(|error| no_passage(error.kind()))?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Some(Self(passage)))
    }

    /// Says why this process ends before it has begun.
    pub fn refuse(self, why: &str) {
        if let Ok(words) = encode(&ToOld::Refused { why: why.to_owned() }, &[]) {
            let _ = send_blocking(&self.0, &words);
        }
    }

    /// Is given the sockets. The configuration is well. Not cancel safe.
    ///
    /// # Errors
    /// In words: there is nobody to take the place of.
    pub async fn meet(self) -> Result<Inheritance, String> {
        let (mouth, ear) = open(self.0).map_err(|error| error.to_string())?;
        let mut inheritance =
            Inheritance { mouth, ear, handed: Handed::default(), by_hand: ByHand::default() };
        inheritance.receive().await?;
        Ok(inheritance)
    }
}

impl Inheritance {
    async fn receive(&mut self) -> Result<(), String> {
        match self.next().await?.what {
            ToNew::Hello { protocol: PROTOCOL, version } => debug!(version, "upgrade_from"),
            ToNew::Hello { protocol, version } => {
                let why = format!(
                    "pgsplit {version} hands over in a way ({protocol}) that {VERSION} ({PROTOCOL}) does not know: restart it \
                     instead"
                );
                self.say(&ToOld::Refused { why: why.clone() }).await?;
                return Err(why);
            }
            other => return Err(out_of_turn(&other)),
        }
        self.say(&ToOld::Hello { protocol: PROTOCOL, version: VERSION.to_owned() }).await?;
        loop {
            let Heard { what, descriptors, .. } = self.next().await?;
            match what {
                ToNew::Sockets(spot) => self.handed.add(spot, descriptors.into_iter().map(TcpListener::from)),
                ToNew::Prepare(by_hand) => {
                    self.by_hand = by_hand;
                    return Ok(());
                }
                other => return Err(out_of_turn(&other)),
            }
        }
    }

    /// Says why this process ends.
    pub async fn refuse(mut self, why: String) {
        let _ = self.say(&ToOld::Refused { why }).await;
    }

    /// Goes on in the place of the other process: accepts, and takes its sessions, beside this. Comes back once it is sure
    /// that it will be so.
    ///
    /// Not cancel safe; dropped, the other one goes on as if nothing had been.
    ///
    /// # Errors
    /// In words: the other one goes on, and this one must end.
    pub async fn take_over(mut self, app: &mut App) -> Result<(), String> {
        self.set_by_hand(&app.shared).await;
        self.say(&ToOld::Ready).await?;
        match self.next().await?.what {
            ToNew::Begin { numbers_above } => app.shared.ids.begin_above(numbers_above),
            other => return Err(out_of_turn(&other)),
        }
        app.gate.set_open(true);
        if let Some(quarters) = app.quarters.take() {
            let (ready, readied) = mpsc::unbounded_channel();
            let (shared, Self { mouth, ear, .. }) = (Arc::clone(&app.shared), self);
            let waiting = HashMap::new();
            let arrivals = Arrivals { shared, quarters, mouth, waiting, ready, moved: 0 };
            app.tasks.spawn(arrivals.receive(ear, readied));
        }
        Ok(())
    }

    async fn set_by_hand(&self, shared: &Shared) {
        let setup = shared.setup();
        for listener in self.by_hand.paused.iter().filter_map(|name| setup.listener(name)) {
            listener.set_paused(true);
        }
        for NodeByHand { name, admin, weight } in &self.by_hand.nodes {
            let by = By { way: "upgrade", client: "the old process".to_owned() };
            let (admin, weight) = (AdminState::from_word(admin), weight.map(Weigh::By));
            let order = Order { admin, weight, by };
            for watched in &setup.clusters {
                // Who has no such node says so, and there may be none any more.
                let _ = watched.order(name, order.clone()).await;
            }
        }
    }

    async fn next(&mut self) -> Result<Heard<ToNew>, String> {
        let heard = self.ear.hear().await.map_err(|error| format!("the old process is not understood: {error}"))?;
        heard.ok_or_else(|| "the old process has given the upgrade up".to_owned())
    }

    async fn say(&mut self, what: &ToOld) -> Result<(), String> {
        self.mouth.say(what).await.map_err(|error| format!("the old process does not listen: {error}"))
    }
}

fn out_of_turn(what: &ToNew) -> String {
    // Not the whole of it: it may have secrets in it.
    let name = match what {
        ToNew::Hello { .. } => "hello",
        ToNew::Sockets(_) => "sockets",
        ToNew::Prepare(_) => "prepare",
        ToNew::Begin { .. } => "begin",
        ToNew::Session { .. } => "session",
        ToNew::Yours { .. } => "yours",
        ToNew::Settled { .. } => "settled",
    };
    format!("the old process said \"{name}\" out of turn")
}

/// Sessions that arrive.
struct Arrivals {
    shared: Arc<Shared>,
    quarters: Quarters,
    mouth: Mouth,
    /// Those that are here and not ours yet.
    waiting: HashMap<u64, oneshot::Sender<()>>,
    ready: mpsc::UnboundedSender<(u64, io::Result<()>)>,
    moved: u64,
}

impl Arrivals {
    /// Receives until the other process has left, or this one stops. What is not ours by then stays with the other one.
    async fn receive(mut self, mut ear: Ear, mut readied: mpsc::UnboundedReceiver<(u64, io::Result<()>)>) {
        let stop = self.shared.stop.clone();
        loop {
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some((number, result)) = readied.recv() => self.answer(number, result.map_err(|e| e.to_string())).await,
                heard = ear.hear() => match heard {
                    Ok(Some(heard)) => self.heed(heard).await,
                    Ok(None) => break,
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = done {
                warn!(error = %error, sessions = self.moved, "upgrade_interrupted");
                break;
            }
        }
        debug!(sessions = self.moved, "upgrade_ended");
    }

    async fn heed(&mut self, Heard { what, tail, descriptors }: Heard<ToNew>) -> io::Result<()> {
        match what {
            ToNew::Session { number, record } => match self.arrive(number, *record, tail, descriptors) {
                Ok(()) => Ok(()),
                Err(why) => self.answer(number, Err(why)).await,
            },
            ToNew::Yours { number } => {
                if self.waiting.remove(&number).is_some_and(|ours| ours.send(()).is_ok()) {
                    self.moved += 1;
                }
                Ok(())
            }
            ToNew::Settled { moved, stayed } => {
                info!(side = "new", version = VERSION, sessions = moved, stayed, "upgrade_done");
                Ok(())
            }
            other => Err(io::Error::new(io::ErrorKind::InvalidData, out_of_turn(&other))),
        }
    }

    fn arrive(
        &mut self,
        number: u64,
        record: Record,
        mut tail: Bytes,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let [for_node, for_client] = record.stand.kept();
        let sockets = <[OwnedFd; 2]>::try_from(descriptors).ok();
        let Some(sockets) = sockets.filter(|_| for_node.checked_add(for_client) == Some(tail.len())) else {
            return Err("its parts do not fit".to_owned());
        };
        let kept = [tail.split_to(for_node), tail];
        let berth = Berth::find(&self.shared, &record)?;
        let (sender, ours) = oneshot::channel();
        self.waiting.insert(number, sender);
        let agreement = Agreement { number, ready: self.ready.clone(), ours };
        let moved = Moved { record, kept, sockets };
        let (shared, desks) = (Arc::clone(&self.shared), Arc::clone(&self.quarters.desks));
        self.quarters.crew.adopt(|worker, served| {
            let desk = desks.get(worker).map_or_else(|| Arc::new(Desk::new(worker)), Arc::clone);
            take_up(shared, desk, (berth, moved), agreement, served)
        });
        Ok(())
    }

    async fn answer(&mut self, number: u64, result: Result<(), String>) -> io::Result<()> {
        match result {
            Ok(()) => self.mouth.say(&ToOld::Taken { number }).await,
            Err(why) => {
                self.waiting.remove(&number);
                self.mouth.say(&ToOld::NotTaken { number, why }).await
            }
        }
    }
}
