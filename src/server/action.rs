//! The actions that a server asks of its host.

use crate::codec::{Auth, Connect, PacketIdentifier, Subscribe, Unsubscribe};
use crate::session::{CloseCause, Published, Received, action_conversions};

/// Something that only the host can do or needs to know. Each step returns at most one.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// A client asks for a connection. The host answers with [`Server::accept`],
    /// [`Server::refuse`] or [`Server::challenge`]. Until then no input is read.
    ///
    /// [`Server::accept`]: super::Server::accept
    /// [`Server::refuse`]: super::Server::refuse
    /// [`Server::challenge`]: super::Server::challenge
    Connect(Connect<'a>),
    /// The client sent the next step of enhanced authentication, or starts a re-authentication. The
    /// host answers with the same calls; a re-authentication with [`Server::challenge`], which
    /// completes it with reason code [`SUCCESS`](crate::codec::ReasonCode::SUCCESS), or with
    /// [`Server::disconnect`].
    ///
    /// [`Server::challenge`]: super::Server::challenge
    /// [`Server::disconnect`]: super::Server::disconnect
    Authenticate(Auth<'a>),
    /// A message has arrived. It is acknowledged when the next step is taken, or by
    /// [`Server::acknowledge`] if the configuration says so.
    ///
    /// In the first case the host is responsible for the message from now on: if the connection
    /// ends before the next step, a QoS 2 message is not redelivered.
    ///
    /// [`Server::acknowledge`]: super::Server::acknowledge
    Message(Received<'a>),
    /// The client sent a SUBSCRIBE. The host answers with [`Server::suback`], now or later.
    ///
    /// [`Server::suback`]: super::Server::suback
    Subscribe(RequestToken, Subscribe<'a>),
    /// The client sent an UNSUBSCRIBE. The host answers with [`Server::unsuback`], now or later.
    ///
    /// [`Server::unsuback`]: super::Server::unsuback
    Unsubscribe(RequestToken, Unsubscribe<'a>),
    /// The outcome of a QoS 1 or 2 message is known.
    Published(Published<'a>),
    /// The connection has ended: the host writes `out` and closes the socket. No action follows.
    Closed {
        /// Why it has ended.
        cause: CloseCause<'a>,
        /// Whether the host must publish the Will Message, if the CONNECT had one, after its Will
        /// Delay Interval. False after a DISCONNECT with
        /// [`SUCCESS`](crate::codec::ReasonCode::SUCCESS), and if the client was never accepted.
        /// [5.0 MQTT-3.1.2-8] [3.1.1 MQTT-3.1.2-8]
        publish_will: bool,
    },
}

action_conversions!(Action);

/// Permission to answer one SUBSCRIBE or UNSUBSCRIBE, once, on the server that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestToken {
    pub(super) packet_identifier: PacketIdentifier,
    /// The number of the request on its connection.
    pub(super) number: u64,
}
