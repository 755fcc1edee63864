//! The state that survives a connection, and the rules that both ends of a connection share:
//! messages with their three QoS levels, packet identifiers, flow control and topic aliases.
//!
//! A [`Session`] is a plain value. The host passes one to a machine. After the connection has
//! ended, the host can take the session out of the machine and pass it to the next one. Aliases and
//! quotas do not survive a connection and are no part of it.
//!
//! This module also holds the loop and the message exchange that both roles share. The handshake,
//! keep alive and requests of each role are in [`client`](crate::client) and
//! [`server`](crate::server).

mod available;
mod change;
mod config;
mod driver;
mod endpoint;
mod error;
mod handshake;
mod identifiers;
mod inbound;
mod limits;
mod message;
mod outbound;
mod prepared;
mod queue;
mod rare;
mod slot;
pub mod stored;
mod unacknowledged;

pub use crate::codec::Message;
pub use change::{Change, Owed};
pub use error::{AcknowledgeError, CloseCause, ProtocolError, PublishError, RequestError};
pub use message::{Key, Outcome, Outgoing, Published, Received, SubscriptionIdentifiers};
pub use unacknowledged::{AckToken, Acknowledgement};

pub(crate) use available::Available;
pub(crate) use change::OwedRef;
pub(crate) use config::{ANSWER_TIMEOUT, CommonConfig, common_config};
pub(crate) use driver::{Ending, Machine, action_conversions, advance};
pub(crate) use endpoint::{Endpoint, Step};
pub(crate) use error::{WriteError, from_write_error};
pub(crate) use handshake::{Reauthentication, Requested};
pub(crate) use limits::Limits;
pub(crate) use prepared::Prepared;
pub(crate) use slot::Request;

use crate::codec::Text;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use inbound::Inbound;
use outbound::Outbound;
use rare::RareQueue;

/// A limit for queued messages. An empty queue accepts one message of any size, whatever the limit.
#[expect(clippy::exhaustive_structs, reason = "a limit is its two numbers")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueLimit {
    /// The most messages.
    pub messages: usize,
    /// The most bytes of topic names, properties, payloads and subscription identifiers.
    pub bytes: usize,
}

/// The state of a session that concerns its messages: those not acknowledged in either direction,
/// and those that wait to be sent. [5.0 §4.1] [3.1.1 §4.1]
///
/// A client's session also knows the client identifier that it belongs to. Subscriptions, which
/// only a server has, belong to the host or the broker.
///
/// A machine that is given a copy of a session in use resumes it as after an abrupt disconnect.
///
/// ```
/// use mqtt_sansio::Instant;
/// use mqtt_sansio::codec::Publish;
/// use mqtt_sansio::session::{Message, Outgoing, QueueLimit, Session};
///
/// let mut session = Session::new();
/// let message = Message::new(&Publish::new("room/4", b"21.5"))?;
/// let limit = QueueLimit { messages: 100, bytes: 65_536 };
/// let queued = session.enqueue(Outgoing::new(None, message), limit, Instant::from_millis(0));
/// assert!(queued.is_ok());
/// assert_eq!((session.queued(), session.queued_bytes()), (1, 10));
/// # Ok::<_, mqtt_sansio::codec::EncodeError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Session {
    outbound: Outbound,
    inbound: Inbound,
    /// For a client: whether the server can have this session. If not, messages in flight are lost
    /// when the next connection begins.
    pub(crate) established: bool,
    /// For a client: the identifier that the session belongs to, once there is one.
    #[expect(clippy::box_collection, reason = "so that a server's session is no larger")]
    client_identifier: Option<Box<String>>,
    /// The number of connections that have used it, so that a token is good for one only.
    connections: u64,
    /// Outcomes not yet reported to the host, for messages that ended without an answer from the
    /// peer.
    completed: RareQueue<Published<'static>>,
    /// Changes that the host has not taken, if it wants them.
    #[expect(clippy::box_collection, reason = "most sessions have none, and need not be larger")]
    changes: Option<Box<VecDeque<Change>>>,
}

impl Session {
    /// Creates a session that the server does not have.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a client's session that the server may have kept, with nothing in flight.
    ///
    /// A client that resumes the session of an earlier run without having stored its state needs
    /// this: by the standard it must close the connection if the server has a session and the
    /// client has none. [5.0 MQTT-3.2.2-4]
    ///
    /// The server can still have packet identifiers of QoS 2 messages that the earlier run did not
    /// finish. It drops a new QoS 2 message with one of these identifiers as a repeat. Messages
    /// with QoS 0 and 1 have no such risk.
    #[must_use]
    pub fn established() -> Self {
        Self { established: true, ..Self::default() }
    }

    /// Returns the identifier of the client that the session belongs to, once the client has
    /// connected. A server's session has none; a server keeps sessions by identifier.
    #[must_use]
    pub fn client_identifier(&self) -> Option<&str> {
        self.client_identifier.as_ref().map(|identifier| identifier.as_str())
    }

    /// Returns the number of QoS 1 and 2 messages that are in flight. Costs a look at each of them.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.outbound.in_flight()
    }

    /// Returns the number of messages that wait to be sent.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.outbound.queue.len()
    }

    /// Returns the bytes of the messages that wait to be sent, as [`QueueLimit`] counts them.
    #[must_use]
    pub const fn queued_bytes(&self) -> usize {
        self.outbound.queue.bytes()
    }

    /// Queues a message, for instance while the client is disconnected. Returns the
    /// message if there is no room, even after expired messages are removed.
    ///
    /// Expired messages are not purged while `limit.messages` outcomes are still
    /// [unreported](Self::next_completed), which bounds that list too.
    #[inline]
    pub fn enqueue(
        &mut self,
        outgoing: Outgoing,
        limit: QueueLimit,
        now: Instant,
    ) -> Result<(), Outgoing> {
        let size = outgoing.size();
        if self.has_room(size, limit) || self.purge(size, limit, now) {
            self.outbound.queue.push(outgoing);
            Ok(())
        } else {
            Err(outgoing)
        }
    }

    /// Removes expired messages from a full queue. Returns whether that has made room.
    #[cold]
    #[inline(never)]
    fn purge(&mut self, size: usize, limit: QueueLimit, now: Instant) -> bool {
        if self.completed.len() < limit.messages.max(1) {
            let expired = self.outbound.queue.take_expired(now);
            self.completed.extend(expired.filter_map(|expired| expired.ended(Outcome::Expired)));
        }
        self.has_room(size, limit)
    }

    /// Whether the queue has room for a message of that [size](Outgoing::size) in bytes.
    #[must_use]
    pub fn has_room(&self, size: usize, limit: QueueLimit) -> bool {
        self.outbound.queue.has_room(size, limit)
    }

    /// Returns an outcome that is not reported yet, such as that of a message that expired while
    /// the client was disconnected. A machine that holds the session reports outcomes as actions.
    #[must_use]
    #[inline]
    pub fn next_completed(&mut self) -> Option<Published<'static>> {
        self.completed.pop_front()
    }

    /// Ends the session, because it has expired or a client asked for a clean start. Returns the
    /// outcomes that are not reported yet, those of the oldest messages first.
    /// [5.0 MQTT-3.1.2-4] [3.1.1 MQTT-3.1.2-6]
    pub fn discard(mut self) -> impl Iterator<Item = Published<'static>> {
        let in_flight = self.outbound.forget();
        let queued = self.outbound.queue.take_all();
        let queued =
            queued.filter_map(|outgoing| Some((outgoing.number()?, Some(outgoing.message))));
        self.completed.into_iter().chain(in_flight.chain(queued).map(session_lost))
    }

    /// Drops the outcomes that are not reported.
    #[inline]
    pub(crate) fn forget_outcomes(&mut self) {
        self.completed = RareQueue::default();
    }

    /// Returns the number of messages that wait or are in flight, without a look at each.
    pub(crate) fn unfinished(&self) -> usize {
        self.outbound.unfinished()
    }

    /// Removes waiting messages with QoS 0 until there is room. Returns their number.
    pub(crate) fn make_room(&mut self, size: usize, limit: QueueLimit) -> u64 {
        self.outbound.queue.make_room(size, limit)
    }

    /// Ends the session. Returns the messages with a key that another client can receive.
    pub(crate) fn into_undelivered(self) -> impl Iterator<Item = Outgoing> {
        self.outbound.into_undelivered().filter(|outgoing| outgoing.key.is_some())
    }

    /// Binds the session to a client identifier. An empty one leaves it to the server to assign
    /// one.
    pub(crate) fn set_client_identifier(&mut self, identifier: Text<'_>) {
        if identifier.is_empty() {
            self.client_identifier = None;
        } else if self.client_identifier.is_none() {
            self.client_identifier = Some(Box::new(identifier.to_str().into()));
        }
    }

    /// Forgets what is in flight in both directions, because the peer has no state of it.
    /// [5.0 MQTT-3.2.2-5]
    pub(crate) fn lost(&mut self) {
        for (packet_identifier, _) in core::mem::take(&mut self.inbound) {
            self.note(Change::Completed { packet_identifier });
        }
        let owed: Vec<_> = self.owed().map(|(identifier, _)| identifier).collect();
        for packet_identifier in owed {
            self.note(Change::Ended { packet_identifier });
        }
        self.completed.extend(self.outbound.forget().map(session_lost));
    }

    /// Ends the connection in which the session is in use, if it is a copy of such a session.
    pub(crate) fn end_use(&mut self) {
        self.disconnected().for_each(drop);
    }

    /// Ends a connection, and returns the keys of its unanswered requests. [5.0 §4.4]
    /// [3.1.1 §4.4]
    fn disconnected(&mut self) -> impl Iterator<Item = u64> + use<> {
        inbound::disconnected(&mut self.inbound);
        self.outbound.disconnected()
    }
}

fn session_lost((key, message): (u64, Option<Message>)) -> Published<'static> {
    Published { key, outcome: Outcome::SessionLost(message) }
}
