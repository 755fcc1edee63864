//! The store of connections, and of the hints that the host has not fetched yet.

use super::action::{Action, ConnectionId, SessionId};
use super::slab::Slab;
use crate::codec::OwnedPacket;
use crate::server::Server;
use crate::session::Outgoing;
use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

/// Input is not read while the unsent output of its connection is as long as this.
const OUTPUT_LIMIT: usize = 64 * 1024;

/// How much room an empty output keeps: enough for acknowledgements.
const OUTPUT_KEPT: usize = 256;

/// All connections of a broker.
#[derive(Debug, Default)]
pub(super) struct Connections {
    connections: Slab<Connection>,
    /// The connections whose hint is in the queue, and some that were removed.
    hints: VecDeque<ConnectionId>,
}

/// One connection.
pub(super) struct Connection {
    pub(super) server: Server,
    /// Bytes that were written and not transmitted.
    pub(super) output: Vec<u8>,
    /// When the timer of the connection is armed, at the latest at its deadline.
    pub(super) timer: Option<Instant>,
    phase: Phase,
    hint: Hint,
}

/// The fields, with the size of the output in place of its bytes, which can contain secrets.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, output, timer, phase, hint } = self;
        f.debug_struct("Connection")
            .field("server", server)
            .field("output", &output.len())
            .field("timer", timer)
            .field("phase", phase)
            .field("hint", hint)
            .finish()
    }
}

/// The life of a connection.
///
/// ```text
/// AwaitConnect ──CONNECT──► Asked ──accept──► Connected ──► Closed
///       └─────────────────────┴──────────────────────────────┘
/// ```
#[derive(Debug)]
pub(super) enum Phase {
    AwaitConnect,
    /// The CONNECT awaits the host's answer.
    Asked(OwnedPacket),
    Connected(SessionId),
    Closed,
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

    pub(super) const fn session(&self) -> Option<SessionId> {
        if let Phase::Connected(session) = self.phase { Some(session) } else { None }
    }

    /// Whether so much output waits that no more input is read.
    pub(super) fn is_full(&self) -> bool {
        self.output.len() >= OUTPUT_LIMIT
    }

    pub(super) fn wants_input(&self) -> bool {
        self.server.wants_input() && !self.is_full()
    }

    pub(super) fn wants_transmit(&self) -> bool {
        !self.output.is_empty() || self.server.wants_flush()
    }

    /// Moves what was written to `out`.
    pub(super) fn take_output(&mut self, out: &mut Vec<u8>) {
        if !self.output.is_empty() {
            out.append(&mut self.output);
            self.output.shrink_to(OUTPUT_KEPT);
        }
    }

    /// Notes that the host is about to transmit all output: more of it is a new hint. A hint that
    /// CONNECT has come or that the connection has ended stays due.
    pub(super) fn forget_hint(&mut self) {
        self.hint = match (self.hint, &self.phase) {
            (Hint::Told, _) => Hint::Quiet,
            (Hint::Queued, Phase::AwaitConnect | Phase::Connected(_)) => Hint::Outdated,
            (hint, _) => hint,
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
        let (phase, hint) = (Phase::AwaitConnect, Hint::Quiet);
        let connection = Connection { server, output: Vec::new(), timer: None, phase, hint };
        ConnectionId(self.connections.insert(connection))
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

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let removed = self.connections.remove(id.0);
        // A host that never fetches hints must not make the queue grow.
        if self.hints.len() > 2 * self.connections.len() + 64 {
            self.hints.retain(|id| self.connections.get(id.0).is_some());
        }
        removed
    }

    /// Changes the phase of a connection, and queues a hint. Returns the phase before.
    pub(super) fn enter(&mut self, id: ConnectionId, phase: Phase) -> Option<Phase> {
        let connection = self.connections.get_mut(id.0)?;
        if matches!(connection.hint, Hint::Quiet | Hint::Told) {
            self.hints.push_back(id);
        }
        connection.hint = Hint::Queued;
        Some(core::mem::replace(&mut connection.phase, phase))
    }

    /// Queues a hint, unless the host knows.
    pub(super) fn hint(&mut self, id: ConnectionId) {
        if self.connections.get_mut(id.0).is_some_and(Connection::hint) {
            self.hints.push_back(id);
        }
    }

    /// Takes the first hint that is due out of the queue. The host then counts as told.
    pub(super) fn next_action(&mut self) -> Option<Action> {
        while let Some(id) = self.hints.pop_front() {
            let Some(connection) = self.connections.get_mut(id.0) else { continue };
            if connection.hint == Hint::Outdated {
                connection.hint = Hint::Quiet;
                continue;
            }
            connection.hint = Hint::Told;
            return Some(match &connection.phase {
                Phase::Asked(connect) => {
                    Action::Connect { connection: id, connect: connect.clone() }
                }
                Phase::Closed => Action::Closed(id),
                Phase::AwaitConnect | Phase::Connected(_) => Action::Transmit(id),
            });
        }
        None
    }

    /// Queues a message for the client of a connection.
    pub(super) fn deliver(
        &mut self,
        id: ConnectionId,
        outgoing: Outgoing,
        now: Instant,
    ) -> Result<(), Outgoing> {
        let Some(connection) = self.connections.get_mut(id.0) else { return Err(outgoing) };
        connection.server.deliver(outgoing, now)?;
        if connection.hint() {
            self.hints.push_back(id);
        }
        Ok(())
    }
}
