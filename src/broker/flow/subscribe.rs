//! A client subscribes or unsubscribes, one filter after the other.

use super::{close, exchange};
use crate::broker::action::{ConnectionId, SessionId};
use crate::broker::closed::CloseCause;
use crate::broker::grants::Verdict;
use crate::broker::keep;
use crate::broker::question::{Pending, Question};
use crate::broker::request::{Request, RequestKind};
use crate::broker::subscription::{Subscriber, Target};
use crate::broker::tasks::Task;
use crate::broker::{Broker, BrokerConfig};
use crate::codec::{
    AckProperties, Disconnect, Filter, ReasonCode, RetainHandling, Subscribe, SubscribeProperties,
    Subscription, SubscriptionIdentifier, SubscriptionOptions, Unsubscribe, Version, levels,
};
use crate::router::Changed;
use crate::server::RequestToken;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// The steps of one filter: it changes two stores.
const STEPS: usize = 2;

/// Begins with a SUBSCRIBE. [5.0 §3.8.4] [3.1.1 §3.8.4]
pub(super) fn subscribe(
    broker: &mut Broker,
    id: ConnectionId,
    token: RequestToken,
    subscribe: &Subscribe<'_>,
    now: Instant,
) {
    let identifier = subscribe.properties.subscription_identifier;
    broker.cursors.begin_subscribe();
    let filters = subscribe.subscriptions.iter().map(|one| (one.topic_filter, one.options));
    begin(broker, id, Request::new(token, RequestKind::Subscribe(identifier), filters), now);
}

/// Begins with an UNSUBSCRIBE. [5.0 §3.10.4] [3.1.1 §3.10.4]
pub(super) fn unsubscribe(
    broker: &mut Broker,
    id: ConnectionId,
    token: RequestToken,
    unsubscribe: &Unsubscribe<'_>,
    now: Instant,
) {
    let filters = unsubscribe.topic_filters.iter().map(|one| (one, SubscriptionOptions::default()));
    begin(broker, id, Request::new(token, RequestKind::Unsubscribe, filters), now);
}

fn begin(broker: &mut Broker, id: ConnectionId, request: Request, now: Instant) {
    if let Some(connection) = broker.connections.get_mut(id) {
        connection.request = Some(Box::new(request));
        if broker.tasks.are_many() {
            broker.tasks.push(Task::Request(id), now);
        } else {
            proceed(broker, id, now);
        }
    }
}

/// Continues a request that was put off.
pub(super) fn resume(broker: &mut Broker, id: ConnectionId, now: Instant) {
    proceed(broker, id, now);
    exchange::resume(broker, id, now);
}

/// Handles the filters of a request until one must be asked about or the steps of this call are
/// taken. Answers the request after the last one.
fn proceed(broker: &mut Broker, id: ConnectionId, now: Instant) {
    loop {
        let Some(connection) = broker.connections.get_mut(id) else { return };
        let Some(session) = connection.session() else { return };
        let version = connection.server.version();
        let Some(request) = &mut connection.request else { return };
        if request.is_done() {
            return answer(broker, id, now);
        }
        if !broker.tasks.may_go_on() {
            return broker.tasks.push(Task::Request(id), now);
        }
        broker.tasks.take(STEPS);
        let kind = request.kind;
        let Some((text, options)) = request.next() else { return };
        let code = match (filter(&broker.config, text, options, kind, version), kind) {
            (Err(code), _) => code,
            (Ok(filter), RequestKind::Unsubscribe) => remove(broker, session, &filter),
            (Ok(filter), RequestKind::Subscribe(identifier)) => {
                let state = broker.sessions.get(session);
                match state.map(|state| state.grants.check_subscribe(&filter)) {
                    Some(Verdict::Allowed) => add(broker, session, filter, options, identifier),
                    Some(Verdict::Asked) => {
                        let deadline = Some(now + broker.config.server.answer_timeout);
                        let question = Pending::new(Question::Subscribe(filter, options));
                        return broker.connections.ask(id, Pending { deadline, ..question });
                    }
                    Some(Verdict::Denied) | None => ReasonCode::NOT_AUTHORIZED,
                }
            }
        };
        push_code(broker, id, code);
    }
}

/// Checks a filter. It is a shared subscription if the version or the configuration says so.
fn filter(
    config: &BrokerConfig,
    text: &str,
    options: SubscriptionOptions,
    kind: RequestKind,
    version: Version,
) -> Result<Filter, ReasonCode> {
    if let RequestKind::Subscribe(subscription_identifier) = kind {
        let properties =
            SubscribeProperties { subscription_identifier, ..SubscribeProperties::default() };
        let subscription = Subscription { topic_filter: text.into(), options };
        config.server.check(&subscription, &properties, version)?;
        if levels(text.into()).count() > config.maximum_levels {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
    }
    let is_shared = config.shared_before_5_0 && text.starts_with("$share/");
    let version = if is_shared { Version::V5_0 } else { version };
    Filter::new(text, version).map_err(|_| ReasonCode::TOPIC_FILTER_INVALID)
}

fn push_code(broker: &mut Broker, id: ConnectionId, code: ReasonCode) {
    let connection = broker.connections.get_mut(id);
    if let Some(request) = connection.and_then(|connection| connection.request.as_mut()) {
        request.codes.push(code);
    }
}

/// Continues a SUBSCRIBE after the host has decided about a filter.
pub(super) fn answered(
    broker: &mut Broker,
    id: ConnectionId,
    filter: Filter,
    options: SubscriptionOptions,
    refusal: Option<ReasonCode>,
    now: Instant,
) {
    let Some(connection) = broker.connections.get(id) else { return };
    let Some(session) = connection.session() else { return };
    let kind = connection.request.as_ref().map(|request| request.kind);
    if let Some(RequestKind::Subscribe(identifier)) = kind {
        let code = refusal.unwrap_or_else(|| add(broker, session, filter, options, identifier));
        push_code(broker, id, code);
        resume(broker, id, now);
    }
}

/// Adds one subscription, or replaces it. Returns the reason code for SUBACK.
fn add(
    broker: &mut Broker,
    session: SessionId,
    filter: Filter,
    options: SubscriptionOptions,
    identifier: Option<SubscriptionIdentifier>,
) -> ReasonCode {
    let Some(state) = broker.sessions.get_mut(session) else {
        return ReasonCode::UNSPECIFIED_ERROR;
    };
    let is_shared = filter.as_topic_filter().share_name().is_some();
    let is_full = is_shared
        && broker.groups.find(&filter).is_some_and(|group| {
            let members = broker.groups.members(group);
            members.len() >= broker.config.maximum_group_members
                && members.binary_search_by_key(&session, |(member, _)| *member).is_err()
        });
    if is_full || !state.subscriptions.has_room(&filter, broker.config.maximum_subscriptions) {
        return ReasonCode::QUOTA_EXCEEDED;
    }
    let granted = ReasonCode::new(options.maximum_qos.as_u8());
    if is_shared && broker.config.groups_span_nodes {
        keep::keep_member(broker, session);
    }
    let inserted = insert(broker, session, &filter, options, identifier);
    let Some((subscriber, is_new)) = inserted else { return ReasonCode::UNSPECIFIED_ERROR };
    if is_shared {
        // No retained messages are sent for it. [5.0 §4.8.2]
        return granted;
    }
    // [5.0 MQTT-3.3.1-9 to -11] [3.1.1 MQTT-3.3.1-6]
    let sends_retained = match options.retain_handling {
        RetainHandling::Send => true,
        RetainHandling::SendIfNew => is_new,
        RetainHandling::DoNotSend => false,
    };
    if sends_retained {
        broker.cursors.insert(session, filter, subscriber, broker.retained.version());
    } else {
        broker.cursors.update(session, subscriber);
    }
    granted
}

/// Adds a subscription to a session and to the index, or replaces its options. Returns it, and
/// whether it is new. [5.0 MQTT-3.8.4-3] [3.1.1 MQTT-3.8.4-3]
pub(crate) fn insert(
    broker: &mut Broker,
    session: SessionId,
    filter: &Filter,
    options: SubscriptionOptions,
    identifier: Option<SubscriptionIdentifier>,
) -> Option<(Subscriber, bool)> {
    let state = broker.sessions.get_mut(session)?;
    let (subscriber, is_new) = state.subscriptions.insert(filter, options, identifier);
    if is_new {
        note_subscribed(broker, filter);
    }
    keep::subscribe(broker, session, filter, subscriber, is_new);
    index(broker, session, filter, subscriber);
    note_member(broker, session, filter, true);
    Some((subscriber, is_new))
}

/// Notes for the host that a session is a member of a group that spans nodes, or is none any more.
fn note_member(broker: &mut Broker, session: SessionId, filter: &Filter, is_member: bool) {
    let is_shared = filter.as_topic_filter().share_name().is_some();
    if !is_shared || !broker.config.groups_span_nodes {
        return;
    }
    let Some(state) = broker.sessions.get(session) else { return };
    let client_identifier = state.client_identifier().clone();
    let is_connected = broker.member(&client_identifier, filter).filter(|_| is_member);
    if let Some(nodes) = &mut broker.nodes {
        nodes.note_member(&client_identifier, filter, is_connected);
    }
}

/// Notes for the host in which groups a session is, or that it is in none any more.
pub(crate) fn note_members(broker: &mut Broker, session: SessionId, is_member: bool) {
    if !broker.config.groups_span_nodes {
        return;
    }
    let Some(state) = broker.sessions.get(session) else { return };
    let filters: Vec<Filter> = state.subscriptions.shared().cloned().collect();
    filters.iter().for_each(|filter| note_member(broker, session, filter, is_member));
}

/// Counts a new subscription.
pub(crate) fn note_subscribed(broker: &mut Broker, filter: &Filter) {
    broker.stats.subscriptions += 1;
    if let Some(nodes) = &mut broker.nodes {
        nodes.subscribed(filter);
    }
}

/// Adds a subscription of a session to the index.
pub(crate) fn index(
    broker: &mut Broker,
    session: SessionId,
    filter: &Filter,
    subscriber: Subscriber,
) {
    let target = if filter.as_topic_filter().share_name().is_some() {
        Target::Group(broker.groups.insert(filter, session, subscriber).group)
    } else {
        Target::Session(session)
    };
    broker.subscriptions.insert(filter, target, subscriber);
}

/// Removes one subscription. Returns the reason code for UNSUBACK.
pub(super) fn remove(broker: &mut Broker, session: SessionId, filter: &Filter) -> ReasonCode {
    let state = broker.sessions.get_mut(session);
    let number = state.as_ref().and_then(|state| state.number);
    let Some(subscriber) = state.and_then(|state| state.subscriptions.remove(filter)) else {
        return ReasonCode::NO_SUBSCRIPTION_EXISTED;
    };
    note_member(broker, session, filter, false);
    keep::unsubscribe(broker, number, filter);
    broker.cursors.remove(session, subscriber);
    forget(broker, session, filter);
    ReasonCode::SUCCESS
}

/// Removes a subscription that its session does not have any more from the index.
pub(super) fn forget(broker: &mut Broker, session: SessionId, filter: &Filter) {
    broker.stats.subscriptions -= 1;
    if let Some(nodes) = &mut broker.nodes {
        nodes.unsubscribed(filter);
    }
    if filter.as_topic_filter().share_name().is_none() {
        broker.subscriptions.remove(filter, &Target::Session(session));
    } else if let Some(Changed { group, members: 0, .. }) = broker.groups.remove(filter, &session) {
        broker.subscriptions.remove(filter, &Target::Group(group));
    }
}

/// Answers a request whose filters are all handled.
fn answer(broker: &mut Broker, id: ConnectionId, now: Instant) {
    let Some(connection) = broker.connections.get_mut(id) else { return };
    let Some(request) = connection.request.take() else { return };
    let session = connection.session().and_then(|session| broker.sessions.get(session));
    if session.is_some_and(|state| state.number.is_some()) {
        // Earlier calls may have changed subscriptions.
        keep::hold_output(&mut broker.journal);
    }
    let Request { token, kind, codes, .. } = *request;
    let (server, output) = (&mut connection.server, &mut connection.output);
    let properties = AckProperties::default();
    let answered = match kind {
        RequestKind::Subscribe(_) => server.suback(token, &codes, properties, now, output),
        RequestKind::Unsubscribe => server.unsuback(token, &codes, properties, now, output),
    };
    // A client that has no room for the answer to its request is disconnected.
    if answered.is_err() {
        let reason_code = ReasonCode::PACKET_TOO_LARGE;
        let cause = CloseCause::Ended(reason_code);
        close::disconnect(broker, id, &Disconnect::new(reason_code), cause, now);
    }
}
