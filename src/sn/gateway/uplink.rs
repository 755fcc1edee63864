//! A connection to the server: one of our client machines, and its output.

use super::Link;
use crate::client::{Action, Client, ClientConfig, ConnectError};
use crate::codec::{Connect, Disconnect};
use crate::session::Session;
use crate::time::Instant;
use alloc::vec::Vec;

/// The output at which messages of a client wait, because the server is slow.
const HIGH_WATER: usize = 64 * 1024;

pub(super) struct Uplink {
    pub(super) client: Client,
    pub(super) out: Vec<u8>,
    transport: Transport,
    generation: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    None,
    /// The host opens it, or has opened it.
    Open(Link),
    /// The MQTT connection has ended. The host must close the transport.
    Closing(Link),
}

impl Uplink {
    pub(super) fn new(config: ClientConfig) -> Self {
        Self {
            // The server can have a session of an earlier run.
            client: Client::with_session(config, Session::established()),
            out: Vec::new(),
            transport: Transport::None,
            generation: 0,
        }
    }

    /// Returns the transport, if there is one.
    pub(super) const fn link(&self) -> Option<Link> {
        match self.transport {
            Transport::None => None,
            Transport::Open(link) | Transport::Closing(link) => Some(link),
        }
    }

    /// Whether the MQTT connection is being set up or is open.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.transport, Transport::Open(_))
    }

    /// Whether the server has accepted the connection, and can be sent more.
    pub(super) fn is_ready(&self) -> bool {
        self.client.is_connected() && self.out.len() < HIGH_WATER
    }

    /// Begins a connection on a transport that the host opens.
    pub(super) fn connect(
        &mut self,
        device: u64,
        connect: &Connect<'_>,
        now: Instant,
    ) -> Result<Link, ConnectError> {
        self.out.clear();
        self.client.connect(connect, now, &mut self.out)?;
        self.generation = self.generation.wrapping_add(1);
        let link = Link { device, generation: self.generation };
        self.transport = Transport::Open(link);
        Ok(link)
    }

    /// Ends the MQTT connection with a DISCONNECT, unless the server has not accepted it yet.
    pub(super) fn disconnect(&mut self, now: Instant) {
        let _ = self.client.disconnect(&Disconnect::default(), now, &mut self.out);
    }

    /// Takes the next action of the client machine at the end of its connection.
    pub(super) fn next_ending(&mut self) -> Option<Action<'static>> {
        self.client.connection_lost()
    }

    /// Notes that the MQTT connection has ended. Returns the transport that the host must close.
    pub(super) fn set_closing(&mut self) -> Option<Link> {
        let Transport::Open(link) = self.transport else { return None };
        self.transport = Transport::Closing(link);
        Some(link)
    }

    /// Notes that the host has closed the transport.
    pub(super) fn set_closed(&mut self) {
        self.transport = Transport::None;
        self.out = Vec::new();
    }

    /// Returns when the client machine has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.is_open() { self.client.poll_timeout() } else { None }
    }
}
