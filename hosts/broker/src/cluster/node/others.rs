//! The other nodes: which live, and what they want.

use super::{Node, Peer, Port};
use crate::cluster::engine::{Engine, Notice};
use mqtt_sansio::broker::NodeId;
use mqtt_sansio::codec::{Filter, Version};
use std::collections::BTreeSet;
use tokio::time;
use tracing::info;

impl<E: Engine, P: Port> Node<E, P> {
    pub(super) fn is_alive(&self, instance: u64) -> bool {
        instance == self.instance || self.state.borrow().peers.contains_key(&instance)
    }

    /// Handles a notice of another node.
    pub(crate) fn notice(&self, from: u64, notice: Notice) {
        if from == self.instance {
            return;
        }
        match notice {
            Notice::Alive { name, interest } => {
                let mut state = self.state.borrow_mut();
                let next = NodeId(state.next_id);
                let peer = state.peers.entry(from).or_insert_with(|| {
                    info!(node = name, "another node is there");
                    let (seen, filters) = (time::Instant::now(), BTreeSet::new());
                    Peer { name, id: next, seen, interest: 0, filters }
                });
                peer.seen = time::Instant::now();
                let (is_new, is_behind) = (peer.id == next, peer.interest != interest);
                state.next_id += u32::from(is_new);
                if is_behind {
                    self.engine.tell(&Notice::Ask { of: from });
                }
            }
            Notice::Interest { number, filter, is_wanted } => {
                let id = {
                    let mut state = self.state.borrow_mut();
                    let Some(peer) = state.peers.get_mut(&from) else { return };
                    if number != peer.interest + 1 {
                        // One is lost. The next sign of life shows it.
                        return;
                    }
                    peer.interest = number;
                    match is_wanted {
                        true => peer.filters.insert(filter.clone()),
                        false => peer.filters.remove(&filter),
                    };
                    peer.id
                };
                self.want(id, &[(filter, is_wanted)]);
            }
            Notice::Interests { number, filters } => {
                let (id, changes) = {
                    let mut state = self.state.borrow_mut();
                    let Some(peer) = state.peers.get_mut(&from) else { return };
                    peer.interest = number;
                    let filters = filters.into_iter().collect::<BTreeSet<_>>();
                    let ended = peer.filters.difference(&filters).map(|one| (one.clone(), false));
                    let new = filters.difference(&peer.filters).map(|one| (one.clone(), true));
                    let changes = ended.chain(new).collect::<Vec<_>>();
                    peer.filters = filters;
                    (peer.id, changes)
                };
                self.want(id, &changes);
            }
            Notice::Ask { of } if of == self.instance => {
                let filters = self.port.with(|broker, _| {
                    broker.interests().map(ToString::to_string).collect::<Vec<_>>()
                });
                let number = self.interest.get();
                self.engine.tell(&Notice::Interests { number, filters });
            }
            Notice::Ask { .. } => {}
            Notice::Leaving => {
                self.lose(from);
                self.must_reconcile.set(true);
            }
        }
    }

    fn want(&self, node: NodeId, changes: &[(String, bool)]) {
        self.port.with(|broker, _| {
            for (filter, is_wanted) in changes {
                let Ok(filter) = Filter::new(filter, Version::V5_0) else { continue };
                match is_wanted {
                    true => broker.forward(node, &filter),
                    false => _ = broker.stop_forwarding(node, &filter),
                }
            }
        });
    }

    pub(super) fn lose(&self, instance: u64) {
        let Some(peer) = self.state.borrow_mut().peers.remove(&instance) else { return };
        info!(node = peer.name, "a node is gone");
        let changes: Vec<_> = peer.filters.into_iter().map(|filter| (filter, false)).collect();
        self.want(peer.id, &changes);
    }

    pub(super) fn is_chosen(&self, client: &str) -> bool {
        let state = self.state.borrow();
        let own = rank(client, self.instance);
        state.peers.keys().all(|peer| rank(client, *peer) < own)
    }
}

/// Returns a number of a client and a node, so that each client has another order of the nodes.
pub(super) fn rank(client: &str, instance: u64) -> u64 {
    let mut hash = instance ^ 0xCBF2_9CE4_8422_2325;
    for byte in client.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
