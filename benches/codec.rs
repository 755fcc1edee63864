//! How fast packets are read and written: each packet both ways, mixed streams, in bytes and in
//! packets a second, and long packets beside short ones.
//!
//! `cargo bench --bench codec`. `benches/peers/` compares them with other crates, and counts
//! allocations; `tests/costs/allocations.rs` shows that there are none.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

use core::hint::black_box;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mqtt_sansio::codec::{
    self, Ack, AckProperties, Auth, AuthProperties, Connack, ConnackProperties, Connect,
    ConnectProperties, Disconnect, OwnedPacket, Packet, PacketIdentifier, Publish,
    PublishProperties, QoS, ReasonCode, Sequence, Suback, Subscribe, SubscribeProperties,
    Subscription, Unsubscribe, UnsubscribeProperties, UserProperty, Version, Will, WillProperties,
};

const TOPIC: &str = "sensors/room4/temp/1";

fn identifier() -> PacketIdentifier {
    PacketIdentifier::new(10).unwrap()
}

/// A packet of each type as it is often met, and the largest ones.
fn packets(version: Version) -> Vec<(&'static str, Packet<'static>)> {
    const USER: [UserProperty<'static>; 2] = [
        UserProperty {
            name: codec::Text::literal("region"),
            value: codec::Text::literal("eu-central-1"),
        },
        UserProperty {
            name: codec::Text::literal("trace"),
            value: codec::Text::literal("00-4bf92f3577b34da6-01"),
        },
    ];
    const FILTERS: [&str; 10] = [
        "sensors/room0/+/temp",
        "sensors/room1/#",
        "sensors/room2/temp",
        "sensors/+/temp",
        "sensors/room4/temp/+",
        "a/b/c/d/e",
        "sensors/room6/#",
        "$SYS/broker/load/#",
        "sensors/room8/temp",
        "sensors/room9/+",
    ];
    static PAYLOAD: [u8; 65_536] = [b'x'; 65_536];
    let v5 = version == Version::V5_0;
    let publish = |size: usize| Publish::new(TOPIC, &PAYLOAD[..size]);
    let with_properties = Publish {
        qos: QoS::AtLeastOnce,
        packet_identifier: Some(identifier()),
        properties: PublishProperties {
            message_expiry_interval: Some(3_600),
            content_type: Some("application/json".into()),
            response_topic: Some("answers/room4".into()),
            user_properties: (&USER).into(),
            ..PublishProperties::default()
        },
        ..publish(256)
    };
    let user_properties = if v5 { Sequence::from(&USER) } else { Sequence::default() };
    let full = Connect {
        keep_alive: 60,
        will: Some(Will {
            qos: QoS::AtLeastOnce,
            topic: "status/client-0001".into(),
            payload: b"offline",
            properties: WillProperties { user_properties, ..WillProperties::default() },
            ..Will::default()
        }),
        user_name: Some("device-0001".into()),
        password: Some(b"correct horse battery staple"),
        properties: ConnectProperties {
            session_expiry_interval: v5.then_some(3_600),
            receive_maximum: v5.then_some(100),
            maximum_packet_size: v5.then_some(1 << 20),
            topic_alias_maximum: v5.then_some(10),
            user_properties,
            ..ConnectProperties::default()
        },
        ..Connect::new(version, "client-0001-with-a-name")
    };
    let subscriptions: &'static [_] =
        FILTERS.map(|filter| Subscription::new(filter, QoS::AtLeastOnce)).to_vec().leak();
    let filters: &'static [_] = FILTERS.map(Into::into).to_vec().leak();
    static CODES: [ReasonCode; 10] = [ReasonCode::GRANTED_QOS_1; 10];
    static UNSUBSCRIBED: [ReasonCode; 10] = [ReasonCode::SUCCESS; 10];
    let ack = Ack::new(identifier(), ReasonCode::SUCCESS);
    let mut packets = vec![
        ("publish 64 B", publish(64).into()),
        (
            "publish 1 KiB QoS 1",
            Publish {
                qos: QoS::AtLeastOnce,
                packet_identifier: Some(identifier()),
                ..publish(1_024)
            }
            .into(),
        ),
        ("publish 64 KiB", publish(65_536).into()),
        ("publish UTF-8", Publish::new("датчики/кухня/температура", &PAYLOAD[..64]).into()),
        ("puback", Packet::Puback(ack)),
        ("pubrec", Packet::Pubrec(ack)),
        ("pubrel", Packet::Pubrel(ack)),
        ("pubcomp", Packet::Pubcomp(ack)),
        ("connect", Connect { clean_start: true, ..Connect::new(version, "client-0001") }.into()),
        ("connect full", full.into()),
        ("subscribe 10", {
            let subscriptions = subscriptions.into();
            Subscribe {
                packet_identifier: identifier(),
                properties: SubscribeProperties::default(),
                subscriptions,
            }
            .into()
        }),
        ("suback 10", {
            let reason_codes = (&CODES).into();
            Packet::Suback(Suback {
                packet_identifier: identifier(),
                properties: AckProperties::default(),
                reason_codes,
            })
        }),
        ("unsubscribe 10", {
            let topic_filters = filters.into();
            Unsubscribe {
                packet_identifier: identifier(),
                properties: UnsubscribeProperties::default(),
                topic_filters,
            }
            .into()
        }),
        ("unsuback 10", {
            let reason_codes = if v5 { (&UNSUBSCRIBED).into() } else { Sequence::default() };
            Packet::Unsuback(Suback {
                packet_identifier: identifier(),
                properties: AckProperties::default(),
                reason_codes,
            })
        }),
        ("connack", Connack::default().into()),
        ("pingreq", Packet::Pingreq),
        ("pingresp", Packet::Pingresp),
        ("disconnect", Disconnect::default().into()),
    ];
    if v5 {
        packets.push(("publish 256 B properties", with_properties.into()));
        let properties = ConnackProperties {
            assigned_client_identifier: Some("auto-0123456789".into()),
            receive_maximum: Some(100),
            maximum_packet_size: Some(1 << 20),
            topic_alias_maximum: Some(10),
            user_properties,
            ..ConnackProperties::default()
        };
        packets.push(("connack properties", Connack { properties, ..Connack::default() }.into()));
        let properties = AuthProperties {
            authentication_method: Some("SCRAM-SHA-256".into()),
            authentication_data: Some(b"n,,n=device-0001,r=fyko"),
            ..AuthProperties::default()
        };
        packets.push((
            "auth",
            Auth { reason_code: ReasonCode::CONTINUE_AUTHENTICATION, properties }.into(),
        ));
    }
    packets
}

fn bytes(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    codec::encode(packet, version, &mut out).unwrap();
    out
}

fn each_packet(criterion: &mut Criterion) {
    for version in [Version::V3_1_1, Version::V5_0] {
        let mut group = criterion.benchmark_group(format!("decode {version}"));
        for (name, packet) in packets(version) {
            let bytes = bytes(&packet, version);
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let frame = codec::frame(black_box(&bytes), u32::MAX).unwrap().unwrap();
                    black_box(codec::decode(frame, version)).is_ok()
                });
            });
        }
        group.finish();
        let mut group = criterion.benchmark_group(format!("encode {version}"));
        for (name, packet) in packets(version) {
            let mut out = Vec::with_capacity(70_000);
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    out.clear();
                    codec::encode(black_box(&packet), version, &mut out).unwrap();
                    black_box(&out);
                });
            });
        }
        group.finish();
    }
}

/// 10,000 packets: 60 % PUBLISH, 25 % acknowledgements, 15 % others.
fn stream(version: Version) -> Vec<u8> {
    let all = packets(version);
    let named = |name: &str| &all.iter().find(|(other, _)| *other == name).unwrap().1;
    let mut state = 1_u32;
    let mut stream = Vec::new();
    for _ in 0..10_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let name = match state >> 24 {
            0..120 => "publish 64 B",
            120..154 => "publish 1 KiB QoS 1",
            154..218 => "puback",
            218..240 => "pingreq",
            240..248 => "suback 10",
            _ => "subscribe 10",
        };
        codec::encode(named(name), version, &mut stream).unwrap();
    }
    stream
}

fn streams(criterion: &mut Criterion) {
    for version in [Version::V3_1_1, Version::V5_0] {
        let stream = stream(version);
        for throughput in [Throughput::Bytes(stream.len() as u64), Throughput::Elements(10_000)] {
            let unit = if matches!(throughput, Throughput::Bytes(_)) { "bytes" } else { "packets" };
            let mut group = criterion.benchmark_group(format!("stream {version}, {unit}"));
            group.throughput(throughput);
            group.bench_function("borrowed, 4 KiB chunks", |bencher| {
                let mut buffer = Vec::with_capacity(16_384);
                bencher.iter(|| assert_eq!(read_in_chunks(&stream, &mut buffer, version), 10_000));
            });
            group.bench_function("owned", |bencher| {
                bencher.iter_batched_ref(
                    || bytes::BytesMut::from(&stream[..]),
                    |buffer| {
                        while let Some(packet) =
                            OwnedPacket::split_from(buffer, u32::MAX, version).unwrap()
                        {
                            black_box(packet);
                        }
                    },
                    BatchSize::LargeInput,
                );
            });
            group.finish();
        }
    }
}

/// How many packets there are.
fn read_in_chunks(stream: &[u8], buffer: &mut Vec<u8>, version: Version) -> usize {
    let mut count = 0;
    for chunk in stream.chunks(4_096) {
        buffer.extend_from_slice(chunk);
        let mut start = 0;
        while let Some(frame) = codec::frame(&buffer[start..], u32::MAX).unwrap() {
            black_box(codec::decode(frame, version)).unwrap();
            start += frame.as_bytes().len();
            count += 1;
        }
        buffer.drain(..start);
    }
    count
}

/// What is long costs per byte what is short: the second of each pair has the throughput of the
/// first, until it leaves the caches.
fn lengths(criterion: &mut Criterion) {
    let user_properties = vec![UserProperty::new("region", "eu-central-1"); 10_000];
    let subscriptions = vec![Subscription::new("sensors/+/temp", QoS::AtLeastOnce); 20_000];
    let payload = vec![b'x'; 16 << 20];
    let properties = |count| {
        let properties = PublishProperties {
            user_properties: user_properties[..count].into(),
            ..PublishProperties::default()
        };
        Packet::from(Publish { properties, ..Publish::new(TOPIC, b"") })
    };
    let filters = |count| {
        let properties = SubscribeProperties::default();
        Packet::from(Subscribe {
            packet_identifier: identifier(),
            properties,
            subscriptions: subscriptions[..count].into(),
        })
    };
    let payloads = |size| Packet::from(Publish::new(TOPIC, &payload[..size]));
    for (name, packet) in [
        ("10 user properties", properties(10)),
        ("10,000 user properties", properties(10_000)),
        ("10 filters", filters(10)),
        ("20,000 filters", filters(20_000)),
        ("payload of 64 KiB", payloads(64 << 10)),
        ("payload of 16 MiB", payloads(16 << 20)),
    ] {
        let bytes = bytes(&packet, Version::V5_0);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("decode", |bencher| {
            bencher.iter(|| {
                let frame = codec::frame(black_box(&bytes), u32::MAX).unwrap().unwrap();
                black_box(codec::decode(frame, Version::V5_0)).is_ok()
            });
        });
        let mut out = Vec::with_capacity(bytes.len());
        group.bench_function("encode", |bencher| {
            bencher.iter(|| {
                out.clear();
                codec::encode(black_box(&packet), Version::V5_0, &mut out).unwrap();
                black_box(&out);
            });
        });
        group.finish();
    }
}

criterion_group!(benches, each_packet, streams, lengths);
criterion_main!(benches);
