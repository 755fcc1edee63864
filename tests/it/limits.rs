//! The limits that each side has announced, and what the other must therefore not send. Topic
//! aliases are in `aliases.rs`.

use mqtt_sansio::client::{self, ClientConfig};
use mqtt_sansio::codec::{
    self, Ack, AckProperties, Connack, ConnackProperties, Connect, DecodeError, Disconnect,
    DisconnectProperties, Expiry, Packet, Publish, PublishProperties, QoS, ReasonCode, Sequence,
    Suback, Subscribe, SubscribeProperties, Subscription, SubscriptionIdentifier, Text,
    Unsubscribe, UnsubscribeProperties, UserProperty, Version,
};
use mqtt_sansio::server::{AnswerError, Server, ServerConfig};
use mqtt_sansio::session::{
    CloseCause, Message, Outcome, Outgoing, ProtocolError, PublishError, RequestError,
};
use testkit::machine::{Hears, NOW, accepted, asked, connected, connecting, resume, tokens};
use testkit::pair::{Chunks, Pair};
use testkit::wire::{V5_0, VERSIONS, encoded, identifier, lasting, message, packets};

/// Returns the keys of the messages that the connection did not allow. No others may have ended.
fn not_allowed(actions: &[client::Action<'_>]) -> Vec<u64> {
    let ends = actions.iter().filter_map(|action| match action {
        client::Action::Published(published) => Some(published),
        _ => None,
    });
    ends.inspect(|end| assert!(matches!(end.outcome, Outcome::NotAllowed(_)), "{end:?}"))
        .map(|end| end.key)
        .collect()
}

/// Returns a SUBSCRIBE and an UNSUBSCRIBE with that many filters.
fn requests(filters: usize) -> [Vec<u8>; 2] {
    let subscriptions = vec![Subscription::new("t", QoS::AtMostOnce); filters];
    let topic_filters: Vec<Text<'_>> = vec!["t".into(); filters];
    let properties = SubscribeProperties::default();
    let subscribe = Subscribe {
        packet_identifier: identifier(7),
        properties,
        subscriptions: subscriptions.as_slice().into(),
    };
    let properties = UnsubscribeProperties::default();
    let unsubscribe = Unsubscribe {
        packet_identifier: identifier(8),
        properties,
        topic_filters: topic_filters.as_slice().into(),
    };
    [encoded(subscribe, V5_0), encoded(unsubscribe, V5_0)]
}

// ---- limits of the server ----

/// [5.0 MQTT-3.2.2-11] [5.0 MQTT-3.2.2-14] [5.0 MQTT-3.2.2-15]
#[test]
fn queued_messages_are_checked_against_the_limits_of_connack() {
    let mut client = connecting(ClientConfig::new(), &lasting(V5_0));
    let large = "x".repeat(100);
    for (key, publish) in [
        (1, message(QoS::ExactlyOnce, "x")),
        (2, Publish { retain: true, ..message(QoS::AtLeastOnce, "x") }),
        (3, message(QoS::AtLeastOnce, &large)),
        (4, message(QoS::AtLeastOnce, "fits")),
    ] {
        client.publish(key, &publish, NOW, &mut Vec::new()).unwrap();
    }
    let properties = ConnackProperties {
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        maximum_packet_size: Some(50),
        ..ConnackProperties::default()
    };
    let connack = encoded(Connack { properties, ..Connack::default() }, V5_0);
    let (actions, said) = client.hears(&connack);
    assert_eq!(not_allowed(&actions), [1, 2, 3]);
    assert_eq!(
        packets(&said, V5_0),
        [Publish { packet_identifier: Some(identifier(1)), ..message(QoS::AtLeastOnce, "fits") }
            .into()]
    );
}

/// [5.0 MQTT-3.2.2-11] [5.0 MQTT-3.2.2-14] [5.0 MQTT-3.2.2-15]
#[test]
fn resent_messages_are_checked_against_the_new_connections_limits() {
    for (properties, expected) in [
        (
            ConnackProperties { maximum_qos: Some(QoS::AtMostOnce), ..Default::default() },
            &[1, 2, 3][..],
        ),
        (ConnackProperties { retain_available: Some(false), ..Default::default() }, &[2]),
        (ConnackProperties { maximum_packet_size: Some(50), ..Default::default() }, &[3]),
        (ConnackProperties::default(), &[]),
    ] {
        let mut client = connected(&lasting(V5_0), ConnackProperties::default());
        let large = "x".repeat(100);
        for (key, retain, payload) in [(1, false, "x"), (2, true, "x"), (3, false, &large)] {
            let publish = Publish { retain, ..message(QoS::AtLeastOnce, payload) };
            client.publish(key, &publish, NOW, &mut Vec::new()).unwrap();
        }
        let _ = client.connection_lost();
        client.connect(&lasting(V5_0), NOW, &mut Vec::new()).unwrap();
        let connack =
            encoded(Connack { session_present: true, properties, ..Connack::default() }, V5_0);
        let (actions, said) = client.hears(&connack);
        assert_eq!(not_allowed(&actions), expected);
        assert_eq!(packets(&said, V5_0).len(), 3 - expected.len());
    }
}

/// [5.0 MQTT-3.2.2-15]
#[test]
fn caller_is_refused_requests_larger_than_the_server_accepts() {
    let filters = [Subscription::new("topic/filter", QoS::AtMostOnce)];
    for maximum in [3, 18, 19, 20] {
        let properties = ConnackProperties {
            maximum_packet_size: Some(maximum),
            ..ConnackProperties::default()
        };
        let mut client = connected(&lasting(V5_0), properties);
        let mut out = Vec::new();
        let subscribed =
            client.subscribe(1, &filters, SubscribeProperties::default(), NOW, &mut out);
        let unsubscribed = client.unsubscribe(
            2,
            &["topic/filter".into()],
            UnsubscribeProperties::default(),
            NOW,
            &mut out,
        );
        for (size, answer) in [(20, subscribed), (19, unsubscribed)] {
            assert_eq!(
                answer,
                if size > maximum { Err(RequestError::TooLarge { size, maximum }) } else { Ok(()) }
            );
        }
        assert_eq!(
            packets(&out, V5_0).len(),
            usize::from(maximum >= 19) + usize::from(maximum >= 20)
        );
    }
    let properties =
        ConnackProperties { maximum_packet_size: Some(20), ..ConnackProperties::default() };
    let mut client = connected(&lasting(V5_0), properties);
    let properties = DisconnectProperties {
        reason_string: Some("a longer reason string".into()),
        ..Default::default()
    };
    let mut out = Vec::new();
    // Problem information is omitted.
    client.disconnect(&Disconnect { properties, ..Disconnect::default() }, NOW, &mut out).unwrap();
    assert_eq!(packets(&out, V5_0), [Disconnect::default().into()]);
}

/// [5.0 MQTT-3.2.2-15]
#[test]
fn acknowledgement_is_not_sent_when_larger_than_the_server_accepts() {
    for (maximum, qos, is_room) in
        [(4, QoS::AtLeastOnce, true), (3, QoS::AtLeastOnce, false), (3, QoS::ExactlyOnce, false)]
    {
        let properties = ConnackProperties {
            maximum_packet_size: Some(maximum),
            ..ConnackProperties::default()
        };
        let mut client = connected(&lasting(V5_0), properties);
        let publish =
            encoded(Publish { packet_identifier: Some(identifier(1)), ..message(qos, "x") }, V5_0);
        let (actions, said) = client.hears(&publish);
        assert!(matches!(actions[0], client::Action::Message(_)));
        let no_room = client::Action::Closed(CloseCause::Violation(ProtocolError::NoRoomForAnswer));
        assert_eq!(actions[1..], if is_room { vec![] } else { vec![no_room] });
        assert!(said.len() <= 4 && said.is_empty() != is_room, "{said:?}");
    }
}

/// [5.0 §3.2.2.3.12]
#[test]
fn caller_is_refused_subscription_identifiers_that_the_server_lacks() {
    for (available, identifier, is_refused) in [
        (None, Some(1), false),
        (Some(true), Some(1), false),
        (Some(false), Some(1), true),
        (Some(false), None, false),
    ] {
        let properties = ConnackProperties {
            subscription_identifier_available: available,
            ..ConnackProperties::default()
        };
        let mut client = connected(&lasting(V5_0), properties);
        let subscription_identifier = identifier.and_then(SubscriptionIdentifier::new);
        let properties =
            SubscribeProperties { subscription_identifier, ..SubscribeProperties::default() };
        let mut out = Vec::new();
        let answer = client.subscribe(
            1,
            &[Subscription::new("t", QoS::AtMostOnce)],
            properties,
            NOW,
            &mut out,
        );
        let refused =
            Err(RequestError::NotSupported(ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED));
        assert_eq!(
            (answer, out.is_empty()),
            (if is_refused { refused } else { Ok(()) }, is_refused)
        );
    }
}

// ---- limits of the client ----

/// [5.0 §3.1.2.11.4] [5.0 §4.13.1]
#[test]
fn packet_above_the_clients_maximum_size_closes_the_connection() {
    // CONNECT announces a limit to the server; the configuration can set a lower one without doing
    // so.
    for (told, configured, maximum) in [
        (Some(20), None, 20),
        (None, Some(20), 20),
        (Some(20), Some(19), 19),
        (Some(20), Some(21), 20),
    ] {
        let mut connect = lasting(V5_0);
        connect.properties.maximum_packet_size = told;
        let config = configured
            .map_or_else(ClientConfig::new, |size| ClientConfig::new().maximum_packet_size(size));
        let mut client = connecting(config, &connect);
        client.hears(&encoded(Connack::default(), V5_0));
        // Six bytes precede the payload.
        let payload = "x".repeat(20);
        let fits = encoded(message(QoS::AtMostOnce, &payload[..maximum - 6]), V5_0);
        assert!(matches!(client.hears(&fits), (actions, _)
                if matches!(actions[..], [client::Action::Message(_)])));
        let larger = encoded(message(QoS::AtMostOnce, &payload[..maximum - 5]), V5_0);
        let (size, maximum) =
            (u32::try_from(maximum).unwrap() + 1, u32::try_from(maximum).unwrap());
        let error = ProtocolError::Packet(DecodeError::PacketTooLarge { size, maximum });
        let closed = client::Action::Closed(CloseCause::Violation(error));
        // The header suffices.
        assert_eq!(client.hears(&larger[..2]), (vec![closed], vec![0xE0, 2, 0x95, 0]));
    }
}

/// [5.0 §3.3.4] [5.0 §4.13.1]
#[test]
fn client_reports_that_its_receive_maximum_was_exceeded() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut connect = lasting(V5_0);
        connect.properties.receive_maximum = Some(2);
        let mut client = connecting(ClientConfig::new().manual_acknowledgement(true), &connect);
        client.hears(&encoded(Connack::default(), V5_0));
        let publish = |number| {
            encoded(
                Publish { packet_identifier: Some(identifier(number)), ..message(qos, "x") },
                V5_0,
            )
        };
        let bytes =
            [publish(1), publish(2), publish(3), encoded(message(QoS::AtMostOnce, "after"), V5_0)]
                .concat();
        let (actions, said) = client.hears(&bytes);
        let violation =
            client::Action::Closed(CloseCause::Violation(ProtocolError::ReceiveMaximumExceeded));
        assert_eq!((actions.len(), &actions[2]), (3, &violation));
        assert_eq!(said, [0xE0, 2, 0x93, 0]);
    }
}

/// Without its answer a request would never complete. [5.0 MQTT-3.1.2-24]
#[test]
fn answer_above_the_clients_maximum_size_closes_the_connection() {
    let codes = [ReasonCode::SUCCESS; 40];
    for (maximum, fits) in [(17, false), (44, false), (45, true)] {
        let mut connect = lasting(V5_0);
        connect.properties.maximum_packet_size = Some(maximum);
        let mut server = accepted(&connect);
        let requests = requests(codes.len()).concat();
        let tokens = tokens(&server.hears(&requests).0);
        let mut out = Vec::new();
        let subscribed = server.suback(tokens[0], &codes, AckProperties::default(), NOW, &mut out);
        if fits {
            assert_eq!(subscribed, Ok(()));
            assert_eq!(
                server.unsuback(tokens[1], &codes, AckProperties::default(), NOW, &mut out),
                Ok(())
            );
            continue;
        }
        assert_eq!(subscribed, Err(AnswerError::TooLarge { size: 45, maximum }));
        assert_eq!(packets(&out, V5_0), [Disconnect::new(ReasonCode::PACKET_TOO_LARGE).into()]);
        let closed = server.handle_input(&mut &b""[..], NOW, &mut out);
        assert_eq!(
            closed,
            Some(mqtt_sansio::server::Action::Closed {
                cause: CloseCause::Requested,
                publish_will: true
            })
        );
    }
}

// ---- problem information ----

const REASON: &str = "a reason that fills some space";

/// The packets of a server that can have a Reason String and User Properties.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Acceptance,
    Refusal,
    Suback,
    Unsuback,
    Disconnect,
}

const ANSWERS: [Answer; 5] =
    [Answer::Acceptance, Answer::Refusal, Answer::Suback, Answer::Unsuback, Answer::Disconnect];

impl Answer {
    /// Returns the packet that a client receives, with both.
    fn bytes(self, connect: &Connect<'_>) -> Vec<u8> {
        let user = [UserProperty::new("name", "value")];
        let (reason_string, user_properties) =
            (Some(REASON.into()), Sequence::from(user.as_slice()));
        let properties =
            ConnackProperties { reason_string, user_properties, ..ConnackProperties::default() };
        let mut out = Vec::new();
        let mut server = asked(ServerConfig::new(), connect);
        match self {
            Self::Refusal => {
                server.refuse(ReasonCode::NOT_AUTHORIZED, properties, NOW, &mut out).unwrap();
            }
            _ => server.accept(None, properties, NOW, &mut out).unwrap(),
        }
        if matches!(self, Self::Acceptance | Self::Refusal) {
            return out;
        }
        out.clear();
        let requests = requests(1).concat();
        let tokens = tokens(&server.hears(&requests).0);
        let properties = AckProperties { reason_string, user_properties };
        match self {
            Self::Suback => {
                server
                    .suback(tokens[0], &[ReasonCode::SUCCESS], properties, NOW, &mut out)
                    .unwrap();
            }
            Self::Unsuback => server
                .unsuback(tokens[1], &[ReasonCode::SUCCESS], properties, NOW, &mut out)
                .unwrap(),
            _ => {
                let properties = DisconnectProperties {
                    reason_string,
                    user_properties,
                    ..DisconnectProperties::default()
                };
                server
                    .disconnect(
                        &Disconnect { reason_code: ReasonCode::SERVER_BUSY, properties },
                        NOW,
                        &mut out,
                    )
                    .unwrap();
            }
        }
        out
    }

    /// Returns whether the packet has a reason string, and whether it has user properties.
    fn diagnostics(self, connect: &Connect<'_>) -> (bool, bool) {
        let bytes = self.bytes(connect);
        let (reason_string, user_properties) = match packets(&bytes, V5_0)[0] {
            Packet::Connack(Connack { properties: p, .. }) => (p.reason_string, p.user_properties),
            Packet::Suback(suback) | Packet::Unsuback(suback) => {
                (suback.properties.reason_string, suback.properties.user_properties)
            }
            Packet::Disconnect(Disconnect { properties: p, .. }) => {
                (p.reason_string, p.user_properties)
            }
            other => panic!("{other:?}"),
        };
        (reason_string.is_some(), !user_properties.is_empty())
    }
}

/// The user properties go first, then the reason string, then both.
/// [5.0 MQTT-3.2.2-19] [5.0 MQTT-3.2.2-20] [5.0 MQTT-3.9.2-1] [5.0 MQTT-3.9.2-2]
/// [5.0 MQTT-3.11.2-1] [5.0 MQTT-3.11.2-2] [5.0 MQTT-3.14.2-3] [5.0 MQTT-3.14.2-4]
#[test]
fn problem_information_is_omitted_when_it_does_not_fit() {
    // Identifier, length and text of "name" and "value", and of the reason.
    let (user_property, reason) = (1 + 2 + 4 + 2 + 5, 1 + 2 + 30);
    for answer in ANSWERS {
        let size = u32::try_from(answer.bytes(&lasting(V5_0)).len()).unwrap();
        for (maximum, expected) in [
            (size, (true, true)),
            (size - 1, (true, false)),
            (size - user_property, (true, false)),
            (size - user_property - 1, (false, true)),
            (size - reason, (false, true)),
            (size - reason - 1, (false, false)),
        ] {
            let mut connect = lasting(V5_0);
            connect.properties.maximum_packet_size = Some(maximum);
            assert_eq!(answer.diagnostics(&connect), expected, "{answer:?} of {size} bytes");
        }
    }
}

/// [5.0 MQTT-3.1.2-29]
#[test]
fn unwanted_problem_information_is_sent_only_in_connack_and_disconnect() {
    for answer in ANSWERS {
        for (wanted, expected) in [
            (None, true),
            (Some(true), true),
            (Some(false), !matches!(answer, Answer::Suback | Answer::Unsuback)),
        ] {
            let mut connect = lasting(V5_0);
            connect.properties.request_problem_information = wanted;
            assert_eq!(answer.diagnostics(&connect), (expected, expected), "{answer:?} {wanted:?}");
        }
    }
}

/// [5.0 MQTT-3.1.2-28]
#[test]
fn response_information_is_sent_only_on_request() {
    for (wanted, expected) in [(None, None), (Some(false), None), (Some(true), Some("here"))] {
        let mut connect = lasting(V5_0);
        connect.properties.request_response_information = wanted;
        let properties = ConnackProperties {
            response_information: Some("here".into()),
            ..ConnackProperties::default()
        };
        let mut out = Vec::new();
        asked(ServerConfig::new(), &connect).accept(None, properties, NOW, &mut out).unwrap();
        let Packet::Connack(Connack { properties, .. }) = packets(&out, V5_0)[0] else { panic!() };
        assert_eq!(properties.response_information.map(Text::to_str), expected);
    }
}

// ---- size of the output ----

const LARGE: usize = 10_000;

/// Returns a server with 50 large messages for its client.
fn filled(version: Version, qos: QoS) -> Server {
    let mut server = accepted(&lasting(version));
    let large = Message::new(&Publish { qos, ..Publish::new("t", &[0; LARGE]) }).unwrap();
    for key in 0..50 {
        server.deliver(Outgoing::new(Some(key), large.clone()), NOW).unwrap();
    }
    server
}

/// Whether the output has reached 64 KiB, after which no packet may begin.
fn is_full(out: &[u8]) -> bool {
    let high_water = 64 * 1024;
    (high_water..high_water + LARGE + 20).contains(&out.len())
}

/// Returns all that a server writes while its host flushes until nothing is left.
fn drained(server: &mut Server, mut out: Vec<u8>) -> Vec<u8> {
    let mut all = Vec::new();
    while server.flush(NOW, &mut out) {
        assert!(is_full(&out), "{}", out.len());
        let full = out.clone();
        assert!(server.flush(NOW, &mut out) && out == full, "more is queued, and there is no room");
        all.append(&mut out);
    }
    all.append(&mut out);
    all
}

#[test]
fn server_writes_at_most_64_kib_plus_one_packet() {
    for version in VERSIONS {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let mut server = filled(version, qos);
            assert_eq!(packets(&drained(&mut server, Vec::new()), version).len(), 50);
            let mut server = filled(version, qos);
            let out = server.hears(&[]).1;
            assert!(is_full(&out), "`handle_input` writes as much as `flush`");
            assert_eq!(packets(&drained(&mut server, out), version).len(), 50);
        }
        // Resent messages, and the CONNACK before them.
        let mut server = filled(version, QoS::AtLeastOnce);
        drained(&mut server, Vec::new());
        let session = Some(server.take_session());
        let mut server = asked(ServerConfig::new(), &lasting(version));
        let mut out = Vec::new();
        server.accept(session, ConnackProperties::default(), NOW, &mut out).unwrap();
        assert!(is_full(&out));
        assert_eq!(packets(&drained(&mut server, out), version).len(), 51);
    }
}

/// A client has one server, and a host that can measure its own buffer.
#[test]
fn client_writes_all_that_its_limits_allow() {
    let mut client = connected(&lasting(V5_0), ConnackProperties::default());
    let mut out = Vec::new();
    let large = Publish { qos: QoS::AtLeastOnce, ..Publish::new("t", &[0; LARGE]) };
    (0..50).for_each(|key| client.publish(key, &large, NOW, &mut out).unwrap());
    assert_eq!(packets(&out, V5_0).len(), 50);
    assert_eq!(packets(&resume(&mut client, &lasting(V5_0)), V5_0).len(), 50);
}

/// [5.0 MQTT-3.3.4-7] [5.0 MQTT-3.3.4-9] [5.0 MQTT-4.9.0-2] [5.0 MQTT-4.9.0-3]
#[test]
fn messages_in_flight_never_exceed_receive_maximum() {
    Pair::in_all_chunks_with(
        &ClientConfig::new(),
        &ServerConfig::new().receive_maximum(2),
        |pair| {
            let mut connect = lasting(Version::V5_0);
            connect.properties.receive_maximum = Some(3);
            pair.connect(&connect);
            for key in 0..10 {
                pair.publish(key, &message(QoS::ExactlyOnce, "up"));
                pair.deliver(key, &message(QoS::AtLeastOnce, "down"));
            }
            pair.client(|client, now, out| {
                client.subscribe(
                    99,
                    &[Subscription::new("#", QoS::AtMostOnce)],
                    SubscribeProperties::default(),
                    now,
                    out,
                )
            })
            .unwrap();
            let written = pair.written_by_client();
            let written = packets(&written, Version::V5_0);
            assert_eq!(
                written.iter().filter(|packet| matches!(packet, Packet::Publish(_))).count(),
                2
            );
            assert!(matches!(written[2], Packet::Subscribe(_)), "other packets are not delayed");
            assert_eq!(packets(&pair.written_by_server(), Version::V5_0).len(), 3);
            assert_eq!(pair.client.session().queued(), 8);
            pair.settle();
            assert_eq!((pair.at_server.len(), pair.at_client.len()), (10, 10));
            assert_eq!((pair.done_at_client.len(), pair.done_at_server.len()), (10, 10));
        },
    );
}

/// [5.0 MQTT-4.9.0-1]
#[test]
fn resent_messages_count_against_the_new_receive_maximum() {
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
        assert_eq!(
            packets(&pair.written_by_server(), Version::V5_0).len(),
            2,
            "CONNACK and one PUBLISH"
        );
        pair.settle();
        assert_eq!(pair.at_client, ["a", "b", "c", "d", "e"]);
        assert_eq!(pair.done_at_server.len(), 5);
    });
}

/// [5.0 §3.3.4]
#[test]
fn messages_above_receive_maximum_close_the_connection() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut pair = Pair::with(
            ClientConfig::new().manual_acknowledgement(true),
            ServerConfig::new(),
            Chunks::Whole,
        );
        let mut connect = lasting(Version::V5_0);
        connect.properties.receive_maximum = Some(2);
        pair.connect(&connect);
        pair.take_log();
        for number in 1..=3 {
            let publish =
                Publish { packet_identifier: Some(identifier(number)), ..message(qos, "x") };
            // A repeat occupies no second place.
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
        assert!(
            log.iter()
                .any(|line| line.starts_with("client: Closed(Violation(ReceiveMaximumExceeded")),
            "{log:#?}"
        );
        assert!(log.iter().all(|line| !line.contains("server: Disconnected")), "{log:#?}");
    }
}

/// [5.0 MQTT-3.2.2-15] [5.0 MQTT-3.1.2-24] [5.0 MQTT-3.1.2-25]
#[test]
fn packet_is_sent_only_up_to_maximum_packet_size() {
    Pair::in_all_chunks_with(
        &ClientConfig::new(),
        &ServerConfig::new().maximum_packet_size(50),
        |pair| {
            let mut connect = lasting(Version::V5_0);
            connect.properties.maximum_packet_size = Some(50);
            pair.connect(&connect);
            // A header of two bytes, three bytes of topic name and one of properties precede the
            // payload.
            let (fits, larger) = ("x".repeat(44), "x".repeat(45));
            pair.publish(1, &message(QoS::AtMostOnce, &fits));
            let refused = pair.client(|client, now, out| {
                client.publish(2, &message(QoS::AtMostOnce, &larger), now, out)
            });
            assert_eq!(refused, Err(PublishError::TooLarge { size: 51, maximum: 50 }));
            pair.deliver(1, &message(QoS::AtMostOnce, &fits));
            pair.deliver(2, &message(QoS::AtLeastOnce, &larger));
            pair.settle();
            assert_eq!((pair.at_server.len(), pair.at_client.len()), (1, 1));
            assert_eq!(pair.server.session().in_flight(), 0);
            pair.publish(3, &message(QoS::AtMostOnce, "next"));
            pair.settle();
            assert_eq!(
                pair.done_at_server,
                [(2, "NotAllowed".to_owned())],
                "as if it had been sent"
            );
        },
    );
}

/// A header suffices to refuse a packet. [5.0 §3.2.2.3.6]
#[test]
fn large_packet_is_refused_when_its_header_arrives() {
    Pair::in_all_chunks(|pair| {
        pair.connect(&lasting(Version::V5_0));
        pair.forge_to_server(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
        pair.take_log();
        pair.settle();
        let log = pair.take_log();
        assert!(
            log[0].contains("PacketTooLarge { size: 268435460, maximum: 1048576 }"),
            "{log:#?}"
        );
        assert!(log[1].contains("Disconnected") && log[1].contains("Packet too large"), "{log:#?}");
    });
}

/// [5.0 MQTT-3.2.2-11] [5.0 MQTT-3.2.2-14] [5.0 §3.2.2.3.11 to §3.2.2.3.13]
#[test]
fn caller_is_refused_what_the_server_does_not_offer() {
    let config = ServerConfig::new()
        .maximum_qos(QoS::AtLeastOnce)
        .retain_available(false)
        .wildcard_subscription_available(false)
        .shared_subscription_available(false)
        .subscription_identifier_available(false);
    Pair::in_all_chunks_with(&ClientConfig::new(), &config, |pair| {
        pair.connect(&lasting(Version::V5_0));
        let publish = |pair: &mut Pair, publish: Publish<'_>| {
            pair.client(|client, now, out| client.publish(1, &publish, now, out))
        };
        let too_high = publish(pair, message(QoS::ExactlyOnce, "x"));
        assert_eq!(too_high, Err(PublishError::QosNotSupported { maximum: QoS::AtLeastOnce }));
        let retained = publish(pair, Publish { retain: true, ..message(QoS::AtMostOnce, "x") });
        assert_eq!(retained, Err(PublishError::RetainNotSupported));
        for (filter, code) in [
            ("a/#", ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED),
            ("$share/g/a", ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED),
        ] {
            let filter = [Subscription::new(filter, QoS::AtMostOnce)];
            let refused = pair.client(|client, now, out| {
                client.subscribe(1, &filter, SubscribeProperties::default(), now, out)
            });
            assert_eq!(refused, Err(RequestError::NotSupported(code)));
        }
        assert!(pair.written_by_client().is_empty());
        // A server that receives such a packet nevertheless answers with the reason.
        pair.forge_to_server(&encoded(
            Publish { retain: true, ..message(QoS::AtMostOnce, "x") },
            Version::V5_0,
        ));
        pair.settle();
        assert!(pair.take_log().join("\n").contains("Retain not supported"));
    });
}

#[test]
fn full_queue_returns_the_message() {
    Pair::in_all_chunks_with(
        &ClientConfig::new().maximum_queued(2, 1_000),
        &ServerConfig::new(),
        |pair| {
            pair.connect(&lasting(Version::V3_1_1));
            pair.cut();
            pair.publish(1, &message(QoS::AtMostOnce, "one"));
            pair.publish(2, &message(QoS::ExactlyOnce, "two"));
            let full = pair.client(|client, now, out| {
                client.publish(3, &message(QoS::AtLeastOnce, "three"), now, out)
            });
            assert_eq!(full, Err(PublishError::QueueFull));
            pair.connect(&lasting(Version::V3_1_1));
            assert_eq!(pair.at_server, ["one", "two"]);
        },
    );
}

#[test]
fn twenty_messages_are_in_flight_before_5_0() {
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

/// [5.0 §3.1.2.11.7]
#[test]
fn unrequested_problem_information_closes_the_connection() {
    let user = [UserProperty::new("name", "value")];
    let wordy = [
        AckProperties { reason_string: Some("because".into()), ..AckProperties::default() },
        AckProperties { user_properties: (&user).into(), ..AckProperties::default() },
    ];
    for (asked, properties) in
        [(false, wordy[0]), (false, wordy[1]), (true, wordy[0]), (false, AckProperties::default())]
    {
        let ack = |reason_code| Ack { properties, ..Ack::new(identifier(1), reason_code) };
        let packets: [Packet<'_>; 4] = [
            Packet::Puback(ack(ReasonCode::SUCCESS)),
            Packet::Pubrec(ack(ReasonCode::NOT_AUTHORIZED)),
            Packet::Pubrel(ack(ReasonCode::SUCCESS)),
            Packet::Pubcomp(ack(ReasonCode::SUCCESS)),
        ];
        let suback = Packet::Suback(Suback {
            packet_identifier: identifier(1),
            properties,
            reason_codes: (&[ReasonCode::SUCCESS]).into(),
        });
        for packet in packets.into_iter().chain([suback]) {
            let mut connect = lasting(V5_0);
            connect.properties.request_problem_information = Some(asked);
            let mut client = connected(&connect, ConnackProperties::default());
            let mut out = Vec::new();
            match packet {
                Packet::Suback(_) => {
                    let filters = [Subscription::new("a", QoS::AtMostOnce)];
                    client
                        .subscribe(1, &filters, SubscribeProperties::default(), NOW, &mut out)
                        .unwrap();
                }
                Packet::Pubrec(_) => {
                    client.publish(1, &message(QoS::ExactlyOnce, "x"), NOW, &mut out).unwrap();
                }
                _ => client.publish(1, &message(QoS::AtLeastOnce, "x"), NOW, &mut out).unwrap(),
            }
            if let Packet::Pubcomp(_) | Packet::Pubrel(_) = packet {
                client.hears(&testkit::wire::ack(Packet::Puback, 1, V5_0));
            }
            let bytes = encoded(packet, V5_0);
            let (actions, said) = client.hears(&bytes);
            let violation =
                client::Action::Closed(CloseCause::Violation(ProtocolError::ProblemInformation));
            let refused = actions.last() == Some(&violation) && said == [0xE0, 2, 0x82, 0];
            assert_eq!(refused, !asked && !properties.is_empty(), "{packet:?} {actions:?}");
            assert!(refused || client.is_connected(), "{packet:?} {actions:?}");
        }
    }
}

/// Before 5.0 the server cannot announce this to the client, so its host decides. [5.0 §3.2.2.3.11]
/// [5.0 §3.2.2.3.12] [5.0 §3.2.2.3.13]
#[test]
fn server_closes_the_connection_when_a_subscription_is_not_supported() {
    let no = Some(false);
    let default = ConnackProperties::default();
    for (properties, filter, subscription_identifier, code) in [
        (
            ConnackProperties { wildcard_subscription_available: no, ..default },
            "a/+",
            None,
            ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
        ),
        (
            ConnackProperties { shared_subscription_available: no, ..default },
            "$share/g/a",
            None,
            ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
        ),
        (
            ConnackProperties { subscription_identifier_available: no, ..default },
            "a",
            SubscriptionIdentifier::new(1),
            ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
        ),
    ] {
        for version in VERSIONS {
            for allowed in [false, true] {
                let mut server = asked(ServerConfig::new(), &lasting(version));
                let stated = if allowed { default } else { properties };
                server.accept(None, stated, NOW, &mut Vec::new()).unwrap();
                let subscriptions = [
                    Subscription::new("a", QoS::AtMostOnce),
                    Subscription::new(filter, QoS::AtMostOnce),
                ];
                let subscription_identifier = subscription_identifier.filter(|_| version == V5_0);
                let properties =
                    SubscribeProperties { subscription_identifier, ..Default::default() };
                let subscribe = Subscribe {
                    packet_identifier: identifier(1),
                    properties,
                    subscriptions: (&subscriptions).into(),
                };
                let bytes = encoded(subscribe, version);
                let (actions, said) = server.hears(&bytes);
                if version == V5_0 && !allowed {
                    let cause =
                        CloseCause::Violation(ProtocolError::SubscriptionNotSupported(code));
                    assert_eq!(
                        actions,
                        [mqtt_sansio::server::Action::Closed { cause, publish_will: true }]
                    );
                    assert_eq!(packets(&said, V5_0), [Disconnect::new(code).into()]);
                } else {
                    assert!(
                        matches!(actions[..], [mqtt_sansio::server::Action::Subscribe(..)]),
                        "{actions:?}"
                    );
                }
            }
        }
    }
}

/// [5.0 §3.2.2.3]
#[test]
fn connack_properties_of_the_host_take_effect() {
    let mut connect = Connect { keep_alive: 60, ..lasting(V5_0) };
    connect.properties.session_expiry_interval = Some(1_000);
    let stated = ConnackProperties {
        session_expiry_interval: Some(7),
        server_keep_alive: Some(10),
        receive_maximum: Some(1),
        topic_alias_maximum: Some(2),
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        maximum_packet_size: Some(100),
        ..ConnackProperties::default()
    };
    let large = [b'x'; 100];
    let aliased = |alias| {
        let properties =
            PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() };
        Publish { properties, ..message(QoS::AtMostOnce, "x") }
    };
    let numbered =
        |number, qos| Publish { packet_identifier: Some(identifier(number)), ..message(qos, "x") };
    let once = QoS::AtLeastOnce;
    for (publishes, error) in [
        (vec![aliased(2), numbered(1, once)], None),
        (vec![aliased(3)], Some(ProtocolError::TopicAliasInvalid(3))),
        (vec![numbered(1, QoS::ExactlyOnce)], Some(ProtocolError::QosNotSupported)),
        (
            vec![Publish { retain: true, ..message(QoS::AtMostOnce, "x") }],
            Some(ProtocolError::RetainNotSupported),
        ),
        (vec![numbered(1, once), numbered(2, once)], Some(ProtocolError::ReceiveMaximumExceeded)),
        (
            vec![Publish { payload: &large, ..message(QoS::AtMostOnce, "") }],
            Some(ProtocolError::Packet(DecodeError::PacketTooLarge { size: 106, maximum: 100 })),
        ),
    ] {
        let mut server = asked(ServerConfig::new().manual_acknowledgement(true), &connect);
        let mut out = Vec::new();
        server.accept(None, stated, NOW, &mut out).unwrap();
        assert_eq!(
            packets(&out, V5_0),
            [Connack { properties: stated, ..Connack::default() }.into()]
        );
        assert_eq!(server.session_expiry(), Expiry::After(7));
        assert_eq!(server.poll_timeout(), Some(NOW + core::time::Duration::from_secs(15)));
        let farewell =
            DisconnectProperties { session_expiry_interval: Some(u32::MAX), ..Default::default() };
        let farewell = encoded(Disconnect { properties: farewell, ..Disconnect::default() }, V5_0);
        let bytes: Vec<_> = publishes
            .into_iter()
            .flat_map(|publish| encoded(publish, V5_0))
            .chain(farewell)
            .collect();
        let (actions, _) = server.hears(&bytes);
        assert_eq!(server.session_expiry(), Expiry::After(7));
        let closed = actions.iter().find_map(|action| match action {
            mqtt_sansio::server::Action::Closed { cause: CloseCause::Violation(error), .. } => {
                Some(*error)
            }
            _ => None,
        });
        assert_eq!(closed, error, "{actions:?}");
    }
}
