//! What a session machine has to offer to take part: bytes in, bytes out, and a host that is told
//! what they mean.

use crate::cases::{PAYLOAD, TOPIC};
use mqtt_sansio::codec::{
    self, Connack, ConnackProperties, Connect, Packet, Publish, QoS, ReasonCode, Rules, Version,
};

/// One side of a connection whose handshake is over, and whose session outlives it, called as its
/// users call it.
///
/// It is the host's part to read and write the transport and to look at the clock, and that is not
/// timed. What a machine wants of a host besides, as keeping the bytes of half a packet, is.
pub trait Machine {
    /// What it is given to publish. Made before the clock starts, as far as that goes without the
    /// machine: a host that has made a payload has allocated it.
    type Outgoing;

    /// The one message of all cases.
    fn outgoing(qos: QoS) -> Self::Outgoing;

    /// Publishes a message, and gives the name under which its end comes back.
    fn publish(&mut self, message: Self::Outgoing) -> u64;

    /// Takes what the transport has read, which may end in a packet. Panics at anything but
    /// messages and their ends.
    fn receive(&mut self, bytes: &[u8], host: &mut impl Host);

    /// Hands what is to be sent to the transport, in one piece, and forgets it.
    fn written<R>(&mut self, write: impl FnOnce(&[u8]) -> R) -> R;
}

/// Who is told what has arrived.
pub trait Host {
    fn message(&mut self, topic: &[u8], payload: &[u8]);

    /// A message with QoS 1 or 2 was acknowledged to its end.
    fn completed(&mut self, name: u64);
}

/// The message, as the values that ours and the wire are made from.
pub fn message(qos: QoS) -> Publish<'static> {
    Publish { qos, ..Publish::new(TOPIC, &PAYLOAD[..64]) }
}

/// A CONNECT that asks for a session that outlives the connection: some keep messages to send them
/// again only for such a session.
pub fn connect(version: Version, in_flight: u16) -> Connect<'static> {
    let mut connect = Connect { keep_alive: 60, ..Connect::new(version, "client-0001") };
    if version == Version::V5_0 {
        connect.properties.session_expiry_interval = Some(3_600);
        connect.properties.receive_maximum = Some(in_flight);
    }
    connect
}

/// Its answer.
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
