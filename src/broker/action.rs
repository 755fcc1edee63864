//! The names of connections and sessions, and what the broker asks its host to do.

use super::closed::Closed;
use super::question::{Question, QuestionId};
use core::num::NonZeroU64;

/// The name of a connection of a [`Broker`](super::Broker). A broker never gives it out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(super) u64);

/// The name of a session, never given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionId(pub(super) u64);

/// The number of a session in the journal, which it keeps over restarts.
pub(super) type SessionNumber = NonZeroU64;

/// A hint that only the host can do something about a connection.
///
/// The host can query the same state at any time, so a hint that arrives late, is lost, or is acted
/// on twice does no harm.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Only the host can decide what a client asks for. Until it answers, now or later, the broker
    /// reads nothing further from the client. Other clients do not wait.
    ///
    /// [`Broker::question`](super::Broker::question) returns the same question.
    Ask(QuestionId, Question),
    /// A connection has output, or wants input again: the host calls
    /// [`Broker::transmit`](super::Broker::transmit), and
    /// [`Broker::handle_input`](super::Broker::handle_input) with input that it holds.
    ///
    /// [`Broker::wants_transmit`](super::Broker::wants_transmit) and
    /// [`Broker::wants_input`](super::Broker::wants_input) return the same state.
    Ready(ConnectionId),
    /// A connection has ended. The host [transmits](super::Broker::transmit) what is left, closes
    /// the socket, and calls [`Broker::connection_lost`](super::Broker::connection_lost).
    ///
    /// [`Broker::closed`](super::Broker::closed) returns the same state.
    Closed(ConnectionId, Closed),
}
