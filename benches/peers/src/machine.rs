//! The interface of a session machine that takes part: bytes in, bytes out, and events for the
//! host.

use crate::cases::{PAYLOAD, TOPIC};
use mqtt_sansio::codec::{
    self, Connack, ConnackProperties, Connect, Packet, Publish, QoS, ReasonCode, Rules, Version,
};

/// One side of a connection after the handshake, with a session that outlives it, called as its
/// users call it.
///
/// The host reads and writes the transport and reads the clock, which is not timed. Other work that
/// a machine requires of its host, such as keeping the bytes of half a packet, is timed.
pub trait Machine {
    /// The argument of `publish`. Made before the clock starts, if that needs no machine: a host
    /// that has a payload has allocated it.
    type Outgoing;

    /// Returns the message that all cases use.
    fn outgoing(qos: QoS) -> Self::Outgoing;

    /// Publishes a message, and returns the key of its outcome.
    fn publish(&mut self, message: Self::Outgoing) -> u64;

    /// Handles bytes from the transport, which can end inside a packet. Panics on events other than
    /// messages and outcomes.
    fn receive(&mut self, bytes: &[u8], host: &mut impl Host);

    /// Gives the output to the transport, in one piece, and clears it.
    fn written<R>(&mut self, write: impl FnOnce(&[u8]) -> R) -> R;
}

/// The receiver of events.
pub trait Host {
    fn message(&mut self, topic: &[u8], payload: &[u8]);

    /// Handles the last acknowledgement of a message with QoS 1 or 2.
    fn completed(&mut self, name: u64);
}

/// Returns the message from which the packets of all crates are made.
pub fn message(qos: QoS) -> Publish<'static> {
    Publish { qos, ..Publish::new(TOPIC, &PAYLOAD[..64]) }
}

/// Returns a CONNECT for a session that outlives the connection: some crates store messages for
/// resending only for such a session.
pub fn connect(version: Version, in_flight: u16) -> Connect<'static> {
    let mut connect = Connect { keep_alive: 60, ..Connect::new(version, "client-0001") };
    if version == Version::V5_0 {
        connect.properties.session_expiry_interval = Some(3_600);
        connect.properties.receive_maximum = Some(in_flight);
    }
    connect
}

/// Returns the answer to that CONNECT.
pub fn connack(version: Version, in_flight: u16) -> Connack<'static> {
    let receive_maximum = (version == Version::V5_0).then_some(in_flight);
    let properties = ConnackProperties { receive_maximum, ..ConnackProperties::default() };
    Connack { session_present: false, reason_code: ReasonCode::SUCCESS, properties }
}

pub fn encoded<'a>(packet: impl Into<Packet<'a>>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(&packet.into(), Rules::new(version), &mut bytes).expect("a packet");
    bytes
}
