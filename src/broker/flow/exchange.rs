//! The bytes of a connection: input is read, output is written.

use super::{close, connect, publish, subscribe};
use crate::broker::action::ConnectionId;
use crate::broker::connections::{Connection, OUTPUT_LIMIT};
use crate::broker::deliver::{deliver_retained, hand_on};
use crate::broker::keep;
use crate::broker::tasks::Task;
use crate::broker::timers::Timer;
use crate::broker::{Broker, sys};
use crate::codec::ReasonCode;
use crate::server;
use crate::session::{AckToken, Published};
use crate::time::Instant;
use alloc::vec::Vec;

/// The server of a connection is given at most so much input at once, unless a packet is longer.
const PIECE: usize = 16 * 1024;

/// The bytes that take a step of their own.
const BYTES_OF_A_STEP: usize = 64;

/// Reads input until it is used up, the connection is held, or the steps of this call are taken.
/// Returns whether the last is the case.
pub(crate) fn handle_input(
    broker: &mut Broker,
    id: ConnectionId,
    input: &mut &[u8],
    now: Instant,
) -> bool {
    let before = input.len();
    broker.connections.lend_output(id);
    let mut answer = None;
    let is_put_off = loop {
        let Some(connection) = broker.connections.get_mut(id) else { return false };
        if let Some((token, reason_code)) = answer.take() {
            // The token is of the step before, so it is not stale.
            let _ = connection.server.acknowledge(token, reason_code, now, &mut connection.output);
        }
        if !connection.may_read() {
            break false;
        }
        if keep::is_full(&broker.journal, &broker.config) {
            break false;
        }
        if !broker.tasks.may_go_on() {
            break connection.server.wants_input() && !input.is_empty();
        }
        let Connection { server, output, .. } = &mut *connection;
        // One step can read any number of packets that need no action.
        let mut piece = input.get(..PIECE).unwrap_or(input);
        let mut length = piece.len();
        let mut action = server.handle_input(&mut piece, now, output);
        if action.is_none() && piece.len() == length && length < input.len() {
            // The first packet is longer than a piece.
            piece = *input;
            length = piece.len();
            action = server.handle_input(&mut piece, now, output);
        }
        let read = length - piece.len();
        *input = input.get(read..).unwrap_or_default();
        connection.counted.bytes_received += read as u64;
        if let (Some(throttle), Some(server::Action::Message(_))) =
            (&mut connection.throttle, &action)
        {
            throttle.count(read, now);
        }
        broker.tasks.take(1 + read / BYTES_OF_A_STEP);
        answer = match action {
            Some(action) => handle_action(broker, id, action, now),
            // A piece was read, and there is more.
            None if read > 0 && !input.is_empty() => None,
            None => break false,
        };
    };
    broker.stats.bytes_received += (before - input.len()) as u64;
    broker.connections.take_back_output(id);
    settle(broker, id, now);
    is_put_off
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
            let reason_code = publish::receive(broker, id, &message, now)?;
            return Some((message.token?, reason_code));
        }
        server::Action::Connect(connect) => connect::ask(broker, id, &connect),
        server::Action::Authenticate(auth) => connect::ask_again(broker, id, &auth),
        server::Action::Subscribe(token, packet) => {
            subscribe::subscribe(broker, id, token, &packet, now);
        }
        server::Action::Unsubscribe(token, packet) => {
            subscribe::unsubscribe(broker, id, token, &packet, now);
        }
        server::Action::Closed { cause, publish_will } => {
            close::end_connection(broker, id, &cause, publish_will, now);
        }
        // Only stored messages and those of shared subscriptions have a key.
        server::Action::Published(Published { key, .. }) => {
            keep::leave(broker, Some(key));
        }
    }
    None
}

/// Queues the retained messages that a connection awaits, arms its timer, and hints at its output.
///
/// If the connection still awaits retained messages afterwards, others are queued before them.
pub(crate) fn settle(broker: &mut Broker, id: ConnectionId, now: Instant) {
    if !broker.cursors.is_empty() && awaits_retained(broker, id) {
        deliver_retained(broker, id, now);
    }
    keep::settle(broker, id);
    let Some(connection) = broker.connections.get_mut(id) else { return };
    if let Some(due) = connection.next_deadline() {
        broker.timers.advance(Timer::Connection(id), &mut connection.timer, due);
    }
    broker.connections.hint_output(id);
}

/// Settles a connection that was held, and tells the host if it can read again.
pub(super) fn resume(broker: &mut Broker, id: ConnectionId, now: Instant) {
    let Some(connection) = broker.connections.get_mut(id) else { return };
    let can_read = !connection.is_held();
    if can_read {
        // The client was not read from, so it was not silent.
        connection.server.handle_progress(now);
    }
    settle(broker, id, now);
    if can_read {
        broker.connections.hint(id);
    }
}

fn awaits_retained(broker: &Broker, id: ConnectionId) -> bool {
    let session = broker.connections.get(id).and_then(Connection::session);
    session.is_some_and(|session| broker.cursors.is_due(session))
}

/// Writes what was written before, the messages that wait, and the retained messages that the
/// client awaits.
pub(crate) fn transmit(
    broker: &mut Broker,
    id: ConnectionId,
    now: Instant,
    out: &mut Vec<u8>,
) -> bool {
    let before = out.len();
    let mut has_more = flush(broker, id, now, out);
    // For most connections there is nothing to look up.
    if !broker.cursors.is_empty() {
        while !has_more && awaits_retained(broker, id) && deliver_retained(broker, id, now) {
            has_more = flush(broker, id, now, out);
        }
    }
    broker.stats.bytes_sent += (out.len() - before) as u64;
    has_more
}

/// Moves what was written for a connection to `out`, and then lets its server write messages that
/// wait. Returns whether it would write more.
///
/// With a journal they pass through the output of the connection, where they may have to wait.
#[inline]
fn flush(broker: &mut Broker, id: ConnectionId, now: Instant, out: &mut Vec<u8>) -> bool {
    let before = out.len();
    let Some(connection) = broker.connections.take_output(id, out) else { return false };
    connection.forget_hint();
    if broker.journal.is_some() {
        return flush_stored(broker, id, now, out, before);
    }
    let has_more = connection.server.flush(now, out);
    connection.counted.bytes_sent += (out.len() - before) as u64;
    has_more
}

#[inline(never)]
fn flush_stored(
    broker: &mut Broker,
    id: ConnectionId,
    now: Instant,
    out: &mut Vec<u8>,
    before: usize,
) -> bool {
    let Some(connection) = broker.connections.get_mut(id) else { return false };
    if out.len() < OUTPUT_LIMIT && connection.server.wants_flush() {
        broker.connections.lend_output(id);
        if let Some(Connection { server, output, .. }) = broker.connections.get_mut(id) {
            let _ = server.flush(now, output);
        }
        keep::settle(broker, id);
        let _ = broker.connections.take_output(id, out);
    }
    if let Some(connection) = broker.connections.get_mut(id) {
        connection.counted.bytes_sent += (out.len() - before) as u64;
    }
    broker.connections.wants_transmit(id)
}

/// Handles the deadlines that are due, and gives the work that was put off a turn each, as far as
/// the steps of this call reach.
pub(crate) fn handle_timeout(broker: &mut Broker, now: Instant) {
    while broker.tasks.may_go_on() {
        let Some(timer) = broker.timers.pop(now) else { break };
        broker.tasks.take(1);
        match timer {
            Timer::Connection(id) => handle_deadline(broker, id, now),
            Timer::Session(session) => close::end_session(broker, session, now),
            Timer::Will(session) => publish::publish_will(broker, session, now),
            Timer::Sys => sys::publish(broker, now),
        }
    }
    let mut budget = broker.tasks.lend();
    while budget > 0 {
        let Some(old) = broker.retained.pop_expired(now) else { break };
        budget -= 1;
        keep::retain(&mut broker.journal, old.message.topic_name(), None, Some(&old));
    }
    broker.tasks.give_back(budget);
    while broker.tasks.may_go_on() {
        let Some(task) = broker.tasks.pop() else { break };
        let rest = broker.tasks.begin_turn();
        broker.tasks.take(1);
        match task {
            Task::Request(id) => subscribe::resume(broker, id, now),
            Task::Overflow(id) => close::end_overflown(broker, id, now),
            Task::Retained(id) => {
                if let Some(connection) = broker.connections.get_mut(id) {
                    connection.is_searching = false;
                    settle(broker, id, now);
                }
            }
            Task::Unsubscribe(session, number, subscriptions) => {
                close::remove_subscriptions(broker, session, number, subscriptions, now);
            }
            Task::Forget(session, exchanges) => keep::forget(broker, session, exchanges, now),
            Task::HandOn(messages) => hand_on(broker, messages, now),
        }
        broker.tasks.give_back(rest);
    }
}

fn handle_deadline(broker: &mut Broker, id: ConnectionId, now: Instant) {
    let Some(connection) = broker.connections.get_mut(id) else { return };
    connection.timer = None;
    let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
    let throttle = connection.throttle.as_mut();
    if let Some(throttle) = throttle.filter(|throttle| is_due(throttle.paused_until)) {
        throttle.paused_until = None;
        return resume(broker, id, now);
    }
    if connection.question.as_ref().is_some_and(|question| is_due(question.deadline)) {
        return connect::answer_late(broker, id, now);
    }
    let is_full = keep::is_full(&broker.journal, &broker.config);
    if connection.session().is_some() && (is_full || connection.is_held()) {
        connection.server.handle_progress(now);
    }
    let action = connection.server.handle_timeout(now, &mut connection.output);
    action.and_then(|action| handle_action(broker, id, action, now));
    settle(broker, id, now);
}
