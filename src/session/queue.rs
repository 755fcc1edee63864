//! Messages that wait to be sent.

use super::{Outgoing, QueueLimit};
use crate::codec::QoS;
use crate::time::Instant;
use alloc::collections::VecDeque;

/// Messages that wait for a connection, for a packet identifier, or for the peer's Receive Maximum.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    messages: VecDeque<Outgoing>,
    bytes: usize,
    /// No message in the queue expires before this.
    earliest_expiry: Option<Instant>,
}

/// A queue that a burst has made larger than this releases its memory when it is empty.
const KEPT_CAPACITY: usize = 64;

impl Queue {
    #[inline]
    pub(crate) fn push(&mut self, outgoing: Outgoing) {
        self.bytes += outgoing.size();
        if let Some(at) = outgoing.expires_at {
            self.earliest_expiry = Some(self.earliest_expiry.map_or(at, |other| other.min(at)));
        }
        // Most queues hold one message at a time. Without this the first one takes room for four.
        if self.messages.capacity() == 0 {
            self.messages.reserve_exact(1);
        }
        self.messages.push_back(outgoing);
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Outgoing> {
        let outgoing = self.messages.pop_front()?;
        self.bytes -= outgoing.size();
        if self.messages.is_empty() && self.messages.capacity() > KEPT_CAPACITY {
            self.messages.shrink_to(0);
        }
        Some(outgoing)
    }

    /// Returns a message that was popped to the front of the queue.
    pub(crate) fn push_front(&mut self, outgoing: Outgoing) {
        self.bytes += outgoing.size();
        self.messages.push_front(outgoing);
    }

    pub(crate) fn front(&self) -> Option<&Outgoing> {
        self.messages.front()
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the messages, the next to be sent first.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Outgoing> {
        self.messages.iter()
    }

    /// Whether another message of that size can wait too.
    pub(crate) fn has_room(&self, size: usize, limit: QueueLimit) -> bool {
        let bytes = self.bytes.saturating_add(size);
        self.is_empty() || (self.len() < limit.messages && bytes <= limit.bytes)
    }

    /// Removes messages with QoS 0, the oldest first, until there is room for a message. Returns
    /// their number.
    pub(crate) fn make_room(&mut self, size: usize, limit: QueueLimit) -> u64 {
        let mut removed = 0;
        while !self.has_room(size, limit) {
            let is_droppable = |one: &Outgoing| one.message.qos() == QoS::AtMostOnce;
            let position = self.messages.iter().position(is_droppable);
            let Some(dropped) = position.and_then(|position| self.messages.remove(position)) else {
                break;
            };
            self.bytes -= dropped.size();
            removed += 1;
        }
        removed
    }

    /// Removes all messages that have expired. [5.0 MQTT-3.3.2-5]
    pub(crate) fn take_expired(&mut self, now: Instant) -> impl Iterator<Item = Outgoing> + use<> {
        // Without an expired message none is looked at: the queue of a client that does not read
        // stays full for long.
        if self.earliest_expiry.is_none_or(|at| now < at) {
            return VecDeque::new().into_iter();
        }
        let is_live = |outgoing: &Outgoing| outgoing.expires_at.is_none_or(|at| now < at);
        let (kept, expired): (VecDeque<_>, VecDeque<_>) =
            core::mem::take(&mut self.messages).into_iter().partition(is_live);
        self.messages = kept;
        self.earliest_expiry =
            self.messages.iter().filter_map(|outgoing| outgoing.expires_at).min();
        self.bytes = self.messages.iter().map(Outgoing::size).sum();
        expired.into_iter()
    }

    /// Notes that the connection has ended. The first message was given no expiry if it was to be
    /// sent at once; now it has expired.
    pub(crate) fn expire_unsent(&mut self) {
        let front = self.messages.front_mut();
        if let Some(front) = front.filter(|one| one.message.message_expiry_interval() == Some(0)) {
            front.expires_at = Some(Instant::default());
            self.earliest_expiry = front.expires_at;
        }
    }

    /// Removes all messages.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Outgoing> + use<> {
        core::mem::take(self).messages.into_iter()
    }
}
