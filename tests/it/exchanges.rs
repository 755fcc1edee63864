//! Messages with QoS 1 and 2, SUBSCRIBE and UNSUBSCRIBE, packet by packet: which packet answers
//! which, and which identifiers are in use.

use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{
    Ack, AckProperties, Connack, ConnackProperties, Connect, Packet, PacketType, Publish, QoS,
    ReasonCode, SubscribeProperties, Subscription, UnsubscribeProperties, Version,
};
use mqtt_sansio::server::{self, AnswerError, Server, ServerConfig};
use mqtt_sansio::session::{
    AcknowledgeError, CloseCause, Message, Outcome, Outgoing, ProtocolError, PublishError,
    Published,
};
use testkit::machine::{
    Hears, NOW, accepted, asked, connected, connecting, resume, resumed, tokens,
};
use testkit::pair::{Chunks, Pair};
use testkit::wire::{VERSIONS, ack, encoded, identifier, lasting, message, packets};

fn numbered(number: u16, qos: QoS) -> Publish<'static> {
    Publish { packet_identifier: Some(identifier(number)), ..message(qos, "x") }
}

/// Returns the identifiers of the packets, all of which have one type.
fn identifiers(bytes: &[u8], version: Version, kind: PacketType) -> Vec<u16> {
    let identifier = |packet: Packet<'_>| {
        assert_eq!(packet.packet_type(), kind);
        match packet {
            Packet::Publish(publish) => publish.packet_identifier.unwrap().get(),
            Packet::Puback(ack)
            | Packet::Pubrec(ack)
            | Packet::Pubrel(ack)
            | Packet::Pubcomp(ack) => ack.packet_identifier.get(),
            other => panic!("{other:?}"),
        }
    };
    packets(bytes, version).into_iter().map(identifier).collect()
}

// ---- messages ----

/// [5.0 MQTT-3.2.2-5] [3.1.1 §3.2.2.2]
#[test]
fn client_discards_both_directions_when_the_server_lost_the_session() {
    for version in [Version::V3_1_1, Version::V5_0] {
        let mut client = connected(&lasting(version), ConnackProperties::default());
        for (key, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce), (3, QoS::ExactlyOnce)] {
            client.publish(key, &message(qos, "x"), NOW, &mut Vec::new()).unwrap();
        }
        let inbound = encoded(numbered(9, QoS::ExactlyOnce), version);
        client.hears(&[ack(Packet::Pubrec, 3, version), inbound.clone()].concat());
        let _ = client.connection_lost();
        client.connect(&lasting(version), NOW, &mut Vec::new()).unwrap();
        client.publish(4, &message(QoS::AtLeastOnce, "new"), NOW, &mut Vec::new()).unwrap();
        let bytes = [encoded(Connack::default(), version), inbound].concat();
        let (actions, said) = client.hears(&bytes);
        let lost = |key, is_known| match &actions[key] {
            client::Action::Published(Published {
                key: ended,
                outcome: Outcome::SessionLost(message),
                ..
            }) => *ended == key as u64 && message.is_some() == is_known,
            _ => false,
        };
        assert!(matches!(actions[0], client::Action::Connected(_)), "{actions:?}");
        assert!(lost(1, true) && lost(2, true) && lost(3, false), "{actions:?}");
        assert!(
            matches!(actions[4..], [client::Action::Message(_)]),
            "it is a new message: {actions:?}"
        );
        // Identifiers continue, so that late packets of the server about old ones have no effect.
        assert!(
            matches!(packets(&said, version)[..], [Packet::Publish(publish), Packet::Pubrec(_)]
            if !publish.dup && publish.packet_identifier == Some(identifier(4)))
        );
        assert_eq!(client.hears(&ack(Packet::Puback, 1, version)), (vec![], vec![]));
    }
}

/// [5.0 MQTT-2.2.1-3] [3.1.1 MQTT-2.3.1-2]
#[test]
fn identifiers_continue_after_a_lost_session() {
    for version in VERSIONS {
        let mut client = connected(&lasting(version), ConnackProperties::default());
        (1..=3).for_each(|key| {
            client.publish(key, &message(QoS::AtLeastOnce, "x"), NOW, &mut Vec::new()).unwrap();
        });
        let _ = client.connection_lost();
        client
            .connect(&Connect { clean_start: true, ..lasting(version) }, NOW, &mut Vec::new())
            .unwrap();
        client.hears(&encoded(Connack::default(), version));
        let mut out = Vec::new();
        client.publish(4, &message(QoS::AtLeastOnce, "x"), NOW, &mut out).unwrap();
        assert_eq!(identifiers(&out, version, PacketType::Publish), [4]);
    }
}

/// [5.0 MQTT-4.3.3-10] [3.1.1 MQTT-4.3.3-2]
#[test]
fn message_is_delivered_once_when_cut_before_the_next_step() {
    for version in VERSIONS {
        let mut pair = Pair::new(Chunks::Whole);
        pair.connect(&lasting(version));
        pair.publish(1, &message(QoS::ExactlyOnce, "up"));
        pair.deliver(2, &message(QoS::ExactlyOnce, "down"));
        let (up, down, now) = (pair.written_by_client(), pair.written_by_server(), pair.now);
        assert!(matches!(
            pair.server.handle_input(&mut &up[..], now, &mut Vec::new()),
            Some(server::Action::Message(_))
        ));
        assert!(matches!(
            pair.client.handle_input(&mut &down[..], now, &mut Vec::new()),
            Some(client::Action::Message(_))
        ));
        pair.cut();
        pair.connect(&lasting(version));
        assert_eq!(
            (&pair.at_server[..], &pair.at_client[..]),
            (&[][..], &[][..]),
            "both were delivered to their hosts"
        );
        assert_eq!((pair.done_at_client.len(), pair.done_at_server.len()), (1, 1));
    }
}

/// [5.0 MQTT-4.6.0-4] [3.1.1 MQTT-4.6.0-4]
#[test]
fn pubrels_follow_the_order_of_the_pubrecs() {
    for version in VERSIONS {
        let pubrecs: Vec<u8> =
            [3, 1, 2].iter().flat_map(|number| ack(Packet::Pubrec, *number, version)).collect();
        let mut client = connected(&lasting(version), ConnackProperties::default());
        let mut server = accepted(&lasting(version));
        for key in 1..=3 {
            let publish = message(QoS::ExactlyOnce, "x");
            client.publish(key, &publish, NOW, &mut Vec::new()).unwrap();
            server.deliver(Outgoing::new(Some(key), Message::new(&publish).unwrap()), NOW).unwrap();
        }
        let _ = server.flush(NOW, &mut Vec::new());
        for said in [client.hears(&pubrecs).1, server.hears(&pubrecs).1] {
            assert_eq!(identifiers(&said, version, PacketType::Pubrel), [3, 1, 2]);
        }
    }
}

/// [5.0 MQTT-4.3.3-4] [3.1.1 MQTT-4.3.3-1]
#[test]
fn repeated_pubrec_is_answered_with_pubrel_again() {
    for version in VERSIONS {
        let mut client = connected(&lasting(version), ConnackProperties::default());
        client.publish(1, &message(QoS::ExactlyOnce, "x"), NOW, &mut Vec::new()).unwrap();
        let pubrec = ack(Packet::Pubrec, 1, version);
        assert_eq!(
            client.hears(&pubrec.repeat(2)),
            (vec![], ack(Packet::Pubrel, 1, version).repeat(2))
        );
    }
}

/// [3.1.1 MQTT-3.3.5-2]
#[test]
fn message_refused_by_the_host_is_acknowledged_before_5_0() {
    for version in [Version::V3_1, Version::V3_1_1] {
        let mut server = asked(ServerConfig::new().manual_acknowledgement(true), &lasting(version));
        server.accept(None, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
        for (number, qos, answer) in
            [(1, QoS::AtLeastOnce, [0x40, 2, 0, 1]), (2, QoS::ExactlyOnce, [0x50, 2, 0, 2])]
        {
            let bytes = encoded(numbered(number, qos), version);
            let (actions, _) = server.hears(&bytes);
            let [server::Action::Message(received)] = &actions[..] else { panic!("{actions:?}") };
            let mut out = Vec::new();
            server
                .acknowledge(received.token.unwrap(), ReasonCode::NOT_AUTHORIZED, NOW, &mut out)
                .unwrap();
            assert_eq!(out, answer);
        }
        // The exchange continues like any other.
        let again = Publish { dup: true, ..numbered(2, QoS::ExactlyOnce) };
        let bytes = [encoded(again, version), ack(Packet::Pubrel, 2, version)].concat();
        assert_eq!(server.hears(&bytes), (vec![], vec![0x50, 2, 0, 2, 0x70, 2, 0, 2]));
    }
}

/// A message that was refused out of order counts as delivered when the connection ends. It is not
/// delivered again. [3.1.1 MQTT-3.3.5-2]
#[test]
fn message_refused_out_of_turn_stays_refused_before_5_0() {
    for version in [Version::V3_1, Version::V3_1_1] {
        let mut server = asked(ServerConfig::new().manual_acknowledgement(true), &lasting(version));
        server.accept(None, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
        let bytes =
            [1, 2].map(|number| encoded(numbered(number, QoS::ExactlyOnce), version)).concat();
        let (actions, _) = server.hears(&bytes);
        let [_, server::Action::Message(second)] = &actions[..] else { panic!("{actions:?}") };
        let mut out = Vec::new();
        server
            .acknowledge(second.token.unwrap(), ReasonCode::NOT_AUTHORIZED, NOW, &mut out)
            .unwrap();
        assert!(out.is_empty(), "the first precedes the second");
        let _ = server.connection_lost();
        let mut next = asked(ServerConfig::new(), &lasting(version));
        next.accept(Some(server.take_session()), ConnackProperties::default(), NOW, &mut out)
            .unwrap();
        let again = encoded(Publish { dup: true, ..numbered(2, QoS::ExactlyOnce) }, version);
        assert_eq!(next.hears(&again), (vec![], vec![0x50, 2, 0, 2]));
    }
}

/// [5.0 MQTT-4.6.0-2] [3.1.1 MQTT-4.6.0-2]
#[test]
fn stale_token_acknowledges_nothing_on_a_new_connection() {
    for version in VERSIONS {
        let mut client =
            connecting(ClientConfig::new().manual_acknowledgement(true), &lasting(version));
        let bytes =
            [encoded(Connack::default(), version), encoded(numbered(1, QoS::AtLeastOnce), version)]
                .concat();
        let (actions, _) = client.hears(&bytes);
        let [_, client::Action::Message(old)] = &actions[..] else { panic!("{actions:?}") };
        let _ = client.connection_lost();
        client.connect(&lasting(version), NOW, &mut Vec::new()).unwrap();
        let again = Publish { dup: true, ..numbered(1, QoS::AtLeastOnce) };
        let bytes = [resumed(version), encoded(again, version)].concat();
        let (actions, said) = client.hears(&bytes);
        let [_, client::Action::Message(new)] = &actions[..] else { panic!("{actions:?}") };
        let mut acknowledge = |token| {
            let mut out = said.clone();
            (client.acknowledge(token, ReasonCode::SUCCESS, NOW, &mut out), out)
        };
        assert_eq!(acknowledge(old.token.unwrap()), (Err(AcknowledgeError::Stale), vec![]));
        assert_eq!(acknowledge(new.token.unwrap()), (Ok(()), ack(Packet::Puback, 1, version)));
    }
}

/// [5.0 §3.3.1.1] [5.0 §2.2.1]
#[test]
fn caller_cannot_set_dup_or_the_packet_identifier() {
    let mut client = connected(&lasting(Version::V5_0), ConnackProperties::default());
    let mut out = Vec::new();
    for publish in
        [Publish { dup: true, ..message(QoS::AtLeastOnce, "x") }, numbered(1, QoS::AtLeastOnce)]
    {
        assert_eq!(client.publish(1, &publish, NOW, &mut out), Err(PublishError::NotNew));
    }
    assert!(out.is_empty());
}

// ---- SUBSCRIBE and UNSUBSCRIBE ----

fn subscribe(client: &mut Client, filters: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let filters = vec![Subscription::new("t", QoS::AtMostOnce); filters];
    client.subscribe(1, &filters, SubscribeProperties::default(), NOW, &mut out).unwrap();
    out
}

fn unsubscribe(client: &mut Client, filters: usize) -> Vec<u8> {
    let mut out = Vec::new();
    client
        .unsubscribe(1, &vec!["t".into(); filters], UnsubscribeProperties::default(), NOW, &mut out)
        .unwrap();
    out
}

/// Returns a SUBACK or UNSUBACK, with reason codes if the version has them.
fn answer(first: u8, version: Version, number: u8, codes: usize) -> Vec<u8> {
    let properties: &[u8] = if version == Version::V5_0 { &[0] } else { &[] };
    let codes = if first == SUBACK || version == Version::V5_0 { vec![0; codes] } else { vec![] };
    let body = [&[0, number], properties, &codes].concat();
    [&[first, body.len() as u8], &body[..]].concat()
}

const SUBACK: u8 = 0x90;
const UNSUBACK: u8 = 0xB0;

/// [3.1.1 MQTT-2.3.1-3] [5.0 MQTT-2.2.1-3]
#[test]
fn suback_and_unsuback_free_their_identifiers() {
    let mut client = connected(&lasting(Version::V3_1_1), ConnackProperties::default());
    for round in 0..70_000_u32 {
        let subscribed = subscribe(&mut client, 1);
        assert_eq!(
            u32::from(u16::from_be_bytes([subscribed[2], subscribed[3]])),
            2 * round % 65_535 + 1
        );
        let suback = [SUBACK, 3, subscribed[2], subscribed[3], 0];
        assert!(matches!(client.hears(&suback).0[..], [client::Action::Subscribed(1, _)]));
        let unsubscribed = unsubscribe(&mut client, 1);
        let unsuback = [UNSUBACK, 2, unsubscribed[2], unsubscribed[3]];
        assert!(matches!(client.hears(&unsuback).0[..], [client::Action::Unsubscribed(1, _)]));
    }
}

/// [5.0 MQTT-3.8.4-6] [5.0 MQTT-3.8.4-2] [5.0 MQTT-3.10.4-5] [3.1.1 MQTT-3.8.4-5]
#[test]
fn client_closes_the_connection_when_an_answer_mismatches_its_request() {
    for version in VERSIONS {
        for (is_subscribe, first, number, codes) in [
            (true, SUBACK, 1, 1),
            (true, SUBACK, 1, 3),
            (true, SUBACK, 2, 2),
            (true, UNSUBACK, 1, 2),
            (false, UNSUBACK, 2, 2),
            (false, SUBACK, 1, 2),
            // Only in 5.0 does an UNSUBACK have reason codes.
            (false, UNSUBACK, if version == Version::V5_0 { 1 } else { 2 }, 1),
        ] {
            let mut client = connected(&lasting(version), ConnackProperties::default());
            let request = if is_subscribe { subscribe } else { unsubscribe };
            request(&mut client, 2);
            let bytes = answer(first, version, number, codes);
            let (actions, _) = client.hears(&bytes);
            let kind = if first == SUBACK { PacketType::Suback } else { PacketType::Unsuback };
            let violation =
                client::Action::Closed(CloseCause::Violation(ProtocolError::WrongAnswer(kind)));
            assert_eq!(
                actions,
                [client::Action::RequestLost(1), violation],
                "{version} {bytes:02x?}"
            );
        }
    }
}

/// [5.0 §4.1] [3.1.1 §4.1]
#[test]
fn requests_end_with_their_connection() {
    for (version, first) in
        VERSIONS.into_iter().flat_map(|version| [SUBACK, UNSUBACK].map(|first| (version, first)))
    {
        let mut client = connected(&lasting(version), ConnackProperties::default());
        let request = if first == SUBACK { subscribe } else { unsubscribe };
        request(&mut client, 1);
        assert!(resume(&mut client, &lasting(version)).is_empty(), "it is not resent");
        let late = answer(first, version, 1, 1);
        assert!(matches!(
            client.hears(&late).0[..],
            [client::Action::Closed(CloseCause::Violation(_))]
        ));

        let mut server = accepted(&lasting(version));
        let asked = request(&mut connected(&lasting(version), ConnackProperties::default()), 1);
        let token = tokens(&server.hears(&asked).0)[0];
        let _ = server.connection_lost();
        let codes = &[ReasonCode::SUCCESS];
        let answered = if first == SUBACK { Server::suback } else { Server::unsuback };
        assert_eq!(
            answered(&mut server, token, codes, AckProperties::default(), NOW, &mut Vec::new()),
            Err(AnswerError::NotAsked)
        );
    }
}

/// [5.0 MQTT-3.8.4-1] [5.0 MQTT-3.8.4-6] [5.0 MQTT-3.10.4-4] [3.1.1 MQTT-3.8.4-5]
#[test]
fn server_answers_each_request_once_with_one_code_per_filter() {
    for version in VERSIONS {
        let mut client = connected(&lasting(version), ConnackProperties::default());
        let mut server = accepted(&lasting(version));
        let requests = [subscribe(&mut client, 2), unsubscribe(&mut client, 1)].concat();
        let tokens = tokens(&server.hears(&requests).0);
        let (one, two) = (&[ReasonCode::SUCCESS][..], &[ReasonCode::SUCCESS; 2][..]);
        let mut out = Vec::new();
        for (number, is_suback, codes, expected) in [
            (1, true, one, Err(AnswerError::ReasonCodes { asked: 2, given: 1 })),
            (1, false, two, Err(AnswerError::NotAsked)),
            (2, true, one, Err(AnswerError::NotAsked)),
            (2, false, two, Err(AnswerError::ReasonCodes { asked: 1, given: 2 })),
            (2, false, one, Ok(())),
            (1, true, two, Ok(())),
            (1, true, two, Err(AnswerError::NotAsked)),
            (2, false, one, Err(AnswerError::NotAsked)),
        ] {
            let answered = if is_suback { Server::suback } else { Server::unsuback };
            let length = out.len();
            assert_eq!(
                answered(
                    &mut server,
                    tokens[number - 1],
                    codes,
                    AckProperties::default(),
                    NOW,
                    &mut out
                ),
                expected
            );
            assert_eq!(out.len() > length, expected.is_ok());
        }
        assert!(matches!(
            client.hears(&out).0[..],
            [client::Action::Unsubscribed(1, _), client::Action::Subscribed(1, _)]
        ));
    }
}

#[test]
fn server_takes_no_more_requests_than_its_maximum() {
    for version in VERSIONS {
        let mut client = connected(&lasting(version), ConnackProperties::default());
        let mut server = asked(ServerConfig::new().maximum_requests(2), &lasting(version));
        server.accept(None, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
        let (first, second, third) =
            (subscribe(&mut client, 1), unsubscribe(&mut client, 1), subscribe(&mut client, 1));
        let bytes = [&first[..], &second, &third].concat();
        let (mut input, mut out) = (&bytes[..], Vec::new());
        let mut actions = Vec::new();
        while let Some(action) = server.handle_input(&mut input, NOW, &mut out) {
            actions.push(action);
        }
        assert_eq!((input, server.wants_input(), out.len()), (&third[..], false, 0));
        server
            .unsuback(
                tokens(&actions)[1],
                &[ReasonCode::SUCCESS],
                AckProperties::default(),
                NOW,
                &mut out,
            )
            .unwrap();
        assert!(matches!(
            server.handle_input(&mut input, NOW, &mut out),
            Some(server::Action::Subscribe(..))
        ));
    }
}

/// [5.0 §3.9.3] [5.0 §3.11.3]
#[test]
fn request_is_answered_with_packet_identifier_in_use() {
    let requests = [&b"\x82\x07\0\x07\0\0\x01t\0"[..], b"\xA2\x06\0\x07\0\0\x01t"];
    let answers = [&b"\x90\x04\0\x07\0\x91"[..], b"\xB0\x04\0\x07\0\x91"];
    let mut server = accepted(&lasting(Version::V5_0));
    server.hears(&encoded(numbered(7, QoS::ExactlyOnce), Version::V5_0));
    for (request, answer) in requests.into_iter().zip(answers) {
        assert_eq!(server.hears(request), (vec![], answer.to_vec()), "a message has it");
    }
    let mut server = accepted(&lasting(Version::V5_0));
    let token = tokens(&server.hears(requests[0]).0)[0];
    for (request, answer) in requests.into_iter().zip(answers) {
        assert_eq!(server.hears(request), (vec![], answer.to_vec()), "another request has it");
    }
    server
        .suback(token, &[ReasonCode::SUCCESS], AckProperties::default(), NOW, &mut Vec::new())
        .unwrap();
    assert_eq!(server.hears(requests[0]).0.len(), 1, "it is free");
}

/// [5.0 MQTT-2.2.1-3] [3.1.1 MQTT-2.3.1-2]
#[test]
fn messages_and_subscriptions_share_packet_identifiers() {
    Pair::in_all_chunks(|pair| {
        pair.connect(&lasting(Version::V3_1_1));
        pair.publish(1, &message(QoS::AtLeastOnce, "x"));
        let filter = [Subscription::new("#", QoS::AtMostOnce)];
        pair.client(|client, now, out| {
            client.subscribe(2, &filter, SubscribeProperties::default(), now, out)
        })
        .unwrap();
        pair.publish(3, &message(QoS::AtLeastOnce, "y"));
        let filters = ["#".into()];
        pair.client(|client, now, out| {
            client.unsubscribe(4, &filters, UnsubscribeProperties::default(), now, out)
        })
        .unwrap();
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
        assert!(
            log.contains("client: Subscribed(2,") && log.contains("client: Unsubscribed(4,"),
            "{log}"
        );
    });
}

/// [5.0 §4.3.3] [5.0 §3.6.2.1] [5.0 §3.7.2.1]
#[test]
fn unknown_identifiers_are_answered_without_ending_a_message() {
    for (version, pubrel, pubcomp) in [
        (Version::V5_0, "62 03 00 07 92", "70 03 00 07 92"),
        (Version::V3_1_1, "62 02 00 07", "70 02 00 07"),
    ] {
        let mut pair = Pair::new(Chunks::Whole);
        pair.connect(&lasting(version));
        for ack in [Packet::Puback, Packet::Pubrec, Packet::Pubrel, Packet::Pubcomp] {
            pair.forge_to_client(&encoded(
                ack(Ack::new(identifier(7), ReasonCode::SUCCESS)),
                version,
            ));
        }
        let mut input = &pair.written_by_server()[..];
        let mut out = Vec::new();
        assert!(pair.client.handle_input(&mut input, pair.now, &mut out).is_none());
        let hex = |bytes: &[u8]| {
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
        };
        let expected = format!("{pubrel} {pubcomp}");
        // The answers can have a property length even if the standard lets them omit it.
        assert_eq!(
            hex(&out).replace(" 92 00", " 92").replace("62 04", "62 03").replace("70 04", "70 03"),
            expected
        );
        assert!(pair.client.is_connected());
    }
}

#[test]
fn acknowledgement_of_the_wrong_type_closes_the_connection() {
    let mut pair = Pair::new(Chunks::Whole);
    pair.connect(&lasting(Version::V5_0));
    pair.publish(1, &message(QoS::ExactlyOnce, "x"));
    pair.forge_to_client(&encoded(
        Packet::Puback(Ack::new(identifier(1), ReasonCode::SUCCESS)),
        Version::V5_0,
    ));
    pair.take_log();
    let mut input = &pair.written_by_server()[..];
    let action = pair.client.handle_input(&mut input, pair.now, &mut Vec::new());
    assert!(matches!(
        action,
        Some(client::Action::Closed(CloseCause::Violation(ProtocolError::WrongAcknowledgement(_))))
    ));
}

/// [5.0 MQTT-4.3.3-9] [5.0 MQTT-4.4.0-2]
#[test]
fn failed_pubrec_ends_the_message_and_frees_its_identifier() {
    let mut pair = Pair::with(
        ClientConfig::new().manual_acknowledgement(true),
        ServerConfig::new(),
        Chunks::Whole,
    );
    pair.connect(&lasting(Version::V5_0));
    for round in 0..3 {
        pair.deliver(round, &message(QoS::ExactlyOnce, "x"));
        let mut input = &pair.written_by_server()[..];
        let mut out = Vec::new();
        let Some(client::Action::Message(received)) =
            pair.client.handle_input(&mut input, pair.now, &mut out)
        else {
            panic!()
        };
        pair.client
            .acknowledge(received.token.unwrap(), ReasonCode::QUOTA_EXCEEDED, pair.now, &mut out)
            .unwrap();
        assert!(matches!(packets(&out, Version::V5_0)[..], [Packet::Pubrec(ack)]
                if ack.reason_code == ReasonCode::QUOTA_EXCEEDED));
        let mut input = &out[..];
        let action = pair.server.handle_input(&mut input, pair.now, &mut Vec::new());
        assert!(
            matches!(action, Some(server::Action::Published(published)) if published.key == round)
        );
        pair.cut();
        pair.connect(&lasting(Version::V5_0));
    }
    assert_eq!(pair.server.session().in_flight(), 0);
}

/// Returns a connected pair whose client acknowledges manually.
fn manual_pair(version: Version) -> Pair {
    let client = ClientConfig::new().manual_acknowledgement(true);
    let mut pair = Pair::with(client, ServerConfig::new(), Chunks::Whole);
    pair.connect(&lasting(version));
    pair
}

/// [5.0 MQTT-4.6.0-2] [5.0 MQTT-4.6.0-3] [3.1.1 MQTT-4.6.0-2] [3.1.1 MQTT-4.6.0-3]
#[test]
fn manual_acknowledgements_keep_order_and_end_with_the_connection() {
    for version in VERSIONS {
        let mut pair = manual_pair(version);
        for (key, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce), (3, QoS::AtLeastOnce)] {
            pair.deliver(key, &message(qos, "x"));
        }
        let bytes = pair.written_by_server();
        let mut input = &bytes[..];
        let mut tokens = Vec::new();
        let mut out = Vec::new();
        while let Some(client::Action::Message(received)) =
            pair.client.handle_input(&mut input, pair.now, &mut out)
        {
            tokens.push(received.token.unwrap());
        }
        let mut acknowledge = |index: usize, out: &mut Vec<u8>| {
            pair.client.acknowledge(tokens[index], ReasonCode::SUCCESS, pair.now, out)
        };
        acknowledge(2, &mut out).unwrap();
        acknowledge(1, &mut out).unwrap();
        assert!(out.is_empty(), "they wait for the first message");
        assert_eq!(acknowledge(1, &mut out), Err(AcknowledgeError::AlreadyAcknowledged));
        acknowledge(0, &mut out).unwrap();
        let acks = packets(&out, version);
        assert!(
            matches!(acks[..], [Packet::Puback(_), Packet::Pubrec(_), Packet::Puback(_)]),
            "{acks:?}"
        );
        assert_eq!(acknowledge(0, &mut out), Err(AcknowledgeError::AlreadyAcknowledged));
        pair.cut();
        let stale = pair.client.acknowledge(tokens[0], ReasonCode::SUCCESS, pair.now, &mut out);
        assert_eq!(stale, Err(AcknowledgeError::Stale));
    }
}

/// [5.0 MQTT-4.3.3-10] [3.1.1 MQTT-4.3.3-2]
#[test]
fn message_acknowledged_out_of_turn_is_delivered_once() {
    for version in VERSIONS {
        let mut pair = manual_pair(version);
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
        assert_eq!(pair.at_client, ["one"], "{version}: the other was accepted before");
    }
}
