//! The actions that a client asks of its host.

use crate::codec::{Auth, Connack, Suback};
use crate::session::{CloseCause, Published, Received, action_conversions};

/// Something that only the host can do or needs to know. Each step returns at most one.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// The server has accepted the connection, on these terms.
    Connected(Connack<'a>),
    /// The server sent the next step of enhanced authentication. The host answers with
    /// [`Client::authenticate`], unless the reason code is
    /// [`SUCCESS`](crate::codec::ReasonCode::SUCCESS), which completes a re-authentication.
    ///
    /// [`Client::authenticate`]: super::Client::authenticate
    Authenticate(Auth<'a>),
    /// A message has arrived. It is acknowledged when the next step is taken, or by
    /// [`Client::acknowledge`] if the configuration says so.
    ///
    /// In the first case the host is responsible for the message from now on: if the connection
    /// ends before the next step, a QoS 2 message is not redelivered.
    ///
    /// [`Client::acknowledge`]: super::Client::acknowledge
    Message(Received<'a>),
    /// The outcome of a QoS 1 or 2 message is known.
    Published(Published<'a>),
    /// The server answered [`Client::subscribe`](super::Client::subscribe) with this key, with a
    /// reason code for each filter.
    Subscribed(u64, Suback<'a>),
    /// The server answered [`Client::unsubscribe`](super::Client::unsubscribe) with this key.
    /// Before 5.0 there are no reason codes.
    Unsubscribed(u64, Suback<'a>),
    /// The connection has ended before the server answered the SUBSCRIBE or UNSUBSCRIBE with this
    /// key. The server may have carried it out. [`Closed`](Self::Closed) follows. Its cause is
    /// known only if the host continues with the same input: a DISCONNECT of the server is still
    /// there.
    RequestLost(u64),
    /// The connection has ended: the host writes `out` and closes the socket. No action follows
    /// until the next [`Client::connect`](super::Client::connect).
    Closed(CloseCause<'a>),
}

action_conversions!(Action);
