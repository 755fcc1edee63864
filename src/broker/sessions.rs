//! The store of sessions, by number and by Client Identifier.

use super::action::{ConnectionId, SessionId, SessionNumber};
use super::grants::Grants;
use super::subscription::Subscriptions;
use crate::router::{HashKey, Slab, Table};
use crate::session::Session;
use crate::sync::Arc;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::hash::{Hash, Hasher as _};

#[derive(Debug)]
pub(super) struct Sessions {
    sessions: Slab<SessionState>,
    /// The places of the sessions, by the hashes of their Client Identifiers.
    /// [5.0 MQTT-3.1.3-2] [3.1.1 MQTT-3.1.3-2]
    by_client: Table,
    key: HashKey,
    seed: u128,
    assigned: u64,
}

/// The state of one session, except its will and the retained messages that it awaits.
#[derive(Debug)]
pub(super) struct SessionState {
    pub(super) presence: Presence,
    pub(super) subscriptions: Subscriptions,
    pub(super) grants: Grants,
    /// The number of the session in the journal, if it is stored.
    pub(super) number: Option<SessionNumber>,
    client_identifier: Arc<str>,
}

/// Whether the client is connected.
#[derive(Debug)]
pub(super) enum Presence {
    /// The session is with the connection.
    Connected(ConnectionId),
    /// The session waits. Its box keeps the state of a connected client small.
    Away { session: Box<Session>, expires_at: Option<Instant> },
}

impl Presence {
    /// Returns the connection of the client, if it is connected.
    pub(super) const fn connection(&self) -> Option<ConnectionId> {
        if let Self::Connected(id) = self { Some(*id) } else { None }
    }
}

impl SessionState {
    pub(super) const fn client_identifier(&self) -> &Arc<str> {
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
    pub(super) fn new(seed: u128) -> Self {
        Self {
            sessions: Slab::new(),
            by_client: Table::default(),
            key: HashKey::new(seed),
            seed,
            assigned: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn find(&self, client_identifier: &str) -> Option<SessionId> {
        let hash = self.hash(client_identifier);
        let is_it = |place| {
            let state = self.sessions.at(place).map(|(_, state)| state);
            state.is_some_and(|state| &*state.client_identifier == client_identifier)
        };
        let place = self.by_client.find(hash, is_it)?;
        self.sessions.at(place).map(|(id, _)| SessionId(id))
    }

    /// Returns an iterator over all sessions, in the order of their places.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, &SessionState)> {
        self.sessions.iter().map(|(id, state)| (SessionId(id), state))
    }

    fn hash(&self, client_identifier: &str) -> u32 {
        self.key.short(client_identifier.as_bytes())
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&SessionState> {
        self.sessions.get(id.0)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut SessionState> {
        self.sessions.get_mut(id.0)
    }

    /// Adds a session for a client that has none.
    pub(super) fn insert(&mut self, client_identifier: &str, presence: Presence) -> SessionId {
        let hash = self.hash(client_identifier);
        let id = SessionId(self.sessions.insert(SessionState {
            presence,
            subscriptions: Subscriptions::default(),
            grants: Grants::all(),
            number: None,
            client_identifier: client_identifier.into(),
        }));
        self.by_client.insert(hash, Slab::<SessionState>::place(id.0));
        id
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<SessionState> {
        let state = self.sessions.remove(id.0)?;
        let hash = self.hash(&state.client_identifier);
        self.by_client.remove(hash, Slab::<SessionState>::place(id.0));
        Some(state)
    }

    /// Returns a Client Identifier that no session has. It cannot be guessed without the seed,
    /// because any client that connects with it takes the session over. [5.0 MQTT-3.2.2-16]
    /// [3.1.1 MQTT-3.1.3-6]
    pub(super) fn assign_identifier(&mut self) -> String {
        loop {
            self.assigned += 1;
            let half = |which: u64| self.keyed_hash([self.assigned, which]);
            let name = format!("auto-{:016x}{:016x}", half(0), half(1));
            if self.find(&name).is_none() {
                return name;
            }
        }
    }

    /// Returns a hash that cannot be foreseen without the seed.
    #[expect(deprecated, reason = "`core` has no other keyed hash; the new one is in `std`")]
    pub(super) fn keyed_hash(&self, value: impl Hash) -> u64 {
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
        let keys = (half(self.seed), half(self.seed >> 64));
        let mut hasher = core::hash::SipHasher::new_with_keys(keys.0, keys.1);
        value.hash(&mut hasher);
        hasher.finish()
    }
}
