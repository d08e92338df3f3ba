//! The way out for a session that is to go on in another process: it stands still until that one has taken it, or not.

use tokio::sync::{mpsc, oneshot};

use crate::base::id::SessionId;
use crate::session::account::Account;
use crate::session::moved::Moved;
use crate::session::relay::Relay;
use crate::session::relay::parts::Parts;
use crate::session::shared::Shared;

/// The way out, as long as there is one.
pub type Departure = mpsc::UnboundedSender<Leaving>;

/// A session that is to go on elsewhere.
#[derive(Debug)]
pub struct Leaving {
    /// Its number.
    pub id: SessionId,
    /// All of it.
    pub session: Moved,
    /// Whether it does, and is to be touched here no more. Dropped: it does not.
    pub answer: oneshot::Sender<bool>,
}

/// Leaves; whether it was taken. If it was not, it goes on here, and is not asked to move any more.
///
/// Not cancel safe: the session may have been taken.
pub(super) async fn depart(shared: &Shared, relay: &mut Relay<'_>, account: &Account<'_>) -> bool {
    let taken = async {
        let departure = shared.departure.load_full()?;
        let Parts { stand, kept, sockets } = relay.parts().ok()?;
        let session = Moved { record: account.record(stand)?, kept, sockets };
        let (answer, taken) = oneshot::channel();
        departure.send(Leaving { id: account.card().id, session, answer }).ok()?;
        taken.await.ok()
    };
    let is_taken = taken.await == Some(true);
    if !is_taken {
        account.card().stay();
    }
    is_taken
}
