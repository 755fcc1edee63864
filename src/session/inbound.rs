//! QoS 2 messages from the peer whose packet identifiers are still in use.

use crate::codec::PacketIdentifier;
use alloc::collections::BTreeMap;

/// The exchanges of QoS 2 messages that the peer has not released. They survive a connection.
pub(crate) type Inbound = BTreeMap<PacketIdentifier, Exchange>;

/// The state of the receiver of a QoS 2 message. [5.0 §4.3.3] [3.1.1 §4.3.3]
///
/// ```text
///  PUBLISH ──► DuePubrec ──PUBREC──► AwaitPubrel ──PUBREL, PUBCOMP──► (none)
///                   └──PUBREC with an error──────────────────────────► (none)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// The message was delivered to the host and is not acknowledged yet.
    DuePubrec {
        /// Whether the host has accepted the message, so that its PUBREC only waits for its turn.
        accepted: bool,
    },
    /// PUBREC was sent. Another PUBLISH with the identifier is the same message.
    /// [5.0 MQTT-4.3.3-10]
    AwaitPubrel {
        /// Whether it was sent on this connection, and so counts towards the Receive Maximum.
        counted: bool,
        /// The number of the PUBREC that waits for its turn after another PUBLISH.
        again: Option<u64>,
    },
}

impl Exchange {
    /// The state on a new connection.
    pub(crate) const ACCEPTED: Self = Self::AwaitPubrel { counted: false, again: None };

    /// Whether the host has accepted the message, so that another PUBLISH is a repeat.
    pub(crate) const fn is_accepted(self) -> bool {
        matches!(self, Self::DuePubrec { accepted: true } | Self::AwaitPubrel { .. })
    }
}

/// Ends the connection. Messages that were not acknowledged are forgotten: the peer redelivers
/// them, and they then count as new.
pub(crate) fn disconnected(inbound: &mut Inbound) {
    inbound.retain(|_, exchange| {
        let accepted = exchange.is_accepted();
        *exchange = Exchange::ACCEPTED;
        accepted
    });
}
