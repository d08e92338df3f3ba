//! Sessions that arrive from another process, and go on here.

use std::io;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{Session, pass_on};
use crate::balance::load::Place;
use crate::base::id::NodeId;
use crate::config;
use crate::net::worker::Served;
use crate::session::account::Account;
use crate::session::admit::admit_moved;
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
    pub fn find(shared: &Shared, record: &Record) -> Result<Self, String> {
        let setup = shared.setup();
        let listener = setup
            .listener(&record.listener)
            .ok_or_else(|| format!("there is no listener \"{}\" any more", record.listener))?;
        let topology = Arc::clone(&listener.watched.current.borrow());
        let addr = record.node.addr;
        let is_there = |node: &&Node| node.only_at.map_or(node.addrs.contains(&addr), |only| only == addr);
        let is_named = |node: &&Node| node.config.name == record.node.name;
        let nodes = || topology.nodes.iter().filter(is_there);
        let node = nodes().find(is_named).or_else(|| nodes().next());
        let gone = || format!("there is no node \"{}\" on {addr} any more", record.node.name);
        let node = node.ok_or_else(gone)?;
        Ok(Self {
            listener: Arc::clone(listener),
            id: node.id,
            config: Arc::clone(&node.config),
            place: node.load.enter(None).ok_or_else(gone)?,
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

/// Serves a session from where it stood, to its end, once it is ours. Until then nothing is read or written, or counted.
pub async fn take_up(
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    (berth, moved): (Berth, Moved),
    agreement: Agreement,
    served: Served,
) {
    let Berth { listener, id, config, place, troubles } = berth;
    let (record, parts) = moved.into_parts();
    let mut account = Account::taken_up(&shared, &listener, &desk, &record, (id, Arc::clone(&config)));
    let Some((active, traffic)) = account.seated() else { return account.forget() };
    let relay = match Relay::from_parts(parts, traffic, desk.scratch()) {
        Ok(relay) => relay,
        Err(error) => {
            let _ = agreement.ready.send((agreement.number, Err(error)));
            return account.forget();
        }
    };
    let permit = admit_moved(&shared, &listener);
    let guards = (permit, place, active, shared.descriptors.for_moved(), served);
    let stay = Stay::new(&shared, Arc::clone(&listener), &troubles);
    let mut session = Session { relay, stay, pass: None, node: config, _guards: guards };
    let Agreement { number, ready, ours } = agreement;
    let is_ours = ready.send((number, Ok(()))).is_ok() && ours.await.is_ok();
    drop(ready);
    if !is_ours {
        return account.forget();
    }
    listener.metrics.accept();
    drop(record);
    let ending = pass_on(&shared, &mut session, &account).await;
    let ending = session.end(ending, &mut account).await;
    account.close(ending);
}
