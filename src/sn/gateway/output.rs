//! Addresses of clients, and the datagrams and events that wait for the host.

use super::config::GatewayConfig;
use super::{Destination, Event, GatewayStats};
use crate::sn::v1_2::{Encapsulated, Message, encode};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The address of a client: the peer, and the wireless node if the peer is a forwarder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address<P> {
    pub(super) peer: P,
    pub(super) node: Option<Box<[u8]>>,
}

/// The parts of the gateway that a client can use in a call.
pub(super) struct Context<'g, P> {
    pub(super) config: &'g GatewayConfig,
    pub(super) output: &'g mut Output<P>,
    pub(super) stats: &'g mut GatewayStats,
    pub(super) now: Instant,
}

pub(super) struct Output<P> {
    pub(super) datagrams: VecDeque<(Destination<P>, Vec<u8>)>,
    pub(super) events: VecDeque<Event>,
}

impl<P: Clone> Output<P> {
    /// Sends a message to a client.
    pub(super) fn send(&mut self, to: &Address<P>, message: &Message<'_>) {
        self.push(Destination::Peer(to.peer.clone()), to.node.as_deref(), 0, message);
    }

    /// Sends a message to all clients of the network, or to one that only a forwarder reaches.
    pub(super) fn broadcast(
        &mut self,
        asked_by: Option<&Address<P>>,
        radius: u8,
        message: &Message<'_>,
    ) {
        match asked_by {
            Some(Address { peer, node: Some(node) }) => {
                self.push(Destination::Peer(peer.clone()), Some(node), radius.min(3), message);
            }
            _ => {
                let asked_by = asked_by.map(|address| address.peer.clone());
                self.push(Destination::Broadcast { radius, asked_by }, None, 0, message);
            }
        }
    }

    fn push(&mut self, to: Destination<P>, node: Option<&[u8]>, radius: u8, message: &Message<'_>) {
        let mut datagram = Vec::new();
        if encode(message, &mut datagram).is_err() {
            debug_assert!(false, "the gateway writes valid messages: {message:?}");
            return;
        }
        if let Some(node_id) = node {
            let inner = core::mem::take(&mut datagram);
            let encapsulated = Encapsulated { radius, node_id, message: &inner };
            // The node id came in such a header.
            let _ = encapsulated.encode(&mut datagram);
        }
        self.datagrams.push_back((to, datagram));
    }
}
