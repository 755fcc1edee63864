//! How fast packets are read and written: each packet both ways, mixed streams in bytes and in
//! packets per second, and long packets beside short ones.
//!
//! `cargo bench --bench codec`. `benches/peers/` compares the codec with other crates, and counts
//! allocations; `tests/costs/allocations.rs` shows that there are none.

#![allow(missing_docs, unreachable_pub, reason = "a bench has no public face")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

use core::hint::black_box;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mqtt_sansio::codec::{
    self, OwnedPacket, Packet, Publish, PublishProperties, QoS, Subscribe, SubscribeProperties,
    Subscription, UserProperty, Version,
};
use samples::{TOPIC, identifier, packets};

mod samples;

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

/// Returns 10,000 packets: 60 % PUBLISH, 25 % acknowledgements, 15 % others.
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

/// Returns the number of packets.
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

/// Measures short and long packets, which cost the same per byte: the second of each pair has the
/// throughput of the first, until it leaves the caches.
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
