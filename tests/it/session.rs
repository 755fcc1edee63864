//! The client and the server machine together: what a session delivers, however its connections
//! end.

use mqtt_sansio::client::{self};
use mqtt_sansio::codec::{Ack, Connack, Connect, Packet, QoS, ReasonCode, Version};
use testkit::pair::{Chunks, Pair};
use testkit::wire::{VERSIONS, encoded, identifier, lasting, message, packets};

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// [5.0 §4.3] [3.1.1 §4.3]
#[test]
fn messages_of_each_qos_complete_in_both_directions() {
    for version in VERSIONS {
        Pair::in_all_chunks(|pair| {
            pair.connect(&lasting(version));
            for (key, qos) in (1..).zip(QOS) {
                pair.publish(key, &message(qos, "up"));
                pair.deliver(key, &message(qos, "down"));
            }
            pair.settle();
            assert_eq!((pair.at_server.len(), pair.at_client.len()), (3, 3));
            let done = [(2, "Success".to_owned()), (3, "Success".to_owned())];
            assert_eq!(pair.done_at_client, done);
            assert_eq!(pair.done_at_server, done);
            assert_eq!(
                (pair.client.session().in_flight(), pair.server.session().in_flight()),
                (0, 0)
            );
        });
    }
}

/// The connection is cut after every packet of every flow, with either side first. Both hosts
/// resume their sessions, in memory or stored. QoS 0 arrives at most once, QoS 1 at least once, QoS
/// 2 exactly once, each in order, and each message has one outcome. [5.0 MQTT-4.4.0-1]
/// [5.0 MQTT-4.3.3-10] [3.1.1 MQTT-4.4.0-1] [3.1.1 MQTT-4.3.3-2]
#[test]
fn cut_after_any_packet_loses_and_repeats_nothing() {
    for version in VERSIONS {
        for (qos, least) in QOS.into_iter().zip([6, 12, 24]) {
            for (up_first, stored) in [(true, false), (true, true), (false, true)] {
                let cuts = (0..)
                    .take_while(|cut| cut_after(version, qos, up_first, &[*cut], stored))
                    .count();
                assert!(cuts >= least, "{cuts} packets");
            }
        }
    }
}

/// The same, and a second cut after every packet that is resent.
#[test]
fn second_cut_after_any_packet_loses_and_repeats_nothing() {
    for version in VERSIONS {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let twice = |first| {
                (0..)
                    .take_while(|second| cut_after(version, qos, true, &[first, *second], true))
                    .count()
            };
            let cuts: usize = (0..)
                .take_while(|first| cut_after(version, qos, true, &[*first], true))
                .map(twice)
                .sum();
            assert!(
                cuts >= if qos == QoS::AtLeastOnce { 100 } else { 400 },
                "{cuts} pairs of packets"
            );
        }
    }
}

/// Runs one connection after the other, each of which is cut after that many packets. Returns
/// whether every connection had as many.
fn cut_after(version: Version, qos: QoS, up_first: bool, cuts: &[usize], stored: bool) -> bool {
    let mut pair = Pair::new(Chunks::Whole);
    pair.connect(&lasting(version));
    for (key, payload) in [(1, "one"), (2, "two"), (3, "three")] {
        pair.publish(key, &message(qos, payload));
        pair.deliver(key, &message(qos, payload));
    }
    let mut carried = true;
    for (index, cut) in cuts.iter().enumerate() {
        if index > 0 {
            pair.open(&lasting(version));
        }
        carried = (0..*cut).all(|_| pair.carry_packet_first(up_first));
        pair.cut();
        if index == 0 {
            // While disconnected, both sides queue more.
            pair.publish(4, &message(qos, "four"));
            pair.deliver(4, &message(qos, "four"));
        }
        if stored {
            pair.restart();
        }
    }
    pair.connect(&lasting(version));
    let what = format!("{version} {qos:?} cut after {cuts:?}, stored {stored}: {:#?}", pair.log);
    for mut arrived in [pair.at_server.clone(), pair.at_client.clone()] {
        if qos == QoS::AtMostOnce {
            // Messages in flight are lost; messages queued while disconnected wait for the next
            // connection.
            let mut sent = ["one", "two", "three", "four"].iter();
            assert!(arrived.iter().all(|payload| sent.any(|sent| sent == payload)), "{what}");
            assert_eq!(arrived.last().map(String::as_str), Some("four"), "{what}");
            continue;
        }
        if qos == QoS::AtLeastOnce {
            // All unacknowledged messages are resent; the order holds within each connection.
            let last_run = arrived.iter().rposition(|payload| payload == "four").unwrap();
            assert_eq!(last_run, arrived.len() - 1, "{what}");
            let mut seen = std::collections::BTreeSet::new();
            arrived.retain(|payload| seen.insert(payload.clone()));
        }
        assert_eq!(arrived, ["one", "two", "three", "four"], "{what}");
    }
    for mut done in [pair.done_at_client.clone(), pair.done_at_server.clone()] {
        if qos == QoS::AtMostOnce {
            assert_eq!(done, [], "{what}");
            continue;
        }
        done.sort();
        assert_eq!(done, [1, 2, 3, 4].map(|key| (key, "Success".to_owned())), "{what}");
    }
    carried
}

/// [5.0 MQTT-4.6.0-1] [5.0 MQTT-3.3.1-1] [3.1.1 MQTT-4.6.0-1] [3.1.1 MQTT-3.3.1-1]
#[test]
fn resume_resends_messages_and_pubrels_in_original_order_with_dup() {
    for version in VERSIONS {
        let mut pair = Pair::new(Chunks::Whole);
        pair.connect(&lasting(version));
        pair.publish(1, &message(QoS::AtLeastOnce, "one"));
        pair.publish(2, &message(QoS::ExactlyOnce, "two"));
        pair.publish(3, &message(QoS::AtLeastOnce, "three"));
        // Only the PUBREC for "two" arrives.
        pair.forge_to_client(&encoded(
            Packet::Pubrec(Ack::new(identifier(2), ReasonCode::SUCCESS)),
            version,
        ));
        let mut out = Vec::new();
        let mut pubrec =
            &encoded(Packet::Pubrec(Ack::new(identifier(2), ReasonCode::SUCCESS)), version)[..];
        assert!(pair.client.handle_input(&mut pubrec, pair.now, &mut out).is_none());
        pair.cut();
        let mut out = Vec::new();
        pair.client.connect(&lasting(version), pair.now, &mut out).unwrap();
        out.clear();
        let connack = Connack { session_present: version > Version::V3_1, ..Connack::default() };
        let connack = encoded(Packet::Connack(connack), version);
        let mut input = &connack[..];
        let action = pair.client.handle_input(&mut input, pair.now, &mut out);
        if version == Version::V3_1 {
            // 3.1 has no Session Present. Clean Session 0 means that the session resumes.
            assert!(matches!(action, Some(client::Action::Connected(_))));
        }
        let resent = packets(&out, version);
        assert!(matches!(resent[1], Packet::Publish(publish) if publish.dup
                && publish.payload == b"one"
                && publish.packet_identifier == Some(identifier(1))));
        assert!(matches!(resent[0], Packet::Pubrel(ack) if ack.packet_identifier == identifier(2)));
        assert!(matches!(resent[2], Packet::Publish(publish) if publish.dup
                && publish.payload == b"three"
                && publish.packet_identifier == Some(identifier(3))));
        assert_eq!(resent.len(), 3);
    }
}

/// [5.0 MQTT-3.2.2-5]
#[test]
fn lost_session_ends_messages_in_flight_and_sends_queued_ones() {
    Pair::in_all_chunks(|pair| {
        pair.connect(&lasting(Version::V5_0));
        pair.publish(1, &message(QoS::AtLeastOnce, "sent"));
        pair.cut();
        pair.publish(2, &message(QoS::AtLeastOnce, "waiting"));
        pair.connect(&Connect { clean_start: true, ..lasting(Version::V5_0) });
        assert_eq!(pair.done_at_client, [(1, "SessionLost(true)".into()), (2, "Success".into())]);
        assert_eq!(pair.at_server, ["waiting"]);
    });
}

/// [5.0 MQTT-4.4.0-1] [5.0 MQTT-4.6.0-1] [5.0 MQTT-3.1.2-25]
#[test]
fn resume_keeps_order_when_a_message_is_now_too_large() {
    let mut pair = Pair::new(Chunks::Whole);
    pair.connect(&lasting(Version::V5_0));
    let large = "x".repeat(100);
    for (key, payload) in [(1, large.as_str()), (2, "two"), (3, "three"), (4, "four")] {
        pair.deliver(key, &message(QoS::ExactlyOnce, payload));
    }
    // Only the PUBREC for "three" arrives.
    pair.written_by_server();
    let pubrec =
        encoded(Packet::Pubrec(Ack::new(identifier(3), ReasonCode::SUCCESS)), Version::V5_0);
    let (now, mut out) = (pair.now, Vec::new());
    assert!(pair.server.handle_input(&mut &pubrec[..], now, &mut out).is_none());
    pair.cut();
    let mut connect = lasting(Version::V5_0);
    connect.properties.maximum_packet_size = Some(60);
    pair.open(&connect);
    assert!(pair.carry_packet());
    let written = pair.written_by_server();
    let written: Vec<_> = packets(&written, Version::V5_0).into_iter().skip(1).collect();
    assert!(
        matches!(written[1], Packet::Publish(publish) if publish.payload == b"two"),
        "{written:?}"
    );
    assert!(
        matches!(written[0], Packet::Pubrel(ack) if ack.packet_identifier == identifier(3)),
        "{written:?}"
    );
    assert!(
        matches!(written[2], Packet::Publish(publish) if publish.payload == b"four"),
        "{written:?}"
    );
}
