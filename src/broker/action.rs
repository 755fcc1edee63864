//! The names of connections and sessions, and what the broker asks its host to do.

use crate::codec::OwnedPacket;

/// The name of a connection of a [`Broker`](super::Broker). A broker never gives it out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(super) u64);

/// The name of a session, never given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionId(pub(super) u64);

/// A hint that only the host can do something about a connection.
///
/// The host can query the same state at any time, so a hint that arrives late, is lost, or is acted
/// on twice does no harm.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client asks to connect. The host answers with [`Broker::accept`](super::Broker::accept)
    /// or [`Broker::refuse`](super::Broker::refuse), now or later. Until then the
    /// broker reads no further packet of the client.
    ///
    /// [`Broker::pending_connect`](super::Broker::pending_connect) returns the same CONNECT.
    Connect {
        /// The connection that awaits the answer.
        connection: ConnectionId,
        /// The CONNECT packet, with user name and password.
        connect: OwnedPacket,
    },
    /// There is output for a connection: [`Broker::transmit`](super::Broker::transmit) writes it.
    ///
    /// [`Broker::wants_transmit`](super::Broker::wants_transmit) returns the same state.
    Transmit(ConnectionId),
    /// A connection has ended. The host [transmits](super::Broker::transmit) what is left, closes
    /// the socket, and calls [`Broker::connection_lost`](super::Broker::connection_lost).
    ///
    /// [`Broker::is_closed`](super::Broker::is_closed) returns the same state.
    Closed(ConnectionId),
}
