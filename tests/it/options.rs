//! Each option changes one rule, in the versions that it names and in no other.

use mqtt_sansio::client::{self, Client, ClientConfig, ConnectError};
use mqtt_sansio::codec::{
    self, ConnackProperties, Connect, DecodeError, EncodeError, Options, OwnedPacket, Packet,
    PacketIdentifier, Publish, PublishProperties, QoS, Role, Rules, Subscription, Version, Will,
};
use mqtt_sansio::session::{Message, Outgoing, PublishError};
use testkit::machine::{Hears, NOW, accepted, connected, connecting};
use testkit::wire::{VERSIONS, lasting};

fn decode(bytes: &[u8], rules: Rules) -> Result<Packet<'_>, DecodeError> {
    codec::decode(codec::frame(bytes, u32::MAX)?.unwrap(), rules)
}

/// Checks bytes that are refused in these versions, and accepted with this option.
#[track_caller]
fn tolerated(option: Options, bytes: &[u8], versions: &[Version], error: DecodeError) {
    for version in VERSIONS {
        let concerned = versions.contains(&version);
        assert_eq!(decode(bytes, version.into()).err() == Some(error), concerned, "{version}");
        for &other in Options::ALL {
            let refused = decode(bytes, Rules::new(version).with(other)).err() == Some(error);
            assert_eq!(refused, concerned && other != option, "{version} {other:?}");
        }
        let all: Options = Options::ALL.iter().copied().collect();
        assert_eq!(all, Options::ALL.iter().fold(option, |all, other| all | *other));
        assert_ne!(decode(bytes, Rules::new(version).with(all)).err(), Some(error));
    }
}

#[test]
fn option_accepts_non_minimal_lengths() {
    let [pingreq, publish] =
        [&[0xC0, 0x80, 0x00][..], &[0x30, 0x84, 0x80, 0x00, 0x00, 0x01, b'a', b'!']];
    for bytes in [pingreq, publish] {
        let versions = [Version::V3_1, Version::V3_1_1];
        let header = codec::header(bytes, u32::MAX).unwrap().unwrap();
        assert_eq!(header.packet_size() as usize, bytes.len());
        assert_eq!(
            decode(bytes, Version::V5_0.into()),
            Err(DecodeError::NonMinimalVariableByteInteger)
        );
        for version in versions {
            assert_eq!(
                decode(bytes, version.into()),
                Err(DecodeError::NonMinimalVariableByteInteger)
            );
            assert!(decode(bytes, Rules::new(version).with(Options::NON_MINIMAL_LENGTH)).is_ok());
        }
        let rules = Rules::new(Version::V5_0).with(Options::NON_MINIMAL_LENGTH);
        assert_eq!(decode(bytes, rules), Err(DecodeError::NonMinimalVariableByteInteger));
    }
    let rules = Rules::new(Version::V3_1_1).with(Options::NON_MINIMAL_LENGTH);
    assert_eq!(decode(publish, rules).unwrap(), Publish::new("a", b"!").into());
    assert_eq!(
        codec::frame(&[0x30, 0x84, 0x80, 0x80, 0x80, 0x00], u32::MAX),
        Err(DecodeError::InvalidRemainingLength)
    );
}

/// A server reads a CONNECT before it knows the version. So does this test.
#[test]
fn connect_is_checked_by_its_own_version() {
    let connect = |first, level| {
        [
            &[first, 0x8D, 0x00, 0x00, 0x04][..],
            b"MQTT",
            &[level, 0x02, 0x00, 0x00, 0x00, 0x01, b'a'],
            &[][..],
        ]
        .concat()
    };
    let v3_1 = [&[0x11, 0x0F, 0x00, 0x06][..], b"MQIsdp", &[3, 0x02, 0x00, 0x00, 0x00, 0x01, b'a']]
        .concat();
    let any = [Version::V3_1, Version::V3_1_1, Version::V5_0];
    for version in any {
        let lengths = Rules::new(version).with(Options::NON_MINIMAL_LENGTH);
        assert!(decode(&connect(0x10, 4), lengths).is_ok());
        assert_eq!(
            decode(&connect(0x10, 5), lengths),
            Err(DecodeError::NonMinimalVariableByteInteger)
        );
        let flags = Rules::new(version).with(Options::UNUSED_HEADER_FLAGS);
        assert!(decode(&v3_1, flags).is_ok());
        let minimal = flags.with(Options::NON_MINIMAL_LENGTH);
        assert!(decode(&connect(0x12, 4), minimal).is_ok());
        assert_eq!(decode(&connect(0x12, 5), minimal), Err(DecodeError::InvalidHeaderFlags));
    }
}

#[test]
fn option_ignores_unused_header_flags() {
    let older = [Version::V3_1, Version::V3_1_1];
    for (bytes, versions) in [
        (&[0x80, 0x06, 0x00, 0x01, 0x00, 0x01, b'a', 0x00][..], &older[..]),
        (&[0xC5, 0x00], &older),
        (&[0x41, 0x02, 0x00, 0x01], &older),
        (&[0x60, 0x02, 0x00, 0x01], &older),
        // 3.1 lets these be resent with DUP.
        (&[0x6A, 0x02, 0x00, 0x01], &older[1..]),
        (&[0xA0, 0x05, 0x00, 0x01, 0x00, 0x01, b'a'], &older),
    ] {
        let error = DecodeError::InvalidHeaderFlags;
        for version in VERSIONS {
            let refused = |rules| decode(bytes, rules).err() == Some(error);
            let concerned = versions.contains(&version);
            assert_eq!(refused(version.into()), concerned || version == Version::V5_0);
            let rules = Rules::new(version).with(Options::UNUSED_HEADER_FLAGS);
            assert_eq!(refused(rules), version == Version::V5_0, "{bytes:x?} {version}");
        }
    }
}

#[test]
fn option_ignores_reserved_bits_of_a_requested_qos() {
    let bytes = [0x82, 0x06, 0x00, 0x01, 0x00, 0x01, b'a', 0xA6];
    let versions = [Version::V3_1, Version::V3_1_1];
    for version in versions {
        let rules = Rules::new(version).with(Options::RESERVED_QOS_BITS);
        assert_eq!(decode(&bytes, version.into()), Err(DecodeError::SubscribeReservedBits));
        let Packet::Subscribe(subscribe) = decode(&bytes, rules).unwrap() else { panic!() };
        let expected = Subscription::new("a", QoS::ExactlyOnce);
        assert_eq!(subscribe.subscriptions.iter().collect::<Vec<_>>(), [expected]);
        // QoS 3 stays what it is.
        let qos_3 = [0x82, 0x06, 0x00, 0x01, 0x00, 0x01, b'a', 0xA7];
        assert_eq!(decode(&qos_3, rules), Err(DecodeError::InvalidSubscriptionQos));
    }
    let bytes = [0x82, 0x07, 0x00, 0x01, 0x00, 0x00, 0x01, b'a', 0x40];
    let rules = Rules::new(Version::V5_0).with(Options::RESERVED_QOS_BITS);
    assert_eq!(decode(&bytes, rules), Err(DecodeError::SubscribeReservedBits));
}

#[test]
fn option_accepts_a_topic_name_that_is_not_utf8() {
    let bytes = [0x32, 0x07, 0x00, 0x02, b'a', 0xE9, 0x00, 0x07, b'!'];
    let v5 = [0x30, 0x05, 0x00, 0x02, b'a', 0xE9, 0x00];
    let error = DecodeError::InvalidUtf8;
    for version in [Version::V3_1, Version::V3_1_1] {
        let rules = Rules::new(version).with(Options::UNREADABLE_TOPIC);
        assert_eq!(decode(&bytes, version.into()), Err(error));
        assert_eq!(decode(&bytes, rules.sent_by(Role::Client)), Err(error));
        for rules in [rules, rules.sent_by(Role::Server)] {
            let packet = decode(&bytes, rules).unwrap();
            let expected = Publish {
                qos: QoS::AtLeastOnce,
                packet_identifier: PacketIdentifier::new(7),
                ..Publish::new("", b"!")
            };
            assert_eq!(packet, expected.into());
            let mut input = ::bytes::BytesMut::from(&bytes[..]);
            let owned = OwnedPacket::split_from(&mut input, u32::MAX, rules).unwrap();
            assert_eq!(owned.unwrap().decode(), packet);
            // It cannot be sent on under an empty name.
            let sent = codec::encode(&packet, rules, &mut Vec::new());
            assert_eq!(sent, Err(DecodeError::EmptyTopicName.into()));
        }
        // The other rules stay what they are.
        let rules = rules.sent_by(Role::Server);
        for (bytes, error) in [
            (&[0x30, 0x02, 0x00, 0x00][..], DecodeError::EmptyTopicName),
            (&[0x30, 0x04, 0x00, 0x02, 0xE9, 0x00], DecodeError::NullCharacter),
            (&[0x38, 0x03, 0x00, 0x01, 0xE9], DecodeError::DupWithQos0),
            (&[0x32, 0x05, 0x00, 0x01, 0xE9, 0x00, 0x00], DecodeError::ZeroPacketIdentifier),
            (&[0x32, 0x04, 0x00, 0x01, 0xE9, 0x00], DecodeError::Truncated),
        ] {
            assert_eq!(decode(bytes, rules), Err(error), "{bytes:x?}");
        }
    }
    let rules = Rules::new(Version::V5_0).with(Options::UNREADABLE_TOPIC);
    assert_eq!(decode(&v5, rules), Err(error));
}

#[test]
fn option_accepts_the_protocol_level_of_bridges() {
    let connect = |level: u8| {
        [&[0x10, 0x0D, 0x00, 0x04][..], b"MQTT", &[level, 0x02, 0x00, 0x00, 0x00, 0x01, b'a']]
            .concat()
    };
    let error = DecodeError::UnsupportedProtocolVersion(0x84);
    tolerated(Options::BRIDGE_PROTOCOL_LEVEL, &connect(0x84), &VERSIONS, error);
    let rules = Rules::new(Version::V3_1_1).with(Options::BRIDGE_PROTOCOL_LEVEL);
    assert_eq!(decode(&connect(0x84), rules), decode(&connect(0x04), rules));
    assert_eq!(decode(&connect(0x85), rules), Err(DecodeError::UnsupportedProtocolVersion(0x85)));
}

#[test]
fn option_accepts_long_client_identifiers() {
    let identifier = "a".repeat(24);
    let connect: Packet<'_> = Connect::new(Version::V3_1, &identifier).into();
    let rules = Rules::new(Version::V3_1).with(Options::LONG_CLIENT_IDENTIFIER);
    assert!(OwnedPacket::new(&connect, Version::V3_1).is_err());
    let owned = OwnedPacket::new(&connect, rules).unwrap();
    tolerated(
        Options::LONG_CLIENT_IDENTIFIER,
        owned.as_bytes(),
        &VERSIONS,
        DecodeError::ClientIdentifierRejected,
    );
    assert!(OwnedPacket::new(&Connect::new(Version::V3_1, "").into(), rules).is_err());
}

#[test]
fn option_accepts_a_password_without_user_name() {
    for version in [Version::V3_1, Version::V3_1_1] {
        let connect: Packet<'_> =
            Connect { password: Some(b"p"), ..Connect::new(version, "a") }.into();
        let rules = Rules::new(version).with(Options::PASSWORD_WITHOUT_USER_NAME);
        assert!(OwnedPacket::new(&connect, version).is_err());
        let owned = OwnedPacket::new(&connect, rules).unwrap();
        tolerated(
            Options::PASSWORD_WITHOUT_USER_NAME,
            owned.as_bytes(),
            &VERSIONS,
            DecodeError::PasswordWithoutUserName,
        );
    }
}

#[test]
fn option_accepts_dup_with_qos_0() {
    let bytes = [0x38, 0x04, 0x00, 0x01, b'a', 0x00];
    tolerated(Options::DUP_WITH_QOS_0, &bytes, &VERSIONS, DecodeError::DupWithQos0);
    let rules = Rules::new(Version::V5_0).with(Options::DUP_WITH_QOS_0);
    assert_eq!(decode(&bytes, rules).unwrap(), Publish::new("a", b"").into());
}

#[test]
fn option_accepts_suback_failure_in_3_1() {
    let bytes = [0x90, 0x03, 0x00, 0x01, 0x80];
    tolerated(
        Options::SUBACK_FAILURE,
        &bytes,
        &[Version::V3_1],
        DecodeError::InvalidReasonCode(0x80),
    );
}

#[test]
fn option_refuses_control_characters() {
    let rules = Rules::new(Version::V5_0).with(Options::REFUSE_CONTROL_CHARACTERS);
    for text in [
        "\u{1}",
        "a\u{1F}",
        "\u{7F}",
        "\u{9F}",
        "\u{FDD0}",
        "\u{FDEF}",
        "\u{FFFE}",
        "\u{1FFFF}",
        "\u{10FFFE}",
    ] {
        let connect = Connect::new(Version::V5_0, text).into();
        let mut packets: Vec<Packet<'_>> = vec![Publish::new(text, b"").into(), connect];
        // Each string alone, in each field that has one.
        let (by_name, by_value) =
            ([codec::UserProperty::new(text, "a")], [codec::UserProperty::new("a", text)]);
        for user_properties in [&by_name, &by_value] {
            let mut publish = Publish::new("a", b"");
            publish.properties.user_properties = user_properties.into();
            packets.push(publish.into());
        }
        let with_will =
            |will| Connect { will: Some(will), ..Connect::new(Version::V5_0, "a") }.into();
        let mut will = Will { topic: text.into(), ..Will::default() };
        packets.push(with_will(will));
        will.topic = "a".into();
        will.properties.content_type = Some(text.into());
        packets.push(with_will(will));
        packets.push(
            Connect { user_name: Some(text.into()), ..Connect::new(Version::V5_0, "a") }.into(),
        );
        let mut connect = Connect::new(Version::V5_0, "a");
        connect.properties.authentication_method = Some(text.into());
        packets.push(connect.into());
        for packet in packets {
            let owned = OwnedPacket::new(&packet, Version::V5_0).unwrap();
            assert_eq!(
                decode(owned.as_bytes(), rules),
                Err(DecodeError::ControlCharacter),
                "{packet:?}"
            );
            assert_eq!(OwnedPacket::new(&packet, rules), Err(DecodeError::ControlCharacter.into()));
        }
    }
    for text in [" ", "\u{A0}", "\u{FEFF}", "\u{FDCF}", "\u{FDF0}", "\u{FFFD}", "\u{10000}"] {
        assert!(OwnedPacket::new(&Publish::new(text, b"").into(), rules).is_ok(), "{text:?}");
    }
    for bytes in [
        // SUBSCRIBE, UNSUBSCRIBE, DISCONNECT and PUBACK with U+0001 in a filter or a reason string.
        &[0x82, 0x07, 0x00, 0x01, 0x00, 0x00, 0x01, 0x01, 0x00][..],
        &[0xA2, 0x06, 0x00, 0x01, 0x00, 0x00, 0x01, 0x01],
        &[0xE0, 0x06, 0x00, 0x04, 0x1F, 0x00, 0x01, 0x01],
        &[0x40, 0x08, 0x00, 0x01, 0x00, 0x04, 0x1F, 0x00, 0x01, 0x01],
        &[0x90, 0x08, 0x00, 0x01, 0x04, 0x1F, 0x00, 0x01, 0x01, 0x00],
        &[0x20, 0x07, 0x00, 0x00, 0x04, 0x1F, 0x00, 0x01, 0x01],
        &[0xF0, 0x06, 0x18, 0x04, 0x15, 0x00, 0x01, 0x01],
    ] {
        assert!(decode(bytes, Version::V5_0.into()).is_ok(), "{bytes:x?}");
        assert_eq!(decode(bytes, rules), Err(DecodeError::ControlCharacter), "{bytes:x?}");
    }
}

#[test]
fn option_checks_the_payload_format() {
    let rules = Rules::new(Version::V5_0).with(Options::CHECK_PAYLOAD_FORMAT);
    let publish = |indicator, payload| {
        let mut publish = Publish::new("a", payload);
        publish.properties.payload_format_indicator = indicator;
        publish
    };
    for (indicator, payload, right) in [
        (Some(true), &b"\xFF"[..], false),
        (Some(true), b"\xC3\xA9", true),
        (Some(false), b"\xFF", true),
        (None, b"\xFF", true),
    ] {
        let packet: Packet<'_> = publish(indicator, payload).into();
        let owned = OwnedPacket::new(&packet, Rules::new(Version::V5_0).forwarding()).unwrap();
        let expected = if right { Ok(packet) } else { Err(DecodeError::InvalidPayloadFormat) };
        assert_eq!(decode(owned.as_bytes(), rules), expected);
        // The option concerns decoding. Encoding always checks a message that is not forwarded.
        for rules in [rules, Version::V5_0.into()] {
            assert_eq!(OwnedPacket::new(&packet, rules).is_ok(), right);
            let forwarded = OwnedPacket::new(&packet, rules.forwarding()).unwrap();
            assert_eq!(forwarded.decode(), packet);
        }
        let mut connect = Connect::new(Version::V5_0, "a");
        let will = connect.will.insert(Will { topic: "a".into(), payload, ..Will::default() });
        will.properties.payload_format_indicator = indicator;
        assert_eq!(OwnedPacket::new(&connect.into(), rules).is_ok(), right);
    }
    assert_eq!(
        DecodeError::InvalidPayloadFormat.reason_code(),
        codec::ReasonCode::PAYLOAD_FORMAT_INVALID
    );
}

/// A client acknowledges a message with an unreadable topic name, and reports none.
#[test]
fn client_skips_a_message_with_an_unreadable_topic_name() {
    for options in [Options::NONE, Options::UNREADABLE_TOPIC] {
        for manual in [false, true] {
            let config = ClientConfig::new().options(options).manual_acknowledgement(manual);
            let mut client = connecting(config, &lasting(Version::V3_1_1));
            client.hears(&[0x20, 0x02, 0x00, 0x00]);
            for (bytes, answer) in [
                (&[0x30, 0x04, 0x00, 0x01, 0xE9, b'!'][..], &[][..]),
                (&[0x32, 0x06, 0x00, 0x01, 0xE9, 0x00, 0x01, b'!'], &[0x40, 0x02, 0x00, 0x01]),
                (&[0x34, 0x06, 0x00, 0x01, 0xE9, 0x00, 0x02, b'!'], &[0x50, 0x02, 0x00, 0x02]),
                (&[0x3C, 0x06, 0x00, 0x01, 0xE9, 0x00, 0x02, b'!'], &[0x50, 0x02, 0x00, 0x02]),
                (&[0x62, 0x02, 0x00, 0x02], &[0x70, 0x02, 0x00, 0x02]),
            ] {
                let (actions, out) = client.hears(bytes);
                if options == Options::NONE {
                    assert!(matches!(actions[..], [client::Action::Closed(_)]), "{actions:?}");
                    break;
                }
                assert_eq!((actions, &out[..]), (vec![], answer));
            }
        }
    }
}

/// The application that publishes answers for its payload, a server that forwards does not.
/// [5.0 §3.3.2.3.2] [5.0 MQTT-3.3.2-4]
#[test]
fn payload_format_is_checked_when_a_client_publishes() {
    let properties =
        PublishProperties { payload_format_indicator: Some(true), ..PublishProperties::default() };
    let publish = Publish { properties, ..Publish::new("t", b"\xFF") };
    let refused = EncodeError::from(DecodeError::InvalidPayloadFormat);
    let mut out = Vec::new();

    let mut client = connected(&lasting(Version::V5_0), ConnackProperties::default());
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let sent = client.publish(1, &Publish { qos, ..publish }, NOW, &mut out);
        assert_eq!(sent, Err(PublishError::Encode(refused)));
    }
    assert!(out.is_empty());
    let right = Publish { payload: b"text", ..publish };
    assert_eq!(client.publish(1, &right, NOW, &mut out), Ok(()));

    let mut will = Will::new("t", b"\xFF");
    will.properties.payload_format_indicator = Some(true);
    let connect = Connect { will: Some(will), ..lasting(Version::V5_0) };
    let mut client = Client::new(ClientConfig::new());
    let connected = client.connect(&connect, NOW, &mut Vec::new());
    assert_eq!(connected, Err(ConnectError::Encode(refused)));

    let mut server = accepted(&lasting(Version::V5_0));
    let forwarded = Outgoing::new(None, Message::new(&publish).unwrap());
    server.deliver(forwarded, NOW).unwrap();
    out.clear();
    while server.flush(NOW, &mut out) {}
    assert_eq!(out, [0x30, 0x07, 0x00, 0x01, b't', 0x02, 0x01, 0x01, 0xFF]);
}
