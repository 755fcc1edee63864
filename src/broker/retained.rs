//! The store of cursors: which retained messages new subscriptions still await.

use super::action::SessionId;
use super::subscription::Subscriber;
use crate::codec::{Filter, Topic, TopicName};
use crate::router::{Retained, RetainedStore};
use crate::session::Outgoing;
use crate::time::Instant;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::borrow::Borrow as _;

/// How many topics of a session can be sent ahead of their turn. Beyond that, messages of a topic
/// can arrive before its retained one.
const SENT_EARLY: usize = 1_000;

/// The cursors of all sessions that await retained messages.
///
/// Retained messages are fetched when there is room for them. So a filter that matches a million
/// of them takes no more memory than a filter that matches none.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    sessions: BTreeMap<SessionId, Replay>,
    /// Counts SUBSCRIBE packets.
    subscribes: u64,
}

/// The cursors of one session.
#[derive(Debug, Default)]
struct Replay {
    cursors: BTreeMap<Filter, Cursor>,
    /// Topics whose retained message was sent ahead of its turn, with the newest SUBSCRIBE at that
    /// time.
    sent_early: BTreeMap<Topic, u64>,
}

/// The position of one subscription in the retained messages.
///
/// It covers the messages that were retained at the time of the subscription. Later ones are
/// delivered as ordinary messages, after the retained one of their topic. [5.0 §3.3.1.3]
/// [5.0 MQTT-4.6.0-5]
#[derive(Debug)]
struct Cursor {
    subscriber: Subscriber,
    /// The version of the store at the time of the subscription.
    version: u64,
    /// The topic name of the last message that was passed.
    after: Option<Topic>,
    /// The number of the SUBSCRIBE.
    subscribe: u64,
}

impl Cursor {
    /// Whether the message still has to be sent to the client.
    fn wants(
        &self,
        topic: &[u8],
        retained: &Retained,
        client: &[u8],
        sent_early: &BTreeMap<Topic, u64>,
    ) -> bool {
        let is_own = *retained.publisher == *client;
        retained.version <= self.version
            // [5.0 MQTT-3.8.3-3]
            && !(is_own && self.subscriber.options.no_local)
            && self.after.as_ref().is_none_or(|after| after.as_text().as_bytes() < topic)
            && sent_early.get(topic).is_none_or(|subscribe| *subscribe < self.subscribe)
    }

    /// Returns the message as it is sent. [5.0 MQTT-3.8.4-8] [3.1.1 MQTT-3.3.1-8]
    fn outgoing(&self, retained: &Retained) -> Outgoing {
        let qos = retained.message.qos().min(self.subscriber.options.maximum_qos);
        Outgoing {
            subscription_identifiers: self.subscriber.identifier.into_iter().collect(),
            expires_at: retained.expires_at,
            ..Outgoing::new(None, retained.message.with(qos, true))
        }
    }
}

impl Cursors {
    /// Counts a SUBSCRIBE.
    pub(super) fn begin_subscribe(&mut self) {
        self.subscribes += 1;
    }

    /// Starts from the first retained message that matches the filter.
    pub(super) fn insert(
        &mut self,
        session: SessionId,
        filter: Filter,
        subscriber: Subscriber,
        version: u64,
    ) {
        let cursor = Cursor { subscriber, version, after: None, subscribe: self.subscribes };
        self.sessions.entry(session).or_default().cursors.insert(filter, cursor);
    }

    /// Gives what the subscription still awaits its new options.
    pub(super) fn update(&mut self, session: SessionId, filter: &Filter, subscriber: Subscriber) {
        let replay = self.sessions.get_mut(&session);
        if let Some(cursor) = replay.and_then(|replay| replay.cursors.get_mut(filter)) {
            cursor.subscriber = subscriber;
        }
    }

    pub(super) fn remove(&mut self, session: SessionId, filter: &Filter) {
        if let Some(replay) = self.sessions.get_mut(&session) {
            replay.cursors.remove(filter);
            if replay.cursors.is_empty() {
                self.sessions.remove(&session);
            }
        }
    }

    pub(super) fn remove_session(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether the session awaits retained messages.
    pub(super) fn is_due(&self, session: SessionId) -> bool {
        !self.is_empty() && self.sessions.contains_key(&session)
    }

    /// Returns the next retained message for a session, and passes those that it does not want.
    pub(super) fn next(
        &mut self,
        session: SessionId,
        client: &[u8],
        store: &RetainedStore,
        now: Instant,
    ) -> Option<(Topic, Outgoing)> {
        let Replay { cursors, sent_early } = self.sessions.get_mut(&session)?;
        while let Some(mut entry) = cursors.first_entry() {
            let after = entry.get().after.as_ref();
            let Some((topic, retained)) = store.next(entry.key(), after, now) else {
                entry.remove();
                continue;
            };
            if entry.get().wants(topic.borrow(), retained, client, sent_early) {
                return Some((topic.clone(), entry.get().outgoing(retained)));
            }
            entry.get_mut().after = Some(topic.clone());
        }
        self.sessions.remove(&session);
        None
    }

    /// Passes the message that [`next`](Self::next) has returned.
    pub(super) fn pass(&mut self, session: SessionId, topic: Topic) {
        let replay = self.sessions.get_mut(&session);
        if let Some(mut entry) = replay.and_then(|replay| replay.cursors.first_entry()) {
            entry.get_mut().after = Some(topic);
        }
    }

    /// Returns the copies of a topic's retained message that a session still awaits. A newer
    /// message of the topic must not be sent before them.
    pub(super) fn due_before(
        &self,
        session: SessionId,
        client: &[u8],
        topic_name: &TopicName<'_>,
        store: &RetainedStore,
        now: Instant,
    ) -> Vec<Outgoing> {
        let Some(Replay { cursors, sent_early }) = self.sessions.get(&session) else {
            return Vec::new();
        };
        let retained = store.get(topic_name).filter(|retained| !retained.is_expired(now));
        let Some(retained) = retained.filter(|_| sent_early.len() < SENT_EARLY) else {
            return Vec::new();
        };
        let due = cursors.iter().filter(|(filter, cursor)| {
            let topic = topic_name.as_text().as_bytes();
            cursor.wants(topic, retained, client, sent_early)
                && filter.as_topic_filter().matches(topic_name)
        });
        due.map(|(_, cursor)| cursor.outgoing(retained)).collect()
    }

    /// Notes that a topic's retained message was sent ahead of its turn.
    pub(super) fn note_sent_early(&mut self, session: SessionId, topic_name: TopicName<'_>) {
        if let Some(replay) = self.sessions.get_mut(&session) {
            replay.sent_early.insert(topic_name.into_topic(), self.subscribes);
        }
    }
}
