//! The parts of the handshake that matter later to both machines.

use super::ProtocolError;
use crate::codec::{Auth, Connect, Expiry, Text};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::string::String;

/// The parts of a CONNECT that matter later.
#[derive(Debug)]
pub(crate) struct Requested {
    /// Whether CONNECT had a client identifier. If not, CONNACK must assign one.
    /// [5.0 MQTT-3.1.3-7]
    pub(crate) has_identifier: bool,
    pub(crate) clean_start: bool,
    /// Seconds. For a server it is the Keep Alive in force after CONNACK.
    pub(crate) keep_alive: u16,
    /// If the session ends with the connection, DISCONNECT must not change it. [5.0 §3.14.2.2.2]
    pub(crate) session_expiry: Expiry,
    pub(crate) response_information: bool,
    /// In a block that has its length, because most connections have none.
    #[expect(clippy::box_collection, reason = "so that a connection without one is no larger")]
    authentication_method: Option<Box<String>>,
}

impl Requested {
    /// The state before the first CONNECT.
    pub(crate) const NONE: Self = Self {
        has_identifier: false,
        clean_start: false,
        keep_alive: 0,
        session_expiry: Expiry::AT_DISCONNECT,
        response_information: false,
        authentication_method: None,
    };

    pub(crate) fn of(connect: &Connect<'_>) -> Self {
        let properties = &connect.properties;
        let method = properties.authentication_method;
        Self {
            has_identifier: !connect.client_identifier.is_empty(),
            clean_start: connect.clean_start,
            keep_alive: connect.keep_alive,
            session_expiry: connect.session_expiry(),
            response_information: properties.request_response_information == Some(true),
            authentication_method: method.map(|method| Box::new(method.to_str().into())),
        }
    }

    pub(crate) fn authentication_method(&self) -> Option<Text<'_>> {
        self.authentication_method.as_deref().map(|method| Text::from(&**method))
    }

    /// Checks that an AUTH has the authentication method of CONNECT. [5.0 MQTT-4.12.0-5]
    /// [5.0 MQTT-4.12.0-6] [5.0 MQTT-4.12.0-7]
    pub(crate) fn check_method(&self, auth: &Auth<'_>) -> Result<(), ProtocolError> {
        let method = auth.properties.authentication_method;
        if method.is_none() || method != self.authentication_method() {
            return Err(ProtocolError::AuthenticationMethod);
        }
        Ok(())
    }
}

/// The state of a re-authentication. [5.0 §4.12.1]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reauthentication {
    None,
    AwaitPeer,
    AwaitHost { deadline: Instant },
}
