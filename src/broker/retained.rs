//! The store of cursors: which retained messages new subscriptions still await.

use super::action::SessionId;
use super::subscription::{Subscriber, Target};
use crate::codec::{Filter, Topic, TopicName};
use crate::router::{Retained, RetainedCursor, RetainedStore};
use crate::session::Outgoing;
use crate::time::Instant;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

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
    /// By the number of the subscription.
    cursors: BTreeMap<u32, Cursor>,
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
    search: RetainedCursor,
    /// The number of the SUBSCRIBE.
    subscribe: u64,
}

impl Cursor {
    /// Whether the message still has to be sent to the client.
    fn wants(&self, retained: &Retained, client: &str, sent_early: &BTreeMap<Topic, u64>) -> bool {
        let is_own = *retained.publisher == *client.as_bytes();
        let topic_name = retained.message.topic_name();
        let was_sent = sent_early.get(topic_name.as_text().as_bytes());
        retained.version <= self.version
            // [5.0 MQTT-3.8.3-3]
            && !(is_own && self.subscriber.options.no_local)
            && was_sent.is_none_or(|subscribe| *subscribe < self.subscribe)
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
    pub(super) const fn begin_subscribe(&mut self) {
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
        let search = RetainedCursor::new(filter);
        let cursor = Cursor { subscriber, version, search, subscribe: self.subscribes };
        self.sessions.entry(session).or_default().cursors.insert(subscriber.number, cursor);
    }

    /// Gives what the subscription still awaits its new options.
    pub(super) fn update(&mut self, session: SessionId, subscriber: Subscriber) {
        let replay = self.sessions.get_mut(&session);
        if let Some(cursor) = replay.and_then(|replay| replay.cursors.get_mut(&subscriber.number)) {
            cursor.subscriber = subscriber;
        }
    }

    pub(super) fn remove(&mut self, session: SessionId, subscriber: Subscriber) {
        if let Some(replay) = self.sessions.get_mut(&session) {
            replay.cursors.remove(&subscriber.number);
            if replay.cursors.is_empty() {
                self.sessions.remove(&session);
            }
        }
    }

    pub(super) fn remove_session(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// Whether no session awaits retained messages.
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether the session awaits retained messages.
    pub(super) fn is_due(&self, session: SessionId) -> bool {
        !self.is_empty() && self.sessions.contains_key(&session)
    }

    /// Returns the next retained message for a session, and passes those that it does not want.
    /// `None` with an empty budget means that the search can go on.
    pub(super) fn next(
        &mut self,
        session: SessionId,
        client: &str,
        store: &RetainedStore,
        now: Instant,
        budget: &mut usize,
    ) -> Option<Outgoing> {
        let Replay { cursors, sent_early } = self.sessions.get_mut(&session)?;
        while let Some(mut entry) = cursors.first_entry() {
            let cursor = entry.get_mut();
            match store.next(&mut cursor.search, now, budget) {
                Some(retained) if cursor.wants(retained, client, sent_early) => {
                    return Some(cursor.outgoing(retained));
                }
                Some(_) => cursor.search.pass(),
                None if cursor.search.is_at_end() => {
                    entry.remove();
                    // A search that finds nothing is a step, too.
                    *budget = budget.saturating_sub(1);
                }
                None => return None,
            }
        }
        self.sessions.remove(&session);
        None
    }

    /// Passes the message that [`next`](Self::next) has returned.
    pub(super) fn pass(&mut self, session: SessionId) {
        let replay = self.sessions.get_mut(&session);
        if let Some(mut entry) = replay.and_then(|replay| replay.cursors.first_entry()) {
            entry.get_mut().search.pass();
        }
    }

    /// Returns the copies of a topic's retained message that these subscriptions of a session still
    /// await. A newer message of the topic must not be sent before them.
    pub(super) fn due_before(
        &self,
        session: SessionId,
        client: &str,
        topic_name: &TopicName<'_>,
        subscribers: &[(Target, Subscriber)],
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
        let cursors = subscribers.iter().filter_map(|(_, one)| cursors.get(&one.number));
        let due = cursors.filter(|cursor| {
            !cursor.search.has_passed(topic_name) && cursor.wants(retained, client, sent_early)
        });
        due.map(|cursor| cursor.outgoing(retained)).collect()
    }

    /// Notes that a topic's retained message was sent ahead of its turn.
    pub(super) fn note_sent_early(&mut self, session: SessionId, topic_name: TopicName<'_>) {
        if let Some(replay) = self.sessions.get_mut(&session) {
            replay.sent_early.insert(topic_name.into_topic(), self.subscribes);
        }
    }
}
