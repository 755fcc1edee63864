//! A connection ends, and with it, or later, its session.

use super::publish;
use crate::broker::Broker;
use crate::broker::action::{ConnectionId, SessionId};
use crate::broker::connections::Phase;
use crate::broker::sessions::Presence;
use crate::broker::timers::Timer;
use crate::broker::wills::StoredWill;
use crate::codec::{Disconnect, Expiry};
use crate::server;
use crate::time::Instant;
use alloc::boxed::Box;

pub(crate) fn disconnect(
    broker: &mut Broker,
    id: ConnectionId,
    disconnect: &Disconnect<'_>,
    now: Instant,
) {
    let Some(connection) = broker.connections.get_mut(id) else { return };
    // If DISCONNECT cannot be sent, the connection ends without it.
    let _ = connection.server.disconnect(disconnect, now, &mut connection.output);
    end_by_host(broker, id, now);
}

pub(crate) fn connection_lost(broker: &mut Broker, id: ConnectionId, now: Instant) {
    end_by_host(broker, id, now);
    if let Some(connection) = broker.connections.remove(id) {
        broker.timers.disarm(Timer::Connection(id), connection.timer);
    }
}

/// Ends a connection that its server has not ended.
pub(super) fn end_by_host(broker: &mut Broker, id: ConnectionId, now: Instant) {
    let Some(connection) = broker.connections.get_mut(id) else { return };
    if let Some(server::Action::Closed { publish_will, .. }) = connection.server.connection_lost() {
        end_connection(broker, id, publish_will, now);
    }
}

/// Parks the session of a connection that has ended. [5.0 §3.1.2.5] [5.0 §4.1] [3.1.1 §3.1.2.5]
pub(super) fn end_connection(
    broker: &mut Broker,
    id: ConnectionId,
    publish_will: bool,
    now: Instant,
) {
    let before = broker.connections.enter(id, Phase::Closed);
    let Some(Phase::Connected(session_id)) = before else { return };
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
    if let Some(at) = expires_at {
        broker.timers.arm(Timer::Session(session_id), at);
    }
    match broker.wills.get_mut(session_id) {
        Some(will) if will.delay > 0 => {
            let at = now.plus_seconds(will.delay);
            will.due = Some(at);
            broker.timers.arm(Timer::Will(session_id), at);
        }
        _ => publish::publish_will(broker, session_id, now),
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

/// Ends a session. Its will does not wait any longer. [5.0 MQTT-3.1.2-8]
pub(super) fn end_session(broker: &mut Broker, id: SessionId, now: Instant) {
    publish::publish_will(broker, id, now);
    let Some(state) = broker.sessions.remove(id) else { return };
    broker.timers.disarm(Timer::Session(id), state.expires_at());
    broker.cursors.remove_session(id);
    for filter in state.subscriptions.keys() {
        broker.subscriptions.remove(filter, &id);
    }
}

/// Takes the will of a session out, which then is not published.
pub(super) fn take_will(broker: &mut Broker, id: SessionId) -> Option<StoredWill> {
    let will = broker.wills.remove(id)?;
    broker.timers.disarm(Timer::Will(id), will.due);
    Some(will)
}
