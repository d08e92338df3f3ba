//! What systemd is told, if it has started us (`sd_notify(3)`): that we are ready, that we reload or stop, how things are, in
//! one line, that we are alive, and that a drain takes its time. Elsewhere nobody is told anything.

mod line;
mod socket;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info};

use crate::front::shared::Fronts;
use crate::net::roll_call::RollCall;
use crate::session::shared::Shared;
use line::Line;
use socket::Socket;

/// How often the line is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A line in which nothing but figures has changed is not worth more than this.
const FIGURES: Duration = Duration::from_secs(10);
/// How long systemd is to be patient from each word on while we drain. Far more than [`LOOK`], as the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// The system's manager of services, if it wants to hear from us.
#[derive(Clone, Debug)]
pub(super) struct Systemd {
    socket: Option<Arc<Socket>>,
    /// It ends us when it has heard for so long no sign of life.
    watchdog: Option<Duration>,
    /// Whether it listens to this process: to the main one of the service, and to no other.
    is_main: Arc<AtomicBool>,
    /// It has been told that we are ready, and not yet that we stop.
    is_up: Arc<AtomicBool>,
}

impl Systemd {
    /// As the environment says; `is_main`: this process takes no other one's place.
    pub(super) fn of_process(is_main: bool) -> Self {
        let socket = Socket::of_process().map(Arc::new);
        let watchdog = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        Self { socket, watchdog, is_main: Arc::new(AtomicBool::new(is_main)), is_up: Arc::default() }
    }

    /// Whether it watches this process, and takes its end for that of the service.
    pub(super) fn is_main(&self) -> bool {
        self.socket.is_some() && self.is_main.load(Ordering::Relaxed)
    }

    /// This process has the place of the one before it, be it only to stop.
    pub(super) async fn is_successor(&self, shared: &Shared, fronts: &Fronts) {
        if !self.is_main.swap(true, Ordering::Relaxed) {
            if shared.is_draining() {
                self.is_stopping().await;
            } else {
                self.is_ready(shared, fronts).await;
            }
        }
    }

    /// Another process has this one's place, and is listened to from now on.
    pub(super) async fn is_replaced_by(&self, pid: u32) {
        self.tell(&[NotifyState::MainPid(pid)]).await;
        self.is_main.store(false, Ordering::Relaxed);
    }

    /// All is bound and has been looked at.
    pub(super) async fn is_ready(&self, shared: &Shared, fronts: &Fronts) {
        let line = Line::of(shared, &fronts.now()).to_string();
        self.is_up.store(true, Ordering::Relaxed);
        self.tell(&[NotifyState::Ready, NotifyState::Status(&line)]).await;
    }

    /// Reloads. That it comes to its end, well or not, is what systemd waits for. Before we were ready, and once we stop, it
    /// hears nothing of that: it would take the end of a reload for a word that we are ready.
    pub(super) async fn while_reloading<Reload: Future>(&self, reload: Reload) -> Reload::Output {
        if !self.is_up.load(Ordering::Relaxed) {
            return reload.await;
        }
        // systemd compares the time with that of its own signal.
        let now = NotifyState::monotonic_usec_now();
        let states: Vec<_> = [Ok(NotifyState::Reloading), now].into_iter().flatten().collect();
        self.tell(&states).await;
        let reloaded = reload.await;
        if self.is_up.load(Ordering::Relaxed) {
            self.tell(&[NotifyState::Ready]).await;
        }
        reloaded
    }

    /// The end has begun.
    pub(super) async fn is_stopping(&self) {
        self.is_up.store(false, Ordering::Relaxed);
        self.tell(&[NotifyState::Stopping, patience()]).await;
    }

    /// Keeps it told for as long as it is polled. Cancel safe.
    pub(super) async fn keep_told(self, shared: Arc<Shared>, fronts: Arc<Fronts>, roll: RollCall) {
        if self.socket.is_none() {
            return;
        }
        tokio::join!(self.show(&shared, &fronts), self.live(&roll));
    }

    async fn show(&self, shared: &Shared, fronts: &Fronts) {
        let mut shown: Option<(Line, Instant)> = None;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let line = Line::of(shared, &fronts.now());
            let is_due = shown.as_ref().is_none_or(|(before, at)| {
                before.words != line.words || (before.figures != line.figures && FIGURES <= at.elapsed())
            });
            let text = line.to_string();
            let mut states = Vec::new();
            if is_due {
                states.push(NotifyState::Status(&text));
            }
            if shared.is_draining() {
                states.push(patience());
            }
            if !states.is_empty() {
                self.tell(&states).await;
            }
            if is_due {
                shown = Some((line, Instant::now()));
            }
        }
    }

    /// Gives signs of life, from the thread that this runs on, and only while all others answer. Twice as often as is asked
    /// for, so that one that comes late, on a busy machine, is not the last one.
    async fn live(&self, roll: &RollCall) {
        let Some(limit) = self.watchdog else { return };
        let mut tick = interval(limit / 4);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_hung = false;
        loop {
            tick.tick().await;
            let silent = roll.call();
            let hung = silent.iter().find(|silent| limit / 2 <= silent.since);
            if let Some(silent) = hung
                && !is_hung
            {
                let silent_s = silent.since.as_secs_f64();
                let hint = "systemd will restart pgsplit: please report this";
                error!(thread = silent.name, silent_s, hint, "thread_hangs");
            } else if hung.is_none() && is_hung {
                info!("all_threads_answer");
            }
            is_hung = hung.is_some();
            if !is_hung {
                self.tell(&[NotifyState::Watchdog]).await;
            }
        }
    }

    async fn tell(&self, states: &[NotifyState<'_>]) {
        if let Some(socket) = &self.socket
            && self.is_main.load(Ordering::Relaxed)
        {
            socket.tell(states).await;
        }
    }
}

fn patience() -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(PATIENCE.as_micros()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
