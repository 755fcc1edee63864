//! Short forms to write and read packets.

use mqtt_sansio::codec::{
    self, Ack, Connect, Packet, PacketIdentifier, Publish, QoS, ReasonCode, Subscribe,
    SubscribeProperties, Subscription, Version,
};

pub const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5_0];
pub const V5_0: Version = Version::V5_0;

/// Returns the bytes of a packet.
pub fn encoded<'a>(packet: impl Into<Packet<'a>>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    codec::encode(&packet.into(), version, &mut out).unwrap();
    out
}

/// Reads all packets, the last of which must be complete.
pub fn packets(mut bytes: &[u8], version: Version) -> Vec<Packet<'_>> {
    let mut packets = Vec::new();
    while let Some(frame) = codec::frame(bytes, u32::MAX).unwrap() {
        packets.push(codec::decode(frame, version).unwrap());
        bytes = &bytes[frame.as_bytes().len()..];
    }
    assert!(bytes.is_empty(), "the last packet is incomplete");
    packets
}

pub fn identifier(number: u16) -> PacketIdentifier {
    PacketIdentifier::new(number).unwrap()
}

/// Returns the bytes of a PUBACK, PUBREC, PUBREL or PUBCOMP that reports success.
pub fn ack(packet: fn(Ack<'static>) -> Packet<'static>, number: u16, version: Version) -> Vec<u8> {
    encoded(packet(Ack::new(identifier(number), ReasonCode::SUCCESS)), version)
}

/// Returns the bytes of a SUBSCRIBE with one topic filter.
pub fn subscribe(number: u16, filter: &str, qos: QoS, version: Version) -> Vec<u8> {
    let subscriptions = [Subscription::new(filter, qos)];
    let subscribe = Subscribe {
        packet_identifier: identifier(number),
        properties: SubscribeProperties::default(),
        subscriptions: (&subscriptions).into(),
    };
    encoded(subscribe, version)
}

/// Returns a CONNECT of a client whose session outlives its connections.
pub fn lasting(version: Version) -> Connect<'static> {
    let mut connect = Connect::new(version, "c");
    if version == V5_0 {
        connect.properties.session_expiry_interval = Some(u32::MAX);
    }
    connect
}

/// Returns a PUBLISH to the topic `t`.
pub fn message<'a>(qos: QoS, payload: &'a str) -> Publish<'a> {
    Publish { qos, ..Publish::new("t", payload.as_bytes()) }
}
