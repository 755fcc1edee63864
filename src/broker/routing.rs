//! Who gets which message: subscriptions, retained messages and queues.

use super::{Broker, ConnectionId, SessionId};
use crate::codec::{
    EncodeError, Publish, PublishProperties, QoS, ReasonCode, RetainHandling, Subscribe,
    SubscriptionIdentifier, SubscriptionOptions, Text, TopicFilter, Unsubscribe, Version, Will,
    levels,
};
use crate::router::{Retained, RetainedStore};
use crate::session::{Message, Outgoing, QueueLimit};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What a session has asked for with one of its filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscriber {
    options: SubscriptionOptions,
    identifier: Option<SubscriptionIdentifier>,
}

/// The retained messages for a subscription, as far as they have not been sent.
///
/// They are fetched when there is room for them, so that a filter that matches a million of them
/// takes no more memory than one that matches none. Those are meant that there were at the time of
/// the subscription; what was published since then is sent as any message is, after the retained
/// one of its topic. [5.0 §3.3.1.3] [5.0 MQTT-4.6.0-5]
#[derive(Debug)]
pub(super) struct RetainedCursor {
    subscriber: Subscriber,
    /// The version of the store at the time of the subscription.
    version: u64,
    /// The topic name of the last one sent.
    after: Option<Box<[u8]>>,
    /// Counts the cursors of the broker.
    number: u64,
}

/// How many messages of a session are sent before their turn; with more the order is given up.
const SENT_EARLY: usize = 1_000;

impl RetainedCursor {
    /// Whether the message is one of those still to be sent to the client.
    fn wants(
        &self,
        retained: &Retained,
        client: &[u8],
        sent_early: &BTreeMap<Box<[u8]>, u64>,
    ) -> bool {
        let topic_name = retained.message.topic_name().as_bytes();
        let own = *retained.publisher == *client;
        retained.version <= self.version
            // [5.0 MQTT-3.8.3-3]
            && !(own && self.subscriber.options.no_local)
            && self.after.as_deref().is_none_or(|after| after < topic_name)
            && sent_early.get(topic_name).is_none_or(|number| *number < self.number)
    }

    /// The message as it is sent. [5.0 MQTT-3.8.4-8] [3.1.1 MQTT-3.3.1-8]
    fn outgoing(&self, retained: &Retained) -> Outgoing {
        let message = retained
            .message
            .with(retained.message.qos().min(self.subscriber.options.maximum_qos), true);
        let subscription_identifiers = self.subscriber.identifier.into_iter().collect();
        Outgoing {
            subscription_identifiers,
            expires_at: retained.expires_at,
            ..Outgoing::new(None, message)
        }
    }
}

/// A filter of a subscription that there is.
fn stored_filter(filter: &[u8]) -> Option<TopicFilter<'_>> {
    // Shared subscriptions are not available, so it is a filter as it was before 5.0.
    TopicFilter::new(Text::assume_checked(filter), Version::V3_1_1).ok()
}

/// With fewer messages waiting than this, a session is given more retained ones.
const RETAINED_AT_ONCE: usize = 16;

impl Broker {
    /// A client has published. What it is to be told. [5.0 §3.3.4] [3.1.1 §3.3.5]
    pub(super) fn on_message(
        &mut self,
        id: ConnectionId,
        publish: &Publish<'_>,
        now: Instant,
    ) -> ReasonCode {
        let Some(session_id) = self.session_of(id).map(|(session_id, _)| session_id) else {
            return ReasonCode::UNSPECIFIED_ERROR;
        };
        let v5 = self
            .connections
            .get(id.0)
            .is_some_and(|connection| connection.server.version() == Version::V5_0);
        self.route(session_id, publish, v5 && publish.qos > QoS::AtMostOnce, now)
    }

    fn route(
        &mut self,
        from: SessionId,
        publish: &Publish<'_>,
        can_be_told: bool,
        now: Instant,
    ) -> ReasonCode {
        let mut matches = core::mem::take(&mut self.matches);
        matches.clear();
        self.subscriptions.matches(publish.topic_name, |session_id, subscriber| {
            // [5.0 MQTT-3.8.3-3]
            if !(subscriber.options.no_local && *session_id == from) {
                matches.push((*session_id, *subscriber));
            }
        });
        let reason_code = if matches.is_empty() && !publish.retain {
            ReasonCode::NO_MATCHING_SUBSCRIBERS
        } else {
            self.route_to(from, &mut matches, publish, can_be_told, now)
        };
        self.matches = matches;
        reason_code
    }

    fn route_to(
        &mut self,
        from: SessionId,
        matches: &mut [(SessionId, Subscriber)],
        publish: &Publish<'_>,
        can_be_told: bool,
        now: Instant,
    ) -> ReasonCode {
        let Ok(message) = Message::new(publish) else { return ReasonCode::UNSPECIFIED_ERROR };
        let expires_at =
            publish.properties.message_expiry_interval.map(|seconds| now.plus_seconds(seconds));
        let mut keep = publish.retain;
        if keep && !publish.payload.is_empty() {
            let limit = self.config.maximum_retained;
            // Only a 5.0 client that waits for an answer can be told that there is no room; for
            // others the message goes to those who are here.
            let has_room = |store: &RetainedStore| {
                let old = store.get(publish.topic_name).map(|retained| retained.message.size());
                let bytes = store.bytes() - old.unwrap_or(0) + message.size();
                (old.is_some() || store.len() < limit.messages) && bytes <= limit.bytes
            };
            if !has_room(&self.retained) {
                self.retained.remove_expired(now);
                keep = has_room(&self.retained);
            }
            if !keep && can_be_told {
                return ReasonCode::QUOTA_EXCEEDED;
            }
            self.dropped += u64::from(!keep);
        }
        // One copy for each session, whatever the number of its filters that match. [5.0
        // MQTT-3.3.4-2] [3.1.1 MQTT-3.3.5-1]
        matches.sort_unstable_by_key(|(session_id, _)| *session_id);
        for same in matches.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((session_id, _)) = same.first() else { continue };
            let granted = same.iter().map(|(_, subscriber)| subscriber.options.maximum_qos).max();
            let as_published =
                same.iter().any(|(_, subscriber)| subscriber.options.retain_as_published);
            // [5.0 MQTT-3.8.4-8] [3.1.1 MQTT-3.8.4-6]
            let qos = publish.qos.min(granted.unwrap_or_default());
            // [5.0 MQTT-3.3.1-12] [5.0 MQTT-3.3.1-13] [3.1.1 MQTT-3.3.1-9]
            let copy = message.with(qos, publish.retain && as_published);
            // [5.0 MQTT-3.3.4-3] [5.0 MQTT-3.3.4-4]
            let subscription_identifiers =
                same.iter().filter_map(|(_, subscriber)| subscriber.identifier).collect();
            let outgoing =
                Outgoing { subscription_identifiers, expires_at, ..Outgoing::new(None, copy) };
            if self.deliver_retained_before(*session_id, publish.topic_name, now) {
                self.deliver(*session_id, now, outgoing);
            } else {
                self.dropped += 1;
            }
        }
        if keep {
            let publisher = self
                .sessions
                .get(from.0)
                .map(|state| state.client_identifier.clone())
                .unwrap_or_default();
            self.retained.insert(message, expires_at, publisher);
        }
        if matches.is_empty() { ReasonCode::NO_MATCHING_SUBSCRIBERS } else { ReasonCode::SUCCESS }
    }

    /// Lets a message wait for a client, be it here or away; whether it does. [5.0 MQTT-4.5.0-1]
    /// [3.1.1 MQTT-3.1.2-5]
    fn deliver(&mut self, session_id: SessionId, now: Instant, outgoing: Outgoing) -> bool {
        let Some(state) = self.sessions.get_mut(session_id.0) else { return false };
        let connection = state.connection.and_then(|id| self.connections.get_mut(id.0));
        let delivered = match connection {
            Some(connection) => connection.server.deliver(outgoing, now),
            None if outgoing.message.qos() == QoS::AtMostOnce => return false,
            None => state.parked.enqueue(outgoing, self.config.server.queue_limit(), now),
        };
        match (&delivered, state.connection) {
            (Ok(()), Some(id)) => self.tell(id),
            (Ok(()), None) => {}
            (Err(_), _) => self.dropped += 1,
        }
        delivered.is_ok()
    }

    /// [5.0 §3.8.4] [3.1.1 §3.8.4]
    pub(super) fn subscribe(
        &mut self,
        id: ConnectionId,
        subscribe: &Subscribe<'_>,
    ) -> Vec<ReasonCode> {
        let version = self
            .connections
            .get(id.0)
            .map_or(Version::V5_0, |connection| connection.server.version());
        let maximum = self.config.maximum_subscriptions;
        let version_of_store = self.retained.version();
        self.cursors += 1;
        let number = self.cursors;
        let mut codes = Vec::new();
        for subscription in subscribe.subscriptions {
            if let Err(reason_code) =
                self.config.server.check(&subscription, &subscribe.properties, version)
            {
                codes.push(reason_code);
                continue;
            }
            if levels(subscription.topic_filter).count() > self.config.maximum_levels {
                codes.push(ReasonCode::QUOTA_EXCEEDED);
                continue;
            }
            let options = subscription.options;
            let subscriber =
                Subscriber { options, identifier: subscribe.properties.subscription_identifier };
            let filter = subscription.topic_filter.as_bytes();
            let Some((session_id, state)) = self.session_of(id) else { break };
            if state.subscriptions.len() >= maximum && !state.subscriptions.contains_key(filter) {
                codes.push(ReasonCode::QUOTA_EXCEEDED);
                continue;
            }
            // [5.0 MQTT-3.8.4-3] [3.1.1 MQTT-3.8.4-3]
            let is_new = state.subscriptions.insert(filter.into(), subscriber).is_none();
            // [5.0 MQTT-3.3.1-9 to -11] [3.1.1 MQTT-3.3.1-6]
            let wanted = match options.retain_handling {
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => is_new,
                RetainHandling::DoNotSend => false,
            };
            if wanted {
                let cursor =
                    RetainedCursor { subscriber, version: version_of_store, after: None, number };
                state.retained.insert(filter.into(), cursor);
            } else if let Some(cursor) = state.retained.get_mut(filter) {
                // Those that the subscription before it was still due go by the new options.
                cursor.subscriber = subscriber;
            }
            self.subscriptions.insert(subscription.topic_filter, session_id, subscriber);
            codes.push(ReasonCode::new(options.maximum_qos.as_u8()));
        }
        codes
    }

    /// [5.0 §3.10.4] [3.1.1 §3.10.4]
    pub(super) fn unsubscribe(
        &mut self,
        id: ConnectionId,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Vec<ReasonCode> {
        let mut codes = Vec::new();
        for filter in unsubscribe.topic_filters {
            let Some((session_id, state)) = self.session_of(id) else { break };
            state.retained.remove(filter.as_bytes());
            if state.retained.is_empty() {
                state.sent_early.clear();
            }
            let known = state.subscriptions.remove(filter.as_bytes()).is_some();
            if known {
                self.subscriptions.remove(filter, &session_id);
            }
            codes.push(if known {
                ReasonCode::SUCCESS
            } else {
                ReasonCode::NO_SUBSCRIPTION_EXISTED
            });
        }
        codes
    }

    /// Gives a connection some of the retained messages that it is due, if it has room for them;
    /// whether it was given any.
    pub(super) fn deliver_retained(&mut self, id: ConnectionId, now: Instant) -> bool {
        let limit = self.config.server.queue_limit();
        let mut delivered = false;
        loop {
            let Some(connection) = self.connections.get(id.0) else { return delivered };
            let Some(session_id) = connection.session else { return delivered };
            let Some(state) = self.sessions.get_mut(session_id.0) else { return delivered };
            let session = connection.server.session();
            let Some(mut entry) =
                state.retained.first_entry().filter(|_| session.queued() < RETAINED_AT_ONCE)
            else {
                return delivered;
            };
            let after = entry.get().after.as_deref();
            let next = stored_filter(entry.key())
                .and_then(|filter| self.retained.next(filter, after, now));
            let Some(retained) = next else {
                entry.remove();
                if state.retained.is_empty() {
                    state.sent_early.clear();
                }
                continue;
            };
            let cursor = entry.get_mut();
            let outgoing = cursor
                .wants(retained, &state.client_identifier, &state.sent_early)
                .then(|| cursor.outgoing(retained));
            if outgoing.is_some() && !session.has_room(&retained.message, limit) {
                return delivered;
            }
            cursor.after = Some(retained.message.topic_name().as_bytes().into());
            if let Some(outgoing) = outgoing {
                delivered |= self.deliver(session_id, now, outgoing);
            }
        }
    }

    /// A message is about to be sent to a session that may still be due the retained message of its
    /// topic: it is given that first. False if there is no room for that, and so none for what
    /// comes after it.
    fn deliver_retained_before(
        &mut self,
        session_id: SessionId,
        topic_name: Text<'_>,
        now: Instant,
    ) -> bool {
        let Some(state) = self.sessions.get_mut(session_id.0) else { return true };
        if state.retained.is_empty() || state.sent_early.len() >= SENT_EARLY {
            return true;
        }
        let Some(retained) =
            self.retained.get(topic_name).filter(|retained| !retained.is_expired(now))
        else {
            return true;
        };
        let wanting = state.retained.iter().filter(|(filter, cursor)| {
            cursor.wants(retained, &state.client_identifier, &state.sent_early)
                && stored_filter(filter).is_some_and(|filter| filter.matches(topic_name))
        });
        let due: Vec<_> = wanting.map(|(_, cursor)| cursor.outgoing(retained)).collect();
        let Some(others) = due.len().checked_sub(1) else { return true };
        let connection = state.connection.and_then(|id| self.connections.get(id.0));
        let session = connection.map_or(&state.parked, |connection| connection.server.session());
        // All of the copies or none.
        let QueueLimit { messages, bytes } = self.config.server.queue_limit();
        let limit = QueueLimit {
            messages: messages.saturating_sub(others),
            bytes: bytes.saturating_sub(others * retained.message.size()),
        };
        if !session.has_room(&retained.message, limit) {
            return false;
        }
        let mut delivered = false;
        for outgoing in due {
            delivered |= self.deliver(session_id, now, outgoing);
        }
        // An absent client is not given those with QoS 0, which are still due.
        if let Some(state) = self.sessions.get_mut(session_id.0).filter(|_| delivered) {
            state.sent_early.insert(topic_name.as_bytes().into(), self.cursors);
        }
        true
    }

    /// Publishes the will of a session, if it has one, and forgets it. [5.0 MQTT-3.1.2-10] [3.1.1
    /// MQTT-3.1.2-10]
    pub(super) fn publish_will(&mut self, session_id: SessionId, now: Instant) {
        let will = self.sessions.get_mut(session_id.0).and_then(|state| state.will.take());
        if let Some(will) = will {
            self.route(session_id, &will.message.publish(), false, now);
        }
    }
}

/// A will as the message that it will be. [5.0 §3.1.3.2] [5.0 MQTT-3.1.3-10]
pub(super) fn will_message(will: &Will<'_>) -> Result<Message, EncodeError> {
    let Will { qos, retain, topic, payload, properties } = *will;
    let properties = PublishProperties {
        payload_format_indicator: properties.payload_format_indicator,
        message_expiry_interval: properties.message_expiry_interval,
        content_type: properties.content_type,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data,
        user_properties: properties.user_properties,
        ..PublishProperties::default()
    };
    Message::new(&Publish {
        qos,
        retain,
        topic_name: topic,
        payload,
        properties,
        ..Publish::default()
    })
}
