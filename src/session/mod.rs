//! What survives a connection, and the rules that both ends of a connection share: messages with
//! their three QoS levels, packet identifiers, flow control and topic aliases. [5.0 §4.1] [5.0
//! §4.3] [5.0 §4.9]
//!
//! A [`Session`] is a plain value. A machine is given one, and it can be taken out of the machine
//! when the connection has ended, and put into the next. What does not survive, as aliases and
//! quotas, is no part of it.
//!
//! This module knows neither of the two roles: [`client`](crate::client) and
//! [`server`](crate::server) do.

mod available;
mod conduct;
mod endpoint;
mod error;
mod inbound;
mod message;
mod outbound;
pub mod stored;

pub use crate::codec::Message;
pub use error::{AcknowledgeError, CloseCause, ProtocolError, PublishError, RequestError};
pub use inbound::AckToken;
pub use message::{Outcome, Outgoing, Published, Received};

pub(crate) use available::Available;
pub(crate) use conduct::{Conduct, conduct};
pub(crate) use endpoint::{Connection, Endpoint, Limits};

use crate::time::Instant;
use alloc::collections::VecDeque;
use inbound::Inbound;
use outbound::Outbound;

/// How many messages may wait, and how many bytes of them. A message that finds none waiting may be
/// larger.
#[expect(clippy::exhaustive_structs, reason = "a limit is its two numbers")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimit {
    /// At most so many messages.
    pub messages: usize,
    /// At most so many bytes of topic names, properties and payloads.
    pub bytes: usize,
}

/// The state of a session, as far as it is about messages on their way: those not acknowledged in
/// either direction, and those that wait to be sent. [5.0 §4.1] [3.1.1 §4.1]
///
/// Subscriptions, which only a server has, are kept by whoever routes messages.
#[derive(Debug, Default)]
pub struct Session {
    outbound: Outbound,
    inbound: Inbound,
    /// For a client: whether the server can have this session.
    established: bool,
    /// Ends of messages that no packet has brought, and nobody was told of yet.
    completed: VecDeque<Published<'static>>,
}

impl Session {
    /// A session of which the server knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A client's session that the server may have kept, and of which nothing is on its way here.
    ///
    /// A client that resumes the session of an earlier run without having stored its state needs
    /// this: by the standard it must close the connection when the server has a session and it has
    /// none. [5.0 MQTT-3.2.2-4]
    #[must_use]
    pub fn established() -> Self {
        Self { established: true, ..Self::default() }
    }

    /// Messages with QoS 1 and 2 that were sent and are not completed. Looks at each of them.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.outbound.in_flight()
    }

    /// Messages that wait to be sent.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.outbound.queued()
    }

    /// The bytes of the messages that wait to be sent.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.outbound.queued_bytes()
    }

    /// Adds a message to those that wait, as for a client that is away. Where there is no room, not
    /// even without those that have expired, it is given back. None make room by expiring while
    /// there are as many [ends](Self::next_completed) that nobody was told of as messages may wait.
    pub fn enqueue(
        &mut self,
        outgoing: Outgoing,
        limit: QueueLimit,
        now: Instant,
    ) -> Result<(), Outgoing> {
        if !self.has_room(&outgoing.message, limit) {
            if self.completed.len() >= limit.messages {
                return Err(outgoing);
            }
            let expired = self.outbound.take_expired(now);
            expired.for_each(|outgoing| self.completed.extend(outgoing.ended(Outcome::Expired)));
            if !self.has_room(&outgoing.message, limit) {
                return Err(outgoing);
            }
        }
        self.outbound.enqueue(outgoing);
        Ok(())
    }

    /// The end of a message that nobody was told of yet, as of one that has expired while the
    /// client was away. A machine that has the session gives them as actions.
    #[must_use]
    pub fn next_completed(&mut self) -> Option<Published<'static>> {
        self.completed.pop_front()
    }

    /// Whether a message could wait as well.
    #[must_use]
    pub fn has_room(&self, message: &Message, limit: QueueLimit) -> bool {
        let bytes = self.queued_bytes().saturating_add(message.size());
        self.queued() < limit.messages && (self.queued() == 0 || bytes <= limit.bytes)
    }

    /// Ends the session, as one that has expired or is discarded for Clean Start: gives the
    /// messages whose end nobody was told of, the oldest first. [5.0 MQTT-3.1.2-4] [3.1.1
    /// MQTT-3.1.2-6]
    pub fn discard(mut self) -> impl Iterator<Item = Published<'static>> {
        let in_flight = self.outbound.forget();
        let queued = self
            .outbound
            .take_queue()
            .into_iter()
            .filter_map(|outgoing| Some((outgoing.key?, Some(outgoing.message))));
        let lost = in_flight
            .chain(queued)
            .map(|(key, message)| Published { key, outcome: Outcome::SessionLost(message) });
        self.completed.into_iter().chain(lost)
    }

    /// The end of the connection: a pure change of states. [5.0 §4.4] [3.1.1 §4.4]
    fn disconnected(&mut self) {
        self.outbound.disconnected();
        inbound::disconnected(&mut self.inbound);
    }
}
