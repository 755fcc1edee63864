//! Messages that arrive: which have been acknowledged, and which have been seen before.

use crate::codec::{PacketIdentifier, QoS, ReasonCode};
use alloc::collections::{BTreeMap, VecDeque};
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

/// The QoS 2 messages whose identifiers the peer has not released: what survives a connection.
pub(crate) type Inbound = BTreeMap<PacketIdentifier, Exchange>;

/// Where the receiver of a QoS 2 message stands. [5.0 §4.3.3] [3.1.1 §4.3.3]
///
/// ```text
///  PUBLISH ──► DuePubrec ──PUBREC──► AwaitPubrel ──PUBREL, PUBCOMP──► (none)
///                   └──PUBREC with an error──────────────────────────► (none)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// The message was delivered, and not acknowledged yet.
    DuePubrec {
        /// Whether the host has taken it, so that the PUBREC only waits for its turn.
        taken: bool,
    },
    /// It was acknowledged; another PUBLISH is the same message. [5.0 MQTT-4.3.3-10]
    AwaitPubrel {
        /// Whether it was sent on this connection, and so takes part of the Receive Maximum.
        counted: bool,
        /// The number of the PUBREC that waits for its turn, after another PUBLISH.
        again: Option<u64>,
    },
}

impl Exchange {
    /// On a new connection.
    pub(crate) const TAKEN: Self = Self::AwaitPubrel { counted: false, again: None };

    /// Whether another PUBLISH is the same message.
    pub(crate) const fn is_taken(self) -> bool {
        matches!(self, Self::DuePubrec { taken: true } | Self::AwaitPubrel { .. })
    }
}

/// What becomes of the exchanges when the connection ends: what was not acknowledged comes again,
/// and is then new.
pub(crate) fn disconnected(inbound: &mut Inbound) {
    inbound.retain(|_, exchange| {
        let taken = exchange.is_taken();
        *exchange = Exchange::TAKEN;
        taken
    });
}

/// Permission to acknowledge one message, on the connection that it came by. On any other it is
/// [`Stale`](super::AcknowledgeError::Stale).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckToken {
    pub(crate) connection: ConnectionNumber,
    number: u64,
}

/// Tells the connections of all machines apart.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ConnectionNumber(usize);

impl ConnectionNumber {
    /// One that no connection has had. Machines know nothing of each other, and a token may outlive
    /// the one that gave it.
    pub(crate) fn new() -> Self {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }
}

/// The number is left out: it says nothing, and differs from run to run.
impl fmt::Debug for ConnectionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}

/// The messages of this connection that are not acknowledged, in the order of their arrival.
///
/// Acknowledgements leave in that order, whatever the order in which they are asked for. [5.0
/// MQTT-4.6.0-2] [5.0 MQTT-4.6.0-3] [3.1.1 MQTT-4.6.0-2] [3.1.1 MQTT-4.6.0-3]
#[derive(Debug, Default)]
pub(crate) struct Unacknowledged {
    waiting: VecDeque<Waiting>,
    /// The number of the first one waiting.
    first: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) packet_identifier: PacketIdentifier,
    pub(crate) qos: QoS,
    pub(crate) turn: Turn,
    verdict: Option<ReasonCode>,
}

/// What an acknowledgement is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The first of a message.
    First,
    /// The PUBREC of a message that had one before.
    Again,
    /// For a message that was not taken.
    Refused,
    /// Nothing any more.
    Void,
}

impl Unacknowledged {
    pub(crate) fn push(
        &mut self,
        packet_identifier: PacketIdentifier,
        qos: QoS,
        connection: ConnectionNumber,
    ) -> AckToken {
        AckToken {
            connection,
            number: self.add(Waiting { packet_identifier, qos, turn: Turn::First, verdict: None }),
        }
    }

    /// A QoS 2 message that was acknowledged before, and will be again in its turn.
    pub(crate) fn push_again(&mut self, packet_identifier: PacketIdentifier) -> u64 {
        let verdict = Some(ReasonCode::SUCCESS);
        self.add(Waiting { packet_identifier, qos: QoS::ExactlyOnce, turn: Turn::Again, verdict })
    }

    /// A message that nobody is given.
    pub(crate) fn push_refused(
        &mut self,
        packet_identifier: PacketIdentifier,
        qos: QoS,
        verdict: ReasonCode,
    ) {
        self.add(Waiting { packet_identifier, qos, turn: Turn::Refused, verdict: Some(verdict) });
    }

    fn add(&mut self, waiting: Waiting) -> u64 {
        self.waiting.push_back(waiting);
        self.first + self.waiting.len() as u64 - 1
    }

    /// The PUBREL of a message has come meanwhile, to the PUBREC before.
    pub(crate) fn withdraw(&mut self, number: u64) {
        if let Some(waiting) = self.get_mut(number) {
            waiting.turn = Turn::Void;
        }
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Waiting> {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok())?;
        self.waiting.get_mut(index)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Notes what a message is to be acknowledged with; `None` if that has been said already.
    pub(crate) fn decide(&mut self, token: AckToken, verdict: ReasonCode) -> Option<Waiting> {
        let waiting = self.get_mut(token.number).filter(|waiting| waiting.verdict.is_none())?;
        waiting.verdict = Some(verdict);
        Some(*waiting)
    }

    /// Accepts all that nothing has been said of.
    pub(crate) fn accept_all(&mut self) {
        for waiting in &mut self.waiting {
            waiting.verdict.get_or_insert(ReasonCode::SUCCESS);
        }
    }

    /// Whether there is one for a message with that identifier. Looks at each of them.
    pub(crate) fn contains(&self, packet_identifier: PacketIdentifier) -> bool {
        self.waiting.iter().any(|waiting| {
            waiting.turn == Turn::First && waiting.packet_identifier == packet_identifier
        })
    }

    /// The QoS 2 messages among them.
    pub(crate) fn twice(&self) -> impl Iterator<Item = PacketIdentifier> + '_ {
        let twice = self
            .waiting
            .iter()
            .filter(|waiting| waiting.qos == QoS::ExactlyOnce && waiting.turn == Turn::First);
        twice.map(|waiting| waiting.packet_identifier)
    }

    /// The next one that can be acknowledged.
    pub(crate) fn next(&self) -> Option<(Waiting, ReasonCode)> {
        let waiting = *self.waiting.front()?;
        Some((waiting, waiting.verdict?))
    }

    /// The next one has been acknowledged.
    pub(crate) fn pop(&mut self) {
        if self.waiting.pop_front().is_some() {
            self.first += 1;
        }
    }
}
