//! The bytes of a connection: input is read, output is written.

use super::{close, connect, publish, subscribe};
use crate::broker::Broker;
use crate::broker::action::{Action, ConnectionId};
use crate::broker::connections::{Connection, Phase};
use crate::broker::deliver::deliver_retained;
use crate::broker::timers::Timer;
use crate::codec::ReasonCode;
use crate::server;
use crate::session::AckToken;
use crate::time::Instant;
use alloc::vec::Vec;

pub(in crate::broker) fn handle_input(
    broker: &mut Broker,
    id: ConnectionId,
    input: &mut &[u8],
    now: Instant,
) {
    // Retained messages come before the answers to this input, whenever the host transmits.
    if awaits_retained(broker, id) {
        let mut output = Vec::new();
        broker.connections.swap_output(id, &mut output);
        write_waiting(broker, id, now, &mut output);
        broker.connections.swap_output(id, &mut output);
    }
    let mut answer = None;
    loop {
        let Some(connection) = broker.connections.get_mut(id) else { return };
        if let Some((token, reason_code)) = answer.take() {
            // The token is of the step before, so it is not stale.
            let _ = connection.server.acknowledge(token, reason_code, &mut connection.output);
        }
        if !connection.wants_input() {
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
        server::Action::Subscribe(packet) => subscribe::subscribe(broker, id, &packet, now),
        server::Action::Unsubscribe(packet) => subscribe::unsubscribe(broker, id, &packet, now),
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
pub(in crate::broker) fn settle(broker: &mut Broker, id: ConnectionId, now: Instant) {
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

pub(in crate::broker) fn transmit(
    broker: &mut Broker,
    id: ConnectionId,
    now: Instant,
    out: &mut Vec<u8>,
) -> bool {
    let Some(connection) = broker.connections.get_mut(id) else { return false };
    connection.take_output(out);
    connection.forget_hint();
    write_waiting(broker, id, now, out)
}

/// Writes the messages that wait for a client, and the retained messages that it awaits. Returns
/// whether there is more than `out` has room for.
fn write_waiting(broker: &mut Broker, id: ConnectionId, now: Instant, out: &mut Vec<u8>) -> bool {
    while let Some(connection) = broker.connections.get_mut(id) {
        if connection.server.flush(now, out) {
            return true;
        }
        if !(awaits_retained(broker, id) && deliver_retained(broker, id, now)) {
            return false;
        }
    }
    false
}

pub(in crate::broker) fn handle_timeout(broker: &mut Broker, now: Instant) {
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

pub(in crate::broker) fn poll_action(broker: &mut Broker) -> Option<Action> {
    let (id, connection) = broker.connections.next_hint()?;
    Some(match connection.phase() {
        Phase::Asked(connect) => Action::Connect { connection: id, connect: connect.clone() },
        Phase::Closed => Action::Closed(id),
        Phase::AwaitConnect | Phase::Connected(_) => Action::Transmit(id),
    })
}
