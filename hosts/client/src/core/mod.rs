//! The state of a client, under the lock of [`Shared`]: the machine of `mqtt_sansio`, and the tasks
//! that wait for its outcomes. Nothing here waits or does I/O. A handle calls the machine directly,
//! in its own task; the driver task writes the output.
//!
//! This file has the state, and what the client sends, except for the packets of [`requests`] and
//! [`authentication`]. [`input`] has what it receives.

mod authentication;
mod input;
mod requests;

use crate::clock::Clock;
use crate::delivery::{Delivery, DeliveryResult};
use crate::error::{Ended, PublishError, RequestError};
use crate::queue::Sender;
use crate::shared::{Link, Shared};
use crate::store::Records;
use bytes::Buf as _;
use mqtt_sansio::client::{Client as Machine, ConnectError};
use mqtt_sansio::codec::{
    Auth, Connect, Disconnect, OwnedPacket, Packet, Publish, QoS, ReasonCode, Version,
};
use mqtt_sansio::session::{self, AckToken, AcknowledgeError, Acknowledgement};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::oneshot;
use tracing::debug;

pub(crate) use requests::Subscribed;
use requests::Unsubscribing;

/// The bytes of output that can wait for the socket. Beyond that, a publish waits, and the client
/// does not read.
const OUTPUT_LIMIT: usize = 256 * 1024;

/// Returns the data of the next AUTH or CONNECT; the argument is the AUTH of the server, if any.
pub(crate) type Authenticator =
    Box<dyn FnMut(Option<&Auth<'_>>) -> Result<Vec<u8>, AuthenticatorError> + Send>;

/// Any error of an authenticator.
pub(crate) type AuthenticatorError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) type RequestResult = Result<Vec<ReasonCode>, RequestError>;

pub(crate) struct Core {
    machine: Machine,
    clock: Clock,
    /// The CONNECT, as it was configured.
    connect: OwnedPacket,
    authenticator: Option<Authenticator>,
    manual_acknowledgement: bool,
    /// Output of the machine.
    out: Vec<u8>,
    /// Whether the driver has bytes to write that it took from `out`.
    is_sending: bool,
    deliveries: HashMap<u64, oneshot::Sender<DeliveryResult>>,
    subscriptions: Vec<Subscribed>,
    unsubscriptions: Vec<Unsubscribing>,
    reauthentication: Option<oneshot::Sender<Result<(), RequestError>>>,
    /// The stream of messages that no subscription takes.
    others: Option<Sender>,
    /// Streams that have more messages than they can hold. Until they have room, no input is
    /// handled.
    full: Vec<Sender>,
    next_key: u64,
    /// The number of the current connection. 0 before the first.
    connection: u64,
    /// The server of the current connection.
    server: String,
    /// The server that last had the session.
    session_server: String,
    /// Whether servers can share the session. False after a server did not have it.
    shares_sessions: bool,
    /// The changes for the store, if there is one.
    journal: Option<Journal>,
    closing: bool,
}

/// The parts that [`Options`](crate::Options) have prepared.
pub(crate) struct Parts {
    pub(crate) machine: Machine,
    pub(crate) clock: Clock,
    pub(crate) connect: OwnedPacket,
    pub(crate) authenticator: Option<Authenticator>,
    pub(crate) manual_acknowledgement: bool,
    pub(crate) subscriptions: Vec<Subscribed>,
    pub(crate) others: Option<Sender>,
    pub(crate) next_key: u64,
    pub(crate) has_store: bool,
}

/// The records that the driver has not taken yet.
#[derive(Default)]
struct Journal {
    records: Records,
    /// The number of messages that were recorded so far.
    messages: u64,
    /// Whether the client identifier was recorded.
    is_named: bool,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { machine, clock, connect, authenticator, manual_acknowledgement, .. } = parts;
        Self {
            machine,
            clock,
            connect,
            authenticator,
            manual_acknowledgement,
            out: Vec::new(),
            is_sending: false,
            deliveries: HashMap::new(),
            subscriptions: parts.subscriptions,
            unsubscriptions: Vec::new(),
            reauthentication: None,
            others: parts.others,
            full: Vec::new(),
            next_key: parts.next_key,
            connection: 0,
            server: String::new(),
            session_server: String::new(),
            shares_sessions: true,
            journal: parts.has_store.then(Journal::default),
            closing: false,
        }
    }

    fn version(&self) -> Version {
        connect_of(&self.connect).version
    }

    /// Returns the identifier in CONNECT, or else the one that the server has assigned.
    pub(crate) fn client_identifier(&self) -> String {
        let configured = connect_of(&self.connect).client_identifier;
        let own =
            if configured.is_empty() { self.machine.session().client_identifier() } else { None };
        own.unwrap_or(configured.to_str()).to_owned()
    }

    pub(crate) const fn is_closing(&self) -> bool {
        self.closing
    }

    /// Returns the number of messages that the journal has had so far.
    pub(crate) fn recorded(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.messages)
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    const fn check_open(&self) -> Result<(), RequestError> {
        if self.closing { Err(RequestError::Closed) } else { Ok(()) }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.out.len() < OUTPUT_LIMIT
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.out.is_empty()
            && !self.is_sending
            && self.deliveries.is_empty()
            && self.machine.session().queued() == 0
            && self.machine.session().in_flight() == 0
    }

    const fn new_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    pub(crate) fn publish(&mut self, publish: &Publish<'_>) -> Result<Delivery, PublishError> {
        if self.closing {
            return Err(PublishError::Closed);
        }
        if !self.has_room() {
            return Err(session::PublishError::QueueFull.into());
        }
        let key = self.next_key + 1;
        self.machine.publish(key, publish, self.clock.now(), &mut self.out)?;
        self.next_key = key;
        if let Some(journal) = &mut self.journal {
            journal.records.message(key, publish);
            journal.messages += 1;
        }
        if publish.qos == QoS::AtMostOnce {
            return Ok(Delivery::DONE);
        }
        let (sender, receiver) = oneshot::channel();
        self.deliveries.insert(key, sender);
        Ok(Delivery::new(receiver))
    }

    pub(crate) fn connect(&mut self, server: &str) -> Result<(), Ended> {
        self.out.clear();
        // The last step before the connection was lost can have left actions.
        while self.machine.connection_lost().is_some() {}
        let connect = connect_of(&self.connect);
        let identifier = self.client_identifier();
        let mut properties = connect.properties;
        let data;
        if let Some(authenticator) = &mut self.authenticator {
            data = authenticator(None).map_err(|error| Ended::Connect(error.to_string().into()))?;
            properties.authentication_data = Some(&data);
        }
        // Before 5.0 a clean session cannot be resumed.
        let was_connected = self.connection > 0 && connect.version == Version::V5_0;
        server.clone_into(&mut self.server);
        // An earlier session of that server does not match the state of this client.
        let is_stale = was_connected && !self.shares_sessions && self.server != self.session_server;
        let connect = Connect {
            clean_start: connect.clean_start && !was_connected || is_stale,
            client_identifier: (&identifier).into(),
            properties,
            ..connect
        };
        self.machine.connect(&connect, self.clock.now(), &mut self.out).map_err(|error| {
            let cause = match error {
                ConnectError::ClientIdentifier => error.to_string(),
                other => format!("cannot send CONNECT: {other}"),
            };
            Ended::Connect(cause.into())
        })
    }

    /// Starts to end the client, with a DISCONNECT if there is a connection.
    pub(crate) fn close(&mut self, disconnect: Option<&Disconnect<'_>>) {
        if !self.closing {
            self.closing = true;
            self.disconnect(disconnect);
        }
    }

    fn disconnect(&mut self, disconnect: Option<&Disconnect<'_>>) {
        let connect = connect_of(&self.connect);
        let mut end = disconnect.copied().unwrap_or_default();
        // With Clean Start, the next run does not resume the session, so it ends now.
        if disconnect.is_none() && connect.clean_start && connect.version == Version::V5_0 {
            end.properties.session_expiry_interval = Some(0);
        }
        if let Err(error) = self.machine.disconnect(&end, self.clock.now(), &mut self.out) {
            debug!("no DISCONNECT was sent: {error}");
        }
    }

    pub(crate) fn acknowledge(
        &mut self,
        token: AckToken,
        acknowledgement: Acknowledgement<'_>,
    ) -> Result<(), AcknowledgeError> {
        self.machine.acknowledge(token, acknowledgement, self.clock.now(), &mut self.out)
    }

    /// Handles what was received and what is due, and takes the output. Returns the end of the
    /// connection.
    pub(crate) fn step(&mut self, link: &mut Link, shared: &Arc<Shared>) -> Option<Ended> {
        self.full.retain(|sender| !sender.has_room());
        if std::mem::take(&mut link.progressed) || !link.reads {
            // A PINGREQ waits behind a large message, or its answer was not read yet.
            self.machine.handle_progress(self.clock.now());
        }
        let ended =
            self.take_steps(&mut link.received, shared).or_else(|| self.handle_timeout(shared));
        self.send_requests();
        if !link.sending.has_remaining() {
            // The two buffers are swapped, so that neither is allocated again.
            link.sending.set_position(0);
            link.sending.get_mut().clear();
            std::mem::swap(&mut self.out, link.sending.get_mut());
        }
        self.is_sending = link.sending.has_remaining();
        link.full = self.full.first().cloned();
        link.reads = link.full.is_none() && self.has_room();
        link.deadline = self.machine.poll_timeout().map(|deadline| self.clock.timer(deadline));
        ended
    }

    /// Ends the connection because the transport has failed.
    pub(crate) fn connection_lost(&mut self, shared: &Arc<Shared>) {
        while let Some(action) = self.machine.connection_lost() {
            self.on_action(action, shared);
        }
    }

    /// Returns the records of all changes since the last call, and the number of messages that
    /// were recorded so far.
    pub(crate) fn take_records(&mut self) -> Option<(Records, u64)> {
        let journal = self.journal.as_mut()?;
        if !journal.is_named {
            if let Some(identifier) = self.machine.session().client_identifier() {
                journal.records.client_identifier(identifier);
                journal.is_named = true;
            }
        }
        while let Some(change) = self.machine.next_change() {
            journal.records.change(change);
        }
        Some((std::mem::take(&mut journal.records), journal.messages))
    }

    /// Ends the client: drops each sender, which wakes its receiver.
    pub(crate) fn closed(&mut self) {
        self.closing = true;
        self.deliveries.clear();
        self.subscriptions.clear();
        self.unsubscriptions.clear();
        self.full.clear();
        (self.others, self.reauthentication) = (None, None);
    }
}

fn connect_of(packet: &OwnedPacket) -> Connect<'_> {
    match packet.decode() {
        Packet::Connect(connect) => connect,
        _ => Connect::new(Version::V5_0, ""),
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("connection", &self.connection)
            .field("deliveries", &self.deliveries.len())
            .field("subscriptions", &self.subscriptions.len())
            .field("unsubscriptions", &self.unsubscriptions.len())
            .finish_non_exhaustive()
    }
}
