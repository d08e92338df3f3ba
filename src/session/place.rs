//! A node for a session, and a place on it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};

use crate::balance::load::Place;
use crate::balance::pick::Candidate;
use crate::balance::valve::Pass;
use crate::base::id::NodeId;
use crate::base::role::Role;
use crate::config::{self, Balance};
use crate::session::shared::Listener;
use crate::topology::choose::fitting;
use crate::topology::trouble::Troubles;
use crate::topology::{Node, Topology};

/// A node chosen for a session, as it was seen at that moment.
#[derive(Debug)]
pub struct Choice {
    /// Which node.
    pub id: NodeId,
    /// What the file says of it.
    pub config: Arc<config::Node>,
    /// Where it is.
    pub addrs: Arc<[SocketAddr]>,
    /// Its role, as far as known.
    pub role: Option<Role>,
    /// The session's place on it.
    pub place: Place,
    /// Its right to log in now.
    pub pass: Pass,
    /// What is the matter with it.
    pub troubles: Troubles,
}

/// What there is for a session now.
#[derive(Debug)]
pub enum Chosen {
    /// A node.
    Node(Choice),
    /// Nodes that fit, but as many sessions log in to each of them as it is trusted with: one will end in a moment.
    Soon,
    /// No node fits.
    Nothing,
}

/// Chooses among the nodes that fit, by the listener's balance, leaving out those in `tried`.
pub fn choose(listener: &Listener, source: IpAddr, tried: &[NodeId]) -> Chosen {
    let topology = Arc::clone(&listener.watched.current.borrow());
    let mut passed_over = tried.to_vec();
    loop {
        let allowed = |node: &Node| !passed_over.contains(&node.id) && node.has_room();
        let nodes = fitting(&topology, listener.config.target, allowed);
        if nodes.is_empty() {
            return Chosen::Nothing;
        }
        // A kind is not left because all of it are busy with logins: a storm must not drive reads to the primary. Nor is a
        // node that is meant for this client, or the first.
        let is_meant = matches!(listener.config.balance, Balance::Source | Balance::First);
        let candidate = |node: &&Node| Candidate {
            index: node.id.place,
            weight: node.weight,
            load: node.load.sessions(),
        };
        let candidates: Vec<_> =
            nodes.iter().filter(|node| is_meant || node.valve.is_open()).map(candidate).collect();
        let picked = {
            let mut picker = listener.picker.lock().unwrap_or_else(PoisonError::into_inner);
            picker.make_room(candidates.iter().map(|candidate| candidate.index + 1).max().unwrap_or(0));
            picker.pick(&candidates, source)
        };
        let found = picked.and_then(|picked| nodes.into_iter().find(|node| node.id.place == picked.index));
        let Some(node) = found else { return Chosen::Soon };
        // First what gives nothing back when it is not to be had: giving back wakes those who wait, this session too.
        let Some(pass) = node.valve.pass() else {
            if is_meant {
                return Chosen::Soon;
            }
            continue;
        };
        let id = node.id;
        let Some(place) = node.load.enter(node.config.max_connections) else {
            // Somebody else took the last place in between.
            passed_over.push(id);
            continue;
        };
        let (config, addrs, troubles) =
            (Arc::clone(&node.config), Arc::clone(&node.addrs), node.troubles.clone());
        return Chosen::Node(Choice { id, config, addrs, role: node.role(), place, pass, troubles });
    }
}

/// Whether a session would find a node now, other than those in `tried`.
#[must_use]
pub fn is_there_another(listener: &Listener, tried: &[NodeId]) -> bool {
    let topology = listener.watched.current.borrow();
    let allowed = |node: &Node| !tried.contains(&node.id) && node.has_room();
    topology.nodes.iter().any(allowed) && !fitting(&topology, listener.config.target, allowed).is_empty()
}

/// Whether a node that a session is on its way to has got worse, so that the session would now be given another one, other
/// than those in `tried`.
#[must_use]
pub fn is_outclassed(topology: &Topology, listener: &Listener, id: NodeId, tried: &[NodeId]) -> bool {
    let is_well = |node: &Node| node.is_sound() && node.is_in_service() && !node.is_superseded;
    // The usual case, for every session: asked without looking at all nodes.
    if topology.node(id).is_some_and(is_well) && (!listener.is_for_primary() || topology.primary == Some(id))
    {
        return false;
    }
    let allowed = |node: &Node| node.id == id || (!tried.contains(&node.id) && node.has_room());
    let nodes = fitting(topology, listener.config.target, allowed);
    !nodes.is_empty() && nodes.iter().all(|node| node.id != id)
}
