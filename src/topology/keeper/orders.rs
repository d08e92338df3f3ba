//! What people want of the nodes, carried out.

use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use crate::balance::judge::Verdict;
use crate::base::id::NodeId;
use crate::base::role::{Role, Target};
use crate::config;
use crate::topology::choose::fitting;
use crate::topology::keeper::Keeper;
use crate::topology::order::{AdminState, Ask, By, Done, Order, OrderError, WEIGHT_MOST, Weigh};
use crate::topology::{Node, Topology};

impl Keeper {
    /// Does what is asked, and answers when it can be seen.
    pub(super) fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Node(name, order, answer) => {
                // Who has asked may have left; it is done all the same.
                let _ = answer.send(self.obey(&name, &order));
            }
            Ask::Reconfigure(cluster, dns, answer) => {
                self.reconfigure(&cluster, dns);
                let _ = answer.send(());
            }
            Ask::Depart(answer) => {
                let nobody = config::Cluster { nodes: Vec::new(), ..config::Cluster::clone(&self.cluster) };
                let dns = config::Dns { refresh: Duration::MAX, all_addresses: false };
                self.reconfigure(&Arc::new(nobody), dns);
                let _ = answer.send(());
            }
        }
    }

    /// Carries out an order for the node of this name, all of it or nothing.
    pub(super) fn obey(&mut self, name: &str, order: &Order) -> Result<Done, OrderError> {
        let Some(id) = self.places.named(name) else {
            let topology = self.publish.borrow();
            let known = topology.nodes.iter().map(|node| node.config.name.clone()).collect();
            return Err(OrderError::Unknown { known });
        };
        if matches!(order.weight, Some(Weigh::By(weight)) if WEIGHT_MOST < weight) {
            return Err(OrderError::Weight);
        }
        if let Some(weigh) = order.weight {
            self.weigh(id, weigh, &order.by);
        }
        if let Some(admin) = order.admin {
            self.administer(id, admin, &order.by);
        }
        self.publish();
        let topology = self.publish.borrow();
        let node = topology.node(id).ok_or_else(|| OrderError::Unknown { known: Vec::new() })?;
        Ok(Done { node: node.clone(), notes: notes(&topology, node) })
    }

    /// Looks after these nodes from now on.
    pub(super) fn reconfigure(&mut self, cluster: &Arc<config::Cluster>, dns: config::Dns) {
        self.cluster = Arc::clone(cluster);
        self.names.settle(cluster, dns);
        let names = &self.names;
        self.places.reconfigure(cluster, |node| names.has(node));
        // One that has been taken out of the file is awaited by nobody.
        self.last_primary = self.last_primary.filter(|id| self.places.get(*id).is_some());
        self.publish();
        self.watch_all();
    }

    fn administer(&mut self, id: NodeId, admin: AdminState, by: &By) {
        let Some(record) = self.places.get_mut(id) else { return };
        let before = record.node.admin;
        if before == admin {
            return;
        }
        record.set_admin(admin);
        let (node, sessions) = (record.node.config.name.as_str(), record.node.load.sessions());
        let By { way, client } = by;
        let (from, to) = (before.as_str(), admin.as_str());
        info!(node, from, to, by = way, client, sessions, "node_admin");
        self.watch_all();
    }

    fn weigh(&mut self, id: NodeId, weigh: Weigh, by: &By) {
        let Some(record) = self.places.get_mut(id) else { return };
        let weight = match weigh {
            Weigh::By(weight) => weight,
            Weigh::AsWritten => record.node.config.weight,
        };
        let before = std::mem::replace(&mut record.node.weight, weight);
        if before != weight {
            let (node, By { way, client }) = (record.node.config.name.as_str(), by);
            info!(node, from = before, to = weight, by = way, client, "node_weight");
        }
    }
}

/// What the node's present state means for sessions, as far as it is not plain.
fn notes(topology: &Topology, node: &Node) -> Vec<String> {
    let name = &node.config.name;
    let note = if node.is_of_use() {
        match node.verdict {
            Verdict::Up => return Vec::new(),
            Verdict::Starting => format!("{name} gets sessions after its first good check"),
            Verdict::Down => format!("{}: it gets sessions when its checks pass", node.in_words()),
        }
    } else {
        let is_none_left = |target| fitting(topology, target, |_| true).is_empty();
        let until = if node.is_in_service() { "a weight above 0" } else { "`ready`" };
        match node.role() {
            _ if is_none_left(Target::Any) => {
                format!("no other node takes sessions: new ones wait until one does, or until {until}")
            }
            Some(Role::Primary) if is_none_left(Target::Primary) && !node.is_superseded => {
                format!("{name} is the only primary: writes wait until a promotion or {until}")
            }
            Some(Role::Standby) if is_none_left(Target::Standby) => {
                "no other standby takes sessions: `prefer-standby` reads from the primary".to_owned()
            }
            _ => return Vec::new(),
        }
    };
    vec![note]
}
