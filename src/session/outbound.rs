//! Messages and requests to the peer: those with a packet identifier, and the queue before them.

use super::identifiers::Identifiers;
use super::queue::Queue;
use super::slot::Slot;
use super::{Message, Outgoing};
use crate::codec::{PacketIdentifier, QoS};
use alloc::vec::Vec;

/// Everything that is to be sent to the peer, or was sent and not answered.
///
/// The order of the slots is the order in which they are resent: PUBLISH packets in the order of
/// their first transmission, PUBREL packets in the order of their PUBREC. [5.0 MQTT-4.6.0-1]
/// [5.0 MQTT-4.6.0-4] [3.1.1 MQTT-4.6.0-1] [3.1.1 MQTT-4.6.0-4]
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbound {
    /// A slot leaves by [`free`](Self::free) or [`remove`](Self::remove), which keep the cursors
    /// right.
    pub(super) slots: Identifiers<Slot>,
    pub(super) queue: Queue,
    /// The first slot that may hold a PUBLISH to be resent on this connection. The slots after it
    /// are not resent yet either.
    publish_from: Option<PacketIdentifier>,
    /// The same for a PUBREL.
    pubrel_from: Option<PacketIdentifier>,
}

impl Outbound {
    /// Frees an identifier, and returns what it was used for.
    fn remove(&mut self, identifier: PacketIdentifier) -> Option<Slot> {
        self.pass(identifier);
        self.slots.remove(identifier)
    }

    /// Frees an identifier.
    pub(crate) fn free(&mut self, identifier: PacketIdentifier) {
        self.pass(identifier);
        self.slots.discard(identifier);
    }

    /// Notes that PUBREL is sent for a QoS 2 message that the peer has.
    pub(crate) fn release(
        &mut self,
        identifier: PacketIdentifier,
        key: Option<u64>,
        counted: bool,
    ) {
        self.pass(identifier);
        if let Some(slot) = self.slots.get_mut(identifier) {
            *slot = Slot::AwaitPubcomp { key, counted };
        }
        self.slots.move_to_back(identifier);
    }

    /// Moves the cursors on from a slot that leaves its place.
    fn pass(&mut self, identifier: PacketIdentifier) {
        for cursor in [&mut self.publish_from, &mut self.pubrel_from] {
            if *cursor == Some(identifier) {
                *cursor = self.slots.after(identifier);
            }
        }
    }

    /// Starts a connection that resumes the session: all that is due will be resent.
    pub(crate) fn resume(&mut self) {
        self.publish_from = self.slots.first();
        self.pubrel_from = self.publish_from;
    }

    /// Returns the next PUBREL that must be resent. It stays the next one until it is
    /// [noted](Self::resent_pubrel) as sent.
    #[inline]
    pub(crate) fn next_due_pubrel(&mut self) -> Option<PacketIdentifier> {
        while let Some(identifier) = self.pubrel_from {
            if matches!(self.slots.get(identifier), Some(Slot::DuePubrel { .. })) {
                return Some(identifier);
            }
            self.pubrel_from = self.slots.after(identifier);
        }
        None
    }

    /// Notes that a PUBREL is resent.
    pub(crate) fn resent_pubrel(&mut self, identifier: PacketIdentifier) {
        if let Some(slot) = self.slots.get_mut(identifier) {
            if let Slot::DuePubrel { key } = *slot {
                *slot = Slot::AwaitPubcomp { key, counted: false };
            }
        }
    }

    /// Returns the next PUBLISH that must be resent. It stays the next one until its slot changes.
    #[inline]
    pub(crate) fn next_due_publish(&mut self) -> Option<PacketIdentifier> {
        while let Some(identifier) = self.publish_from {
            if matches!(self.slots.get(identifier), Some(Slot::DuePublish(_))) {
                return Some(identifier);
            }
            self.publish_from = self.slots.after(identifier);
        }
        None
    }

    /// Whether a packet may wait to be sent or resent.
    #[inline]
    pub(crate) fn waits(&self) -> bool {
        !self.queue.is_empty() || self.is_resuming()
    }

    /// Whether the session is not resent completely. New messages wait until it is.
    pub(crate) const fn is_resuming(&self) -> bool {
        self.is_resuming_publish() || self.is_resuming_pubrel()
    }

    /// Whether a PUBLISH may have to be resent.
    pub(crate) const fn is_resuming_publish(&self) -> bool {
        self.publish_from.is_some()
    }

    /// Whether a PUBREL may have to be resent.
    pub(crate) const fn is_resuming_pubrel(&self) -> bool {
        self.pubrel_from.is_some()
    }

    /// Returns the number of messages that were sent and are not acknowledged.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.iter().filter(|(_, slot)| slot.is_in_flight()).count()
    }

    /// Returns the number of messages that wait or use an identifier.
    pub(crate) fn unfinished(&self) -> usize {
        self.queue.len() + self.slots.len()
    }

    /// Removes everything. Returns the messages that another client can receive in place of this
    /// one: those that wait, and before them those with QoS 1 that are not acknowledged.
    /// [5.0 MQTT-4.8.2-4] [5.0 MQTT-4.8.2-5]
    pub(crate) fn into_undelivered(mut self) -> impl Iterator<Item = Outgoing> {
        let mut in_flight = Vec::new();
        while let Some(identifier) = self.slots.first() {
            if let Some(Slot::DuePublish(outgoing) | Slot::AwaitAck(outgoing)) =
                self.remove(identifier)
            {
                in_flight.push(outgoing);
            }
        }
        in_flight.retain(|outgoing| outgoing.message.qos() == QoS::AtLeastOnce);
        in_flight.into_iter().chain(self.queue.take_all())
    }

    /// Ends the connection, and returns the keys of the requests that were not answered.
    pub(crate) fn disconnected(&mut self) -> impl Iterator<Item = u64> + use<> {
        let mut requests = Vec::new();
        let mut next = self.slots.first();
        while let Some(identifier) = next {
            next = self.slots.after(identifier);
            let Some(slot) = self.slots.get_mut(identifier) else { break };
            let slot_before = core::mem::replace(slot, Slot::Withheld);
            if let Slot::AwaitSuback { key, .. } = slot_before {
                requests.push(key);
            }
            match slot_before.disconnected() {
                Some(after) => *slot = after,
                None => _ = self.slots.remove(identifier),
            }
        }
        (self.publish_from, self.pubrel_from) = (None, None);
        requests.into_iter()
    }

    /// Removes everything in flight, in order, because the peer has forgotten it.
    ///
    /// Identifiers continue from where they were, so that a late answer finds nothing.
    pub(crate) fn forget(&mut self) -> impl Iterator<Item = (u64, Option<Message>)> + use<> {
        let mut lost = Vec::new();
        while let Some(identifier) = self.slots.first() {
            lost.extend(self.remove(identifier).and_then(Slot::lost));
        }
        lost.into_iter()
    }

    /// Restores what was stored. Returns `None` if an identifier is in use twice.
    pub(crate) fn load(
        next: PacketIdentifier,
        slots: impl IntoIterator<Item = (PacketIdentifier, Slot)>,
        queue: impl IntoIterator<Item = Outgoing>,
    ) -> Option<Self> {
        let mut outbound = Self::default();
        for (identifier, slot) in slots {
            if outbound.slots.get(identifier).is_some() {
                return None;
            }
            outbound.slots.insert(identifier, slot);
        }
        outbound.slots.next = next.get();
        queue.into_iter().for_each(|outgoing| outbound.queue.push(outgoing));
        Some(outbound)
    }
}
