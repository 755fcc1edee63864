//! Messages on their way to the peer: one ring of packet identifiers, and a queue before it.

#![expect(clippy::wildcard_enum_match_arm, reason = "what is not named in the table may not come in that state")]

use super::{Message, Outgoing};
use crate::codec::{PacketIdentifier, PacketType, QoS};
use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// What a packet identifier stands for. [5.0 §4.3] [3.1.1 §4.3]
///
/// ```text
///  QoS 1   (none) ──PUBLISH──► AwaitAck ──PUBACK──► Free
///  QoS 2   (none) ──PUBLISH──► AwaitAck ──PUBREC──► AwaitPubcomp ──PUBCOMP──► Free
///                                 └──PUBREC with an error──► Free
///  SUBSCRIBE, UNSUBSCRIBE      AwaitSuback ──SUBACK, UNSUBACK──► Free
///
///  end of the connection: AwaitAck ──► DuePublish, AwaitPubcomp ──► DuePubrel, AwaitSuback ──► Free
///  next connection:       DuePublish ──PUBLISH with DUP──► AwaitAck, DuePubrel ──PUBREL──► AwaitPubcomp
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nothing; the identifier can be given out again when its turn comes.
    Free,
    /// A PUBLISH that must be sent again.
    DuePublish(Outgoing),
    /// A PUBLISH that was sent on this connection.
    AwaitAck(Outgoing),
    /// A PUBREL that must be sent again.
    DuePubrel { key: Option<u64> },
    /// A PUBREL that was sent on this connection.
    AwaitPubcomp {
        key: Option<u64>,
        /// Whether its PUBLISH was sent on this connection too, and so takes part of the Receive Maximum.
        counted: bool,
    },
    /// A SUBSCRIBE or UNSUBSCRIBE that was sent on this connection, with that many topic filters.
    AwaitSuback { key: u64, filters: usize, unsubscribe: bool },
}

impl Slot {
    /// What becomes of it when the connection ends.
    fn disconnected(self) -> Self {
        match self {
            Self::AwaitAck(outgoing) => Self::DuePublish(outgoing),
            Self::AwaitPubcomp { key, .. } => Self::DuePubrel { key },
            // They are not part of the session. [5.0 §4.1] [3.1.1 §4.1]
            Self::AwaitSuback { .. } => Self::Free,
            Self::Free | Self::DuePublish(_) | Self::DuePubrel { .. } => self,
        }
    }
}

/// What a PUBACK, PUBREC or PUBCOMP means for the identifier that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The message has come to its end.
    Ends { key: Option<u64>, counted: bool },
    /// The message has arrived, and PUBREL is owed.
    Releases { key: Option<u64>, counted: bool },
    /// PUBREL is owed once more: the PUBREC is a repeat.
    ReleasesAgain,
    /// There is no such message.
    Unknown,
    /// It acknowledges a packet of another kind.
    Wrong,
}

impl Slot {
    /// The table of what may come, and what it does. [5.0 §4.3] [3.1.1 §4.3]
    pub(crate) fn answered(&self, packet: PacketType, is_error: bool) -> Meaning {
        // A message that waits to be sent again may still be acknowledged: the peer has it.
        let publish = match self {
            Self::AwaitAck(outgoing) => Some((outgoing, true)),
            Self::DuePublish(outgoing) => Some((outgoing, false)),
            _ => None,
        };
        if let Some((outgoing, counted)) = publish {
            let key = outgoing.key;
            return match (outgoing.message.qos(), packet) {
                (QoS::AtLeastOnce, PacketType::Puback) => Meaning::Ends { key, counted },
                (QoS::ExactlyOnce, PacketType::Pubrec) if is_error => Meaning::Ends { key, counted },
                (QoS::ExactlyOnce, PacketType::Pubrec) => Meaning::Releases { key, counted },
                _ => Meaning::Wrong,
            };
        }
        match (self, packet) {
            (Self::Free, _) => Meaning::Unknown,
            (Self::AwaitPubcomp { key, counted }, PacketType::Pubcomp) => Meaning::Ends { key: *key, counted: *counted },
            (Self::DuePubrel { key }, PacketType::Pubcomp) => Meaning::Ends { key: *key, counted: false },
            (Self::AwaitPubcomp { .. } | Self::DuePubrel { .. }, PacketType::Pubrec) => Meaning::ReleasesAgain,
            _ => Meaning::Wrong,
        }
    }
}

/// All that is on its way to the peer.
///
/// Identifiers are given out in rising order and each has a place in the ring from then on, so an identifier that is in
/// use cannot be given out again, finding one takes no search, and the ring is the original order. It starts at the
/// oldest one in use; those freed behind it wait for it.
#[derive(Debug)]
pub(crate) struct Outbound {
    ring: VecDeque<Slot>,
    /// The identifier of the first place in the ring.
    first: u16,
    /// Messages that wait for an identifier: the quota is used up, or there is no connection.
    queue: VecDeque<Outgoing>,
    queued_bytes: usize,
    /// No message in the queue expires before.
    earliest_expiry: Option<Instant>,
    /// How many of the first places in the ring need no sending again.
    resent: usize,
}

impl Default for Outbound {
    fn default() -> Self {
        Self { ring: VecDeque::new(), first: 1, queue: VecDeque::new(), queued_bytes: 0, earliest_expiry: None, resent: 0 }
    }
}

/// There are no more identifiers: 1 to 65,535.
const IDENTIFIERS: usize = 65_535;

impl Outbound {
    /// Gives out an identifier, if there is one. Inlined, so that the slot is made in its place.
    #[inline(always)]
    pub(crate) fn insert(&mut self, slot: Slot) -> Option<PacketIdentifier> {
        let identifier = self.next()?;
        if self.resent == self.ring.len() {
            self.resent += 1;
        }
        self.ring.push_back(slot);
        Some(identifier)
    }

    /// The identifier that [`insert`](Self::insert) will give out.
    pub(crate) fn next(&self) -> Option<PacketIdentifier> {
        if self.ring.len() < IDENTIFIERS { self.identifier(self.ring.len()) } else { None }
    }

    /// For what was stored: all is due.
    pub(crate) fn load(&mut self, first: PacketIdentifier, ring: VecDeque<Slot>, queue: Vec<Outgoing>) {
        (self.first, self.ring) = (first.get(), ring);
        queue.into_iter().for_each(|outgoing| self.enqueue(outgoing));
        self.trim();
    }

    pub(crate) fn first(&self) -> u16 {
        self.first
    }

    /// The places of the ring, in their order.
    pub(crate) fn ring(&self) -> impl ExactSizeIterator<Item = &Slot> {
        self.ring.iter()
    }

    /// What waits, the next to be sent first.
    pub(crate) fn queue(&self) -> impl ExactSizeIterator<Item = &Outgoing> {
        self.queue.iter()
    }

    /// How far the identifiers in use are apart.
    pub(crate) fn span(&self) -> usize {
        self.ring.len()
    }

    pub(crate) fn get_mut(&mut self, identifier: PacketIdentifier) -> Option<&mut Slot> {
        let index = self.index(identifier);
        self.ring.get_mut(index)
    }

    pub(crate) fn free(&mut self, identifier: PacketIdentifier) {
        self.release(identifier);
        self.trim();
    }

    /// Frees an identifier, and leaves the places in the ring as they are until [`trim`](Self::trim).
    pub(crate) fn release(&mut self, identifier: PacketIdentifier) {
        if let Some(slot) = self.get_mut(identifier) {
            *slot = Slot::Free;
        }
    }

    /// The places of the ring from `index` on, with their identifiers.
    pub(crate) fn slot_at(&mut self, index: usize) -> Option<(PacketIdentifier, &mut Slot)> {
        let identifier = self.identifier(index)?;
        self.ring.get_mut(index).map(|slot| (identifier, slot))
    }

    /// The first message that must be sent again.
    pub(crate) fn next_due(&mut self) -> Option<(PacketIdentifier, &mut Outgoing)> {
        while let Some(slot) = self.ring.get(self.resent) {
            if matches!(slot, Slot::DuePublish(_)) {
                break;
            }
            self.resent += 1;
        }
        let index = self.resent;
        match self.slot_at(index)? {
            (identifier, Slot::DuePublish(outgoing)) => Some((identifier, outgoing)),
            _ => None,
        }
    }

    pub(crate) fn enqueue(&mut self, outgoing: Outgoing) {
        self.queued_bytes += outgoing.message.size();
        self.earliest_expiry = self.earliest_expiry.into_iter().chain(outgoing.expires_at).min();
        self.queue.push_back(outgoing);
    }

    pub(crate) fn dequeue(&mut self) -> Option<Outgoing> {
        let outgoing = self.queue.pop_front()?;
        self.queued_bytes -= outgoing.message.size();
        if self.queue.is_empty() && self.queue.capacity() > KEPT_CAPACITY {
            self.queue.shrink_to(0);
        }
        Some(outgoing)
    }

    /// Whether something may wait to be sent.
    pub(crate) fn waits(&self) -> bool {
        !self.queue.is_empty() || self.resent < self.ring.len()
    }

    pub(crate) fn queue_front(&self) -> Option<&Outgoing> {
        self.queue.front()
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Takes out the queued messages that have expired, all of them. [5.0 MQTT-3.3.2-5]
    pub(crate) fn take_expired(&mut self, now: Instant) -> impl Iterator<Item = Outgoing> + use<> {
        // Where none can have expired, none is looked at: a client that is not read from has a full queue for long.
        if self.earliest_expiry.is_none_or(|at| now < at) {
            return VecDeque::new().into_iter();
        }
        let live = |outgoing: &Outgoing| outgoing.expires_at.is_none_or(|at| now < at);
        let (kept, expired): (VecDeque<_>, VecDeque<_>) = core::mem::take(&mut self.queue).into_iter().partition(live);
        self.queue = kept;
        self.earliest_expiry = self.queue.iter().filter_map(|outgoing| outgoing.expires_at).min();
        self.queued_bytes = self.queue.iter().map(|outgoing| outgoing.message.size()).sum();
        expired.into_iter()
    }

    /// Whether a message must be sent again.
    pub(crate) fn has_due(&self) -> bool {
        self.ring.iter().skip(self.resent).any(|slot| matches!(slot, Slot::DuePublish(_)))
    }

    /// Messages that were sent, and not completed.
    pub(crate) fn in_flight(&self) -> usize {
        self.ring.iter().filter(|slot| !matches!(slot, Slot::Free | Slot::AwaitSuback { .. })).count()
    }

    pub(crate) fn disconnected(&mut self) {
        for slot in &mut self.ring {
            *slot = core::mem::replace(slot, Slot::Free).disconnected();
        }
        self.resent = 0;
        self.trim();
    }

    /// Takes out what was in flight, in order: the peer has forgotten it.
    pub(crate) fn forget(&mut self) -> impl Iterator<Item = (u64, Option<Message>)> + use<> {
        self.resent = 0;
        // Identifiers go on from where they were: what the peer still sends for the old ones finds nothing.
        self.first = self.next().map_or(1, PacketIdentifier::get);
        core::mem::take(&mut self.ring).into_iter().filter_map(|slot| match slot {
            Slot::DuePublish(outgoing) | Slot::AwaitAck(outgoing) => Some((outgoing.key?, Some(outgoing.message))),
            Slot::DuePubrel { key } | Slot::AwaitPubcomp { key, .. } => Some((key?, None)),
            Slot::Free | Slot::AwaitSuback { .. } => None,
        })
    }

    /// Gives back the places before the oldest identifier in use.
    pub(crate) fn trim(&mut self) {
        while let Some(Slot::Free) = self.ring.front() {
            self.ring.pop_front();
            self.first = if self.first == u16::MAX { 1 } else { self.first + 1 };
            self.resent = self.resent.saturating_sub(1);
        }
        if self.ring.is_empty() && self.ring.capacity() > KEPT_CAPACITY {
            self.ring.shrink_to(0);
        }
    }

    fn identifier(&self, index: usize) -> Option<PacketIdentifier> {
        let number = (usize::from(self.first) - 1 + index) % IDENTIFIERS + 1;
        u16::try_from(number).ok().and_then(PacketIdentifier::new)
    }

    fn index(&self, identifier: PacketIdentifier) -> usize {
        (usize::from(identifier.get()) + IDENTIFIERS - usize::from(self.first)) % IDENTIFIERS
    }
}

/// A ring that a burst has made larger than this gives its memory back when it is empty.
const KEPT_CAPACITY: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        Slot::AwaitSuback { key: 0, filters: 1, unsubscribe: false }
    }

    /// Each acknowledgement in each state. [5.0 §4.3] [3.1.1 §4.3]
    #[test]
    fn each_acknowledgement_has_one_meaning_in_each_state() {
        let outgoing = |qos| {
            let publish = crate::codec::Publish { qos, ..crate::codec::Publish::new("t", b"") };
            Outgoing::new(Some(1), Message::new(&publish).unwrap())
        };
        let key = Some(1);
        let (ends, ended) = (Meaning::Ends { key, counted: true }, Meaning::Ends { key, counted: false });
        let (releases, released) = (Meaning::Releases { key, counted: true }, Meaning::Releases { key, counted: false });
        let (again, unknown, wrong) = (Meaning::ReleasesAgain, Meaning::Unknown, Meaning::Wrong);
        let (once, twice) = (outgoing(QoS::AtLeastOnce), outgoing(QoS::ExactlyOnce));
        // PUBACK, PUBREC, PUBREC with an error, PUBCOMP.
        for (slot, expected) in [
            (Slot::Free, [unknown; 4]),
            (slot(), [wrong; 4]),
            (Slot::AwaitAck(once.clone()), [ends, wrong, wrong, wrong]),
            (Slot::DuePublish(once), [ended, wrong, wrong, wrong]),
            (Slot::AwaitAck(twice.clone()), [wrong, releases, ends, wrong]),
            (Slot::DuePublish(twice), [wrong, released, ended, wrong]),
            (Slot::AwaitPubcomp { key, counted: true }, [wrong, again, again, ends]),
            (Slot::DuePubrel { key }, [wrong, again, again, ended]),
        ] {
            let packets = [PacketType::Puback, PacketType::Pubrec, PacketType::Pubrec, PacketType::Pubcomp];
            let meant = [0, 1, 2, 3].map(|index| slot.answered(packets[index], index == 2));
            assert_eq!(meant, expected, "{slot:?}");
        }
    }

    #[test]
    fn identifiers_are_never_given_out_twice() {
        let mut outbound = Outbound::default();
        let stuck = outbound.insert(slot()).unwrap();
        for _ in 0..200_000 {
            match outbound.insert(slot()) {
                Some(identifier) => {
                    assert_ne!(identifier, stuck);
                    outbound.free(identifier);
                }
                None => {
                    assert_eq!(outbound.span(), IDENTIFIERS);
                    break;
                }
            }
        }
        assert_eq!(outbound.insert(slot()), None, "the whole ring lies behind the one that is stuck");
        outbound.free(stuck);
        assert_eq!(outbound.span(), 0);
        let all: Vec<_> = (0..IDENTIFIERS).map(|_| outbound.insert(slot()).unwrap()).collect();
        assert_eq!(outbound.insert(slot()), None);
        let mut sorted = all.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), IDENTIFIERS);
        for identifier in all.into_iter().rev() {
            assert_eq!(outbound.get_mut(identifier), Some(&mut slot()));
            outbound.free(identifier);
        }
        assert_eq!((outbound.span(), outbound.ring.capacity()), (0, 0));
    }
}
