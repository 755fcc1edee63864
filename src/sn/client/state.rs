//! The states of a client, and the messages that wait for an answer of the gateway.

use crate::codec::{Output, PacketIdentifier, QoS};
use crate::sn::Retry;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// The state of a client. [SN §6.14]
///
/// ```text
///  Disconnected ── connect ──► Connecting ──► Active ── sleep ──► FallingAsleep ──► Asleep
///        ▲                         ▲                                    │  ▲          │ wake
///        │                         └───────────── connect ──────────────┘  └─ Awake ◄─┘
///        └── Disconnecting ◄── disconnect
/// ```
#[expect(clippy::exhaustive_enums, reason = "the set is closed by the specification")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientState {
    /// There is no connection.
    #[default]
    Disconnected,
    /// The gateway has not answered CONNECT.
    Connecting,
    /// The client sends and receives.
    Active,
    /// The gateway has not answered the DISCONNECT with a duration.
    FallingAsleep,
    /// The gateway buffers messages.
    Asleep,
    /// The client receives the messages that were buffered.
    Awake,
    /// The gateway has not answered the DISCONNECT.
    Disconnecting,
}

/// A message that is sent again until it is answered.
#[derive(Debug)]
pub(super) struct Pending<K> {
    pub(super) kind: K,
    pub(super) datagram: Vec<u8>,
    pub(super) tries: u8,
    pub(super) retry_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    Connect { clean_session: bool },
    Disconnect,
    Ping,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Register(u16, Box<str>),
    Publish(PacketIdentifier, QoS),
    Pubrel(PacketIdentifier),
    Subscribe(u16, Option<Box<str>>),
    Unsubscribe(u16),
    WillTopic,
    WillMessage,
}

impl<K> Pending<K> {
    pub(super) fn new(kind: K, datagram: Vec<u8>, retry: Retry, now: Instant) -> Self {
        Self { kind, datagram, tries: 0, retry_at: now + retry.interval }
    }

    /// Writes the datagram again. Returns false if it was already sent as often as it can be.
    pub(super) fn resend(&mut self, retry: Retry, now: Instant, out: &mut impl Output) -> bool {
        if self.tries >= retry.count {
            return false;
        }
        self.tries += 1;
        self.retry_at = now + retry.interval;
        // An output without room has the same effect as a lost datagram.
        let _ = out.append_slice(&self.datagram);
        true
    }
}

/// Sets DUP in a PUBLISH or SUBSCRIBE. [SN §5.3.4]
pub(super) fn set_dup(datagram: &mut [u8]) {
    let header = if datagram.first() == Some(&1) { 3 } else { 1 };
    if let Some([0x0C | 0x12, flags, ..]) = datagram.get_mut(header..) {
        *flags |= 0x80;
    }
}
