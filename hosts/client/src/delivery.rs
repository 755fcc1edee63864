//! The outcome of a message.

use crate::DeliveryError;
use mqtt_sansio::codec::{
    Ack, AckProperties, OwnedPacket, Packet, PacketIdentifier, ReasonCode, Role, Rules, Version,
};
use mqtt_sansio::session::Outcome;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

pub(crate) type DeliveryResult = Result<Answer, DeliveryError>;

/// The outcome of a published message, as a future. The message is sent whether or not this is
/// awaited, and the outcome survives reconnects.
///
/// A message with QoS 0 has no outcome: its delivery is complete at once.
#[derive(Debug)]
pub struct Delivery(Option<oneshot::Receiver<DeliveryResult>>);

impl Delivery {
    pub(crate) const DONE: Self = Self(None);

    pub(crate) const fn new(receiver: oneshot::Receiver<DeliveryResult>) -> Self {
        Self(Some(receiver))
    }
}

impl Future for Delivery {
    type Output = DeliveryResult;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<DeliveryResult> {
        let Some(receiver) = &mut self.0 else { return Poll::Ready(Ok(Answer::default())) };
        // The sender is dropped only with the client.
        Pin::new(receiver).poll(context).map(|sent| sent.unwrap_or(Err(DeliveryError::Closed)))
    }
}

/// The answer of the receiver of a message: the PUBACK, the PUBCOMP, or the PUBREC with an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    reason_code: ReasonCode,
    /// The packet, if it has properties.
    packet: Option<Box<OwnedPacket>>,
}

impl Answer {
    fn of(reason_code: ReasonCode, properties: AckProperties<'_>) -> Self {
        // Only the properties are read again, so any kind of packet with any identifier will do.
        let identifier = PacketIdentifier::new(1).filter(|_| !properties.is_empty());
        let packet = identifier.and_then(|identifier| {
            let ack = Ack { properties, ..Ack::new(identifier, reason_code) };
            let rules = Rules::new(Version::V5_0).sent_by(Role::Server);
            OwnedPacket::new(&Packet::Puback(ack), rules).ok()
        });
        Self { reason_code, packet: packet.map(Box::new) }
    }

    /// Returns the reason code, such as [`ReasonCode::NO_MATCHING_SUBSCRIBERS`].
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        self.reason_code
    }

    /// Returns the reason string and the user properties.
    #[must_use]
    pub fn properties(&self) -> AckProperties<'_> {
        match self.packet.as_ref().map(|packet| packet.decode()) {
            Some(Packet::Puback(ack)) => ack.properties,
            _ => AckProperties::default(),
        }
    }
}

/// The name of the reason code, and the reason string if there is one.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason_code.fmt(f)?;
        let reason = self.properties().reason_string;
        reason.map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}

/// Returns the result of a delivery that will not be attempted again.
pub(crate) fn result(outcome: &Outcome<'_>) -> DeliveryResult {
    match outcome {
        Outcome::Acknowledged { reason_code, properties } => {
            let answer = Answer::of(*reason_code, *properties);
            if reason_code.is_error() { Err(DeliveryError::Refused(answer)) } else { Ok(answer) }
        }
        Outcome::Expired => Err(DeliveryError::Expired),
        Outcome::NotAllowed(_) => Err(DeliveryError::NotAllowed),
        // After PUBREC, too, because a server can wait for PUBREL before it delivers the message.
        _ => Err(DeliveryError::SessionLost),
    }
}
