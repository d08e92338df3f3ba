//! The way out for sessions that go on in another process, a few at a time: a session is passed on until its turn has come,
//! and again if the other process does not take it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::session::account::Account;
use crate::session::moved::Moved;
use crate::session::relay::Relay;
use crate::session::relay::parts::Parts;

/// Sessions on their way at a time: each has two descriptors more for so long.
const AT_A_TIME: usize = 24;

/// The way out, as long as there is one.
#[derive(Debug)]
pub struct Departure {
    turns: Arc<Semaphore>,
    leaving: mpsc::UnboundedSender<Leaving>,
    staying: Arc<AtomicU32>,
}

/// A session that is to go on elsewhere.
#[derive(Debug)]
pub struct Leaving {
    /// All of it.
    pub session: Moved,
    /// Whether it does, and is to be touched here no more. Dropped: it does not.
    pub answer: oneshot::Sender<bool>,
}

/// A session's turn to leave.
#[derive(Debug)]
pub struct Turn {
    departure: Arc<Departure>,
    _permit: OwnedSemaphorePermit,
}

/// The session was not taken; it is counted for as long as this lives.
#[derive(Debug)]
pub struct Stays(Arc<AtomicU32>);

impl Departure {
    /// A way out, and where those arrive who take it.
    #[must_use]
    pub fn open() -> (Arc<Self>, mpsc::UnboundedReceiver<Leaving>) {
        // Bounded by the turns.
        let (leaving, left) = mpsc::unbounded_channel();
        let turns = Arc::new(Semaphore::new(AT_A_TIME));
        (Arc::new(Self { turns, leaving, staying: Arc::default() }), left)
    }

    /// Sessions that have asked and were not taken, and go on here.
    #[must_use]
    pub fn staying(&self) -> u32 {
        self.staying.load(Ordering::Relaxed)
    }

    /// Nobody gets a turn any more.
    pub fn close(&self) {
        self.turns.close();
    }
}

impl Turn {
    /// Leaves. Not cancel safe: the session may have been taken.
    ///
    /// # Errors
    /// It was not taken, and goes on here.
    pub async fn take(self, relay: &mut Relay, account: &Account<'_>) -> Result<(), Stays> {
        let Self { departure, _permit } = self;
        let is_taken = async {
            let Parts { stand, kept, sockets } = relay.parts().ok()?;
            let session = Moved { record: account.record(stand)?, kept, sockets };
            let (answer, taken) = oneshot::channel();
            departure.leaving.send(Leaving { session, answer }).ok()?;
            taken.await.ok()
        };
        if is_taken.await == Some(true) {
            return Ok(());
        }
        departure.staying.fetch_add(1, Ordering::Relaxed);
        Err(Stays(Arc::clone(&departure.staying)))
    }
}

impl Drop for Stays {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How far a session has come on its way out. Small: every session has one.
#[derive(Default)]
pub(super) enum Way {
    /// It has not asked.
    #[default]
    Here,
    /// It waits for its turn.
    Waits(Pin<Box<dyn Future<Output = Option<Turn>> + Send>>),
    /// It has asked, and stays.
    Stays(#[expect(dead_code, reason = "a guard")] Stays),
}

impl Way {
    /// Ready when it is the session's turn; `None`: the way is closed, or there is none.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, departure: Option<Arc<Departure>>) -> Poll<Option<Turn>> {
        if let (Self::Here, Some(departure)) = (&self, departure) {
            let turns = Arc::clone(&departure.turns);
            *self = Self::Waits(Box::pin(async move {
                let permit = turns.acquire_owned().await.ok()?;
                Some(Turn { departure, _permit: permit })
            }));
        }
        let Self::Waits(turn) = self else { return Poll::Ready(None) };
        let turn = ready!(turn.as_mut().poll(cx));
        *self = Self::Here;
        Poll::Ready(turn)
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here => "Here",
            Self::Waits(_) => "Waits",
            Self::Stays(_) => "Stays",
        })
    }
}
