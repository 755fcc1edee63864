//! Enhanced authentication: the steps of the client. [5.0 §4.12]

use super::{Core, connect_of};
use crate::error::RequestError;
use mqtt_sansio::codec::{Auth, AuthProperties, Disconnect, ReasonCode};
use mqtt_sansio::session;
use tokio::sync::oneshot;
use tracing::warn;

impl Core {
    pub(crate) fn reauthenticate(
        &mut self,
    ) -> Result<oneshot::Receiver<Result<(), RequestError>>, RequestError> {
        self.check_open()?;
        let (waiter, answer) = oneshot::channel();
        self.authenticate(None)?;
        self.reauthentication = Some(waiter);
        Ok(answer)
    }

    pub(super) fn on_authenticate(&mut self, auth: &Auth<'_>) {
        if auth.reason_code == ReasonCode::SUCCESS {
            if let Some(waiter) = self.reauthentication.take() {
                let _ = waiter.send(Ok(()));
            }
        } else if let Err(error) = self.authenticate(Some(auth)) {
            // Without an answer, the server would wait until it ends the connection.
            warn!("authentication failed on this side: {error}");
            self.disconnect(Some(&Disconnect::new(ReasonCode::UNSPECIFIED_ERROR)));
        }
    }

    /// Sends the next AUTH: an answer, or the start of a re-authentication.
    fn authenticate(&mut self, received: Option<&Auth<'_>>) -> Result<(), RequestError> {
        let unexpected = RequestError::NotSent(session::RequestError::Authentication);
        let Some(authenticator) = &mut self.authenticator else { return Err(unexpected) };
        let data = authenticator(received).map_err(|error| {
            warn!("the authenticator failed: {error}");
            unexpected
        })?;
        let authentication_method = connect_of(&self.connect).properties.authentication_method;
        let properties = AuthProperties {
            authentication_method,
            authentication_data: Some(&data),
            ..AuthProperties::default()
        };
        let reason_code = match received {
            Some(_) => ReasonCode::CONTINUE_AUTHENTICATION,
            None => ReasonCode::RE_AUTHENTICATE,
        };
        let auth = Auth { reason_code, properties };
        Ok(self.machine.authenticate(&auth, self.clock.now(), &mut self.out)?)
    }
}
