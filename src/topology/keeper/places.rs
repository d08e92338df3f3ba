//! The places of a cluster's list: who has each, and who comes and goes as the addresses of a name do.
//!
//! Each node of the file has a place from the start. Where every address of a name is a node of its own, a further
//! address takes a place that another one of the same name has left, or a new one; so there are never more places than
//! there were addresses at one time, and as many series of metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Notify;
use tracing::info;

use crate::base::id::NodeId;
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
}

struct Place {
    /// Which node of the file it belongs to.
    of: usize,
    /// What the file says of that, with the name of this place.
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
        let topology = Topology::starting(cluster, freed);
        let place = |(of, node): (usize, Node)| Place {
            of,
            config: Arc::clone(&node.config),
            life: node.id.life,
            record: Some(Record::new(node, &cluster.check, index, metrics)),
        };
        Self {
            all: topology.nodes.into_iter().enumerate().map(place).collect(),
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
    pub(super) fn unsettled(&self, of: usize) -> Option<NodeId> {
        let mut records =
            self.all.iter().filter(|place| place.of == of).filter_map(|place| place.record.as_ref());
        records.find(|record| record.node.only_at.is_none()).map(|record| record.node.id)
    }

    /// Forgets departed nodes whose last session has ended. Not to be called together with [`Places::settle`]: a session
    /// may be about to take its place on a node that has just left.
    pub(super) fn forget_ended(&mut self) {
        self.departed.retain(|departed| 0 < departed.node.load.sessions());
    }

    /// Lets the addresses of a node's name be its nodes from now on: those that are no longer among them leave, those
    /// that are new join. Answers with the new ones.
    pub(super) fn settle(&mut self, of: usize, addrs: &[SocketAddr]) -> Vec<NodeId> {
        let mut fresh = addrs.to_vec();
        let mut wanted = None;
        for place in self.all.iter_mut().filter(|place| place.of == of) {
            match place.record.as_ref().map(|record| &record.node) {
                Some(Node { only_at: Some(addr), .. }) if addrs.contains(addr) => {
                    fresh.retain(|known| known != addr);
                    continue;
                }
                Some(node) if node.only_at.is_none() => wanted = Some((node.admin, node.weight)),
                _ => {}
            }
            self.departed.extend(place.vacate());
        }
        let joined: Vec<_> = fresh.into_iter().filter_map(|addr| self.join(of, addr)).collect();
        // What people want of a node that has not been found yet they want of the one that has its name then.
        let first = joined.first().and_then(|id| self.get_mut(*id));
        if let Some((first, (admin, weight))) = first.zip(wanted) {
            (first.node.admin, first.node.weight) = (admin, weight);
        }
        joined
    }

    fn join(&mut self, of: usize, addr: SocketAddr) -> Option<NodeId> {
        let free = self.all.iter().position(|place| place.of == of && place.record.is_none());
        let at = match free {
            Some(at) => at,
            None => self.add(of)?,
        };
        let place = self.all.get_mut(at)?;
        let id = NodeId { place: at, life: place.life };
        let mut node = Node::starting(id, &place.config, Arc::clone(&self.freed));
        (node.only_at, node.addrs) = (Some(addr), Arc::new([addr]));
        info!(node = node.config.name.as_str(), %addr, "node_found");
        place.record = Some(Record::new(node, &self.cluster.check, self.index, &self.metrics));
        Some(id)
    }

    /// A new place for a node of the file, after its others.
    fn add(&mut self, of: usize) -> Option<usize> {
        let number = self.all.iter().filter(|place| place.of == of).count() + 1;
        let mut config = config::Node::clone(self.cluster.nodes.get(of)?);
        config.name = config.name_of_address(number);
        // Before anybody can be sent there: what is counted must have a place to be counted in.
        self.metrics.add_node(self.index, &config.name);
        self.all.push(Place { of, config: Arc::new(config), life: 0, record: None });
        Some(self.all.len() - 1)
    }

    /// The same, to be changed.
    pub(super) fn records_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.all.iter_mut().filter_map(|place| place.record.as_mut())
    }

    /// Tells the sessions of departed nodes what is the matter with those: they are no longer looked at, so nobody knows
    /// more than this.
    pub(super) fn tell_departed(&self, primary: Option<NodeId>) {
        for Leaver { node, troubles } in &self.departed {
            let is_demoted = primary.is_some_and(|primary| primary != node.id);
            let trouble = Trouble { is_leaving: true, is_demoted, ..Trouble::default() };
            troubles.post(trouble);
        }
    }

    /// What is to be published.
    pub(super) fn topology(&self, primary: Option<NodeId>) -> Topology {
        let mut taken: Vec<(usize, &Record)> =
            self.all.iter().filter_map(|place| Some((place.of, place.record.as_ref()?))).collect();
        // Stable: a later place is not before an earlier one of the same name.
        taken.sort_by_key(|(of, _)| *of);
        let nodes = taken.into_iter().map(|(_, record)| record.node.clone()).collect();
        let departed = self.departed.iter().map(|departed| departed.node.clone()).collect();
        Topology { nodes, primary, departed }
    }
}

impl Place {
    /// Ends what is there. Its sessions go on.
    fn vacate(&mut self) -> Option<Leaver> {
        let mut record = self.record.take()?;
        self.life += 1;
        record.leave();
        let Node { id, only_at, load, troubles, config, .. } = record.node;
        let addr = only_at?;
        info!(node = config.name.as_str(), %addr, sessions = load.sessions(), "node_gone");
        Some(Leaver { node: Departed { id, addr, load }, troubles })
    }
}
