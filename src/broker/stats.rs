//! The figures of a broker.

use super::action::ConnectionId;
use crate::codec::QoS;

/// The figures of a broker: its state now, and what it has counted since it was created.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The open connections, including those that were not accepted yet.
    pub connections: usize,
    /// The sessions, including those of absent clients.
    pub sessions: usize,
    /// The sessions whose client is connected.
    pub connected: usize,
    /// The subscriptions of all sessions. A member of a shared subscription counts as one.
    pub subscriptions: usize,
    /// The retained messages.
    pub retained: usize,
    /// The bytes of the retained messages.
    pub retained_bytes: usize,
    /// The bytes that clients sent.
    pub bytes_received: u64,
    /// The bytes that were written for clients.
    pub bytes_sent: u64,
    /// The messages that clients published, by their QoS.
    pub messages_received: [u64; 3],
    /// The copies of messages that were queued for clients, by their QoS.
    pub messages_queued: [u64; 3],
    /// The dropped messages, by cause.
    pub dropped: Dropped,
}

/// The messages that were dropped, by cause.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Copies for clients whose queue was full.
    pub queue_full: u64,
    /// Retained messages for which there was no room. Their subscribers received them.
    pub retained_full: u64,
    /// Messages that their publisher was not allowed to publish, and wills.
    pub not_authorized: u64,
    /// Messages to topics below `$SYS/`, which are the broker's.
    pub reserved_topic: u64,
    /// Messages of shared subscriptions that no member could take.
    pub no_member: u64,
    /// Messages for [other nodes](super#other-nodes) that the host refused or did not fetch.
    pub not_forwarded: u64,
}

impl Dropped {
    /// Returns the number of all dropped messages.
    #[must_use]
    pub const fn total(&self) -> u64 {
        let Self { queue_full, retained_full, not_authorized, .. } = *self;
        let Self { reserved_topic, no_member, not_forwarded, .. } = *self;
        queue_full + retained_full + not_authorized + reserved_topic + no_member + not_forwarded
    }
}

/// The figures of a client that has a session.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientStats<'a> {
    /// The Client Identifier.
    pub client_identifier: &'a str,
    /// The connection, unless the client is away.
    pub connection: Option<ConnectionId>,
    /// The subscriptions.
    pub subscriptions: usize,
    /// The messages that wait to be sent.
    pub queued: usize,
    /// The bytes of the messages that wait to be sent.
    pub queued_bytes: usize,
    /// The messages with QoS 1 and 2 that are sent and not acknowledged.
    pub in_flight: usize,
    /// The counters of the connection, unless the client is away.
    pub counted: Option<Counted>,
}

/// The counters of a connection since it was opened.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// The bytes that the client sent.
    pub bytes_received: u64,
    /// The bytes that were written for the client.
    pub bytes_sent: u64,
    /// The messages that the client published.
    pub messages_received: u64,
    /// The copies of messages that were queued for the client.
    pub messages_queued: u64,
}

/// Adds to the counter of a QoS.
pub(super) fn count(counters: &mut [u64; 3], qos: QoS) {
    if let Some(counter) = counters.get_mut(usize::from(qos.as_u8())) {
        *counter += 1;
    }
}
