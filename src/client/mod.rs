//! The client's end of a connection. It knows the client's rules, and no sockets, clocks or
//! threads.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not named in a match may not come in that state"
)]

mod config;

pub use config::ClientConfig;

use crate::codec::{
    self, Auth, AuthProperties, Connack, Connect, DecodeError, Disconnect, Encode, EncodeError,
    Frame, Packet, PacketIdentifier, PacketType, Publish, ReasonCode, Role, Rules, Suback,
    Subscribe, SubscribeProperties, Subscription, Text, Unsubscribe, UnsubscribeProperties,
    Version,
};
use crate::session::{
    AckToken, AcknowledgeError, Available, CloseCause, Connection, Endpoint, Limits, ProtocolError,
    PublishError, Published, Received, RequestError, Session,
};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

/// What only the host can do, or wants to know. At most one comes of each step.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Action<'a> {
    /// The server has accepted the connection, on these terms.
    Connected(Connack<'a>),
    /// The next step of enhanced authentication, to be answered with [`Client::authenticate`]
    /// unless its reason code is [`SUCCESS`](ReasonCode::SUCCESS), which ends a re-authentication.
    Authenticate(Auth<'a>),
    /// A message has arrived. It is acknowledged when the next step is taken, or by hand. Unless
    /// that is done by hand it is the host's from now on: should the connection end before that
    /// step, a QoS 2 message does not come again.
    Message(Received<'a>),
    /// A message with QoS 1 or 2 has come to its end.
    Published(Published<'a>),
    /// The answer to [`Client::subscribe`], under its key: a reason code for each filter.
    Subscribed(u64, Suback<'a>),
    /// The answer to [`Client::unsubscribe`], under its key; before 5.0 without reason codes.
    Unsubscribed(u64, Suback<'a>),
    /// The connection has ended: flush `out`, close the socket. Nothing comes after it until the
    /// next [`Client::connect`].
    Closed(CloseCause<'a>),
}

/// Why there was no CONNECT. Nothing was written.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The connection before it has not ended with [`Action::Closed`].
    #[error("there is a connection already")]
    InUse,
    /// The packet cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// The state of the connection.
///
/// ```text
///  Idle ──connect──► AwaitConnack ──CONNACK──► Connected
///   ▲                     │                       │
///   └──────Closed─────────┴───────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    AwaitConnack {
        deadline: Instant,
    },
    Connected,
    /// The host has ended it, and is yet to be told so.
    Closing,
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
/// # impl Socket { fn read(&mut self) -> &'static [u8] { self.0.remove(0) } fn write_all(&mut self, b: &[u8]) { self.1.extend(b) } }
/// # let mut socket = Socket(vec![b"\x20", b"\x03\0\0\0", b"\x40\x02\0\x01", b"\x30\x06\0\x01t\0hi"], vec![]);
/// # let now = Instant::from_millis(0);
/// let mut client = Client::new(ClientConfig::new());
/// let (mut received, mut out) = (Vec::new(), Vec::new());
/// client.connect(&Connect { clean_start: true, ..Connect::new(Version::V5_0, "sensor-4") }, now, &mut out)?;
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
/// # assert_eq!(socket.1, b"\x10\x15\0\x04MQTT\x05\x02\0\0\0\0\x08sensor-4\x32\x0A\0\x01t\0\x01\x0021.5");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// - Bytes of an incomplete packet stay with the host, which gives them again with those that
///   follow.
/// - An action borrows the input, not the client, so commands can be called while one is held.
/// - A command has written all that it can when it returns; what must wait, for CONNACK or for the
///   server's Receive Maximum, is written by a later step.
/// - Each call does work in proportion to the packet at hand, but for [`connect`](Self::connect)'s
///   answer, which resumes the whole session.
/// - To close the transport so that nothing is lost, the host writes `out`, shuts down its sending
///   side, and reads to the end for a moment. A failure to write is no reason to stop reading: the
///   server's last words may say why.
/// - The end of a connection is its last action. After it the session is kept for the next
///   [`connect`](Self::connect).
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    endpoint: Endpoint,
    state: State,
    requested: Requested,
    terms: Terms,
    clock: KeepAlive,
    /// Whether a re-authentication is under way.
    reauthenticates: bool,
    /// Whether the server waits for the host's next step of authentication.
    challenged: bool,
    /// How many bytes of input the last step left.
    left: usize,
}

/// What the last CONNECT said, as far as it matters after it.
#[derive(Debug, Default)]
struct Requested {
    version: Option<Version>,
    /// Whether the client has the session that it asks for.
    has_session: bool,
    clean_start: bool,
    keep_alive: u16,
    session_expiry_interval: u32,
    no_problem_information: bool,
    authentication_method: Option<Box<[u8]>>,
}

/// What CONNACK has said.
#[derive(Clone, Copy, Debug)]
struct Terms {
    available: Available,
    session_expiry_interval: u32,
}

/// When something was last heard and said. [5.0 §3.1.2.10] [3.1.1 §3.1.2.10]
#[derive(Clone, Copy, Debug, Default)]
struct KeepAlive {
    /// Seconds; 0 turns it off.
    interval: u16,
    last_sent: Instant,
    last_received: Instant,
    /// The first PINGREQ that is not answered.
    ping_sent: Option<Instant>,
    /// When the host last said that the transport goes on.
    progress: Instant,
}

impl Client {
    /// A client with a new session.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self::with_session(config, Session::new())
    }

    /// A client that goes on with a session.
    #[must_use]
    pub fn with_session(config: ClientConfig, session: Session) -> Self {
        let endpoint = Endpoint::new(Role::Client, session, config.conduct);
        let terms = Terms { available: Available::ALL, session_expiry_interval: 0 };
        let (requested, clock) = (Requested::default(), KeepAlive::default());
        Self {
            config,
            endpoint,
            state: State::Idle,
            requested,
            terms,
            clock,
            reauthenticates: false,
            challenged: false,
            left: 0,
        }
    }

    /// The session, as it stands.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.endpoint.session
    }

    /// The end of a message that is known while the server has not accepted, as of one that has
    /// expired. After it they are actions.
    #[must_use]
    pub fn next_completed(&mut self) -> Option<Published<'static>> {
        if self.is_connected() { None } else { self.endpoint.next_completed() }
    }

    /// The session, for another client to go on with. A connection that has not ended is lost.
    #[must_use]
    pub fn into_session(mut self) -> Session {
        self.end();
        self.endpoint.session
    }

    /// Whether the server has accepted the connection, and it has not ended.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Whether the next packet can be taken. It is false when the connection has ended.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        matches!(self.state, State::AwaitConnack { .. } | State::Connected)
    }

    // ---- what the application asks for ----

    /// Begins a connection, the transport of which is open: writes CONNECT.
    ///
    /// Input that is left over from the connection before is not for this one: the host drops it.
    ///
    /// With Clean Start, and where the server cannot have the session any more, what was in flight
    /// ends at once as [`SessionLost`](crate::session::Outcome::SessionLost). Should the packet
    /// then not reach the server, which so still has the session, messages of that session may come
    /// a second time.
    ///
    /// All that a client can ask of a server stands in the packet; the limits in its properties are
    /// enforced. Messages that wait, and those of the session that were not acknowledged, are sent
    /// once the server has accepted.
    pub fn connect(
        &mut self,
        connect: &Connect<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), ConnectError> {
        if self.state != State::Idle {
            return Err(ConnectError::InUse);
        }
        let rules =
            Rules::new(connect.version).sent_by(Role::Client).with(self.config.conduct.options);
        Packet::from(*connect).encode(rules, out)?;
        let has_session = self.endpoint.is_established() && !connect.clean_start;
        if !has_session {
            // Whatever becomes of this CONNECT, the old session is over. [5.0 MQTT-3.1.2-4] [3.1.1
            // MQTT-3.1.2-6]
            self.endpoint.session_lost();
        }
        // The server may have the session from now on, even if its CONNACK is never seen.
        self.endpoint.set_established(true);
        let properties = &connect.properties;
        let mut own = Limits::asked(properties);
        own.maximum_packet_size = own.maximum_packet_size.min(self.config.maximum_packet_size);
        self.endpoint.connection = Connection::new(connect.version, own, Limits::default());
        self.requested = Requested {
            version: Some(connect.version),
            has_session,
            clean_start: connect.clean_start,
            keep_alive: connect.keep_alive,
            session_expiry_interval: connect.session_expiry().to_seconds(),
            no_problem_information: properties.request_problem_information == Some(false),
            authentication_method: properties
                .authentication_method
                .map(|method| method.as_bytes().into()),
        };
        self.clock = KeepAlive {
            interval: 0,
            last_sent: now,
            last_received: now,
            ping_sent: None,
            progress: now,
        };
        self.state = State::AwaitConnack { deadline: now + self.config.connect_timeout };
        (self.reauthenticates, self.challenged, self.left) = (false, false, 0);
        Ok(())
    }

    /// Sends a message, or lets it wait while it cannot be sent.
    ///
    /// With QoS 1 and 2 it ends with an [`Action::Published`] under `key`; with QoS 0 nothing more
    /// is heard of it, and nothing holds it back while there is a connection: a host that publishes
    /// much looks at the size of `out`. A topic alias may be set by the rules of the standard; a
    /// message that waits, or is sent again, goes with its full topic name.
    ///
    /// A message may be given at any time after the first [`connect`](Self::connect), also while
    /// there is no connection. Should the next one be of an older version, it goes without what
    /// that version cannot say.
    pub fn publish(
        &mut self,
        key: u64,
        publish: &Publish<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), PublishError> {
        if self.requested.version.is_none() {
            return Err(PublishError::NotConnected);
        }
        self.sending(now, out, |client, out| client.endpoint.publish(key, publish, now, out))
    }

    /// Asks for messages. Ends with an [`Action::Subscribed`] under `key`.
    pub fn subscribe(
        &mut self,
        key: u64,
        subscriptions: &[Subscription<'_>],
        properties: SubscribeProperties<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), RequestError> {
        let version = self.endpoint.connection.version;
        for subscription in subscriptions {
            match self.terms.available.check(subscription, &properties, version) {
                // Which of the rules it breaks is found when it is encoded.
                Ok(()) | Err(ReasonCode::TOPIC_FILTER_INVALID) => {}
                Err(reason_code) => return Err(RequestError::NotSupported(reason_code)),
            }
        }
        self.request(key, subscriptions.len(), false, now, out, |packet_identifier| {
            Subscribe { packet_identifier, properties, subscriptions: subscriptions.into() }.into()
        })
    }

    /// Asks for no more messages. Ends with an [`Action::Unsubscribed`] under `key`.
    pub fn unsubscribe(
        &mut self,
        key: u64,
        topic_filters: &[Text<'_>],
        properties: UnsubscribeProperties<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), RequestError> {
        self.request(key, topic_filters.len(), true, now, out, |packet_identifier| {
            Unsubscribe { packet_identifier, properties, topic_filters: topic_filters.into() }
                .into()
        })
    }

    /// Acknowledges a message by hand. In 5.0 an error says that it is not taken; before it every
    /// message is.
    ///
    /// Acknowledgements leave in the order in which the messages came, so this one may wait for
    /// those before it. [5.0 MQTT-4.6.0-2] [3.1.1 MQTT-4.6.0-2]
    pub fn acknowledge(
        &mut self,
        token: AckToken,
        reason_code: ReasonCode,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), AcknowledgeError> {
        self.endpoint.acknowledge(token, reason_code)?;
        // An answer that has no room ends the connection at the next step, which tries again.
        let _ = self.sending(now, out, |client, out| client.endpoint.send_acknowledgements(out));
        Ok(())
    }

    /// Sends a step of enhanced authentication: an answer, or the begin of a re-authentication. The
    /// method is that of CONNECT.
    pub fn authenticate(
        &mut self,
        auth: &Auth<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), RequestError> {
        if !self.wants_input() {
            return Err(RequestError::NotConnected);
        }
        // [5.0 MQTT-4.12.0-3] [5.0 MQTT-4.12.0-5] [5.0 MQTT-4.12.0-7] [5.0 MQTT-4.12.1-1]
        let method = auth.properties.authentication_method;
        let begins = auth.reason_code == ReasonCode::RE_AUTHENTICATE;
        let right =
            if begins { self.is_connected() && !self.reauthenticates } else { self.challenged };
        if !right || method.is_none() || !self.has_asked_for(method) {
            return Err(RequestError::Authentication);
        }
        self.sending(now, out, |client, out| client.endpoint.write_shortened((*auth).into(), out))?;
        self.challenged = false;
        match &mut self.state {
            State::AwaitConnack { deadline } => *deadline = now + self.config.connect_timeout,
            _ => self.reauthenticates = true,
        }
        Ok(())
    }

    /// Ends the connection with a DISCONNECT; the next step is [`Action::Closed`]. What was
    /// delivered is acknowledged before it, unless that is done by hand, and nothing is written
    /// after it: a message that is published now waits for the next connection.
    pub fn disconnect(
        &mut self,
        disconnect: &Disconnect<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), RequestError> {
        if !self.wants_input() {
            return Err(RequestError::NotConnected);
        }
        let expiry = disconnect.properties.session_expiry_interval;
        if expiry.is_some_and(|expiry| expiry > 0) && self.requested.session_expiry_interval == 0 {
            return Err(EncodeError::from(DecodeError::InvalidPropertyValue(0x11)).into());
        }
        if self.endpoint.is_open() {
            // If there is no room for an answer the peer will send the message again.
            let _ = self.sending(now, out, |client, out| client.endpoint.settle(out));
        }
        self.sending(now, out, |client, out| {
            client.endpoint.write_shortened((*disconnect).into(), out)
        })?;
        self.terms.session_expiry_interval = expiry.unwrap_or(self.terms.session_expiry_interval);
        self.end();
        self.state = State::Closing;
        Ok(())
    }

    // ---- what comes from outside ----

    /// Takes the next step: consumes packets from `input` up to the first that has an action.
    ///
    /// `None` means that more input is needed, or that there is no connection.
    #[inline]
    pub fn handle_input<'i>(
        &mut self,
        input: &mut &'i [u8],
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Option<Action<'i>> {
        let mut action = None;
        if input.is_empty() && self.is_connected() && self.endpoint.is_quiet() {
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
            State::Idle => None,
            // While the host has to answer, the server has not.
            State::AwaitConnack { deadline } => Some(deadline).filter(|_| !self.challenged),
            State::Connected => {
                let response = self.ping_deadline();
                let ping = self.ping_due();
                response.into_iter().chain(ping).min()
            }
            State::Closing => Some(self.clock.last_sent),
        }
    }

    /// Does what is due: sends PINGREQ, or gives up on the server. Harmless when nothing is.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Action<'static>> {
        match self.state {
            State::AwaitConnack { deadline } if now >= deadline && !self.challenged => {
                Some(self.close(CloseCause::ConnectTimeout))
            }
            State::Closing => Some(self.close(CloseCause::Requested)),
            State::Connected if self.ping_deadline().is_some_and(|deadline| now >= deadline) => {
                Some(self.close(CloseCause::KeepAliveTimeout))
            }
            State::Connected if self.ping_due().is_some_and(|due| now >= due) => {
                self.clock.ping_sent.get_or_insert(now);
                // A server that takes not even two bytes will hear nothing, and close.
                let _ = self.endpoint.write(&Packet::Pingreq, out);
                self.clock.last_sent = now;
                None
            }
            State::Idle | State::AwaitConnack { .. } | State::Connected => None,
        }
    }

    /// The transport goes on, though the machine cannot see it: some of a long output has left, or
    /// the host is not reading for a while.
    ///
    /// The time that the server has to answer a PINGREQ, which may stand at the end of that output,
    /// or whose answer is not read, starts anew. Hosts that write and read without such delays need
    /// not call it.
    pub fn handle_progress(&mut self, now: Instant) {
        self.clock.progress = self.clock.progress.max(now);
    }

    /// The transport is closed or broken. Gives the last action, unless it was given before.
    pub fn connection_lost(&mut self) -> Option<Action<'static>> {
        match self.state {
            State::Idle => None,
            State::Closing => Some(self.close(CloseCause::Requested)),
            State::AwaitConnack { .. } | State::Connected => {
                Some(self.close(CloseCause::ConnectionLost))
            }
        }
    }

    // ---- inside ----

    /// Notes that something is sent, if it is.
    fn sending<T>(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        call: impl FnOnce(&mut Self, &mut Vec<u8>) -> T,
    ) -> T {
        let before = out.len();
        let result = call(self, out);
        if out.len() > before {
            self.clock.last_sent = now;
        }
        result
    }

    fn ping_due(&self) -> Option<Instant> {
        let interval = self.clock.interval;
        if interval == 0 { None } else { Some(self.clock.last_sent.plus_seconds(interval.into())) }
    }

    fn ping_deadline(&self) -> Option<Instant> {
        let KeepAlive { interval, last_received, ping_sent, progress, .. } = self.clock;
        let keep_alive = Duration::from_secs(interval.into());
        let timeout = self.config.ping_timeout.unwrap_or(keep_alive);
        ping_sent.map(|sent| sent.max(last_received).max(progress) + timeout)
    }

    fn request<'p>(
        &mut self,
        key: u64,
        filters: usize,
        unsubscribe: bool,
        now: Instant,
        out: &mut Vec<u8>,
        packet: impl FnOnce(PacketIdentifier) -> Packet<'p>,
    ) -> Result<(), RequestError> {
        if !self.is_connected() {
            return Err(RequestError::NotConnected);
        }
        let identifier = self.endpoint.next_identifier().ok_or(RequestError::NoPacketIdentifier)?;
        let packet = packet(identifier);
        self.sending(now, out, |client, out| client.endpoint.write(&packet, out))?;
        self.endpoint.insert_subscribe(key, filters, unsubscribe);
        Ok(())
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
            self.clock.last_received = now;
        }
        let stepped = self.sending(now, out, |client, out| client.step(input, now, out, action));
        if let Err(error) = stepped {
            // Nothing after it is looked at.
            *action = Some(self.sending(now, out, |client, out| client.violation(error, out)));
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
        while action.is_none() && self.wants_input() {
            if let Some(published) = self.endpoint.next_completed() {
                *action = Some(Action::Published(published));
                break;
            }
            let connected = self.state == State::Connected;
            if !connected && !matches!(input, [] | [CONNACK | AUTH, ..]) {
                // Whatever speaks here is not to be waited for.
                return Err(ProtocolError::NotConnack);
            }
            let maximum = self.endpoint.connection.own.maximum_packet_size;
            let Some(frame) =
                Frame::take(input, if connected { maximum } else { maximum.min(HANDSHAKE_SIZE) })?
            else {
                break;
            };
            if connected {
                self.on_frame(frame, now, out, action)?;
            } else {
                *action = self.on_handshake(frame, now, out)?;
            }
        }
        Ok(())
    }

    /// A packet before the server has accepted. [5.0 §3.1.4] [5.0 §4.12]
    fn on_handshake<'i>(
        &mut self,
        frame: Frame<'i>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<Option<Action<'i>>, ProtocolError> {
        let rules = self.endpoint.peer_rules();
        match frame.packet_type() {
            PacketType::Connack => {
                let connack = connack(frame, rules)?;
                if connack.reason_code != ReasonCode::SUCCESS {
                    // Nothing has begun, so what the server may have is what it had before.
                    self.endpoint.set_established(self.requested.has_session);
                    return Ok(Some(self.close(CloseCause::Refused(connack))));
                }
                self.accepted(&connack, now, out)?;
                Ok(Some(Action::Connected(connack)))
            }
            // [5.0 MQTT-4.12.0-6]
            PacketType::Auth if self.requested.authentication_method.is_some() => {
                self.on_auth(frame, rules)
            }
            other => Err(ProtocolError::UnexpectedPacket(other)),
        }
    }

    fn accepted(
        &mut self,
        connack: &Connack<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let properties = &connack.properties;
        let version = self.endpoint.connection.version;
        if connack.session_present {
            // [5.0 MQTT-3.2.2-2] [5.0 MQTT-3.2.2-4]; before 5.0 a client may go on with a session
            // that it has nothing of, but not with one that it has asked to be ended.
            if !self.requested.has_session
                && (version == Version::V5_0 || self.requested.clean_start)
            {
                self.endpoint.set_established(false);
                return Err(ProtocolError::UnknownSession);
            }
        } else if version > Version::V3_1 {
            // A 3.1 server cannot say whether it has the session.
            self.endpoint.session_lost();
        }
        // [5.0 MQTT-4.12.0-5] [5.0 MQTT-4.12.0-6]
        if !self.has_asked_for(properties.authentication_method) {
            return Err(ProtocolError::AuthenticationMethod);
        }
        let usual = if version == Version::V5_0 { u16::MAX } else { IN_FLIGHT_BEFORE_5_0 };
        let mut peer = Limits::stated(properties);
        peer.receive_maximum =
            peer.receive_maximum.min(self.config.maximum_in_flight.unwrap_or(usual));
        self.endpoint.connection.peer = peer;
        self.terms = Terms {
            available: Available::stated(properties),
            session_expiry_interval: properties
                .session_expiry_interval
                .unwrap_or(self.requested.session_expiry_interval),
        };
        // [5.0 MQTT-3.1.2-21]
        self.clock.interval = properties.server_keep_alive.unwrap_or(self.requested.keep_alive);
        self.state = State::Connected;
        self.challenged = false;
        self.endpoint.open(now, out);
        Ok(())
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
                return self.endpoint.on_publish(frame, |_| false, out, action, Action::Message);
            }
            packet @ (PacketType::Puback
            | PacketType::Pubrec
            | PacketType::Pubrel
            | PacketType::Pubcomp) => {
                let ack = frame.ack(rules)?;
                self.check_problem_information(|| ack.properties.is_empty())?;
                self.endpoint.on_ack(packet, ack, now, out)?.map(Action::Published)
            }
            PacketType::Auth if rules.version == Version::V5_0 => self.on_auth(frame, rules)?,
            other => match codec::decode(frame, rules)? {
                Packet::Suback(suback) => {
                    Some(Action::Subscribed(self.on_suback(other, &suback)?, suback))
                }
                Packet::Unsuback(unsuback) => {
                    Some(Action::Unsubscribed(self.on_suback(other, &unsuback)?, unsuback))
                }
                Packet::Pingresp => {
                    self.clock.ping_sent = None;
                    None
                }
                Packet::Disconnect(disconnect) => {
                    Some(self.close(CloseCause::Disconnected(disconnect)))
                }
                _ => return Err(ProtocolError::UnexpectedPacket(other)),
            },
        };
        Ok(())
    }

    fn on_suback(&mut self, packet: PacketType, suback: &Suback<'_>) -> Result<u64, ProtocolError> {
        self.check_problem_information(|| suback.properties.is_empty())?;
        self.endpoint.on_suback(packet, suback)
    }

    /// A packet other than PUBLISH, CONNACK and DISCONNECT has no reason string and no user
    /// properties where they were not asked for. [5.0 §3.1.2.11.7]
    fn check_problem_information(
        &self,
        is_empty: impl FnOnce() -> bool,
    ) -> Result<(), ProtocolError> {
        if self.requested.no_problem_information && !is_empty() {
            Err(ProtocolError::ProblemInformation)
        } else {
            Ok(())
        }
    }

    fn on_auth<'i>(
        &mut self,
        frame: Frame<'i>,
        rules: Rules,
    ) -> Result<Option<Action<'i>>, ProtocolError> {
        match codec::decode(frame, rules)? {
            // [5.0 MQTT-4.12.0-5] [5.0 MQTT-4.12.0-6]
            Packet::Auth(auth)
                if self.requested.authentication_method.is_some()
                    && self.has_asked_for(auth.properties.authentication_method)
                    && self.expects(auth.reason_code) =>
            {
                let AuthProperties { reason_string, user_properties, .. } = auth.properties;
                self.check_problem_information(|| {
                    reason_string.is_none() && user_properties.is_empty()
                })?;
                self.challenged = auth.reason_code != ReasonCode::SUCCESS;
                self.reauthenticates &= self.challenged;
                Ok(Some(Action::Authenticate(auth)))
            }
            _ => Err(ProtocolError::AuthenticationMethod),
        }
    }

    /// Whether it is the method of CONNECT, which may have had none.
    fn has_asked_for(&self, authentication_method: Option<Text<'_>>) -> bool {
        authentication_method.map(Text::as_bytes) == self.requested.authentication_method.as_deref()
    }

    /// Before CONNACK the server asks for more, and CONNACK says that it is done; after it, only
    /// what the client has begun goes on. [5.0 MQTT-4.12.0-2] [5.0 §4.12.1]
    fn expects(&self, reason_code: ReasonCode) -> bool {
        if self.is_connected() {
            self.reauthenticates
        } else {
            reason_code == ReasonCode::CONTINUE_AUTHENTICATION
        }
    }

    /// The server broke a rule: it is told, where the version can say so. [5.0 §4.13.1]
    fn violation<'i>(&mut self, error: ProtocolError, out: &mut Vec<u8>) -> Action<'i> {
        if self.state == State::Connected && self.endpoint.connection.version == Version::V5_0 {
            // A code that only a server may send is no use to it.
            let _ = self.endpoint.write(&Packet::from(Disconnect::new(error.reason_code())), out);
        }
        self.close(CloseCause::Violation(error))
    }

    fn close<'i>(&mut self, cause: CloseCause<'i>) -> Action<'i> {
        self.end();
        self.state = State::Idle;
        Action::Closed(cause)
    }

    /// The end of the connection for the session.
    fn end(&mut self) {
        if self.endpoint.is_open() {
            self.endpoint.close();
            // [5.0 MQTT-3.1.2-23]
            self.endpoint.set_established(self.terms.session_expiry_interval > 0);
        }
    }
}

/// The first bytes of the packets that a server may send before it has accepted.
const CONNACK: u8 = 0x20;
const AUTH: u8 = 0xF0;

/// The largest of them that is waited for: 1 MiB.
const HANDSHAKE_SIZE: u32 = 1 << 20;

/// See [`ClientConfig::maximum_in_flight`].
const IN_FLIGHT_BEFORE_5_0: u16 = 20;

/// A server that does not know the version refuses in the form of another one. [5.0 §3.1.2.2]
/// [3.1.1 MQTT-3.1.2-2]
fn connack<'a>(frame: Frame<'a>, rules: Rules) -> Result<Connack<'a>, ProtocolError> {
    let decode = |version| match codec::decode(frame, Rules { version, ..rules }) {
        Ok(Packet::Connack(connack)) => Ok(connack),
        Ok(_) => Err(ProtocolError::UnexpectedPacket(frame.packet_type())),
        Err(error) => Err(error.into()),
    };
    let other = if rules.version == Version::V5_0 { Version::V3_1_1 } else { Version::V5_0 };
    decode(rules.version).or_else(|error| match decode(other) {
        Ok(connack) if connack.reason_code != ReasonCode::SUCCESS => Ok(connack),
        _ => Err(error),
    })
}
