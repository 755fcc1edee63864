//! A message is published: it is matched, queued for its receivers, and retained.

use super::{close, exchange};
use crate::broker::Broker;
use crate::broker::action::{ConnectionId, SessionId};
use crate::broker::deliver::deliver_to_all;
use crate::broker::grants::{Access, Verdict};
use crate::broker::keep;
use crate::broker::nodes::{Forward, Route, take_groups, take_nodes};
use crate::broker::question::{Pending, Question};
use crate::broker::subscription::Target;
use crate::broker::wills::StoredWill;
use crate::broker::{sparkplug, stats};
use crate::codec::{QoS, ReasonCode, TopicName, Version};
use crate::session::{AckToken, Acknowledgement, Key, Message, Outgoing, Received};
use crate::sync::Arc;
use crate::time::Instant;
use alloc::collections::VecDeque;

/// Publishes a message of a client. Returns the reason code of the acknowledgement, unless the host
/// decides first. [5.0 §3.3.4] [3.1.1 §3.3.5]
pub(super) fn receive(
    broker: &mut Broker,
    id: ConnectionId,
    received: &Received<'_>,
    now: Instant,
) -> Option<ReasonCode> {
    let connection = broker.connections.get_mut(id)?;
    let (session, version) = (connection.session()?, connection.server.version());
    let mut publish = received.to_publish();
    stats::count(&mut broker.stats.messages_received, publish.qos);
    connection.counted.messages_received += 1;
    connection.server.config().lower(&mut publish.qos, &mut publish.retain);
    let verdict = check(broker, session, &received.topic_name);
    if verdict == Verdict::Denied {
        return Some(ReasonCode::NOT_AUTHORIZED);
    }
    if verdict == Verdict::Allowed {
        find_subscribers(broker, Some(session), &received.topic_name);
        // In the log it can find subscribers of other nodes.
        let is_for_log = broker.nodes.is_some() && publish.qos > QoS::AtMostOnce;
        if broker.matches.is_empty() && !publish.retain && !is_for_log {
            return Some(ReasonCode::NO_MATCHING_SUBSCRIBERS);
        }
    }
    let Ok(message) = Message::with_topic_name(&received.topic_name, &publish) else {
        return Some(ReasonCode::UNSPECIFIED_ERROR);
    };
    let expires_at =
        publish.properties.message_expiry_interval.map(|seconds| now.plus_seconds(seconds));
    let token = received.token;
    if verdict == Verdict::Asked {
        let deadline = Some(now + broker.config.server.answer_timeout);
        let question = Pending::new(Question::Publish(message));
        broker.connections.ask(id, Pending { deadline, token, expires_at, ..question });
        return None;
    }
    // Only a 5.0 client that waits for an answer can learn that there is no room.
    let is_answered = version == Version::V5_0 && received.qos > QoS::AtMostOnce;
    Some(route(broker, Some(session), message, expires_at, is_answered, now))
}

/// Delivers a message whose subscribers are in `broker.matches`. If the broker is one of several
/// nodes, it passes the message to the others, or to the log, from which it comes back.
fn route(
    broker: &mut Broker,
    from: Option<SessionId>,
    message: Message,
    expires_at: Option<Instant>,
    is_answered: bool,
    now: Instant,
) -> ReasonCode {
    if broker.nodes.is_none() {
        return distribute(broker, from, message, expires_at, is_answered, now);
    }
    let nodes = take_nodes(&mut broker.matches);
    let has_groups = broker.config.groups_span_nodes && take_groups(&mut broker.matches);
    // Retained messages of a topic must have the same order at all nodes.
    if message.qos() > QoS::AtMostOnce || message.retain() {
        let has_room = broker.retained.has_room(&message, broker.config.maximum_retained);
        if message.retain() && is_answered && !has_room {
            return ReasonCode::QUOTA_EXCEEDED;
        }
        let publisher = publisher(broker, from);
        push_forward(broker, publisher, message, expires_at, Route::Log);
        return ReasonCode::SUCCESS;
    }
    if !nodes.is_empty() || has_groups {
        let (publisher, route) = (publisher(broker, from), Route::Direct(nodes));
        push_forward(broker, publisher, message.clone(), expires_at, route);
    }
    distribute(broker, from, message, expires_at, is_answered, now)
}

/// Returns the client identifier of a publisher. Empty for the host.
fn publisher(broker: &Broker, from: Option<SessionId>) -> Arc<str> {
    let state = from.and_then(|from| broker.sessions.get(from));
    state.map_or_else(|| "".into(), |state| state.client_identifier().clone())
}

/// Queues a message for the host, which passes it to the nodes. The acknowledgement of one for the
/// log waits until the batch of the journal that it belongs to is durable.
fn push_forward(
    broker: &mut Broker,
    publisher: Arc<str>,
    message: Message,
    expires_at: Option<Instant>,
    route: Route,
) {
    let Broker { nodes: Some(nodes), journal, .. } = broker else { return };
    if let (Some(journal), Route::Log | Route::Share(_)) = (journal, &route) {
        journal.forward(message.size());
    }
    let forward = Forward { message, expires_at, publisher, route };
    let is_kept = nodes.push(forward, broker.config.maximum_forwarded);
    broker.stats.dropped.not_forwarded += u64::from(!is_kept);
}

/// Passes the messages of an ended session to the host, which finds other members of their groups.
/// [5.0 §4.8.2]
pub(super) fn return_to_groups(
    broker: &mut Broker,
    client_identifier: &Arc<str>,
    messages: VecDeque<Outgoing>,
) {
    for Outgoing { message, key, expires_at, .. } in messages {
        let key = key.map(Key::get);
        if let Some(filter) = key.and_then(|key| keep::share(broker, key)).cloned() {
            let route = Route::Share(filter);
            push_forward(broker, client_identifier.clone(), message, expires_at, route);
        }
        keep::leave(broker, key);
    }
}

/// Checks whether a session may publish to a topic, and counts the message if not.
fn check(broker: &mut Broker, session: SessionId, topic_name: &TopicName<'_>) -> Verdict {
    if is_reserved(broker, topic_name) {
        broker.stats.dropped.reserved_topic += 1;
        return Verdict::Denied;
    }
    let Some(state) = broker.sessions.get(session) else { return Verdict::Denied };
    let verdict = state.grants.check(Access::Publish, topic_name);
    broker.stats.dropped.not_authorized += u64::from(verdict == Verdict::Denied);
    verdict
}

/// Whether a topic is the broker's own. [5.0 §4.7.2] [3.1.1 §4.7.2]
pub(super) fn is_reserved(broker: &Broker, topic_name: &TopicName<'_>) -> bool {
    let name = topic_name.as_text().as_bytes();
    name.strip_prefix(b"$SYS").is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
        || (broker.config.sparkplug_aware && sparkplug::is_certificate(topic_name))
}

/// Publishes or refuses a message as the host has decided.
pub(super) fn answered(
    broker: &mut Broker,
    id: ConnectionId,
    message: Message,
    expires_at: Option<Instant>,
    token: Option<AckToken>,
    refusal: Option<Acknowledgement<'_>>,
    now: Instant,
) {
    let Some(connection) = broker.connections.get(id) else { return };
    let Some(session) = connection.session() else { return };
    broker.stats.dropped.not_authorized += u64::from(refusal.is_some());
    let is_answered = connection.server.version() == Version::V5_0 && token.is_some();
    let acknowledgement = match refusal {
        Some(refusal) => refusal,
        None => {
            find_subscribers(broker, Some(session), &message.topic_name());
            route(broker, Some(session), message, expires_at, is_answered, now).into()
        }
    };
    if let (Some(token), Some(connection)) = (token, broker.connections.get_mut(id)) {
        // The token is not stale: the connection has read nothing since.
        let (server, output) = (&mut connection.server, &mut connection.output);
        if server.acknowledge(token, acknowledgement, now, output).is_err() {
            // The reason string or a user property cannot be sent.
            let _ = server.acknowledge(token, acknowledgement.reason_code, now, output);
        }
    }
    exchange::resume(broker, id, now);
}

/// Publishes a message of the host.
pub(crate) fn publish(
    broker: &mut Broker,
    message: Message,
    message_expiry_interval: Option<u32>,
    now: Instant,
) -> ReasonCode {
    find_subscribers(broker, None, &message.topic_name());
    let expires_at = message_expiry_interval.map(|seconds| now.plus_seconds(seconds));
    route(broker, None, message, expires_at, true, now)
}

/// Delivers a message of a node to the clients of this broker.
pub(crate) fn remote(
    broker: &mut Broker,
    message: Message,
    publisher: &str,
    expires_at: Option<Instant>,
    now: Instant,
) {
    let from = broker.sessions.find(publisher);
    find_subscribers(broker, from, &message.topic_name());
    take_nodes(&mut broker.matches);
    if broker.config.groups_span_nodes {
        take_groups(&mut broker.matches);
    }
    let publisher = (!publisher.is_empty()).then(|| publisher.as_bytes().into());
    deliver(broker, from, publisher.unwrap_or_default(), message, expires_at, false, now);
}

/// Delivers a message of the log to one session.
pub(crate) fn catch_up(
    broker: &mut Broker,
    session: SessionId,
    message: &Message,
    publisher: &str,
    expires_at: Option<Instant>,
    now: Instant,
) {
    let from = broker.sessions.find(publisher);
    find_subscribers(broker, from, &message.topic_name());
    let mut matches = core::mem::take(&mut broker.matches);
    matches.retain(|(target, _)| *target == Target::Session(session));
    deliver_to_all(broker, from, &mut matches, message, expires_at, now);
    broker.matches = matches;
}

/// Publishes a message of the broker itself.
pub(crate) fn publish_own(broker: &mut Broker, message: Message, now: Instant) {
    find_subscribers(broker, None, &message.topic_name());
    // Each node has its own figures and certificates.
    take_nodes(&mut broker.matches);
    distribute(broker, None, message, None, false, now);
}

/// Publishes the will of a session, if it has one. [5.0 MQTT-3.1.2-10] [3.1.1 MQTT-3.1.2-10]
pub(super) fn publish_will(broker: &mut Broker, session: SessionId, now: Instant) {
    let Some(StoredWill { message, message_expiry_interval, .. }) =
        close::take_will(broker, session)
    else {
        return;
    };
    let expires_at = message_expiry_interval.map(|seconds| now.plus_seconds(seconds));
    if broker.nodes.is_some() {
        // Whatever its QoS: the log shows to the other nodes that it is published.
        let publisher = publisher(broker, Some(session));
        return push_forward(broker, publisher, message, expires_at, Route::Log);
    }
    find_subscribers(broker, Some(session), &message.topic_name());
    distribute(broker, Some(session), message, expires_at, false, now);
}

/// Retains a message in place of the one of its topic.
fn retain(
    broker: &mut Broker,
    message: Message,
    expires_at: Option<Instant>,
    publisher: Arc<[u8]>,
) {
    let Broker { journal, retained, .. } = broker;
    if journal.is_none() {
        retained.insert(message, expires_at, publisher);
        return;
    }
    let topic = message.topic_name().into_topic();
    let old = retained.insert(message, expires_at, publisher);
    keep::retain(journal, (&topic).into(), retained.get(&topic), old.as_ref());
}

/// How many nodes of the index are visited in one step.
const NODES_OF_A_STEP: usize = 16;

/// Collects the subscriptions that match a topic name in `broker.matches`.
fn find_subscribers(broker: &mut Broker, from: Option<SessionId>, topic_name: &TopicName<'_>) {
    let matches = &mut broker.matches;
    matches.clear();
    let from = from.map(Target::Session);
    let visited = broker.subscriptions.matches(topic_name, |target, subscriber| {
        // [5.0 MQTT-3.8.3-3]
        if !(subscriber.options.no_local && Some(*target) == from) {
            matches.push((*target, *subscriber));
        }
    });
    broker.tasks.take(visited / NODES_OF_A_STEP);
}

/// Queues a message for the sessions in `broker.matches`, and retains it if it says so.
fn distribute(
    broker: &mut Broker,
    from: Option<SessionId>,
    message: Message,
    expires_at: Option<Instant>,
    is_answered: bool,
    now: Instant,
) -> ReasonCode {
    let publisher = match from.and_then(|from| broker.sessions.get(from)) {
        Some(state) if message.retain() => Arc::from(state.client_identifier().clone()),
        _ => Arc::default(),
    };
    deliver(broker, from, publisher, message, expires_at, is_answered, now)
}

/// Does what [`distribute`] does, for a publisher that possibly has no session here.
fn deliver(
    broker: &mut Broker,
    from: Option<SessionId>,
    publisher: Arc<[u8]>,
    message: Message,
    expires_at: Option<Instant>,
    is_answered: bool,
    now: Instant,
) -> ReasonCode {
    let mut is_kept = message.retain();
    if is_kept && !broker.retained.has_room(&message, broker.config.maximum_retained) {
        if is_answered {
            return ReasonCode::QUOTA_EXCEEDED;
        }
        // The client cannot learn of it, so those who are subscribed receive the message.
        is_kept = false;
        broker.stats.dropped.retained_full += 1;
    }
    let mut matches = core::mem::take(&mut broker.matches);
    deliver_to_all(broker, from, &mut matches, &message, expires_at, now);
    if broker.config.sparkplug_aware {
        sparkplug::certify(broker, &message, now);
    }
    if is_kept {
        retain(broker, message, expires_at, publisher);
    }
    let has_subscribers = !matches.is_empty();
    broker.matches = matches;
    if has_subscribers { ReasonCode::SUCCESS } else { ReasonCode::NO_MATCHING_SUBSCRIBERS }
}
