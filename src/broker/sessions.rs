//! The store of sessions, by number and by Client Identifier.

use super::action::{ConnectionId, SessionId};
use super::slab::Slab;
use super::subscription::Subscriber;
use crate::codec::Filter;
use crate::session::Session;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

#[derive(Debug)]
pub(super) struct Sessions {
    sessions: Slab<SessionState>,
    /// [5.0 MQTT-3.1.3-2] [3.1.1 MQTT-3.1.3-2]
    by_client: BTreeMap<Arc<[u8]>, SessionId>,
    seed: u64,
    assigned: u64,
}

/// The state of one session, except its will and the retained messages that it awaits.
#[derive(Debug)]
pub(super) struct SessionState {
    pub(super) presence: Presence,
    pub(super) subscriptions: BTreeMap<Filter, Subscriber>,
    client_identifier: Arc<[u8]>,
}

/// Whether the client is connected.
#[derive(Debug)]
pub(super) enum Presence {
    /// The session is with the connection.
    Connected(ConnectionId),
    /// The session waits. Its box keeps the state of a connected client small.
    Away { session: Box<Session>, expires_at: Option<Instant> },
}

impl SessionState {
    pub(super) const fn client_identifier(&self) -> &Arc<[u8]> {
        &self.client_identifier
    }

    /// Returns when the session ends, if the client is away and does not come back.
    pub(super) const fn expires_at(&self) -> Option<Instant> {
        match self.presence {
            Presence::Away { expires_at, .. } => expires_at,
            Presence::Connected(_) => None,
        }
    }
}

impl Sessions {
    pub(super) const fn new(seed: u64) -> Self {
        Self { sessions: Slab::new(), by_client: BTreeMap::new(), seed, assigned: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn find(&self, client_identifier: &[u8]) -> Option<SessionId> {
        self.by_client.get(client_identifier).copied()
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&SessionState> {
        self.sessions.get(id.0)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut SessionState> {
        self.sessions.get_mut(id.0)
    }

    /// Adds an empty session for a client that has none.
    pub(super) fn insert(
        &mut self,
        client_identifier: &[u8],
        connection: ConnectionId,
    ) -> SessionId {
        let client_identifier: Arc<[u8]> = client_identifier.into();
        let id = SessionId(self.sessions.insert(SessionState {
            presence: Presence::Connected(connection),
            subscriptions: BTreeMap::new(),
            client_identifier: client_identifier.clone(),
        }));
        self.by_client.insert(client_identifier, id);
        id
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<SessionState> {
        let state = self.sessions.remove(id.0)?;
        self.by_client.remove(&state.client_identifier);
        Some(state)
    }

    /// Returns a Client Identifier that no session has. [5.0 MQTT-3.2.2-16] [3.1.1 MQTT-3.1.3-6]
    pub(super) fn assign_identifier(&mut self) -> String {
        loop {
            self.assigned += 1;
            let name = format!("auto-{:016x}-{}", self.seed, self.assigned);
            if !self.by_client.contains_key(name.as_bytes()) {
                return name;
            }
        }
    }
}
