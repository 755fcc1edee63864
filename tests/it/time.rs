//! Keep alive, the other time limits of a connection, and messages that expire.

use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{
    AckProperties, Connack, ConnackProperties, Connect, ConnectProperties, Packet, Publish,
    PublishProperties, QoS, ReasonCode, Version,
};
use mqtt_sansio::server::{self, Server, ServerConfig};
use mqtt_sansio::session::CloseCause;
use testkit::machine::{Hears, NOW, accepted, asked, resumed, tokens};
use testkit::pair::{Chunks, Pair};
use testkit::wire::{VERSIONS, encoded, lasting, message, packets, subscribe};

fn after(seconds: u64) -> Instant {
    NOW + Duration::from_secs(seconds)
}

#[test]
fn instants_saturate_and_are_small() {
    let latest = Instant::from_millis(u64::MAX);
    assert_eq!(latest.as_millis(), u64::MAX - 1);
    assert_eq!(latest, latest + Duration::from_millis(1));
    assert_eq!(latest, latest.plus_seconds(1));
    assert_eq!(Instant::default() - Duration::from_millis(1), Instant::from_millis(0));
    assert_eq!(latest - Duration::from_millis(1), Instant::from_millis(u64::MAX - 2));
    assert_eq!(format!("{:?}", Instant::from_millis(7)), "Instant(7)");
    assert_eq!(size_of::<Option<Instant>>(), 8);
}

/// [5.0 MQTT-3.1.2-20] [5.0 MQTT-3.1.2-22] [3.1.1 MQTT-3.1.2-23] [3.1.1 MQTT-3.1.2-24]
#[test]
fn keep_alive_sends_pings_and_times_out_to_the_millisecond() {
    for version in VERSIONS {
        let mut pair = Pair::new(Chunks::Whole);
        pair.connect(&Connect { keep_alive: 10, ..lasting(version) });
        pair.advance(Duration::from_secs(1_000));
        assert!(pair.client.is_connected() && pair.server.is_connected(), "{:?}", pair.log);
        assert_eq!(
            pair.client.poll_timeout(),
            Some(pair.now + Duration::from_secs(10)),
            "one ping every ten seconds"
        );

        // Each packet sent postpones the ping, if the server answers.
        pair.advance(Duration::from_secs(6));
        pair.publish(1, &message(QoS::AtLeastOnce, "x"));
        pair.settle();
        assert_eq!(pair.client.poll_timeout(), Some(pair.now + Duration::from_secs(10)));
        assert_eq!(pair.server.poll_timeout(), Some(pair.now + Duration::from_secs(15)));

        // A client that falls silent.
        let silent = pair.now + Duration::from_secs(15);
        let mut out = Vec::new();
        let before = Instant::from_millis(silent.as_millis() - 1);
        assert!(pair.server.handle_timeout(before, &mut out).is_none());
        let action = pair.server.handle_timeout(silent, &mut out);
        assert!(matches!(
            action,
            Some(server::Action::Closed {
                cause: CloseCause::KeepAliveTimeout,
                publish_will: true
            })
        ));
        let expected = if version == Version::V5_0 { &[0xE0, 0x02, 0x8D, 0x00][..] } else { &[] };
        assert_eq!(out, expected);
    }
}

#[test]
fn missing_pingresp_closes_the_connection_unless_bytes_arrive() {
    let config = ClientConfig::new().ping_timeout(Duration::from_secs(4));
    let mut client = Client::new(config);
    let at = |milliseconds| Instant::from_millis(milliseconds);
    let mut out = Vec::new();
    client
        .connect(&Connect { keep_alive: 10, ..lasting(Version::V3_1_1) }, at(0), &mut out)
        .unwrap();
    let connack = [0x20, 0x02, 0x00, 0x00];
    assert!(client.handle_input(&mut &connack[..], at(500), &mut out).is_some());
    out.clear();
    assert_eq!(client.poll_timeout(), Some(at(10_000)), "from the last packet sent");
    assert!(client.handle_timeout(at(9_999), &mut out).is_none() && out.is_empty());
    assert!(client.handle_timeout(at(10_000), &mut out).is_none());
    assert_eq!(out, [0xC0, 0x00]);
    assert_eq!(client.poll_timeout(), Some(at(14_000)));
    // The first bytes of a large packet are no PINGRESP, but they count as activity.
    let mut partial = &[0x30, 0x7F, 0x00][..];
    assert!(client.handle_input(&mut partial, at(13_000), &mut out).is_none());
    assert_eq!(partial.len(), 3);
    assert_eq!(client.poll_timeout(), Some(at(17_000)));
    // The same bytes again do not.
    assert!(client.handle_input(&mut partial, at(16_000), &mut out).is_none());
    assert!(client.handle_timeout(at(16_999), &mut out).is_none());
    let action = client.handle_timeout(at(17_000), &mut out);
    assert!(matches!(action, Some(client::Action::Closed(CloseCause::KeepAliveTimeout))));
    assert_eq!(client.poll_timeout(), None);
}

/// A client that publishes with QoS 0 all the time has no other way to notice.
#[test]
fn publishing_client_pings_a_server_that_it_does_not_hear() {
    let at = |seconds: u64| Instant::from_millis(seconds * 1_000);
    for version in VERSIONS {
        let mut client = Client::new(ClientConfig::new());
        let mut out = Vec::new();
        client.connect(&Connect { keep_alive: 10, ..lasting(version) }, at(0), &mut out).unwrap();
        let connack = encoded(Connack::default(), version);
        assert!(client.handle_input(&mut &connack[..], at(1), &mut out).is_some());
        let mut pings = Vec::new();
        let end = (2..100).find_map(|second| {
            client.publish(second, &message(QoS::AtMostOnce, "x"), at(second), &mut out).unwrap();
            out.clear();
            let closed = client.handle_timeout(at(second), &mut out);
            if packets(&out, version).contains(&Packet::Pingreq) {
                pings.push(second);
            }
            closed.map(|_| second)
        });
        // One interval after the last byte of the server, and then the time for the answer.
        assert_eq!((pings, end), (vec![11], Some(21)), "{version}");
    }
}

#[test]
fn upload_progress_counts_as_activity() {
    let mut client = Client::new(ClientConfig::new());
    let at = |seconds: u64| Instant::from_millis(seconds * 1_000);
    let mut out = Vec::new();
    client.connect(&Connect { keep_alive: 10, ..lasting(Version::V5_0) }, at(0), &mut out).unwrap();
    assert!(
        client.handle_input(&mut &[0x20, 0x03, 0x00, 0x00, 0x00][..], at(0), &mut out).is_some()
    );
    assert!(
        client.handle_timeout(at(10), &mut out).is_none(),
        "PINGREQ, behind a megabyte that is sent slowly"
    );
    client.handle_progress(at(19));
    assert!(client.handle_timeout(at(20), &mut out).is_none());
    assert_eq!(client.poll_timeout(), Some(at(29)));
    assert!(client.handle_timeout(at(29), &mut out).is_some());
}

/// [5.0 MQTT-3.1.2-21] [5.0 MQTT-3.2.2-21]
#[test]
fn server_keep_alive_takes_precedence_over_the_clients() {
    let config = ServerConfig::new().maximum_keep_alive(core::num::NonZeroU16::new(5));
    for (asked, version, granted) in [
        (0, Version::V5_0, 5),
        (60, Version::V5_0, 5),
        (3, Version::V5_0, 3),
        (60, Version::V3_1_1, 60),
    ] {
        let mut pair = Pair::with(ClientConfig::new(), config.clone(), Chunks::Whole);
        pair.connect(&Connect { keep_alive: asked, ..lasting(version) });
        assert_eq!(pair.client.poll_timeout(), Some(Instant::from_millis(granted * 1_000)));
        assert_eq!(pair.server.poll_timeout(), Some(Instant::from_millis(granted * 1_500)));
    }
}

#[test]
fn connect_and_connack_have_deadlines() {
    let mut server = Server::new(
        ServerConfig::new().connect_timeout(Duration::from_secs(3)),
        Instant::default(),
    );
    assert_eq!(server.poll_timeout(), Some(Instant::from_millis(3_000)));
    let action = server.handle_timeout(Instant::from_millis(3_000), &mut Vec::new());
    assert!(matches!(
        action,
        Some(server::Action::Closed { cause: CloseCause::ConnectTimeout, publish_will: false })
    ));

    let mut client = Client::new(ClientConfig::new().connect_timeout(Duration::from_secs(4)));
    client.connect(&lasting(Version::V5_0), Instant::default(), &mut Vec::new()).unwrap();
    assert_eq!(client.poll_timeout(), Some(Instant::from_millis(4_000)));
    let action = client.handle_timeout(Instant::from_millis(4_000), &mut Vec::new());
    assert!(matches!(action, Some(client::Action::Closed(CloseCause::ConnectTimeout))));
}

/// [5.0 MQTT-3.3.2-5] [5.0 MQTT-3.3.2-6]
#[test]
fn message_expires_only_before_it_is_sent() {
    let mut pair = Pair::new(Chunks::Whole);
    let mut connect = lasting(Version::V5_0);
    connect.properties = ConnectProperties { receive_maximum: Some(1), ..connect.properties };
    pair.connect(&connect);
    let properties =
        PublishProperties { message_expiry_interval: Some(10), ..PublishProperties::default() };
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
    assert_eq!(
        (publish.dup, publish.properties.message_expiry_interval),
        (true, Some(1)),
        "half a second is left"
    );
    pair.cut();
    pair.advance(Duration::from_millis(500));
    pair.connect(&connect);
    assert_eq!(pair.at_client, ["x"], "the message that was sent is resent, the other is not");
    pair.done_at_server.sort();
    assert_eq!(pair.done_at_server, [(1, "Success".to_owned()), (2, "Expired".to_owned())]);
}

/// [5.0 §3.1.2.10] [3.1.1 §3.1.2.10]
#[test]
fn unanswered_ping_does_not_close_the_next_connection() {
    for version in VERSIONS {
        let mut client = Client::new(ClientConfig::new().ping_timeout(Duration::from_secs(4)));
        for start in [0, 12] {
            client
                .connect(
                    &Connect { keep_alive: 10, ..lasting(version) },
                    after(start),
                    &mut Vec::new(),
                )
                .unwrap();
            let connack =
                if start > 0 { resumed(version) } else { encoded(Connack::default(), version) };
            client.hears_at(&connack, after(start));
            assert_eq!(client.poll_timeout(), Some(after(start + 10)));
            let mut out = Vec::new();
            assert_eq!(
                (client.handle_timeout(after(start + 10), &mut out), out),
                (None, vec![0xC0, 0])
            );
            assert_eq!(client.poll_timeout(), Some(after(start + 14)));
            let _ = client.connection_lost();
        }
    }
}

/// [5.0 MQTT-3.1.2-22] [3.1.1 MQTT-3.1.2-24]
#[test]
fn blocked_input_extends_the_clients_deadline() {
    for version in VERSIONS {
        let mut server = accepted(&Connect { keep_alive: 10, ..lasting(version) });
        assert_eq!(server.poll_timeout(), Some(after(15)));
        for (progress, expected) in [(14, 29), (12, 29), (20, 35)] {
            server.handle_progress(after(progress));
            assert_eq!(server.poll_timeout(), Some(after(expected)));
        }
        assert_eq!(server.handle_timeout(after(34), &mut Vec::new()), None);
        let closed =
            server::Action::Closed { cause: CloseCause::KeepAliveTimeout, publish_will: true };
        assert_eq!(server.handle_timeout(after(35), &mut Vec::new()), Some(closed));
    }
}

/// While the host owes an answer, the machine reads no input, so it cannot notice activity.
/// [5.0 MQTT-3.1.2-22] [3.1.1 MQTT-3.1.2-24]
#[test]
fn client_is_not_disconnected_while_its_input_is_blocked() {
    for version in VERSIONS {
        let connect = Connect { keep_alive: 10, ..lasting(version) };
        let mut server = asked(ServerConfig::new().maximum_requests(1), &connect);
        server.accept(None, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
        let request = subscribe(1, "a", QoS::AtMostOnce, version);
        let token = tokens(&server.hears_at(&request, after(5)).0)[0];
        assert_eq!((server.wants_input(), server.poll_timeout()), (false, None));
        server
            .suback(
                token,
                &[ReasonCode::SUCCESS],
                AckProperties::default(),
                after(100),
                &mut Vec::new(),
            )
            .unwrap();
        assert_eq!((server.wants_input(), server.poll_timeout()), (true, Some(after(115))));
        // A client whose input is read all the time gets no extension.
        let mut server = accepted(&connect);
        let token = tokens(&server.hears_at(&request, after(5)).0)[0];
        server
            .suback(
                token,
                &[ReasonCode::SUCCESS],
                AckProperties::default(),
                after(10),
                &mut Vec::new(),
            )
            .unwrap();
        assert_eq!(server.poll_timeout(), Some(after(20)));
    }
}
