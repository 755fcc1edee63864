//! What the server writes to its client: CONNACK and refusals, SUBACK and UNSUBACK, DISCONNECT,
//! each in the form that the version has and with what the client has asked for.

use super::{Server, State};
use crate::codec::{
    AckProperties, Connack, ConnackProperties, DecodeError, Disconnect, EncodeError, Packet,
    PacketIdentifier, PacketType, ReasonCode, Sequence, Suback, Text, Version,
};
use crate::session::{ProtocolError, PublishError};
use crate::time::Instant;
use alloc::vec::Vec;

/// Why an answer was not given: it was not written. The connection goes on, but for
/// [`Server::refuse`] and [`Server::disconnect`], which end it all the same, and for a SUBACK or
/// UNSUBACK that is [`TooLarge`](Self::TooLarge), without which it cannot go on.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// There is nothing to answer: it was answered before, or the connection has ended.
    #[error("there is nothing to answer")]
    NotAsked,
    /// The client has asked for a new session, so it cannot be given an old one. [5.0 MQTT-3.1.2-4]
    /// [3.1.1 MQTT-3.1.2-6]
    #[error("client has asked for a new session")]
    CleanStart,
    /// The authentication method is not that of the CONNECT. [5.0 MQTT-4.12.0-5] [5.0
    /// MQTT-4.12.0-6]
    #[error("authentication method is not that of the client")]
    AuthenticationMethod,
    /// There are more or fewer reason codes than topic filters. [5.0 MQTT-3.8.4-6] [3.1.1
    /// MQTT-3.8.4-5]
    #[error("{given} reason codes answer {asked} topic filters")]
    ReasonCodes {
        /// How many topic filters were asked for.
        asked: usize,
        /// How many reason codes were given.
        given: usize,
    },
    /// A reason code that lets the client in does not refuse it.
    #[error("{0} does not refuse the client")]
    ReasonCode(ReasonCode),
    /// The client has no identifier, and there is no Assigned Client Identifier. [5.0 MQTT-3.1.3-7]
    #[error("client has no identifier and is assigned none")]
    ClientIdentifier,
    /// The packet cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The client takes no packet of that size. [5.0 MQTT-3.1.2-24]
    #[error("client takes no packet of {size} bytes")]
    TooLarge {
        /// The size of the whole packet in bytes.
        size: u32,
    },
}

impl From<PublishError> for AnswerError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Encode(error) => Self::Encode(error),
            PublishError::TooLarge { size, .. } => Self::TooLarge { size },
            _ => Self::NotAsked,
        }
    }
}

impl Server {
    /// Gives the properties that CONNACK has.
    pub(super) fn write_accepting_connack<'p>(
        &'p self,
        resume: bool,
        properties: ConnackProperties<'p>,
        out: &mut Vec<u8>,
    ) -> Result<ConnackProperties<'p>, AnswerError> {
        if self.state != State::Asked {
            return Err(AnswerError::NotAsked);
        }
        if self.client.clean_start && resume {
            return Err(AnswerError::CleanStart);
        }
        let authentication_method = self.client.authentication_method.as_deref().map(Text::from);
        let properties = match self.version() {
            Version::V5_0 => {
                if self.client.is_nameless
                    && properties.assigned_client_identifier.is_none_or(Text::is_empty)
                {
                    return Err(AnswerError::ClientIdentifier);
                }
                let properties = ConnackProperties { authentication_method, ..properties };
                let properties = self.as_asked(properties);
                self.config.state(
                    properties,
                    self.client.keep_alive,
                    self.client.session_expiry_interval,
                )
            }
            Version::V3_1 | Version::V3_1_1 => ConnackProperties::default(),
        };
        let session_present = resume && self.version() > Version::V3_1;
        self.write_connack(
            Connack { session_present, reason_code: ReasonCode::SUCCESS, properties },
            out,
        )?;
        Ok(properties)
    }

    /// [5.0 MQTT-3.2.2-19] [5.0 MQTT-3.2.2-20]
    fn write_connack(&self, connack: Connack<'_>, out: &mut Vec<u8>) -> Result<(), AnswerError> {
        Ok(self.endpoint.write_shortened(connack.into(), out)?)
    }

    pub(super) fn write_refusal(
        &self,
        reason_code: ReasonCode,
        properties: ConnackProperties<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), AnswerError> {
        let (reason_code, properties) = match self.version() {
            Version::V5_0 => (reason_code, self.as_asked(properties)),
            Version::V3_1 | Version::V3_1_1 => match nearest_return_code(reason_code) {
                Some(code) => (code, ConnackProperties::default()),
                None => return Ok(()),
            },
        };
        self.write_connack(Connack { session_present: false, reason_code, properties }, out)
    }

    /// A CONNECT that is none, in the form of the version that it asks for. [5.0 MQTT-3.1.2-2] [5.0
    /// MQTT-3.1.4-1] [3.1.1 MQTT-3.1.2-2] [3.1.1 MQTT-3.1.4-1]
    pub(super) fn refuse_unread(
        &mut self,
        error: DecodeError,
        asked: Option<u8>,
        out: &mut Vec<u8>,
    ) {
        let (version, code) = match (error, asked) {
            // Whoever speaks another protocol, or no version at all, would not understand.
            (DecodeError::InvalidProtocolName, _) | (_, None) => return,
            // The bridges of 3.1 and 3.1.1 set the highest bit.
            (_, Some(5..0x80)) => (Version::V5_0, Some(error.reason_code())),
            // 3.1.1 has no code for what is malformed.
            (
                DecodeError::UnsupportedProtocolVersion(_) | DecodeError::ClientIdentifierRejected,
                Some(_),
            ) => (Version::V3_1_1, nearest_return_code(error.reason_code())),
            _ => return,
        };
        self.endpoint.connection.version = version;
        if let Some(reason_code) = code {
            let _ = self.write_refusal(reason_code, ConnackProperties::default(), out);
        }
    }

    /// Leaves out what a client must not be told that did not ask. [5.0 MQTT-3.1.2-28] [5.0
    /// MQTT-4.12.0-6]
    fn as_asked<'a>(&self, properties: ConnackProperties<'a>) -> ConnackProperties<'a> {
        let authenticates = self.client.authentication_method.is_some();
        ConnackProperties {
            response_information: properties
                .response_information
                .filter(|_| self.client.wants_response_information),
            authentication_method: properties.authentication_method.filter(|_| authenticates),
            authentication_data: properties.authentication_data.filter(|_| authenticates),
            ..properties
        }
    }

    /// The host has answered a request.
    pub(super) fn answer(
        &mut self,
        request: PacketType,
        packet_identifier: PacketIdentifier,
        reason_codes: &[ReasonCode],
        properties: AckProperties<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), AnswerError> {
        let asked = match self.requests.get(&packet_identifier) {
            Some((packet, filters)) if *packet == request && self.endpoint.is_open() => *filters,
            _ => return Err(AnswerError::NotAsked),
        };
        let given = reason_codes.len();
        if asked != given {
            return Err(AnswerError::ReasonCodes { asked, given });
        }
        let answered = self.write_answer(request, packet_identifier, reason_codes, properties, out);
        match answered {
            Ok(()) => {
                let was_read = self.wants_input();
                self.requests.remove(&packet_identifier);
                if !was_read && self.wants_input() {
                    // The client could not be heard.
                    self.last_received = now;
                }
            }
            Err(AnswerError::TooLarge { .. }) => {
                let _ = self.write_disconnect(
                    &Disconnect::new(ProtocolError::NoRoomForAnswer.reason_code()),
                    out,
                );
                self.end();
                self.state = State::Closing;
            }
            Err(_) => {}
        }
        answered
    }

    /// SUBACK or UNSUBACK, in the form that the version has.
    pub(super) fn write_answer(
        &self,
        request: PacketType,
        packet_identifier: PacketIdentifier,
        reason_codes: &[ReasonCode],
        properties: AckProperties<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), AnswerError> {
        let codes: Vec<_>;
        let reason_codes = match (self.version(), request) {
            (Version::V5_0, _) => Sequence::from(reason_codes),
            (_, PacketType::Unsubscribe) => Sequence::default(),
            (Version::V3_1 | Version::V3_1_1, _) => {
                let failure = ReasonCode::UNSPECIFIED_ERROR;
                let can_refuse = self.endpoint.rules().allows(failure, PacketType::Suback);
                let error = if can_refuse { failure } else { ReasonCode::SUCCESS };
                codes = reason_codes
                    .iter()
                    .map(|code| if code.is_error() { error } else { *code })
                    .collect::<Vec<_>>();
                Sequence::from(codes.as_slice())
            }
        };
        // [5.0 MQTT-3.1.2-29] [5.0 MQTT-3.9.2-1] [5.0 MQTT-3.11.2-1]
        let unwanted = self.client.no_problem_information || self.version() < Version::V5_0;
        let properties = if unwanted { AckProperties::default() } else { properties };
        let suback = Suback { packet_identifier, properties, reason_codes };
        let packet = if request == PacketType::Subscribe {
            Packet::Suback(suback)
        } else {
            Packet::Unsuback(suback)
        };
        Ok(self.endpoint.write_shortened(packet, out)?)
    }

    /// [5.0 MQTT-3.14.2-3] [5.0 MQTT-3.14.2-4]
    pub(super) fn write_disconnect(
        &self,
        disconnect: &Disconnect<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), AnswerError> {
        if self.version() < Version::V5_0 {
            return Ok(());
        }
        Ok(self.endpoint.write_shortened((*disconnect).into(), out)?)
    }
}

/// The one of the return codes of 3.1 and 3.1.1 that says as much. [3.1.1 §3.2.2.3]
fn nearest_return_code(reason_code: ReasonCode) -> Option<ReasonCode> {
    Some(match reason_code {
        ReasonCode::UNSUPPORTED_PROTOCOL_VERSION
        | ReasonCode::CLIENT_IDENTIFIER_NOT_VALID
        | ReasonCode::SERVER_UNAVAILABLE
        | ReasonCode::BAD_USER_NAME_OR_PASSWORD
        | ReasonCode::NOT_AUTHORIZED => reason_code,
        ReasonCode::BANNED | ReasonCode::BAD_AUTHENTICATION_METHOD => ReasonCode::NOT_AUTHORIZED,
        ReasonCode::SERVER_BUSY
        | ReasonCode::SERVER_SHUTTING_DOWN
        | ReasonCode::QUOTA_EXCEEDED
        | ReasonCode::USE_ANOTHER_SERVER
        | ReasonCode::SERVER_MOVED
        | ReasonCode::CONNECTION_RATE_EXCEEDED => ReasonCode::SERVER_UNAVAILABLE,
        _ => return None,
    })
}
