//! Sessions on their way out of the old process, a few at a time; the others go on meanwhile.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::debug;

use super::by_hand::ByHand;
use super::old::STOPPING;
use super::{Ear, Heard, Mouth, ToNew, ToOld, shown};
use crate::base::id::SessionId;
use crate::session::card::{Card, State};
use crate::session::departure::Leaving;
use crate::session::moved::Moved;
use crate::session::shared::Shared;

/// Sessions on their way at a time: each has two descriptors more for so long.
const AT_A_TIME: usize = 24;
/// How long the new process may take to say what becomes of a session, and a session to stand still.
const ANSWER: Duration = Duration::from_secs(5);
/// How often it is looked who is there, while all are to go, and when the rest follows.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_LATER: Duration = Duration::from_millis(200);
const GONE: &str = "the new process is gone";
const SILENT: &str = "the new process does not answer";

/// Sessions on their way.
pub(super) struct Removal<'a> {
    shared: &'a Shared,
    mouth: Mouth,
    ear: Ear,
    leaving: mpsc::UnboundedReceiver<Leaving>,
    /// Those that are to be asked yet.
    line: VecDeque<Arc<Card>>,
    /// Those that have been.
    asked: HashMap<SessionId, Asked>,
    stay: HashSet<SessionId>,
    /// Those that have gone, and whose tasks may not have ended.
    ending: HashSet<SessionId>,
    moved: u64,
}

/// A session that has been asked to move.
struct Asked {
    card: Arc<Card>,
    since: Instant,
    /// What the new process is to say of it, once it has been told.
    underway: Option<Underway>,
}

/// A session that the new process has, and may not touch yet.
struct Underway {
    since: Instant,
    /// Dropped: the session goes on here.
    answer: oneshot::Sender<bool>,
}

impl<'a> Removal<'a> {
    /// Opens the way out. Dropped, it is closed, and who has not gone stays.
    pub(super) fn begin(shared: &'a Shared, mouth: Mouth, ear: Ear) -> Self {
        // Bounded by how many are asked at a time.
        let (departure, leaving) = mpsc::unbounded_channel();
        shared.departure.store(Some(Arc::new(departure)));
        let (line, asked) = (VecDeque::new(), HashMap::new());
        let (stay, ending) = (HashSet::new(), HashSet::new());
        Self { shared, mouth, ear, leaving, line, asked, stay, ending, moved: 0 }
    }

    /// Sessions that have gone.
    pub(super) const fn moved(&self) -> u64 {
        self.moved
    }

    /// Sessions that were not taken, and have not ended.
    pub(super) fn stayed(&self) -> usize {
        self.stay.len()
    }

    /// Lets the new process accept, in which all is set by hand as it is here, and waits until it says so. Not cancel safe.
    ///
    /// # Errors
    /// In words: it does not answer, or is gone, and nobody has been accepted there.
    pub(super) async fn open(&mut self, numbers_above: u64) -> Result<(), String> {
        self.say(&ToNew::Begin { numbers_above, by_hand: ByHand::of(self.shared) }).await?;
        match timeout(ANSWER, self.ear.hear()).await {
            Ok(Ok(Some(Heard { what: ToOld::Begun, .. }))) => Ok(()),
            Ok(Ok(Some(_))) => Err("the new process is not understood".to_owned()),
            Ok(Ok(None)) => Err(GONE.to_owned()),
            Ok(Err(error)) => Err(not_understood(&error)),
            Err(_) => Err(SILENT.to_owned()),
        }
    }

    /// Says something else to the new process. Not cancel safe.
    ///
    /// # Errors
    /// It is gone.
    pub(super) async fn say(&mut self, what: &ToNew) -> Result<(), String> {
        said(timeout(ANSWER, self.mouth.say(what)).await)
    }

    /// Moves all that are in use and can go. Not cancel safe.
    ///
    /// # Errors
    /// In words: the new process does not answer, or is gone; or this one is to stop, before or after the last of them.
    pub(super) async fn all(&mut self) -> Result<(), String> {
        let shared = self.shared;
        let are_gone =
            |removal: &Self| removal.line.is_empty() && removal.asked.is_empty() && removal.ending.is_empty();
        self.run(LOOK, |removal| shared.is_draining() || are_gone(removal)).await?;
        if shared.is_draining() { Err(STOPPING.to_owned()) } else { Ok(()) }
    }

    /// Moves who gets a node yet, until `is_over`. Not cancel safe.
    ///
    /// # Errors
    /// In words: the new process does not answer, or is gone.
    pub(super) async fn late(&mut self, is_over: impl Fn() -> bool) -> Result<(), String> {
        self.run(LOOK_LATER, |_| is_over()).await
    }

    async fn run(&mut self, pace: Duration, is_over: impl Fn(&Self) -> bool) -> Result<(), String> {
        let mut look = interval(pace);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return Ok(()),
                heard = self.ear.hear() => match heard {
                    Ok(Some(Heard { what, .. })) => self.heed(what).await?,
                    Ok(None) => return Err(GONE.to_owned()),
                    Err(error) => return Err(not_understood(&error)),
                },
                Some(leaving) = self.leaving.recv() => self.send(leaving).await?,
                _ = look.tick() => {
                    self.look()?;
                    if is_over(self) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Looks who is there, and who of those that have been asked has ended or stays.
    fn look(&mut self) -> Result<(), String> {
        let all = self.shared.roster.all();
        let here: HashSet<_> = all.iter().map(|card| card.id).collect();
        self.stay.retain(|id| here.contains(id));
        self.ending.retain(|id| here.contains(id));
        let stay = &mut self.stay;
        self.asked.retain(|id, asked| {
            let is_late = asked.underway.is_none() && ANSWER < asked.since.elapsed();
            let is_asked = asked.underway.is_some() || (asked.card.is_to_move() && !is_late);
            if here.contains(id) && !is_asked {
                stay.insert(*id);
            }
            here.contains(id) && is_asked
        });
        let underway = self.asked.values().filter_map(|asked| asked.underway.as_ref());
        if underway.into_iter().any(|underway| ANSWER < underway.since.elapsed()) {
            return Err(SILENT.to_owned());
        }
        let is_new = |card: &Arc<Card>| {
            card.state() == State::Active
                && !card.is_to_move()
                && !self.stay.contains(&card.id)
                && !self.asked.contains_key(&card.id)
        };
        self.line = all.into_iter().filter(is_new).collect();
        self.ask();
        Ok(())
    }

    /// Asks as many as may be on their way.
    fn ask(&mut self) {
        while self.asked.len() < AT_A_TIME
            && let Some(card) = self.line.pop_front()
        {
            card.ask_to_move();
            self.asked.insert(card.id, Asked { card, since: Instant::now(), underway: None });
        }
    }

    async fn send(&mut self, Leaving { id, session, answer }: Leaving) -> Result<(), String> {
        if self.stay.contains(&id) {
            // It comes so late that it was counted among those who stay; there is still time.
            let card = self.shared.roster.all().into_iter().find(|card| card.id == id);
            let Some(card) = card else { return Ok(()) };
            self.stay.remove(&id);
            self.asked.insert(id, Asked { card, since: Instant::now(), underway: None });
        }
        // It was asked, or it would not be here.
        let Some(asked) = self.asked.get_mut(&id) else { return Ok(()) };
        asked.underway = Some(Underway { since: Instant::now(), answer });
        let Moved { record, kept: [for_node, for_client], sockets } = session;
        let descriptors = sockets.each_ref().map(AsFd::as_fd);
        let (session, kept) = (ToNew::Session(Box::new(record)), [&for_node[..], &for_client[..]]);
        said(timeout(ANSWER, self.mouth.give(&session, &kept, &descriptors)).await)
    }

    async fn heed(&mut self, what: ToOld) -> Result<(), String> {
        match what {
            ToOld::Taken(number) => {
                if let Some(underway) = self.take(number) {
                    // If that cannot be said it stays here: the new process has not touched it.
                    said(timeout(ANSWER, self.mouth.say(&ToNew::Yours(number))).await)?;
                    let _ = underway.answer.send(true);
                    self.ending.insert(SessionId::from_number(number));
                    self.moved += 1;
                }
            }
            ToOld::NotTaken(number, why) => {
                let id = SessionId::from_number(number);
                debug!(id = id.to_string(), why = shown(&why), "session_not_taken");
                if let Some(underway) = self.take(number) {
                    self.stay.insert(id);
                    let _ = underway.answer.send(false);
                }
            }
            ToOld::ByHand(by_hand) => by_hand.apply(self.shared).await,
            ToOld::Hello { .. } | ToOld::Refused { .. } | ToOld::Ready | ToOld::Begun => {
                return Err("the new process is not understood".to_owned());
            }
        }
        self.ask();
        Ok(())
    }

    /// A session that the new process has said something of.
    fn take(&mut self, number: u64) -> Option<Underway> {
        let id = SessionId::from_number(number);
        let underway = self.asked.get_mut(&id)?.underway.take()?;
        self.asked.remove(&id);
        Some(underway)
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        self.shared.departure.store(None);
    }
}

/// What has become of saying something.
fn said(said: Result<io::Result<()>, tokio::time::error::Elapsed>) -> Result<(), String> {
    match said {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{GONE}: {error}")),
        Err(_) => Err(SILENT.to_owned()),
    }
}

fn not_understood(error: &io::Error) -> String {
    format!("the new process is not understood: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::upgrade::heir::tests::prepared;

    #[tokio::test]
    async fn who_does_not_stand_still_in_time_stays() {
        let (app, _new, (mouth, ear)) = prepared().await;
        let listener = Arc::clone(&app.shared.setup().listener("rw").unwrap().config);
        let client = "127.0.0.1:1".parse().unwrap();
        let id = SessionId::from_number(7);
        let card = Card::new(id, &listener, client, Instant::now(), std::task::Waker::noop().clone());
        card.set_state(State::Active);
        let _listed = app.shared.roster.enter(0, card).unwrap();
        let mut removal = Removal::begin(&app.shared, mouth, ear);
        removal.look().unwrap();
        removal.look().unwrap();
        assert_eq!((removal.asked.len(), removal.stayed()), (1, 0));
        tokio::time::pause();
        tokio::time::advance(ANSWER + LOOK).await;
        removal.look().unwrap();
        assert_eq!((removal.asked.len(), removal.line.len(), removal.stayed()), (0, 0, 1));
    }
}
