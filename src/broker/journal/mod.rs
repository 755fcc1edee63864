//! The durable state of a broker: a map that the host keeps for it.
//!
//! A broker that [is durable](BrokerConfig::durable) reports every change of its state as
//! [`Record`]s: keys with their new values. A record is idempotent and whole, so any store can hold
//! the map: an embedded engine, a log, or a map in memory. The broker that
//! [`Restore`] makes of it has the sessions, their subscriptions, messages and QoS 2 exchanges, the
//! wills, and the retained messages. Sessions that end with their connection are not in it.
//!
//! ```
//! use mqtt_sansio::Instant;
//! use mqtt_sansio::broker::{Broker, BrokerConfig, Restore};
//! use mqtt_sansio::codec::Publish;
//! use std::collections::BTreeMap;
//!
//! let (config, now) = (BrokerConfig::default().durable(true), Instant::from_millis(0));
//! let mut store = BTreeMap::new();
//! let mut broker = Broker::new(config.clone(), 0x5EED, now);
//! broker.publish(&Publish { retain: true, ..Publish::new("t", b"!") }, now)?;
//!
//! // One transaction of the host's store.
//! let batch = broker.poll_journal(|record| match record.value {
//!     Some(value) => _ = store.insert(record.key.to_vec(), value.to_vec()),
//!     None => _ = store.remove(record.key),
//! });
//! // The store has synced it: what waited for it is sent now.
//! broker.durable(batch.unwrap());
//!
//! let mut restore = Restore::new(config, 0x5EED, now);
//! for (key, value) in &store {
//!     restore.record(key, value).unwrap_or_else(|error| eprintln!("{key:x?}: {error}"));
//! }
//! let broker = restore.finish(|key, error| eprintln!("{key:x?}: {error}"))?;
//! assert_eq!(broker.retained().iter().next().unwrap().message.payload(), b"!");
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # What waits
//!
//! The broker holds back what must not be sent before the records that it depends on are
//! [durable](Broker::durable): an acknowledgement of a message, of a subscription or of a
//! connection whose session is kept, and the packets of a QoS 2 exchange. The output of a
//! connection stays in order, so packets behind one that is held back wait as well. A connection
//! that has ended counts as [closed](Broker::closed) when its output is not held back any more.
//!
//! A record that is put and deleted before the host fetches it is never reported. So a message
//! that all its receivers have acknowledged by then costs no write. A host can
//! [close](Broker::close_batch) a batch and wait for these acknowledgements before it fetches the
//! batch: when no record is left, what waits for the batch is released without a write.
//!
//! While the records that are not durable have more than
//! [`maximum_unsynced`](BrokerConfig::maximum_unsynced) bytes, no connection wants input.
//!
//! # After a crash
//!
//! The durable state is that of the last batch. A client that was connected counts as having lost
//! its connection when the broker is restored: the delay of its will and the expiry of its session
//! begin then.
//!
//! A QoS 1 message in flight is sent again with DUP: under its packet identifier if its connection
//! had ended before the crash, else under a new one, and not at all if it has expired. No record
//! says which ones a connected client had been sent. So all that waited for it, up to the first one
//! with QoS 2 that was not sent, have DUP: they might have been sent. [5.0 §3.3.1.1]
//!
//! A will, and any message with QoS 2 to a subscriber with a lesser QoS, can arrive there once
//! before the crash and once after it. Retained messages that a new subscription had not received
//! yet are not sent for it any more.
//!
//! Times in records are [`Instant`]s. So the host's clock must have the same epoch in each run, for
//! instance that of Unix.
//!
//! # The format
//!
//! Version 1. All integers are big-endian. A *string* is a length of two bytes and UTF-8. A *time*
//! is eight bytes: milliseconds, or all ones for never. A *filter* is one byte, 1 for a shared
//! subscription and else 0, and a string, which in a key has no length. A *message* is one
//! [`Message`] in the [format](crate::session::stored) of stored sessions.
//!
//! | key | value |
//! |---|---|
//! | `v` | the version of the format, one byte |
//! | `m`, message (8) | the message |
//! | `s`, session (8) | flags (1): 1 connected, 2 will, 4 grants; client identifier as a string; Session Expiry Interval (4) if connected, else the time at which the session ends; the will: its delay in seconds (4), the time at which it is due, and a message; the grants |
//! | `f`, session (8), filter | options (1) as in SUBSCRIBE, Subscription Identifier (4) or 0 |
//! | `q`, session (8), position (8) | message (8), flags (1): QoS in bits 0 and 1, 4 RETAIN, 8 shared; time of expiry, count (2) and Subscription Identifiers (4 each); if shared its filter |
//! | `o`, session (8), packet identifier (2) | 1 and the position (8) of a PUBLISH that was sent, with QoS 1 only if the connection has ended since; 2 and a number (8) that orders them for a PUBREL that is owed; 3 for an identifier that is reserved |
//! | `i`, session (8), packet identifier (2) | empty: a QoS 2 message of the client was accepted |
//! | `n` | position (8): the log of the [nodes](super#other-nodes) is handled up to there |
//! | `r`, topic name | message (8), QoS (1), time of expiry, client identifier of the publisher as a string |
//!
//! Grants are one byte for what no grant covers (0 allowed, 1 denied, 2 asked), and two lists,
//! denied and allowed: a count (4), and for each entry one byte (0 publish, 1 subscribe,
//! 2 receive) and a filter.

mod format;

pub use format::RecordError;

use super::action::SessionNumber;
#[cfg(doc)]
use super::{Broker, BrokerConfig, Restore};
use crate::codec::{Filter, PacketIdentifier, QoS, Topic};
use crate::router::{GroupId, Retained, Slab};
use crate::session::{Message, Outgoing};
#[cfg(doc)]
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
pub(super) use format::{
    Key, Left, LoadedQueued, LoadedRetained, LoadedSession, QUEUED_HEAD, QueuedHead,
    StoredOutbound, StoredQueued, StoredRetained, StoredSession, StoredSubscription, StoredWill,
    VERSION, check_version,
};

/// The new value of a key of the durable state, or its end.
#[expect(clippy::exhaustive_structs, reason = "a map has keys and values")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value. `None` ends the key.
    pub value: Option<&'a [u8]>,
}

/// The number of a batch of records. Later batches have greater numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Batch(u64);

/// A batch that the host has [closed](Broker::close_batch), and how fast clients acknowledge.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedBatch {
    /// The records that acknowledgements can still make unnecessary. There can be others, which end
    /// what is stored.
    pub records: usize,
    /// The messages that have left the sessions they were stored for, since the broker was made.
    pub ended: u64,
}

/// The bytes that a record counts beside its value.
const RECORD: usize = 64;

/// The least number that a node gives out. Smaller ones are positions in the log of the nodes.
pub(super) const OWN: u64 = 1 << 61;

/// Marks the key of a message that is stored. Other keys are those of groups, whose numbers do not
/// reach this bit.
const STORED: u64 = 1 << 63;

/// The store of changes that the host has not fetched, and of what it takes to find them.
#[derive(Debug)]
pub(super) struct Journal {
    pending: BTreeMap<Key, Pending>,
    /// The records of messages and of their places in sessions, those of the closed batch and those
    /// of the batch that is collected. A message and a delivery keep the place of their record, so
    /// that no key is searched for, because no key is put twice.
    once: Slab<Once>,
    /// How many of them belong to the batch that is collected.
    collected: usize,
    /// Room for the bytes of records.
    buffers: [Vec<u8>; 2],
    /// The batch before the one that is collected, if the host has closed it and not fetched it.
    closed: Option<Closed>,
    /// The number of the batch that is collected.
    batch: u64,
    durable: u64,
    /// The bytes of `pending`.
    bytes: usize,
    /// The batches that are not durable, and their bytes.
    unsynced: VecDeque<(u64, usize)>,
    unsynced_bytes: usize,
    /// Whether this call of the host has changed something that output must wait for.
    holds_output: bool,
    /// Whether output waits for the batch that is collected.
    is_awaited: bool,
    /// Whether messages for the log of the nodes belong to the batch that is collected.
    has_forwards: bool,
    /// Whether the batch that is collected has more than messages that clients are about to
    /// acknowledge, and ends of records.
    is_urgent: bool,
    /// Whether there were too many records when the broker last looked.
    was_full: bool,
    /// The stored messages, by the address of their bytes, which all copies share.
    messages: BTreeMap<usize, Kept>,
    /// The stored messages of sessions, by their key.
    deliveries: BTreeMap<u64, Delivery>,
    /// The stored messages that have left their sessions.
    ended: u64,
    /// Numbers messages, sessions and positions.
    last: u64,
    /// Whether messages can be in the log of the nodes.
    is_node: bool,
}

/// A batch to which nothing is added any more.
#[derive(Debug)]
struct Closed {
    number: u64,
    records: BTreeMap<Key, Pending>,
    /// How many of them the host's store lacks.
    new: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Pending {
    /// Whether the host's store lacks the key.
    is_new: bool,
    value: Value,
}

/// A record whose key is put once, and deleted once.
#[derive(Debug)]
struct Once {
    /// The batch that it belongs to.
    batch: u64,
    key: Key,
    record: Pending,
}

/// Most records of messages are never fetched, so they are encoded only then.
#[derive(Debug)]
enum Value {
    Deleted,
    Bytes(Vec<u8>),
    Message(Message),
    Queued(QueuedHead),
}

/// After a batch of more bytes the buffers are not kept.
const BUFFERS_KEPT: usize = 4_096;

/// An empty store of records with more places is not kept.
const PLACES_KEPT: usize = 1_024;

/// A stored message. It keeps the bytes, so that their address stays theirs.
#[derive(Debug)]
struct Kept {
    number: u64,
    references: usize,
    message: Message,
    /// The place of its record in [`Journal::once`], until the host fetches the record.
    place: Option<u64>,
}

/// A stored message in one session.
#[derive(Debug)]
struct Delivery {
    session: SessionNumber,
    /// The address of the message.
    message: usize,
    /// The shared subscription for which it was queued. Most messages have none, so it is in a box.
    share: Option<Box<Share>>,
    /// The identifier of a QoS 1 message, if its record says that it was sent.
    sent: Option<PacketIdentifier>,
    /// The place of its record in [`Journal::once`], until the host fetches the record.
    place: Option<u64>,
}

/// A shared subscription by its filter, which the record of a message has also after the last
/// member has gone.
#[derive(Debug)]
struct Share {
    filter: Filter,
    /// `None` if it had no member when the message was restored.
    group: Option<GroupId>,
}

impl Value {
    fn size(&self) -> usize {
        match self {
            Self::Deleted => 0,
            Self::Bytes(bytes) => bytes.len(),
            Self::Message(message) => message.size(),
            Self::Queued(_) => QUEUED_HEAD,
        }
    }
}

/// Writes a record with these buffers, and hands it out.
fn hand_out(
    key: &Key,
    value: &Value,
    [key_bytes, value_bytes]: &mut [Vec<u8>; 2],
    mut record: impl FnMut(Record<'_>),
) {
    key_bytes.clear();
    value_bytes.clear();
    key.write(key_bytes);
    let head;
    let value = match value {
        Value::Deleted => None,
        Value::Bytes(bytes) => Some(&**bytes),
        Value::Message(message) => {
            message.write_bytes(value_bytes);
            Some(&**value_bytes)
        }
        Value::Queued(queued) => {
            head = queued.write();
            Some(&head[..])
        }
    };
    record(Record { key: key_bytes, value });
}

impl Journal {
    /// Creates the journal of a broker without state.
    pub(super) fn new(is_node: bool) -> Self {
        let mut journal = Self::over(0, is_node);
        journal.put_format(true);
        journal
    }

    /// Creates the journal of a broker that is made of records, and that gives out greater numbers
    /// than `last`.
    pub(super) fn restored(last: u64, is_node: bool) -> Self {
        let mut journal = Self::over(last, is_node);
        journal.put_format(false);
        journal
    }

    fn put_format(&mut self, is_new: bool) {
        self.put_bytes(Key::Format, is_new, Vec::from([VERSION]));
    }

    fn over(last: u64, is_node: bool) -> Self {
        Self {
            is_node,
            pending: BTreeMap::new(),
            once: Slab::new(),
            collected: 0,
            buffers: [Vec::new(), Vec::new()],
            closed: None,
            batch: 1,
            durable: 0,
            bytes: 0,
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
            holds_output: false,
            is_awaited: false,
            has_forwards: false,
            is_urgent: false,
            was_full: false,
            messages: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            ended: 0,
            last: if is_node { last.max(OWN) } else { last },
        }
    }

    /// Begins a call of the host.
    pub(super) const fn begin(&mut self) {
        self.holds_output = false;
    }

    // ---- batches ----

    /// Whether there is something to fetch, or output waits for a batch without records.
    pub(super) fn wants_poll(&self) -> bool {
        self.is_awaited || self.has_forwards || self.has_collected() || self.closed.is_some()
    }

    /// Whether the batch that is collected has a record.
    fn has_collected(&self) -> bool {
        self.collected > 0 || !self.pending.is_empty()
    }

    /// Closes the batch that is collected, unless the one before is still there, or a record is
    /// urgent. Returns how far the closed batch is.
    pub(super) fn close(&mut self) -> Option<ClosedBatch> {
        if self.is_urgent {
            return None;
        }
        if self.closed.is_none() && self.has_collected() {
            let records = core::mem::take(&mut self.pending);
            let bytes = core::mem::take(&mut self.bytes);
            let once = self.once.iter().map(|(_, once)| &once.record);
            let new = records.values().chain(once).filter(|pending| pending.is_new).count();
            self.collected = 0;
            self.closed = Some(Closed { number: self.batch, records, new, bytes });
            self.batch += 1;
            self.is_awaited = false;
        }
        let records = self.closed.as_ref()?.new;
        Some(ClosedBatch { records, ended: self.ended })
    }

    /// Hands the records of a batch out: of the closed one, or if a record is urgent, of all.
    pub(super) fn poll(&mut self, mut record: impl FnMut(Record<'_>)) -> Option<Batch> {
        if !self.wants_poll() {
            return None;
        }
        let mut has_forwards = false;
        let (batch, records, bytes) = match self.closed.take() {
            Some(Closed { number, records, bytes, .. }) if !self.is_urgent => {
                (number, records, bytes)
            }
            closed => {
                let (mut records, bytes) =
                    closed.map(|closed| (closed.records, closed.bytes)).unwrap_or_default();
                records.append(&mut self.pending);
                has_forwards = core::mem::take(&mut self.has_forwards);
                (self.is_awaited, self.is_urgent) = (false, false);
                self.collected = 0;
                self.batch += 1;
                (self.batch - 1, records, bytes + core::mem::take(&mut self.bytes))
            }
        };
        let has_records = self.once.len() > self.collected || !records.is_empty();
        if !has_records && !has_forwards && self.unsynced.is_empty() {
            // All before it are durable, so this one is.
            self.durable = batch;
            return None;
        }
        let buffers = &mut self.buffers;
        self.once.remove_if(|once| {
            let is_due = once.batch <= batch;
            if is_due {
                hand_out(&once.key, &once.record.value, buffers, &mut record);
            }
            is_due
        });
        for (key, Pending { value, .. }) in &records {
            hand_out(key, value, buffers, &mut record);
        }
        if self.once.len() == 0 && self.once.places() > PLACES_KEPT {
            self.once = Slab::new();
        }
        if bytes > BUFFERS_KEPT {
            *buffers = [Vec::new(), Vec::new()];
        }
        self.unsynced.push_back((batch, bytes));
        self.unsynced_bytes += bytes;
        Some(Batch(batch))
    }

    /// Notes that the batches up to this one are durable. Returns the last one.
    pub(super) fn synced(&mut self, batch: Batch) -> u64 {
        // A host cannot have stored what it has not fetched.
        let next = self.closed.as_ref().map_or(self.batch, |closed| closed.number);
        self.durable = self.durable.max(batch.0.min(next - 1));
        while let Some((_, bytes)) =
            self.unsynced.front().filter(|(batch, _)| *batch <= self.durable)
        {
            self.unsynced_bytes -= bytes;
            self.unsynced.pop_front();
        }
        self.durable
    }

    /// Returns the last batch that is durable.
    pub(super) const fn durable(&self) -> u64 {
        self.durable
    }

    /// Returns the bytes of records that are not durable.
    pub(super) fn unsynced_bytes(&self) -> usize {
        let closed = self.closed.as_ref().map_or(0, |closed| closed.bytes);
        self.unsynced_bytes + closed + self.bytes
    }

    /// Notes whether there are too many records. Returns whether there were and are no longer.
    pub(super) const fn note_full(&mut self, is_full: bool) -> bool {
        let was_full = core::mem::replace(&mut self.was_full, is_full);
        was_full && !is_full
    }

    /// Notes that the output of this call must wait for all records that are not durable.
    pub(super) fn hold_output(&mut self) {
        self.holds_output |=
            self.has_collected() || self.closed.is_some() || !self.unsynced.is_empty();
    }

    /// Notes that the host has all records in its store, as a snapshot hands them out.
    pub(super) fn note_snapshot(&mut self) {
        let closed = self.closed.iter_mut().flat_map(|closed| {
            closed.new = 0;
            closed.records.values_mut()
        });
        let once = self.once.values_mut().map(|once| &mut once.record);
        let pending = self.pending.values_mut();
        closed.chain(pending).chain(once).for_each(|pending| pending.is_new = false);
    }

    /// Returns the batch that the output of this call must wait for, if it must wait.
    pub(super) fn gate(&self) -> Option<u64> {
        self.holds_output.then_some(self.batch)
    }

    /// Notes that output waits for the batch that is collected, even if it stays empty.
    pub(super) const fn await_batch(&mut self) {
        self.is_awaited = true;
    }

    /// Notes that the host must append a message to the log of the nodes before it reports the
    /// batch as durable.
    pub(super) const fn forward(&mut self, size: usize) {
        self.hold_urgently();
        self.has_forwards = true;
        self.bytes += RECORD + size;
    }

    /// Notes that the output of this call must wait, and that the host must not wait for
    /// acknowledgements by clients, because they do not make this change unnecessary.
    const fn hold_urgently(&mut self) {
        self.holds_output = true;
        self.is_urgent = true;
    }

    fn put(&mut self, key: Key, is_new: bool, value: Value) {
        self.holds_output = true;
        self.bytes += RECORD + value.size();
        match self.pending.entry(key) {
            Entry::Vacant(vacant) => _ = vacant.insert(Pending { is_new, value }),
            Entry::Occupied(mut entry) => {
                self.bytes -= RECORD + entry.get().value.size();
                entry.get_mut().value = value;
            }
        }
    }

    fn put_bytes(&mut self, key: Key, is_new: bool, bytes: Vec<u8>) {
        self.hold_urgently();
        self.put(key, is_new, Value::Bytes(bytes));
    }

    /// Deletes a key. The caller decides whether output waits for that.
    fn delete(&mut self, key: Key) {
        let mut is_new = false;
        if let Some(Closed { records, new, bytes, .. }) = &mut self.closed {
            if let Some(pending) = records.get(&key).filter(|pending| pending.is_new) {
                *bytes -= RECORD + pending.value.size();
                *new -= 1;
                records.remove(&key);
                is_new = true;
            }
        }
        match self.pending.entry(key) {
            Entry::Vacant(_) if is_new => {}
            Entry::Vacant(vacant) => {
                self.bytes += RECORD;
                vacant.insert(Pending { is_new, value: Value::Deleted });
            }
            Entry::Occupied(mut entry) => {
                self.bytes -= entry.get().value.size();
                entry.get_mut().value = Value::Deleted;
                if is_new || entry.get().is_new {
                    self.bytes -= RECORD;
                    entry.remove();
                }
            }
        }
    }

    /// Puts a record whose key is put once. Returns its place.
    fn put_once(&mut self, key: Key, value: Value) -> u64 {
        self.holds_output = true;
        self.collect(key, Pending { is_new: true, value })
    }

    /// Deletes a key that was put once, by the place of its record, which the host can have fetched
    /// since. The caller decides whether output waits for that.
    fn delete_once(&mut self, key: Key, place: Option<u64>) {
        let found = place.and_then(|place| Some((place, self.once.get_mut(place)?)));
        if let Some((place, Once { batch, record, .. })) = found.filter(|(_, one)| one.key == key) {
            let size = record.value.size();
            let closed = self.closed.as_mut().filter(|closed| closed.number == *batch);
            match (closed, record.is_new) {
                (Some(closed), true) => {
                    closed.bytes -= RECORD + size;
                    closed.new -= 1;
                    self.once.remove(place);
                    return;
                }
                (None, true) => {
                    self.bytes -= RECORD + size;
                    self.collected -= 1;
                    self.once.remove(place);
                    return;
                }
                (None, false) => {
                    self.bytes -= size;
                    record.value = Value::Deleted;
                    return;
                }
                (Some(_), false) => {}
            }
        }
        self.collect(key, Pending { is_new: false, value: Value::Deleted });
    }

    fn collect(&mut self, key: Key, record: Pending) -> u64 {
        self.bytes += RECORD + record.value.size();
        self.collected += 1;
        self.once.insert(Once { batch: self.batch, key, record })
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    // ---- messages ----

    /// Keeps a message for one more place that refers to it. Returns its number.
    fn hold(&mut self, message: &Message) -> u64 {
        let address = message.address();
        if let Some(kept) = self.messages.get_mut(&address) {
            kept.references += 1;
            return kept.number;
        }
        let number = self.number();
        let place = self.put_once(Key::Message(number), Value::Message(message.clone()));
        let place = Some(place);
        self.messages
            .insert(address, Kept { number, references: 1, message: message.clone(), place });
        number
    }

    /// Gives up one reference to a message.
    fn release(&mut self, address: usize) {
        let Entry::Occupied(mut entry) = self.messages.entry(address) else { return };
        entry.get_mut().references -= 1;
        if entry.get().references == 0 {
            let Kept { number, place, .. } = entry.remove();
            if !self.is_in_log(number) {
                self.delete_once(Key::Message(number), place);
            }
        }
    }

    /// Whether a message is in the log of the nodes, so that its number is its position there.
    pub(super) const fn is_in_log(&self, number: u64) -> bool {
        self.is_node && number < OWN
    }

    /// Forgets a message of the log to which nothing refers.
    pub(super) fn forget_unused(&mut self, message: &Message) {
        let address = message.address();
        if self.messages.get(&address).is_some_and(|kept| kept.references == 0) {
            self.messages.remove(&address);
        }
    }

    /// Stores a message with QoS 1 or 2 that is about to be queued for a session. Returns its key
    /// there.
    pub(super) fn enter(
        &mut self,
        session: SessionNumber,
        outgoing: &Outgoing,
        share: Option<(GroupId, &Filter)>,
        is_connected: bool,
    ) -> u64 {
        let number = self.hold(&outgoing.message);
        let queued = StoredQueued::new(number, outgoing, share.map(|(_, filter)| filter.clone()));
        let position = self.number();
        let value = match queued.as_head() {
            Some(head) => Value::Queued(head),
            None => Value::Bytes(queued.write()),
        };
        let place = Some(self.put_once(Key::Queued(session.get(), position), value));
        // A message with QoS 2 is sent when it is durable.
        self.is_urgent |= !is_connected || outgoing.message.qos() == QoS::ExactlyOnce;
        let share = share
            .map(|(group, filter)| Box::new(Share { filter: filter.clone(), group: Some(group) }));
        let message = outgoing.message.address();
        self.deliveries.insert(position, Delivery { session, message, share, sent: None, place });
        STORED | position
    }

    /// Notes that a message has left its session, whatever its key.
    pub(super) fn leave(&mut self, key: u64) {
        if key & STORED != 0 {
            self.forget_delivery(key & !STORED);
        }
    }

    fn forget_delivery(&mut self, position: u64) {
        if let Some(delivery) = self.deliveries.remove(&position) {
            let Delivery { session, message, sent, place, .. } = delivery;
            self.ended += 1;
            self.delete_once(Key::Queued(session.get(), position), place);
            sent.into_iter().for_each(|identifier| self.ended(session, identifier));
            self.release(message);
        }
    }

    /// Takes a message that is stored already, to which nothing refers that is not counted yet.
    pub(super) fn adopt(&mut self, number: u64, message: &Message) {
        let kept = || Kept { number, references: 0, message: message.clone(), place: None };
        self.messages.entry(message.address()).or_insert_with(kept);
    }

    /// Notes that one more record, which is stored already, refers to a message.
    pub(super) fn refer(&mut self, message: &Message) {
        if let Some(kept) = self.messages.get_mut(&message.address()) {
            kept.references += 1;
        }
    }

    /// Stores that a QoS 1 message was sent under an identifier, unless that is stored. It is not
    /// before the connection ends, because most are acknowledged at once.
    pub(super) fn note_sent(&mut self, key: u64, identifier: PacketIdentifier) {
        let position = key & !STORED;
        let delivery = self.deliveries.get_mut(&position).filter(|_| key & STORED != 0);
        if let Some(delivery) = delivery.filter(|delivery| delivery.sent.is_none()) {
            delivery.sent = Some(identifier);
            let key = Key::Outbound(delivery.session.get(), identifier);
            self.put_bytes(key, true, StoredOutbound::Publish(position).write());
        }
    }

    /// Takes the identifier of a QoS 1 message, which is stored already.
    pub(super) fn adopt_sent(&mut self, key: Option<u64>, identifier: PacketIdentifier) {
        let position = key.map(|key| key & !STORED);
        let delivery = position.and_then(|position| self.deliveries.get_mut(&position));
        delivery.into_iter().for_each(|delivery| delivery.sent = Some(identifier));
    }

    /// Whether it is stored that a QoS 1 message was sent.
    pub(super) fn is_noted_as_sent(&self, position: u64) -> bool {
        self.deliveries.get(&position).is_some_and(|delivery| delivery.sent.is_some())
    }

    /// Takes a message of a session that is stored already. Returns its key.
    pub(super) fn adopt_delivery(
        &mut self,
        position: u64,
        session: SessionNumber,
        message: &Message,
        share: Option<(Filter, Option<GroupId>)>,
    ) -> u64 {
        self.refer(message);
        let share = share.map(|(filter, group)| Box::new(Share { filter, group }));
        let (message, sent, place) = (message.address(), None, None);
        self.deliveries.insert(position, Delivery { session, message, share, sent, place });
        STORED | position
    }

    /// Forgets the stored messages to which nothing refers, and ends their records unless other
    /// records are damaged, which may refer to them.
    pub(super) fn drop_unused_messages(&mut self, is_damaged: bool) {
        let mut unused = Vec::new();
        self.messages.retain(|_, kept| {
            unused.extend((kept.references == 0).then_some(kept.number));
            kept.references > 0
        });
        unused.retain(|number| !self.is_in_log(*number));
        if !is_damaged {
            unused.into_iter().for_each(|number| self.delete_once(Key::Message(number), None));
        }
    }

    /// Returns the stored messages and their numbers.
    pub(super) fn messages(&self) -> impl Iterator<Item = (u64, &Message)> {
        self.messages.values().map(|kept| (kept.number, &kept.message))
    }

    /// Returns the number of a message, if it is stored.
    pub(super) fn number_of(&self, message: &Message) -> Option<u64> {
        self.messages.get(&message.address()).map(|kept| kept.number)
    }

    /// Returns the session and the position of a message, if it is stored.
    pub(super) fn place(&self, outgoing: &Outgoing) -> Option<(SessionNumber, u64)> {
        let (position, delivery) = self.delivery(outgoing.number()?)?;
        Some((delivery.session, position))
    }

    /// Returns a stored message of a session, and its position, by its key there.
    fn delivery(&self, key: u64) -> Option<(u64, &Delivery)> {
        let position = (key & STORED != 0).then_some(key & !STORED)?;
        Some((position, self.deliveries.get(&position)?))
    }

    /// Ends a stored message of a session that cannot be restored.
    pub(super) fn delete_queued(&mut self, session: SessionNumber, position: u64) {
        self.delete_once(Key::Queued(session.get(), position), None);
    }

    /// Returns the group of a message by its key in a session.
    pub(super) fn group(journal: Option<&Self>, key: u64) -> Option<GroupId> {
        if key & STORED == 0 {
            return Some(GroupId::from_u64(key));
        }
        journal?.delivery(key)?.1.share.as_ref()?.group
    }

    /// Returns the shared subscription of a stored message by its key in a session.
    pub(super) fn share(&self, key: u64) -> Option<&Filter> {
        Some(&self.delivery(key)?.1.share.as_ref()?.filter)
    }

    /// Stores a retained message in place of `old`.
    pub(super) fn retain(
        &mut self,
        retained: Option<&Retained>,
        topic: Topic,
        old: Option<&Message>,
    ) {
        let key = Key::Retained(topic);
        match retained {
            Some(retained) => {
                let number = self.hold(&retained.message);
                self.put_bytes(key, old.is_none(), StoredRetained { number, retained }.write());
            }
            None if old.is_some() => {
                self.delete(key);
                self.hold_urgently();
            }
            None => {}
        }
        if let Some(old) = old {
            self.release(old.address());
        }
    }

    /// Stores the position up to which the log of the nodes is handled.
    pub(super) fn put_position(&mut self, position: u64) {
        self.put_bytes(Key::Position, false, position.to_be_bytes().to_vec());
    }

    // ---- sessions ----

    pub(super) fn new_session(&mut self) -> SessionNumber {
        SessionNumber::new(self.number()).unwrap_or(SessionNumber::MIN)
    }

    pub(super) fn put_session(&mut self, session: SessionNumber, is_new: bool, value: Vec<u8>) {
        self.put_bytes(Key::Session(session.get()), is_new, value);
    }

    pub(super) fn delete_session(&mut self, session: SessionNumber) {
        self.delete(Key::Session(session.get()));
        self.hold_urgently();
    }

    pub(super) fn put_subscription(
        &mut self,
        session: SessionNumber,
        filter: &Filter,
        is_new: bool,
        stored: StoredSubscription,
    ) {
        let key = Key::Subscription(session.get(), filter.clone());
        self.put_bytes(key, is_new, stored.write());
    }

    pub(super) fn delete_subscription(&mut self, session: SessionNumber, filter: &Filter) {
        self.delete(Key::Subscription(session.get(), filter.clone()));
        self.hold_urgently();
    }

    // ---- exchanges ----

    /// Stores that a QoS 2 message was sent.
    pub(super) fn sent(
        &mut self,
        session: SessionNumber,
        identifier: PacketIdentifier,
        key: Option<u64>,
    ) {
        let stored = key.map(|key| StoredOutbound::Publish(key & !STORED));
        let stored = stored.unwrap_or(StoredOutbound::Nothing);
        self.put_bytes(Key::Outbound(session.get(), identifier), true, stored.write());
    }

    /// Stores that PUBREL is owed in place of a message.
    pub(super) fn released(
        &mut self,
        session: SessionNumber,
        identifier: PacketIdentifier,
        key: Option<u64>,
    ) {
        let stored = StoredOutbound::Pubrel(self.number());
        self.put_bytes(Key::Outbound(session.get(), identifier), false, stored.write());
        key.into_iter().for_each(|key| self.leave(key));
    }

    /// Stores that an identifier is reserved.
    pub(super) fn withheld(&mut self, session: SessionNumber, identifier: PacketIdentifier) {
        let key = Key::Outbound(session.get(), identifier);
        self.put_bytes(key, false, StoredOutbound::Nothing.write());
    }

    /// Stores that an identifier is free.
    pub(super) fn ended(&mut self, session: SessionNumber, identifier: PacketIdentifier) {
        self.delete(Key::Outbound(session.get(), identifier));
    }

    /// Stores that a QoS 2 message of the client was accepted.
    pub(super) fn accepted(&mut self, session: SessionNumber, identifier: PacketIdentifier) {
        self.put_bytes(Key::Inbound(session.get(), identifier), true, Vec::new());
    }

    /// Stores that the client has released a message.
    pub(super) fn completed(&mut self, session: SessionNumber, identifier: PacketIdentifier) {
        self.delete(Key::Inbound(session.get(), identifier));
        self.hold_urgently();
    }
}
