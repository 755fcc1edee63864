//! A broker is made of its stored records, and all of its state becomes records.

use super::action::{SessionId, SessionNumber};
use super::journal::{
    Journal, Key, Left, LoadedQueued, LoadedRetained, LoadedSession, Record, RecordError,
    StoredOutbound, StoredQueued, StoredRetained, StoredSubscription, check_version,
};
use super::sessions::Presence;
use super::tasks::Task;
use super::timers::Timer;
use super::wills::StoredWill;
use super::{Broker, BrokerConfig, flow, keep};
use crate::codec::{Expiry, Filter, PacketIdentifier, QoS, Topic};
use crate::router::Retained;
use crate::session::{Message, Outgoing, Owed, OwedRef, Session};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

/// Makes a broker of the records that a host has stored.
///
/// The host passes all of them, in any order. Any bytes can be passed: a damaged record is reported
/// and left out, and the others are kept. [`journal`](super::journal) has an example.
#[derive(Debug)]
pub struct Restore {
    config: BrokerConfig,
    seed: u128,
    now: Instant,
    records: Records,
}

impl Restore {
    /// Begins without records. Without any, the broker is as [`Broker::new`] makes it.
    ///
    /// The broker is durable, whatever `config` says. `seed` must be random and secret.
    #[must_use]
    pub fn new(config: BrokerConfig, seed: u128, now: Instant) -> Self {
        Self { config: config.durable(true), seed, now, records: Records::default() }
    }

    /// Takes a record. After an error the host passes the next one.
    pub fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        self.records.take(key, value)
    }

    /// Makes the broker. Reports each record that is of no use because another one is missing, by
    /// its key.
    ///
    /// The first batch of the broker's journal ends the records that are not needed any more.
    /// Damaged records stay as they are. Fails only if the records are of a later version of the
    /// format.
    pub fn finish(self, mut report: impl FnMut(&[u8], RecordError)) -> Result<Broker, RecordError> {
        let Self { config, seed, now, records } = self;
        let Records { version, messages, sessions, retained, position, .. } = records;
        let Records { damaged, is_damaged, last, .. } = records;
        if let Some(version) = version {
            return Err(version);
        }
        let mut journal = Journal::restored(last, config.is_node);
        let mut broker = Broker::new(config, seed, now);
        messages.iter().for_each(|(number, message)| journal.adopt(*number, message));
        broker.journal = Some(Box::new(journal));
        let mut building = Building { broker, messages, now, report: &mut report };
        if let Some(nodes) = &mut building.broker.nodes {
            nodes.advance(position);
        }
        building.restore_retained(retained);
        // All subscriptions come first: a message of a shared subscription names its group.
        let mut found = Vec::new();
        for (number, mut parts) in sessions {
            let number = SessionNumber::new(number).filter(|_| !damaged.contains(&number));
            let Some(number) = number else { continue };
            let session = parts.session.take();
            let left = session.as_ref().map(|session| session.left);
            let was_connected = matches!(left, Some(Left::Connected(_)));
            let session = session.and_then(|session| building.restore_session(number, session));
            building.restore_subscriptions(
                number,
                session,
                core::mem::take(&mut parts.subscriptions),
            );
            found.push((number, session, was_connected, parts));
        }
        let mut orphans = VecDeque::new();
        for (number, session, was_connected, parts) in found {
            let exchanges = building.restore_messages(number, session, parts, last);
            orphans.extend(exchanges);
            if let Some(session) = session.filter(|_| was_connected) {
                keep::presume_sent(&mut building.broker, session, now);
            }
        }
        let mut broker = building.broker;
        if let Some(journal) = &mut broker.journal {
            journal.drop_unused_messages(is_damaged);
        }
        if !orphans.is_empty() {
            broker.tasks.push(Task::HandOn(orphans), now);
        }
        Ok(broker)
    }
}

/// Records that were read.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The later version of the format that they have.
    version: Option<RecordError>,
    pub(super) messages: BTreeMap<u64, Message>,
    pub(super) sessions: BTreeMap<u64, Parts>,
    retained: Vec<(Topic, LoadedRetained)>,
    /// The position in the log of the nodes.
    position: u64,
    /// The sessions whose own record is damaged. Their other records are not touched.
    damaged: BTreeSet<u64>,
    /// Whether any record is damaged.
    is_damaged: bool,
    /// The greatest number in any record.
    pub(super) last: u64,
}

/// The records of a session.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) session: Option<LoadedSession>,
    pub(super) subscriptions: Vec<(Filter, StoredSubscription)>,
    pub(super) queued: BTreeMap<u64, LoadedQueued>,
    pub(super) outbound: Vec<(PacketIdentifier, StoredOutbound)>,
    pub(super) inbound: Vec<PacketIdentifier>,
}

impl Records {
    /// Takes a record.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        let taken = self.try_take(key, value);
        self.is_damaged |= taken.is_err();
        taken
    }

    fn try_take(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        let key = Key::read(key)?;
        let number = key.greatest_number();
        match key {
            Key::Format => {
                let version = check_version(value);
                if matches!(version, Err(RecordError::Version(_))) {
                    self.version = version.err();
                }
                return version;
            }
            Key::Message(number) => _ = self.messages.insert(number, Message::from_bytes(value)?),
            Key::Session(number) => {
                let session = LoadedSession::read(value);
                self.damaged.extend(session.is_err().then_some(number));
                self.parts(number).session = Some(session?);
            }
            Key::Subscription(session, filter) => {
                let stored = StoredSubscription::read(value)?;
                self.parts(session).subscriptions.push((filter, stored));
            }
            Key::Queued(session, position) => {
                let queued = LoadedQueued::read(value)?;
                self.note(queued.message);
                self.parts(session).queued.insert(position, queued);
            }
            Key::Outbound(session, identifier) => {
                let owed = StoredOutbound::read(value)?;
                if let StoredOutbound::Publish(number) | StoredOutbound::Pubrel(number) = owed {
                    self.note(number);
                }
                self.parts(session).outbound.push((identifier, owed));
            }
            Key::Inbound(..) if !value.is_empty() => return Err(RecordError::Value),
            Key::Inbound(session, identifier) => self.parts(session).inbound.push(identifier),
            Key::Position => {
                let position = value.try_into().map_err(|_| RecordError::Value)?;
                self.position = u64::from_be_bytes(position);
            }
            Key::Retained(topic) => {
                let retained = LoadedRetained::read(value)?;
                self.note(retained.message);
                self.retained.push((topic, retained));
            }
        }
        self.note(number);
        Ok(())
    }

    fn note(&mut self, number: u64) {
        self.last = self.last.max(number);
    }

    fn parts(&mut self, session: u64) -> &mut Parts {
        self.sessions.entry(session).or_default()
    }
}

/// A broker on its way.
struct Building<'r> {
    broker: Broker,
    messages: BTreeMap<u64, Message>,
    now: Instant,
    report: &'r mut dyn FnMut(&[u8], RecordError),
}

impl Building<'_> {
    fn report(&mut self, key: &Key, error: RecordError) {
        let mut bytes = Vec::new();
        key.write(&mut bytes);
        (self.report)(&bytes, error);
    }

    fn journal(&mut self) -> &mut Journal {
        let is_node = self.broker.config.is_node;
        self.broker.journal.get_or_insert_with(|| Box::new(Journal::new(is_node)))
    }

    fn restore_retained(&mut self, retained: Vec<(Topic, LoadedRetained)>) {
        for (topic, LoadedRetained { message, qos, expires_at, publisher }) in retained {
            let message = self.messages.get(&message).filter(|message| {
                message.topic_name().as_text() == topic.as_text() && !message.payload().is_empty()
            });
            let Some(message) = message.map(|message| message.with(qos, true)) else {
                self.report(&Key::Retained(topic), RecordError::MessageMissing);
                continue;
            };
            self.journal().refer(&message);
            self.broker.retained.insert(message, expires_at, publisher);
        }
    }

    /// Restores a session without its subscriptions and messages.
    fn restore_session(
        &mut self,
        number: SessionNumber,
        loaded: LoadedSession,
    ) -> Option<SessionId> {
        if self.broker.sessions.find(&loaded.client_identifier).is_some() {
            self.report(&Key::Session(number.get()), RecordError::DuplicateClient);
            self.journal().delete_session(number);
            return None;
        }
        let was_connected = matches!(loaded.left, Left::Connected(_));
        let id = self.broker.insert_loaded(loaded, Some(number), self.now);
        if was_connected {
            keep::update(&mut self.broker, id);
        }
        Some(id)
    }

    fn restore_subscriptions(
        &mut self,
        number: SessionNumber,
        session: Option<SessionId>,
        subscriptions: Vec<(Filter, StoredSubscription)>,
    ) {
        for (filter, StoredSubscription { options, identifier }) in subscriptions {
            let state = session.and_then(|session| self.broker.sessions.get_mut(session));
            let (Some(state), Some(session)) = (state, session) else {
                self.journal().delete_subscription(number, &filter);
                continue;
            };
            let (subscriber, _) = state.subscriptions.insert(&filter, options, identifier);
            flow::subscribe::note_subscribed(&mut self.broker, &filter);
            flow::subscribe::index(&mut self.broker, session, &filter, subscriber);
        }
    }

    /// Restores the messages and exchanges of a session. Returns those of a session that has ended
    /// that other members of a group can receive.
    fn restore_messages(
        &mut self,
        number: SessionNumber,
        session: Option<SessionId>,
        parts: Parts,
        last: u64,
    ) -> Vec<Outgoing> {
        let Parts { queued, outbound, inbound, .. } = parts;
        let mut waiting = BTreeMap::new();
        for (position, loaded) in queued {
            match self.restore_message(number, position, loaded) {
                Some(outgoing) => _ = waiting.insert(position, outgoing),
                None if session.is_none() => self.journal().delete_queued(number, position),
                None => {
                    self.report(&Key::Queued(number.get(), position), RecordError::MessageMissing);
                }
            }
        }
        let owed = owed(outbound, |identifier, position| {
            let outgoing = waiting.remove(&position);
            let is_one = |one: &Outgoing| one.message.qos() == QoS::AtLeastOnce;
            if let Some(outgoing) = outgoing.as_ref().filter(|one| is_one(one)) {
                if session.is_none() {
                    // Another member of its group can receive it.
                    self.journal().ended(number, identifier);
                    waiting.insert(position, outgoing.clone());
                    return None;
                }
                self.journal().adopt_sent(outgoing.number(), identifier);
            }
            if outgoing.is_none() {
                let key = Key::Outbound(number.get(), identifier);
                self.report(&key, RecordError::MessageMissing);
            }
            Some(outgoing.map_or(Owed::Nothing, Owed::Publish))
        });
        let state = session.and_then(|session| self.broker.sessions.get_mut(session));
        if let Some(state) = state {
            // No key occurs twice, so no identifier does.
            let restored = Session::restore(owed, inbound, waiting.into_values());
            let mut restored = restored.unwrap_or_default();
            restored.record_changes();
            // A late answer to a packet before the crash must not answer another one.
            restored.set_next_identifier(last);
            if let Presence::Away { session, .. } = &mut state.presence {
                **session = restored;
            }
            return Vec::new();
        }
        let journal = self.journal();
        for (identifier, owed) in owed {
            journal.ended(number, identifier);
            if let Owed::Publish(Outgoing { key: Some(key), .. }) = owed {
                journal.leave(key.get());
            }
        }
        inbound.iter().for_each(|identifier| journal.completed(number, *identifier));
        let is_kept = |outgoing: &Outgoing| {
            let Some(key) = outgoing.number() else { return false };
            let is_kept = Journal::group(Some(journal), key).is_some();
            if !is_kept {
                journal.leave(key);
            }
            is_kept
        };
        waiting.into_values().filter(is_kept).collect()
    }

    fn restore_message(
        &mut self,
        session: SessionNumber,
        position: u64,
        loaded: LoadedQueued,
    ) -> Option<Outgoing> {
        let LoadedQueued { message, qos, retain, .. } = loaded;
        let LoadedQueued { expires_at, subscription_identifiers, share, .. } = loaded;
        let message = self.messages.get(&message)?.with(qos, retain);
        let share = share.map(|filter| {
            let group = self.broker.groups.find(&filter);
            (filter, group)
        });
        let key = self.journal().adopt_delivery(position, session, &message, share);
        let outgoing = Outgoing::new(Some(key), message);
        Some(Outgoing { subscription_identifiers, expires_at, ..outgoing })
    }
}

/// Returns what is owed under each identifier, in the order in which it is resent. `publish` takes
/// the message at a position.
pub(super) fn owed(
    mut outbound: Vec<(PacketIdentifier, StoredOutbound)>,
    mut publish: impl FnMut(PacketIdentifier, u64) -> Option<Owed>,
) -> Vec<(PacketIdentifier, Owed)> {
    outbound.sort_unstable_by_key(|(_, owed)| match owed {
        StoredOutbound::Publish(number) | StoredOutbound::Pubrel(number) => *number,
        StoredOutbound::Nothing => 0,
    });
    let owed = outbound.into_iter().filter_map(|(identifier, stored)| {
        let owed = match stored {
            StoredOutbound::Publish(position) => publish(identifier, position)?,
            StoredOutbound::Pubrel(_) => Owed::Pubrel(None),
            StoredOutbound::Nothing => Owed::Nothing,
        };
        Some((identifier, owed))
    });
    owed.collect()
}

impl Broker {
    /// Adds a session that was stored, without its subscriptions and messages.
    pub(super) fn insert_loaded(
        &mut self,
        loaded: LoadedSession,
        number: Option<SessionNumber>,
        now: Instant,
    ) -> SessionId {
        let LoadedSession { client_identifier, left, will, grants } = loaded;
        let expires_at = match left {
            Left::Away(expires_at) => expires_at,
            Left::Connected(Expiry::Never) => None,
            Left::Connected(Expiry::After(seconds)) => Some(now.plus_seconds(seconds)),
        };
        let presence = Presence::Away { session: Box::default(), expires_at };
        let id = self.sessions.insert(&client_identifier, presence);
        if let Some(at) = expires_at {
            self.timers.arm(Timer::Session(id), at);
        }
        if let Some((delay, due, message)) = will {
            let due = due.unwrap_or_else(|| now.plus_seconds(delay));
            let message_expiry_interval = message.message_expiry_interval();
            let will = StoredWill { message, message_expiry_interval, delay, due: Some(due) };
            self.wills.insert(id, will);
            self.timers.arm(Timer::Will(id), due);
        }
        if let Some(state) = self.sessions.get_mut(id) {
            (state.grants, state.number) = (grants, number);
        }
        id
    }

    /// Hands out all records of the state as it is, for a host whose store is a log. They include
    /// what [`poll_journal`](Self::poll_journal) has not handed out yet.
    ///
    /// Without [`BrokerConfig::durable`] there are no records.
    pub fn snapshot(&mut self, mut record: impl FnMut(Record<'_>)) {
        let Some(journal) = &mut self.journal else { return };
        journal.note_snapshot();
        let Some(journal) = &self.journal else { return };
        let mut bytes = Vec::new();
        let mut put = |key: Key, value: &[u8]| {
            bytes.clear();
            key.write(&mut bytes);
            record(Record { key: &bytes, value: Some(value) });
        };
        put(Key::Format, &[super::journal::VERSION]);
        for (number, message) in journal.messages() {
            if journal.is_in_log(number) {
                continue;
            }
            put(Key::Message(number), &message.to_bytes());
        }
        let put_queued = |outgoing: &Outgoing, put: &mut dyn FnMut(Key, &[u8])| {
            let (key, position, value) = self.queued(journal, outgoing)?;
            put(key, &value);
            let is_sent = |position: &u64| {
                outgoing.message.qos() == QoS::ExactlyOnce || journal.is_noted_as_sent(*position)
            };
            Some(position).filter(is_sent)
        };
        for (id, state) in self.sessions.iter() {
            let Some(session) = state.number.map(SessionNumber::get) else { continue };
            self.put_session(id, session, &mut put, put_queued);
        }
        if let Some(position) = self.position().filter(|position| *position > 0) {
            put(Key::Position, &position.to_be_bytes());
        }
        let handed_on = self.tasks.handed_on().filter_map(|one| self.queued(journal, one));
        handed_on.for_each(|(key, _, value)| put(key, &value));
        let is_stored = |one: &&Retained| keep::is_stored(&one.message.topic_name());
        for retained in self.retained.iter().filter(is_stored) {
            let Some(number) = journal.number_of(&retained.message) else { continue };
            let topic = retained.message.topic_name().into_topic();
            put(Key::Retained(topic), &StoredRetained { number, retained }.write());
        }
    }

    /// Hands out the records of a session, with that number. `put_queued` hands out those of a
    /// message, and returns its position if it keeps its packet identifier.
    pub(super) fn put_session(
        &self,
        id: SessionId,
        number: u64,
        put: &mut dyn FnMut(Key, &[u8]),
        mut put_queued: impl FnMut(&Outgoing, &mut dyn FnMut(Key, &[u8])) -> Option<u64>,
    ) {
        let Some(state) = self.sessions.get(id) else { return };
        put(Key::Session(number), &keep::stored_session(self, id, state).write());
        for (filter, subscriber) in state.subscriptions.iter() {
            let (options, identifier) = (subscriber.options, subscriber.identifier);
            let stored = StoredSubscription { options, identifier };
            put(Key::Subscription(number, filter.clone()), &stored.write());
        }
        let Some(messages) = self.session_of(state) else { return };
        for (order, (identifier, owed)) in (0..).zip(messages.owed()) {
            let stored = match owed {
                OwedRef::Publish(outgoing) => {
                    let Some(position) = put_queued(outgoing, put) else { continue };
                    StoredOutbound::Publish(position)
                }
                OwedRef::Pubrel => StoredOutbound::Pubrel(order),
                OwedRef::Nothing => StoredOutbound::Nothing,
            };
            put(Key::Outbound(number, identifier), &stored.write());
        }
        for outgoing in messages.waiting() {
            put_queued(outgoing, put);
        }
        for identifier in messages.accepted() {
            put(Key::Inbound(number, identifier), &[]);
        }
    }

    /// Returns the record of a message of a session, with its position, if it is stored.
    fn queued(&self, journal: &Journal, outgoing: &Outgoing) -> Option<(Key, u64, Vec<u8>)> {
        let (session, position) = journal.place(outgoing)?;
        let number = journal.number_of(&outgoing.message)?;
        let share = outgoing.number().and_then(|key| journal.share(key)).cloned();
        let value = StoredQueued::new(number, outgoing, share).write();
        Some((Key::Queued(session.get(), position), position, value))
    }
}
