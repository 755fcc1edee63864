//! How a client handles the packets of the server.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a packet that a match does not name is not allowed in that state"
)]

use super::{Action, Client, State, Terms, Turn};
use crate::codec::{
    self, AuthProperties, Connack, Disconnect, Expiry, Frame, Output, Packet, PacketType,
    ReasonCode, Rules, Version,
};
use crate::session::{
    Available, CloseCause, Ending, Endpoint, Limits, Machine, ProtocolError, Reauthentication, Step,
};

/// The first byte of a CONNACK.
const CONNACK: u8 = 0x20;

/// The first byte of an AUTH.
const AUTH: u8 = 0xF0;

/// The largest packet in bytes that is read before the server has accepted: 1 MiB.
const HANDSHAKE_SIZE: u32 = 1 << 20;

/// The default window of messages in flight if the server states no Receive Maximum.
const IN_FLIGHT: u16 = 1_024;

/// The same before 5.0, where a server cannot state one: some servers lose what exceeds it.
const IN_FLIGHT_BEFORE_5_0: u16 = 20;

impl Machine for Client {
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
    fn maximum_size(&self, _: &[u8]) -> u32 {
        self.endpoint.connection.own.maximum_packet_size
    }

    #[inline(never)]
    fn take_first<'i, O: Output>(
        &mut self,
        input: &mut &'i [u8],
        _: &mut Step<'_, O>,
    ) -> Result<Option<Frame<'i>>, ProtocolError> {
        if !matches!(input, [] | [CONNACK | AUTH, ..]) {
            // A peer that is no MQTT server may never send a complete packet.
            return Err(ProtocolError::NotConnack);
        }
        let maximum = self.endpoint.connection.own.maximum_packet_size;
        Ok(Frame::take(input, maximum.min(HANDSHAKE_SIZE))?)
    }

    #[inline(never)]
    fn on_frame<'i, O: Output>(
        &mut self,
        frame: Frame<'i>,
        step: &mut Step<'_, O>,
    ) -> Result<Option<Action<'i>>, ProtocolError> {
        let rules = self.endpoint.peer_rules();
        if !self.is_connected() {
            return self.on_handshake(frame, step);
        }
        Ok(match frame.packet_type() {
            PacketType::Auth if rules.version == Version::V5_0 => self.on_auth(frame, step)?,
            other => match codec::decode(frame, rules)? {
                Packet::Suback(suback) => {
                    Some(Action::Subscribed(self.endpoint.on_suback(other, &suback)?, suback))
                }
                Packet::Unsuback(unsuback) => {
                    Some(Action::Unsubscribed(self.endpoint.on_suback(other, &unsuback)?, unsuback))
                }
                Packet::Pingresp => {
                    self.keep_alive.ping_sent = None;
                    None
                }
                Packet::Disconnect(_) => {
                    self.end(Ending::Packet);
                    None
                }
                _ => return Err(ProtocolError::UnexpectedPacket(other)),
            },
        })
    }

    /// Sends DISCONNECT with the reason, where the version has one. [5.0 §4.13.1]
    #[inline(never)]
    fn violate<O: Output>(&mut self, error: ProtocolError, step: &mut Step<'_, O>) {
        // A peer that sends something else than MQTT does not read a DISCONNECT either.
        if self.endpoint.connection.version == Version::V5_0 && error != ProtocolError::NotConnack {
            // A client must not send some of the reason codes. [5.0 §3.14.2.1]
            let codes = [error.reason_code(), ReasonCode::PROTOCOL_ERROR];
            let _ = codes.into_iter().find(|code| {
                self.endpoint.write(&Packet::from(Disconnect::new(*code)), step.out).is_ok()
            });
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
        if let Some(key) = self.lost_requests.pop_front() {
            return Some(Action::RequestLost(key));
        }
        self.state = State::Idle;
        let cause = ending.cause().or_else(|| {
            let frame = Frame::take(input, u32::MAX).ok()??;
            match self.decode_end(frame).ok()? {
                Packet::Connack(connack) => Some(CloseCause::Refused(connack)),
                Packet::Disconnect(disconnect) => Some(CloseCause::Disconnected(disconnect)),
                _ => None,
            }
        });
        Some(Action::Closed(cause.unwrap_or(CloseCause::ConnectionLost)))
    }
}

impl Client {
    /// Decodes a packet that can end the connection.
    fn decode_end<'i>(&self, frame: Frame<'i>) -> Result<Packet<'i>, ProtocolError> {
        let rules = self.endpoint.peer_rules();
        if frame.packet_type() == PacketType::Connack {
            return decode_connack(frame, rules).map(Packet::Connack);
        }
        Ok(codec::decode(frame, rules)?)
    }

    /// Handles a packet before the server has accepted. [5.0 §3.1.4] [5.0 §4.12]
    #[inline(never)]
    fn on_handshake<'i, O: Output>(
        &mut self,
        frame: Frame<'i>,
        step: &mut Step<'_, O>,
    ) -> Result<Option<Action<'i>>, ProtocolError> {
        match frame.packet_type() {
            PacketType::Connack => {
                let connack = decode_connack(frame, self.endpoint.peer_rules())?;
                if connack.reason_code != ReasonCode::SUCCESS {
                    // The server has what it had before.
                    let had_session = self.has_session;
                    self.endpoint.session.established = had_session;
                    self.end(Ending::Packet);
                    return Ok(None);
                }
                self.accepted(&connack, step)?;
                Ok(Some(Action::Connected(connack)))
            }
            // [5.0 MQTT-4.12.0-6]
            PacketType::Auth if self.requested.authentication_method().is_some() => {
                self.on_auth(frame, step)
            }
            other => Err(ProtocolError::UnexpectedPacket(other)),
        }
    }

    fn accepted<O: Output>(
        &mut self,
        connack: &Connack<'_>,
        step: &mut Step<'_, O>,
    ) -> Result<(), ProtocolError> {
        let properties = &connack.properties;
        let version = self.endpoint.connection.version;
        self.check_session(connack)?;
        // [5.0 MQTT-4.12.0-5] [5.0 MQTT-4.12.0-6]
        if properties.authentication_method != self.requested.authentication_method() {
            return Err(ProtocolError::AuthenticationMethod);
        }
        // [5.0 §3.1.2.11.6]
        if properties.response_information.is_some() && !self.requested.response_information {
            return Err(ProtocolError::ResponseInformation);
        }
        if self.endpoint.session.client_identifier().is_none() && version == Version::V5_0 {
            let assigned = properties.assigned_client_identifier.filter(|text| !text.is_empty());
            let assigned = assigned.ok_or(ProtocolError::NoAssignedClientIdentifier)?;
            let session = &mut self.endpoint.session;
            session.set_client_identifier(assigned);
            session.established = true;
        }
        let usual = if version == Version::V5_0 { IN_FLIGHT } else { IN_FLIGHT_BEFORE_5_0 };
        let mut peer = Limits::of_connack(properties);
        let configured = self.config.maximum_in_flight;
        let stated = properties.receive_maximum.is_some();
        let allowed = configured.unwrap_or(if stated { u16::MAX } else { usual });
        peer.receive_maximum = peer.receive_maximum.min(allowed);
        self.endpoint.connection.peer = peer;
        self.terms = Terms {
            available: Available::of_connack(properties),
            session_expiry: properties
                .session_expiry_interval
                .map_or(self.requested.session_expiry, Expiry::from_seconds),
        };
        // [5.0 MQTT-3.1.2-21]
        self.keep_alive.interval =
            properties.server_keep_alive.unwrap_or(self.requested.keep_alive);
        self.state = State::Connected(Reauthentication::None);
        self.clean_start_required = false;
        self.endpoint.open(step);
        Ok(())
    }

    /// Checks that client and server agree about the session. [5.0 MQTT-3.2.2-2]
    /// [5.0 MQTT-3.2.2-4]
    fn check_session(&mut self, connack: &Connack<'_>) -> Result<(), ProtocolError> {
        let version = self.endpoint.connection.version;
        if connack.session_present {
            // Before 5.0 a client can resume a session of which it has nothing, unless it asked
            // for a clean one.
            if !self.has_session && (version == Version::V5_0 || self.requested.clean_start) {
                self.endpoint.session.established = false;
                self.clean_start_required = self.config.clean_start_when_required;
                return Err(ProtocolError::CleanStartRequired);
            }
        } else if version > Version::V3_1 {
            // A 3.1 server cannot state whether it has the session.
            self.endpoint.session.lost();
        }
        Ok(())
    }

    #[inline(never)]
    fn on_auth<'i, O: Output>(
        &mut self,
        frame: Frame<'i>,
        step: &mut Step<'_, O>,
    ) -> Result<Option<Action<'i>>, ProtocolError> {
        let Packet::Auth(auth) = codec::decode(frame, self.endpoint.peer_rules())? else {
            return Err(ProtocolError::UnexpectedPacket(PacketType::Auth));
        };
        let AuthProperties { reason_string, user_properties, .. } = auth.properties;
        let is_last = auth.reason_code == ReasonCode::SUCCESS;
        let deadline = step.now + self.config.answer_timeout;
        // Before CONNACK the server asks for more; CONNACK completes the authentication. After it,
        // only what the client has started continues. [5.0 MQTT-4.12.0-2] [5.0 §4.12.1]
        let next = match self.state {
            State::AwaitConnack { .. } if !is_last => {
                Some(State::AwaitConnack { deadline, turn: Turn::Host })
            }
            State::Connected(Reauthentication::None) => None,
            State::Connected(_) if is_last => Some(State::Connected(Reauthentication::None)),
            State::Connected(_) => Some(State::Connected(Reauthentication::AwaitHost { deadline })),
            State::Idle | State::AwaitConnack { .. } | State::Closing(_) => None,
        };
        self.state = next.ok_or(ProtocolError::AuthenticationMethod)?;
        self.requested.check_method(&auth)?;
        self.endpoint
            .check_problem_information(reason_string.is_none() && user_properties.is_empty())?;
        Ok(Some(Action::Authenticate(auth)))
    }
}

/// Decodes a CONNACK. A server that does not support the version refuses in the format of another
/// one. [5.0 §3.1.2.2] [3.1.1 MQTT-3.1.2-2]
fn decode_connack<'a>(frame: Frame<'a>, rules: Rules) -> Result<Connack<'a>, ProtocolError> {
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
