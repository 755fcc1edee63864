//! A client subscribes or unsubscribes.

use super::close;
use crate::broker::Broker;
use crate::broker::action::{ConnectionId, SessionId};
use crate::broker::subscription::Subscriber;
use crate::codec::{
    AckProperties, Disconnect, Filter, ReasonCode, RetainHandling, Subscribe, SubscribeProperties,
    Subscription, Unsubscribe, Version, levels,
};
use crate::server::{AnswerError, RequestToken};
use crate::time::Instant;
use alloc::vec::Vec;

/// Adds subscriptions, and answers with SUBACK. [5.0 §3.8.4] [3.1.1 §3.8.4]
pub(super) fn subscribe(
    broker: &mut Broker,
    id: ConnectionId,
    token: RequestToken,
    subscribe: &Subscribe<'_>,
    now: Instant,
) {
    let Some(connection) = broker.connections.get(id) else { return };
    let Some(session) = connection.session() else { return };
    let version = connection.server.version();
    broker.cursors.begin_subscribe();
    let properties = &subscribe.properties;
    let subscriptions = subscribe.subscriptions.iter();
    let granted = subscriptions.map(|one| grant(broker, session, version, &one, properties));
    let codes: Vec<_> = granted.map(|granted| granted.unwrap_or_else(|code| code)).collect();
    let Some(connection) = broker.connections.get_mut(id) else { return };
    let properties = AckProperties::default();
    let answered = connection.server.suback(token, &codes, properties, now, &mut connection.output);
    check_answered(broker, id, answered, now);
}

/// Adds one subscription, or replaces it. Returns the reason code for SUBACK.
fn grant(
    broker: &mut Broker,
    session: SessionId,
    version: Version,
    subscription: &Subscription<'_>,
    properties: &SubscribeProperties<'_>,
) -> Result<ReasonCode, ReasonCode> {
    broker.config.server.check(subscription, properties, version)?;
    let Subscription { topic_filter, options } = *subscription;
    let subscriber = Subscriber { options, identifier: properties.subscription_identifier };
    let filter =
        Filter::new(topic_filter, version).map_err(|_| ReasonCode::TOPIC_FILTER_INVALID)?;
    let state = broker.sessions.get_mut(session).ok_or(ReasonCode::UNSPECIFIED_ERROR)?;
    let is_full = state.subscriptions.len() >= broker.config.maximum_subscriptions
        && !state.subscriptions.contains_key(&filter);
    if is_full || levels(topic_filter).count() > broker.config.maximum_levels {
        return Err(ReasonCode::QUOTA_EXCEEDED);
    }
    // [5.0 MQTT-3.8.4-3] [3.1.1 MQTT-3.8.4-3]
    let is_new = state.subscriptions.insert(filter.clone(), subscriber).is_none();
    broker.subscriptions.insert(&filter, session, subscriber);
    // [5.0 MQTT-3.3.1-9 to -11] [3.1.1 MQTT-3.3.1-6]
    let sends_retained = match options.retain_handling {
        RetainHandling::Send => true,
        RetainHandling::SendIfNew => is_new,
        RetainHandling::DoNotSend => false,
    };
    if sends_retained {
        broker.cursors.insert(session, filter, subscriber, broker.retained.version());
    } else {
        broker.cursors.update(session, &filter, subscriber);
    }
    Ok(ReasonCode::new(options.maximum_qos.as_u8()))
}

/// Removes subscriptions, and answers with UNSUBACK. [5.0 §3.10.4] [3.1.1 §3.10.4]
pub(super) fn unsubscribe(
    broker: &mut Broker,
    id: ConnectionId,
    token: RequestToken,
    unsubscribe: &Unsubscribe<'_>,
    now: Instant,
) {
    let Some(connection) = broker.connections.get_mut(id) else { return };
    let Some(session) = connection.session() else { return };
    let Some(state) = broker.sessions.get_mut(session) else { return };
    let filters = unsubscribe.topic_filters.iter();
    let version = connection.server.version();
    let removed = filters.map(|filter| {
        let Ok(filter) = Filter::new(filter, version) else {
            return ReasonCode::TOPIC_FILTER_INVALID;
        };
        broker.cursors.remove(session, &filter);
        if state.subscriptions.remove(&filter).is_none() {
            return ReasonCode::NO_SUBSCRIPTION_EXISTED;
        }
        broker.subscriptions.remove(&filter, &session);
        ReasonCode::SUCCESS
    });
    let codes: Vec<_> = removed.collect();
    let properties = AckProperties::default();
    let answered =
        connection.server.unsuback(token, &codes, properties, now, &mut connection.output);
    check_answered(broker, id, answered, now);
}

/// Disconnects a client that has no room for the answer to its request.
fn check_answered(
    broker: &mut Broker,
    id: ConnectionId,
    answered: Result<(), AnswerError>,
    now: Instant,
) {
    if answered.is_err() {
        close::disconnect(broker, id, &Disconnect::new(ReasonCode::PACKET_TOO_LARGE), now);
    }
}
