//! The parts of a session that a host stores, a piece at a time, so that a crash loses nothing.

use super::inbound::Exchange;
use super::outbound::Outbound;
use super::slot::Slot;
use super::{Outgoing, Session};
use crate::codec::{PacketIdentifier, QoS};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// A change of the exchange of a QoS 2 message.
///
/// A machine whose session [records changes](Session::record_changes) reports them, so that a host
/// can store each of them by itself and not the whole session. Each change is the new state of one
/// packet identifier in one direction. The last one counts.
///
/// The messages themselves are known to the host without changes: it queues them under their keys,
/// and [`Published`](super::Published) ends each key. A QoS 1 message needs no identifier after a
/// crash: it is sent again as a new packet, which QoS 1 allows. A QoS 2 message sent with another
/// identifier would arrive twice.
///
/// ```
/// use mqtt_sansio::Instant;
/// use mqtt_sansio::codec::{ConnackProperties, PacketIdentifier, Publish, QoS};
/// use mqtt_sansio::server::{Action, Server, ServerConfig};
/// use mqtt_sansio::session::{Change, Message, Outgoing};
///
/// let (now, mut out) = (Instant::default(), Vec::new());
/// let mut server = Server::new(ServerConfig::new(), now);
/// let mut input = &b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01c"[..];
/// assert!(matches!(server.handle_input(&mut input, now, &mut out), Some(Action::Connect(_))));
/// server.accept(None, ConnackProperties::default(), now, &mut out)?;
/// server.record_changes();
///
/// let publish = Publish { qos: QoS::ExactlyOnce, ..Publish::new("t", b"!") };
/// server.deliver(Outgoing::new(Some(7), Message::new(&publish)?), now).unwrap();
/// out.clear();
/// assert!(!server.flush(now, &mut out));
/// // To be stored before `out` is sent.
/// let packet_identifier = PacketIdentifier::new(1).unwrap();
/// let sent = Change::Sent { packet_identifier, key: Some(7) };
/// assert!(sent.holds_output());
/// assert_eq!((server.next_change(), server.next_change()), (Some(sent), None));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[expect(clippy::exhaustive_enums, reason = "a host that overlooks a change loses messages")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A message was sent for the first time. After a crash it must be resent with this
    /// identifier.
    Sent {
        /// The identifier of its PUBLISH.
        packet_identifier: PacketIdentifier,
        /// The key of the message.
        key: Option<u64>,
    },
    /// The receiver has the message, which is not needed any more. PUBREL is owed.
    Released {
        /// The identifier of the exchange.
        packet_identifier: PacketIdentifier,
        /// The key of the message.
        key: Option<u64>,
    },
    /// The message must not be resent, but its identifier stays reserved.
    Withheld {
        /// The identifier of the exchange.
        packet_identifier: PacketIdentifier,
    },
    /// The exchange has ended, and its identifier is free.
    Ended {
        /// The identifier of the exchange.
        packet_identifier: PacketIdentifier,
    },
    /// A message of the peer was accepted. Another PUBLISH with this identifier is the same
    /// message.
    Accepted {
        /// The identifier that the peer has given.
        packet_identifier: PacketIdentifier,
    },
    /// The peer has released a message. The next PUBLISH with this identifier is another message.
    Completed {
        /// The identifier that the peer has given.
        packet_identifier: PacketIdentifier,
    },
}

impl Change {
    /// Whether the change must be stored before the output of the call that has made it is sent.
    /// Otherwise a crash could double the message, or lose the next one.
    #[must_use]
    pub const fn holds_output(self) -> bool {
        match self {
            Self::Sent { .. }
            | Self::Released { .. }
            | Self::Accepted { .. }
            | Self::Completed { .. } => true,
            Self::Withheld { .. } | Self::Ended { .. } => false,
        }
    }
}

/// The debt to the peer under a packet identifier.
#[expect(clippy::exhaustive_enums, reason = "the states of an exchange are those of the standard")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owed {
    /// A PUBLISH that must be resent. Its QoS is 1 or 2.
    Publish(Outgoing),
    /// A PUBREL that must be resent, with the key of its message.
    Pubrel(Option<u64>),
    /// Nothing, but the identifier is [reserved](Change::Withheld).
    Nothing,
}

impl Session {
    /// Starts to record [changes](Change), which the host takes with
    /// [`next_change`](Self::next_change) after each call of the machine that has the session.
    pub fn record_changes(&mut self) {
        self.changes.get_or_insert_default();
    }

    /// Returns the next change that the host has not taken. A machine that holds the session
    /// returns them itself.
    #[must_use = "a change that is dropped is not stored"]
    #[inline]
    pub fn next_change(&mut self) -> Option<Change> {
        self.changes.as_mut()?.pop_front()
    }

    /// Notes a change, if changes are recorded.
    #[inline]
    pub(super) fn note(&mut self, change: Change) {
        if let Some(changes) = &mut self.changes {
            changes.push_back(change);
        }
    }

    /// Returns a session with what a host has stored, as it is after an abrupt disconnect.
    ///
    /// - `owed` are the exchanges of messages that were sent, in the order in which they are
    ///   resent: PUBLISH packets in the order of their first transmission, PUBREL packets in the
    ///   order of their PUBREC. [5.0 MQTT-4.6.0-1] [5.0 MQTT-4.6.0-4]
    /// - `accepted` are the identifiers of QoS 2 messages that were accepted and not completed.
    /// - `waiting` are the messages that wait to be sent, the next one first.
    ///
    /// Returns `None` if an identifier is owed twice, or a PUBLISH with QoS 0.
    #[must_use]
    pub fn restore(
        owed: impl IntoIterator<Item = (PacketIdentifier, Owed)>,
        accepted: impl IntoIterator<Item = PacketIdentifier>,
        waiting: impl IntoIterator<Item = Outgoing>,
    ) -> Option<Self> {
        let slot = |(packet_identifier, owed)| {
            let slot = match owed {
                Owed::Publish(outgoing) if outgoing.message.qos() == QoS::AtMostOnce => None,
                Owed::Publish(outgoing) => Some(Slot::DuePublish(outgoing)),
                Owed::Pubrel(key) => Some(Slot::DuePubrel { key }),
                Owed::Nothing => Some(Slot::Withheld),
            };
            Some((packet_identifier, slot?))
        };
        let slots: Option<Vec<_>> = owed.into_iter().map(slot).collect();
        let outbound = Outbound::load(PacketIdentifier::FIRST, slots?, waiting)?;
        let accepted = accepted.into_iter().map(|identifier| (identifier, Exchange::ACCEPTED));
        Some(Self { outbound, inbound: accepted.collect(), ..Self::default() })
    }

    /// Returns the session as that of a client which the server can have kept, like an
    /// [`established`](Self::established) one, and binds it to the client identifier, if there is
    /// one.
    ///
    /// A client that has stored its session in pieces continues with it after a crash.
    #[must_use]
    pub fn established_for(self, client_identifier: Option<&str>) -> Self {
        let client_identifier = client_identifier.filter(|text| !text.is_empty());
        let client_identifier = client_identifier.map(|text| Box::new(text.into()));
        Self { established: true, client_identifier, ..self }
    }

    /// Chooses the next packet identifier by any number.
    pub(crate) fn set_next_identifier(&mut self, number: u64) {
        let [.., high, low] = number.to_be_bytes();
        self.outbound.slots.next = u16::from_be_bytes([high, low]).max(1);
    }

    /// Counts messages with QoS 1 that wait as sent: the ones that can have been, because the
    /// session was stored before they were sent. They are resent, in the order of their keys.
    /// Without a record a message with QoS 2 was not sent, and neither were those behind it.
    pub(crate) fn presume_sent(&mut self, now: Instant) {
        let Outbound { slots, queue, .. } = &mut self.outbound;
        let (waiting, mut can_be_sent) = (queue.take_all(), true);
        for outgoing in waiting {
            can_be_sent &= outgoing.message.qos() == QoS::AtLeastOnce;
            let is_expired = outgoing.expires_at.is_some_and(|at| at <= now);
            match slots.allocate().filter(|_| can_be_sent && !is_expired) {
                Some(identifier) => slots.insert(identifier, Slot::DuePublish(outgoing)),
                None => queue.push(outgoing),
            }
        }
        let publish = |(identifier, slot): (PacketIdentifier, &Slot)| {
            if let Slot::DuePublish(outgoing) = slot {
                return Some((outgoing.key, identifier));
            }
            None
        };
        let mut in_order: Vec<_> = slots.iter().filter_map(publish).collect();
        in_order.sort_unstable();
        in_order.iter().for_each(|(_, identifier)| slots.move_to_back(*identifier));
    }

    /// Returns what is owed to the peer, in the order in which it is resent.
    pub(crate) fn owed(&self) -> impl Iterator<Item = (PacketIdentifier, OwedRef<'_>)> {
        self.outbound.slots.iter().filter_map(|(identifier, slot)| {
            let owed = match slot {
                Slot::DuePublish(outgoing) | Slot::AwaitAck(outgoing) => OwedRef::Publish(outgoing),
                Slot::DuePubrel { .. } | Slot::AwaitPubcomp { .. } => OwedRef::Pubrel,
                Slot::Withheld => OwedRef::Nothing,
                Slot::AwaitSuback { .. } => return None,
            };
            Some((identifier, owed))
        })
    }

    /// Returns the messages that wait to be sent, the next one first.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Outgoing> {
        self.outbound.queue.iter()
    }

    /// Returns the identifiers of QoS 2 messages that were accepted and not completed.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = PacketIdentifier> + '_ {
        let accepted = self.inbound.iter().filter(|(_, exchange)| exchange.is_accepted());
        accepted.map(|(identifier, _)| *identifier)
    }
}

/// A view of what is owed to the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OwedRef<'s> {
    Publish(&'s Outgoing),
    Pubrel,
    Nothing,
}
