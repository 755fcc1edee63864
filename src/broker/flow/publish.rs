//! A message is published: it is matched, queued for its receivers, and retained.

use super::close;
use crate::broker::Broker;
use crate::broker::action::{ConnectionId, SessionId};
use crate::broker::deliver::deliver_to_all;
use crate::broker::wills::StoredWill;
use crate::codec::{QoS, ReasonCode, TopicName, Version};
use crate::session::{Message, Received};
use crate::time::Instant;

/// Publishes a message of a client. Returns the reason code of the acknowledgement. [5.0 §3.3.4]
/// [3.1.1 §3.3.5]
pub(super) fn receive(
    broker: &mut Broker,
    id: ConnectionId,
    received: &Received<'_>,
    now: Instant,
) -> ReasonCode {
    let connection = broker.connections.get(id);
    let Some((session, version)) =
        connection.and_then(|one| Some((one.session()?, one.server.version())))
    else {
        return ReasonCode::UNSPECIFIED_ERROR;
    };
    let publish = received.to_publish();
    find_subscribers(broker, session, &received.topic_name);
    if broker.matches.is_empty() && !publish.retain {
        return ReasonCode::NO_MATCHING_SUBSCRIBERS;
    }
    let Ok(message) = Message::copy(&publish) else { return ReasonCode::UNSPECIFIED_ERROR };
    let expires_at =
        publish.properties.message_expiry_interval.map(|seconds| now.plus_seconds(seconds));
    // Only a 5.0 client that waits for an answer can learn that there is no room.
    let is_answered = version == Version::V5_0 && publish.qos > QoS::AtMostOnce;
    distribute(broker, session, message, expires_at, is_answered, now)
}

/// Publishes the will of a session, if it has one. [5.0 MQTT-3.1.2-10] [3.1.1 MQTT-3.1.2-10]
pub(super) fn publish_will(broker: &mut Broker, session: SessionId, now: Instant) {
    let Some(StoredWill { message, message_expiry_interval, .. }) =
        close::take_will(broker, session)
    else {
        return;
    };
    find_subscribers(broker, session, &message.topic_name());
    let expires_at = message_expiry_interval.map(|seconds| now.plus_seconds(seconds));
    distribute(broker, session, message, expires_at, false, now);
}

/// Collects the subscriptions that match a topic name in `broker.matches`.
fn find_subscribers(broker: &mut Broker, from: SessionId, topic_name: &TopicName<'_>) {
    let matches = &mut broker.matches;
    matches.clear();
    broker.subscriptions.matches(topic_name, |session, subscriber| {
        // [5.0 MQTT-3.8.3-3]
        if !(subscriber.options.no_local && *session == from) {
            matches.push((*session, *subscriber));
        }
    });
}

/// Queues a message for the sessions in `broker.matches`, and retains it if it says so.
fn distribute(
    broker: &mut Broker,
    from: SessionId,
    message: Message,
    expires_at: Option<Instant>,
    is_answered: bool,
    now: Instant,
) -> ReasonCode {
    let mut is_kept = message.retain();
    if is_kept && !broker.retained.has_room(&message, broker.config.maximum_retained) {
        broker.retained.remove_expired(now);
        is_kept = broker.retained.has_room(&message, broker.config.maximum_retained);
        if !is_kept && is_answered {
            return ReasonCode::QUOTA_EXCEEDED;
        }
        // The client cannot learn of it, so those who are subscribed receive the message.
        broker.dropped += u64::from(!is_kept);
    }
    let mut matches = core::mem::take(&mut broker.matches);
    deliver_to_all(broker, &mut matches, &message, expires_at, now);
    if is_kept {
        let publisher = broker.sessions.get(from).map(|state| state.client_identifier().clone());
        broker.retained.insert(message, expires_at, publisher.unwrap_or_default());
    }
    let has_subscribers = !matches.is_empty();
    broker.matches = matches;
    if has_subscribers { ReasonCode::SUCCESS } else { ReasonCode::NO_MATCHING_SUBSCRIBERS }
}
