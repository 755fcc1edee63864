//! The client's end of a connection. It knows the client's rules, and no sockets, clocks or
//! threads.

mod action;
mod config;
mod keep_alive;
mod step;

pub use action::Action;
pub use config::ClientConfig;

use crate::codec::{
    Auth, Body, Connect, DecodeError, Disconnect, EncodeError, Expiry, Output, Packet,
    PacketIdentifier, Publish, ReasonCode, Role, Rules, Subscribe, SubscribeProperties,
    Subscription, Text, Unsubscribe, UnsubscribeProperties,
};
use crate::session::{
    AckToken, AcknowledgeError, Acknowledgement, Available, Change, Ending, Endpoint, Limits,
    Machine, PublishError, Published, Reauthentication, Request, RequestError, Requested, Session,
    Step, WriteError, advance,
};
use crate::time::Instant;
use alloc::collections::VecDeque;
use keep_alive::KeepAlive;

/// The reason why no CONNECT was sent. Nothing was written, and the session is unchanged.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The last connection has not ended with [`Action::Closed`].
    #[error("expected the last connection to have ended")]
    InUse,
    /// The session belongs to another client identifier. A client with another identifier is
    /// another [`Client`], or has a new session. [5.0 MQTT-3.1.3-2] [3.1.1 MQTT-3.1.3-2]
    #[error("session belongs to another client identifier")]
    ClientIdentifier,
    /// The packet cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// The state of the connection.
///
/// ```text
///  Idle ──connect──► AwaitConnack ──CONNACK──► Connected
///   ▲                     │                       │
///   └──Closed── Closing ◄─┴───────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    AwaitConnack {
        deadline: Instant,
        turn: Turn,
    },
    Connected(Reauthentication),
    /// The connection has ended, and the host has not received all of its last actions.
    Closing(Ending),
}

/// The side whose packet is due before CONNACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The server owes CONNACK or AUTH.
    Server,
    /// The host owes AUTH.
    Host,
}

/// The client's end of a connection, and of the connections after it.
///
/// The host owns the socket, the clock and both buffers, and runs this loop:
///
/// ```
/// use mqtt_sansio::client::{Action, Client, ClientConfig};
/// use mqtt_sansio::codec::{Connect, Publish, QoS, Version};
/// use mqtt_sansio::Instant;
///
/// # struct Socket(Vec<&'static [u8]>, Vec<u8>);
/// # impl Socket {
/// #     fn read(&mut self) -> &'static [u8] { self.0.remove(0) }
/// #     fn write_all(&mut self, bytes: &[u8]) { self.1.extend(bytes) }
/// # }
/// # let received: [&[u8]; 4] =
/// #     [b"\x20", b"\x03\0\0\0", b"\x40\x02\0\x01", b"\x30\x06\0\x01t\0hi"];
/// # let mut socket = Socket(received.to_vec(), vec![]);
/// # let now = Instant::from_millis(0);
/// let mut client = Client::new(ClientConfig::new());
/// let (mut received, mut out) = (Vec::new(), Vec::new());
/// let connect = Connect { clean_start: true, ..Connect::new(Version::V5_0, "sensor-4") };
/// client.connect(&connect, now, &mut out)?;
/// 'connection: loop {
///     socket.write_all(&out);
///     out.clear();
///     // Until `client.poll_timeout()`, at which `client.handle_timeout(…)` is due.
///     received.extend_from_slice(socket.read());
///     let mut input = received.as_slice();
///     while let Some(action) = client.handle_input(&mut input, now, &mut out) {
///         match action {
///             Action::Connected(_) => {
///                 let reading = Publish { qos: QoS::AtLeastOnce, ..Publish::new("t", b"21.5") };
///                 client.publish(1, &reading, now, &mut out)?;
///             }
///             Action::Published(published) => assert_eq!(published.key, 1),
///             Action::Message(message) => {
///                 assert_eq!(message.payload, b"hi");
///                 # break 'connection;
///             }
///             Action::Closed(cause) => {
///                 println!("{cause:?}");
///                 break 'connection;
///             }
///             _ => {}
///         }
///     }
///     let taken = received.len() - input.len();
///     received.drain(..taken);
/// }
/// socket.write_all(&out);
/// # assert!(socket.1.ends_with(b"\x32\x0A\0\x01t\0\x01\x0021.5"));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// - The host keeps the bytes of an incomplete packet, and passes them again with the bytes that
///   follow.
/// - An action borrows the input, not the client, so commands can be called while one is held.
/// - When a command returns, it has written all that it can. A later step writes the messages that
///   must wait for CONNACK or for the server's Receive Maximum.
/// - Each call does work in proportion to the packet at hand. CONNACK is the exception: it resumes
///   the whole session.
/// - An output with limited room ([`Fixed`](crate::codec::Fixed)) is never overrun. A step that
///   finds less than 16 bytes of room consumes nothing; the host writes the output and steps again.
///   The output must be able to hold the largest packet to be sent.
/// - To close the transport cleanly, the host writes `out`, shuts down the write half, and reads
///   until the end or a short timeout. After a failed write it still reads: the server's last
///   packet can tell why.
/// - The end of a connection is its last action. The session is kept for the next
///   [`connect`](Self::connect).
///
/// A program that was restarted has a new session, while the server may have kept the old one. A
/// CONNECT without Clean Start then ends with
/// [`CleanStartRequired`](crate::session::ProtocolError::CleanStartRequired), whose documentation
/// lists the remedies.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    endpoint: Endpoint,
    state: State,
    requested: Requested,
    /// Whether the client has the session that it asked for.
    has_session: bool,
    terms: Terms,
    keep_alive: KeepAlive,
    /// The keys of the requests that the ended connection has left unanswered.
    lost_requests: VecDeque<u64>,
    /// Whether the next CONNECT sets Clean Start, because the server resumed an unknown session.
    clean_start_required: bool,
}

/// The parts of CONNACK that matter later.
#[derive(Clone, Copy, Debug)]
struct Terms {
    available: Available,
    session_expiry: Expiry,
}

impl Client {
    /// Creates a client with a new session. If the server may have one from an earlier run, connect
    /// with Clean Start, or see
    /// [`CleanStartRequired`](crate::session::ProtocolError::CleanStartRequired).
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self::with_session(config, Session::new())
    }

    /// Creates a client that resumes a session, such as one that was stored.
    #[must_use]
    pub fn with_session(config: ClientConfig, mut session: Session) -> Self {
        session.end_use();
        Self {
            endpoint: Endpoint::new(Role::Client, session, config.common, Instant::default()),
            config,
            state: State::Idle,
            requested: Requested::NONE,
            has_session: false,
            terms: Terms { available: Available::ALL, session_expiry: Expiry::AT_DISCONNECT },
            keep_alive: KeepAlive::default(),
            lost_requests: VecDeque::new(),
            clean_start_required: false,
        }
    }

    /// Returns the session in its present state.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.endpoint.session
    }

    /// Starts to record the [changes](Change) of the session. Without this none are reported.
    pub fn record_changes(&mut self) {
        self.endpoint.session.record_changes();
    }

    /// Returns the next [change](Change) of the session that the host has not taken. The host
    /// takes all of them after each call, before it sends the output.
    #[must_use = "a change that is dropped is not stored"]
    #[inline]
    pub fn next_change(&mut self) -> Option<Change> {
        self.endpoint.session.next_change()
    }

    /// Returns the outcome of a message that is known while there is no connection, such as one
    /// that has expired. The host need not call it: after the next
    /// [`Connected`](Action::Connected) these outcomes are actions.
    #[must_use]
    pub fn next_completed(&mut self) -> Option<Published<'static>> {
        if self.is_connected() { None } else { self.endpoint.session.next_completed() }
    }

    /// Returns the session, for another client to resume. Ends the connection if it is still open,
    /// without sending a packet.
    #[must_use]
    pub fn into_session(mut self) -> Session {
        self.end(Ending::ConnectionLost);
        self.endpoint.session
    }

    /// Whether the server has accepted the connection, and it has not ended.
    #[must_use]
    #[inline]
    pub const fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected(_))
    }

    /// Whether the next packet can be read. It is false after the connection has ended.
    #[must_use]
    #[inline]
    pub const fn wants_input(&self) -> bool {
        // A packet that has ended the connection stays in the input until it is reported.
        self.is_active() || matches!(self.state, State::Closing(Ending::Packet))
    }

    #[inline]
    const fn is_active(&self) -> bool {
        matches!(self.state, State::AwaitConnack { .. } | State::Connected(_))
    }

    // ---- commands ----

    /// Starts MQTT on a transport that is already open, by writing CONNECT.
    ///
    /// The host must first drop the input that is left from the last connection.
    ///
    /// A session belongs to one client identifier: that of the first CONNECT, or the one that the
    /// server assigns to a CONNECT without an identifier. With another identifier the call fails
    /// with [`ConnectError::ClientIdentifier`]. A CONNECT without an identifier asks for a new one.
    /// To resume the session, it must have the
    /// [identifier of the session](Session::client_identifier).
    ///
    /// With Clean Start, or if the server cannot have the session, messages in flight end as
    /// [`SessionLost`](crate::session::Outcome::SessionLost). If the CONNECT then does not reach
    /// the server, messages of the old session can arrive a second time.
    ///
    /// The limits in the properties of the packet are enforced. Messages that wait, and those of
    /// the session that were not acknowledged, are sent after the server has accepted.
    pub fn connect(
        &mut self,
        connect: &Connect<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), ConnectError> {
        if self.state != State::Idle {
            return Err(ConnectError::InUse);
        }
        let identifier = connect.client_identifier;
        let session = &self.endpoint.session;
        if session.client_identifier().is_some_and(|own| identifier != own)
            && !identifier.is_empty()
        {
            return Err(ConnectError::ClientIdentifier);
        }
        let clean_start = connect.clean_start || self.clean_start_required;
        let has_session = session.established && !clean_start && !identifier.is_empty();
        let connect = Connect { clean_start, ..*connect };
        let rules =
            Rules::new(connect.version).sent_by(Role::Client).with(self.config.common.options);
        Packet::from(connect).encode(rules, out)?;
        let session = &mut self.endpoint.session;
        if !has_session {
            // Whatever becomes of this CONNECT, the old session is over. [5.0 MQTT-3.1.2-4]
            // [3.1.1 MQTT-3.1.2-6]
            session.lost();
        }
        session.set_client_identifier(identifier);
        // From now on the server may have the session, even if its CONNACK never arrives. Without
        // an identifier this client can then not resume it.
        session.established = !identifier.is_empty();
        let mut own = Limits::of_connect(&connect.properties);
        own.maximum_packet_size = own.maximum_packet_size.min(self.config.maximum_packet_size);
        self.endpoint.begin(connect.version, own, Limits::default());
        self.endpoint.restart_clock(now);
        self.has_session = has_session;
        self.requested = Requested::of(&connect);
        self.keep_alive = KeepAlive::default();
        self.await_connack();
        Ok(())
    }

    fn await_connack(&mut self) {
        let deadline = self.endpoint.clock.latest + self.config.connect_timeout;
        self.state = State::AwaitConnack { deadline, turn: Turn::Server };
    }

    /// Sends a message, or queues it while it cannot be sent.
    ///
    /// A QoS 1 or 2 message ends with an [`Action::Published`] with `key`, unless that is
    /// `u64::MAX`. There is no outcome for QoS 0, and no limit for QoS 0 messages during a
    /// connection, so a host that publishes many of them must check the length of `out`. The host
    /// can set a topic alias. A message that is queued or resent carries its full topic name.
    ///
    /// A message can be published at any time. Without a connection it is queued for the next one,
    /// which judges it by its own version and limits: properties that an older version does not
    /// have are left out, and a message that the server does not allow ends as
    /// [`NotAllowed`](crate::session::Outcome::NotAllowed).
    pub fn publish(
        &mut self,
        key: u64,
        publish: &Publish<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), PublishError> {
        let mut step = self.endpoint.step(now, out);
        self.endpoint.publish(key, publish, &mut step)?;
        self.endpoint.finish(&step);
        Ok(())
    }

    /// Sends a SUBSCRIBE. It ends with an [`Action::Subscribed`] or [`Action::RequestLost`] with
    /// `key`.
    pub fn subscribe(
        &mut self,
        key: u64,
        subscriptions: &[Subscription<'_>],
        properties: SubscribeProperties<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        let packet_identifier = self.endpoint.allocate()?;
        let version = self.endpoint.connection.version;
        for subscription in subscriptions {
            match self.terms.available.check(subscription, &properties, version) {
                // Encoding finds the rule that an invalid filter breaks.
                Ok(()) | Err(ReasonCode::TOPIC_FILTER_INVALID) => {}
                Err(reason_code) => return Err(RequestError::NotSupported(reason_code)),
            }
        }
        let packet =
            Subscribe { packet_identifier, properties, subscriptions: subscriptions.into() };
        self.write(&packet.into(), now, out)?;
        let filters = subscriptions.len();
        self.endpoint.insert_request(packet_identifier, key, filters, Request::Subscribe);
        Ok(())
    }

    /// Sends an UNSUBSCRIBE. It ends with an [`Action::Unsubscribed`] or [`Action::RequestLost`]
    /// with `key`.
    pub fn unsubscribe(
        &mut self,
        key: u64,
        topic_filters: &[Text<'_>],
        properties: UnsubscribeProperties<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        let packet_identifier = self.endpoint.allocate()?;
        let packet =
            Unsubscribe { packet_identifier, properties, topic_filters: topic_filters.into() };
        self.write(&packet.into(), now, out)?;
        let filters = topic_filters.len();
        self.endpoint.insert_request(packet_identifier, key, filters, Request::Unsubscribe);
        Ok(())
    }

    /// Acknowledges a message manually. In 5.0 an error code refuses the message.
    ///
    /// Acknowledgements are sent in the order in which the messages arrived, so this one can wait
    /// for earlier ones. [5.0 MQTT-4.6.0-2] [3.1.1 MQTT-4.6.0-2]
    pub fn acknowledge<'a>(
        &mut self,
        token: AckToken,
        acknowledgement: impl Into<Acknowledgement<'a>>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), AcknowledgeError> {
        let mut step = self.endpoint.step(now, out);
        self.endpoint.acknowledge(token, acknowledgement.into(), &mut step)?;
        self.endpoint.finish(&step);
        Ok(())
    }

    /// Sends a step of enhanced authentication: an answer to the server, or the start of a
    /// re-authentication. The method must be that of CONNECT.
    pub fn authenticate(
        &mut self,
        auth: &Auth<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        // [5.0 MQTT-4.12.0-3] [5.0 MQTT-4.12.0-5] [5.0 MQTT-4.12.0-7] [5.0 MQTT-4.12.1-1]
        let is_first = auth.reason_code == ReasonCode::RE_AUTHENTICATE;
        let is_expected = match self.state {
            State::Idle | State::Closing(_) => return Err(RequestError::NotConnected),
            State::AwaitConnack { turn, .. } => turn == Turn::Host && !is_first,
            State::Connected(Reauthentication::None) => is_first,
            State::Connected(Reauthentication::AwaitPeer) => false,
            State::Connected(Reauthentication::AwaitHost { .. }) => !is_first,
        };
        if !is_expected || self.requested.check_method(auth).is_err() {
            return Err(RequestError::Authentication);
        }
        self.write(&(*auth).into(), now, out)?;
        if self.is_connected() {
            self.state = State::Connected(Reauthentication::AwaitPeer);
        } else {
            self.await_connack();
        }
        Ok(())
    }

    /// Ends the connection with a DISCONNECT. The next step is [`Action::Closed`].
    ///
    /// Delivered messages are acknowledged before it, unless the host acknowledges manually; this
    /// is so even if the DISCONNECT exceeds the server's Maximum Packet Size and is an error.
    /// Nothing is written after it: a message that is published now waits for the next connection.
    pub fn disconnect(
        &mut self,
        disconnect: &Disconnect<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        if !self.is_active() {
            return Err(RequestError::NotConnected);
        }
        let expiry = disconnect.properties.session_expiry_interval;
        let was_zero = self.requested.session_expiry == Expiry::AT_DISCONNECT;
        if was_zero && expiry.is_some_and(|expiry| expiry > 0) {
            return Err(EncodeError::from(DecodeError::InvalidPropertyValue(0x11)).into());
        }
        let packet = Packet::from(*disconnect);
        packet.measure(self.endpoint.rules())?;
        if self.endpoint.is_open() {
            let mut step = self.endpoint.step(now, &mut *out);
            // If an acknowledgement has no room, the peer redelivers the message.
            let _ = self.endpoint.settle(&mut step);
            self.endpoint.finish(&step);
        }
        self.write(&packet, now, out)?;
        if let Some(expiry) = expiry {
            self.terms.session_expiry = Expiry::from_seconds(expiry);
        }
        self.end(Ending::Requested);
        Ok(())
    }

    // ---- events ----

    /// Takes the next step: consumes packets from `input` up to the first that has an action.
    ///
    /// `None` means that more input is needed, that `out` has too little room, or that there is no
    /// connection.
    #[inline]
    #[must_use = "an action that is dropped is lost"]
    pub fn handle_input<'i>(
        &mut self,
        input: &mut &'i [u8],
        now: Instant,
        out: &mut impl Output,
    ) -> Option<Action<'i>> {
        advance(self, input, now, out)
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due, if at all. Every other call
    /// can change it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle => None,
            State::AwaitConnack { deadline, .. } => Some(deadline),
            State::Connected(reauthentication) => {
                let answer = match reauthentication {
                    Reauthentication::AwaitHost { deadline } => Some(deadline),
                    Reauthentication::None | Reauthentication::AwaitPeer => None,
                };
                [self.silence_deadline(), self.ping_due(), answer].into_iter().flatten().min()
            }
            State::Closing(_) => Some(self.endpoint.clock.latest),
        }
    }

    /// Sends a PINGREQ that is due, or ends the connection of a silent server. Does nothing if
    /// nothing is due.
    #[must_use = "an action that is dropped is lost"]
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        out: &mut impl Output,
    ) -> Option<Action<'static>> {
        let step = self.endpoint.step(now, out);
        let now = step.now;
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match self.state {
            State::AwaitConnack { deadline, turn } if deadline <= now => self.end(match turn {
                Turn::Server => Ending::ConnectTimeout,
                Turn::Host => Ending::AnswerTimeout,
            }),
            State::Connected(Reauthentication::AwaitHost { deadline }) if deadline <= now => {
                let disconnect = Disconnect::new(ReasonCode::UNSPECIFIED_ERROR);
                let _ = self.endpoint.write(&Packet::from(disconnect), step.out);
                self.end(Ending::AnswerTimeout);
            }
            State::Connected(_) if is_due(self.silence_deadline()) => {
                self.end(Ending::KeepAliveTimeout);
            }
            State::Connected(_) if is_due(self.ping_due()) => {
                // A server that accepts no two bytes receives nothing, and closes the connection.
                let written = self.endpoint.write(&Packet::Pingreq, &mut *step.out);
                if matches!(written, Err(WriteError::Encode(_))) {
                    // An output without room for two bytes is full of others, which do as well.
                    self.keep_alive.note_progress(now);
                } else {
                    self.keep_alive.ping_sent.get_or_insert(now);
                }
                self.endpoint.clock.last_sent = now;
            }
            State::Idle | State::AwaitConnack { .. } | State::Connected(_) | State::Closing(_) => {}
        }
        self.endpoint.finish(&step);
        self.next_closing(&mut &[][..])
    }

    /// Reports transport activity that the machine cannot observe: a partial write of a long
    /// output, or a pause in reading.
    ///
    /// Restarts the time that the server has to answer a PINGREQ, because the PINGREQ can be at the
    /// end of that output, or the host has not read the answer yet. A host that writes and reads
    /// without such delays need not call it.
    pub fn handle_progress(&mut self, now: Instant) {
        let now = self.endpoint.advance_to(now);
        self.keep_alive.note_progress(now);
    }

    /// Ends the connection because the transport is closed or broken. Returns the next of the last
    /// actions; the host calls it until it returns `None`.
    #[must_use = "an action that is dropped is lost"]
    pub fn connection_lost(&mut self) -> Option<Action<'static>> {
        if self.is_active() {
            self.end(Ending::ConnectionLost);
        }
        self.next_closing(&mut &[][..])
    }

    // ---- helpers ----

    /// Returns the packet identifier of a message that is not acknowledged.
    pub(crate) fn packet_identifier(&self, token: AckToken) -> Option<PacketIdentifier> {
        self.endpoint.packet_identifier(token)
    }

    fn ping_due(&self) -> Option<Instant> {
        let clock = &self.endpoint.clock;
        self.keep_alive.ping_due(clock.last_sent, clock.last_received)
    }

    fn silence_deadline(&self) -> Option<Instant> {
        self.keep_alive.deadline(self.endpoint.clock.last_received, self.config.ping_timeout)
    }

    fn write(
        &mut self,
        packet: &Packet<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        let step: Step<'_, _> = self.endpoint.step(now, out);
        self.endpoint.write_shortened(packet, step.out)?;
        self.endpoint.finish(&step);
        Ok(())
    }

    /// Ends the connection for the session. The host is told by the next steps.
    fn end(&mut self, ending: Ending) {
        if self.endpoint.is_open() {
            self.lost_requests.extend(self.endpoint.close());
            // [5.0 MQTT-3.1.2-23]
            let survives = self.terms.session_expiry > Expiry::AT_DISCONNECT;
            self.endpoint.session.established = survives;
        }
        self.state = State::Closing(ending);
    }
}
