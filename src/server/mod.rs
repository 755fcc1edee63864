//! The server's end of a connection. It knows the server's rules for one client, and no sockets,
//! clocks, threads or other clients.

mod action;
mod config;
mod reply;
mod step;

pub use action::{Action, RequestToken};
pub use config::ServerConfig;
pub use reply::{AcceptError, AnswerError};

use crate::codec::{
    AckProperties, Auth, ConnackProperties, Disconnect, Expiry, Output, Packet, QoS, ReasonCode,
    Role, Version,
};
use crate::session::{
    AckToken, AcknowledgeError, Acknowledgement, Available, Change, Ending, Endpoint, Key, Limits,
    Machine, Message, Outgoing, Prepared, Published, Reauthentication, Request, Requested, Session,
    advance,
};
use crate::sync::Arc;
use crate::time::Instant;
use alloc::vec::Vec;

/// The state of the connection.
///
/// ```text
///  AwaitConnect ──CONNECT──► Asked ──accept──► Connected ──AUTH──► Connected, AwaitHost
///                            ▲   │                 ▲                    │
///                            │   challenge         └─────challenge──────┘
///                          AUTH  ▼
///                            AwaitAuth              any ──► Closing ──► Closed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitConnect {
        deadline: Instant,
    },
    /// CONNECT or AUTH waits for the host's answer.
    Asked {
        deadline: Instant,
    },
    AwaitAuth {
        deadline: Instant,
    },
    Connected(Reauthentication),
    /// The connection has ended, and the host has not received [`Action::Closed`].
    Closing(Ending),
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
/// // A 3.1.1 CONNECT, SUBSCRIBE to "t", PINGREQ, and the first byte of another packet.
/// let received = b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01c\x82\x06\0\x07\0\x01t\x01\xC0\0\xE0";
/// let mut input = &received[..];
/// while let Some(action) = server.handle_input(&mut input, now, &mut out) {
///     match action {
///         Action::Connect(connect) => {
///             assert_eq!(connect.client_identifier, "c");
///             server.accept(None, ConnackProperties::default(), now, &mut out)?;
///         }
///         Action::Subscribe(token, _) => {
///             let granted = [ReasonCode::GRANTED_QOS_1];
///             server.suback(token, &granted, AckProperties::default(), now, &mut out)?;
///         }
///         _ => {}
///     }
/// }
/// assert_eq!(out, b"\x20\x02\0\0\x90\x03\0\x07\x01\xD0\0");
/// assert_eq!(input, b"\xE0");
/// // The client must send something within 1.5 × Keep Alive.
/// assert_eq!(server.poll_timeout(), Some(Instant::from_millis(90_000)));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// - `None` means that more input is needed, or that `out` has too little room. If
///   [`wants_input`](Self::wants_input) is false, the host owes an answer or the connection has
///   ended. A host that owes an answer keeps the bytes, and takes the next step after it answers.
/// - Messages for the client are [delivered](Self::deliver) to a bounded queue.
///   [`flush`](Self::flush) and each step write as many of them as the client's Receive Maximum
///   and the room in `out` allow.
/// - An output with limited room ([`Fixed`](crate::codec::Fixed)) is never overrun, as with a
///   [`Client`](crate::client::Client).
#[derive(Debug)]
pub struct Server {
    /// Shared by the connections of a broker.
    config: Arc<ServerConfig>,
    endpoint: Endpoint,
    state: State,
    requested: Requested,
    /// Whether the client was accepted, so that its Will Message can be due.
    was_accepted: bool,
    expiry: SessionExpiry,
    /// The kinds of subscriptions that CONNACK has offered.
    available: Available,
}

/// How long the session outlives the connection. The numbers are those of packets, because an
/// [`Expiry`] takes twice the room.
#[derive(Clone, Copy, Debug)]
struct SessionExpiry {
    granted: u32,
    /// The greatest value for DISCONNECT: that of CONNACK, or else of the configuration.
    maximum: u32,
}

impl SessionExpiry {
    const fn new(maximum: Expiry) -> Self {
        Self { granted: Expiry::AT_DISCONNECT.to_seconds(), maximum: maximum.to_seconds() }
    }

    const fn granted(self) -> Expiry {
        Expiry::from_seconds(self.granted)
    }

    const fn maximum(self) -> Expiry {
        Expiry::from_seconds(self.maximum)
    }

    const fn set_granted(&mut self, granted: Expiry) {
        self.granted = granted.to_seconds();
    }

    const fn set_maximum(&mut self, maximum: Expiry) {
        self.maximum = maximum.to_seconds();
    }
}

impl Server {
    /// Creates the server's end of a connection whose transport was opened now. The servers of many
    /// connections can share a configuration.
    #[must_use]
    pub fn new(config: impl Into<Arc<ServerConfig>>, now: Instant) -> Self {
        let config = config.into();
        Self {
            endpoint: Endpoint::new(Role::Server, Session::new(), config.common, now),
            state: State::AwaitConnect { deadline: now + config.connect_timeout },
            requested: Requested::NONE,
            was_accepted: false,
            expiry: SessionExpiry::new(config.maximum_session_expiry),
            available: config.available,
            config,
        }
    }

    /// Returns the configuration, which other connections can share.
    pub(crate) fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// Returns the version that the client asked for. Before CONNECT it is 5.0.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.endpoint.connection.version
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

    /// Returns how long the session outlives the connection, as granted or as changed by
    /// DISCONNECT. [5.0 §3.1.2.11.2]
    #[must_use]
    pub const fn session_expiry(&self) -> Expiry {
        self.expiry.granted()
    }

    /// Takes the session out, for the client's next connection. If the connection is still open,
    /// this ends it without sending a packet, and the next step is [`Action::Closed`].
    #[must_use = "the session holds the client's undelivered messages"]
    pub fn take_session(&mut self) -> Session {
        if !matches!(self.state, State::Closing(_) | State::Closed) {
            self.end(Ending::ConnectionLost);
        }
        core::mem::take(&mut self.endpoint.session)
    }

    /// Whether the client was accepted, and the connection has not ended.
    #[must_use]
    #[inline]
    pub const fn is_connected(&self) -> bool {
        self.endpoint.is_open()
    }

    /// Whether the next packet can be read. It is false while the host owes an answer, and after
    /// the connection has ended.
    #[must_use]
    #[inline]
    pub fn wants_input(&self) -> bool {
        match self.state {
            State::AwaitConnect { .. } | State::AwaitAuth { .. } => true,
            State::Connected(Reauthentication::AwaitHost { .. })
            | State::Asked { .. }
            | State::Closing(_)
            | State::Closed => false,
            State::Connected(_) => {
                self.endpoint.connection.requests.len() < self.config.maximum_requests
            }
        }
    }

    // ---- answers to the client ----

    /// Accepts the client: writes CONNACK with the limits of the configuration, and resends what
    /// the session must resend.
    ///
    /// `session` is the session that the host has kept for the client, if there is one. Session
    /// Present in CONNACK says whether there is. The error returns it.
    ///
    /// `properties` add to or override what the configuration states, for this client only; an
    /// Assigned Client Identifier belongs here. The Will Message has already been checked against
    /// the configuration. Before 5.0 properties cannot be sent. A reason string and user properties
    /// are left out if the client's Maximum Packet Size requires it.
    #[expect(
        clippy::result_large_err,
        reason = "the session is given back, not copied to the heap"
    )]
    pub fn accept(
        &mut self,
        session: Option<Session>,
        properties: ConnackProperties<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), AcceptError> {
        let mut step = self.endpoint.step(now, out);
        let stated = match self.write_accepting_connack(session.is_some(), properties, step.out) {
            Ok(stated) => stated,
            Err(error) => return Err(AcceptError { error, session }),
        };
        let (own, available) = (Limits::of_connack(&stated), Available::of_connack(&stated));
        let expiry = stated.session_expiry_interval.map(Expiry::from_seconds);
        let keep_alive = stated.server_keep_alive;
        let asked = self.requested.session_expiry;
        if self.version() == Version::V5_0 {
            self.expiry.set_granted(expiry.unwrap_or(asked));
            self.expiry.set_maximum(expiry.unwrap_or_else(|| self.expiry.maximum()));
            self.requested.keep_alive = keep_alive.unwrap_or(self.requested.keep_alive);
            self.available = available;
            self.endpoint.connection.own = own;
        } else {
            self.expiry.set_granted(asked.min(self.config.maximum_session_expiry));
        }
        if let Some(session) = session {
            self.endpoint.session = session;
            self.endpoint.session.end_use();
        }
        self.state = State::Connected(Reauthentication::None);
        self.was_accepted = true;
        self.endpoint.touch(step.now);
        self.endpoint.open(&mut step);
        self.endpoint.finish(&step);
        Ok(())
    }

    /// Checks that [`accept`](Self::accept) would succeed.
    pub(crate) fn check_accept(
        &self,
        resume: bool,
        properties: ConnackProperties<'_>,
    ) -> Result<(), AnswerError> {
        self.write_accepting_connack(resume, properties, &mut Vec::new()).map(|_| ())
    }

    /// Refuses the client: writes CONNACK in the format of the client's version. The next step is
    /// [`Action::Closed`].
    ///
    /// Before 5.0 the machine sends the closest of the five return codes, or no packet if none
    /// fits. [3.1.1 MQTT-3.2.2-6]
    pub fn refuse(
        &mut self,
        reason_code: ReasonCode,
        properties: ConnackProperties<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), AnswerError> {
        if !matches!(self.state, State::Asked { .. }) {
            return Err(AnswerError::NotAsked);
        }
        self.endpoint.advance_to(now);
        self.end(Ending::Requested);
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
        out: &mut impl Output,
    ) -> Result<(), AnswerError> {
        let now = self.endpoint.advance_to(now);
        let is_last = auth.reason_code == ReasonCode::SUCCESS;
        let next = match self.state {
            // CONNACK reports success. [5.0 MQTT-4.12.0-2]
            State::Asked { .. } if !is_last => {
                State::AwaitAuth { deadline: now + self.config.connect_timeout }
            }
            State::Connected(Reauthentication::AwaitHost { .. }) if is_last => {
                State::Connected(Reauthentication::None)
            }
            State::Connected(Reauthentication::AwaitHost { .. }) => {
                State::Connected(Reauthentication::AwaitPeer)
            }
            State::AwaitConnect { .. }
            | State::Asked { .. }
            | State::AwaitAuth { .. }
            | State::Connected(_)
            | State::Closing(_)
            | State::Closed => return Err(AnswerError::NotAsked),
        };
        // [5.0 MQTT-4.12.0-5] [5.0 MQTT-4.12.0-6]
        if self.requested.check_method(auth).is_err() {
            return Err(AnswerError::AuthenticationMethod);
        }
        // [5.0 MQTT-3.1.2-29] [5.0 MQTT-3.15.2-2] [5.0 MQTT-3.15.2-3]
        let keeps = self.endpoint.connection.peer.problem_information;
        self.endpoint.write_shortened(&Packet::from(*auth).keeping(keeps, keeps), out)?;
        self.state = next;
        self.endpoint.touch(now);
        Ok(())
    }

    /// Answers a SUBSCRIBE with a code for each topic filter, in order: the QoS granted, or an
    /// error.
    ///
    /// Before 5.0, an error that the version does not have becomes 0x80. A 3.1 SUBACK has no error
    /// and grants QoS 0, unless [`SUBACK_FAILURE`](crate::codec::Options::SUBACK_FAILURE) allows
    /// 0x80.
    pub fn suback(
        &mut self,
        token: RequestToken,
        reason_codes: &[ReasonCode],
        properties: AckProperties<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), AnswerError> {
        self.answer(Request::Subscribe, token, reason_codes, properties, now, out)
    }

    /// Answers an UNSUBSCRIBE with a code for each topic filter, in order. Before 5.0 the codes are
    /// not sent.
    pub fn unsuback(
        &mut self,
        token: RequestToken,
        reason_codes: &[ReasonCode],
        properties: AckProperties<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), AnswerError> {
        self.answer(Request::Unsubscribe, token, reason_codes, properties, now, out)
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
        let mut acknowledgement = acknowledgement.into();
        // [5.0 MQTT-3.1.2-29]
        if !self.endpoint.connection.peer.problem_information {
            acknowledgement.properties = AckProperties::default();
        }
        let mut step = self.endpoint.step(now, out);
        self.endpoint.acknowledge(token, acknowledgement, &mut step)
    }

    // ---- commands ----

    /// Queues a message for the client. [`flush`](Self::flush) or the next step writes it. A QoS 1
    /// or 2 message with a key ends with an [`Action::Published`] with that key.
    ///
    /// Without a connection, or without room in the queue, the message is returned. So it is while
    /// as many outcomes as the queue holds messages are not reported.
    #[inline]
    pub fn deliver(&mut self, outgoing: Outgoing, now: Instant) -> Result<(), Outgoing> {
        let now = self.endpoint.advance_to(now);
        if self.endpoint.is_open() { self.endpoint.enqueue(outgoing, now) } else { Err(outgoing) }
    }

    /// Writes a message at once with that QoS and RETAIN flag, unless it must be
    /// [queued](Self::deliver). Returns whether it was written.
    #[inline]
    pub(crate) fn write_through(
        &mut self,
        message: &Message,
        flags: (QoS, bool),
        prepared: &mut Prepared,
        key: impl FnOnce(&Outgoing) -> Option<Key>,
        now: Instant,
        out: &mut impl Output,
    ) -> bool {
        let mut step = self.endpoint.step(now, out);
        let is_written = self.endpoint.write_through(message, flags, prepared, key, &mut step);
        self.endpoint.finish(&step);
        is_written
    }

    /// Drops the outcomes that no step has reported. A full list of them would close the queue.
    #[inline]
    pub(crate) fn forget_outcomes(&mut self) {
        self.endpoint.session.forget_outcomes();
    }

    /// Returns an outcome that no step has reported.
    #[inline]
    pub(crate) fn next_completed(&mut self) -> Option<Published<'static>> {
        self.endpoint.session.next_completed()
    }

    /// Removes waiting messages with QoS 0, the oldest first, until there is room for a message of
    /// that [size](Outgoing::size). Returns their number.
    pub(crate) fn make_room(&mut self, size: usize, limit: crate::session::QueueLimit) -> u64 {
        self.endpoint.session.make_room(size, limit)
    }

    /// Writes queued messages, as many as the client's Receive Maximum allows and until `out` holds
    /// 64 KiB or more. Returns whether more could be written if `out` were empty.
    ///
    /// Messages that have expired, or that the client does not allow, are reported by the next
    /// step. An empty output of limited room that is too small for the next message stays empty,
    /// and the result is true.
    #[inline]
    #[must_use = "more may have to be flushed"]
    pub fn flush(&mut self, now: Instant, out: &mut impl Output) -> bool {
        let mut step = self.endpoint.step(now, out);
        self.endpoint.flush(&mut step) && self.wants_flush()
    }

    /// Whether [`flush`](Self::flush) would write something, given room.
    #[must_use]
    pub fn wants_flush(&self) -> bool {
        self.endpoint.can_flush()
    }

    /// Ends the connection, in 5.0 with a DISCONNECT, before that without sending a packet. The
    /// next step is [`Action::Closed`].
    ///
    /// To send the client to another server, the reason code is
    /// [`USE_ANOTHER_SERVER`](ReasonCode::USE_ANOTHER_SERVER) or
    /// [`SERVER_MOVED`](ReasonCode::SERVER_MOVED), with a Server Reference.
    pub fn disconnect(
        &mut self,
        disconnect: &Disconnect<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), AnswerError> {
        if matches!(self.state, State::Closing(_) | State::Closed) {
            return Err(AnswerError::NotAsked);
        }
        let mut step = self.endpoint.step(now, out);
        // [5.0 MQTT-3.14.0-1]
        let written = if self.endpoint.is_open() {
            // If an acknowledgement has no room, the client redelivers the message.
            let _ = self.endpoint.settle(&mut step);
            self.write_disconnect(disconnect, step.out)
        } else {
            Ok(())
        };
        self.end(Ending::Requested);
        written
    }

    // ---- events ----

    /// Takes the next step: consumes packets from `input` up to the first that has an action.
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
            State::AwaitConnect { deadline }
            | State::Asked { deadline }
            | State::AwaitAuth { deadline }
            | State::Connected(Reauthentication::AwaitHost { deadline }) => Some(deadline),
            State::Connected(_) => self.keep_alive_deadline(),
            State::Closing(_) => Some(self.endpoint.clock.latest),
            State::Closed => None,
        }
    }

    /// Ends the connection of a silent client, or of a host that did not answer in time. Does
    /// nothing if nothing is due.
    #[must_use = "an action that is dropped is lost"]
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        out: &mut impl Output,
    ) -> Option<Action<'static>> {
        let now = self.endpoint.advance_to(now);
        if self.poll_timeout().is_some_and(|at| at <= now) {
            match self.state {
                State::AwaitConnect { .. } | State::AwaitAuth { .. } => {
                    self.end(Ending::ConnectTimeout);
                }
                State::Asked { .. } => {
                    let code = ReasonCode::SERVER_UNAVAILABLE;
                    let _ = self.write_refusal(code, ConnackProperties::default(), out);
                    self.end(Ending::AnswerTimeout);
                }
                State::Connected(Reauthentication::AwaitHost { .. }) => {
                    let _ = self.write_disconnect(&Disconnect::new(ReasonCode::SERVER_BUSY), out);
                    self.end(Ending::AnswerTimeout);
                }
                // [5.0 MQTT-3.1.2-22] [3.1.1 MQTT-3.1.2-24]
                State::Connected(_) => {
                    let code = ReasonCode::KEEP_ALIVE_TIMEOUT;
                    let _ = self.write_disconnect(&Disconnect::new(code), out);
                    self.end(Ending::KeepAliveTimeout);
                }
                State::Closing(_) | State::Closed => {}
            }
        }
        self.next_closing(&mut &[][..])
    }

    /// Reports that the host has paused reading from the transport. Restarts the client's time to
    /// send something.
    pub fn handle_progress(&mut self, now: Instant) {
        self.endpoint.touch(now);
    }

    /// Ends the connection because the transport is closed or broken. Returns the last action; the
    /// host calls it until it returns `None`.
    #[must_use = "an action that is dropped is lost"]
    pub fn connection_lost(&mut self) -> Option<Action<'static>> {
        if !matches!(self.state, State::Closing(_) | State::Closed) {
            self.end(Ending::ConnectionLost);
        }
        self.next_closing(&mut &[][..])
    }

    // ---- helpers ----

    /// Returns when the client counts as silent: 1.5 × Keep Alive after its last byte. There is no
    /// deadline while the host owes an answer, because then it does not read.
    fn keep_alive_deadline(&self) -> Option<Instant> {
        let milliseconds = u64::from(self.requested.keep_alive) * 1_500;
        if milliseconds == 0 || !self.wants_input() {
            return None;
        }
        Some(self.endpoint.clock.last_received + core::time::Duration::from_millis(milliseconds))
    }

    /// Ends the connection for the session. The host is told by the next step.
    fn end(&mut self, ending: Ending) {
        if self.endpoint.is_open() {
            // A server sends no requests, so none is lost.
            self.endpoint.close().for_each(drop);
        }
        self.state = State::Closing(ending);
    }
}
