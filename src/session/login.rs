//! The login, passed through as it comes and read along: whose session it is, what the node is, and the key that
//! cancels its queries.

use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use crate::balance::valve::Pass;
use crate::pg::message::{Scanner, Seen};
use crate::session::account::Account;
use crate::session::error::Ending;
use crate::session::relay::Relay;
use crate::session::shared::{Listener, Shared};
use crate::telemetry::labels::StartupError;
use crate::topology::Node;
use crate::topology::outcome::Met;

/// `AuthenticationOk`, after which the server sets up the session.
const AUTHENTICATED: u32 = 0;
/// `AuthenticationSASLFinal`, which the former follows at once.
const SASL_FINAL: u32 = 12;
/// A login holds others up for no longer than this, whoever is slow in it.
const LONGEST_PASS: Duration = Duration::from_secs(1);

/// Relays until the node is ready for queries; `None`: it is, or, where the session cannot be read, it has said enough. The
/// client's key is known here before the client knows it. `pass` lets the next one log in when this login is over, or takes
/// long.
///
/// Not cancel safe.
pub async fn log_in(
    shared: &Shared,
    listener: &Listener,
    relay: &mut Relay,
    account: &mut Account<'_>,
    pass: Option<Pass>,
) -> Option<Ending> {
    let mut login = pin!(follow(shared, listener, relay, account, pass.as_ref()));
    let ended_early = if let Ok(ended_early) = timeout(LONGEST_PASS, login.as_mut()).await {
        ended_early
    } else {
        pass.as_ref().map(Pass::give_back);
        login.await
    };
    if let (None, Some(pass)) = (ended_early, &pass) {
        pass.succeed();
    }
    ended_early
}

async fn follow(
    shared: &Shared,
    listener: &Listener,
    relay: &mut Relay,
    account: &mut Account<'_>,
    pass: Option<&Pass>,
) -> Option<Ending> {
    if !account.is_readable() {
        // The node's part of the handshake, and its first answer after it: what costs it most is done then.
        let mut answers = 0;
        let see = |_: &[u8]| {
            answers += 1;
            if answers < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        return relay.run_until(see).await;
    }
    let mut reader = Reader { shared, listener, account, pass, scanner: Scanner::default() };
    if reader.read(relay.for_client()).is_break() {
        return None;
    }
    relay.run_until(|bytes| reader.read(bytes)).await
}

struct Reader<'r, 'a> {
    shared: &'r Shared,
    listener: &'r Listener,
    account: &'r mut Account<'a>,
    pass: Option<&'r Pass>,
    scanner: Scanner,
}

impl Reader<'_, '_> {
    /// Reads along; breaks when there is nothing more to learn.
    fn read(&mut self, bytes: &[u8]) -> ControlFlow<()> {
        let Self { shared, listener, account, pass, .. } = self;
        let mut ready = false;
        let scanned = self.scanner.scan(bytes, |seen| {
            match seen {
                Seen::CancelKey(key) => {
                    if let Some(addr) = account.node_addr() {
                        account.hold_key(shared.cancels.insert(key, addr));
                    }
                }
                Seen::Parameter(b"in_hot_standby", value) => tell_role(listener, account, value == b"on"),
                Seen::Parameter(b"application_name", name) => account.set_application_name(name),
                Seen::Error(fields) => {
                    let code = fields.code.unwrap_or_default();
                    account.set_sqlstate(code);
                    if let Some(id) = account.node_id() {
                        let metrics = shared.metrics.node(listener.watched.index, id);
                        metrics.startup_error(StartupError::from_sqlstate(code));
                        if fields.says_full(true) {
                            listener
                                .watched
                                .outcomes
                                .tell(id, Met::Full("remaining slots are reserved".into()));
                        }
                    }
                }
                Seen::Ready => {
                    account.set_logged_in();
                    ready = true;
                    return ControlFlow::Break(());
                }
                // It is the client's turn, and it may take as long as it likes.
                Seen::Authentication { method } if !matches!(method, AUTHENTICATED | SASL_FINAL) => {
                    pass.map(Pass::rest);
                }
                Seen::Authentication { .. } => pass.map(Pass::go_on).unwrap_or_default(),
                Seen::Parameter(..) | Seen::Other(_) => {}
            }
            ControlFlow::Continue(())
        });
        // A stream that cannot be read is still passed on.
        if ready || scanned.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Tells the keeper what the node is, when that is news.
fn tell_role(listener: &Listener, account: &Account<'_>, in_recovery: bool) {
    let Some(id) = account.node_id() else { return };
    let role = crate::base::role::Role::from_in_recovery(in_recovery);
    let known = listener.watched.current.borrow().node(id).and_then(Node::role);
    if known != Some(role) {
        listener.watched.outcomes.tell(id, Met::Role { in_recovery });
    }
}
