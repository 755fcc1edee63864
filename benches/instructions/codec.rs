//! Packets to bytes and back.

use crate::samples::{self, TOPIC, identifier};
use crate::{Cases, MOST, Repeat};
use bytes::BytesMut;
use core::hint::black_box;
use mqtt_sansio::codec::{
    self, OwnedPacket, Packet, Publish, PublishProperties, QoS, Subscribe, SubscribeProperties,
    Subscription, UserProperty, Version,
};

pub fn add(cases: &mut Cases) {
    for version in [Version::V3_1_1, Version::V5_0] {
        for (name, packet) in samples::packets(version) {
            cases.add(format!("decode {version} {name}"), move || decode(packet, version));
        }
        for (name, packet) in samples::packets(version) {
            cases.add(format!("encode {version} {name}"), move || encode(packet, version));
        }
        for (name, packet) in samples::packets(version) {
            let has_strings = matches!(
                packet,
                Packet::Publish(_)
                    | Packet::Connect(_)
                    | Packet::Subscribe(_)
                    | Packet::Unsubscribe(_)
                    | Packet::Auth(_)
            );
            if has_strings || name == "connack 10 properties" {
                cases.add(format!("encode checked {version} {name}"), move || {
                    encode(samples::checked(packet), version)
                });
            }
        }
        cases.add(format!("make and encode {version} publish 64 B"), move || make_publish(version));
        cases.add(format!("make and encode {version} subscribe 10"), move || {
            make_subscribe(version)
        });
    }
    cases.add("make and encode 5.0 publish 5 properties", make_publish_with_properties);
    for (version, name) in [
        (Version::V3_1_1, "publish 64 B"),
        (Version::V5_0, "publish 64 B"),
        (Version::V5_0, "publish 5 properties"),
        (Version::V5_0, "connect all"),
        (Version::V5_0, "subscribe 10"),
    ] {
        let packet = sample(name, version);
        cases.add(format!("split owned {version} {name}"), move || split_owned(packet, version));
        cases.add(format!("decode owned {version} {name}"), move || decode_owned(packet, version));
        cases.add(format!("new owned {version} {name}"), move || new_owned(packet, version));
    }
    cases.add("encode header 5.0 publish 64 KiB", encode_header);
    // Their strings are checked, so the encoder does not check them again.
    for (version, name) in [
        (Version::V3_1_1, "publish 64 B"),
        (Version::V3_1_1, "publish UTF-8"),
        (Version::V5_0, "publish 5 properties"),
    ] {
        let packet = sample(name, version);
        cases.add(format!("encode decoded {version} {name}"), move || {
            let bytes = encoded(&packet, version).leak();
            let frame = codec::frame(bytes, u32::MAX).unwrap().unwrap();
            encode(codec::decode(frame, version).unwrap(), version)
        });
    }
}

fn sample(name: &str, version: Version) -> Packet<'static> {
    samples::packets(version).into_iter().find(|(other, _)| *other == name).unwrap().1
}

fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    codec::encode(packet, version, &mut out).unwrap();
    out
}

fn decode(packet: Packet<'static>, version: Version) -> Repeat {
    let bytes = encoded(&packet, version);
    Box::new(move |count| {
        for _ in 0..count {
            let frame = codec::frame(black_box(&bytes), u32::MAX).unwrap().unwrap();
            assert!(black_box(&codec::decode(frame, version)).is_ok());
        }
    })
}

fn encode(packet: Packet<'static>, version: Version) -> Repeat {
    let mut out = Vec::with_capacity(70_000);
    Box::new(move |count| {
        for _ in 0..count {
            out.clear();
            codec::encode(black_box(&packet), version, &mut out).unwrap();
            black_box(&out);
        }
    })
}

/// Encodes only the part before the payload.
fn encode_header() -> Repeat {
    let Packet::Publish(publish) = sample("publish 64 KiB", Version::V5_0) else { unreachable!() };
    let mut out = Vec::with_capacity(70_000);
    Box::new(move |count| {
        for _ in 0..count {
            out.clear();
            codec::encode_publish_header(black_box(&publish), Version::V5_0, &mut out).unwrap();
            black_box(&out);
        }
    })
}

/// Makes a PUBLISH of strings and bytes, as an application has them, and encodes it.
fn make_publish(version: Version) -> Repeat {
    let mut out = Vec::with_capacity(70_000);
    Box::new(move |count| {
        for _ in 0..count {
            out.clear();
            let packet = Publish::new(black_box(TOPIC), black_box(&[b'x'; 64])).into();
            codec::encode(&packet, version, &mut out).unwrap();
            black_box(&out);
        }
    })
}

fn make_publish_with_properties() -> Repeat {
    let payload = [b'x'; 256];
    let mut out = Vec::with_capacity(70_000);
    Box::new(move |count| {
        for _ in 0..count {
            out.clear();
            let user_properties = [UserProperty::new(black_box("region"), "eu-central-1")];
            let properties = PublishProperties {
                message_expiry_interval: Some(black_box(3_600)),
                content_type: Some(black_box("application/json").into()),
                response_topic: Some(black_box("answers/room4").into()),
                correlation_data: Some(black_box(b"request-17")),
                user_properties: (&user_properties).into(),
                ..PublishProperties::default()
            };
            let packet = Publish {
                qos: QoS::AtLeastOnce,
                packet_identifier: Some(identifier()),
                properties,
                ..Publish::new(black_box(TOPIC), black_box(&payload))
            };
            codec::encode(&packet.into(), Version::V5_0, &mut out).unwrap();
            black_box(&out);
        }
    })
}

fn make_subscribe(version: Version) -> Repeat {
    let mut out = Vec::with_capacity(70_000);
    Box::new(move |count| {
        for _ in 0..count {
            out.clear();
            let subscriptions = black_box(samples::FILTERS)
                .map(|filter| Subscription::new(filter, QoS::AtLeastOnce));
            let packet = Subscribe {
                packet_identifier: identifier(),
                properties: SubscribeProperties::default(),
                subscriptions: (&subscriptions).into(),
            };
            codec::encode(&packet.into(), version, &mut out).unwrap();
            black_box(&out);
        }
    })
}

/// Splits packets off a buffer that holds many.
fn split_owned(packet: Packet<'static>, version: Version) -> Repeat {
    let mut buffer = BytesMut::from(&encoded(&packet, version).repeat(MOST)[..]);
    Box::new(move |count| {
        for _ in 0..count {
            let packet = OwnedPacket::split_from(black_box(&mut buffer), u32::MAX, version);
            assert!(black_box(&packet.unwrap()).is_some());
        }
    })
}

fn decode_owned(packet: Packet<'static>, version: Version) -> Repeat {
    let packet = OwnedPacket::new(&packet, version).unwrap();
    Box::new(move |count| {
        for _ in 0..count {
            black_box(&black_box(&packet).decode());
        }
    })
}

fn new_owned(packet: Packet<'static>, version: Version) -> Repeat {
    Box::new(move |count| {
        for _ in 0..count {
            black_box(&OwnedPacket::new(black_box(&packet), version).unwrap());
        }
    })
}
