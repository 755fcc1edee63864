//! The state of one connection. It does not survive it.

use super::super::Limits;
use super::super::slot::Request;
use super::super::unacknowledged::Unacknowledged;
use super::alias::{Aliases, AutomaticAliases};
use crate::codec::{PacketIdentifier, Version};
use alloc::collections::BTreeMap;

/// State that lasts as long as a connection.
#[derive(Debug)]
pub(crate) struct Connection {
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
    /// The aliases of the peer. [5.0 MQTT-3.3.2-7]
    pub(super) peer_aliases: Aliases,
    /// The aliases that the host has set.
    pub(super) own_aliases: Aliases,
    /// The aliases that the machine has set.
    pub(super) automatic_aliases: AutomaticAliases,
}

impl Connection {
    pub(super) fn new(version: Version, own: Limits, peer: Limits) -> Self {
        Self {
            version,
            own,
            peer,
            is_open: false,
            sent: 0,
            received: 0,
            unacknowledged: Unacknowledged::default(),
            requests: PeerRequests::default(),
            peer_aliases: Aliases::default(),
            own_aliases: Aliases::default(),
            automatic_aliases: AutomaticAliases::default(),
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
        self.sent < self.peer.receive_maximum.unwrap_or(u16::MAX)
    }
}

/// The requests of the peer, a client, that the host has not answered.
#[derive(Debug, Default)]
pub(crate) struct PeerRequests {
    pub(crate) waiting: BTreeMap<PacketIdentifier, PeerRequest>,
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
    #[inline]
    pub(crate) fn contains(&self, packet_identifier: PacketIdentifier) -> bool {
        !self.waiting.is_empty() && self.waiting.contains_key(&packet_identifier)
    }

    /// Notes a request, and returns its number.
    pub(crate) fn insert(
        &mut self,
        packet_identifier: PacketIdentifier,
        request: Request,
        filters: usize,
    ) -> u64 {
        self.last += 1;
        let number = self.last;
        self.waiting.insert(packet_identifier, PeerRequest { request, filters, number });
        number
    }

    /// Removes an answered request. An empty map keeps the room of eleven, so it is replaced.
    pub(crate) fn remove(&mut self, packet_identifier: PacketIdentifier) {
        self.waiting.remove(&packet_identifier);
        if self.waiting.is_empty() {
            self.waiting = BTreeMap::new();
        }
    }
}
