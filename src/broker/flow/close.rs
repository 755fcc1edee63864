//! A connection ends, and with it, or later, its session.

use super::{publish, subscribe};
use crate::broker::Broker;
use crate::broker::action::{ConnectionId, SessionId, SessionNumber};
use crate::broker::closed::{CloseCause, Closed};
use crate::broker::connections::{Connection, Phase};
use crate::broker::deliver::hand_on;
use crate::broker::grants::{Access, Grants, Verdict};
use crate::broker::keep;
use crate::broker::sessions::Presence;
use crate::broker::subscription::Subscriptions;
use crate::broker::tasks::Task;
use crate::broker::timers::Timer;
use crate::broker::wills::StoredWill;
use crate::codec::{Disconnect, Expiry, Filter, ReasonCode};
use crate::server;
use crate::session::{self, Outgoing};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Ends a connection. `cause` is what the host is told.
pub(crate) fn disconnect(
    broker: &mut Broker,
    id: ConnectionId,
    disconnect: &Disconnect<'_>,
    cause: CloseCause,
    now: Instant,
) {
    let Some(connection) = broker.connections.get_mut(id) else { return };
    connection.cause = Some(Box::new(cause));
    // If DISCONNECT cannot be sent, the connection ends without it.
    let _ = connection.server.disconnect(disconnect, now, &mut connection.output);
    end_by_host(broker, id, now);
}

/// Disconnects a client whose queue was full.
pub(super) fn end_overflown(broker: &mut Broker, id: ConnectionId, now: Instant) {
    let reason_code = ReasonCode::QUOTA_EXCEEDED;
    disconnect(broker, id, &Disconnect::new(reason_code), CloseCause::Ended(reason_code), now);
}

pub(crate) fn connection_lost(
    broker: &mut Broker,
    id: ConnectionId,
    now: Instant,
) -> Option<Closed> {
    end_by_host(broker, id, now);
    let connection = broker.connections.remove(id)?;
    broker.timers.disarm(Timer::Connection(id), connection.timer);
    connection.into_closed()
}

/// Ends a connection that its server has not ended.
pub(super) fn end_by_host(broker: &mut Broker, id: ConnectionId, now: Instant) {
    let Some(connection) = broker.connections.get_mut(id) else { return };
    if let Some(server::Action::Closed { cause, publish_will }) =
        connection.server.connection_lost()
    {
        end_connection(broker, id, &cause, publish_will, now);
    }
}

/// Parks the session of a connection that has ended. [5.0 §3.1.2.5] [5.0 §4.1] [3.1.1 §3.1.2.5]
pub(super) fn end_connection(
    broker: &mut Broker,
    id: ConnectionId,
    cause: &session::CloseCause<'_>,
    publish_will: bool,
    now: Instant,
) {
    keep::settle(broker, id);
    let Some(connection) = broker.connections.get_mut(id) else { return };
    let own = connection.cause.take();
    let own = own.map_or(CloseCause::Ended(ReasonCode::SUCCESS), |cause| *cause);
    connection.question = None;
    connection.request = None;
    connection.throttle = None;
    let state = connection.session().and_then(|session| broker.sessions.get(session));
    let closed = Closed {
        client_identifier: state.map(|state| state.client_identifier().clone()),
        cause: CloseCause::new(cause, own),
    };
    let before = broker.connections.enter(id, Phase::Closed(Box::new(closed)));
    let Some(Phase::Connected(session_id)) = before else { return };
    broker.stats.connected -= 1;
    let Some(connection) = broker.connections.get_mut(id) else { return };
    let Some(state) = broker.sessions.get_mut(session_id) else { return };
    let (expiry, session) = (connection.server.session_expiry(), connection.server.take_session());
    let expires_at = match expiry {
        Expiry::After(seconds) => Some(now.plus_seconds(seconds)),
        Expiry::Never => None,
    };
    state.presence = Presence::Away { session: Box::new(session), expires_at };
    if !publish_will {
        broker.wills.remove(session_id);
    }
    if expiry == Expiry::AT_DISCONNECT {
        return end_session(broker, session_id, now);
    }
    keep::note_sent(broker, session_id);
    subscribe::note_members(broker, session_id, true);
    if let Some(at) = expires_at {
        broker.timers.arm(Timer::Session(session_id), at);
    }
    match broker.wills.get_mut(session_id) {
        Some(will) if will.delay > 0 => {
            let at = now.plus_seconds(will.delay);
            will.due = Some(at);
            broker.timers.arm(Timer::Will(session_id), at);
            keep::update(broker, session_id);
        }
        Some(_) => publish::publish_will(broker, session_id, now),
        None => keep::update(broker, session_id),
    }
}

/// Ends a session whose time has come, or publishes its will.
pub(super) fn handle_due(broker: &mut Broker, id: SessionId, now: Instant) {
    let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
    if broker.sessions.get(id).is_some_and(|state| is_due(state.expires_at())) {
        end_session(broker, id, now);
    } else if broker.wills.get_mut(id).is_some_and(|will| is_due(will.due)) {
        publish::publish_will(broker, id, now);
    }
}

/// Ends the session of a client, connected or away. Returns whether there was one.
pub(crate) fn end_client(
    broker: &mut Broker,
    client_identifier: &str,
    disconnect: &Disconnect<'_>,
    now: Instant,
) -> bool {
    let Some(id) = broker.sessions.find(client_identifier) else { return false };
    disconnect_client(broker, client_identifier, disconnect, now);
    end_session(broker, id, now);
    true
}

/// Ends the connection of a client, if it is connected.
pub(crate) fn disconnect_client(
    broker: &mut Broker,
    client_identifier: &str,
    disconnect: &Disconnect<'_>,
    now: Instant,
) {
    let session = broker.sessions.find(client_identifier);
    let state = session.and_then(|session| broker.sessions.get(session));
    if let Some(connection) = state.and_then(|state| state.presence.connection()) {
        let cause = CloseCause::Ended(disconnect.reason_code);
        self::disconnect(broker, connection, disconnect, cause, now);
    }
}

/// Ends a session whose client is away. Its will does not wait any longer. [5.0 MQTT-3.1.2-8]
pub(super) fn end_session(broker: &mut Broker, id: SessionId, now: Instant) {
    publish::publish_will(broker, id, now);
    if !broker.config.groups_span_nodes {
        return remove_session(broker, id, now, hand_on);
    }
    let Some(state) = broker.sessions.get(id) else { return };
    let client_identifier = state.client_identifier().clone();
    subscribe::note_members(broker, id, false);
    remove_session(broker, id, now, |broker, messages, _| {
        publish::return_to_groups(broker, &client_identifier, messages);
    });
}

/// Removes a session whose client is away, and that another broker has.
pub(crate) fn forget_session(broker: &mut Broker, id: SessionId, now: Instant) {
    take_will(broker, id);
    if let (Some(state), Some(nodes)) = (broker.sessions.get(id), &mut broker.nodes) {
        nodes.forget_members(state.client_identifier());
    }
    remove_session(broker, id, now, |broker, messages, _| {
        messages.into_iter().for_each(|outgoing| keep::leave(broker, outgoing.number()));
    });
}

/// Removes a session. `treat` is given its messages that other members of a group can receive.
fn remove_session(
    broker: &mut Broker,
    id: SessionId,
    now: Instant,
    treat: impl FnOnce(&mut Broker, VecDeque<Outgoing>, Instant),
) {
    let Some(state) = broker.sessions.remove(id) else { return };
    broker.timers.disarm(Timer::Session(id), state.expires_at());
    broker.cursors.remove_session(id);
    if let Presence::Away { session, .. } = state.presence {
        keep::end_session(broker, state.number, &session, now);
        treat(broker, session.into_undelivered().collect(), now);
    }
    remove_subscriptions(broker, id, state.number, state.subscriptions, now);
}

/// Removes the subscriptions of a session that has ended from the index, as far as the steps of
/// this call reach.
pub(super) fn remove_subscriptions(
    broker: &mut Broker,
    session: SessionId,
    number: Option<SessionNumber>,
    mut subscriptions: Subscriptions,
    now: Instant,
) {
    while let Some(filter) = subscriptions.pop() {
        subscribe::forget(broker, session, &filter);
        keep::unsubscribe(broker, number, &filter);
        // Of many sessions that end, each node of the index is far from the last in memory.
        broker.tasks.take(2);
        if !broker.tasks.may_go_on() {
            return broker.tasks.push(Task::Unsubscribe(session, number, subscriptions), now);
        }
    }
}

/// Gives the client of a connection other grants.
pub(crate) fn set_grants(broker: &mut Broker, id: ConnectionId, grants: Grants) {
    if let Some(session) = broker.connections.get(id).and_then(Connection::session) {
        replace_grants(broker, session, grants);
    }
}

/// Gives a session other grants. Its subscriptions and its will end if they are denied now.
pub(super) fn replace_grants(broker: &mut Broker, session: SessionId, grants: Grants) {
    let Some(state) = broker.sessions.get_mut(session) else { return };
    if state.grants == grants {
        return;
    }
    let filters = state.subscriptions.iter().map(|(filter, _)| filter);
    let denied = filters.filter(|filter| grants.check_subscribe(filter) == Verdict::Denied);
    let denied: Vec<Filter> = denied.cloned().collect();
    let is_denied = |will: &mut StoredWill| {
        grants.check(Access::Publish, &will.message.topic_name()) == Verdict::Denied
    };
    if broker.wills.get_mut(session).is_some_and(is_denied) {
        broker.wills.remove(session);
        broker.stats.dropped.not_authorized += 1;
    }
    state.grants = grants;
    keep::update(broker, session);
    for filter in denied {
        subscribe::remove(broker, session, &filter);
    }
}

/// Takes the will of a session out, which then is not published.
pub(super) fn take_will(broker: &mut Broker, id: SessionId) -> Option<StoredWill> {
    let will = broker.wills.remove(id)?;
    broker.timers.disarm(Timer::Will(id), will.due);
    keep::update(broker, id);
    Some(will)
}
