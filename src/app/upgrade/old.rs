//! The side of the old process: it starts the new one, gives it everything, and leaves.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::by_hand::ByHand;
use super::child::Child;
use super::launch::Launch;
use super::removal::Removal;
use super::{Ear, Mouth, PROTOCOL, ToNew, ToOld, VERSION, open, shown};
use crate::admin::upgrade::{Told, Upgrade, Upgraded, Upgrades};
use crate::app::running::Running;
use crate::app::systemd::Systemd;
use crate::net::gate::Word;
use crate::net::passage::DESCRIPTORS_MAX;
use crate::session::shared::Shared;
use crate::telemetry::labels::UpgradeResult;

/// Why there is no upgrade.
pub(super) const STOPPING: &str = "pgsplit is stopping";
/// How long a process that has closed the passage may take to end.
const END: Duration = Duration::from_secs(3);
/// How often it is looked whether anybody is left.
const LOOK: Duration = Duration::from_millis(200);
/// How long the answer to who has asked may take to be sent.
const LAST_ANSWER: Duration = Duration::from_secs(2);
/// Sessions that were accepted here and have no number yet are far fewer.
const NUMBERS_APART: u64 = 1 << 16;

/// Who lets other processes take this one's place.
pub(in crate::app) struct Predecessor {
    pub shared: Arc<Shared>,
    pub upgrades: Upgrades,
    pub launch: Launch,
    pub systemd: Systemd,
}

/// What becomes of this process.
#[derive(Debug)]
pub(in crate::app) enum Outcome {
    /// It goes on.
    Stays,
    /// Another one has its place, and it is to leave.
    Leaves,
    /// It was told to stop, and so was the other one, which has a part of the sessions.
    Stops(Child),
}

/// A new process that is ready.
struct Ready {
    child: Child,
    mouth: Mouth,
    ear: Ear,
    version: String,
}

/// Why there is none.
enum Met {
    /// It said why.
    Refused(String),
    /// It has closed, or says nothing sensible.
    Gone(String),
}

impl Predecessor {
    /// Upgrades, and tells who has asked; comes back when this process is to leave, or goes on. Not cancel safe.
    pub(in crate::app) async fn upgrade(&self, running: &mut Running, upgrade: Upgrade) -> Outcome {
        let Upgrade { by, wait, answer, turn: _turn } = upgrade;
        let began = Instant::now();
        let Ready { mut child, mouth, ear, version } = match self.prepare(running, by, wait).await {
            Ok(ready) => ready,
            Err(why) => return self.go_on(running, by, answer, why),
        };
        // It may have begun to stop meanwhile, and accept for a while yet.
        if self.shared.is_draining() {
            drop((child, mouth, ear));
            return self.go_on(running, by, answer, STOPPING.to_owned());
        }
        running.gate().set(Word::Shut);
        let mut removal = Removal::begin(&self.shared, mouth, ear);
        let opened = removal.open(self.shared.ids.last() + NUMBERS_APART).await;
        let has_begun = opened.is_ok();
        let moving = if has_begun { removal.all().await } else { opened };
        if let Err(why) = moving {
            let moved = removal.moved();
            if has_begun && self.shared.is_draining() {
                if removal.say(&ToNew::Stop).await.is_err() {
                    child.ask_to_end();
                }
                drop(removal);
                let hint = "the new process stops, too: each ends what it has";
                warn!(by, error = why, moved, hint, "upgrade_interrupted");
                running.leave();
                tell(answer, Err(format!("{why}; {hint}"))).await;
                return Outcome::Stops(child);
            }
            // What is under way goes on here; with the passage closed, the other process lets go of it.
            drop(removal);
            let how = match child.ended(END).await {
                Some(status) => status.to_string(),
                // No session has gone over. If it has not said that it accepts, it has none; if it has, and then says nothing
                // more, those that have come there since are lost with it. This process can serve as before.
                None if moved == 0 => "it was ended".to_owned(),
                None => {
                    let hint = "the new process serves; what it did not take ends here";
                    warn!(by, error = why, moved, hint, "upgrade_interrupted");
                    self.leave(running, child).await;
                    let told = Err(format!("{why}; {hint}"));
                    tell(answer, told).await;
                    self.until(|| running.connections() == 0, None).await;
                    return Outcome::Leaves;
                }
            };
            drop(child);
            let lost = if moved == 0 { String::new() } else { format!("; sessions lost with it: {moved}") };
            return self.go_on(running, by, answer, format!("{why} ({how}){lost}"));
        }
        let pid = child.pid();
        self.leave(running, child).await;
        let (moved, stayed, open) = (removal.moved(), removal.stayed(), running.connections());
        let seconds = began.elapsed().as_secs_f64();
        // Should it be gone this very moment, nothing else follows from that: the place is its own.
        let _ = removal.say(&ToNew::Settled { by: by.to_owned(), moved, stayed }).await;
        let done = Upgraded { pid, version, moved, stayed, open, seconds };
        let version = &done.version;
        info!(
            side = "old",
            by,
            pid,
            version,
            sessions = moved,
            stayed,
            open,
            duration_s = seconds,
            "upgrade_done"
        );
        tell(answer, Ok(done)).await;
        self.until(|| running.connections() == 0, Some(removal)).await;
        Outcome::Leaves
    }

    /// Nothing has come of it.
    fn go_on(
        &self,
        running: &Running,
        by: &'static str,
        answer: oneshot::Sender<Told>,
        why: String,
    ) -> Outcome {
        // The new process may have given the sockets others.
        running.set_options();
        running.gate().set(Word::Open);
        error!(by, error = why, hint = "this process goes on as before", "upgrade_failed");
        self.shared.metrics.upgraded(UpgradeResult::Failed);
        self.upgrades.note(by, Some(why.clone()));
        // Who has asked may not care.
        let _ = answer.send(Told { outcome: Err(why), passing: oneshot::channel().0 });
        Outcome::Stays
    }

    /// The other process has the place: nobody is accepted here any more, and nobody is told of this one.
    async fn leave(&self, running: &mut Running, child: Child) {
        running.leave();
        let pid = child.pid();
        child.let_go().await;
        self.systemd.is_replaced_by(pid).await;
    }

    /// Lets those who are still here end, or go over, until `is_over` or the time for a drain is.
    async fn until(&self, is_over: impl Fn() -> bool, removal: Option<Removal<'_>>) {
        let drain = self.shared.setup().config.runtime.drain_timeout;
        let deadline = Instant::now() + drain;
        if let Some(mut removal) = removal {
            let is_over = || is_over() || deadline <= Instant::now();
            match removal.late(is_over).await {
                Ok(()) => return,
                Err(why) => warn!(error = why, hint = "who is still here stays", "upgrade_interrupted"),
            }
        }
        let mut look = tokio::time::interval(LOOK);
        let empty = async {
            while !is_over() {
                look.tick().await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout_at(deadline, empty) => {}
            () = self.shared.stop.cancelled() => {}
        }
    }

    /// Starts a new process and lets it build everything. Until it is ready nothing is different here; dropped, it is ended.
    ///
    /// # Errors
    /// In words: it does not come to that.
    async fn prepare(&self, running: &Running, by: &str, wait: Duration) -> Result<Ready, String> {
        let stopping = || STOPPING.to_owned();
        if self.shared.is_draining() {
            return Err(stopping());
        }
        if std::process::id() == 1 {
            let why = "pgsplit is the first process of its container, which ends with it: start another container, and then \
                       stop this one";
            return Err(why.to_owned());
        }
        let program = self.launch.program.display().to_string();
        let started = Child::start(&self.launch).await;
        let (mut child, stream) = started.map_err(|error| format!("cannot start {program}: {error}"))?;
        info!(by, program, pid = child.pid(), "upgrade_started");
        let (mut mouth, mut ear) = open(stream).map_err(|error| error.to_string())?;
        let met = tokio::select! {
            met = timeout(wait, self.meet(running, &mut mouth, &mut ear)) => met,
            () = self.shared.stop.cancelled() => return Err(stopping()),
        };
        match met {
            Ok(Ok(version)) => Ok(Ready { child, mouth, ear, version }),
            Ok(Err(Met::Refused(why))) => {
                let _ = child.ended(END).await;
                Err(format!("the new process refused: {why}"))
            }
            Ok(Err(Met::Gone(how))) => Err(match child.ended(END).await {
                Some(status) => {
                    format!("the new process ended before it was ready ({status}): its words are in the log")
                }
                None => format!("the new process is not understood: {how}"),
            }),
            Err(_) => {
                Err(format!("the new process was not ready within {}", humantime::format_duration(wait)))
            }
        }
    }

    /// Gives the new process the sockets; its version, once it is ready.
    async fn meet(&self, running: &Running, mouth: &mut Mouth, ear: &mut Ear) -> Result<String, Met> {
        mouth.say(&ToNew::Hello { protocol: PROTOCOL, version: VERSION.to_owned() }).await?;
        let version = match hear(ear).await? {
            ToOld::Hello { protocol: PROTOCOL, version } => shown(&version),
            ToOld::Hello { protocol, version } => {
                let version = shown(&version);
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
        if let Some((path, socket)) = running.local_socket()? {
            mouth.give(&ToNew::Local(path), &[], &[socket.as_fd()]).await?;
        }
        mouth.say(&ToNew::Prepare(ByHand::of(&self.shared))).await?;
        match hear(ear).await? {
            ToOld::Ready => Ok(version),
            _ => Err(Met::Gone("it did not say that it is ready".to_owned())),
        }
    }
}

impl From<io::Error> for Met {
    fn from(error: io::Error) -> Self {
        Self::Gone(error.to_string())
    }
}

async fn hear(ear: &mut Ear) -> Result<ToOld, Met> {
    match ear.hear().await?.map(|heard| heard.what) {
        Some(ToOld::Refused { why }) => Err(Met::Refused(shown(&why))),
        Some(what) => Ok(what),
        None => Err(Met::Gone("it has closed".to_owned())),
    }
}

/// Tells who has asked, and waits until that has been passed on: the connection ends with this process.
async fn tell(answer: oneshot::Sender<Told>, outcome: Result<Upgraded, String>) {
    let (passing, passed_on) = oneshot::channel();
    let _ = answer.send(Told { outcome, passing });
    let _ = timeout(LAST_ANSWER, passed_on).await;
}
