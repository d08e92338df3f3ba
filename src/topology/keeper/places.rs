//! The places of a cluster's list: who has each, and who comes and goes as the file and the addresses of a name do.
//!
//! Each node of the file has a place. Where every address of a name is a node of its own, a further address takes a place
//! that another one of the same name has left, or a new one; so there are never more places than there were addresses at
//! one time, and as many series of metrics. The place of a node that has been taken out of the file waits for one of the
//! same name.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Notify;
use tracing::info;

use crate::base::id::NodeId;
use crate::base::role::Role;
use crate::config;
use crate::telemetry::metrics::Metrics;
use crate::topology::keeper::record::Record;
use crate::topology::trouble::{Trouble, Troubles};
use crate::topology::{Departed, Node, Topology};

/// All places of one cluster.
pub(super) struct Places {
    cluster: Arc<config::Cluster>,
    /// The cluster's place among all, for metrics.
    index: usize,
    metrics: Arc<Metrics>,
    freed: Arc<Notify>,
    all: Vec<Place>,
    departed: Vec<Leaver>,
}

/// A node that has departed, and where its sessions are told what is the matter with it.
struct Leaver {
    node: Departed,
    troubles: Troubles,
    why: Why,
}

/// Why a node is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Its name does not lead to its address any more.
    Left,
    /// The file does not have it any more; whether those who write had to leave it before that.
    Removed { was_demoted: bool },
}

struct Place {
    /// The name of the node of the file that it belongs to.
    of: String,
    /// Which address of that name it is for, 1 first.
    number: usize,
    /// What the file says of that node, or last said, with the name of this place.
    config: Arc<config::Node>,
    /// How many have had it before the one that has it, or had it last.
    life: u32,
    record: Option<Record>,
}

impl Places {
    /// One place for each node of the file, and in it a node of which nothing is known.
    pub(super) fn new(
        cluster: &Arc<config::Cluster>,
        index: usize,
        metrics: &Arc<Metrics>,
        freed: &Arc<Notify>,
    ) -> Self {
        let place = |node: Node| Place {
            of: node.config.name.clone(),
            number: 1,
            config: Arc::clone(&node.config),
            life: node.id.life,
            record: Some(Record::new(node, &cluster.check, index, metrics)),
        };
        Self {
            all: Topology::starting(cluster, freed).nodes.into_iter().map(place).collect(),
            departed: Vec::new(),
            cluster: Arc::clone(cluster),
            index,
            metrics: Arc::clone(metrics),
            freed: Arc::clone(freed),
        }
    }

    /// What is known of the node, if it is still there.
    pub(super) fn get(&self, id: NodeId) -> Option<&Record> {
        self.all.get(id.place)?.record.as_ref().filter(|record| record.node.id == id)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Record> {
        self.all.get_mut(id.place)?.record.as_mut().filter(|record| record.node.id == id)
    }

    /// All nodes that are there.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.all.iter().filter_map(|place| place.record.as_ref())
    }

    /// The node of this name.
    pub(super) fn named(&self, name: &str) -> Option<NodeId> {
        self.records().map(|record| &record.node).find(|node| node.config.name == name).map(|node| node.id)
    }

    /// The node that stands for a name of which no address is known yet.
    pub(super) fn unsettled(&self, of: &str) -> Option<NodeId> {
        let mut records = self.all.iter().filter(|place| place.of == of).filter_map(Place::record);
        records.find(|record| record.node.only_at.is_none()).map(|record| record.node.id)
    }

    /// Those whom nobody looks at and somebody should: not those who rest, nor those who stand for a name that is followed.
    pub(super) fn unwatched(&self, is_followed: impl Fn(&str) -> bool) -> Vec<NodeId> {
        let is_settled = |place: &Place, node: &Node| node.only_at.is_some() || !is_followed(&place.of);
        let unwatched = self.all.iter().filter_map(|place| {
            let record = place.record().filter(|record| record.watched.is_none())?;
            (is_settled(place, &record.node) && !record.node.rests()).then_some(record.node.id)
        });
        unwatched.collect()
    }

    /// Forgets departed nodes whose last session has ended. Not to be called together with [`Places::settle`]: a session
    /// may be about to take its place on a node that has just left.
    pub(super) fn forget_ended(&mut self) {
        self.departed.retain(|departed| 0 < departed.node.load.sessions());
    }

    /// Whether there are any of those.
    pub(super) fn has_departed(&self) -> bool {
        !self.departed.is_empty()
    }

    /// Lets the addresses of a node's name be its nodes from now on: those that are no longer among them leave, those
    /// that are new join.
    pub(super) fn settle(&mut self, of: &str, addrs: &[SocketAddr]) {
        let mut fresh = addrs.to_vec();
        let mut wanted = None;
        for place in self.all.iter_mut().filter(|place| place.of == of) {
            let Some(record) = &mut place.record else { continue };
            let was_found = record.node.only_at.is_some();
            // Until now it was all of the name, and what is known of it is known of the address that it led to.
            let known =
                record.node.only_at.or_else(|| record.node.addrs.iter().find(|a| addrs.contains(a)).copied());
            if let Some(addr) = known.filter(|addr| addrs.contains(addr)) {
                fresh.retain(|known| *known != addr);
                record.set_only_at(Some(addr));
                continue;
            }
            if !was_found {
                wanted = Some((record.node.admin, record.node.weight));
            }
            self.departed.extend(place.vacate(Why::Left));
        }
        let joined: Vec<_> = fresh.into_iter().filter_map(|addr| self.join(of, Some(addr))).collect();
        // What people want of a node that has not been found yet they want of the one that has its name then.
        let first = joined.first().and_then(|id| self.get_mut(*id));
        if let Some((first, (admin, weight))) = first.zip(wanted) {
            (first.node.admin, first.node.weight) = (admin, weight);
        }
    }

    /// Lets the nodes be those of `cluster` from now on, and `is_followed` say whose names are followed. Of a node that has
    /// the name and the address it had, all that is known stays known.
    pub(super) fn reconfigure(&mut self, cluster: &Arc<config::Cluster>, is_followed: impl Fn(&str) -> bool) {
        let before = std::mem::replace(&mut self.cluster, Arc::clone(cluster));
        let looks_differ = before.check != cluster.check;
        for place in &mut self.all {
            let Some(node) = cluster.nodes.iter().find(|node| node.name == place.of) else {
                self.departed.extend(place.vacate_removed());
                continue;
            };
            let has_moved = place.config.addr != node.addr;
            place.config = config_of(node, place.number);
            if has_moved {
                self.departed.extend(place.vacate_removed());
            }
            let is_one_of_several = place.record().is_some_and(|record| record.node.only_at.is_some());
            if is_one_of_several && !is_followed(&place.of) {
                // Its name leads there no longer than to any other of its addresses.
                if place.number == 1 {
                    place.record.iter_mut().for_each(|record| record.set_only_at(None));
                } else {
                    self.departed.extend(place.vacate(Why::Left));
                }
            }
            if let Some(record) = &mut place.record {
                record.reconfigure(&place.config, &cluster.check, looks_differ);
            }
        }
        for node in &cluster.nodes {
            let is_there = |place: &Place| place.of == node.name && place.record.is_some();
            if !self.all.iter().any(is_there) {
                self.join(&node.name, None);
            }
        }
    }

    /// A node of the file joins, or an address of its name.
    fn join(&mut self, of: &str, only_at: Option<SocketAddr>) -> Option<NodeId> {
        let free = self.all.iter().position(|place| place.of == of && place.record.is_none());
        let at = match free {
            Some(at) => at,
            None => self.add(of)?,
        };
        let place = self.all.get_mut(at)?;
        let id = NodeId { place: at, life: place.life };
        let mut node = Node::starting(id, &place.config, Arc::clone(&self.freed));
        let name = node.config.name.clone();
        if let Some(addr) = only_at {
            (node.only_at, node.addrs) = (only_at, Arc::new([addr]));
            info!(node = name, %addr, "node_found");
        } else {
            info!(node = name, addr = %node.config.addr, "node_added");
        }
        place.record = Some(Record::new(node, &self.cluster.check, self.index, &self.metrics));
        Some(id)
    }

    /// A new place for a node of the file, after its others.
    fn add(&mut self, of: &str) -> Option<usize> {
        let number = self.all.iter().filter(|place| place.of == of).count() + 1;
        let config = config_of(self.cluster.nodes.iter().find(|node| node.name == of)?, number);
        // Before anybody can be sent there: what is counted must have a place to be counted in.
        self.metrics.add_node(self.index, &config.name);
        self.all.push(Place { of: of.to_owned(), number, config, life: 0, record: None });
        Some(self.all.len() - 1)
    }

    /// The same, to be changed.
    pub(super) fn records_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.all.iter_mut().filter_map(|place| place.record.as_mut())
    }

    /// Tells the sessions of departed nodes what is the matter with those: they are no longer looked at, so nobody knows
    /// more than this.
    pub(super) fn tell_departed(&self, primary: Option<NodeId>) {
        for Leaver { node, troubles, why } in &self.departed {
            let trouble = match *why {
                Why::Left => {
                    let is_demoted = primary.is_some_and(|primary| primary != node.id);
                    Trouble { is_leaving: true, is_demoted, ..Trouble::default() }
                }
                Why::Removed { was_demoted } => {
                    Trouble { is_draining: true, is_demoted: was_demoted, ..Trouble::default() }
                }
            };
            troubles.post(trouble);
        }
    }

    /// What is to be published.
    pub(super) fn topology(&self, primary: Option<NodeId>) -> Topology {
        let in_file = |of: &str| self.cluster.nodes.iter().position(|node| node.name == of);
        let mut taken: Vec<(Option<usize>, &Record)> =
            self.all.iter().filter_map(|place| Some((in_file(&place.of), place.record()?))).collect();
        // Stable: a later place is not before an earlier one of the same name.
        taken.sort_by_key(|(at, _)| *at);
        let nodes = taken.into_iter().map(|(_, record)| record.node.clone()).collect();
        let departed = self.departed.iter().map(|departed| departed.node.clone()).collect();
        Topology { nodes, primary, departed }
    }
}

impl Place {
    fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    fn vacate_removed(&mut self) -> Option<Leaver> {
        let node = &self.record()?.node;
        let was_demoted = node.is_superseded || node.role() == Some(Role::Standby);
        self.vacate(Why::Removed { was_demoted })
    }

    /// Ends what is there. Its sessions go on.
    fn vacate(&mut self, why: Why) -> Option<Leaver> {
        let mut record = self.record.take()?;
        self.life += 1;
        record.leave();
        let Node { id, only_at, addrs, load, troubles, config, .. } = record.node;
        let addrs = only_at.map_or(addrs, |addr| [addr].into());
        let (node, sessions) = (config.name.as_str(), load.sessions());
        match (why, addrs.first()) {
            (Why::Left, Some(addr)) => info!(node, %addr, sessions, "node_gone"),
            // It stood for a name of which no address was known.
            (Why::Left, None) => return None,
            (Why::Removed { .. }, _) => info!(node, addr = %config.addr, sessions, "node_removed"),
        }
        Some(Leaver { node: Departed { id, addrs, load }, troubles, why })
    }
}

/// What the file says of a node, as the node of one of its addresses.
fn config_of(node: &Arc<config::Node>, number: usize) -> Arc<config::Node> {
    if number <= 1 {
        return Arc::clone(node);
    }
    let mut config = config::Node::clone(node);
    config.name = config.name_of_address(number);
    Arc::new(config)
}
