//! The store of connections, and of the hints that the host has not fetched yet.

use super::action::{Action, ConnectionId, SessionId};
use super::closed::{CloseCause, Closed};
use super::question::{Pending, Question, QuestionId};
use super::request::Request;
use super::stats::Counted;
use super::throttle::Throttle;
use crate::codec::{OwnedPacket, QoS};
use crate::router::Slab;
use crate::server::Server;
use crate::session::{Key, Message, Outgoing, Prepared};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

/// Input is not read while the unsent output of its connection is as long as this.
pub(super) const OUTPUT_LIMIT: usize = 64 * 1024;

/// How many empty outputs are kept for the next ones, and how much room each has at most. So a
/// connection needs memory for output only while it has some.
const OUTPUTS_KEPT: usize = 1_024;
const OUTPUT_KEPT: usize = 1_024;

/// A message is written at once while the output of its connection is no longer than this. Written
/// messages are not shared, and count towards no limit.
const WRITTEN_THROUGH: usize = OUTPUT_KEPT / 2;

/// All connections of a broker.
#[derive(Debug, Default)]
pub(super) struct Connections {
    connections: Slab<Connection>,
    /// The connections whose hint is in the queue, and some that were removed.
    hints: VecDeque<ConnectionId>,
    /// The message that is written to connections at once.
    pub(super) prepared: Prepared,
    /// Empty outputs that have room.
    spare: Vec<Vec<u8>>,
    /// The last batch of the journal that is durable.
    durable: u64,
    /// The connections whose output is held back, and the batches that they wait for.
    held: VecDeque<(u64, ConnectionId)>,
    /// The position of the next connection that is told that it can be read from again.
    sweep: Option<usize>,
}

/// One connection.
pub(super) struct Connection {
    pub(super) server: Server,
    /// Bytes that were written and not transmitted.
    pub(super) output: Vec<u8>,
    /// The parts of the output that are held back.
    gates: Option<Box<Gates>>,
    /// When the timer of the connection is armed, at the latest at its deadline.
    pub(super) timer: Option<Instant>,
    /// A question that the host has not answered.
    pub(super) question: Option<Box<Pending>>,
    /// A SUBSCRIBE or UNSUBSCRIBE that is not answered.
    pub(super) request: Option<Box<Request>>,
    pub(super) throttle: Option<Box<Throttle>>,
    /// Whether a task searches for retained messages.
    pub(super) is_searching: bool,
    /// Whether a task ends the connection because its queue was full.
    pub(super) is_overflown: bool,
    pub(super) counted: Counted,
    /// Why the broker itself ends the connection, if it does.
    pub(super) cause: Option<Box<CloseCause>>,
    questions: u32,
    phase: Phase,
    hint: Hint,
}

/// The fields, with the size of the output in place of its bytes, which can contain secrets.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("server", &self.server)
            .field("output", &self.output.len())
            .field("timer", &self.timer)
            .field("question", &self.question)
            .field("phase", &self.phase)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

/// The parts of an output that are held back.
#[derive(Debug)]
struct Gates {
    /// The length of the first part, and the batch that must be durable before it is sent. Most
    /// outputs have one part, which then takes no further allocation.
    first: (usize, u64),
    /// The same of the other parts.
    others: VecDeque<(usize, u64)>,
    /// The length of all parts. Output after them need not wait by itself, but keeps its place.
    length: usize,
}

/// The life of a connection.
///
/// ```text
/// AwaitConnect ──CONNECT──► Connecting ──accept──► Connected ──► Closed
///       └───────────────────────┴─────────────────────────────────┘
/// ```
#[derive(Debug)]
pub(super) enum Phase {
    AwaitConnect,
    /// The CONNECT awaits the host's answer, or that of the client to a challenge.
    Connecting(Box<OwnedPacket>),
    Connected(SessionId),
    Closed(Box<Closed>),
}

/// Whether the host knows that a connection needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    /// The host knows of nothing.
    Quiet,
    /// The connection is in the queue of hints.
    Queued,
    /// The connection is in the queue, but the host has transmitted since.
    Outdated,
    /// The host has fetched the hint, and has not transmitted since.
    Told,
}

impl Connection {
    pub(super) const fn phase(&self) -> &Phase {
        &self.phase
    }

    const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    pub(super) const fn session(&self) -> Option<SessionId> {
        if let Phase::Connected(session) = self.phase { Some(session) } else { None }
    }

    /// Returns how the connection has ended.
    pub(super) fn into_closed(self) -> Option<Closed> {
        if let Phase::Closed(closed) = self.phase { Some(*closed) } else { None }
    }

    /// Whether the client waits for the host or for a later time, not for its own input.
    pub(super) fn is_held(&self) -> bool {
        self.question.is_some()
            || self.request.is_some()
            || self.throttle.as_ref().is_some_and(|throttle| throttle.paused_until.is_some())
    }

    /// Whether the next packet may be read, as far as the broker is concerned.
    pub(super) fn may_read(&self) -> bool {
        self.output.len() < OUTPUT_LIMIT && !self.is_held()
    }

    pub(super) fn wants_input(&self) -> bool {
        self.server.wants_input() && self.may_read()
    }

    /// Whether there is output to send, or to write.
    #[inline]
    fn wants_transmit(&self, durable: u64) -> bool {
        let is_held = self.is_output_held(durable);
        !(is_held || self.output.is_empty())
            || (self.server.wants_flush() && (!is_held || self.output.len() < OUTPUT_LIMIT))
    }

    /// Whether the first byte of the output is held back.
    fn is_output_held(&self, durable: u64) -> bool {
        self.gates.as_ref().is_some_and(|gates| gates.first.1 > durable)
    }

    /// Returns the length of the output that is not held back, and forgets that it was.
    fn pass_gates(&mut self, durable: u64) -> usize {
        let Some(gates) = &mut self.gates else { return self.output.len() };
        let mut length = 0;
        while gates.first.1 <= durable {
            length += gates.first.0;
            let Some(next) = gates.others.pop_front() else {
                self.gates = None;
                return self.output.len();
            };
            gates.first = next;
        }
        gates.length -= length;
        length
    }

    /// Moves the output that is not held back to `out`.
    #[inline(never)]
    fn take_released(&mut self, durable: u64, out: &mut Vec<u8>) {
        let length = self.pass_gates(durable);
        out.extend(self.output.drain(..length));
    }

    /// Returns when the connection must be looked at.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let question = self.question.as_ref().and_then(|question| question.deadline);
        let throttle = self.throttle.as_ref().and_then(|throttle| throttle.paused_until);
        self.server.poll_timeout().into_iter().chain(question).chain(throttle).min()
    }

    /// Notes that the host is about to transmit all output: more of it is a new hint. A hint that
    /// there is a question or that the connection has ended stays due.
    pub(super) fn forget_hint(&mut self) {
        let is_due =
            self.is_closed() || self.question.as_ref().is_some_and(|question| !question.told);
        self.hint = match self.hint {
            Hint::Told => Hint::Quiet,
            Hint::Queued if !is_due => Hint::Outdated,
            hint @ (Hint::Quiet | Hint::Queued | Hint::Outdated) => hint,
        };
    }

    /// Makes a hint due. Returns whether the connection must be added to the queue.
    fn hint(&mut self) -> bool {
        let is_added = self.hint == Hint::Quiet;
        if self.hint != Hint::Told {
            self.hint = Hint::Queued;
        }
        is_added
    }
}

impl Connections {
    pub(super) fn open(&mut self, server: Server) -> ConnectionId {
        ConnectionId(self.connections.insert(Connection {
            server,
            output: Vec::new(),
            gates: None,
            timer: None,
            question: None,
            request: None,
            throttle: None,
            is_searching: false,
            is_overflown: false,
            counted: Counted::default(),
            cause: None,
            questions: 0,
            phase: Phase::AwaitConnect,
            hint: Hint::Quiet,
        }))
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(id.0)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(id.0)
    }

    /// Gives a connection an output with room before something is written to it.
    pub(super) fn lend_output(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id.0) {
            lend(&mut self.spare, connection);
        }
    }

    /// Moves what was written for a connection to `out`. Returns the connection.
    #[inline]
    pub(super) fn take_output(
        &mut self,
        id: ConnectionId,
        out: &mut Vec<u8>,
    ) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(id.0)?;
        if !connection.output.is_empty() {
            if connection.gates.is_none() {
                out.append(&mut connection.output);
            } else {
                connection.take_released(self.durable, out);
            }
            take_back(&mut self.spare, connection);
        }
        Some(connection)
    }

    /// Drops the output of a connection that is held back.
    pub(super) fn drop_held_output(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id.0) {
            let length = connection.pass_gates(self.durable);
            connection.output.truncate(length);
            connection.gates = None;
        }
    }

    /// Drops the output of ended connections of some clients that is held back.
    pub(super) fn drop_held_output_of_ended(&mut self, mut is_one: impl FnMut(&str) -> bool) {
        let mut is_of_one = |id: &ConnectionId| {
            let phase = self.get(*id).map(Connection::phase);
            matches!(phase, Some(Phase::Closed(closed))
                if closed.client_identifier.as_deref().is_some_and(&mut is_one))
        };
        let held = self.held.iter().map(|(_, id)| *id);
        for id in held.filter(|id| is_of_one(id)).collect::<Vec<_>>() {
            self.drop_held_output(id);
            self.hint(id);
        }
    }

    /// Whether there is output of a connection to send, or to write.
    pub(super) fn wants_transmit(&self, id: ConnectionId) -> bool {
        self.get(id).is_some_and(|connection| connection.wants_transmit(self.durable))
    }

    /// Returns how a connection has ended, once none of its output is held back.
    pub(super) fn closed(&self, id: ConnectionId) -> Option<&Closed> {
        let connection = self.get(id).filter(|connection| !connection.is_output_held(self.durable));
        if let Phase::Closed(closed) = connection?.phase() { Some(closed) } else { None }
    }

    /// Holds back what was written to a connection, until a batch of the journal is durable.
    /// Returns whether there was something.
    pub(super) fn hold_output(&mut self, id: ConnectionId, batch: u64) -> bool {
        let Some(connection) = self.connections.get_mut(id.0) else { return false };
        let held = connection.gates.as_ref().map_or(0, |gates| gates.length);
        let length = connection.output.len() - held;
        if length == 0 {
            return false;
        }
        if let Some(gates) = &mut connection.gates {
            gates.length += length;
            let (last, at) = gates.others.back_mut().unwrap_or(&mut gates.first);
            if *at == batch {
                *last += length;
                return true;
            }
            gates.others.push_back((length, batch));
        } else {
            let gates = Gates { first: (length, batch), others: VecDeque::new(), length };
            connection.gates = Some(Box::new(gates));
        }
        self.held.push_back((batch, id));
        true
    }

    /// Notes that the batches of the journal up to this one are durable.
    pub(super) const fn release_output(&mut self, durable: u64) {
        self.durable = durable;
    }

    /// Makes a hint due for each connection, because all can be read from again.
    pub(super) const fn hint_all(&mut self) {
        self.sweep = Some(0);
    }

    /// Whether [`hint_released`](Self::hint_released) has something to look at.
    fn is_releasing(&self) -> bool {
        self.sweep.is_some() || !self.held.is_empty()
    }

    /// Queues a hint for the next connection whose output is not held back any more, or that can be
    /// read from again. Returns whether there was one.
    #[inline(never)]
    fn hint_released(&mut self) -> bool {
        if self.held.front().is_some_and(|(batch, _)| *batch <= self.durable) {
            if let Some((_, id)) = self.held.pop_front() {
                self.hint_again(id);
            }
            return true;
        }
        let Some(position) = self.sweep else { return false };
        let next = self.connections.next_key(position);
        self.sweep = next.map(|(_, position)| position);
        next.is_some_and(|(key, _)| {
            self.hint(ConnectionId(key));
            true
        })
    }

    /// Takes the room of an empty output back.
    pub(super) fn take_back_output(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id.0) {
            take_back(&mut self.spare, connection);
        }
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let removed = self.connections.remove(id.0);
        // A host that never fetches hints must not make the queue grow.
        if self.hints.len() > 2 * self.connections.len() + 64 {
            self.hints.retain(|id| self.connections.get(id.0).is_some());
        }
        if self.held.len() > 4 * self.connections.len() + 64 {
            self.held.retain(|(_, id)| self.connections.get(id.0).is_some());
        }
        removed
    }

    /// Changes the phase of a connection, and queues a hint. Returns the phase before.
    pub(super) fn enter(&mut self, id: ConnectionId, phase: Phase) -> Option<Phase> {
        let connection = self.connections.get_mut(id.0)?;
        let before = core::mem::replace(&mut connection.phase, phase);
        self.hint_again(id);
        Some(before)
    }

    /// Asks the host a question.
    pub(super) fn ask(&mut self, id: ConnectionId, mut question: Pending) {
        if let Some(connection) = self.connections.get_mut(id.0) {
            connection.questions = connection.questions.wrapping_add(1);
            question.number = connection.questions;
            connection.question = Some(Box::new(question));
            self.hint_again(id);
        }
    }

    /// Returns the question of a connection.
    pub(super) fn question(&self, id: ConnectionId) -> Option<(QuestionId, &Question)> {
        let question = self.get(id)?.question.as_ref()?;
        Some((QuestionId { connection: id, number: question.number }, &question.content))
    }

    /// Returns the connection of a question, if it is still open.
    pub(super) fn asked(&mut self, id: QuestionId) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(id.connection.0)?;
        let number = connection.question.as_ref()?.number;
        Some(connection).filter(|_| number == id.number)
    }

    /// Queues a hint, unless the host knows.
    pub(super) fn hint(&mut self, id: ConnectionId) {
        if self.connections.get_mut(id.0).is_some_and(Connection::hint) {
            self.hints.push_back(id);
        }
    }

    /// Queues a hint if there is output to send, or to write, unless the host knows.
    pub(super) fn hint_output(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        if connection.wants_transmit(self.durable) && connection.hint() {
            self.hints.push_back(id);
        }
    }

    /// Queues a hint, even if the host knows another.
    fn hint_again(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        if matches!(connection.hint, Hint::Quiet | Hint::Told) {
            self.hints.push_back(id);
        }
        connection.hint = Hint::Queued;
    }

    /// Takes the first hint that is due out of the queue. The host then counts as told.
    #[inline]
    pub(super) fn next_action(&mut self) -> Option<Action> {
        while !self.hints.is_empty() || (self.is_releasing() && self.hint_released()) {
            let Some(id) = self.hints.pop_front() else { continue };
            let Some(connection) = self.connections.get_mut(id.0) else { continue };
            if connection.hint == Hint::Outdated {
                connection.hint = Hint::Quiet;
                continue;
            }
            let wants_transmit = connection.wants_transmit(self.durable);
            // A host that need not transmit can leave it. Then the next output is a hint again.
            connection.hint = if wants_transmit { Hint::Told } else { Hint::Quiet };
            if !connection.is_closed() && connection.question.is_none() {
                return Some(Action::Ready(id));
            }
            if let Some(action) = self.next_rare_action(id, wants_transmit) {
                return Some(action);
            }
        }
        None
    }

    /// Returns what the host must know about a connection that has ended or asks a question.
    #[inline(never)]
    fn next_rare_action(&mut self, id: ConnectionId, wants_transmit: bool) -> Option<Action> {
        let connection = self.connections.get_mut(id.0)?;
        if let Phase::Closed(closed) = &connection.phase {
            if connection.is_output_held(self.durable) {
                // The hint follows when its output is not held back any more.
                connection.hint = Hint::Quiet;
                return None;
            }
            return Some(Action::Closed(id, (**closed).clone()));
        }
        let question = connection.question.as_mut();
        let Some(question) = question.filter(|question| !question.told) else {
            return Some(Action::Ready(id));
        };
        question.told = true;
        connection.hint = Hint::Quiet;
        let name = QuestionId { connection: id, number: question.number };
        let content = question.content.clone();
        // There can be output beside the question.
        if wants_transmit {
            self.hint_again(id);
        }
        Some(Action::Ask(name, content))
    }

    /// Writes a message for the client of a connection at once, with that QoS and RETAIN flag, if
    /// it is short and none waits before it. Returns whether it was written.
    #[inline]
    pub(super) fn write_through(
        &mut self,
        id: ConnectionId,
        message: &Message,
        flags: (QoS, bool),
        key: impl FnOnce(&Outgoing) -> Option<Key>,
        now: Instant,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(id.0) else { return false };
        if connection.output.len() + message.size() > WRITTEN_THROUGH {
            return false;
        }
        lend(&mut self.spare, connection);
        let Connection { server, output, .. } = &mut *connection;
        if !server.write_through(message, flags, &mut self.prepared, key, now, output) {
            return false;
        }
        connection.counted.messages_queued += 1;
        if connection.hint() {
            self.hints.push_back(id);
        }
        true
    }

    /// Queues a message for the client of a connection.
    pub(super) fn deliver(
        &mut self,
        id: ConnectionId,
        outgoing: Outgoing,
        now: Instant,
    ) -> Result<(), Outgoing> {
        let Some(connection) = self.connections.get_mut(id.0) else { return Err(outgoing) };
        connection.server.forget_outcomes();
        connection.server.deliver(outgoing, now)?;
        connection.counted.messages_queued += 1;
        if connection.hint() {
            self.hints.push_back(id);
        }
        Ok(())
    }
}

/// Gives a connection an output with room, if it has none.
fn lend(spare: &mut Vec<Vec<u8>>, connection: &mut Connection) {
    if connection.output.capacity() == 0 {
        connection.output = spare.pop().unwrap_or_default();
    }
}

/// Takes the room of an empty output back.
fn take_back(spare: &mut Vec<Vec<u8>>, connection: &mut Connection) {
    if connection.output.is_empty() && connection.output.capacity() > 0 {
        let output = core::mem::take(&mut connection.output);
        if output.capacity() <= OUTPUT_KEPT && spare.len() < OUTPUTS_KEPT {
            spare.push(output);
        }
    }
}
