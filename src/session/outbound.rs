//! Messages on their way to the peer: one ring of packet identifiers, and a queue before it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not named in the table may not come in that state"
)]

use super::{Message, Outgoing};
use crate::codec::{PacketIdentifier, PacketType, QoS};
use crate::time::Instant;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// What a packet identifier stands for. [5.0 §4.3] [3.1.1 §4.3]
///
/// ```text
///  QoS 1   (none) ──PUBLISH──► AwaitAck ──PUBACK──► Free
///  QoS 2   (none) ──PUBLISH──► AwaitAck ──PUBREC──► AwaitPubcomp ──PUBCOMP──► Free
///                                 └──PUBREC with an error──► Free
///          a PUBLISH that may not be sent again: QoS 1 DuePublish ──► Free, QoS 2 DuePublish ──► Barred ──PUBREC──► AwaitPubcomp
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
    /// A QoS 2 PUBLISH that the peer may have and does not take any more, as with a Maximum QoS
    /// that is now lower. Its host was told that it is not sent, so it is not sent again; but as
    /// long as the peer has the session, another message with the identifier would be taken for
    /// this one.
    Barred,
    /// A PUBREL that must be sent again.
    DuePubrel {
        key: Option<u64>,
        /// Rises from one PUBREC to the next.
        received: u64,
    },
    /// A PUBREL that was sent on this connection.
    AwaitPubcomp {
        key: Option<u64>,
        received: u64,
        /// Whether its PUBLISH was sent on this connection too, and so takes part of the Receive
        /// Maximum.
        counted: bool,
    },
    /// A SUBSCRIBE or UNSUBSCRIBE that was sent on this connection, with that many topic filters.
    AwaitSuback { key: u64, filters: usize, unsubscribe: bool },
}

impl Slot {
    const fn is_free(&self) -> bool {
        matches!(self, Self::Free)
    }

    /// What becomes of it when the connection ends.
    fn disconnected(self) -> Self {
        match self {
            Self::AwaitAck(outgoing) => Self::DuePublish(outgoing),
            Self::AwaitPubcomp { key, received, .. } => Self::DuePubrel { key, received },
            // They are not part of the session. [5.0 §4.1] [3.1.1 §4.1]
            Self::AwaitSuback { .. } => Self::Free,
            Self::Free | Self::DuePublish(_) | Self::Barred | Self::DuePubrel { .. } => self,
        }
    }

    /// How it ends when the peer has forgotten it, for who waits for that.
    fn lost(self) -> Option<(u64, Option<Message>)> {
        match self {
            Self::DuePublish(outgoing) | Self::AwaitAck(outgoing) => {
                Some((outgoing.key?, Some(outgoing.message)))
            }
            Self::DuePubrel { key, .. } | Self::AwaitPubcomp { key, .. } => Some((key?, None)),
            Self::Free | Self::Barred | Self::AwaitSuback { .. } => None,
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
                (QoS::ExactlyOnce, PacketType::Pubrec) if is_error => {
                    Meaning::Ends { key, counted }
                }
                (QoS::ExactlyOnce, PacketType::Pubrec) => Meaning::Releases { key, counted },
                _ => Meaning::Wrong,
            };
        }
        match (self, packet) {
            (Self::Free, _) => Meaning::Unknown,
            (Self::Barred, PacketType::Pubrec) if is_error => {
                Meaning::Ends { key: None, counted: false }
            }
            (Self::Barred, PacketType::Pubrec) => Meaning::Releases { key: None, counted: false },
            (Self::AwaitPubcomp { key, counted, .. }, PacketType::Pubcomp) => {
                Meaning::Ends { key: *key, counted: *counted }
            }
            (Self::DuePubrel { key, .. }, PacketType::Pubcomp) => {
                Meaning::Ends { key: *key, counted: false }
            }
            (Self::AwaitPubcomp { .. } | Self::DuePubrel { .. }, PacketType::Pubrec) => {
                Meaning::ReleasesAgain
            }
            _ => Meaning::Wrong,
        }
    }
}

/// All that is on its way to the peer.
///
/// Identifiers are given out in rising order and each has a place in the ring from then on, so
/// finding one takes no search, and the ring is the original order. It starts at the oldest one in
/// use; those freed behind it wait for it. Should that make the ring much longer than what is in
/// use, the oldest are left behind: they are kept apart, and the ring goes on without them.
#[derive(Debug)]
pub(crate) struct Outbound {
    ring: VecDeque<Slot>,
    /// The identifier of the first place in the ring.
    first: u16,
    /// How many places of the ring are not free.
    occupied: usize,
    /// Those left behind, each with a number that rises in their order.
    left_behind: BTreeMap<PacketIdentifier, (u64, Slot)>,
    /// The next number for what is left behind, or released.
    number: u64,
    /// Those of the PUBLISH packets that must be sent again on this connection, in their order, and
    /// some that need not any more.
    due: VecDeque<PacketIdentifier>,
    /// Messages that wait for an identifier: the quota is used up, or there is no connection.
    queue: VecDeque<Outgoing>,
    queued_bytes: usize,
    /// No message in the queue expires before.
    earliest_expiry: Option<Instant>,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            ring: VecDeque::new(),
            first: 1,
            occupied: 0,
            left_behind: BTreeMap::new(),
            number: 0,
            due: VecDeque::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            earliest_expiry: None,
        }
    }
}

/// There are no more identifiers: 1 to 65,535.
const IDENTIFIERS: usize = 65_535;

impl Outbound {
    /// The identifier that [`insert`](Self::insert) will give out, if there is one.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<PacketIdentifier> {
        if self.ring.len() >= self.longest() || !self.left_behind.is_empty() {
            self.make_way();
        }
        if self.has_identifier() { self.identifier(self.ring.len()) } else { None }
    }

    /// Gives out the identifier that [`next`](Self::next) has found. Inlined, so that the slot is
    /// made in its place.
    #[inline]
    pub(crate) fn insert(&mut self, slot: Slot) {
        self.occupied += 1;
        self.ring.push_back(slot);
    }

    /// Whether there is an identifier that is not in use.
    pub(crate) fn has_identifier(&self) -> bool {
        self.occupied + self.left_behind.len() < IDENTIFIERS
    }

    /// The places that the ring may have before the oldest are left behind.
    fn longest(&self) -> usize {
        (4 * self.occupied + KEPT_CAPACITY).min(IDENTIFIERS)
    }

    /// Sees to it that the next place of the ring is one for an identifier that is not in use, if
    /// there is any.
    #[cold]
    fn make_way(&mut self) {
        while self.has_identifier() {
            if self.ring.len() >= self.longest() {
                if let (Some(identifier), Some(slot)) = (self.identifier(0), self.ring.pop_front())
                {
                    self.first = after(self.first);
                    if !slot.is_free() {
                        let number = self.count();
                        self.occupied -= 1;
                        self.left_behind.insert(identifier, (number, slot));
                    }
                }
            } else if self
                .identifier(self.ring.len())
                .is_some_and(|identifier| self.left_behind.contains_key(&identifier))
            {
                self.ring.push_back(Slot::Free);
            } else {
                return;
            }
            self.trim();
        }
    }

    /// The peer has a QoS 2 message: PUBREL is owed for it, and sent.
    pub(crate) fn release(
        &mut self,
        identifier: PacketIdentifier,
        key: Option<u64>,
        counted: bool,
    ) {
        let received = self.count();
        if let Some(slot) = self.get_mut(identifier) {
            *slot = Slot::AwaitPubcomp { key, received, counted };
        }
    }

    /// The next of the numbers by which things are kept in order.
    fn count(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// For what was stored: all is due. False if that cannot be.
    pub(crate) fn load(
        &mut self,
        first: PacketIdentifier,
        left_behind: Vec<(PacketIdentifier, Slot)>,
        ring: VecDeque<Slot>,
        queue: Vec<Outgoing>,
    ) -> bool {
        (self.first, self.ring) = (first.get(), ring);
        self.occupied = self.ring.iter().filter(|slot| !slot.is_free()).count();
        let slots = left_behind.iter().map(|(_, slot)| slot).chain(&self.ring);
        let released = slots.filter_map(|slot| {
            if let Slot::DuePubrel { received, .. } = slot { Some(*received) } else { None }
        });
        self.number = released.max().unwrap_or(0);
        for (identifier, slot) in left_behind {
            let number = self.count();
            if slot.is_free() || self.get(identifier).is_some() {
                return false;
            }
            self.left_behind.insert(identifier, (number, slot));
        }
        queue.into_iter().for_each(|outgoing| self.enqueue(outgoing));
        self.trim();
        true
    }

    pub(crate) fn first(&self) -> u16 {
        self.first
    }

    /// The places of the ring, in their order.
    pub(crate) fn ring(&self) -> impl ExactSizeIterator<Item = &Slot> {
        self.ring.iter()
    }

    /// Those that were left behind, in their order.
    pub(crate) fn left_behind(&self) -> Vec<(PacketIdentifier, &Slot)> {
        let mut slots: Vec<_> = self.left_behind.iter().collect();
        slots.sort_unstable_by_key(|(_, (number, _))| *number);
        slots.into_iter().map(|(identifier, (_, slot))| (*identifier, slot)).collect()
    }

    /// What waits, the next to be sent first.
    pub(crate) fn queue(&self) -> impl ExactSizeIterator<Item = &Outgoing> {
        self.queue.iter()
    }

    /// What an identifier in use stands for.
    pub(crate) fn get_mut(&mut self, identifier: PacketIdentifier) -> Option<&mut Slot> {
        let index = self.index(identifier);
        match self.ring.get_mut(index) {
            Some(slot) if !slot.is_free() => Some(slot),
            _ => self.left_behind.get_mut(&identifier).map(|(_, slot)| slot),
        }
    }

    fn get(&self, identifier: PacketIdentifier) -> Option<&Slot> {
        let slot = self.ring.get(self.index(identifier)).filter(|slot| !slot.is_free());
        slot.or_else(|| self.left_behind.get(&identifier).map(|(_, slot)| slot))
    }

    pub(crate) fn free(&mut self, identifier: PacketIdentifier) {
        let index = self.index(identifier);
        match self.ring.get_mut(index) {
            Some(slot) if !slot.is_free() => {
                *slot = Slot::Free;
                self.occupied -= 1;
                self.trim();
            }
            _ => _ = self.left_behind.remove(&identifier),
        }
    }

    /// The identifiers in use, in the order in which they were given out.
    pub(crate) fn in_use(&self) -> Vec<PacketIdentifier> {
        let left_behind = self.left_behind().into_iter().map(|(identifier, _)| identifier);
        let occupied = self.ring.iter().enumerate().filter(|(_, slot)| !slot.is_free());
        left_behind.chain(occupied.filter_map(|(index, _)| self.identifier(index))).collect()
    }

    /// A connection begins: what it must send again. PUBREL packets in the order of their PUBREC,
    /// at the places of any of them. [5.0 MQTT-4.6.0-4] [3.1.1 MQTT-4.6.0-4]
    pub(crate) fn resume(&mut self) -> Vec<PacketIdentifier> {
        let mut in_use = self.in_use();
        let released = |identifier: &PacketIdentifier| match self.get(*identifier) {
            Some(Slot::DuePubrel { received, .. }) => Some((*received, *identifier)),
            _ => None,
        };
        let mut pubrels: Vec<_> = in_use.iter().filter_map(released).collect();
        pubrels.sort_unstable();
        let places = in_use.iter_mut().filter(|identifier| released(identifier).is_some());
        places.zip(pubrels).for_each(|(place, (_, identifier))| *place = identifier);
        in_use
    }

    /// A message that must be sent again cannot be sent yet.
    pub(crate) fn wait(&mut self, identifier: PacketIdentifier) {
        self.due.push_back(identifier);
    }

    /// The first message that must be sent again.
    pub(crate) fn next_due(&mut self) -> Option<PacketIdentifier> {
        while let Some(identifier) = self.due.front() {
            if matches!(self.get(*identifier), Some(Slot::DuePublish(_))) {
                return Some(*identifier);
            }
            self.due.pop_front();
        }
        None
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
        !self.queue.is_empty() || !self.due.is_empty()
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
        // Where none can have expired, none is looked at: a client that is not read from has a full
        // queue for long.
        if self.earliest_expiry.is_none_or(|at| now < at) {
            return VecDeque::new().into_iter();
        }
        let live = |outgoing: &Outgoing| outgoing.expires_at.is_none_or(|at| now < at);
        let (kept, expired): (VecDeque<_>, VecDeque<_>) =
            core::mem::take(&mut self.queue).into_iter().partition(live);
        self.queue = kept;
        self.earliest_expiry = self.queue.iter().filter_map(|outgoing| outgoing.expires_at).min();
        self.queued_bytes = self.queue.iter().map(|outgoing| outgoing.message.size()).sum();
        expired.into_iter()
    }

    /// Whether a message must be sent again.
    pub(crate) fn has_due(&self) -> bool {
        self.due.iter().any(|identifier| matches!(self.get(*identifier), Some(Slot::DuePublish(_))))
    }

    /// Messages that were sent, and not completed.
    pub(crate) fn in_flight(&self) -> usize {
        let slots = self.left_behind.values().map(|(_, slot)| slot).chain(&self.ring);
        slots
            .filter(|slot| !matches!(slot, Slot::Free | Slot::Barred | Slot::AwaitSuback { .. }))
            .count()
    }

    pub(crate) fn disconnected(&mut self) {
        for slot in self.left_behind.values_mut().map(|(_, slot)| slot).chain(&mut self.ring) {
            *slot = core::mem::replace(slot, Slot::Free).disconnected();
        }
        self.left_behind.retain(|_, (_, slot)| !slot.is_free());
        self.occupied = self.ring.iter().filter(|slot| !slot.is_free()).count();
        self.due.clear();
        self.trim();
    }

    /// Takes out what was in flight, in order: the peer has forgotten it.
    pub(crate) fn forget(&mut self) -> impl Iterator<Item = (u64, Option<Message>)> + use<> {
        // Identifiers go on from where they were: what the peer still sends for the old ones finds
        // nothing.
        let first = self.identifier(self.ring.len()).map_or(1, PacketIdentifier::get);
        let mut left_behind: Vec<_> =
            core::mem::take(&mut self.left_behind).into_values().collect();
        left_behind.sort_unstable_by_key(|(number, _)| *number);
        let ring = core::mem::take(&mut self.ring);
        (self.first, self.occupied) = (first, 0);
        self.due.clear();
        left_behind.into_iter().map(|(_, slot)| slot).chain(ring).filter_map(Slot::lost)
    }

    /// Takes out what waits.
    pub(crate) fn take_queue(&mut self) -> VecDeque<Outgoing> {
        (self.queued_bytes, self.earliest_expiry) = (0, None);
        core::mem::take(&mut self.queue)
    }

    /// Gives back the places before the oldest identifier in use.
    fn trim(&mut self) {
        while let Some(Slot::Free) = self.ring.front() {
            self.ring.pop_front();
            self.first = after(self.first);
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

/// The identifier after another.
const fn after(identifier: u16) -> u16 {
    if identifier == u16::MAX { 1 } else { identifier + 1 }
}

/// A ring that a burst has made larger than this gives its memory back when it is empty.
const KEPT_CAPACITY: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

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
        let (ends, ended) =
            (Meaning::Ends { key, counted: true }, Meaning::Ends { key, counted: false });
        let (releases, released) =
            (Meaning::Releases { key, counted: true }, Meaning::Releases { key, counted: false });
        let barred_releases = Meaning::Releases { key: None, counted: false };
        let barred_ends = Meaning::Ends { key: None, counted: false };
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
            (Slot::AwaitPubcomp { key, received: 1, counted: true }, [wrong, again, again, ends]),
            (Slot::DuePubrel { key, received: 1 }, [wrong, again, again, ended]),
            (Slot::Barred, [wrong, barred_releases, barred_ends, wrong]),
        ] {
            let packets =
                [PacketType::Puback, PacketType::Pubrec, PacketType::Pubrec, PacketType::Pubcomp];
            let meant = [0, 1, 2, 3].map(|index| slot.answered(packets[index], index == 2));
            assert_eq!(meant, expected, "{slot:?}");
        }
    }

    fn insert(outbound: &mut Outbound) -> Option<PacketIdentifier> {
        let identifier = outbound.next()?;
        outbound.insert(slot());
        Some(identifier)
    }

    #[test]
    fn identifiers_are_never_given_out_twice() {
        let mut outbound = Outbound::default();
        let stuck = insert(&mut outbound).unwrap();
        for _ in 0..200_000 {
            let identifier = insert(&mut outbound).unwrap();
            assert_ne!(identifier, stuck);
            outbound.free(identifier);
        }
        assert!(
            outbound.ring.len() <= KEPT_CAPACITY,
            "the ring has left it behind: {}",
            outbound.ring.len()
        );
        assert_eq!(outbound.in_use(), [stuck]);
        assert_eq!(outbound.get_mut(stuck), Some(&mut slot()));
        outbound.free(stuck);
        assert_eq!((outbound.in_use(), outbound.get_mut(stuck)), (vec![], None));
        let all: Vec<_> = (0..IDENTIFIERS).map(|_| insert(&mut outbound).unwrap()).collect();
        assert_eq!(insert(&mut outbound), None);
        assert_eq!(outbound.in_use(), all);
        let mut sorted = all.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), IDENTIFIERS);
        // Whichever is freed is given out again, though nearly all before and after it are in use.
        let mut order = all.clone();
        for index in [30_000, 29_999, 65_534, 0, 30_000] {
            let identifier = order.remove(index);
            outbound.free(identifier);
            assert_eq!(insert(&mut outbound), Some(identifier));
            order.push(identifier);
            assert_eq!(insert(&mut outbound), None);
            assert_eq!(outbound.in_use(), order);
        }
        for identifier in all.into_iter().rev() {
            assert_eq!(outbound.get_mut(identifier), Some(&mut slot()));
            outbound.free(identifier);
        }
        assert_eq!((outbound.ring.len(), outbound.occupied, outbound.left_behind.len()), (0, 0, 0));
        assert!(outbound.ring.capacity() <= KEPT_CAPACITY);
    }
}
