//! How a server handles the packets of the client.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a packet that a match does not name is not allowed in that state"
)]

use super::{Action, AnswerError, RequestToken, Server, State};
use crate::codec::{
    self, AckProperties, Auth, ConnackProperties, Connect, DecodeError, Disconnect, Expiry, Frame,
    Options, Output, Packet, PacketIdentifier, PacketType, ReasonCode, Role, Rules, Subscribe,
    Version,
};
use crate::session::{
    Available, CloseCause, Ending, Endpoint, Limits, Machine, ProtocolError, Reauthentication,
    Request, Requested, Step,
};

/// The first byte of a CONNECT: its packet type, and no flags. [5.0 §3.1.1] [3.1.1 §3.1.1]
const CONNECT: u8 = 0x10;

/// The most bytes at the start of a CONNECT that can be needed to find its version.
const VERSION_WITHIN: usize = 16;

impl Machine for Server {
    type Action<'i> = Action<'i>;

    #[inline]
    fn endpoint(&mut self) -> &mut Endpoint {
        &mut self.endpoint
    }

    #[inline]
    fn wants_input(&self) -> bool {
        Self::wants_input(self)
    }

    #[inline]
    fn maximum_size(&self, input: &[u8]) -> u32 {
        let maximum = self.endpoint.connection.own.maximum_packet_size;
        // The work that a request asks for costs more than its bytes.
        let is_request = input.first().is_some_and(|byte| matches!(byte >> 4, 8 | 10));
        if is_request { maximum.min(self.config.maximum_request_size) } else { maximum }
    }

    #[inline(never)]
    fn take_first<'i, O: Output>(
        &mut self,
        input: &mut &'i [u8],
        step: &mut Step<'_, O>,
    ) -> Result<Option<Frame<'i>>, ProtocolError> {
        if matches!(self.state, State::AwaitConnect { .. }) {
            return self.take_connect(input, step);
        }
        Ok(Frame::take(input, self.maximum_size(input))?)
    }

    #[inline(never)]
    fn on_frame<'i, O: Output>(
        &mut self,
        frame: Frame<'i>,
        step: &mut Step<'_, O>,
    ) -> Result<Option<Action<'i>>, ProtocolError> {
        if !self.is_connected() {
            return self.on_handshake(frame, step);
        }
        let rules = self.endpoint.peer_rules();
        Ok(match frame.packet_type() {
            // A CONNECT would be decoded by its own version. [5.0 MQTT-3.1.0-2]
            // [3.1.1 MQTT-3.1.0-2]
            PacketType::Connect => {
                return Err(ProtocolError::UnexpectedPacket(PacketType::Connect));
            }
            other => match codec::decode(frame, rules)? {
                Packet::Subscribe(subscribe) => {
                    self.check_available(&subscribe)?;
                    let filters = subscribe.subscriptions.iter().count();
                    let identifier = subscribe.packet_identifier;
                    self.accept_request(frame, Request::Subscribe, identifier, filters, step)?
                        .map(|token| Action::Subscribe(token, subscribe))
                }
                Packet::Unsubscribe(unsubscribe) => {
                    let filters = unsubscribe.topic_filters.iter().count();
                    let identifier = unsubscribe.packet_identifier;
                    self.accept_request(frame, Request::Unsubscribe, identifier, filters, step)?
                        .map(|token| Action::Unsubscribe(token, unsubscribe))
                }
                Packet::Pingreq => {
                    self.endpoint.answer(&Packet::Pingresp, step.out)?;
                    None
                }
                Packet::Disconnect(disconnect) => {
                    self.on_disconnect(&disconnect)?;
                    None
                }
                Packet::Auth(auth) => {
                    self.on_reauthentication(&auth, step)?;
                    Some(Action::Authenticate(auth))
                }
                _ => return Err(ProtocolError::UnexpectedPacket(other)),
            },
        })
    }

    /// Sends DISCONNECT or CONNACK with the reason, where the version has one.
    /// [5.0 MQTT-4.13.1-1] [3.1.1 MQTT-4.8.0-1]
    #[inline(never)]
    fn violate<O: Output>(&mut self, error: ProtocolError, step: &mut Step<'_, O>) {
        let code = error.reason_code();
        match self.state {
            State::Connected(_) => {
                let _ = self.write_disconnect(&Disconnect::new(code), step.out);
            }
            State::AwaitAuth { .. } => {
                let _ = self.write_refusal(code, ConnackProperties::default(), step.out);
            }
            // A CONNECT is refused where the version is known.
            State::AwaitConnect { .. }
            | State::Asked { .. }
            | State::Closing(_)
            | State::Closed => {}
        }
        self.end(Ending::Violation(error));
    }

    #[inline]
    fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing(_))
    }

    #[inline(never)]
    fn next_closing<'i>(&mut self, input: &mut &'i [u8]) -> Option<Action<'i>> {
        let State::Closing(ending) = self.state else { return None };
        self.state = State::Closed;
        let cause = ending.cause().or_else(|| {
            let frame = Frame::take(input, u32::MAX).ok()??;
            match codec::decode(frame, self.endpoint.peer_rules()).ok()? {
                Packet::Disconnect(disconnect) => Some(CloseCause::Disconnected(disconnect)),
                _ => None,
            }
        });
        let cause = cause.unwrap_or(CloseCause::ConnectionLost);
        // [5.0 MQTT-3.14.4-3] [3.1.1 MQTT-3.14.4-3]
        let is_normal = matches!(
            cause,
            CloseCause::Disconnected(disconnect) if disconnect.reason_code == ReasonCode::SUCCESS
        );
        Some(Action::Closed { cause, publish_will: self.was_accepted && !is_normal })
    }
}

impl Server {
    /// Takes the first packet, which must be a CONNECT.
    #[inline(never)]
    fn take_connect<'i>(
        &mut self,
        input: &mut &'i [u8],
        step: &mut Step<'_, impl Output>,
    ) -> Result<Option<Frame<'i>>, ProtocolError> {
        let before = *input;
        if before.first().is_some_and(|byte| !self.can_be_connect(*byte)) {
            // A peer that is no MQTT client may never send a complete packet.
            return Err(ProtocolError::NotConnect);
        }
        match Frame::take(input, self.config.maximum_request_size) {
            Ok(frame) => Ok(frame),
            // The refusal has the format of the version, which follows in the next bytes.
            Err(DecodeError::PacketTooLarge { .. })
                if before.len() < VERSION_WITHIN && codec::connect_version(before).is_none() =>
            {
                Ok(None)
            }
            Err(error) => {
                self.refuse_malformed(error, codec::connect_version(before), step.out);
                Err(error.into())
            }
        }
    }

    /// Whether the first packet can begin with that byte.
    fn can_be_connect(&self, byte: u8) -> bool {
        let ignores_flags = self.config.common.options.contains(Options::UNUSED_HEADER_FLAGS);
        byte & if ignores_flags { 0xF0 } else { 0xFF } == CONNECT
    }

    /// Handles a packet before CONNACK.
    #[inline(never)]
    fn on_handshake<'i>(
        &mut self,
        frame: Frame<'i>,
        step: &mut Step<'_, impl Output>,
    ) -> Result<Option<Action<'i>>, ProtocolError> {
        let deadline = step.now + self.config.answer_timeout;
        if matches!(self.state, State::AwaitConnect { .. }) {
            let connect = self.decode_connect(frame, step)?;
            self.on_connect(&connect, step)?;
            self.state = State::Asked { deadline };
            return Ok(Some(Action::Connect(connect)));
        }
        // [5.0 MQTT-3.1.2-30]
        match codec::decode(frame, self.endpoint.peer_rules())? {
            Packet::Auth(auth) if auth.reason_code == ReasonCode::CONTINUE_AUTHENTICATION => {
                self.requested.check_method(&auth)?;
                self.state = State::Asked { deadline };
                Ok(Some(Action::Authenticate(auth)))
            }
            Packet::Disconnect(_) => {
                self.end(Ending::Packet);
                Ok(None)
            }
            packet => Err(ProtocolError::UnexpectedPacket(packet.packet_type())),
        }
    }

    fn decode_connect<'i>(
        &mut self,
        frame: Frame<'i>,
        step: &mut Step<'_, impl Output>,
    ) -> Result<Connect<'i>, ProtocolError> {
        let options = self.config.common.options;
        let rules = Rules::new(Version::V5_0).sent_by(Role::Client).with(options);
        match codec::decode(frame, rules) {
            Ok(Packet::Connect(connect)) => Ok(connect),
            Ok(_) => Err(ProtocolError::UnexpectedPacket(frame.packet_type())),
            Err(error) => {
                self.refuse_malformed(error, codec::connect_version(frame.as_bytes()), step.out);
                Err(error.into())
            }
        }
    }

    fn on_connect(
        &mut self,
        connect: &Connect<'_>,
        step: &mut Step<'_, impl Output>,
    ) -> Result<(), ProtocolError> {
        let mut peer = Limits::of_connect(&connect.properties);
        peer.receive_maximum = peer.receive_maximum.min(self.config.maximum_in_flight);
        self.endpoint.connection.version = connect.version;
        self.endpoint.connection.own = self.config.limits(connect.version);
        self.endpoint.connection.peer = peer;
        self.requested = Requested::of(connect);
        self.expiry.set_maximum(self.config.maximum_session_expiry);
        let Some(will) = connect.will else { return Ok(()) };
        // [5.0 MQTT-3.2.2-12] [5.0 MQTT-3.2.2-13]
        let own = &self.endpoint.connection.own;
        let error = if will.retain && !own.retain_available {
            ProtocolError::RetainNotSupported
        } else if will.qos > own.maximum_qos {
            ProtocolError::QosNotSupported
        } else {
            return Ok(());
        };
        let code = error.reason_code();
        let _ = self.write_refusal(code, ConnackProperties::default(), step.out);
        Err(error)
    }

    #[inline(never)]
    fn on_disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), ProtocolError> {
        if let Some(expiry) = disconnect.properties.session_expiry_interval {
            let expiry = Expiry::from_seconds(expiry);
            // [5.0 §3.14.2.2.2]
            let was_zero = self.requested.session_expiry == Expiry::AT_DISCONNECT;
            if was_zero && expiry > Expiry::AT_DISCONNECT {
                return Err(ProtocolError::SessionExpiryInterval);
            }
            self.expiry.set_granted(expiry.min(self.expiry.maximum()));
        }
        self.end(Ending::Packet);
        Ok(())
    }

    /// Handles an AUTH after CONNACK. The first one starts a re-authentication, and the others
    /// continue it. [5.0 §4.12.1]
    #[inline(never)]
    fn on_reauthentication(
        &mut self,
        auth: &Auth<'_>,
        step: &mut Step<'_, impl Output>,
    ) -> Result<(), ProtocolError> {
        self.requested.check_method(auth)?;
        let continues = self.state == State::Connected(Reauthentication::AwaitPeer);
        if continues == (auth.reason_code == ReasonCode::RE_AUTHENTICATE) {
            return Err(ProtocolError::AuthenticationMethod);
        }
        let deadline = step.now + self.config.answer_timeout;
        self.state = State::Connected(Reauthentication::AwaitHost { deadline });
        Ok(())
    }

    /// Checks that the kinds of subscriptions are available. [5.0 §3.2.2.3.11 to §3.2.2.3.13]
    #[inline(never)]
    fn check_available(&self, subscribe: &Subscribe<'_>) -> Result<(), ProtocolError> {
        if self.available == Available::ALL || self.version() < Version::V5_0 {
            return Ok(());
        }
        let properties = &subscribe.properties;
        for subscription in &subscribe.subscriptions {
            self.available
                .check(&subscription, properties, Version::V5_0)
                .map_err(ProtocolError::SubscriptionNotSupported)?;
        }
        Ok(())
    }

    /// Notes a request. Returns `None` if its identifier is in use, which it then has answered.
    /// [5.0 §3.9.3] [5.0 §3.11.3]
    #[inline(never)]
    fn accept_request(
        &mut self,
        frame: Frame<'_>,
        request: Request,
        packet_identifier: PacketIdentifier,
        filters: usize,
        step: &mut Step<'_, impl Output>,
    ) -> Result<Option<RequestToken>, ProtocolError> {
        let waiting = self.endpoint.connection.requests.get(packet_identifier);
        let is_5_0 = self.version() == Version::V5_0;
        // Before 5.0 a client can resume a session of which it knows nothing, and so reuse the
        // identifiers of its messages.
        let is_in_use = waiting.is_some() || is_5_0 && self.endpoint.is_in_use(packet_identifier);
        if !is_in_use {
            let number =
                self.endpoint.connection.requests.insert(packet_identifier, request, filters);
            return Ok(Some(RequestToken { packet_identifier, number }));
        }
        if !is_5_0 {
            // A 3.1 client resends its requests; the answer to the first one is enough.
            let is_repeat = frame.dup()
                && waiting.is_some_and(|at| at.request == request && at.filters == filters);
            return if is_repeat {
                Ok(None)
            } else {
                Err(ProtocolError::PacketIdentifierInUse(frame.packet_type()))
            };
        }
        let codes = alloc::vec![ReasonCode::PACKET_IDENTIFIER_IN_USE; filters];
        let properties = AckProperties::default();
        match self.write_answer(request, packet_identifier, &codes, properties, step.out) {
            Ok(()) => Ok(None),
            Err(AnswerError::TooLarge { .. }) => Err(ProtocolError::NoRoomForAnswer),
            // The output has no room.
            Err(_) => Err(ProtocolError::PacketIdentifierInUse(frame.packet_type())),
        }
    }
}
