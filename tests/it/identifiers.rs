//! Packet identifiers over a long time: which are in use, and which packets arrive late, repeated
//! or out of order.

use core::time::Duration;
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{
    Ack, AckProperties, Connack, ConnackProperties, Packet, PacketType, Publish, PublishProperties,
    QoS, ReasonCode, SubscribeProperties, Subscription, Version,
};
use mqtt_sansio::server::{self, Server, ServerConfig};
use mqtt_sansio::session::{
    AckToken, AcknowledgeError, CloseCause, Message, Outcome, Outgoing, ProtocolError,
    PublishError, Session,
};
use testkit::machine::{
    Hears, NOW, accepted, asked, connected, connecting, resume, resumed, tokens,
};
use testkit::wire::{
    V5_0, VERSIONS, ack, encoded, identifier, lasting, message, packets, subscribe,
};

fn numbered(number: u16, qos: QoS) -> Publish<'static> {
    Publish { packet_identifier: Some(identifier(number)), ..message(qos, "x") }
}

/// Returns the identifier of the only packet, a PUBLISH.
fn published(bytes: &[u8], version: Version) -> u16 {
    match packets(bytes, version)[..] {
        [Packet::Publish(publish)] => publish.packet_identifier.unwrap().get(),
        ref other => panic!("{other:?}"),
    }
}

/// Sends and completes `messages` QoS 1 messages, none of which has the identifier `stuck`.
fn goes_on(client: &mut Client, messages: u64, stuck: u16, version: Version) {
    for key in 0..messages {
        let mut out = Vec::new();
        client.publish(key, &message(QoS::AtLeastOnce, "x"), NOW, &mut out).unwrap();
        let identifier = published(&out, version);
        assert_ne!(identifier, stuck);
        let answer = ack(Packet::Puback, identifier, version);
        let (actions, said) = client.hears(&answer);
        assert!(
            matches!(&actions[..], [client::Action::Published(end)] if end.key == key),
            "{actions:?}"
        );
        assert_eq!(said, b"");
    }
}

/// A message without an answer occupies one place of the Receive Maximum, and one identifier.
/// [5.0 §2.2.1] [5.0 §4.9] [3.1.1 §2.3.1]
#[test]
fn unfinished_exchange_delays_no_other_exchange() {
    for version in VERSIONS {
        let mut client = connected(&lasting(version), ConnackProperties::default());
        let mut out = Vec::new();
        client.publish(7, &message(QoS::ExactlyOnce, "stuck"), NOW, &mut out).unwrap();
        assert_eq!(published(&out, version), 1);
        goes_on(&mut client, 150_000, 1, version);
        // The message is the oldest, and its exchange continues.
        client.publish(8, &message(QoS::AtLeastOnce, "new"), NOW, &mut Vec::new()).unwrap();
        let said = resume(&mut client, &lasting(version));
        let payloads: Vec<_> = packets(&said, version)
            .into_iter()
            .map(|packet| match packet {
                Packet::Publish(publish) => (publish.payload.to_vec(), publish.dup),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(payloads, [(b"stuck".to_vec(), true), (b"new".to_vec(), true)]);
        let session =
            Session::from_bytes(&client.session().to_bytes(NOW), NOW, Duration::ZERO).unwrap();
        assert_eq!(session.to_bytes(NOW), client.session().to_bytes(NOW));
        let answers = [ack(Packet::Pubrec, 1, version), ack(Packet::Pubcomp, 1, version)].concat();
        let (actions, said) = client.hears(&answers);
        assert!(
            matches!(&actions[..], [client::Action::Published(end)] if end.key == 7),
            "{actions:?}"
        );
        assert_eq!(said, ack(Packet::Pubrel, 1, version));
        // A loaded session has it, too.
        let mut other = Client::with_session(ClientConfig::new(), session);
        other.connect(&lasting(version), NOW, &mut Vec::new()).unwrap();
        assert_eq!(
            other.hears(&resumed(version)).1.len(),
            2 * encoded(numbered(1, QoS::AtLeastOnce), version).len() + 6
        );
    }
}

/// A SUBSCRIBE without an answer delays nothing either, nor does, in the other direction, a message
/// to a client with a small Receive Maximum.
#[test]
fn open_request_or_slow_client_delays_no_other_exchange() {
    let mut client = connected(&lasting(V5_0), ConnackProperties::default());
    let filters = [Subscription::new("a", QoS::AtMostOnce)];
    client.subscribe(1, &filters, SubscribeProperties::default(), NOW, &mut Vec::new()).unwrap();
    goes_on(&mut client, 70_000, 1, V5_0);
    let connect = {
        let mut connect = lasting(V5_0);
        connect.properties.receive_maximum = Some(2);
        connect
    };
    let mut server = accepted(&connect);
    for key in 0..70_000 {
        let outgoing =
            Outgoing::new(Some(key), Message::new(&message(QoS::AtLeastOnce, "x")).unwrap());
        server.deliver(outgoing, NOW).unwrap();
        let mut out = Vec::new();
        assert!(!server.flush(NOW, &mut out));
        let identifier = published(&out, V5_0);
        if key > 0 {
            assert_ne!(identifier, 1);
            assert_eq!(server.hears(&ack(Packet::Puback, identifier, V5_0)).0.len(), 1);
        }
    }
    assert_eq!(server.session().in_flight(), 1);
}

/// If all identifiers are in use, one that is freed is reused. [5.0 MQTT-2.2.1-3]
/// [3.1.1 MQTT-2.3.1-2]
#[test]
fn freed_identifier_is_reused_when_all_others_are_in_use() {
    let config = ClientConfig::new().maximum_queued(1, 100).maximum_in_flight(u16::MAX);
    let mut client = connecting(config, &lasting(V5_0));
    client.hears(&encoded(Connack::default(), V5_0));
    let mut out = Vec::new();
    for key in 1..=65_535 {
        client.publish(key, &message(QoS::AtLeastOnce, "x"), NOW, &mut out).unwrap();
    }
    out.clear();
    client.publish(70_000, &message(QoS::AtLeastOnce, "x"), NOW, &mut out).unwrap();
    assert_eq!(out, b"", "it waits");
    assert_eq!(
        client.publish(70_001, &message(QoS::AtLeastOnce, "x"), NOW, &mut out),
        Err(PublishError::QueueFull)
    );
    let answer = ack(Packet::Puback, 30_000, V5_0);
    let (actions, said) = client.hears(&answer);
    assert_eq!((actions.len(), published(&said, V5_0)), (1, 30_000));
    assert_eq!(client.session().in_flight(), 65_535);
}

/// The peer can have a QoS 2 message that is no longer allowed. Its identifier belongs to no other
/// message while the session lasts. [5.0 MQTT-2.2.1-3] [5.0 MQTT-4.3.3-1]
#[test]
fn identifier_known_to_the_peer_is_not_reassigned() {
    let mut client = connected(&lasting(V5_0), ConnackProperties::default());
    client.publish(1, &message(QoS::ExactlyOnce, "x"), NOW, &mut Vec::new()).unwrap();
    client.publish(2, &message(QoS::AtLeastOnce, "x"), NOW, &mut Vec::new()).unwrap();
    let _ = client.connection_lost();
    client.connect(&lasting(V5_0), NOW, &mut Vec::new()).unwrap();
    let properties =
        ConnackProperties { maximum_qos: Some(QoS::AtLeastOnce), ..ConnackProperties::default() };
    let connack =
        encoded(Connack { session_present: true, properties, ..Connack::default() }, V5_0);
    let (actions, said) = client.hears(&connack);
    let [client::Action::Connected(_), client::Action::Published(end)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(end.key == 1 && matches!(end.outcome, Outcome::NotAllowed(_)), "{end:?}");
    assert_eq!((published(&said, V5_0), client.session().in_flight()), (2, 1));
    client.hears(&ack(Packet::Puback, 2, V5_0));
    goes_on(&mut client, 70_000, 1, V5_0);
    // The same holds after a restart. If the peer continues the exchange, it completes without a
    // report.
    let session =
        Session::from_bytes(&client.into_session().to_bytes(NOW), NOW, Duration::ZERO).unwrap();
    let mut client = Client::with_session(ClientConfig::new(), session);
    assert_eq!(resume(&mut client, &lasting(V5_0)), b"");
    goes_on(&mut client, 70_000, 1, V5_0);
    assert_eq!(client.hears(&ack(Packet::Pubrec, 1, V5_0)), (vec![], ack(Packet::Pubrel, 1, V5_0)));
    assert_eq!(client.hears(&ack(Packet::Pubcomp, 1, V5_0)), (vec![], vec![]));
    let mut identifiers = std::collections::BTreeSet::new();
    for key in 0..65_535 {
        let mut out = Vec::new();
        client.publish(key, &message(QoS::AtLeastOnce, "x"), NOW, &mut out).unwrap();
        identifiers.insert(published(&out, V5_0));
        client.hears(&ack(Packet::Puback, published(&out, V5_0), V5_0));
    }
    assert!(identifiers.contains(&1));
}

/// [5.0 MQTT-4.6.0-4] [3.1.1 MQTT-4.6.0-4]
#[test]
fn resent_pubrels_follow_the_order_of_their_pubrecs() {
    for version in VERSIONS {
        let mut client = connected(&lasting(version), ConnackProperties::default());
        for key in 1..=5 {
            client.publish(key, &message(QoS::ExactlyOnce, "x"), NOW, &mut Vec::new()).unwrap();
        }
        let pubrecs = [4, 2, 5].map(|number| ack(Packet::Pubrec, number, version)).concat();
        let (_, said) = client.hears(&pubrecs);
        assert_eq!(said, [4, 2, 5].map(|number| ack(Packet::Pubrel, number, version)).concat());
        let expected = [(PacketType::Publish, 1), (PacketType::Publish, 3)];
        let released = [4, 2, 5].map(|number| (PacketType::Pubrel, number));
        for stored in [false, true] {
            if stored {
                let bytes = client.into_session().to_bytes(NOW);
                client = Client::with_session(
                    ClientConfig::new(),
                    Session::from_bytes(&bytes, NOW, Duration::ZERO).unwrap(),
                );
            }
            let said = resume(&mut client, &lasting(version));
            let said: Vec<_> = packets(&said, version)
                .into_iter()
                .map(|packet| match packet {
                    Packet::Publish(publish) => {
                        (PacketType::Publish, publish.packet_identifier.unwrap().get())
                    }
                    Packet::Pubrel(ack) => (PacketType::Pubrel, ack.packet_identifier.get()),
                    other => panic!("{other:?}"),
                })
                .collect();
            let of = |kind| {
                said.iter().copied().filter(move |(packet, _)| *packet == kind).collect::<Vec<_>>()
            };
            assert_eq!(
                (of(PacketType::Publish), of(PacketType::Pubrel)),
                (expected.to_vec(), released.to_vec())
            );
        }
    }
}

// ---- the other direction ----

/// Returns a machine of either role with manual acknowledgement.
fn by_hand(server: bool, session: Option<Session>, version: Version) -> Box<dyn ByHand> {
    if server {
        let mut machine =
            asked(ServerConfig::new().manual_acknowledgement(true), &lasting(version));
        machine.accept(session, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
        return Box::new(machine);
    }
    let has_session = session.is_some();
    let mut machine = Client::with_session(
        ClientConfig::new().manual_acknowledgement(true),
        session.unwrap_or_default(),
    );
    machine.connect(&lasting(version), NOW, &mut Vec::new()).unwrap();
    machine.hears(&if has_session {
        resumed(version)
    } else {
        encoded(Connack::default(), version)
    });
    Box::new(machine)
}

trait ByHand {
    /// Returns the tokens of the messages that arrive, and the output.
    fn takes(&mut self, bytes: &[u8]) -> (Vec<AckToken>, Vec<u8>);
    fn answers(&mut self, token: AckToken) -> (Result<(), AcknowledgeError>, Vec<u8>);
    fn stored(&self) -> Vec<u8>;
    fn parked(self: Box<Self>) -> Session;
}

impl ByHand for Client {
    fn takes(&mut self, bytes: &[u8]) -> (Vec<AckToken>, Vec<u8>) {
        let (actions, said) = self.hears(bytes);
        let token = |action| {
            if let client::Action::Message(received) = action {
                received.token
            } else {
                panic!("{action:?}")
            }
        };
        (actions.into_iter().map(|action| token(action).unwrap()).collect(), said)
    }

    fn answers(&mut self, token: AckToken) -> (Result<(), AcknowledgeError>, Vec<u8>) {
        let mut out = Vec::new();
        (self.acknowledge(token, ReasonCode::SUCCESS, NOW, &mut out), out)
    }

    fn stored(&self) -> Vec<u8> {
        self.session().to_bytes(NOW)
    }

    fn parked(self: Box<Self>) -> Session {
        self.into_session()
    }
}

impl ByHand for Server {
    fn takes(&mut self, bytes: &[u8]) -> (Vec<AckToken>, Vec<u8>) {
        let (actions, said) = self.hears(bytes);
        let token = |action| {
            if let server::Action::Message(received) = action {
                received.token
            } else {
                panic!("{action:?}")
            }
        };
        (actions.into_iter().map(|action| token(action).unwrap()).collect(), said)
    }

    fn answers(&mut self, token: AckToken) -> (Result<(), AcknowledgeError>, Vec<u8>) {
        let mut out = Vec::new();
        (self.acknowledge(token, ReasonCode::SUCCESS, NOW, &mut out), out)
    }

    fn stored(&self) -> Vec<u8> {
        self.session().to_bytes(NOW)
    }

    fn parked(mut self: Box<Self>) -> Session {
        self.take_session()
    }
}

fn for_each_side(test: impl Fn(bool, Version)) {
    for version in VERSIONS {
        test(false, version);
        test(true, version);
    }
}

fn publishes(numbers: &[u16], qos: QoS, dup: bool, version: Version) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| encoded(Publish { dup, ..numbered(*number, qos) }, version))
        .collect()
}

/// Not even when another machine resumes the session. [5.0 MQTT-4.6.0-2] [3.1.1 MQTT-4.6.0-2]
#[test]
fn token_acknowledges_only_on_its_own_connection() {
    for_each_side(|server, version| {
        let mut first = by_hand(server, None, version);
        let (old, _) = first.takes(&publishes(&[1], QoS::AtLeastOnce, false, version));
        let mut next = by_hand(server, Some(first.parked()), version);
        let (new, _) = next.takes(&publishes(&[9], QoS::ExactlyOnce, false, version));
        assert_eq!(next.answers(old[0]), (Err(AcknowledgeError::Stale), vec![]));
        assert_eq!(next.answers(new[0]), (Ok(()), ack(Packet::Pubrec, 9, version)));
    });
}

/// [5.0 MQTT-4.6.0-3] [3.1.1 MQTT-4.6.0-3]
#[test]
fn repeated_message_is_acknowledged_in_order() {
    for_each_side(|server, version| {
        let mut machine = by_hand(server, None, version);
        let (tokens, _) = machine.takes(&publishes(&[1, 2], QoS::ExactlyOnce, false, version));
        assert_eq!(machine.answers(tokens[1]), (Ok(()), vec![]), "it waits for the first message");
        // The same holds if the host has stored the session and crashed.
        for stored in [None, Some(machine.stored())] {
            let loaded =
                stored.map(|bytes| Session::from_bytes(&bytes, NOW, Duration::ZERO).unwrap());
            let mut again = match loaded {
                Some(session) => by_hand(server, Some(session), version),
                None => {
                    let mut machine = by_hand(server, None, version);
                    let (tokens, _) =
                        machine.takes(&publishes(&[1, 2], QoS::ExactlyOnce, false, version));
                    machine.answers(tokens[1]).0.unwrap();
                    by_hand(server, Some(machine.parked()), version)
                }
            };
            let (tokens, said) =
                again.takes(&publishes(&[1, 2, 2], QoS::ExactlyOnce, true, version));
            assert_eq!(
                (tokens.len(), said),
                (1, vec![]),
                "the second was accepted, and its PUBREC waits"
            );
            let both = [ack(Packet::Pubrec, 1, version), ack(Packet::Pubrec, 2, version)].concat();
            assert_eq!(again.answers(tokens[0]), (Ok(()), both));
            // Now no message precedes it.
            let (tokens, said) = again.takes(&publishes(&[2], QoS::ExactlyOnce, true, version));
            assert_eq!((tokens, said), (vec![], ack(Packet::Pubrec, 2, version)));
            // The PUBREL answers the previous PUBREC, so the waiting one is not needed.
            let (tokens, _) = again.takes(&publishes(&[3], QoS::ExactlyOnce, false, version));
            let repeat =
                [publishes(&[2], QoS::ExactlyOnce, true, version), ack(Packet::Pubrel, 2, version)]
                    .concat();
            assert_eq!(again.takes(&repeat), (vec![], ack(Packet::Pubcomp, 2, version)));
            let (new, said) = again.takes(&publishes(&[2], QoS::ExactlyOnce, false, version));
            assert_eq!((new.len(), said), (1, vec![]));
            assert_eq!(again.answers(tokens[0]), (Ok(()), ack(Packet::Pubrec, 3, version)));
            assert_eq!(again.answers(new[0]), (Ok(()), ack(Packet::Pubrec, 2, version)));
        }
    });
}

/// Before 5.0 no answer can say that the identifier is in use. [3.1.1 MQTT-2.3.1-2]
/// [3.1.1 MQTT-4.8.0-1]
#[test]
fn reused_request_identifier_closes_the_connection_before_5_0() {
    for version in [Version::V3_1, Version::V3_1_1] {
        let subscribe = |filter| subscribe(5, filter, QoS::AtMostOnce, version);
        let mut server = accepted(&lasting(version));
        assert_eq!(server.hears(&subscribe("a")).0.len(), 1);
        let second = subscribe("b");
        let (actions, said) = server.hears(&second);
        let cause =
            CloseCause::Violation(ProtocolError::PacketIdentifierInUse(PacketType::Subscribe));
        assert_eq!(
            (actions, said),
            (vec![server::Action::Closed { cause, publish_will: true }], vec![])
        );
        let mut server = accepted(&lasting(version));
        let token = tokens(&server.hears(&subscribe("a")).0)[0];
        server
            .suback(token, &[ReasonCode::SUCCESS], AckProperties::default(), NOW, &mut Vec::new())
            .unwrap();
        assert_eq!(server.hears(&second).0.len(), 1);
    }
}

// ---- outcomes without a packet ----

#[test]
fn expired_messages_are_removed_while_disconnected() {
    let mut client = connecting(ClientConfig::new().maximum_queued(10, 1_000), &lasting(V5_0));
    let _ = client.connection_lost();
    let properties =
        PublishProperties { message_expiry_interval: Some(1), ..PublishProperties::default() };
    let expiring = Publish { properties, ..message(QoS::AtLeastOnce, "x") };
    // One message per second.
    let publish = |client: &mut Client, key| {
        client.publish(key, &expiring, NOW + Duration::from_secs(key), &mut Vec::new())
    };
    let taken = (0..1_000).filter(|key| publish(&mut client, *key).is_ok()).count();
    assert!((20..40).contains(&taken), "{taken}");
    assert!(client.session().to_bytes(NOW).len() < 2_000);
    // A host that polls the outcomes can continue without limit.
    let mut ends = 0;
    for key in 1_000..2_000 {
        while let Some(end) = client.next_completed() {
            assert_eq!(end.outcome, Outcome::Expired);
            ends += 1;
        }
        publish(&mut client, key).unwrap();
    }
    assert!(ends > 900, "{ends}");
}

#[test]
fn discarded_session_reports_its_lost_messages() {
    let config = ServerConfig::new().maximum_in_flight(3);
    let mut server = asked(config, &lasting(V5_0));
    server.accept(None, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
    for key in 1..=5 {
        let outgoing =
            Outgoing::new(Some(key), Message::new(&message(QoS::ExactlyOnce, "x")).unwrap());
        server.deliver(outgoing, NOW).unwrap();
    }
    let _ = server.flush(NOW, &mut Vec::new());
    server.hears(&ack(Packet::Pubrec, 2, V5_0));
    let ends: Vec<_> = server
        .take_session()
        .discard()
        .map(|end| match end.outcome {
            Outcome::SessionLost(message) => (end.key, message.is_some()),
            other => panic!("{other:?}"),
        })
        .collect();
    // The second message had arrived.
    assert_eq!(ends, [(1, true), (3, true), (2, false), (4, true), (5, true)]);
}

/// [5.0 §3.4.2.1] [5.0 §3.5.2.1] [3.1.1 MQTT-2.3.1-2]
#[test]
fn message_with_the_identifier_of_an_open_request_is_refused() {
    for version in VERSIONS {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut server = accepted(&lasting(version));
            server.hears(&subscribe(5, "a", QoS::AtMostOnce, version));
            let publish = encoded(numbered(5, qos), version);
            let (actions, said) = server.hears(&publish);
            if version < V5_0 {
                let cause = CloseCause::Violation(ProtocolError::PacketIdentifierInUse(
                    PacketType::Publish,
                ));
                assert_eq!(actions, [server::Action::Closed { cause, publish_will: true }]);
                continue;
            }
            let ack = Ack::new(identifier(5), ReasonCode::PACKET_IDENTIFIER_IN_USE);
            let expected =
                if qos == QoS::AtLeastOnce { Packet::Puback(ack) } else { Packet::Pubrec(ack) };
            assert_eq!((actions, packets(&said, version)), (vec![], vec![expected]));
            // The same in the opposite order.
            let mut server =
                asked(ServerConfig::new().manual_acknowledgement(true), &lasting(version));
            server.accept(None, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
            assert_eq!(server.hears(&publish).0.len(), 1);
            let request = subscribe(5, "a", QoS::AtMostOnce, version);
            let (actions, said) = server.hears(&request);
            assert_eq!(actions, []);
            assert!(matches!(packets(&said, version)[..], [Packet::Suback(suback)]
                if suback.reason_codes.iter().eq([ReasonCode::PACKET_IDENTIFIER_IN_USE])));
        }
    }
}

/// The client may have resent it because the answer is late. [3.1 §3.8]
#[test]
fn resent_request_of_3_1_is_the_same_request() {
    let mut server = accepted(&lasting(Version::V3_1));
    let mut bytes = subscribe(5, "a", QoS::AtMostOnce, Version::V3_1);
    assert_eq!(server.hears(&bytes).0.len(), 1);
    bytes[0] |= 0x08;
    assert_eq!(server.hears(&bytes), (vec![], vec![]));
}

/// Before 5.0 a client that has lost its state can resume its session, and then starts with the
/// same identifiers. [3.1.1 §3.2.2.2]
#[test]
fn client_without_its_old_session_can_subscribe_before_5_0() {
    for version in VERSIONS {
        let mut server = accepted(&lasting(version));
        server.hears(&publishes(&[1], QoS::ExactlyOnce, false, version));
        let mut server = {
            let session = server.take_session();
            let mut next = asked(ServerConfig::new(), &lasting(version));
            next.accept(Some(session), ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
            next
        };
        let request = subscribe(1, "a", QoS::AtMostOnce, version);
        let asks = matches!(server.hears(&request).0[..], [server::Action::Subscribe(..)]);
        assert_eq!(asks, version < V5_0);
        assert!(server.is_connected());
    }
}

/// [5.0 MQTT-4.6.0-2] [5.0 MQTT-4.6.0-3]
#[test]
fn refused_message_is_answered_in_order() {
    let mut server = asked(ServerConfig::new().manual_acknowledgement(true), &lasting(V5_0));
    server.accept(None, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
    server.hears(&subscribe(5, "a", QoS::AtMostOnce, V5_0));
    let (tokens, said) = server.takes(&publishes(&[1, 5], QoS::AtLeastOnce, false, V5_0));
    assert_eq!((tokens.len(), said), (1, vec![]));
    let refused = Packet::Puback(Ack::new(identifier(5), ReasonCode::PACKET_IDENTIFIER_IN_USE));
    let both = [ack(Packet::Puback, 1, V5_0), encoded(refused, V5_0)].concat();
    assert_eq!(server.answers(tokens[0]), (Ok(()), both));
}
