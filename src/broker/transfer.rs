//! A session moves from one broker to another, as records.

use super::Broker;
use super::action::SessionId;
use super::flow::{close, subscribe};
use super::journal::{Key, LoadedQueued, OWN, Record, RecordError, StoredOutbound, StoredQueued};
use super::keep;
use super::nodes::NodeId;
use super::restore::{Parts, Records, owed};
use super::sessions::Presence;
use super::subscription::{Subscriber, Target};
use crate::codec::{Disconnect, QoS};
use crate::session::{Message, Outgoing, Owed, Session};
use crate::time::Instant;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Why a session was not imported.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// A record cannot be used.
    #[error("{error} (key {key:x?})")]
    Record {
        /// The key of the record.
        key: Vec<u8>,
        /// The fault.
        error: RecordError,
    },
    /// The records are not those of one session.
    #[error("expected the records of one session, got those of {0}")]
    NotOneSession(usize),
    /// The broker has its [maximum number of sessions](super::BrokerConfig::maximum_sessions).
    #[error("broker has its maximum number of sessions")]
    Full,
}

impl Broker {
    /// Hands out a session as records in the [format of the journal](super::journal#the-format),
    /// for [`import_session`](Self::import_session). Returns whether there is one.
    ///
    /// They have the subscriptions, the messages with QoS 1 and 2, the exchanges and the will. The
    /// session stays as it is. Retained messages that a new subscription still awaits are not in
    /// the records.
    ///
    /// One of several [nodes](super#other-nodes) names the messages of their log by their
    /// positions, without their records.
    #[must_use = "there may be no session"]
    pub fn export_session(&self, client_identifier: &str, record: impl FnMut(Record<'_>)) -> bool {
        let session = self.sessions.find(client_identifier);
        session.map(|session| self.export(session, record)).is_some()
    }

    fn export(&self, session: SessionId, mut record: impl FnMut(Record<'_>)) {
        let mut bytes = Vec::new();
        let mut put = |key: Key, value: &[u8]| {
            bytes.clear();
            key.write(&mut bytes);
            record(Record { key: &bytes, value: Some(value) });
        };
        // The session has the number 1. Messages are stored once each, by their address.
        let is_node = self.nodes.is_some();
        let (mut last, mut numbers) = (if is_node { OWN } else { 1 }, BTreeMap::new());
        let put_queued = |outgoing: &Outgoing, put: &mut dyn FnMut(Key, &[u8])| {
            if outgoing.message.qos() == QoS::AtMostOnce {
                return None;
            }
            let number = *numbers.entry(outgoing.message.address()).or_insert_with(|| {
                let journal = self.journal.as_ref();
                let in_log = journal.and_then(|journal| {
                    let number = journal.number_of(&outgoing.message)?;
                    journal.is_in_log(number).then_some(number)
                });
                in_log.unwrap_or_else(|| {
                    last += 1;
                    put(Key::Message(last), &outgoing.message.to_bytes());
                    last
                })
            });
            last += 1;
            let share = outgoing.number().and_then(|key| keep::share(self, key)).cloned();
            put(Key::Queued(1, last), &StoredQueued::new(number, outgoing, share).write());
            Some(last)
        };
        self.put_session(session, 1, &mut put, put_queued);
    }

    /// Adds a session that another broker has [exported](Self::export_session). Its client is not
    /// connected. On error nothing has changed. At one of several [nodes](super#other-nodes), the
    /// host adds the records of the messages that it finds in the log.
    ///
    /// The records have times, so the clocks of both brokers must have the same epoch. The call
    /// handles all records at once, so its work grows with their number.
    pub fn import_session<'r>(
        &mut self,
        records: impl IntoIterator<Item = Record<'r>>,
        now: Instant,
    ) -> Result<(), ImportError> {
        let now = self.begin(now);
        let mut found = Records::default();
        for Record { key, value } in records {
            let taken = value.ok_or(RecordError::Value).and_then(|value| found.take(key, value));
            taken.map_err(|error| ImportError::Record { key: key.into(), error })?;
        }
        let Records { messages, mut sessions, last, .. } = found;
        let count = sessions.len();
        let (Some((number, parts)), 1) = (sessions.pop_first(), count) else {
            return Err(ImportError::NotOneSession(count));
        };
        self.check_import(number, &parts, &messages)?;
        self.import(parts, &messages, last, now);
        Ok(())
    }

    fn check_import(
        &self,
        number: u64,
        parts: &Parts,
        messages: &BTreeMap<u64, Message>,
    ) -> Result<(), ImportError> {
        let fault = |key: Key, error| {
            let mut bytes = Vec::new();
            key.write(&mut bytes);
            ImportError::Record { key: bytes, error }
        };
        let session = parts.session.as_ref().ok_or(ImportError::NotOneSession(0))?;
        if self.sessions.find(&session.client_identifier).is_some() {
            return Err(fault(Key::Session(number), RecordError::DuplicateClient));
        }
        if self.sessions.len() >= self.config.maximum_sessions {
            return Err(ImportError::Full);
        }
        for (position, queued) in &parts.queued {
            if !messages.contains_key(&queued.message) {
                return Err(fault(Key::Queued(number, *position), RecordError::MessageMissing));
            }
        }
        for (identifier, owed) in &parts.outbound {
            let is_missing = |position| !parts.queued.contains_key(position);
            if matches!(owed, StoredOutbound::Publish(position) if is_missing(position)) {
                return Err(fault(Key::Outbound(number, *identifier), RecordError::MessageMissing));
            }
        }
        Ok(())
    }

    /// Adds a session whose records were checked. `last` is the greatest number in them.
    fn import(&mut self, parts: Parts, messages: &BTreeMap<u64, Message>, last: u64, now: Instant) {
        let Parts { session: Some(loaded), subscriptions, queued, outbound, inbound } = parts
        else {
            return;
        };
        let number = self.journal.as_mut().map(|journal| {
            let in_log: Vec<_> =
                messages.iter().filter(|(number, _)| journal.is_in_log(**number)).collect();
            in_log.into_iter().for_each(|(number, message)| journal.adopt(*number, message));
            journal.new_session()
        });
        let id = self.insert_loaded(loaded, number, now);
        keep::insert(self, id);
        for (filter, stored) in subscriptions {
            subscribe::insert(self, id, &filter, stored.options, stored.identifier);
        }
        let mut waiting = BTreeMap::new();
        for (position, loaded) in queued {
            let LoadedQueued { message, qos, retain, expires_at, .. } = loaded;
            let LoadedQueued { subscription_identifiers, share, .. } = loaded;
            let Some(message) = messages.get(&message) else { continue };
            let message = message.with(qos, retain);
            let group = share.as_ref().and_then(|filter| self.groups.find(filter));
            let outgoing = Outgoing::new(group.map(|group| group.as_u64()), message);
            let mut outgoing = Outgoing { subscription_identifiers, expires_at, ..outgoing };
            keep::enter(self, id, &mut outgoing, group.zip(share.as_ref()), now);
            waiting.insert(position, outgoing);
        }
        let owed = owed(outbound, |_, position| waiting.remove(&position).map(Owed::Publish));
        keep::insert_exchanges(self, id, &owed, &inbound);
        if let Some(journal) = &mut self.journal {
            messages.values().for_each(|message| journal.forget_unused(message));
        }
        let state = self.sessions.get_mut(id).map(|state| &mut state.presence);
        if let Some(Presence::Away { session, .. }) = state {
            // No key occurs twice, so no identifier does.
            let restored = Session::restore(owed, inbound, waiting.into_values());
            **session = restored.unwrap_or_default();
            // A late answer to a packet of the other broker must not answer another one.
            session.set_next_identifier(last);
            if number.is_some() {
                session.record_changes();
            }
        }
        subscribe::note_members(self, id, true);
    }

    /// Counts the QoS 1 messages that wait for a client as sent, so that it receives them with DUP.
    /// Does nothing while the client is connected.
    ///
    /// For a host that has [imported](Self::import_session) a session from records of a
    /// [journal](super::journal) in which the client was connected: they do not say which messages
    /// were sent. It calls this after it has passed the messages behind their position. The records
    /// of [`evict`](Self::evict) say it.
    pub fn presume_sent(&mut self, client_identifier: &str, now: Instant) {
        let now = self.begin(now);
        if let Some(session) = self.sessions.find(client_identifier) {
            keep::presume_sent(self, session, now);
        }
    }

    /// Ends a session here, so that another broker can [import](Self::import_session) it: ends the
    /// connection of its client, hands out its records, and forgets it. A 5.0 client receives
    /// `disconnect`. Its will is published if it has no delay, as with any other end of a
    /// connection; a delayed one moves with the session.
    ///
    /// `to` is the [node](super#other-nodes) that will have the session. From now on messages for
    /// the session are forwarded there.
    ///
    /// Returns whether there are records: a session can end with its connection. A broker that is
    /// durable reports in its next batch that it has the session no longer. The host stores the
    /// records elsewhere before that batch.
    #[must_use = "there may be no session"]
    pub fn evict(
        &mut self,
        client_identifier: &str,
        to: Option<NodeId>,
        disconnect: &Disconnect<'_>,
        now: Instant,
        record: impl FnMut(Record<'_>),
    ) -> bool {
        let now = self.begin(now);
        close::disconnect_client(self, client_identifier, disconnect, now);
        let Some(session) = self.sessions.find(client_identifier) else { return false };
        self.export(session, record);
        let Self { sessions, subscriptions, nodes, .. } = self;
        let to = to.filter(|_| nodes.is_some());
        if let (Some(state), Some(node)) = (sessions.get(session), to) {
            for (filter, _) in state.subscriptions.iter() {
                subscriptions.insert(filter, Target::Node(node), Subscriber::NODE);
            }
        }
        close::forget_session(self, session, now);
        true
    }
}
