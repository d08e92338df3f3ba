//! The side of the new process: it is given everything, and goes on with it.

use std::collections::HashMap;
use std::env;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::by_hand::ByHand;
use super::{Ear, Heard, Mouth, PROTOCOL, ToNew, ToOld, VARIABLE, VERSION, encode, open, shown};
use crate::admin::upgrade::Upgrades;
use crate::app::App;
use crate::app::systemd::Systemd;
use crate::front::shared::Fronts;
use crate::net::crew::Crew;
use crate::net::gate::{Gate, Word};
use crate::net::handed::Handed;
use crate::net::local::LocalSocket;
use crate::net::passage::send_blocking;
use crate::session::arrival::{Agreement, Berth, take_up};
use crate::session::desk::Desk;
use crate::session::moved::{Moved, Record};
use crate::session::shared::{Listener, Shared};
use crate::telemetry::labels::UpgradeResult;

/// How long the other process may take to close, once it has been told that this one stops.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often it is looked whether people have set something by hand that who waits with the old process is to know, and whether
/// that one is still there.
const LOOK: Duration = Duration::from_millis(250);

/// A process that was started to take the place of another one.
#[derive(Debug)]
pub struct Heir(UnixStream);

/// It has been given the sockets.
#[derive(Debug)]
pub struct Inheritance {
    mouth: Mouth,
    ear: Ear,
    old: Option<Old>,
    /// The sockets.
    pub handed: Handed,
    by_hand: ByHand,
}

/// What the process that takes a place goes on with, once it has it.
pub(in crate::app) struct Quarters {
    /// Where sessions go that arrive.
    pub crew: Crew<Arc<Listener>>,
    pub desks: Arc<[Arc<Desk>]>,
    pub shared: Arc<Shared>,
    pub fronts: Arc<Fronts>,
    pub gate: Gate,
    /// Its file is the other process's as long as that one is there.
    pub local: Option<Arc<LocalSocket>>,
    /// systemd does not listen to this process before.
    pub systemd: Systemd,
    pub upgrades: Upgrades,
    /// No other upgrade before this one is over.
    pub turn: Option<OwnedSemaphorePermit>,
    /// The other process wants this one to stop with it.
    pub is_to_stop: CancellationToken,
}

impl fmt::Debug for Quarters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quarters").finish_non_exhaustive()
    }
}

/// The process whose place this one has taken, and which may have ended.
#[derive(Debug)]
pub(in crate::app) struct Old(OwnedFd);

impl Old {
    /// The one at the other end of a passage; `None`: it has ended, or the system has no way to watch another process.
    #[cfg(target_os = "linux")]
    fn at(passage: &UnixStream) -> Option<Self> {
        let pid = rustix::net::sockopt::socket_peercred(passage).ok()?.pid;
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok().map(Self)
    }

    #[cfg(not(target_os = "linux"))]
    fn at(_: &UnixStream) -> Option<Self> {
        None
    }

    /// Resolves when it has ended. Cancel safe.
    pub(in crate::app) async fn left(&self) {
        let mut look = interval(LOOK);
        while !self.has_left() {
            look.tick().await;
        }
    }

    fn has_left(&self) -> bool {
        let mut watched = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut watched, Some(&Timespec::default())) != Ok(0)
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
            io::Error::new(
                error,
                format!("{VARIABLE} is set, and standard input is no socket: do not set it"),
            )
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
        let old = Old::at(&self.0);
        let (mouth, ear) = open(self.0).map_err(|error| error.to_string())?;
        let (handed, by_hand) = (Handed::default(), ByHand::default());
        let mut inheritance = Inheritance { mouth, ear, old, handed, by_hand };
        inheritance.receive().await?;
        Ok(inheritance)
    }
}

impl Inheritance {
    async fn receive(&mut self) -> Result<(), String> {
        match self.next().await?.what {
            ToNew::Hello { protocol: PROTOCOL, version } => debug!(version = shown(&version), "upgrade_from"),
            ToNew::Hello { protocol, version } => {
                let why = format!(
                    "pgsplit {} hands over in a way ({protocol}) that {VERSION} ({PROTOCOL}) does not know: restart it instead",
                    shown(&version)
                );
                self.say(&ToOld::Refused { why: why.clone() }).await?;
                return Err(why);
            }
            other => return Err(out_of_turn(&other)),
        }
        self.say(&ToOld::Hello { protocol: PROTOCOL, version: VERSION.to_owned() }).await?;
        loop {
            let Heard { what, descriptors, .. } = self.next().await?;
            let mut descriptors = descriptors.into_iter();
            match what {
                ToNew::Sockets(spot) => self.handed.add(spot, descriptors.map(TcpListener::from)),
                ToNew::Local(path) => {
                    if let Some(socket) = descriptors.next() {
                        self.handed.add_local(path, UnixListener::from(socket));
                    }
                }
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
        self.by_hand.apply(&app.shared).await;
        self.say(&ToOld::Ready).await?;
        match self.next().await?.what {
            ToNew::Begin { numbers_above, by_hand } => {
                app.shared.ids.begin_above(numbers_above);
                // There may have been orders since this one began to get ready.
                by_hand.apply(&app.shared).await;
                self.by_hand = by_hand;
            }
            other => return Err(out_of_turn(&other)),
        }
        // Before anybody is let in: the old one ends a process that has not said so.
        self.say(&ToOld::Begun).await?;
        app.old = self.old.take();
        if let Some(quarters) = app.quarters.take() {
            quarters.gate.set(Word::Open);
            let (ready, readied) = mpsc::unbounded_channel();
            let Self { mouth, ear, by_hand, .. } = self;
            let waiting = HashMap::new();
            let arrivals = Arrivals { quarters, mouth, is_heard: true, waiting, ready, moved: 0, by_hand };
            app.tasks.spawn(arrivals.receive(ear, readied));
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Heard<ToNew>, String> {
        let heard =
            self.ear.hear().await.map_err(|error| format!("the old process is not understood: {error}"))?;
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
        ToNew::Local(_) => "local",
        ToNew::Prepare(_) => "prepare",
        ToNew::Begin { .. } => "begin",
        ToNew::Session(_) => "session",
        ToNew::Yours(_) => "yours",
        ToNew::Settled { .. } => "settled",
        ToNew::Stop => "stop",
    };
    format!("the old process said \"{name}\" out of turn")
}

impl Quarters {
    /// The other process has left, or leaves: the place is this one's own from now on, unless that one keeps it to stop in it.
    /// Not cancel safe.
    async fn settle(&mut self) {
        if let Some(local) = self.local.take() {
            local.set_ours(true);
        }
        self.turn = None;
        if !self.is_to_stop.is_cancelled() {
            self.systemd.is_successor(&self.shared, &self.fronts).await;
        }
    }
}

/// Sessions that arrive.
struct Arrivals {
    quarters: Quarters,
    mouth: Mouth,
    /// The other process still wants to know.
    is_heard: bool,
    /// Those that are here and not ours yet.
    waiting: HashMap<u64, oneshot::Sender<()>>,
    ready: mpsc::UnboundedSender<(u64, io::Result<()>)>,
    moved: u64,
    /// As the other process knows it.
    by_hand: ByHand,
}

impl Arrivals {
    /// Receives until the other process has left, or this one stops. What is not ours by then stays with the other one.
    async fn receive(mut self, mut ear: Ear, mut readied: mpsc::UnboundedReceiver<(u64, io::Result<()>)>) {
        let stop = self.quarters.shared.stop.clone();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.stop(ear).await,
                Some((number, result)) = readied.recv() => {
                    self.answer(number, result.map_err(|error| error.to_string())).await;
                }
                heard = ear.hear() => {
                    let done = match heard {
                        Ok(Some(heard)) => self.heed(heard).await,
                        Ok(None) => break,
                        Err(error) => Err(error),
                    };
                    if let Err(error) = done {
                        warn!(error = %error, sessions = self.moved, "upgrade_interrupted");
                        break;
                    }
                }
                _ = look.tick(), if self.is_heard => self.tell_by_hand().await,
            }
        }
        // Also if the other one has not said so: it is not there any more.
        self.quarters.settle().await;
        debug!(sessions = self.moved, "upgrade_ended");
    }

    /// Takes up what the other process has given away already: it closes when it hears that there is nobody for more.
    async fn stop(mut self, mut ear: Ear) {
        self.end_answers();
        let mut is_settled = false;
        let rest = async {
            while let Ok(Some(Heard { what, .. })) = ear.hear().await {
                match what {
                    ToNew::Yours(number) => self.becomes_ours(number),
                    ToNew::Stop => self.quarters.is_to_stop.cancel(),
                    ToNew::Settled { .. } => is_settled = true,
                    _ => {}
                }
            }
        };
        let _ = timeout(LAST_WORDS, rest).await;
        if is_settled || self.quarters.is_to_stop.is_cancelled() || 0 < self.moved {
            // They have their time to end, for which systemd is asked from here.
            self.quarters.settle().await;
        }
    }

    fn becomes_ours(&mut self, number: u64) {
        if self.waiting.remove(&number).is_some_and(|ours| ours.send(()).is_ok()) {
            self.moved += 1;
        }
    }

    /// Says something, if anybody is left to hear it; what that one has said before is heard all the same.
    async fn say(&mut self, what: &ToOld) {
        if self.is_heard
            && let Err(error) = self.mouth.say(what).await
        {
            debug!(error = %error, "upgrade_not_heard");
            self.end_answers();
        }
    }

    fn end_answers(&mut self) {
        self.is_heard = false;
        self.mouth.close();
    }

    async fn heed(&mut self, Heard { what, tail, descriptors }: Heard<ToNew>) -> io::Result<()> {
        match what {
            ToNew::Session(record) => {
                let number = record.id;
                if let Err(why) = self.arrive(*record, tail, descriptors) {
                    self.answer(number, Err(why.to_owned())).await;
                }
                Ok(())
            }
            ToNew::Yours(number) => {
                self.becomes_ours(number);
                Ok(())
            }
            ToNew::Settled { by, moved, stayed } => {
                self.quarters.settle().await;
                self.quarters.shared.metrics.upgraded(UpgradeResult::Done);
                let by =
                    ["signal", "cli", "dashboard"].into_iter().find(|&known| known == by).unwrap_or("api");
                self.quarters.upgrades.note(by, None);
                info!(side = "new", by, version = VERSION, sessions = moved, stayed, "upgrade_done");
                Ok(())
            }
            ToNew::Stop => {
                self.quarters.is_to_stop.cancel();
                Ok(())
            }
            other => Err(io::Error::new(io::ErrorKind::InvalidData, out_of_turn(&other))),
        }
    }

    fn arrive(
        &mut self,
        record: Record,
        mut tail: Bytes,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), &'static str> {
        let [for_node, for_client] = record.stand.kept();
        let sockets = <[OwnedFd; 2]>::try_from(descriptors).ok();
        let Some(sockets) = sockets.filter(|_| for_node.checked_add(for_client) == Some(tail.len())) else {
            return Err("its parts do not fit");
        };
        let kept = [tail.split_to(for_node), tail];
        let Quarters { shared, crew, desks, .. } = &self.quarters;
        let berth = Berth::find(shared, &record)?;
        let (sender, ours) = oneshot::channel();
        let number = record.id;
        self.waiting.insert(number, sender);
        let agreement = Agreement { number, ready: self.ready.clone(), ours };
        let moved = Moved { record, kept, sockets };
        crew.adopt(|worker, served| {
            let desk = desks.get(worker).map_or_else(|| Arc::new(Desk::new(worker)), Arc::clone);
            take_up(Arc::clone(shared), desk, Box::new((berth, moved)), agreement, served)
        });
        Ok(())
    }

    async fn answer(&mut self, number: u64, result: Result<(), String>) {
        match result {
            Ok(()) => self.say(&ToOld::Taken(number)).await,
            Err(why) => {
                self.waiting.remove(&number);
                self.say(&ToOld::NotTaken(number, why)).await;
            }
        }
    }

    /// Tells the other process what people have set since: who still waits there waits for that, too.
    async fn tell_by_hand(&mut self) {
        let now = ByHand::of(&self.quarters.shared);
        if now != self.by_hand {
            self.say(&ToOld::ByHand(now.clone())).await;
            self.by_hand = now;
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
