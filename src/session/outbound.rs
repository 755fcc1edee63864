//! Messages on their way to the peer: one ring of packet identifiers, and a queue before it.

use super::{Message, Outgoing};
use crate::codec::{PacketIdentifier, QoS};
use crate::time::Instant;
use alloc::collections::VecDeque;

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
    /// How many of the first places in the ring need no sending again.
    resent: usize,
}

impl Default for Outbound {
    fn default() -> Self {
        Self { ring: VecDeque::new(), first: 1, queue: VecDeque::new(), queued_bytes: 0, resent: 0 }
    }
}

/// There are no more identifiers: 1 to 65,535.
const IDENTIFIERS: usize = 65_535;

impl Outbound {
    /// Gives out an identifier, if there is one.
    pub(crate) fn insert(&mut self, slot: Slot) -> Option<PacketIdentifier> {
        let identifier = self.next()?;
        self.ring.push_back(slot);
        Some(identifier)
    }

    /// The identifier that [`insert`](Self::insert) will give out.
    pub(crate) fn next(&self) -> Option<PacketIdentifier> {
        if self.ring.len() < IDENTIFIERS { self.identifier(self.ring.len()) } else { None }
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
        let live = |outgoing: &Outgoing| outgoing.expires_at.is_none_or(|at| now < at);
        if self.queue.iter().all(live) {
            return VecDeque::new().into_iter();
        }
        let (kept, expired): (VecDeque<_>, VecDeque<_>) = core::mem::take(&mut self.queue).into_iter().partition(live);
        self.queue = kept;
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

/// What a message's first acknowledgement is.
pub(crate) fn is_exactly_once(outgoing: &Outgoing) -> bool {
    outgoing.message.qos() == QoS::ExactlyOnce
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn slot() -> Slot {
        Slot::AwaitSuback { key: 0, filters: 1, unsubscribe: false }
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
