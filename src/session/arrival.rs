//! Sessions that arrive from another process, and go on here.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Poll, Waker};

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Session, pass_on};
use crate::balance::load::Place;
use crate::base::id::{NodeId, SessionId};
use crate::config;
use crate::net::worker::Served;
use crate::session::account::Account;
use crate::session::admit::admit_moved;
use crate::session::card::{self, Card, Said, State};
use crate::session::desk::Desk;
use crate::session::evict::Stay;
use crate::session::moved::{Moved, Record};
use crate::session::relay::Relay;
use crate::session::shared::{Listener, Shared};
use crate::topology::Node;
use crate::topology::trouble::Troubles;

/// What a session that arrives goes on with.
#[derive(Debug)]
pub struct Berth {
    listener: Arc<Listener>,
    id: NodeId,
    config: Arc<config::Node>,
    place: Place,
    troubles: Troubles,
}

impl Berth {
    /// The listener and the node of the session with this record, as they are called here.
    ///
    /// # Errors
    /// In words: there is none.
    pub fn find(shared: &Shared, record: &Record) -> Result<Self, &'static str> {
        let setup = shared.setup();
        let listener =
            setup.listener(&record.listener).ok_or("there is no listener of that name any more")?;
        let topology = Arc::clone(&listener.watched.current.borrow());
        let addr = record.node.addr;
        let is_there = |node: &&Node| node.only_at.map_or(node.addrs.contains(&addr), |only| only == addr);
        let is_named = |node: &&Node| node.config.name == record.node.name;
        let nodes = || topology.nodes.iter().filter(is_there);
        let node = nodes().find(is_named).or_else(|| nodes().next());
        let gone = "there is no node on its address any more";
        let node = node.ok_or(gone)?;
        Ok(Self {
            listener: Arc::clone(listener),
            id: node.id,
            config: Arc::clone(&node.config),
            place: node.load.enter(None).ok_or(gone)?,
            troubles: Arc::clone(&node.troubles),
        })
    }
}

/// How the two processes agree on who has the session.
#[derive(Debug)]
pub struct Agreement {
    /// How the two call it.
    pub number: u64,
    /// All is there to go on with it; or why not.
    pub ready: mpsc::UnboundedSender<(u64, io::Result<()>)>,
    /// It is ours from now on. Dropped: the other one keeps it.
    pub ours: oneshot::Receiver<()>,
}

/// Serves a session from where it stood, to its end, once it is ours. Until then nothing is read or written.
pub async fn take_up(
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    arriving: Box<(Berth, Moved)>,
    agreement: Agreement,
    served: Served,
) {
    let task = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let listener = Arc::clone(&arriving.0.listener);
    let card = card_of(&arriving, &desk, task);
    let Some(card) = shared.roster.enter(desk.index, card) else { return };
    let (mut session, account) = match settle((&shared, &listener, &desk, &card), *arriving, served) {
        Ok(settled) => settled,
        Err(error) => {
            let _ = agreement.ready.send((agreement.number, Err(error)));
            return;
        }
    };
    if !agreement.becomes_ours().await {
        return account.forget();
    }
    listener.metrics.accept();
    let ending = match pass_on(&shared, &mut session, &account).await {
        Ok(ending) => Ok(ending),
        Err(why) => session.part(why).await,
    };
    account.close(ending);
}

impl Agreement {
    /// Says that all is there, and waits to hear whose it is.
    async fn becomes_ours(self) -> bool {
        let Self { number, ready, ours } = self;
        ready.send((number, Ok(()))).is_ok() && ours.await.is_ok()
    }
}

/// The session and its account, with all that they count in. Apart, so that the future of the session has no room for what it
/// was made of.
///
/// # Errors
/// What the system said.
fn settle<'a>(
    (shared, listener, desk, card): (&'a Shared, &'a Arc<Listener>, &'a Desk, &'a Card),
    (berth, moved): (Berth, Moved),
    served: Served,
) -> io::Result<(Session<'a>, Account<'a>)> {
    let Berth { id, config, place, troubles, .. } = berth;
    let (record, parts) = moved.into_parts();
    let (account, active, traffic) = Account::taken_up(shared, listener, desk, (card, &record), id);
    let relay = match Relay::from_parts(parts, &card.moved, traffic, desk.scratch()) {
        Ok(relay) => relay,
        Err(error) => {
            account.forget();
            return Err(error);
        }
    };
    let permit = admit_moved(shared, listener);
    let guards = (permit, place, active, shared.descriptors.for_moved(), served);
    let stay = Stay::new(shared, Arc::clone(listener), card, &troubles);
    Ok((Session { relay, stay, pass: None, node: config, _guards: guards }, account))
}

fn card_of((berth, moved): &(Berth, Moved), desk: &Desk, task: Waker) -> Card {
    let (record, now) = (&moved.record, Instant::now());
    let accepted = now.checked_sub(record.age).unwrap_or(now);
    let id = SessionId::from_number(record.id);
    let names = record.names.clone().map(|names| desk.names.share(names));
    let config = Arc::clone(&berth.config);
    let node = card::OnNode { config, addr: record.node.addr, role: record.node.role };
    let card = Card::new(id, &berth.listener.config, record.client, accepted, task);
    card.take_up(Said { names, tls: record.tls, node: Some(node) }, record.bytes);
    card.set_state(State::Active);
    card
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It lives as long as the session.
    #[test]
    fn what_a_session_keeps_that_has_arrived_is_small() {
        type Taken<F> = fn(Arc<Shared>, Arc<Desk>, Box<(Berth, Moved)>, Agreement, Served) -> F;
        fn of<F>(_: Taken<F>) -> usize {
            size_of::<F>()
        }
        let future = of(take_up);
        assert!(future <= 1024, "{future}");
    }
}
