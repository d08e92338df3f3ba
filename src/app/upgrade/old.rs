//! The side of the old process: it starts the new one, gives it everything, and leaves.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use super::child::{Child, Launch, check};
use super::{ByHand, Ear, Heard, Mouth, NodeByHand, PROTOCOL, ToNew, ToOld, open};
use crate::admin::upgrade::{Upgrade, Upgraded};
use crate::app::running::Running;
use crate::net::passage::DESCRIPTORS_MAX;
use crate::session::departure::{Departure, Leaving};
use crate::session::moved::Moved;
use crate::session::shared::Shared;
use crate::topology::Node;
use crate::topology::order::AdminState;

/// How long the new process may take to say what becomes of a session.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a process that has closed the passage may take to end.
const END: Duration = Duration::from_secs(1);
/// How long the answer to who has asked may take to be sent.
const LAST_ANSWER: Duration = Duration::from_millis(250);
/// How often it is looked how far it has come.
const LOOK: Duration = Duration::from_millis(20);
/// Sessions that were accepted here and have no number yet are far fewer.
const NUMBERS_APART: u64 = 1 << 16;

/// What becomes of this process.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::app) enum Outcome {
    /// It goes on.
    Stays,
    /// Another one, this one, has its place, and it is to leave.
    Leaves(u32),
}

/// A new process that is ready.
struct Ready {
    child: Child,
    mouth: Mouth,
    ear: Ear,
    version: String,
}

/// Upgrades, and tells who has asked; comes back when this process is to leave, or goes on.
pub(in crate::app) async fn upgrade(
    shared: &Arc<Shared>,
    running: &Running,
    launch: &Launch,
    request: Upgrade,
) -> Outcome {
    let Upgrade { by, binary, wait, answer } = request;
    let began = Instant::now();
    let stopping = async {
        shared.stop.cancelled().await;
        Err("pgsplit is stopping".to_owned())
    };
    let ready = tokio::select! {
        ready = prepare(shared, running, launch, (by, binary, wait)) => ready,
        stopping = stopping => stopping,
    };
    let failed = |why: &str, hint: &str| error!(by, error = why, hint, "upgrade_failed");
    let ready = match ready {
        Ok(ready) => ready,
        Err(why) => {
            // It may have given them others.
            running.restore_options();
            failed(&why, "this process goes on as before");
            let _ = answer.send(Err(why));
            return Outcome::Stays;
        }
    };
    running.gate().set_open(false);
    let Ready { mut child, mut mouth, ear, version } = ready;
    let begin = ToNew::Begin { numbers_above: shared.ids.last() + NUMBERS_APART };
    if let Err(error) = mouth.say(&begin).await {
        running.gate().set_open(true);
        running.restore_options();
        let why = format!("the new process has ended: {error}");
        failed(&why, "this process goes on as before");
        let _ = answer.send(Err(why));
        return Outcome::Stays;
    }
    let (departure, leaving) = Departure::open();
    shared.depart_by(Arc::clone(&departure));
    let mut removal = Removal {
        shared,
        running,
        mouth,
        departure,
        underway: HashMap::new(),
        last: 0,
        answer: Some(answer),
        drained_by: None,
        done: Upgraded { pid: child.pid(), version, moved: 0, stayed: 0, open: 0, seconds: 0.0 },
        began,
    };
    let ended = removal.run(ear, leaving).await;
    let Removal { answer, done, underway, mouth, .. } = removal;
    // What is under way goes on here; with the passage closed, the other process lets go of it.
    drop((mouth, underway));
    let Err(why) = ended else {
        child.let_go();
        // Who has asked is told on a connection that ends with this process.
        sleep(LAST_ANSWER).await;
        return Outcome::Leaves(done.pid);
    };
    shared.stay();
    let how = match child.ended(END).await {
        Some(status) => Some(status.to_string()),
        // It has no session, so none is lost with it, and this process can serve as before.
        None if done.moved == 0 => Some("it was ended".to_owned()),
        None => None,
    };
    if let Some(how) = how {
        drop(child);
        running.gate().set_open(true);
        running.set_fronts_leaving(false);
        running.restore_options();
        let (why, sessions) = (format!("{why} ({how})"), done.moved);
        error!(by, error = why, sessions_lost = sessions, hint = "this process serves again", "upgrade_failed");
        if let Some(answer) = answer {
            let _ = answer.send(Err(why));
        }
        return Outcome::Stays;
    }
    warn!(by, error = why, moved = done.moved, hint = "the new process serves; the rest ends here", "upgrade_interrupted");
    if let Some(answer) = answer {
        let _ = answer.send(Err(format!("{why}; the new process serves, and what it did not take ends in the old one")));
    }
    child.let_go();
    running.drained().await;
    Outcome::Leaves(done.pid)
}

/// Starts a new process and lets it build everything. Until it is ready nothing is different here; dropped, it is ended.
///
/// # Errors
/// In words: it does not come to that.
async fn prepare(
    shared: &Shared,
    running: &Running,
    launch: &Launch,
    (by, binary, wait): (&str, Option<PathBuf>, Duration),
) -> Result<Ready, String> {
    if shared.is_draining() {
        return Err("pgsplit is stopping".to_owned());
    }
    if std::process::id() == 1 {
        return Err("pgsplit is the first process of its container, which ends with it: start another container, and \
                    then stop this one"
            .to_owned());
    }
    let program = binary.unwrap_or_else(|| launch.program().to_owned());
    // What it was started from was good enough before.
    if program != launch.program() {
        check(&program)?;
    }
    let shown = program.display().to_string();
    let started = Child::start(launch, &program);
    let (mut child, stream) = started.map_err(|error| format!("cannot start {shown}: {error}"))?;
    info!(by, binary = shown, pid = child.pid(), "upgrade_started");
    let (mut mouth, mut ear) = open(stream).map_err(|error| error.to_string())?;
    let met = timeout(wait, meet(shared, running, &mut mouth, &mut ear)).await;
    match met {
        Ok(Ok(version)) => Ok(Ready { child, mouth, ear, version }),
        Ok(Err(Met::Refused(why))) => {
            let _ = child.ended(END).await;
            Err(format!("the new process refused: {why}"))
        }
        Ok(Err(Met::Gone(how))) => Err(match child.ended(END).await {
            Some(status) => format!("the new process ended before it was ready ({status}): its words are in the log"),
            None => format!("the new process is not understood: {how}"),
        }),
        Err(_) => Err(format!("the new process was not ready within {}", humantime::format_duration(wait))),
    }
}

/// Why it came to nothing.
enum Met {
    /// It said why.
    Refused(String),
    /// It has closed, or says nothing sensible.
    Gone(String),
}

impl From<io::Error> for Met {
    fn from(error: io::Error) -> Self {
        Self::Gone(error.to_string())
    }
}

/// Gives the new process the sockets; its version, once it is ready.
async fn meet(shared: &Shared, running: &Running, mouth: &mut Mouth, ear: &mut Ear) -> Result<String, Met> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    mouth.say(&ToNew::Hello { protocol: PROTOCOL, version }).await?;
    let version = match hear(ear).await? {
        ToOld::Hello { protocol: PROTOCOL, version } => version,
        ToOld::Refused { why } => return Err(Met::Refused(why)),
        ToOld::Hello { protocol, version } => {
            return Err(Met::Gone(format!("version {version} takes over in another way ({protocol})")));
        }
        _ => return Err(Met::Gone("it did not say hello".to_owned())),
    };
    for (spot, sockets) in running.sockets()? {
        for some in sockets.chunks(DESCRIPTORS_MAX) {
            let some: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
            mouth.give(&ToNew::Sockets(spot.clone()), &[], &some).await?;
        }
    }
    mouth.say(&ToNew::Prepare(by_hand(shared))).await?;
    match hear(ear).await? {
        ToOld::Ready => Ok(version),
        ToOld::Refused { why } => Err(Met::Refused(why)),
        _ => Err(Met::Gone("it did not say that it is ready".to_owned())),
    }
}

fn by_hand(shared: &Shared) -> ByHand {
    let setup = shared.setup();
    let paused = setup.listeners.iter().filter(|listener| listener.is_paused());
    let set = |node: &&Node| node.admin != AdminState::Ready || node.weight != node.config.weight;
    let topologies: Vec<_> = setup.clusters.iter().map(|c| Arc::clone(&c.current.borrow())).collect();
    let nodes = topologies.iter().flat_map(|topology| &topology.nodes).filter(set);
    let node = |node: &Node| NodeByHand {
        name: node.config.name.clone(),
        admin: node.admin.as_str().to_owned(),
        weight: (node.weight != node.config.weight).then_some(node.weight),
    };
    ByHand {
        paused: paused.map(|listener| listener.config.name.clone()).collect(),
        nodes: nodes.map(node).collect(),
    }
}

async fn hear(ear: &mut Ear) -> Result<ToOld, Met> {
    ear.hear().await?.map(|heard| heard.what).ok_or_else(|| Met::Gone("it has closed".to_owned()))
}

/// A session that the new process has, and may not touch yet.
struct Underway {
    since: Instant,
    /// Dropped: the session goes on here.
    answer: oneshot::Sender<bool>,
}

/// Sessions on their way.
struct Removal<'a> {
    shared: &'a Shared,
    running: &'a Running,
    mouth: Mouth,
    departure: Arc<Departure>,
    underway: HashMap<u64, Underway>,
    last: u64,
    /// Who waits for all that are in use to have moved, or stayed.
    answer: Option<oneshot::Sender<Result<Upgraded, String>>>,
    /// When this process leaves at the latest, once that is so.
    drained_by: Option<Instant>,
    done: Upgraded,
    began: Instant,
}

impl Removal<'_> {
    /// Moves sessions until nothing is left here, or the time for that is over.
    ///
    /// # Errors
    /// In words: the new process does not answer, or is gone.
    async fn run(&mut self, mut ear: Ear, mut leaving: mpsc::UnboundedReceiver<Leaving>) -> Result<(), String> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let gone = |error: io::Error| format!("the new process is gone: {error}");
        loop {
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return Ok(()),
                () = until(self.drained_by) => return Ok(()),
                heard = ear.hear() => match heard.map_err(gone)? {
                    Some(Heard { what, .. }) => self.heed(what).await?,
                    None => return Err("the new process is gone".to_owned()),
                },
                Some(leaving) = leaving.recv() => self.send(leaving).await.map_err(gone)?,
                _ = look.tick() => {
                    let is_late = |underway: &Underway| ANSWER < underway.since.elapsed();
                    if self.underway.values().any(is_late) {
                        return Err("the new process does not answer".to_owned());
                    }
                }
            }
            let is_settled = self.underway.is_empty() && self.shared.relaying.now() <= self.departure.staying();
            if is_settled && self.drained_by.is_none() {
                self.settle().await.map_err(gone)?;
            }
            if self.drained_by.is_some() && self.running.connections() == 0 {
                return Ok(());
            }
        }
    }

    async fn send(&mut self, Leaving { session, answer }: Leaving) -> io::Result<()> {
        self.last += 1;
        let (number, since) = (self.last, Instant::now());
        self.underway.insert(number, Underway { since, answer });
        let Moved { record, kept: [for_node, for_client], sockets } = session;
        let descriptors = sockets.each_ref().map(AsFd::as_fd);
        let session = ToNew::Session { number, record: Box::new(record) };
        self.mouth.give(&session, &[&for_node, &for_client], &descriptors).await
    }

    async fn heed(&mut self, what: ToOld) -> Result<(), String> {
        match what {
            ToOld::Taken { number } => {
                if let Some(underway) = self.underway.remove(&number) {
                    // If that cannot be said it stays here: the new process has not touched it.
                    let said = self.mouth.say(&ToNew::Yours { number }).await;
                    said.map_err(|error| format!("the new process is gone: {error}"))?;
                    let _ = underway.answer.send(true);
                    self.done.moved += 1;
                }
                Ok(())
            }
            ToOld::NotTaken { number, why } => {
                debug!(why, "session_not_taken");
                if let Some(underway) = self.underway.remove(&number) {
                    let _ = underway.answer.send(false);
                    self.done.stayed += 1;
                }
                Ok(())
            }
            ToOld::Hello { .. } | ToOld::Refused { .. } | ToOld::Ready => {
                Err("the new process is not understood".to_owned())
            }
        }
    }

    /// All that were in use have moved, or stay. What is left here is on its way in or out.
    async fn settle(&mut self) -> io::Result<()> {
        let (moved, stayed) = (self.done.moved, self.done.stayed);
        self.mouth.say(&ToNew::Settled { moved, stayed }).await?;
        self.running.set_fronts_leaving(true);
        self.drained_by = Some(Instant::now() + self.shared.setup().config.runtime.drain_timeout);
        (self.done.open, self.done.seconds) = (self.running.connections(), self.began.elapsed().as_secs_f64());
        let Upgraded { pid, version, open, seconds, .. } = &self.done;
        info!(side = "old", pid, version, sessions = moved, stayed, open, duration_s = seconds, "upgrade_done");
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(Ok(self.done.clone()));
        }
        Ok(())
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
