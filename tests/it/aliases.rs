//! Topic aliases: set by hosts, and assigned by the machines. [5.0 §3.3.2.3.4]

use mqtt_sansio::client::{self, ClientConfig};
use mqtt_sansio::codec::{
    ConnackProperties, Connect, Packet, Publish, PublishProperties, QoS, ReasonCode, Version,
};
use mqtt_sansio::server::ServerConfig;
use mqtt_sansio::session::{CloseCause, Message, Outgoing, ProtocolError, PublishError};
use testkit::machine::{Hears, NOW, accepted, connected, resume};
use testkit::pair::{Chunks, Pair};
use testkit::wire::{V5_0, VERSIONS, encoded, lasting, packets};

fn aliased(alias: u16, topic_name: &str) -> Publish<'_> {
    let properties = PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() };
    Publish { properties, ..Publish::new(topic_name, b"x") }
}

/// Returns a CONNECT with a Topic Alias Maximum.
fn taking(version: Version, topic_alias_maximum: u16) -> Connect<'static> {
    let mut connect = lasting(version);
    if version == Version::V5_0 {
        connect.properties.topic_alias_maximum = Some(topic_alias_maximum);
    }
    connect
}

// ---- set by hosts ----

/// [5.0 MQTT-3.2.2-17] [5.0 MQTT-3.2.2-18]
#[test]
fn client_sends_no_alias_above_the_servers_topic_alias_maximum() {
    let mut out = Vec::new();
    for version in VERSIONS {
        let mut connections = vec![(connected(&lasting(version), ConnackProperties::default()), 0)];
        if version == Version::V5_0 {
            connections.extend([0, 3].map(|maximum| {
                let properties = ConnackProperties {
                    topic_alias_maximum: Some(maximum),
                    ..ConnackProperties::default()
                };
                (connected(&lasting(version), properties), maximum)
            }));
        }
        for (mut client, maximum) in connections {
            for alias in [maximum + 1, u16::MAX, 0] {
                let refused = client.publish(1, &aliased(alias, "t"), NOW, &mut out);
                assert_eq!(
                    (refused, out.len()),
                    (Err(PublishError::TopicAliasInvalid { maximum }), 0)
                );
            }
        }
    }
}

/// [5.0 MQTT-3.3.2-10] [5.0 MQTT-3.3.2-7]
#[test]
fn client_resolves_allowed_aliases_until_the_connection_ends() {
    let mut client = connected(&taking(Version::V5_0, 2), ConnackProperties::default());
    for (alias, topic, expected) in
        [(1, "a", "a"), (2, "b", "b"), (1, "", "a"), (2, "", "b"), (1, "c", "c"), (1, "", "c")]
    {
        let bytes = encoded(aliased(alias, topic), Version::V5_0);
        let (actions, _) = client.hears(&bytes);
        let [client::Action::Message(received)] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(
            (received.topic_name.as_text().to_str(), received.properties.topic_alias),
            (expected, None)
        );
    }
    resume(&mut client, &taking(Version::V5_0, 2));
    let closed = client::Action::Closed(CloseCause::Violation(ProtocolError::UnknownTopicAlias(1)));
    assert_eq!(
        client.hears(&encoded(aliased(1, ""), Version::V5_0)),
        (vec![closed], vec![0xE0, 2, 0x82, 0])
    );
}

/// [5.0 §3.1.2.11.5] [5.0 §3.3.4]
#[test]
fn client_closes_the_connection_when_an_alias_was_not_allowed() {
    for (connect, alias) in
        [(taking(Version::V5_0, 2), 3), (taking(Version::V5_0, 0), 1), (lasting(Version::V5_0), 1)]
    {
        let mut client = connected(&connect, ConnackProperties::default());
        let bytes = [
            encoded(aliased(alias, "t"), Version::V5_0),
            encoded(Publish::new("t", b"after"), Version::V5_0),
        ]
        .concat();
        let closed =
            client::Action::Closed(CloseCause::Violation(ProtocolError::TopicAliasInvalid(alias)));
        assert_eq!(client.hears(&bytes), (vec![closed], vec![0xE0, 2, 0x94, 0]));
    }
}

/// [5.0 §3.3.2.3.4]
#[test]
fn alias_maps_to_a_separate_topic_in_each_direction() {
    let mut pair = Pair::new(Chunks::Whole);
    pair.connect(&taking(Version::V5_0, 1));
    for topic in ["up", ""] {
        pair.publish(1, &aliased(1, topic));
    }
    for topic in ["down", ""] {
        pair.forge_to_client(&encoded(aliased(1, topic), Version::V5_0));
    }
    pair.settle();
    pair.publish(1, &aliased(1, ""));
    pair.settle();
    assert_eq!(topics_at("server", &mut pair), ["up"; 3]);
    assert_eq!(topics_at("client", &mut pair), ["down"; 2]);
    // The client cannot use an alias that the server has set.
    let mut client = connected(
        &taking(Version::V5_0, 1),
        ConnackProperties { topic_alias_maximum: Some(1), ..Default::default() },
    );
    client.hears(&encoded(aliased(1, "down"), Version::V5_0));
    let refused = client.publish(1, &aliased(1, ""), NOW, &mut Vec::new());
    assert_eq!(refused, Err(PublishError::UnknownTopicAlias));
}

/// [5.0 MQTT-3.1.2-26] [5.0 MQTT-3.1.2-27]
#[test]
fn received_message_is_forwarded_without_its_alias() {
    for connect in
        [lasting(Version::V5_0), taking(Version::V5_0, 2), taking(Version::V5_0, u16::MAX)]
    {
        let mut server = accepted(&connect);
        server.deliver(Outgoing::new(None, Message::new(&aliased(9, "t")).unwrap()), NOW).unwrap();
        let mut out = Vec::new();
        let _ = server.flush(NOW, &mut out);
        assert_eq!(packets(&out, Version::V5_0), [Publish::new("t", b"x").into()]);
    }
}

// ---- set by the machines ----

/// The machine that publishes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Client,
    Server,
}

const BOTH: [By; 2] = [By::Client, By::Server];

impl By {
    /// Returns a pair in which this side assigns up to `automatic` aliases, and the other accepts
    /// `taken`.
    fn pair(self, automatic: u16, taken: u16, version: Version) -> Pair {
        let mut pair = match self {
            Self::Client => {
                let client = ClientConfig::new().automatic_topic_aliases(automatic);
                Pair::with(client, ServerConfig::new().topic_alias_maximum(taken), Chunks::Whole)
            }
            Self::Server => Pair::with(
                ClientConfig::new(),
                ServerConfig::new().automatic_topic_aliases(automatic),
                Chunks::Whole,
            ),
        };
        pair.connect(&self.connect(taken, version));
        pair
    }

    fn connect(self, taken: u16, version: Version) -> Connect<'static> {
        if self == Self::Server { taking(version, taken) } else { lasting(version) }
    }

    /// Publishes to a topic. Returns the topic name and the alias of each PUBLISH, and DUP if it is
    /// set.
    fn publishes(self, pair: &mut Pair, publish: &Publish<'_>) -> Vec<(String, Option<u16>)> {
        let before = self.written(pair).len();
        match self {
            Self::Client => pair.publish(1, publish),
            Self::Server => pair.deliver(1, publish),
        }
        wire(&self.written(pair)[before..], pair.server.version())
    }

    /// Returns the bytes that the other side has not received.
    fn written(self, pair: &mut Pair) -> Vec<u8> {
        if self == Self::Client { pair.written_by_client() } else { pair.written_by_server() }
    }

    const fn other(self) -> &'static str {
        if matches!(self, Self::Client) { "server" } else { "client" }
    }
}

/// Returns the topic names and aliases of all PUBLISH packets.
fn wire(bytes: &[u8], version: Version) -> Vec<(String, Option<u16>)> {
    let shown = |packet| match packet {
        Packet::Publish(publish) => {
            Some((publish.topic_name.to_str().to_owned(), publish.properties.topic_alias))
        }
        _ => None,
    };
    packets(bytes, version).into_iter().filter_map(shown).collect()
}

/// Returns the topics of the messages that one side has received.
fn topics_at(side: &str, pair: &mut Pair) -> Vec<String> {
    let beginning = format!("{side}: Message(Received {{ topic_name: \"");
    let topic = |line: &String| Some(line.strip_prefix(&beginning)?.split('"').next()?.to_owned());
    pair.log.iter().filter_map(topic).collect()
}

fn to(topic_name: &str, qos: QoS) -> Publish<'_> {
    Publish { qos, ..Publish::new(topic_name, b"x") }
}

/// [5.0 MQTT-3.3.2-10] [5.0 MQTT-3.3.2-12]
#[test]
fn automatic_aliases_stay_with_the_first_topics() {
    const ROWS: [(&str, &str, Option<u16>); 8] = [
        ("first", "first", Some(1)),
        ("first", "", Some(1)),
        ("second", "second", Some(2)),
        ("third", "third", None),
        ("third", "third", None),
        ("first", "", Some(1)),
        ("second", "", Some(2)),
        ("third", "third", None),
    ];
    for by in BOTH {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut pair = by.pair(2, 10, Version::V5_0);
            for (topic, written, alias) in ROWS {
                assert_eq!(
                    by.publishes(&mut pair, &to(topic, qos)),
                    [(written.to_owned(), alias)],
                    "{by:?}"
                );
            }
            pair.settle();
            assert_eq!(topics_at(by.other(), &mut pair), ROWS.map(|(topic, ..)| topic));
        }
    }
}

/// [5.0 MQTT-3.2.2-17] [5.0 MQTT-3.2.2-18] [5.0 MQTT-3.1.2-26] [5.0 MQTT-3.1.2-27]
/// [5.0 MQTT-3.3.2-9] [5.0 MQTT-3.3.2-11]
#[test]
fn automatic_aliases_respect_both_maximums_and_version_5_0() {
    const TOPICS: [&str; 4] = ["topic/1", "topic/2", "topic/3", "topic/4"];
    for by in BOTH {
        for (automatic, taken, version, expected) in [
            (0, 10, Version::V5_0, 0),
            (10, 0, Version::V5_0, 0),
            (10, 1, Version::V5_0, 1),
            (3, 10, Version::V5_0, 3),
            (u16::MAX, u16::MAX, Version::V5_0, 4),
            (10, 10, Version::V3_1_1, 0),
            (10, 10, Version::V3_1, 0),
        ] {
            let mut pair = by.pair(automatic, taken, version);
            let publishes = |topic| by.publishes(&mut pair, &to(topic, QoS::AtLeastOnce));
            let again: Vec<_> =
                TOPICS.into_iter().chain(TOPICS).flat_map(publishes).skip(TOPICS.len()).collect();
            let by_alias =
                again.iter().filter(|(topic, alias)| topic.is_empty() && alias.is_some()).count();
            assert_eq!(by_alias, expected, "{by:?} {automatic} {taken} {version}");
            assert!(
                again[expected..]
                    .iter()
                    .zip(&TOPICS[expected..])
                    .all(|(plain, topic)| *plain == ((*topic).to_owned(), None))
            );
            pair.settle();
            assert_eq!(topics_at(by.other(), &mut pair), TOPICS.repeat(2));
        }
    }
}

#[test]
fn short_topic_gets_no_automatic_alias() {
    for by in BOTH {
        let mut pair = by.pair(10, 10, Version::V5_0);
        for (topic, alias) in
            [("t", None), ("four", None), ("fives", Some(1)), ("four", None), ("sixsix", Some(2))]
        {
            assert_eq!(
                by.publishes(&mut pair, &to(topic, QoS::AtMostOnce)),
                [(topic.to_owned(), alias)]
            );
        }
    }
}

/// [5.0 MQTT-3.1.2-24] [5.0 MQTT-3.2.2-15]
#[test]
fn message_omits_an_alias_that_would_make_it_too_large() {
    for by in BOTH {
        let mut pair = match by {
            By::Client => {
                let server = ServerConfig::new().maximum_packet_size(50);
                Pair::with(ClientConfig::new().automatic_topic_aliases(2), server, Chunks::Whole)
            }
            By::Server => Pair::with(
                ClientConfig::new(),
                ServerConfig::new().automatic_topic_aliases(2),
                Chunks::Whole,
            ),
        };
        let mut connect = taking(Version::V5_0, 2);
        connect.properties.maximum_packet_size = Some(50);
        pair.connect(&connect);
        // Beside topic name and payload, a packet has five bytes, and three for an alias.
        let payload = [b'x'; 40];
        let publish = |topic_name, length| Publish {
            payload: &payload[..length],
            ..to(topic_name, QoS::AtMostOnce)
        };
        for (topic, length, written, alias) in [
            ("first", 40, "first", None),
            ("first", 38, "first", None),
            ("other", 37, "other", Some(1)),
            ("first", 37, "first", Some(2)),
            ("first", 40, "", Some(2)),
        ] {
            let sent = by.publishes(&mut pair, &publish(topic, length));
            assert_eq!(sent, [(written.to_owned(), alias)], "{by:?} {length}");
        }
        pair.settle();
        assert_eq!(topics_at(by.other(), &mut pair), ["first", "first", "other", "first", "first"]);
    }
}

/// A QoS 1 message can be resent on a connection that does not know the alias.
#[test]
fn qos_0_message_is_sent_when_only_its_alias_fits() {
    let config = ClientConfig::new().automatic_topic_aliases(2);
    let mut pair = Pair::with(config, ServerConfig::new().maximum_packet_size(50), Chunks::Whole);
    pair.connect(&taking(Version::V5_0, 2));
    By::Client.publishes(&mut pair, &to("topic/with/a/name", QoS::AtMostOnce));
    let large = |qos| Publish { payload: &[b'x'; 37], ..to("topic/with/a/name", qos) };
    let refused =
        pair.client(|client, now, out| client.publish(1, &large(QoS::AtLeastOnce), now, out));
    assert_eq!(refused, Err(PublishError::TooLarge { size: 61, maximum: 50 }));
    assert_eq!(
        By::Client.publishes(&mut pair, &large(QoS::AtMostOnce)),
        [(String::new(), Some(1))]
    );
}

#[test]
fn host_cannot_set_aliases_when_the_machine_assigns_them() {
    let mut pair = By::Client.pair(2, 10, Version::V5_0);
    for topic in ["topic", ""] {
        let refused =
            pair.client(|client, now, out| client.publish(1, &aliased(1, topic), now, out));
        assert_eq!(refused, Err(PublishError::TopicAliasInvalid { maximum: 0 }));
    }
    assert!(pair.written_by_client().is_empty());
}

/// [5.0 MQTT-3.3.2-7] [5.0 §3.3.2.3.4]
#[test]
fn reconnect_discards_aliases_and_resends_full_topics() {
    for by in BOTH {
        let mut pair = by.pair(1, 10, Version::V5_0);
        for topic in ["first", "first", "other"] {
            by.publishes(&mut pair, &to(topic, QoS::AtLeastOnce));
        }
        for _ in 0..2 {
            pair.cut();
            pair.open(&by.connect(10, Version::V5_0));
            assert!(pair.carry_packet(), "CONNECT");
            if by == By::Client {
                assert!(pair.carry_packet(), "CONNACK");
            }
            let again = wire(&by.written(&mut pair), Version::V5_0);
            assert_eq!(
                again,
                [("first".into(), Some(1)), (String::new(), Some(1)), ("other".into(), None)],
                "{by:?}"
            );
        }
        pair.settle();
        assert_eq!(topics_at(by.other(), &mut pair), ["first", "first", "other"]);
        // On the next connection another topic is the first.
        pair.cut();
        pair.connect(&by.connect(10, Version::V5_0));
        for (topic, written, alias) in
            [("other", "other", Some(1)), ("first", "first", None), ("other", "", Some(1))]
        {
            assert_eq!(
                by.publishes(&mut pair, &to(topic, QoS::AtMostOnce)),
                [(written.to_owned(), alias)]
            );
        }
        pair.settle();
        assert_eq!(topics_at(by.other(), &mut pair)[3..], ["other", "first", "other"]);
    }
}

/// Both sides publish at once, and messages wait for the quota. [5.0 §3.3.2.3.4]
#[test]
fn aliased_messages_keep_their_topics_when_the_connection_breaks() {
    let client = ClientConfig::new().automatic_topic_aliases(3);
    let server = ServerConfig::new().automatic_topic_aliases(2).receive_maximum(2);
    Pair::in_all_chunks_with(&client, &server, |pair| {
        let mut connect = taking(Version::V5_0, 10);
        connect.properties.receive_maximum = Some(1);
        pair.connect(&connect);
        let topics = [
            "topic/a", "topic/b", "topic/a", "topic/c", "topic/d", "topic/c", "topic/b", "topic/d",
        ];
        for topic in topics {
            pair.publish(1, &to(topic, QoS::AtLeastOnce));
            pair.deliver(1, &to(topic, QoS::ExactlyOnce));
        }
        pair.settle();
        assert_eq!(topics_at("server", pair), topics);
        assert_eq!(topics_at("client", pair), topics);
    });
}

/// [5.0 §3.3.2.3.4]
#[test]
fn queued_message_makes_its_alias_unknown() {
    Pair::in_all_chunks_with(
        &ClientConfig::new(),
        &ServerConfig::new().receive_maximum(1),
        |pair| {
            pair.connect(&lasting(Version::V5_0));
            let aliased = |topic| {
                let properties =
                    PublishProperties { topic_alias: Some(1), ..PublishProperties::default() };
                Publish { properties, qos: QoS::AtLeastOnce, ..Publish::new(topic, b"x") }
            };
            pair.publish(1, &aliased("a"));
            pair.publish(2, &aliased("b"));
            let third = pair.client(|client, now, out| client.publish(3, &aliased(""), now, out));
            assert_eq!(third, Err(PublishError::UnknownTopicAlias));
            pair.settle();
            assert_eq!(pair.at_server.len(), 2);
        },
    );
}

/// [5.0 §3.3.2.3.4]
#[test]
fn queued_message_without_topic_leaves_its_alias_known() {
    let properties = ConnackProperties {
        topic_alias_maximum: Some(1),
        receive_maximum: Some(1),
        ..ConnackProperties::default()
    };
    let mut client = connected(&lasting(Version::V5_0), properties);
    for (key, topic) in [(1, "topic"), (2, ""), (3, "")] {
        let publish = Publish { qos: QoS::AtLeastOnce, ..aliased(1, topic) };
        assert_eq!(client.publish(key, &publish, NOW, &mut Vec::new()), Ok(()));
    }
}

/// [5.0 MQTT-3.3.2-9] [5.0 MQTT-3.3.2-11] [5.0 MQTT-3.3.2-7]
#[test]
fn topic_aliases_are_set_used_and_discarded() {
    Pair::in_all_chunks_with(
        &ClientConfig::new(),
        &ServerConfig::new().topic_alias_maximum(2),
        |pair| {
            pair.connect(&lasting(Version::V5_0));
            let aliased = |topic, alias| {
                let properties =
                    PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() };
                Publish { properties, qos: QoS::AtLeastOnce, ..Publish::new(topic, b"x") }
            };
            let publish = |pair: &mut Pair, topic, alias| {
                pair.client(|client, now, out| client.publish(1, &aliased(topic, alias), now, out))
            };
            assert_eq!(publish(pair, "", 1), Err(PublishError::UnknownTopicAlias));
            assert_eq!(publish(pair, "a", 3), Err(PublishError::TopicAliasInvalid { maximum: 2 }));
            publish(pair, "a", 1).unwrap();
            publish(pair, "", 1).unwrap();
            let written = pair.written_by_client();
            assert!(matches!(packets(&written, V5_0)[1], Packet::Publish(publish)
                    if publish.topic_name.is_empty()));
            pair.cut();
            pair.connect(&lasting(Version::V5_0));
            let log = pair.take_log();
            let topics = log
                .iter()
                .filter(|line| line.starts_with("server: Message(Received { topic_name: \"a\""));
            assert_eq!(topics.count(), 2, "sent again with the topic name: {log:#?}");
            assert_eq!(publish(pair, "", 1), Err(PublishError::UnknownTopicAlias));
            publish(pair, "b", 1).unwrap();
            publish(pair, "", 1).unwrap();
            pair.settle();
            let log = pair.take_log();
            assert_eq!(
                log.iter().filter(|line| line.contains("topic_name: \"b\"")).count(),
                2,
                "{log:#?}"
            );
        },
    );
}

/// [5.0 §3.3.4]
#[test]
fn server_closes_the_connection_when_an_alias_is_invalid() {
    for (alias, topic, reason_code) in [
        (3, "a", ReasonCode::TOPIC_ALIAS_INVALID),
        (2, "", ReasonCode::PROTOCOL_ERROR),
        (1, "", ReasonCode::PROTOCOL_ERROR),
    ] {
        let mut pair = Pair::with(
            ClientConfig::new(),
            ServerConfig::new().topic_alias_maximum(2),
            Chunks::Whole,
        );
        pair.connect(&lasting(Version::V5_0));
        let properties =
            PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() };
        pair.forge_to_server(&encoded(
            Publish { properties, ..Publish::new(topic, b"x") },
            Version::V5_0,
        ));
        pair.take_log();
        pair.settle();
        let log = pair.take_log().join("\n");
        assert!(
            log.contains(&format!(
                "client: Closed(Disconnected(Disconnect {{ reason_code: {reason_code:?}"
            )),
            "{log}"
        );
    }
}
