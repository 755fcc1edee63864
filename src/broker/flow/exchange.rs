//! The bytes of a connection: input is read, output is written.

use super::{close, connect, publish, subscribe};
use crate::broker::Broker;
use crate::broker::action::ConnectionId;
use crate::broker::connections::Connection;
use crate::broker::deliver::deliver_retained;
use crate::broker::timers::Timer;
use crate::codec::ReasonCode;
use crate::server;
use crate::session::AckToken;
use crate::time::Instant;
use alloc::vec::Vec;

pub(crate) fn handle_input(broker: &mut Broker, id: ConnectionId, input: &mut &[u8], now: Instant) {
    let mut answer = None;
    loop {
        let Some(connection) = broker.connections.get_mut(id) else { return };
        if let Some((token, reason_code)) = answer.take() {
            // The token is of the step before, so it is not stale.
            let _ = connection.server.acknowledge(token, reason_code, now, &mut connection.output);
        }
        if connection.is_full() {
            break;
        }
        let output = &mut connection.output;
        let Some(action) = connection.server.handle_input(input, now, output) else { break };
        answer = handle_action(broker, id, action, now);
    }
    settle(broker, id, now);
}

/// Lets a flow handle what a step of a connection's server has brought. Returns the answer to a
/// message with QoS 1 or 2.
fn handle_action(
    broker: &mut Broker,
    id: ConnectionId,
    action: server::Action<'_>,
    now: Instant,
) -> Option<(AckToken, ReasonCode)> {
    match action {
        server::Action::Message(message) => {
            let reason_code = publish::receive(broker, id, &message, now);
            return Some((message.token?, reason_code));
        }
        server::Action::Connect(connect) => connect::ask(broker, id, &connect),
        server::Action::Subscribe(token, packet) => {
            subscribe::subscribe(broker, id, token, &packet, now);
        }
        server::Action::Unsubscribe(token, packet) => {
            subscribe::unsubscribe(broker, id, token, &packet, now);
        }
        server::Action::Closed { publish_will, .. } => {
            close::end_connection(broker, id, publish_will, now);
        }
        // Messages are delivered without a key. Enhanced authentication was refused.
        server::Action::Published(_) | server::Action::Authenticate(_) => {}
    }
    None
}

/// Queues the retained messages that a connection awaits, arms its timer, and hints at its output.
///
/// If the connection still awaits retained messages afterwards, others are queued before them.
pub(crate) fn settle(broker: &mut Broker, id: ConnectionId, now: Instant) {
    if awaits_retained(broker, id) {
        deliver_retained(broker, id, now);
    }
    let Some(connection) = broker.connections.get_mut(id) else { return };
    if let Some(due) = connection.server.poll_timeout() {
        broker.timers.advance(Timer::Connection(id), &mut connection.timer, due);
    }
    if connection.wants_transmit() {
        broker.connections.hint(id);
    }
}

fn awaits_retained(broker: &Broker, id: ConnectionId) -> bool {
    !broker.cursors.is_empty()
        && broker
            .connections
            .get(id)
            .and_then(Connection::session)
            .is_some_and(|session| broker.cursors.is_due(session))
}

/// Writes what was written before, the messages that wait, and the retained messages that the
/// client awaits.
pub(crate) fn transmit(
    broker: &mut Broker,
    id: ConnectionId,
    now: Instant,
    out: &mut Vec<u8>,
) -> bool {
    let Some(connection) = broker.connections.get_mut(id) else { return false };
    connection.take_output(out);
    connection.forget_hint();
    let mut has_more = connection.server.flush(now, out);
    while !has_more && awaits_retained(broker, id) && deliver_retained(broker, id, now) {
        let Some(connection) = broker.connections.get_mut(id) else { return false };
        has_more = connection.server.flush(now, out);
    }
    has_more
}

pub(crate) fn handle_timeout(broker: &mut Broker, now: Instant) {
    while let Some(timer) = broker.timers.pop(now) {
        match timer {
            Timer::Connection(id) => {
                let Some(connection) = broker.connections.get_mut(id) else { continue };
                connection.timer = None;
                let action = connection.server.handle_timeout(now, &mut connection.output);
                action.and_then(|action| handle_action(broker, id, action, now));
                settle(broker, id, now);
            }
            Timer::Session(session) => close::end_session(broker, session, now),
            Timer::Will(session) => publish::publish_will(broker, session, now),
        }
    }
}
