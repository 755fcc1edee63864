//! Messages of this connection that are not acknowledged yet.

use crate::codec::{AckProperties, OwnedPacket, PacketIdentifier, QoS, ReasonCode};
use alloc::boxed::Box;
use alloc::collections::VecDeque;

/// Permission to acknowledge one message, on the connection that delivered it.
///
/// A token is good for the machine that gave it. After its connection has ended, acknowledging
/// with it is [`Stale`](super::AcknowledgeError::Stale), also on the next connection of the
/// session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AckToken {
    /// The number of the connection within its session.
    pub(crate) connection: u64,
    pub(crate) number: u64,
}

/// The content of the PUBACK or PUBREC for a message. Most often it is made from a [`ReasonCode`].
///
/// ```
/// use mqtt_sansio::codec::{AckProperties, ReasonCode};
/// use mqtt_sansio::session::Acknowledgement;
///
/// let accepted = Acknowledgement::from(ReasonCode::SUCCESS);
/// let properties =
///     AckProperties { reason_string: Some("disk is full".into()), ..AckProperties::default() };
/// let refused = Acknowledgement { reason_code: ReasonCode::QUOTA_EXCEEDED, properties };
/// assert!(accepted.properties.is_empty() && refused.reason_code.is_error());
/// ```
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledgement<'a> {
    /// An [error](ReasonCode::is_error) refuses the message. Before 5.0 every message is accepted.
    pub reason_code: ReasonCode,
    /// A reason string and user properties. They are not sent before 5.0, to a client that set
    /// Request Problem Information to 0, or where they exceed the peer's Maximum Packet Size or the
    /// room in the output.
    pub properties: AckProperties<'a>,
}

impl From<ReasonCode> for Acknowledgement<'_> {
    fn from(reason_code: ReasonCode) -> Self {
        Self { reason_code, properties: AckProperties::default() }
    }
}

/// The messages of this connection that are not acknowledged, in the order of their arrival.
///
/// Acknowledgements are sent in that order, whatever the order in which the host decides.
/// [5.0 MQTT-4.6.0-2] [5.0 MQTT-4.6.0-3] [3.1.1 MQTT-4.6.0-2] [3.1.1 MQTT-4.6.0-3]
#[derive(Debug, Default)]
pub(crate) struct Unacknowledged {
    waiting: VecDeque<Waiting>,
    /// The number of the first entry of `waiting`.
    first: u64,
}

#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) packet_identifier: PacketIdentifier,
    pub(crate) qos: QoS,
    pub(crate) turn: Turn,
    /// The decision of the host, once there is one.
    pub(crate) verdict: Option<ReasonCode>,
    /// The whole acknowledgement, if it has properties.
    pub(crate) packet: Option<Box<OwnedPacket>>,
}

/// The purpose of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is the first one for a message.
    First,
    /// It is the PUBREC for a message that had one before.
    Again,
    /// It refuses a message that was not delivered to the host.
    Refused,
    /// It is no longer due.
    Withdrawn,
}

impl Unacknowledged {
    /// Appends a message, and returns its number. The verdict is known unless the host decides.
    #[inline]
    pub(crate) fn push(
        &mut self,
        packet_identifier: PacketIdentifier,
        qos: QoS,
        turn: Turn,
        verdict: Option<ReasonCode>,
    ) -> u64 {
        self.waiting.push_back(Waiting { packet_identifier, qos, turn, verdict, packet: None });
        self.first + self.waiting.len() as u64 - 1
    }

    /// Withdraws a PUBREC because the PUBREL that answers an earlier one has arrived.
    pub(crate) fn withdraw(&mut self, number: u64) {
        if let Some(waiting) = self.get_mut(number) {
            waiting.turn = Turn::Withdrawn;
        }
    }

    /// Returns the message of a number, unless it is acknowledged.
    pub(crate) fn get(&self, number: u64) -> Option<&Waiting> {
        self.waiting.get(self.index(number)?)
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Waiting> {
        let index = self.index(number)?;
        self.waiting.get_mut(index)
    }

    fn index(&self, number: u64) -> Option<usize> {
        number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok())
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns the message of a token that the host has not decided about.
    pub(crate) fn undecided(&mut self, token: AckToken) -> Option<&mut Waiting> {
        self.get_mut(token.number).filter(|waiting| waiting.verdict.is_none())
    }

    /// Accepts all messages that the host has not decided about. Most often there is one.
    #[inline]
    pub(crate) fn accept_all(&mut self) {
        for index in 0..self.waiting.len() {
            if let Some(waiting) = self.waiting.get_mut(index) {
                waiting.verdict.get_or_insert(ReasonCode::SUCCESS);
            }
        }
    }

    /// Whether a message with that identifier was delivered and is not acknowledged. Looks at each
    /// entry.
    pub(crate) fn contains(&self, packet_identifier: PacketIdentifier) -> bool {
        self.waiting.iter().any(|waiting| {
            waiting.turn == Turn::First && waiting.packet_identifier == packet_identifier
        })
    }

    /// Returns the QoS 2 messages that were delivered, not acknowledged, and not refused.
    pub(crate) fn exactly_once(&self) -> impl Iterator<Item = PacketIdentifier> + '_ {
        let delivered = self.waiting.iter().filter(|waiting| {
            waiting.qos == QoS::ExactlyOnce
                && waiting.turn == Turn::First
                && !waiting.verdict.is_some_and(ReasonCode::is_error)
        });
        delivered.map(|waiting| waiting.packet_identifier)
    }

    /// Returns the first message, if the host has decided about it.
    #[inline]
    pub(crate) fn next(&self) -> Option<(&Waiting, ReasonCode)> {
        let waiting = self.waiting.front()?;
        Some((waiting, waiting.verdict?))
    }

    /// Removes the first message.
    #[inline]
    pub(crate) fn pop(&mut self) {
        if self.waiting.pop_front().is_some() {
            self.first += 1;
        }
    }
}
