//! One message on its way to the sessions: one copy each, in order with retained messages.

use super::Broker;
use super::action::{ConnectionId, SessionId};
use super::sessions::Presence;
use super::subscription::Subscriber;
use crate::codec::{QoS, TopicName};
use crate::session::{Message, Outgoing, QueueLimit};
use crate::time::Instant;

/// A session is given more retained messages while fewer messages than this wait for its client.
const RETAINED_AT_ONCE: usize = 16;

/// Queues one copy of a message for each session, whatever the number of its filters that match.
/// [5.0 MQTT-3.3.4-2] [3.1.1 MQTT-3.3.5-1]
pub(super) fn deliver_to_all(
    broker: &mut Broker,
    matches: &mut [(SessionId, Subscriber)],
    message: &Message,
    expires_at: Option<Instant>,
    now: Instant,
) {
    matches.sort_unstable_by_key(|(session, _)| *session);
    for same in matches.chunk_by(|(one, _), (other, _)| one == other) {
        let Some((session, _)) = same.first() else { continue };
        let subscribers = || same.iter().map(|(_, subscriber)| subscriber);
        let granted = subscribers().map(|subscriber| subscriber.options.maximum_qos).max();
        let as_published = subscribers().any(|subscriber| subscriber.options.retain_as_published);
        // [5.0 MQTT-3.8.4-8] [3.1.1 MQTT-3.8.4-6]
        let qos = message.qos().min(granted.unwrap_or_default());
        // [5.0 MQTT-3.3.1-12] [5.0 MQTT-3.3.1-13] [3.1.1 MQTT-3.3.1-9]
        let copy = message.with(qos, message.retain() && as_published);
        // [5.0 MQTT-3.3.4-3] [5.0 MQTT-3.3.4-4]
        let subscription_identifiers =
            subscribers().filter_map(|subscriber| subscriber.identifier).collect();
        let outgoing =
            Outgoing { subscription_identifiers, expires_at, ..Outgoing::new(None, copy) };
        let is_next = !broker.cursors.is_due(*session)
            || deliver_retained_before(broker, *session, &message.topic_name(), now);
        if !(is_next && deliver(broker, *session, outgoing, now)) {
            broker.dropped += 1;
        }
    }
}

/// Queues a message for a client, connected or away. Returns whether there was room.
/// [5.0 MQTT-4.5.0-1] [3.1.1 MQTT-3.1.2-5]
fn deliver(broker: &mut Broker, session: SessionId, outgoing: Outgoing, now: Instant) -> bool {
    let Some(state) = broker.sessions.get_mut(session) else { return false };
    match &mut state.presence {
        Presence::Connected(id) => broker.connections.deliver(*id, outgoing, now).is_ok(),
        // These messages are sent at once or not at all. [5.0 §3.3.2.3.3]
        Presence::Away { .. }
            if outgoing.message.qos() == QoS::AtMostOnce
                || outgoing.expires_at.is_some_and(|at| at <= now) =>
        {
            true
        }
        Presence::Away { session, .. } => {
            session.enqueue(outgoing, broker.config.server.queue_limit(), now).is_ok()
        }
    }
}

/// Queues the retained message of a topic for a session that still awaits it, because a newer
/// message of the topic is about to be queued. Returns false if there is no room for it, and so
/// none for the newer message.
fn deliver_retained_before(
    broker: &mut Broker,
    session: SessionId,
    topic_name: &TopicName<'_>,
    now: Instant,
) -> bool {
    let Some(state) = broker.sessions.get(session) else { return true };
    let (client, store) = (state.client_identifier(), &broker.retained);
    let due = broker.cursors.due_before(session, client, topic_name, store, now);
    let Some(size) = due.iter().map(Outgoing::size).max() else { return true };
    let queue = match &state.presence {
        Presence::Away { session, .. } => Some(&**session),
        Presence::Connected(id) => {
            broker.connections.get(*id).map(|connection| connection.server.session())
        }
    };
    // All of the copies or none.
    let others = due.len() - 1;
    let QueueLimit { messages, bytes } = broker.config.server.queue_limit();
    let limit = QueueLimit {
        messages: messages.saturating_sub(others),
        bytes: bytes.saturating_sub(others * size),
    };
    if !queue.is_some_and(|queue| queue.has_room(size, limit)) {
        return false;
    }
    // A client that is away is not given messages with QoS 0. They are still due.
    let is_away = matches!(state.presence, Presence::Away { .. });
    let mut delivered = false;
    for outgoing in due {
        let is_kept = !(is_away && outgoing.message.qos() == QoS::AtMostOnce);
        delivered |= deliver(broker, session, outgoing, now) && is_kept;
    }
    if delivered {
        broker.cursors.note_sent_early(session, topic_name.clone());
    }
    true
}

/// Queues retained messages that the session of a connection awaits, while there is room. Returns
/// whether there were any.
pub(super) fn deliver_retained(broker: &mut Broker, id: ConnectionId, now: Instant) -> bool {
    let limit = broker.config.server.queue_limit();
    let Some(connection) = broker.connections.get_mut(id) else { return false };
    let Some(session) = connection.session() else { return false };
    let Some(state) = broker.sessions.get(session) else { return false };
    let mut delivered = false;
    while connection.server.session().queued() < RETAINED_AT_ONCE {
        let (client, store) = (state.client_identifier(), &broker.retained);
        let next = broker.cursors.next(session, client, store, now);
        let has_room = |next: &Outgoing| connection.server.session().has_room(next.size(), limit);
        let Some((topic, outgoing)) = next.filter(|(_, next)| has_room(next)) else { break };
        broker.cursors.pass(session, topic);
        delivered |= connection.server.deliver(outgoing, now).is_ok();
    }
    delivered
}
