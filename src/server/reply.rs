//! The packets that a server writes to its client, each in the format of the client's version and
//! with what the client has asked for.

use super::{RequestToken, Server, State};
use crate::codec::{
    AckProperties, Connack, ConnackProperties, DecodeError, Disconnect, EncodeError, Output,
    Packet, PacketIdentifier, PacketType, ReasonCode, Sequence, Suback, Text, Version,
};
use crate::session::{Ending, ProtocolError, Request, Session, WriteError, from_write_error};
use crate::time::Instant;
use alloc::vec::Vec;

/// The reason why an answer was not written.
///
/// The connection is unaffected, with three exceptions: [`Server::refuse`] and
/// [`Server::disconnect`] end it nevertheless, and so does a SUBACK or UNSUBACK that is
/// [`TooLarge`](Self::TooLarge), because the client would wait for it forever.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// There is nothing to answer: it was answered before, or the connection has ended.
    #[error("there is nothing to answer")]
    NotAsked,
    /// The client asked for a clean start, so it cannot be given an old session.
    /// [5.0 MQTT-3.1.2-4] [3.1.1 MQTT-3.1.2-6]
    #[error("client asked for a clean start, and an old session was given")]
    CleanStart,
    /// The authentication method is not that of the CONNECT. [5.0 MQTT-4.12.0-5]
    /// [5.0 MQTT-4.12.0-6]
    #[error("authentication method is not that of the client")]
    AuthenticationMethod,
    /// There are more or fewer reason codes than topic filters. [5.0 MQTT-3.8.4-6]
    /// [3.1.1 MQTT-3.8.4-5]
    #[error("expected {asked} reason codes, one for each topic filter, and got {given}")]
    ReasonCodes {
        /// The number of topic filters.
        asked: usize,
        /// The number of reason codes.
        given: usize,
    },
    /// The reason code is not an error, so it cannot refuse the client.
    #[error("expected an error to refuse the client, and got {0}")]
    ReasonCode(ReasonCode),
    /// The client has no identifier, and there is no Assigned Client Identifier.
    /// [5.0 MQTT-3.1.3-7]
    #[error("expected an assigned client identifier for a client without one")]
    ClientIdentifier,
    /// The packet cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The packet exceeds the client's Maximum Packet Size. [5.0 MQTT-3.1.2-24]
    #[error("packet of {size} bytes exceeds the client's maximum packet size of {maximum}")]
    TooLarge {
        /// The size of the whole packet in bytes.
        size: u32,
        /// The Maximum Packet Size of the client.
        maximum: u32,
    },
}

from_write_error!(AnswerError);

/// Why [`Server::accept`] has failed, with the session that it was given.
#[expect(clippy::exhaustive_structs, reason = "the caller takes it apart")]
#[derive(Clone, Debug, thiserror::Error)]
#[error("client was not accepted")]
pub struct AcceptError {
    /// The reason.
    #[source]
    pub error: AnswerError,
    /// The session, unchanged.
    pub session: Option<Session>,
}

impl Server {
    /// Writes the CONNACK that accepts the client, and returns its properties.
    pub(super) fn write_accepting_connack<'p>(
        &'p self,
        resume: bool,
        properties: ConnackProperties<'p>,
        out: &mut impl Output,
    ) -> Result<ConnackProperties<'p>, AnswerError> {
        if !matches!(self.state, State::Asked { .. }) {
            return Err(AnswerError::NotAsked);
        }
        if self.requested.clean_start && resume {
            return Err(AnswerError::CleanStart);
        }
        let authentication_method = self.requested.authentication_method();
        let properties = match self.version() {
            Version::V5_0 => {
                if !self.requested.has_identifier
                    && properties.assigned_client_identifier.is_none_or(Text::is_empty)
                {
                    return Err(AnswerError::ClientIdentifier);
                }
                let properties = ConnackProperties { authentication_method, ..properties };
                self.config.state(self.as_asked(properties), &self.requested)
            }
            Version::V3_1 | Version::V3_1_1 => ConnackProperties::default(),
        };
        let session_present = resume && self.version() > Version::V3_1;
        let connack = Connack { session_present, reason_code: ReasonCode::SUCCESS, properties };
        self.endpoint.write_shortened(&connack.into(), out)?;
        Ok(properties)
    }

    /// Writes the CONNACK that refuses the client, if its version has a code that fits.
    pub(super) fn write_refusal(
        &self,
        reason_code: ReasonCode,
        properties: ConnackProperties<'_>,
        out: &mut impl Output,
    ) -> Result<(), AnswerError> {
        let (reason_code, properties) = match self.version() {
            Version::V5_0 => (reason_code, self.as_asked(properties)),
            Version::V3_1 | Version::V3_1_1 => match nearest_return_code(reason_code) {
                Some(code) => (code, ConnackProperties::default()),
                None => return Ok(()),
            },
        };
        let connack = Connack { session_present: false, reason_code, properties };
        Ok(self.endpoint.write_shortened(&connack.into(), out)?)
    }

    /// Refuses a malformed CONNECT, in the CONNACK format of the version it asked for.
    /// [5.0 MQTT-3.1.2-2] [5.0 MQTT-3.1.4-1] [3.1.1 MQTT-3.1.2-2] [3.1.1 MQTT-3.1.4-1]
    pub(super) fn refuse_malformed(
        &mut self,
        error: DecodeError,
        asked: Option<u8>,
        out: &mut impl Output,
    ) {
        let (version, code) = match (error, asked) {
            // A client of another protocol, or without a version, would not understand a CONNACK.
            (DecodeError::InvalidProtocolName, _) | (_, None) => return,
            // 3.1 and 3.1.1 bridges set the highest bit.
            (_, Some(5..0x80)) => (Version::V5_0, Some(error.reason_code())),
            // 3.1.1 has no code for a malformed packet.
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

    /// Removes the properties that only a client which asked for them may receive.
    /// [5.0 MQTT-3.1.2-28] [5.0 MQTT-4.12.0-6]
    fn as_asked<'a>(&self, properties: ConnackProperties<'a>) -> ConnackProperties<'a> {
        let authenticates = self.requested.authentication_method().is_some();
        ConnackProperties {
            response_information: properties
                .response_information
                .filter(|_| self.requested.response_information),
            authentication_method: properties.authentication_method.filter(|_| authenticates),
            authentication_data: properties.authentication_data.filter(|_| authenticates),
            ..properties
        }
    }

    /// Answers a request of the client.
    pub(super) fn answer(
        &mut self,
        request: Request,
        token: RequestToken,
        reason_codes: &[ReasonCode],
        properties: AckProperties<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), AnswerError> {
        let now = self.endpoint.advance_to(now);
        let RequestToken { packet_identifier, number } = token;
        let waiting = self.endpoint.connection.requests.get(packet_identifier);
        let waiting = waiting.filter(|at| at.number == number && at.request == request);
        let asked = waiting.ok_or(AnswerError::NotAsked)?.filters;
        let given = reason_codes.len();
        if asked != given {
            return Err(AnswerError::ReasonCodes { asked, given });
        }
        let answered = self.write_answer(request, packet_identifier, reason_codes, properties, out);
        match answered {
            Ok(()) => {
                let could_read = self.wants_input();
                self.endpoint.connection.requests.remove(packet_identifier);
                if !could_read && self.wants_input() {
                    // Nothing of the client was read until now.
                    self.endpoint.touch(now);
                }
            }
            Err(AnswerError::TooLarge { .. }) => {
                let code = ProtocolError::NoRoomForAnswer.reason_code();
                let _ = self.write_disconnect(&Disconnect::new(code), out);
                self.end(Ending::Requested);
            }
            Err(_) => {}
        }
        answered
    }

    /// Writes a SUBACK or UNSUBACK in the format of the client's version.
    pub(super) fn write_answer(
        &self,
        request: Request,
        packet_identifier: PacketIdentifier,
        reason_codes: &[ReasonCode],
        properties: AckProperties<'_>,
        out: &mut impl Output,
    ) -> Result<(), AnswerError> {
        let codes: Vec<_>;
        let reason_codes = match (self.version(), request) {
            (Version::V5_0, _) => Sequence::from(reason_codes),
            (Version::V3_1 | Version::V3_1_1, Request::Unsubscribe) => Sequence::default(),
            (Version::V3_1 | Version::V3_1_1, Request::Subscribe) => {
                let failure = ReasonCode::UNSPECIFIED_ERROR;
                let can_refuse = self.endpoint.rules().allows(failure, PacketType::Suback);
                let error = if can_refuse { failure } else { ReasonCode::SUCCESS };
                codes = reason_codes
                    .iter()
                    .map(|code| if code.is_error() { error } else { *code })
                    .collect();
                Sequence::from(codes.as_slice())
            }
        };
        // [5.0 MQTT-3.1.2-29] [5.0 MQTT-3.9.2-1] [5.0 MQTT-3.11.2-1]
        let keeps =
            self.endpoint.connection.peer.problem_information && self.version() == Version::V5_0;
        let properties = if keeps { properties } else { AckProperties::default() };
        let suback = Suback { packet_identifier, properties, reason_codes };
        let packet = match request {
            Request::Subscribe => Packet::Suback(suback),
            Request::Unsubscribe => Packet::Unsuback(suback),
        };
        Ok(self.endpoint.write_shortened(&packet, out)?)
    }

    /// Writes a DISCONNECT, which a server can send since 5.0. [5.0 MQTT-3.14.2-3]
    /// [5.0 MQTT-3.14.2-4]
    pub(super) fn write_disconnect(
        &self,
        disconnect: &Disconnect<'_>,
        out: &mut impl Output,
    ) -> Result<(), AnswerError> {
        if self.version() < Version::V5_0 {
            return Ok(());
        }
        Ok(self.endpoint.write_shortened(&(*disconnect).into(), out)?)
    }
}

/// Returns the 3.1.1 return code that is nearest to a reason code. [3.1.1 §3.2.2.3]
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
