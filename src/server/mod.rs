//! The server's end of a connection. It knows the server's rules for one client, and no sockets,
//! clocks, threads or other clients.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not named in a match may not come in that state"
)]

mod answer;
mod config;

pub use answer::AnswerError;
pub use config::ServerConfig;

use crate::codec::{
    self, AckProperties, Auth, ConnackProperties, Connect, DecodeError, Disconnect, Frame, Options,
    Packet, PacketIdentifier, PacketType, ReasonCode, Role, Rules, Subscribe, Text, Unsubscribe,
    Version,
};
use crate::session::{
    AckToken, AcknowledgeError, Available, CloseCause, Connection, Endpoint, Limits, Outgoing,
    ProtocolError, Published, Received, Session,
};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What only the host can do, or wants to know. At most one comes of each step.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Action<'a> {
    /// A client asks to be let in. To be answered with [`Server::accept`], [`Server::refuse`] or
    /// [`Server::challenge`]; until then no input is taken.
    Connect(Connect<'a>),
    /// The client's next step of enhanced authentication, or, after CONNACK, its wish to
    /// authenticate again. To be answered with the same calls; after CONNACK with
    /// [`Server::challenge`], with reason code [`SUCCESS`](ReasonCode::SUCCESS) to end it, or
    /// [`Server::disconnect`].
    Authenticate(Auth<'a>),
    /// A message has arrived. It is acknowledged when the next step is taken, or by hand. Unless
    /// that is done by hand it is the host's from now on: should the connection end before that
    /// step, a QoS 2 message does not come again.
    Message(Received<'a>),
    /// The client asks for messages. To be answered with [`Server::suback`], now or later.
    Subscribe(Subscribe<'a>),
    /// The client asks for no more messages. To be answered with [`Server::unsuback`], now or
    /// later.
    Unsubscribe(Unsubscribe<'a>),
    /// A message with QoS 1 or 2 has come to its end.
    Published(Published<'a>),
    /// The connection has ended: flush `out`, close the socket. Nothing comes after it.
    Closed {
        /// Why it has ended.
        cause: CloseCause<'a>,
        /// Whether the Will Message, if the CONNECT had one, is to be published, after its Will
        /// Delay Interval. It is not after a DISCONNECT with [`SUCCESS`](ReasonCode::SUCCESS), nor
        /// if the client was never accepted. [5.0 MQTT-3.1.2-8] [3.1.1 MQTT-3.1.2-8]
        publish_will: bool,
    },
}

/// The state of the connection.
///
/// ```text
///  AwaitConnect ──CONNECT──► Asked ──accept──► Connected ◄──challenge── Reauthenticating
///                            ▲   │                 │                        ▲
///                            │   challenge         └─────────AUTH───────────┘
///                          AUTH  ▼
///                            AwaitAuth                     any ──► Closing, Closed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitConnect {
        deadline: Instant,
    },
    /// CONNECT or AUTH waits for the host's answer.
    Asked,
    AwaitAuth {
        deadline: Instant,
    },
    Connected,
    /// AUTH waits for the host's answer.
    Reauthenticating,
    /// The host has ended it, and is yet to be told so.
    Closing,
    Closed,
}

/// The server's end of one connection.
///
/// The host owns the socket, the clock and both buffers, and runs the same loop as for a
/// [`Client`](crate::client::Client):
///
/// ```
/// use mqtt_sansio::codec::{AckProperties, ConnackProperties, ReasonCode};
/// use mqtt_sansio::server::{Action, Server, ServerConfig};
/// use mqtt_sansio::Instant;
///
/// let now = Instant::from_millis(0);
/// let mut server = Server::new(ServerConfig::new(), now);
/// let mut out = Vec::new();
///
/// // CONNECT of 3.1.1, SUBSCRIBE to "t", PINGREQ, and the first byte of another packet.
/// let received = b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01c\x82\x06\0\x07\0\x01t\x01\xC0\0\xE0";
/// let mut input = &received[..];
/// while let Some(action) = server.handle_input(&mut input, now, &mut out) {
///     match action {
///         Action::Connect(connect) => {
///             assert_eq!(connect.client_identifier, "c");
///             server.accept(&mut None, ConnackProperties::default(), now, &mut out)?;
///         }
///         Action::Subscribe(subscribe) => {
///             server.suback(subscribe.packet_identifier, &[ReasonCode::GRANTED_QOS_1], AckProperties::default(), now, &mut out)?;
///         }
///         _ => {}
///     }
/// }
/// assert_eq!(out, b"\x20\x02\0\0\x90\x03\0\x07\x01\xD0\0");
/// assert_eq!(input, b"\xE0");
/// assert_eq!(server.poll_timeout(), Some(Instant::from_millis(90_000)), "one and a half times the keep alive");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// - `None` means that more input is needed, or, if [`wants_input`](Self::wants_input) is false,
///   that the host owes an answer: it keeps the bytes and takes the next step when it has given it.
/// - Messages for the client are [delivered](Self::deliver) to a bounded queue, from which
///   [`flush`](Self::flush) and each step write as many as the client's Receive Maximum and the
///   room in `out` allow.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    endpoint: Endpoint,
    state: State,
    client: Client,
    last_received: Instant,
    /// Whether the client was let in.
    accepted: bool,
    /// Whether a re-authentication is under way.
    reauthenticates: bool,
    /// The kinds of subscriptions that the client was told it can have.
    available: Available,
    /// SUBSCRIBE and UNSUBSCRIBE packets that are not answered, with the number of their filters.
    requests: BTreeMap<PacketIdentifier, (PacketType, usize)>,
    /// How many bytes of input the last step left.
    left: usize,
}

/// What the CONNECT said, as far as it matters after it.
#[derive(Debug, Default)]
struct Client {
    /// Whether it has no identifier, and must be told of one.
    is_nameless: bool,
    clean_start: bool,
    keep_alive: u16,
    session_expiry_interval: u32,
    /// The most that it may ask for at the end: what CONNACK has said, or else the configuration.
    maximum_expiry: u32,
    /// Whether it asked for more than 0, so that it may ask for something else at the end. [5.0
    /// §3.14.2.2.2]
    may_expire_later: bool,
    no_problem_information: bool,
    wants_response_information: bool,
    authentication_method: Option<Box<str>>,
}

impl Server {
    /// A server's end of a connection that was opened just now.
    #[must_use]
    pub fn new(config: ServerConfig, now: Instant) -> Self {
        Self {
            endpoint: Endpoint::new(Role::Server, Session::new(), config.conduct),
            state: State::AwaitConnect { deadline: now + config.connect_timeout },
            client: Client::default(),
            last_received: now,
            accepted: false,
            reauthenticates: false,
            available: config.available,
            requests: BTreeMap::new(),
            left: 0,
            config,
        }
    }

    /// The version that the client asked for; before CONNECT it is 5.0.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.endpoint.connection.version
    }

    /// The session, as it stands.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.endpoint.session
    }

    /// Seconds that the session outlives the connection, as granted or as changed by DISCONNECT;
    /// 4,294,967,295 is for ever. [5.0 §3.1.2.11.2]
    #[must_use]
    pub const fn session_expiry_interval(&self) -> u32 {
        self.client.session_expiry_interval
    }

    /// Takes the session out, to be kept for the client's next connection. A connection that has
    /// not ended is lost.
    #[must_use]
    pub fn take_session(&mut self) -> Session {
        if self.state != State::Closed {
            self.close(CloseCause::ConnectionLost);
        }
        core::mem::take(&mut self.endpoint.session)
    }

    /// Whether the client has been accepted, and the connection has not ended.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.endpoint.is_open()
    }

    /// Whether the next packet can be taken. It is false while the host owes an answer, and when
    /// the connection has ended.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        matches!(
            self.state,
            State::AwaitConnect { .. } | State::AwaitAuth { .. } | State::Connected
        ) && self.requests.len() < self.config.maximum_requests
    }

    // ---- what the host answers ----

    /// Lets the client in: writes CONNACK, with the limits of the configuration, and what the
    /// session has to send again.
    ///
    /// `session` is what the server has kept for the client, if anything; it decides Session
    /// Present, and is taken unless there is an error. `properties` are what the host has to add,
    /// such as an Assigned Client Identifier, or to say in place of the configuration, which then
    /// is what holds for this client, but for its Will Message, which was held against the
    /// configuration; before 5.0 they cannot be sent. Reason string and user properties are left
    /// out should the client's Maximum Packet Size not allow them.
    pub fn accept(
        &mut self,
        session: &mut Option<Session>,
        properties: ConnackProperties<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), AnswerError> {
        let stated = self.write_accepting_connack(session.is_some(), properties, out)?;
        let (own, available) = (Limits::stated(&stated), Available::stated(&stated));
        let (session_expiry_interval, keep_alive) =
            (stated.session_expiry_interval, stated.server_keep_alive);
        let asked = self.client.session_expiry_interval;
        if self.version() == Version::V5_0 {
            self.endpoint.connection.own = own;
            self.available = available;
            self.client.session_expiry_interval = session_expiry_interval.unwrap_or(asked);
            self.client.maximum_expiry =
                session_expiry_interval.unwrap_or(self.client.maximum_expiry);
            self.client.keep_alive = keep_alive.unwrap_or(self.client.keep_alive);
        } else {
            self.client.session_expiry_interval = self.config.session_expiry_interval(asked);
        }
        self.endpoint.session = session.take().unwrap_or_default();
        self.accepted = true;
        self.state = State::Connected;
        self.last_received = now;
        self.endpoint.open(now, out);
        Ok(())
    }

    /// Whether [`accept`](Self::accept) would do it.
    pub(crate) fn check_accept(
        &self,
        resume: bool,
        properties: ConnackProperties<'_>,
    ) -> Result<(), AnswerError> {
        self.write_accepting_connack(resume, properties, &mut Vec::new()).map(|_| ())
    }

    /// Does not let the client in: writes CONNACK in the form that the client understands. The next
    /// step is [`Action::Closed`].
    ///
    /// Before 5.0 the nearest of the five return codes is sent, or nothing where none is near.
    /// [3.1.1 MQTT-3.2.2-6]
    pub fn refuse(
        &mut self,
        reason_code: ReasonCode,
        properties: ConnackProperties<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), AnswerError> {
        if self.state != State::Asked {
            return Err(AnswerError::NotAsked);
        }
        self.state = State::Closing;
        if !reason_code.is_error() {
            return Err(AnswerError::ReasonCode(reason_code));
        }
        self.write_refusal(reason_code, properties, out)
    }

    /// Sends a step of enhanced authentication. [5.0 §4.12]
    pub fn challenge(
        &mut self,
        auth: &Auth<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), AnswerError> {
        let success = auth.reason_code == ReasonCode::SUCCESS;
        let next = match self.state {
            // Success is for CONNACK to say. [5.0 MQTT-4.12.0-2]
            State::Asked if !success => {
                State::AwaitAuth { deadline: now + self.config.connect_timeout }
            }
            State::Reauthenticating => State::Connected,
            _ => return Err(AnswerError::NotAsked),
        };
        // [5.0 MQTT-4.12.0-5] [5.0 MQTT-4.12.0-6]
        if self.check_method(auth).is_err() {
            return Err(AnswerError::AuthenticationMethod);
        }
        // [5.0 MQTT-3.1.2-29] [5.0 MQTT-3.15.2-2] [5.0 MQTT-3.15.2-3]
        let packet = Packet::from(*auth);
        let said =
            if self.client.no_problem_information { packet.without_diagnostics() } else { packet };
        self.endpoint.write_shortened(said, out)?;
        self.reauthenticates =
            next == State::Connected && auth.reason_code == ReasonCode::CONTINUE_AUTHENTICATION;
        self.state = next;
        self.last_received = now;
        Ok(())
    }

    /// Answers a SUBSCRIBE, with a code for each topic filter in its order: the QoS granted, or an
    /// error.
    ///
    /// Errors that the version does not know become the one that 3.1.1 has; 3.1, which has none,
    /// says QoS 0 unless [`SUBACK_FAILURE`](crate::codec::Options::SUBACK_FAILURE) gives it that
    /// one.
    pub fn suback(
        &mut self,
        packet_identifier: PacketIdentifier,
        reason_codes: &[ReasonCode],
        properties: AckProperties<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), AnswerError> {
        self.answer(PacketType::Subscribe, packet_identifier, reason_codes, properties, now, out)
    }

    /// Answers an UNSUBSCRIBE, with a code for each topic filter in its order; before 5.0 they
    /// cannot be sent.
    pub fn unsuback(
        &mut self,
        packet_identifier: PacketIdentifier,
        reason_codes: &[ReasonCode],
        properties: AckProperties<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), AnswerError> {
        self.answer(PacketType::Unsubscribe, packet_identifier, reason_codes, properties, now, out)
    }

    /// Acknowledges a message by hand. In 5.0 an error says that it is not taken; before it every
    /// message is.
    ///
    /// Acknowledgements leave in the order in which the messages came, so this one may wait for
    /// those before it.
    pub fn acknowledge(
        &mut self,
        token: AckToken,
        reason_code: ReasonCode,
        out: &mut Vec<u8>,
    ) -> Result<(), AcknowledgeError> {
        self.endpoint.acknowledge(token, reason_code)?;
        // An answer that has no room ends the connection at the next step, which tries again.
        let _ = self.endpoint.send_acknowledgements(out);
        Ok(())
    }

    // ---- what the host sends ----

    /// Lets a message wait for the client. It is written by [`flush`](Self::flush) or the next
    /// step, and, with QoS 1 and 2, ends with an [`Action::Published`] under its key. Where there
    /// is no connection or no room it is given back.
    pub fn deliver(&mut self, outgoing: Outgoing, now: Instant) -> Result<(), Outgoing> {
        if self.endpoint.is_open() { self.endpoint.enqueue(outgoing, now) } else { Err(outgoing) }
    }

    /// Writes what waits, as far as the client's Receive Maximum goes and until `out` holds 64 KiB
    /// or more. Whether more could be written once `out` is empty. What has expired meanwhile, or
    /// is not allowed, is told of by the next step.
    pub fn flush(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        self.endpoint.flush(now, out);
        self.wants_flush()
    }

    /// Whether [`flush`](Self::flush) would write something, given room.
    #[must_use]
    pub fn wants_flush(&self) -> bool {
        self.endpoint.can_flush()
    }

    /// Ends the connection, with a DISCONNECT in 5.0 and without a word before. The next step is
    /// [`Action::Closed`].
    ///
    /// To send the client elsewhere, the reason code is
    /// [`USE_ANOTHER_SERVER`](ReasonCode::USE_ANOTHER_SERVER) or
    /// [`SERVER_MOVED`](ReasonCode::SERVER_MOVED), with a Server Reference.
    pub fn disconnect(
        &mut self,
        disconnect: &Disconnect<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), AnswerError> {
        if matches!(self.state, State::Closing | State::Closed) {
            return Err(AnswerError::NotAsked);
        }
        // [5.0 MQTT-3.14.0-1]
        let said = if self.endpoint.is_open() {
            // If there is no room for an answer the client will send the message again.
            let _ = self.endpoint.settle(out);
            self.write_disconnect(disconnect, out)
        } else {
            Ok(())
        };
        self.end();
        self.state = State::Closing;
        said
    }

    // ---- what comes from outside ----

    /// Takes the next step: consumes packets from `input` up to the first that has an action.
    #[inline]
    pub fn handle_input<'i>(
        &mut self,
        input: &mut &'i [u8],
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Option<Action<'i>> {
        let mut action = None;
        if input.is_empty() && self.endpoint.is_open() && self.endpoint.is_quiet() {
            self.left = 0;
        } else {
            self.advance(input, now, out, &mut action);
        }
        action
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, if at all. It changes with every other
    /// call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::AwaitConnect { deadline } | State::AwaitAuth { deadline } => Some(deadline),
            State::Connected => self.keep_alive_deadline(),
            State::Closing => Some(self.last_received),
            State::Asked | State::Reauthenticating | State::Closed => None,
        }
    }

    /// Gives up on a client that was silent for too long. Harmless when none was.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Action<'static>> {
        match self.state {
            State::AwaitConnect { deadline } | State::AwaitAuth { deadline } if now >= deadline => {
                Some(self.close(CloseCause::ConnectTimeout))
            }
            // [5.0 MQTT-3.1.2-22] [3.1.1 MQTT-3.1.2-24]
            State::Connected
                if self.keep_alive_deadline().is_some_and(|deadline| now >= deadline) =>
            {
                let _ =
                    self.write_disconnect(&Disconnect::new(ReasonCode::KEEP_ALIVE_TIMEOUT), out);
                Some(self.close(CloseCause::KeepAliveTimeout))
            }
            State::Closing => Some(self.close(CloseCause::Requested)),
            _ => None,
        }
    }

    /// The transport goes on, though the machine cannot see it: the host was not reading for a
    /// while. The client's time to send something starts anew.
    pub fn handle_progress(&mut self, now: Instant) {
        self.last_received = self.last_received.max(now);
    }

    /// The transport is closed or broken. Gives the last action, unless it was given before.
    pub fn connection_lost(&mut self) -> Option<Action<'static>> {
        match self.state {
            State::Closed => None,
            State::Closing => Some(self.close(CloseCause::Requested)),
            _ => Some(self.close(CloseCause::ConnectionLost)),
        }
    }

    // ---- inside ----

    fn keep_alive_deadline(&self) -> Option<Instant> {
        let milliseconds = u64::from(self.client.keep_alive) * 1_500;
        // While the host owes an answer it does not read, so it cannot hear.
        if milliseconds == 0 || !self.wants_input() {
            None
        } else {
            Some(self.last_received + core::time::Duration::from_millis(milliseconds))
        }
    }

    /// One step. The action is written where the caller has it, from wherever it is known: moving
    /// it costs as much as reading it.
    #[inline(never)]
    fn advance<'i>(
        &mut self,
        input: &mut &'i [u8],
        now: Instant,
        out: &mut Vec<u8>,
        action: &mut Option<Action<'i>>,
    ) {
        // Any byte is a sign of life, also one of a packet that is not complete.
        if input.len() > self.left {
            self.last_received = now;
        }
        if let Err(error) = self.step(input, now, out, action) {
            // Nothing after it is looked at.
            *action = Some(self.violation(error, out));
        }
        self.left = input.len();
    }

    fn step<'i>(
        &mut self,
        input: &mut &'i [u8],
        now: Instant,
        out: &mut Vec<u8>,
        action: &mut Option<Action<'i>>,
    ) -> Result<(), ProtocolError> {
        if self.state == State::Closing {
            *action = Some(self.close(CloseCause::Requested));
            return Ok(());
        }
        if self.endpoint.is_open() {
            self.endpoint.settle(out)?;
            self.endpoint.flush(now, out);
        }
        while action.is_none() {
            if let Some(published) = self.next_completed() {
                *action = Some(Action::Published(published));
                break;
            }
            if !self.wants_input() {
                break;
            }
            let first = matches!(self.state, State::AwaitConnect { .. });
            let own = &self.endpoint.connection.own;
            let maximum =
                if first { self.config.maximum_connect_size } else { own.maximum_packet_size };
            let before = *input;
            if first && before.first().is_some_and(|byte| !self.may_begin(*byte)) {
                // Whatever speaks here is not to be waited for.
                return Err(ProtocolError::NotConnect);
            }
            match Frame::take(input, maximum) {
                Ok(None) => break,
                Ok(Some(frame)) if self.state == State::Connected => {
                    self.on_frame(frame, now, out, action)?
                }
                Ok(Some(frame)) => {
                    *action =
                        if first { self.on_connect(frame, out)? } else { self.on_handshake(frame)? }
                }
                // The answer has the form of the version, which comes a little later.
                Err(DecodeError::PacketTooLarge { .. })
                    if first && before.len() < 16 && codec::connect_version(before).is_none() =>
                {
                    break;
                }
                Err(error) => {
                    if first {
                        self.refuse_unread(error, codec::connect_version(before), out);
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Whether the first packet may begin with that byte.
    fn may_begin(&self, byte: u8) -> bool {
        let loose = self.config.conduct.options.contains(Options::UNUSED_HEADER_FLAGS);
        byte & if loose { 0xF0 } else { 0xFF } == CONNECT
    }

    fn next_completed(&mut self) -> Option<Published<'static>> {
        if self.endpoint.is_open() { self.endpoint.next_completed() } else { None }
    }

    /// The first packet.
    fn on_connect<'i>(
        &mut self,
        frame: Frame<'i>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Action<'i>>, ProtocolError> {
        let connect = match codec::decode(
            frame,
            Rules::new(Version::V5_0).sent_by(Role::Client).with(self.config.conduct.options),
        ) {
            Ok(Packet::Connect(connect)) => connect,
            Ok(_) => return Err(ProtocolError::UnexpectedPacket(frame.packet_type())),
            Err(error) => {
                self.refuse_unread(error, codec::connect_version(frame.as_bytes()), out);
                return Err(error.into());
            }
        };
        let properties = &connect.properties;
        let mut peer = Limits::asked(properties);
        peer.receive_maximum = peer.receive_maximum.min(self.config.maximum_in_flight);
        self.endpoint.connection =
            Connection::new(connect.version, self.config.limits(connect.version), peer);
        self.client = Client {
            is_nameless: connect.client_identifier.is_empty(),
            clean_start: connect.clean_start,
            keep_alive: connect.keep_alive,
            session_expiry_interval: connect.session_expiry().to_seconds(),
            maximum_expiry: self.config.session_expiry_interval(u32::MAX),
            may_expire_later: connect.session_expiry().to_seconds() > 0,
            no_problem_information: properties.request_problem_information == Some(false),
            wants_response_information: properties.request_response_information == Some(true),
            authentication_method: properties
                .authentication_method
                .map(|method| method.to_str().into()),
        };
        self.state = State::Asked;
        if let Some(will) = connect.will {
            // [5.0 MQTT-3.2.2-12] [5.0 MQTT-3.2.2-13]
            let retain_not_supported = will.retain && !self.config.retain_available;
            if will.qos > self.config.maximum_qos || retain_not_supported {
                let error = if retain_not_supported {
                    ProtocolError::RetainNotSupported
                } else {
                    ProtocolError::QosNotSupported
                };
                let _ = self.write_refusal(error.reason_code(), ConnackProperties::default(), out);
                return Err(error);
            }
        }
        Ok(Some(Action::Connect(connect)))
    }

    /// A packet before CONNACK, after a challenge. [5.0 MQTT-3.1.2-30]
    fn on_handshake<'i>(&mut self, frame: Frame<'i>) -> Result<Option<Action<'i>>, ProtocolError> {
        match codec::decode(frame, self.endpoint.peer_rules())? {
            Packet::Auth(auth) if auth.reason_code == ReasonCode::CONTINUE_AUTHENTICATION => {
                self.check_method(&auth)?;
                self.state = State::Asked;
                Ok(Some(Action::Authenticate(auth)))
            }
            Packet::Disconnect(disconnect) => {
                Ok(Some(self.close(CloseCause::Disconnected(disconnect))))
            }
            packet => Err(ProtocolError::UnexpectedPacket(packet.packet_type())),
        }
    }

    fn on_frame<'i>(
        &mut self,
        frame: Frame<'i>,
        now: Instant,
        out: &mut Vec<u8>,
        action: &mut Option<Action<'i>>,
    ) -> Result<(), ProtocolError> {
        let rules = self.endpoint.peer_rules();
        *action = match frame.packet_type() {
            PacketType::Publish => {
                let is_requested = |identifier| self.requests.contains_key(&identifier);
                return self.endpoint.on_publish(frame, is_requested, out, action, Action::Message);
            }
            packet @ (PacketType::Puback
            | PacketType::Pubrec
            | PacketType::Pubrel
            | PacketType::Pubcomp) => {
                self.endpoint.on_ack(packet, frame.ack(rules)?, now, out)?.map(Action::Published)
            }
            // It would be decoded by its own version, and may not come at all. [5.0 MQTT-3.1.0-2]
            // [3.1.1 MQTT-3.1.0-2]
            PacketType::Connect => {
                return Err(ProtocolError::UnexpectedPacket(PacketType::Connect));
            }
            other => match codec::decode(frame, rules)? {
                Packet::Subscribe(subscribe) => {
                    self.check_available(&subscribe)?;
                    let filters = subscribe.subscriptions.iter().count();
                    let taken =
                        self.take_request(frame, subscribe.packet_identifier, filters, out)?;
                    taken.then_some(Action::Subscribe(subscribe))
                }
                Packet::Unsubscribe(unsubscribe) => {
                    let filters = unsubscribe.topic_filters.iter().count();
                    let taken =
                        self.take_request(frame, unsubscribe.packet_identifier, filters, out)?;
                    taken.then_some(Action::Unsubscribe(unsubscribe))
                }
                Packet::Pingreq => {
                    self.endpoint.answer(&Packet::Pingresp, out)?;
                    None
                }
                Packet::Disconnect(disconnect) => Some(self.on_disconnect(disconnect)?),
                Packet::Auth(auth) => {
                    self.check_method(&auth)?;
                    // The first of them begins it, and the others go on. [5.0 §4.12.1]
                    if self.reauthenticates == (auth.reason_code == ReasonCode::RE_AUTHENTICATE) {
                        return Err(ProtocolError::AuthenticationMethod);
                    }
                    self.state = State::Reauthenticating;
                    Some(Action::Authenticate(auth))
                }
                _ => return Err(ProtocolError::UnexpectedPacket(other)),
            },
        };
        Ok(())
    }

    fn on_disconnect<'i>(
        &mut self,
        disconnect: Disconnect<'i>,
    ) -> Result<Action<'i>, ProtocolError> {
        if let Some(expiry) = disconnect.properties.session_expiry_interval {
            // [5.0 §3.14.2.2.2]
            if !self.client.may_expire_later && expiry > 0 {
                return Err(ProtocolError::SessionExpiryInterval);
            }
            self.client.session_expiry_interval = expiry.min(self.client.maximum_expiry);
        }
        Ok(self.close(CloseCause::Disconnected(disconnect)))
    }

    /// [5.0 MQTT-4.12.0-5] [5.0 MQTT-4.12.0-7]
    fn check_method(&self, auth: &Auth<'_>) -> Result<(), ProtocolError> {
        let method = auth.properties.authentication_method;
        let asked = self.client.authentication_method.as_deref().map(Text::from);
        if method.is_some() && method == asked {
            Ok(())
        } else {
            Err(ProtocolError::AuthenticationMethod)
        }
    }

    /// [5.0 §3.2.2.3.11 to §3.2.2.3.13]
    fn check_available(&self, subscribe: &Subscribe<'_>) -> Result<(), ProtocolError> {
        if self.available == Available::ALL || self.version() < Version::V5_0 {
            return Ok(());
        }
        let check = |one| self.available.check(&one, &subscribe.properties, Version::V5_0);
        subscribe
            .subscriptions
            .iter()
            .try_for_each(check)
            .map_err(ProtocolError::SubscriptionNotSupported)
    }

    /// Notes a request; false if its identifier is in use, which is the answer. [5.0 §3.9.3] [5.0
    /// §3.11.3]
    fn take_request(
        &mut self,
        frame: Frame<'_>,
        packet_identifier: PacketIdentifier,
        filters: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, ProtocolError> {
        let packet = frame.packet_type();
        let open = self.requests.get(&packet_identifier);
        // Before 5.0 a client may go on with a session that it knows nothing of, and so with
        // identifiers that its messages had.
        let in_use = open.is_some()
            || self.version() == Version::V5_0 && self.endpoint.is_in_use(packet_identifier);
        if !in_use {
            self.requests.insert(packet_identifier, (packet, filters));
            return Ok(true);
        }
        if self.version() < Version::V5_0 {
            // 3.1 has requests sent again; the answer to the first will do for both.
            let again = frame.dup() && open == Some(&(packet, filters));
            return if again {
                Ok(false)
            } else {
                Err(ProtocolError::PacketIdentifierInUse(packet))
            };
        }
        let codes = alloc::vec![ReasonCode::PACKET_IDENTIFIER_IN_USE; filters];
        let answered =
            self.write_answer(packet, packet_identifier, &codes, AckProperties::default(), out);
        answered.map(|()| false).map_err(|_| ProtocolError::NoRoomForAnswer)
    }

    /// The client broke a rule: it is told, where the version can say so. [5.0 MQTT-4.13.1-1]
    /// [3.1.1 MQTT-4.8.0-1]
    fn violation<'i>(&mut self, error: ProtocolError, out: &mut Vec<u8>) -> Action<'i> {
        if self.endpoint.is_open() {
            let _ = self.write_disconnect(&Disconnect::new(error.reason_code()), out);
        } else if matches!(self.state, State::AwaitAuth { .. }) {
            let _ = self.write_refusal(error.reason_code(), ConnackProperties::default(), out);
        }
        self.close(CloseCause::Violation(error))
    }

    fn close<'i>(&mut self, cause: CloseCause<'i>) -> Action<'i> {
        self.end();
        self.state = State::Closed;
        // [5.0 MQTT-3.14.4-3] [3.1.1 MQTT-3.14.4-3]
        let normal = matches!(cause, CloseCause::Disconnected(disconnect) if disconnect.reason_code == ReasonCode::SUCCESS);
        Action::Closed { cause, publish_will: self.accepted && !normal }
    }

    /// The end of the connection for the session.
    fn end(&mut self) {
        if self.endpoint.is_open() {
            self.endpoint.close();
        }
        self.requests.clear();
    }
}

/// The first byte of a CONNECT: its packet type, and no flags. [5.0 §3.1.1] [3.1.1 §3.1.1]
const CONNECT: u8 = 0x10;
