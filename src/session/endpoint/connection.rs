//! The state of one connection. It does not survive it.

use super::super::Limits;
use super::super::slot::Request;
use super::super::unacknowledged::Unacknowledged;
use super::alias::AliasTables;
use crate::codec::{PacketIdentifier, Role, Version};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;

/// State that lasts as long as a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The role of this side.
    pub(super) role: Role,
    pub(crate) version: Version,
    /// The limits that the peer must keep.
    pub(crate) own: Limits,
    /// The limits that this side must keep.
    pub(crate) peer: Limits,
    /// Whether messages are exchanged.
    pub(super) is_open: bool,
    /// The number of sent messages that count towards the peer's Receive Maximum. [5.0 §4.9]
    pub(super) sent: u16,
    /// The number of received messages that count towards this side's Receive Maximum.
    pub(super) received: u16,
    pub(super) unacknowledged: Unacknowledged,
    pub(crate) requests: PeerRequests,
    pub(super) aliases: Option<Box<AliasTables>>,
}

impl Connection {
    pub(super) fn new(role: Role, version: Version, own: Limits, peer: Limits) -> Self {
        Self {
            role,
            version,
            own,
            peer,
            is_open: false,
            sent: 0,
            received: 0,
            unacknowledged: Unacknowledged::default(),
            requests: PeerRequests::default(),
            aliases: None,
        }
    }

    /// Ends the exchange of messages, and returns those that are not acknowledged.
    pub(super) fn close(&mut self) -> Unacknowledged {
        self.is_open = false;
        self.requests = PeerRequests::default();
        core::mem::take(&mut self.unacknowledged)
    }

    /// Whether the peer's Receive Maximum allows one more QoS 1 or 2 message. [5.0 §4.9]
    #[inline]
    pub(super) fn may_send(&self) -> bool {
        self.sent < self.peer.receive_maximum
    }
}

/// The requests of the peer, a client, that the host has not answered. In a box, because a server's
/// clients are many, and most are silent; a client has none.
#[derive(Debug, Default)]
pub(crate) struct PeerRequests(Option<Box<Requests>>);

#[derive(Debug, Default)]
struct Requests {
    waiting: BTreeMap<PacketIdentifier, PeerRequest>,
    last: u64,
}

/// A request of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerRequest {
    pub(crate) request: Request,
    /// The number of its topic filters.
    pub(crate) filters: usize,
    /// The number of the request on this connection.
    pub(crate) number: u64,
}

impl PeerRequests {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |requests| requests.waiting.len())
    }

    pub(crate) fn get(&self, packet_identifier: PacketIdentifier) -> Option<PeerRequest> {
        self.0.as_ref()?.waiting.get(&packet_identifier).copied()
    }

    /// Notes a request, and returns its number.
    pub(crate) fn insert(
        &mut self,
        packet_identifier: PacketIdentifier,
        request: Request,
        filters: usize,
    ) -> u64 {
        let Requests { waiting, last } = &mut **self.0.get_or_insert_default();
        *last += 1;
        waiting.insert(packet_identifier, PeerRequest { request, filters, number: *last });
        *last
    }

    /// Removes an answered request. An empty map keeps the room of eleven, so it is replaced.
    pub(crate) fn remove(&mut self, packet_identifier: PacketIdentifier) {
        let Some(requests) = &mut self.0 else { return };
        requests.waiting.remove(&packet_identifier);
        if requests.waiting.is_empty() {
            requests.waiting = BTreeMap::new();
        }
    }
}
