//! Runs the properties of the fuzz targets over the wire vectors, mutations of them, and inputs
//! that once failed.

use arbitrary::{Arbitrary as _, Unstructured};
use mqtt_sansio::codec::{self, Malformed, Packet, Role, Rules, Version};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use testkit::machines::{self, Tally};
use testkit::random::Random;
use testkit::wire::VERSIONS;
use testkit::{broker, files, properties, sn, vectors};

/// Returns each vector unchanged, and with a byte changed, removed or doubled at several places.
fn inputs() -> impl Iterator<Item = Vec<u8>> {
    let all = vectors::all(2_048);
    assert!(all.len() > 3_000);
    all.into_iter().flat_map(|(first, bytes)| {
        let data = [&[first], &bytes[..]].concat();
        let step = data.len().div_ceil(12);
        let mutated = (0..data.len()).step_by(step).flat_map({
            let data = data.clone();
            move |at| {
                let [mut changed, mut removed, mut doubled] =
                    [data.clone(), data.clone(), data.clone()];
                changed[at] ^= 1 << (at % 8);
                removed.remove(at);
                doubled.insert(at, data[at]);
                [changed, removed, doubled]
            }
        });
        // The first byte selects all options.
        let with_options = [&[first + 9], &bytes[..]].concat();
        mutated.chain([data, with_options])
    })
}

fn run(target: &str, property: fn(&[u8])) {
    inputs().for_each(|data| property(&data));
    regressions(target).iter().for_each(|data| property(data));
}

/// Returns the inputs in `fuzz/regressions/` of a target.
fn regressions(target: &str) -> Vec<Vec<u8>> {
    let Ok(found) = fs::read_dir(files::root().join("fuzz/regressions").join(target)) else {
        return Vec::new();
    };
    found.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn decode_property_holds_for_vectors_and_mutations() {
    run("decode", properties::decode);
}

#[test]
fn roundtrip_property_holds_for_vectors_and_mutations() {
    run("roundtrip", properties::roundtrip);
}

#[test]
fn split_property_holds_for_vectors_and_mutations() {
    run("split", properties::split);
}

#[test]
fn encode_property_holds_for_vectors_and_mutations() {
    run("encode", properties::encode);
}

#[test]
fn topic_property_holds_for_vectors_and_mutations() {
    run("topic", properties::topic);
}

#[test]
fn sn_property_holds_for_vectors_and_mutations() {
    for bytes in vectors::sn(70_000) {
        sn::codec(&bytes);
        for at in (0..bytes.len()).step_by(bytes.len().div_ceil(12).max(1)) {
            let [mut changed, mut removed, mut doubled] = [&bytes; 3].map(Vec::clone);
            (0..8).for_each(|bit| {
                changed[at] = bytes[at] ^ 1 << bit;
                sn::codec(&changed);
            });
            removed.remove(at);
            doubled.insert(at, bytes[at]);
            [removed, doubled].iter().for_each(|bytes| sn::codec(bytes));
        }
    }
    regressions("sn").iter().for_each(|data| sn::codec(data));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Packets of all types with arbitrary fields, by the rules of each version and sender.
    #[test]
    fn arbitrary_packets_encode_and_decode_equal_or_are_refused(data in prop::collection::vec(any::<u8>(), 0..300)) {
        properties::encode(&data);
    }

    /// [SN §5.4]
    #[test]
    fn arbitrary_sn_messages_encode_and_decode_equal_or_are_refused(data in prop::collection::vec(any::<u8>(), 0..100)) {
        sn::codec(&data);
    }

    #[test]
    fn arbitrary_topic_filters_are_checked_and_matched_like_the_reference(data in prop::collection::vec(
        prop::sample::select(b"ab/+#$\0\x05\xC3\xA9".as_slice()), 0..30,
    )) {
        properties::topic(&data);
    }
}

#[test]
fn router_property_holds_for_random_operations() {
    for seed in 0..600 {
        let mut random = Random(seed);
        let data: Vec<u8> = (0..100 + 8 * seed).map(|_| random.byte()).collect();
        properties::router(&data);
    }
    regressions("router").iter().for_each(|data| properties::router(data));
}

/// Runs random operations on a machine. Each kind of event must occur often enough.
fn operate(target: &str, operations: fn(&[u8], &mut Tally)) {
    let mut tally = Tally::default();
    machines::seeds().iter().for_each(|data| operations(data, &mut tally));
    for seed in 0..1_200 {
        let mut random = Random(seed);
        let data: Vec<u8> = (0..100 + seed).map(|_| random.byte()).collect();
        operations(&data, &mut tally);
    }
    println!("{target}: {tally:?}");
    regressions(target).iter().for_each(|data| operations(data, &mut tally));
    let Tally { connections, received, acknowledged, sent_again, expired, not_allowed, .. } = tally;
    let Tally { requests, violations, timeouts, stored, .. } = tally;
    let counts =
        [connections, received, acknowledged, sent_again, requests, violations, timeouts, stored];
    assert!(
        counts.iter().all(|count| *count > 200) && expired > 5 && not_allowed > 20,
        "{target}: {tally:?}"
    );
}

#[test]
fn client_properties_hold_for_random_operations() {
    operate("client", machines::client);
}

#[test]
fn server_properties_hold_for_random_operations() {
    operate("server", machines::server);
}

#[test]
fn broker_properties_hold_for_random_events() {
    let mut tally = broker::Tally::default();
    for seed in 0..3_000 {
        let mut random = Random(seed);
        let data: Vec<u8> = (0..100 + seed / 4).map(|_| random.byte()).collect();
        broker::run(&data, &mut tally);
    }
    regressions("broker").iter().for_each(|data| broker::run(data, &mut tally));
    println!("{tally:?}");
    let broker::Tally { events, accepted, delivered, asked, closed, dropped, crashed } = tally;
    assert!(crashed > 100, "{tally:?}");
    assert!(
        [events, accepted, delivered, asked, closed, dropped].iter().all(|count| *count > 1_000),
        "{tally:?}"
    );
}

/// Without this test the properties would also hold if no packet ever encoded.
#[test]
fn arbitrary_packets_encode_nine_times_in_ten() {
    let mut random = Random(1);
    let mut data = |_| bytes(&mut random, 200);
    let encodes =
        |packet: &Packet<'_>, rules| codec::encode(packet, rules, &mut Vec::new()).is_ok();
    for version in VERSIONS {
        let any = Rules::new(version);
        for rules in [any, any.sent_by(Role::Client), any.sent_by(Role::Server)] {
            let (mut drawn, mut encoded) = ([0; 16], [0; 16]);
            for data in (0..4_000).map(&mut data) {
                let packet = Packet::arbitrary_by(rules, &mut Unstructured::new(&data)).unwrap();
                drawn[packet.packet_type() as usize] += 1;
                encoded[packet.packet_type() as usize] += usize::from(encodes(&packet, rules));
            }
            let total: usize = encoded.iter().sum();
            assert!(total > 3_600, "{rules:?}: {total} of 4,000");
            for (packet_type, (drawn, encoded)) in drawn.iter().zip(encoded).enumerate().skip(1) {
                // A packet that the sender cannot send was drawn carelessly.
                let is_rare = *drawn < 40 && encoded == 0;
                assert!(is_rare || encoded * 10 > drawn * 9, "{packet_type}: {encoded} of {drawn}");
            }
        }
    }
    let data: Vec<_> = (0..4_000).map(&mut data).collect();
    let packets = data.iter().map(|data| Packet::arbitrary(&mut Unstructured::new(data)).unwrap());
    assert!(packets.filter(|packet| encodes(packet, Version::V5_0.into())).count() > 3_600);
}

fn bytes(random: &mut Random, count: usize) -> Vec<u8> {
    (0..count).map(|_| random.byte()).collect()
}

/// Each rule that the bytes of a packet can break is broken.
#[test]
fn malformed_packets_break_each_rule() {
    let mut random = Random(2);
    let mut broken = BTreeMap::<String, u32>::new();
    for version in VERSIONS {
        let any = Rules::new(version);
        for rules in [any, any.sent_by(Role::Client), any.sent_by(Role::Server)] {
            for _ in 0..10_000 {
                let data = bytes(&mut random, 120);
                let malformed = Malformed::arbitrary(rules, &mut Unstructured::new(&data)).unwrap();
                let decoded = codec::frame(malformed.as_bytes(), u32::MAX)
                    .and_then(|frame| codec::decode(frame.expect("a whole packet"), rules));
                assert_eq!(decoded, Err(malformed.error()));
                let name = format!("{:?}", malformed.error());
                *broken.entry(name.split('(').next().unwrap().to_owned()).or_default() += 1;
            }
        }
    }
    // Of 45 rules, two need an option, and one needs a limit.
    assert_eq!(broken.len(), 42, "{broken:?}");
}
