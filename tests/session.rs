//! The client and the server machine against each other: what a session owes, whatever becomes of the connection.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    reason = "tests may panic"
)]

mod pair;

use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::client::{self, Client, ClientConfig, ConnectError};
use mqtt_sansio::codec::{
    self, Ack, Connack, ConnackProperties, Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet,
    PacketIdentifier, Publish, PublishProperties, QoS, ReasonCode, SubscribeProperties, Subscription, UnsubscribeProperties,
    Version,
};
use mqtt_sansio::server::{self, Server, ServerConfig};
use mqtt_sansio::session::{AcknowledgeError, CloseCause, ProtocolError, PublishError, Session};
use pair::{Chunks, Pair, VERSIONS, lasting, message};

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

fn encoded(packet: impl Into<Packet<'static>>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    codec::encode(&packet.into(), version, &mut out).unwrap();
    out
}

fn packets(mut bytes: &[u8], version: Version) -> Vec<Packet<'_>> {
    let mut packets = Vec::new();
    while let Some(frame) = codec::frame(bytes, u32::MAX).unwrap() {
        packets.push(codec::decode(frame, version).unwrap());
        bytes = &bytes[frame.as_bytes().len()..];
    }
    packets
}

fn id(number: u16) -> PacketIdentifier {
    PacketIdentifier::new(number).unwrap()
}

// ---- messages ----

/// [5.0 §4.3] [3.1.1 §4.3]
#[test]
fn each_qos_completes_under_its_key_in_both_directions() {
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
            assert_eq!((pair.client.session().in_flight(), pair.server.session().in_flight()), (0, 0));
        });
    }
}

/// The line is cut after every packet of every flow, whichever side's packets come first, and both hosts go on with the sessions as they
/// are or as they were stored: QoS 1 arrives at least once, QoS 2 exactly once, each in order, and each message has one end.
/// [5.0 MQTT-4.4.0-1] [5.0 MQTT-4.3.3-10] [3.1.1 MQTT-4.4.0-1] [3.1.1 MQTT-4.3.3-2]
#[test]
fn a_cut_after_any_packet_loses_and_repeats_nothing() {
    for version in VERSIONS {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for (up_first, stored) in [(true, false), (true, true), (false, true)] {
                let cuts = (0..).take_while(|cut| cut_after(version, qos, up_first, &[*cut], stored)).count();
                assert!(cuts >= if qos == QoS::AtLeastOnce { 12 } else { 24 }, "{cuts} packets");
            }
        }
    }
}

/// The same, and once more after every packet of what was sent again.
#[test]
fn a_second_cut_after_any_packet_loses_and_repeats_nothing() {
    for version in VERSIONS {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let twice = |first| (0..).take_while(|second| cut_after(version, qos, true, &[first, *second], true)).count();
            let cuts: usize = (0..).take_while(|first| cut_after(version, qos, true, &[*first], true)).map(twice).sum();
            assert!(cuts >= if qos == QoS::AtLeastOnce { 100 } else { 400 }, "{cuts} pairs of packets");
        }
    }
}

/// One connection after the other, each of which is cut after so many packets; whether it has had as many.
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
            // While there is no connection both take more.
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
        if qos == QoS::AtLeastOnce {
            // A repeat of all that was not acknowledged; order within each connection.
            let last_run = arrived.iter().rposition(|payload| payload == "four").unwrap();
            assert_eq!(last_run, arrived.len() - 1, "{what}");
            let mut seen = std::collections::BTreeSet::new();
            arrived.retain(|payload| seen.insert(payload.clone()));
        }
        assert_eq!(arrived, ["one", "two", "three", "four"], "{what}");
    }
    for mut done in [pair.done_at_client.clone(), pair.done_at_server.clone()] {
        done.sort();
        assert_eq!(done, [1, 2, 3, 4].map(|key| (key, "Success".to_owned())), "{what}");
    }
    carried
}

/// [5.0 MQTT-4.6.0-1] [5.0 MQTT-3.3.1-1] [3.1.1 MQTT-4.6.0-1] [3.1.1 MQTT-3.3.1-1]
#[test]
fn a_resume_repeats_in_the_original_order_with_dup_and_pubrel_owed() {
    for version in VERSIONS {
        let mut pair = Pair::new(Chunks::Whole);
        pair.connect(&lasting(version));
        pair.publish(1, &message(QoS::AtLeastOnce, "one"));
        pair.publish(2, &message(QoS::ExactlyOnce, "two"));
        pair.publish(3, &message(QoS::AtLeastOnce, "three"));
        // Only PUBREC for "two" comes back.
        pair.forge_to_client(&encoded(Packet::Pubrec(Ack::new(id(2), ReasonCode::SUCCESS)), version));
        let mut out = Vec::new();
        let mut pubrec = &encoded(Packet::Pubrec(Ack::new(id(2), ReasonCode::SUCCESS)), version)[..];
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
            // 3.1 has no Session Present; Clean Session 0 says that the session goes on.
            assert!(matches!(action, Some(client::Action::Connected(_))));
        }
        let resent = packets(&out, version);
        assert!(matches!(resent[0], Packet::Publish(p) if p.dup && p.payload == b"one" && p.packet_identifier == Some(id(1))));
        assert!(matches!(resent[1], Packet::Pubrel(ack) if ack.packet_identifier == id(2)));
        assert!(matches!(resent[2], Packet::Publish(p) if p.dup && p.payload == b"three" && p.packet_identifier == Some(id(3))));
        assert_eq!(resent.len(), 3);
    }
}

/// [5.0 MQTT-3.2.2-5]
#[test]
fn a_lost_session_ends_what_was_in_flight_and_sends_what_waited() {
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

/// [5.0 MQTT-3.3.4-7] [5.0 MQTT-3.3.4-9] [5.0 MQTT-4.9.0-2] [5.0 MQTT-4.9.0-3]
#[test]
fn no_more_than_receive_maximum_messages_are_under_way() {
    Pair::in_all_chunks_with(&ClientConfig::new(), &ServerConfig::new().receive_maximum(2), |pair| {
        let mut connect = lasting(Version::V5_0);
        connect.properties.receive_maximum = Some(3);
        pair.connect(&connect);
        for key in 0..10 {
            pair.publish(key, &message(QoS::ExactlyOnce, "up"));
            pair.deliver(key, &message(QoS::AtLeastOnce, "down"));
        }
        pair.client(|client, now, out| {
            client.subscribe(99, &[Subscription::new("#", QoS::AtMostOnce)], SubscribeProperties::default(), now, out)
        })
        .unwrap();
        let written = pair.written_by_client();
        let written = packets(&written, Version::V5_0);
        assert_eq!(written.iter().filter(|packet| matches!(packet, Packet::Publish(_))).count(), 2);
        assert!(matches!(written[2], Packet::Subscribe(_)), "other packets do not wait");
        assert_eq!(packets(&pair.written_by_server(), Version::V5_0).len(), 3);
        assert_eq!(pair.client.session().queued(), 8);
        pair.settle();
        assert_eq!((pair.at_server.len(), pair.at_client.len()), (10, 10));
        assert_eq!((pair.done_at_client.len(), pair.done_at_server.len()), (10, 10));
    });
}

/// [5.0 MQTT-4.9.0-1]
#[test]
fn what_is_sent_again_counts_against_the_new_receive_maximum() {
    Pair::in_all_chunks(|pair| {
        pair.connect(&lasting(Version::V5_0));
        for (key, payload) in (0..5).zip(["a", "b", "c", "d", "e"]) {
            pair.deliver(key, &message(QoS::AtLeastOnce, payload));
        }
        pair.cut();
        let mut connect = lasting(Version::V5_0);
        connect.properties.receive_maximum = Some(1);
        pair.open(&connect);
        assert!(pair.carry_packet(), "CONNECT");
        assert_eq!(packets(&pair.written_by_server(), Version::V5_0).len(), 2, "CONNACK and one PUBLISH");
        pair.settle();
        assert_eq!(pair.at_client, ["a", "b", "c", "d", "e"]);
        assert_eq!(pair.done_at_server.len(), 5);
    });
}

/// [5.0 §3.3.4]
#[test]
fn more_than_receive_maximum_messages_close_the_connection() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut pair = Pair::with(ClientConfig::new().manual_acknowledgement(true), ServerConfig::new(), Chunks::Whole);
        let mut connect = lasting(Version::V5_0);
        connect.properties.receive_maximum = Some(2);
        pair.connect(&connect);
        pair.take_log();
        for number in 1..=3 {
            let publish = Publish { packet_identifier: Some(id(number)), ..message(qos, "x") };
            // A repeat takes no second place.
            let times = if qos == QoS::ExactlyOnce { 2 } else { 1 };
            for _ in 0..times {
                let mut bytes = Vec::new();
                codec::encode(&publish.into(), Version::V5_0, &mut bytes).unwrap();
                pair.forge_to_client(&bytes);
            }
        }
        pair.settle();
        assert_eq!(pair.at_client.len(), 2);
        let log = pair.take_log();
        assert!(log.iter().any(|line| line.starts_with("client: Closed(Violation(ReceiveMaximumExceeded")), "{log:#?}");
        assert!(log.iter().all(|line| !line.contains("server: Disconnected")), "{log:#?}");
    }
}

/// [5.0 MQTT-2.2.1-3] [3.1.1 MQTT-2.3.1-2]
#[test]
fn messages_and_subscriptions_share_the_identifiers() {
    Pair::in_all_chunks(|pair| {
        pair.connect(&lasting(Version::V3_1_1));
        pair.publish(1, &message(QoS::AtLeastOnce, "x"));
        let filter = [Subscription::new("#", QoS::AtMostOnce)];
        pair.client(|client, now, out| client.subscribe(2, &filter, SubscribeProperties::default(), now, out)).unwrap();
        pair.publish(3, &message(QoS::AtLeastOnce, "y"));
        let filters = ["#".into()];
        pair.client(|client, now, out| client.unsubscribe(4, &filters, UnsubscribeProperties::default(), now, out)).unwrap();
        let written = pair.written_by_client();
        let identifiers: Vec<_> = packets(&written, Version::V3_1_1)
            .iter()
            .map(|packet| match packet {
                Packet::Publish(publish) => publish.packet_identifier.unwrap().get(),
                Packet::Subscribe(subscribe) => subscribe.packet_identifier.get(),
                Packet::Unsubscribe(unsubscribe) => unsubscribe.packet_identifier.get(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(identifiers, [1, 2, 3, 4]);
        pair.settle();
        let log = pair.take_log().join("\n");
        assert!(log.contains("client: Subscribed(2,") && log.contains("client: Unsubscribed(4,"), "{log}");
    });
}

/// [5.0 §4.3.3] [5.0 §3.6.2.1] [5.0 §3.7.2.1]
#[test]
fn unknown_identifiers_are_answered_and_end_nothing() {
    for (version, pubrel, pubcomp) in
        [(Version::V5_0, "62 03 00 07 92", "70 03 00 07 92"), (Version::V3_1_1, "62 02 00 07", "70 02 00 07")]
    {
        let mut pair = Pair::new(Chunks::Whole);
        pair.connect(&lasting(version));
        for ack in [Packet::Puback, Packet::Pubrec, Packet::Pubrel, Packet::Pubcomp] {
            pair.forge_to_client(&encoded(ack(Ack::new(id(7), ReasonCode::SUCCESS)), version));
        }
        let mut input = &pair.written_by_server()[..];
        let mut out = Vec::new();
        assert!(pair.client.handle_input(&mut input, pair.now, &mut out).is_none());
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        let expected = format!("{pubrel} {pubcomp}");
        // The answers may carry a property length where the standard lets them do without.
        assert_eq!(hex(&out).replace(" 92 00", " 92").replace("62 04", "62 03").replace("70 04", "70 03"), expected);
        assert!(pair.client.is_connected());
    }
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_closes_the_connection() {
    let mut pair = Pair::new(Chunks::Whole);
    pair.connect(&lasting(Version::V5_0));
    pair.publish(1, &message(QoS::ExactlyOnce, "x"));
    pair.forge_to_client(&encoded(Packet::Puback(Ack::new(id(1), ReasonCode::SUCCESS)), Version::V5_0));
    pair.take_log();
    let mut input = &pair.written_by_server()[..];
    let action = pair.client.handle_input(&mut input, pair.now, &mut Vec::new());
    assert!(matches!(action, Some(client::Action::Closed(CloseCause::Violation(ProtocolError::WrongAcknowledgement(_))))));
}

/// [5.0 MQTT-4.3.3-9] [5.0 MQTT-4.4.0-2]
#[test]
fn a_failing_pubrec_ends_the_message_and_frees_its_identifier() {
    let mut pair = Pair::with(ClientConfig::new().manual_acknowledgement(true), ServerConfig::new(), Chunks::Whole);
    pair.connect(&lasting(Version::V5_0));
    for round in 0..3 {
        pair.deliver(round, &message(QoS::ExactlyOnce, "x"));
        let mut input = &pair.written_by_server()[..];
        let mut out = Vec::new();
        let Some(client::Action::Message(received)) = pair.client.handle_input(&mut input, pair.now, &mut out) else { panic!() };
        pair.client.acknowledge(received.token.unwrap(), ReasonCode::QUOTA_EXCEEDED, pair.now, &mut out).unwrap();
        assert!(
            matches!(packets(&out, Version::V5_0)[..], [Packet::Pubrec(ack)] if ack.reason_code == ReasonCode::QUOTA_EXCEEDED)
        );
        let mut input = &out[..];
        let action = pair.server.handle_input(&mut input, pair.now, &mut Vec::new());
        assert!(matches!(action, Some(server::Action::Published(published)) if published.key == round));
        pair.cut();
        pair.connect(&lasting(Version::V5_0));
    }
    assert_eq!(pair.server.session().in_flight(), 0);
}

/// [5.0 MQTT-4.6.0-2] [5.0 MQTT-4.6.0-3] [3.1.1 MQTT-4.6.0-2] [3.1.1 MQTT-4.6.0-3]
#[test]
fn acknowledgements_by_hand_leave_in_order_and_die_with_the_connection() {
    for version in VERSIONS {
        let mut pair = Pair::with(ClientConfig::new().manual_acknowledgement(true), ServerConfig::new(), Chunks::Whole);
        pair.connect(&lasting(version));
        for (key, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce), (3, QoS::AtLeastOnce)] {
            pair.deliver(key, &message(qos, "x"));
        }
        let bytes = pair.written_by_server();
        let mut input = &bytes[..];
        let mut tokens = Vec::new();
        let mut out = Vec::new();
        while let Some(client::Action::Message(received)) = pair.client.handle_input(&mut input, pair.now, &mut out) {
            tokens.push(received.token.unwrap());
        }
        let mut acknowledge =
            |index: usize, out: &mut Vec<u8>| pair.client.acknowledge(tokens[index], ReasonCode::SUCCESS, pair.now, out);
        acknowledge(2, &mut out).unwrap();
        acknowledge(1, &mut out).unwrap();
        assert!(out.is_empty(), "they wait for the first");
        assert_eq!(acknowledge(1, &mut out), Err(AcknowledgeError::AlreadyAcknowledged));
        acknowledge(0, &mut out).unwrap();
        let acks = packets(&out, version);
        assert!(matches!(acks[..], [Packet::Puback(_), Packet::Pubrec(_), Packet::Puback(_)]), "{acks:?}");
        assert_eq!(acknowledge(0, &mut out), Err(AcknowledgeError::AlreadyAcknowledged));
        pair.cut();
        let stale = pair.client.acknowledge(tokens[0], ReasonCode::SUCCESS, pair.now, &mut out);
        assert_eq!(stale, Err(AcknowledgeError::Stale));
    }
}

/// A CONNACK that is lost tells the client nothing; the server has the session all the same. [5.0 MQTT-3.1.2-4]
#[test]
fn a_lost_connack_neither_locks_the_client_out_nor_swallows_messages() {
    for version in VERSIONS {
        let mut pair = Pair::new(Chunks::Whole);
        pair.open(&lasting(version));
        assert!(pair.carry_packet(), "CONNECT; the CONNACK is lost");
        pair.cut();
        pair.connect(&lasting(version));
        assert!(pair.client.is_connected(), "{version} {:#?}", pair.log);
        // An exchange that the server has begun, and the client has answered.
        pair.deliver(1, &message(QoS::ExactlyOnce, "old"));
        assert!(pair.carry_packet(), "PUBLISH");
        pair.cut();
        pair.open(&Connect { clean_start: true, ..lasting(version) });
        assert!(pair.carry_packet(), "CONNECT; the CONNACK is lost");
        pair.cut();
        pair.connect(&lasting(version));
        pair.deliver(2, &message(QoS::ExactlyOnce, "new"));
        pair.settle();
        assert_eq!(pair.at_client, ["old", "new"], "{version}");
    }
}

/// [5.0 §3.3.2.3.4]
#[test]
fn an_alias_of_a_message_that_waits_is_not_taken_for_an_older_one() {
    Pair::in_all_chunks_with(&ClientConfig::new(), &ServerConfig::new().receive_maximum(1), |pair| {
        pair.connect(&lasting(Version::V5_0));
        let aliased = |topic| {
            let properties = PublishProperties { topic_alias: Some(1), ..PublishProperties::default() };
            Publish { properties, qos: QoS::AtLeastOnce, ..Publish::new(topic, b"x") }
        };
        pair.publish(1, &aliased("a"));
        pair.publish(2, &aliased("b"));
        let third = pair.client(|client, now, out| client.publish(3, &aliased(""), now, out));
        assert_eq!(third, Err(PublishError::UnknownTopicAlias));
        pair.settle();
        assert_eq!(pair.at_server.len(), 2);
    });
}

/// [5.0 MQTT-4.4.0-1] [5.0 MQTT-4.6.0-1] [5.0 MQTT-3.1.2-25]
#[test]
fn a_resume_keeps_its_order_when_a_message_has_become_too_large() {
    let mut pair = Pair::new(Chunks::Whole);
    pair.connect(&lasting(Version::V5_0));
    let large = "x".repeat(100);
    for (key, payload) in [(1, large.as_str()), (2, "two"), (3, "three"), (4, "four")] {
        pair.deliver(key, &message(QoS::ExactlyOnce, payload));
    }
    // Only PUBREC for "three" comes back.
    pair.written_by_server();
    let pubrec = encoded(Packet::Pubrec(Ack::new(id(3), ReasonCode::SUCCESS)), Version::V5_0);
    let (now, mut out) = (pair.now, Vec::new());
    assert!(pair.server.handle_input(&mut &pubrec[..], now, &mut out).is_none());
    pair.cut();
    let mut connect = lasting(Version::V5_0);
    connect.properties.maximum_packet_size = Some(60);
    pair.open(&connect);
    assert!(pair.carry_packet());
    let written = pair.written_by_server();
    let written: Vec<_> = packets(&written, Version::V5_0).into_iter().skip(1).collect();
    assert!(matches!(written[0], Packet::Publish(publish) if publish.payload == b"two"), "{written:?}");
    assert!(matches!(written[1], Packet::Pubrel(ack) if ack.packet_identifier == id(3)), "{written:?}");
    assert!(matches!(written[2], Packet::Publish(publish) if publish.payload == b"four"), "{written:?}");
}

/// [5.0 MQTT-4.3.3-10] [3.1.1 MQTT-4.3.3-2]
#[test]
fn a_message_taken_by_hand_out_of_turn_comes_once() {
    for version in VERSIONS {
        let mut pair = Pair::with(ClientConfig::new().manual_acknowledgement(true), ServerConfig::new(), Chunks::Whole);
        pair.connect(&lasting(version));
        pair.deliver(1, &message(QoS::ExactlyOnce, "one"));
        pair.deliver(2, &message(QoS::ExactlyOnce, "two"));
        let bytes = pair.written_by_server();
        let (mut input, mut out, now) = (&bytes[..], Vec::new(), pair.now);
        let mut token = || match pair.client.handle_input(&mut input, now, &mut out) {
            Some(client::Action::Message(received)) => received.token.unwrap(),
            other => panic!("{other:?}"),
        };
        let (_, second) = (token(), token());
        pair.client.acknowledge(second, ReasonCode::SUCCESS, now, &mut out).unwrap();
        pair.cut();
        pair.connect(&lasting(version));
        assert_eq!(pair.at_client, ["one"], "{version}: the other was taken before");
    }
}

/// [5.0 MQTT-3.14.4-1] [3.1.1 MQTT-3.14.4-2]
#[test]
fn nothing_is_written_after_disconnect() {
    let mut pair = Pair::new(Chunks::Whole);
    pair.connect(&lasting(Version::V5_0));
    pair.client(|client, now, out| client.disconnect(&Disconnect::default(), now, out)).unwrap();
    pair.publish(1, &message(QoS::AtLeastOnce, "later"));
    assert_eq!(pair.written_by_client(), [0xE0, 0x00]);
    assert_eq!(pair.client.session().queued(), 1);
    pair.deliver(2, &message(QoS::AtLeastOnce, "x"));
    let mut out = Vec::new();
    pair.server.disconnect(&Disconnect::new(ReasonCode::SERVER_SHUTTING_DOWN), &mut out).unwrap();
    let written = out.len();
    assert!(!pair.server.flush(pair.now, &mut out));
    assert_eq!(out.len(), written);
    pair.settle();
    pair.connect(&lasting(Version::V5_0));
    assert_eq!((pair.at_server, pair.at_client), (vec!["later".to_owned()], vec!["x".to_owned()]));
}

/// [5.0 MQTT-4.12.0-6] [5.0 §4.12.1]
#[test]
fn authentication_that_was_not_agreed_closes_the_connection() {
    let mut pair = Pair::new(Chunks::Whole);
    pair.connect(&lasting(Version::V5_0));
    let action = pair.client.handle_input(&mut &[0xF0, 0x00][..], pair.now, &mut Vec::new());
    let Some(client::Action::Closed(CloseCause::Violation(error))) = action else { panic!("{action:?}") };
    assert_eq!(error, ProtocolError::AuthenticationMethod);
}

// ---- limits ----

/// [5.0 MQTT-3.2.2-15] [5.0 MQTT-3.1.2-24] [5.0 MQTT-3.1.2-25]
#[test]
fn a_packet_as_large_as_the_limit_is_sent_and_one_byte_more_is_not() {
    Pair::in_all_chunks_with(&ClientConfig::new(), &ServerConfig::new().maximum_packet_size(50), |pair| {
        let mut connect = lasting(Version::V5_0);
        connect.properties.maximum_packet_size = Some(50);
        pair.connect(&connect);
        // A header of two bytes, three of topic name and one of properties stand before the payload.
        let (fits, larger) = ("x".repeat(44), "x".repeat(45));
        pair.publish(1, &message(QoS::AtMostOnce, &fits));
        let refused = pair.client(|client, now, out| client.publish(2, &message(QoS::AtMostOnce, &larger), now, out));
        assert_eq!(refused, Err(PublishError::TooLarge { size: 51, maximum: 50 }));
        pair.deliver(1, &message(QoS::AtMostOnce, &fits));
        pair.deliver(2, &message(QoS::AtLeastOnce, &larger));
        pair.settle();
        assert_eq!((pair.at_server.len(), pair.at_client.len()), (1, 1));
        assert_eq!(pair.server.session().in_flight(), 0);
        pair.publish(3, &message(QoS::AtMostOnce, "next"));
        pair.settle();
        assert_eq!(pair.done_at_server, [(2, "NotAllowed".to_owned())], "as if it had been sent");
    });
}

/// A header is enough to refuse a packet. [5.0 §3.2.2.3.6]
#[test]
fn five_bytes_that_announce_a_large_packet_are_refused_at_once() {
    Pair::in_all_chunks(|pair| {
        pair.connect(&lasting(Version::V5_0));
        pair.forge_to_server(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
        pair.take_log();
        pair.settle();
        let log = pair.take_log();
        assert!(log[0].contains("PacketTooLarge { size: 268435460, maximum: 1048576 }"), "{log:#?}");
        assert!(log[1].contains("Disconnected") && log[1].contains("Packet too large"), "{log:#?}");
    });
}

/// [5.0 MQTT-3.3.2-9] [5.0 MQTT-3.3.2-11] [5.0 MQTT-3.3.2-7]
#[test]
fn topic_aliases_are_set_used_and_forgotten() {
    Pair::in_all_chunks_with(&ClientConfig::new(), &ServerConfig::new().topic_alias_maximum(2), |pair| {
        pair.connect(&lasting(Version::V5_0));
        let aliased = |topic, alias| {
            let properties = PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() };
            Publish { properties, qos: QoS::AtLeastOnce, ..Publish::new(topic, b"x") }
        };
        let publish =
            |pair: &mut Pair, topic, alias| pair.client(|client, now, out| client.publish(1, &aliased(topic, alias), now, out));
        assert_eq!(publish(pair, "", 1), Err(PublishError::UnknownTopicAlias));
        assert_eq!(publish(pair, "a", 3), Err(PublishError::TopicAliasInvalid { maximum: 2 }));
        publish(pair, "a", 1).unwrap();
        publish(pair, "", 1).unwrap();
        let written = pair.written_by_client();
        assert!(matches!(packets(&written, Version::V5_0)[1], Packet::Publish(publish) if publish.topic_name.is_empty()));
        pair.cut();
        pair.connect(&lasting(Version::V5_0));
        let log = pair.take_log();
        let topics = log.iter().filter(|line| line.starts_with("server: Message(Received { topic_name: \"a\""));
        assert_eq!(topics.count(), 2, "sent again with the topic name: {log:#?}");
        assert_eq!(publish(pair, "", 1), Err(PublishError::UnknownTopicAlias));
        publish(pair, "b", 1).unwrap();
        publish(pair, "", 1).unwrap();
        pair.settle();
        let log = pair.take_log();
        assert_eq!(log.iter().filter(|line| line.contains("topic_name: \"b\"")).count(), 2, "{log:#?}");
    });
}

/// [5.0 §3.3.4]
#[test]
fn aliases_that_were_not_allowed_or_not_set_close_the_connection() {
    for (alias, topic, reason_code) in
        [(3, "a", ReasonCode::TOPIC_ALIAS_INVALID), (2, "", ReasonCode::PROTOCOL_ERROR), (1, "", ReasonCode::PROTOCOL_ERROR)]
    {
        let mut pair = Pair::with(ClientConfig::new(), ServerConfig::new().topic_alias_maximum(2), Chunks::Whole);
        pair.connect(&lasting(Version::V5_0));
        let properties = PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() };
        pair.forge_to_server(&encoded(Publish { properties, ..Publish::new(topic, b"x") }, Version::V5_0));
        pair.take_log();
        pair.settle();
        let log = pair.take_log().join("\n");
        assert!(log.contains(&format!("client: Closed(Disconnected(Disconnect {{ reason_code: {reason_code:?}")), "{log}");
    }
}

/// [5.0 MQTT-3.2.2-11] [5.0 MQTT-3.2.2-14] [5.0 §3.2.2.3.11 to §3.2.2.3.13]
#[test]
fn what_the_server_does_not_offer_is_refused_to_the_caller() {
    let config = ServerConfig::new()
        .maximum_qos(QoS::AtLeastOnce)
        .retain_available(false)
        .wildcard_subscription_available(false)
        .shared_subscription_available(false)
        .subscription_identifier_available(false);
    Pair::in_all_chunks_with(&ClientConfig::new(), &config, |pair| {
        pair.connect(&lasting(Version::V5_0));
        let publish =
            |pair: &mut Pair, publish: Publish<'_>| pair.client(|client, now, out| client.publish(1, &publish, now, out));
        let too_high = publish(pair, message(QoS::ExactlyOnce, "x"));
        assert_eq!(too_high, Err(PublishError::QosNotSupported { maximum: QoS::AtLeastOnce }));
        let retained = publish(pair, Publish { retain: true, ..message(QoS::AtMostOnce, "x") });
        assert_eq!(retained, Err(PublishError::RetainNotSupported));
        for (filter, code) in [
            ("a/#", ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED),
            ("$share/g/a", ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED),
        ] {
            let filter = [Subscription::new(filter, QoS::AtMostOnce)];
            let refused = pair.client(|client, now, out| client.subscribe(1, &filter, SubscribeProperties::default(), now, out));
            assert_eq!(refused, Err(mqtt_sansio::session::RequestError::NotSupported(code)));
        }
        assert!(pair.written_by_client().is_empty());
        // A peer that does it all the same is told.
        pair.forge_to_server(&encoded(Publish { retain: true, ..message(QoS::AtMostOnce, "x") }, Version::V5_0));
        pair.settle();
        assert!(pair.take_log().join("\n").contains("Retain not supported"));
    });
}

#[test]
fn a_full_queue_gives_the_message_back() {
    Pair::in_all_chunks_with(&ClientConfig::new().maximum_queued(2, 1_000), &ServerConfig::new(), |pair| {
        let nothing = pair.client(|client, now, out| client.publish(0, &message(QoS::AtLeastOnce, "x"), now, out));
        assert_eq!(nothing, Err(PublishError::NotConnected), "the version is not known yet");
        pair.connect(&lasting(Version::V3_1_1));
        pair.cut();
        pair.publish(1, &message(QoS::AtMostOnce, "one"));
        pair.publish(2, &message(QoS::ExactlyOnce, "two"));
        let full = pair.client(|client, now, out| client.publish(3, &message(QoS::AtLeastOnce, "three"), now, out));
        assert_eq!(full, Err(PublishError::QueueFull));
        pair.connect(&lasting(Version::V3_1_1));
        assert_eq!(pair.at_server, ["one", "two"]);
    });
}

// ---- connecting ----

/// [5.0 MQTT-3.2.2-4] [5.0 MQTT-3.2.2-2]
#[test]
fn a_session_that_the_client_does_not_have_closes_the_connection() {
    let present = Connack { session_present: true, ..Connack::default() };
    for (version, session, clean_start, accepted) in [
        (Version::V5_0, Session::new(), false, false),
        (Version::V5_0, Session::established(), false, true),
        (Version::V5_0, Session::established(), true, false),
        (Version::V3_1_1, Session::new(), false, true),
        (Version::V3_1_1, Session::new(), true, false),
    ] {
        let mut client = Client::with_session(ClientConfig::new(), session);
        let mut out = Vec::new();
        client.connect(&Connect { clean_start, ..lasting(version) }, Instant::default(), &mut out).unwrap();
        let bytes = encoded(Packet::Connack(present), version);
        match client.handle_input(&mut &bytes[..], Instant::default(), &mut out) {
            Some(client::Action::Connected(_)) => assert!(accepted, "{version} {clean_start}"),
            Some(client::Action::Closed(CloseCause::Violation(ProtocolError::UnknownSession))) => assert!(!accepted),
            other => panic!("{other:?}"),
        }
    }
}

/// [5.0 MQTT-3.1.2-2] [3.1.1 MQTT-3.1.2-2] [3.1.1 MQTT-3.1.3-8] [3.1.1 MQTT-3.1.4-1]
#[test]
fn a_refusal_has_the_form_that_the_asked_version_understands() {
    let connect = |name: &str, level: u8, flags: u8, rest: &[u8]| {
        let mut body = vec![0, name.len() as u8];
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&[level, flags, 0, 0]);
        body.extend_from_slice(rest);
        [&[0x10, body.len() as u8], &body[..]].concat()
    };
    for (bytes, answer) in [
        (connect("MQTT", 6, 2, &[0, 0, 0]), &[0x20, 0x03, 0x00, 0x84, 0x00][..]),
        (connect("MQTT", 3, 2, &[0, 0]), &[0x20, 0x02, 0x00, 0x01][..]),
        (connect("MQIsdp", 4, 2, &[0, 1, b'c']), &[0x20, 0x02, 0x00, 0x01][..]),
        (connect("MQTT", 4, 0, &[0, 0]), &[0x20, 0x02, 0x00, 0x02][..]),
        (connect("MQIsdp", 3, 2, &[0, 0]), &[0x20, 0x02, 0x00, 0x02][..]),
        (connect("MQTT", 4, 3, &[0, 1, b'c']), &[][..]),
        (connect("MQTT", 5, 3, &[0, 0, 1, b'c']), &[0x20, 0x03, 0x00, 0x81, 0x00][..]),
        (connect("HTTP", 5, 2, &[0, 0, 1, b'c']), &[][..]),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), &[][..]),
        (vec![0xC0, 0x00], &[][..]),
    ] {
        let mut server = Server::new(ServerConfig::new(), Instant::default());
        let mut out = Vec::new();
        let action = server.handle_input(&mut &bytes[..], Instant::default(), &mut out);
        assert!(matches!(action, Some(server::Action::Closed { publish_will: false, .. })), "{bytes:?} {action:?}");
        assert_eq!(out, answer, "{bytes:?}");
        assert!(!server.wants_input());
    }
}

/// [5.0 §3.2.2.2] [3.1.1 MQTT-3.2.2-6]
#[test]
fn a_host_refuses_with_the_nearest_code_that_the_version_has() {
    for (version, code, answer) in [
        (Version::V5_0, ReasonCode::BANNED, &[0x20, 0x03, 0x00, 0x8A, 0x00][..]),
        (Version::V3_1_1, ReasonCode::BANNED, &[0x20, 0x02, 0x00, 0x05][..]),
        (Version::V3_1, ReasonCode::SERVER_BUSY, &[0x20, 0x02, 0x00, 0x03][..]),
        (Version::V3_1_1, ReasonCode::BAD_USER_NAME_OR_PASSWORD, &[0x20, 0x02, 0x00, 0x04][..]),
        (Version::V3_1_1, ReasonCode::PAYLOAD_FORMAT_INVALID, &[][..]),
    ] {
        let mut server = Server::new(ServerConfig::new(), Instant::default());
        let bytes = encoded(Connect::new(version, "c"), version);
        let mut out = Vec::new();
        let following = [&bytes[..], &[0xC0, 0x00]].concat();
        let mut input = &following[..];
        assert!(matches!(server.handle_input(&mut input, Instant::default(), &mut out), Some(server::Action::Connect(_))));
        assert!(server.handle_input(&mut input, Instant::default(), &mut out).is_none());
        assert!(!server.wants_input(), "an answer is owed");
        server.refuse(code, ConnackProperties::default(), &mut out).unwrap();
        let action = server.handle_input(&mut input, Instant::default(), &mut out);
        assert!(matches!(action, Some(server::Action::Closed { cause: CloseCause::Requested, publish_will: false })));
        assert_eq!(out, answer);
        assert_eq!(input.len(), 2, "[5.0 MQTT-3.1.4-6]: what follows is not looked at");
        // The client of the version is told why.
        let mut client = Client::new(ClientConfig::new());
        client.connect(&Connect::new(version, "c"), Instant::default(), &mut Vec::new()).unwrap();
        if !out.is_empty() {
            let action = client.handle_input(&mut &out[..], Instant::default(), &mut Vec::new());
            assert!(matches!(action, Some(client::Action::Closed(CloseCause::Refused(_)))), "{action:?}");
        }
    }
}

/// [5.0 §3.1.2.2] [3.1.1 §3.1.2.2]
#[test]
fn a_client_understands_a_refusal_in_the_form_of_another_version() {
    for (version, bytes) in
        [(Version::V5_0, &[0x20, 0x02, 0x00, 0x01][..]), (Version::V3_1_1, &[0x20, 0x03, 0x00, 0x84, 0x00][..])]
    {
        let mut client = Client::new(ClientConfig::new());
        client.connect(&Connect::new(version, "c"), Instant::default(), &mut Vec::new()).unwrap();
        let action = client.handle_input(&mut &bytes[..], Instant::default(), &mut Vec::new());
        let Some(client::Action::Closed(CloseCause::Refused(connack))) = action else { panic!("{action:?}") };
        assert_eq!(connack.reason_code, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION);
    }
}

/// [5.0 MQTT-3.1.0-2] [3.1.1 MQTT-3.1.0-2]
#[test]
fn a_second_connect_closes_the_connection() {
    for version in VERSIONS {
        let mut pair = Pair::new(Chunks::Whole);
        pair.connect(&lasting(version));
        pair.forge_to_server(&encoded(lasting(version), version));
        pair.settle();
        let log = pair.take_log().join("\n");
        assert!(log.contains("server: Closed { cause: Violation(UnexpectedPacket(Connect)), publish_will: true }"), "{log}");
    }
}

#[test]
fn one_connection_at_a_time() {
    let mut pair = Pair::new(Chunks::Whole);
    pair.connect(&lasting(Version::V5_0));
    let again = pair.client(|client, now, out| client.connect(&lasting(Version::V5_0), now, out));
    assert_eq!(again, Err(ConnectError::InUse));
}

/// [5.0 MQTT-3.14.4-3] [5.0 MQTT-3.1.2-8] [3.1.1 MQTT-3.14.4-3]
#[test]
fn the_will_is_published_unless_the_client_says_good_bye() {
    for (version, reason_code, publish_will) in [
        (Version::V3_1_1, ReasonCode::SUCCESS, false),
        (Version::V5_0, ReasonCode::SUCCESS, false),
        (Version::V5_0, ReasonCode::DISCONNECT_WITH_WILL_MESSAGE, true),
        (Version::V5_0, ReasonCode::UNSPECIFIED_ERROR, true),
    ] {
        Pair::in_all_chunks(|pair| {
            pair.connect(&lasting(version));
            pair.client(|client, now, out| client.disconnect(&Disconnect::new(reason_code), now, out)).unwrap();
            pair.settle();
            let log = pair.log.join("\n");
            assert!(
                log.contains("server: Closed { cause: Disconnected(") && log.contains(&format!("publish_will: {publish_will}")),
                "{log}"
            );
        });
    }
}

/// [5.0 §3.14.2.2.2]
#[test]
fn a_session_expiry_interval_of_zero_cannot_be_changed_at_the_end() {
    let properties = DisconnectProperties { session_expiry_interval: Some(10), ..DisconnectProperties::default() };
    let farewell = Disconnect { properties, ..Disconnect::default() };
    Pair::in_all_chunks(|pair| {
        pair.connect(&Connect::new(Version::V5_0, "c"));
        assert!(pair.client(|client, now, out| client.disconnect(&farewell, now, out)).is_err());
        pair.forge_to_server(&encoded(farewell, Version::V5_0));
        pair.settle();
        let log = pair.take_log().join("\n");
        assert!(log.contains("server: Closed { cause: Violation(SessionExpiryInterval), publish_will: true }"), "{log}");
    });
}

// ---- time ----

/// [5.0 MQTT-3.1.2-20] [5.0 MQTT-3.1.2-22] [3.1.1 MQTT-3.1.2-23] [3.1.1 MQTT-3.1.2-24]
#[test]
fn keep_alive_pings_when_nothing_is_sent_and_gives_up_to_the_millisecond() {
    for version in VERSIONS {
        let mut pair = Pair::new(Chunks::Whole);
        pair.connect(&Connect { keep_alive: 10, ..lasting(version) });
        pair.advance(Duration::from_secs(1_000));
        assert!(pair.client.is_connected() && pair.server.is_connected(), "{:?}", pair.log);
        assert_eq!(pair.client.poll_timeout(), Some(pair.now + Duration::from_secs(10)), "one ping every ten seconds");

        // Anything sent puts it off.
        pair.advance(Duration::from_secs(6));
        pair.publish(1, &message(QoS::AtMostOnce, "x"));
        pair.settle();
        assert_eq!(pair.client.poll_timeout(), Some(pair.now + Duration::from_secs(10)));
        assert_eq!(pair.server.poll_timeout(), Some(pair.now + Duration::from_secs(15)));

        // A client that falls silent.
        let silent = pair.now + Duration::from_secs(15);
        let mut out = Vec::new();
        let before = Instant::from_millis(silent.as_millis() - 1);
        assert!(pair.server.handle_timeout(before, &mut out).is_none());
        let action = pair.server.handle_timeout(silent, &mut out);
        assert!(matches!(action, Some(server::Action::Closed { cause: CloseCause::KeepAliveTimeout, publish_will: true })));
        let expected = if version == Version::V5_0 { &[0xE0, 0x02, 0x8D, 0x00][..] } else { &[] };
        assert_eq!(out, expected);
    }
}

#[test]
fn a_missing_pingresp_closes_and_any_byte_is_life() {
    let config = ClientConfig::new().ping_timeout(Duration::from_secs(4));
    let mut client = Client::new(config);
    let at = |milliseconds| Instant::from_millis(milliseconds);
    let mut out = Vec::new();
    client.connect(&Connect { keep_alive: 10, ..lasting(Version::V3_1_1) }, at(0), &mut out).unwrap();
    let connack = [0x20, 0x02, 0x00, 0x00];
    assert!(client.handle_input(&mut &connack[..], at(500), &mut out).is_some());
    out.clear();
    assert_eq!(client.poll_timeout(), Some(at(10_000)), "from the last packet sent");
    assert!(client.handle_timeout(at(9_999), &mut out).is_none() && out.is_empty());
    assert!(client.handle_timeout(at(10_000), &mut out).is_none());
    assert_eq!(out, [0xC0, 0x00]);
    assert_eq!(client.poll_timeout(), Some(at(14_000)));
    // The first bytes of a large packet: no PINGRESP, and a sign of life.
    let mut partial = &[0x30, 0x7F, 0x00][..];
    assert!(client.handle_input(&mut partial, at(13_000), &mut out).is_none());
    assert_eq!(partial.len(), 3);
    assert_eq!(client.poll_timeout(), Some(at(17_000)));
    // The same bytes again are none.
    assert!(client.handle_input(&mut partial, at(16_000), &mut out).is_none());
    assert!(client.handle_timeout(at(16_999), &mut out).is_none());
    let action = client.handle_timeout(at(17_000), &mut out);
    assert!(matches!(action, Some(client::Action::Closed(CloseCause::KeepAliveTimeout))));
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn a_long_upload_and_a_host_that_does_not_read_are_no_silence() {
    let mut client = Client::new(ClientConfig::new());
    let at = |seconds: u64| Instant::from_millis(seconds * 1_000);
    let mut out = Vec::new();
    client.connect(&Connect { keep_alive: 10, ..lasting(Version::V5_0) }, at(0), &mut out).unwrap();
    assert!(client.handle_input(&mut &[0x20, 0x03, 0x00, 0x00, 0x00][..], at(0), &mut out).is_some());
    assert!(client.handle_timeout(at(10), &mut out).is_none(), "PINGREQ, behind a megabyte that leaves slowly");
    client.handle_progress(at(19));
    assert!(client.handle_timeout(at(20), &mut out).is_none());
    assert_eq!(client.poll_timeout(), Some(at(29)));
    assert!(client.handle_timeout(at(29), &mut out).is_some());
}

#[test]
fn before_5_0_twenty_messages_are_under_way() {
    Pair::in_all_chunks(|pair| {
        pair.connect(&lasting(Version::V3_1_1));
        for key in 0..30 {
            pair.publish(key, &message(QoS::ExactlyOnce, "x"));
        }
        assert_eq!((pair.client.session().in_flight(), pair.client.session().queued()), (20, 10));
        pair.settle();
        assert_eq!((pair.at_server.len(), pair.done_at_client.len()), (30, 30));
    });
}

#[test]
fn what_is_no_mqtt_server_is_not_waited_for() {
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"SSH-2.0-OpenSSH_9.2\r\n", &[0x30, 0xFF, 0xFF, 0xFF, 0x7F]] {
        let mut client = Client::new(ClientConfig::new());
        client.connect(&lasting(Version::V5_0), Instant::default(), &mut Vec::new()).unwrap();
        let action = client.handle_input(&mut &bytes[..1], Instant::default(), &mut Vec::new());
        assert!(matches!(action, Some(client::Action::Closed(CloseCause::Violation(ProtocolError::NotConnack)))));
    }
}

#[test]
fn disconnecting_acknowledges_what_was_delivered() {
    let mut pair = Pair::new(Chunks::Whole);
    pair.connect(&lasting(Version::V3_1_1));
    pair.deliver(1, &message(QoS::AtLeastOnce, "x"));
    let bytes = pair.written_by_server();
    let mut out = Vec::new();
    assert!(pair.client.handle_input(&mut &bytes[..], pair.now, &mut out).is_some());
    pair.client.disconnect(&Disconnect::default(), pair.now, &mut out).unwrap();
    assert_eq!(out, [0x40, 0x02, 0x00, 0x01, 0xE0, 0x00]);
}

/// [5.0 MQTT-3.1.2-21] [5.0 MQTT-3.2.2-21]
#[test]
fn the_server_keep_alive_goes_before_the_clients() {
    let config = ServerConfig::new().maximum_keep_alive(core::num::NonZeroU16::new(5));
    for (asked, version, granted) in
        [(0, Version::V5_0, 5), (60, Version::V5_0, 5), (3, Version::V5_0, 3), (60, Version::V3_1_1, 60)]
    {
        let mut pair = Pair::with(ClientConfig::new(), config.clone(), Chunks::Whole);
        pair.connect(&Connect { keep_alive: asked, ..lasting(version) });
        assert_eq!(pair.client.poll_timeout(), Some(Instant::from_millis(granted * 1_000)));
        assert_eq!(pair.server.poll_timeout(), Some(Instant::from_millis(granted * 1_500)));
    }
}

#[test]
fn connect_and_connack_have_a_time_limit() {
    let mut server = Server::new(ServerConfig::new().connect_timeout(Duration::from_secs(3)), Instant::default());
    assert_eq!(server.poll_timeout(), Some(Instant::from_millis(3_000)));
    let action = server.handle_timeout(Instant::from_millis(3_000), &mut Vec::new());
    assert!(matches!(action, Some(server::Action::Closed { cause: CloseCause::ConnectTimeout, publish_will: false })));

    let mut client = Client::new(ClientConfig::new().connect_timeout(Duration::from_secs(4)));
    client.connect(&lasting(Version::V5_0), Instant::default(), &mut Vec::new()).unwrap();
    assert_eq!(client.poll_timeout(), Some(Instant::from_millis(4_000)));
    let action = client.handle_timeout(Instant::from_millis(4_000), &mut Vec::new());
    assert!(matches!(action, Some(client::Action::Closed(CloseCause::ConnectTimeout))));
}

/// [5.0 MQTT-3.3.2-5] [5.0 MQTT-3.3.2-6]
#[test]
fn a_message_expires_while_it_waits_and_not_once_it_was_sent() {
    let mut pair = Pair::new(Chunks::Whole);
    let mut connect = lasting(Version::V5_0);
    connect.properties = ConnectProperties { receive_maximum: Some(1), ..connect.properties };
    pair.connect(&connect);
    let properties = PublishProperties { message_expiry_interval: Some(10), ..PublishProperties::default() };
    let outgoing = |pair: &Pair, key| {
        let publish = Publish { properties, ..message(QoS::ExactlyOnce, "x") };
        let message = mqtt_sansio::session::Message::new(&publish).unwrap();
        let mut outgoing = mqtt_sansio::session::Outgoing::new(Some(key), message);
        outgoing.expires_at = Some(pair.now + Duration::from_secs(10));
        outgoing
    };
    for key in 1..=2 {
        let outgoing = outgoing(&pair, key);
        pair.server.deliver(outgoing, pair.now).unwrap();
    }
    let first = pair.written_by_server();
    assert_eq!(packets(&first, Version::V5_0).len(), 1);
    pair.cut();
    pair.advance(Duration::from_millis(9_500));
    pair.open(&connect);
    assert!(pair.carry_packet());
    let again = pair.written_by_server();
    let Packet::Publish(publish) = packets(&again, Version::V5_0)[1] else { panic!() };
    assert_eq!((publish.dup, publish.properties.message_expiry_interval), (true, Some(1)), "half a second is left");
    pair.cut();
    pair.advance(Duration::from_millis(500));
    pair.connect(&connect);
    assert_eq!(pair.at_client, ["x"], "the one that was sent is sent again, the other is not");
    pair.done_at_server.sort();
    assert_eq!(pair.done_at_server, [(1, "Success".to_owned()), (2, "Expired".to_owned())]);
}
