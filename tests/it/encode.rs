//! Packets that the encoder refuses. After an error the output is unchanged.

use mqtt_sansio::codec::{
    self, Ack, AckProperties, Auth, AuthProperties, Connack, Connect, ConnectProperties,
    DecodeError, Disconnect, DisconnectProperties, EncodeError, Fixed, Options, Output,
    OwnedPacket, Packet, Publish, PublishProperties, QoS, ReasonCode, Role, Rules, Sequence,
    Suback, Subscribe, SubscribeProperties, Subscription, SubscriptionOptions, Text, TopicFilter,
    Unsubscribe, UnsubscribeProperties, UserProperty, Vectored, Version, Will,
};
use mqtt_sansio::session::Message;
use testkit::wire::{VERSIONS, identifier};

/// Appends a packet to each kind of output, and checks that all outputs agree.
#[track_caller]
fn encode(packet: &Packet<'_>, rules: impl Into<Rules> + Copy) -> Result<Vec<u8>, EncodeError> {
    let mut vec = b"before".to_vec();
    let result = codec::encode(packet, rules, &mut vec);
    let mut bytes = bytes::BytesMut::from(&b"before"[..]);
    assert_eq!(codec::encode(packet, rules, &mut bytes), result);
    assert_eq!(bytes, vec);
    let mut memory = vec![0; vec.len() + 1_000];
    let mut fixed = Fixed::new(&mut memory);
    codec::encode(&Packet::Pingreq, Version::V5_0, &mut fixed).unwrap();
    assert_eq!(codec::encode(packet, rules, &mut fixed), result);
    assert_eq!(fixed.written()[2..], vec[6..]);
    assert_eq!(Output::len(&fixed), fixed.written().len());
    let mut vectored = Vectored::new();
    assert_eq!(codec::encode(packet, rules, &mut vectored), result);
    assert_eq!(vectored.slices().collect::<Vec<_>>().concat(), vec[6..]);
    let size = vec.len() - 6;
    let sized = codec::packet_size(packet, rules);
    assert_eq!(sized, result.map(|()| u32::try_from(size).unwrap()));
    if result.is_ok() {
        // Room for the packet once, but not twice.
        let mut memory = vec![0; 2 * size - 1];
        let mut fixed = Fixed::new(&mut memory);
        assert_eq!(codec::encode(packet, rules, &mut fixed), Ok(()));
        assert_eq!(codec::encode(packet, rules, &mut fixed), Err(EncodeError::NoRoom(size)));
        assert_eq!(fixed.written(), &vec[6..]);
    }
    let owned = OwnedPacket::new(packet, rules);
    assert_eq!(
        owned.as_ref().map(|owned| owned.as_bytes().to_vec()),
        result.as_ref().map(|()| vec[6..].to_vec())
    );
    if let Ok(owned) = owned {
        let mut received = bytes::BytesMut::from(&vec[6..]);
        received.extend_from_slice(b"next");
        assert_eq!(OwnedPacket::split_from(&mut received, u32::MAX, rules), Ok(Some(owned)));
        assert_eq!(received, &b"next"[..]);
    }
    assert_eq!(vec[..6], *b"before");
    result.map(|()| vec.split_off(6))
}

fn acks<'a>(ack: Ack<'a>) -> [Packet<'a>; 4] {
    [Packet::Puback(ack), Packet::Pubrec(ack), Packet::Pubrel(ack), Packet::Pubcomp(ack)]
}

#[test]
fn encoder_refuses_fields_that_the_version_lacks() {
    let user = [UserProperty::new("n", "v")];
    let properties = AckProperties { user_properties: (&user).into(), ..AckProperties::default() };
    let codes = [ReasonCode::SUCCESS];
    let no_local = Subscription {
        options: SubscriptionOptions { no_local: true, ..Default::default() },
        ..Subscription::new("a", QoS::AtMostOnce)
    };
    let subscriptions = [no_local];
    let (subscribe, filters) = (SubscribeProperties::default(), [Text::from("a")]);
    let method =
        AuthProperties { authentication_method: Some("m".into()), ..AuthProperties::default() };
    let mut only_5_0: Vec<Packet<'_>> = vec![
        Publish {
            properties: PublishProperties { content_type: Some("t".into()), ..Default::default() },
            ..Publish::new("a", b"")
        }
        .into(),
        Disconnect::new(ReasonCode::DISCONNECT_WITH_WILL_MESSAGE).into(),
        Disconnect {
            properties: DisconnectProperties {
                reason_string: Some("r".into()),
                ..Default::default()
            },
            ..Default::default()
        }
        .into(),
        Auth { reason_code: ReasonCode::CONTINUE_AUTHENTICATION, properties: method }.into(),
        Auth::default().into(),
        Subscribe {
            packet_identifier: identifier(7),
            properties: subscribe,
            subscriptions: (&subscriptions).into(),
        }
        .into(),
        Unsubscribe {
            packet_identifier: identifier(7),
            properties: UnsubscribeProperties { user_properties: (&user).into() },
            topic_filters: (&filters).into(),
        }
        .into(),
        Packet::Unsuback(Suback {
            packet_identifier: identifier(7),
            properties: AckProperties::default(),
            reason_codes: (&codes).into(),
        }),
        Packet::Suback(Suback {
            packet_identifier: identifier(7),
            properties,
            reason_codes: (&codes).into(),
        }),
    ];
    only_5_0.extend(acks(Ack { properties, ..Ack::new(identifier(7), ReasonCode::SUCCESS) }));
    only_5_0.extend([
        Packet::Puback(Ack::new(identifier(7), ReasonCode::NO_MATCHING_SUBSCRIBERS)),
        Packet::Pubrec(Ack::new(identifier(7), ReasonCode::NOT_AUTHORIZED)),
        Packet::Pubrel(Ack::new(identifier(7), ReasonCode::PACKET_IDENTIFIER_NOT_FOUND)),
        Packet::Pubcomp(Ack::new(identifier(7), ReasonCode::PACKET_IDENTIFIER_NOT_FOUND)),
    ]);
    for packet in only_5_0 {
        assert!(encode(&packet, Version::V5_0).is_ok(), "{packet:?}");
        for version in [Version::V3_1, Version::V3_1_1] {
            assert_eq!(
                encode(&packet, version),
                Err(EncodeError::NotInVersion(version)),
                "{packet:?}"
            );
        }
    }
    let present = Connack { session_present: true, ..Connack::default() }.into();
    assert_eq!(encode(&present, Version::V3_1), Err(EncodeError::NotInVersion(Version::V3_1)));
    assert_eq!(encode(&present, Version::V3_1_1).unwrap(), [0x20, 2, 1, 0]);
    let will_properties =
        codec::WillProperties { will_delay_interval: Some(1), ..Default::default() };
    for version in VERSIONS {
        let will = Will { topic: "w".into(), properties: will_properties, ..Will::default() };
        let connect =
            Connect { will: Some(will), clean_start: true, ..Connect::new(version, "c") }.into();
        let said =
            if version == Version::V5_0 { Ok(()) } else { Err(EncodeError::NotInVersion(version)) };
        assert_eq!(encode(&connect, version).map(drop), said);
    }
}

#[test]
fn encoder_refuses_packets_that_only_the_peer_can_send() {
    let (subscriptions, filters, codes) =
        ([Subscription::new("a", QoS::AtMostOnce)], [Text::from("a")], [ReasonCode::SUCCESS]);
    let suback = Suback {
        packet_identifier: identifier(7),
        properties: AckProperties::default(),
        reason_codes: (&codes).into(),
    };
    let packets: [(Packet<'_>, Role); 8] = [
        (Connect::new(Version::V5_0, "c").into(), Role::Client),
        (Connack::default().into(), Role::Server),
        (
            Subscribe {
                packet_identifier: identifier(7),
                properties: SubscribeProperties::default(),
                subscriptions: (&subscriptions).into(),
            }
            .into(),
            Role::Client,
        ),
        (
            Unsubscribe {
                packet_identifier: identifier(7),
                properties: UnsubscribeProperties::default(),
                topic_filters: (&filters).into(),
            }
            .into(),
            Role::Client,
        ),
        (Packet::Suback(suback), Role::Server),
        (Packet::Unsuback(suback), Role::Server),
        (Packet::Pingreq, Role::Client),
        (Packet::Pingresp, Role::Server),
    ];
    for (packet, sender) in packets {
        let other = if sender == Role::Client { Role::Server } else { Role::Client };
        let rules = Rules::new(Version::V5_0);
        assert!(
            encode(&packet, rules).is_ok() && encode(&packet, rules.sent_by(sender)).is_ok(),
            "{packet:?}"
        );
        assert_eq!(
            encode(&packet, rules.sent_by(other)),
            Err(DecodeError::WrongSender.into()),
            "{packet:?}"
        );
    }
    // Before 5.0 a server cannot send DISCONNECT. [3.1.1 §3.14]
    let disconnect = Disconnect::default().into();
    for version in VERSIONS {
        let by_server = encode(&disconnect, Rules::new(version).sent_by(Role::Server));
        assert_eq!(by_server.is_ok(), version == Version::V5_0);
        assert!(encode(&disconnect, Rules::new(version).sent_by(Role::Client)).is_ok());
    }
}

#[test]
fn encoder_requires_a_packet_identifier_exactly_above_qos_0() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for packet_identifier in [None, Some(identifier(7))] {
            let publish = Publish { qos, packet_identifier, ..Publish::new("a", b"") };
            let right = packet_identifier.is_some() == (qos > QoS::AtMostOnce);
            let expected = if right { Ok(()) } else { Err(EncodeError::PacketIdentifier) };
            assert_eq!(encode(&publish.into(), Version::V5_0).map(drop), expected);
        }
    }
}

/// [5.0 MQTT-1.5.4-2] [5.0 MQTT-3.3.2-2] [5.0 MQTT-4.7.0-1] [5.0 MQTT-4.7.1-1] [3.1.1 MQTT-1.5.3-2]
/// [3.1.1 MQTT-3.3.2-2]
#[test]
fn encoder_refuses_strings_that_a_receiver_must_refuse() {
    let null = Text::from("a\0");
    let user = [
        UserProperty { name: null, value: "b".into() },
        UserProperty { name: "a".into(), value: null },
    ];
    let (by_name, by_value) = (Sequence::from(&user[..1]), Sequence::from(&user[1..]));
    let connect = Connect::new(Version::V5_0, "c");
    let publish = Publish::new("t", b"");
    let will = |topic: &'static str| Some(Will { topic: topic.into(), ..Will::default() });
    let of_connect = |properties| Connect { properties, ..connect }.into();
    let of_publish = |properties| Publish { properties, ..publish }.into();
    let packets: [(Packet<'_>, DecodeError); 14] = [
        (Connect::new(Version::V5_0, "a\0").into(), DecodeError::NullCharacter),
        (Connect { user_name: Some(null), ..connect }.into(), DecodeError::NullCharacter),
        (Connect { will: will("a\0"), ..connect }.into(), DecodeError::NullCharacter),
        (Connect { will: will("a/+"), ..connect }.into(), DecodeError::WildcardInTopicName),
        (
            of_connect(ConnectProperties {
                authentication_method: Some(null),
                ..Default::default()
            }),
            DecodeError::NullCharacter,
        ),
        (
            of_connect(ConnectProperties { user_properties: by_name, ..Default::default() }),
            DecodeError::NullCharacter,
        ),
        (
            of_connect(ConnectProperties { user_properties: by_value, ..Default::default() }),
            DecodeError::NullCharacter,
        ),
        (Publish::new("a\0", b"").into(), DecodeError::NullCharacter),
        (Publish::new("a/#", b"").into(), DecodeError::WildcardInTopicName),
        (Publish::new("é/+", b"").into(), DecodeError::WildcardInTopicName),
        (
            of_publish(PublishProperties { content_type: Some(null), ..Default::default() }),
            DecodeError::NullCharacter,
        ),
        (
            of_publish(PublishProperties { response_topic: Some(null), ..Default::default() }),
            DecodeError::NullCharacter,
        ),
        (
            of_publish(PublishProperties {
                response_topic: Some("+".into()),
                ..Default::default()
            }),
            DecodeError::WildcardInResponseTopic,
        ),
        (
            of_publish(PublishProperties { response_topic: Some("".into()), ..Default::default() }),
            DecodeError::EmptyTopicName,
        ),
    ];
    for (packet, error) in packets {
        assert_eq!(
            encode(&packet, Version::V5_0),
            Err(EncodeError::Forbidden(error)),
            "{packet:?}"
        );
    }
    for (filter, error) in [
        ("a\0", DecodeError::NullCharacter),
        ("a+", DecodeError::InvalidWildcard),
        ("", DecodeError::EmptyTopicFilter),
    ] {
        let (subscriptions, filters) =
            ([Subscription::new(filter, QoS::AtMostOnce)], [Text::from(filter)]);
        let subscribe = Subscribe {
            packet_identifier: identifier(7),
            properties: Default::default(),
            subscriptions: (&subscriptions).into(),
        };
        let unsubscribe = Unsubscribe {
            packet_identifier: identifier(7),
            properties: Default::default(),
            topic_filters: (&filters).into(),
        };
        for packet in [subscribe.into(), unsubscribe.into()] {
            assert_eq!(
                encode(&packet, Version::V3_1_1),
                Err(EncodeError::Forbidden(error)),
                "{packet:?}"
            );
        }
    }
}

/// [3.1.1 MQTT-3.8.3-3] [3.1.1 MQTT-3.10.3-2] [5.0 MQTT-3.8.3-2] [5.0 MQTT-3.10.3-2]
#[test]
fn encoder_refuses_requests_without_topic_filters() {
    let refused = Err(EncodeError::Forbidden(DecodeError::EmptySubscribe));
    for version in VERSIONS {
        let subscribe = Subscribe::new(identifier(7), &[]);
        assert_eq!(encode(&subscribe.into(), version), refused, "{version}");
        let unsubscribe = Unsubscribe::new(identifier(7), &[]);
        assert_eq!(encode(&unsubscribe.into(), version), refused, "{version}");
    }
}

/// A filter was checked for one version and set of options. Others need another check.
#[test]
fn encoder_checks_the_rest_of_checked_filters() {
    let refused = |filter: TopicFilter<'_>, options: SubscriptionOptions, rules: Rules| {
        let subscription = Subscription { options, ..Subscription::new(filter, QoS::AtMostOnce) };
        let (subscriptions, filters) = ([subscription], [Text::from(filter)]);
        let subscribe = Subscribe::new(identifier(7), &subscriptions);
        let unsubscribe = Unsubscribe::new(identifier(7), &filters);
        (encode(&subscribe.into(), rules).is_err(), encode(&unsubscribe.into(), rules).is_err())
    };
    let (old, new) = (Rules::new(Version::V3_1_1), Rules::new(Version::V5_0));
    let none = SubscriptionOptions::default();
    let no_local = SubscriptionOptions { no_local: true, ..none };
    let filter = |text| TopicFilter::new(text, Version::V3_1_1).unwrap();
    assert_eq!(refused(filter("a/+"), none, old), (false, false));
    assert_eq!(refused(filter("a/+"), no_local, old), (true, false));
    assert_eq!(refused(filter("a/+"), no_local, new), (false, false));
    assert_eq!(refused(filter("$share/g"), none, old), (false, false));
    assert_eq!(refused(filter("$share/g"), none, new), (true, true));
    let clean = old.with(Options::REFUSE_CONTROL_CHARACTERS);
    assert_eq!(refused(filter("a\x01"), none, old), (false, false));
    assert_eq!(refused(filter("a\x01"), none, clean), (true, true));
}

/// [3.1.1 MQTT-4.7.3-1] [5.0 MQTT-4.7.3-1]
#[test]
fn encoder_refuses_publish_without_topic_name() {
    for version in VERSIONS {
        assert!(encode(&Publish::new("", b"x").into(), version).is_err(), "{version}");
    }
}

#[test]
fn encoder_refuses_answers_without_reason_codes_when_required() {
    let nothing = Suback {
        packet_identifier: identifier(7),
        properties: AckProperties::default(),
        reason_codes: Sequence::default(),
    };
    let refused = Err(EncodeError::Forbidden(DecodeError::EmptySubscribe));
    for version in VERSIONS {
        assert_eq!(encode(&Packet::Suback(nothing), version), refused, "{version}");
    }
    assert_eq!(encode(&Packet::Unsuback(nothing), Version::V5_0), refused);
    assert_eq!(encode(&Packet::Unsuback(nothing), Version::V3_1_1), Ok(vec![0xB0, 2, 0, 7]));
    let from_client = Rules::new(Version::V3_1_1).sent_by(Role::Client);
    let sent = codec::encode(&Packet::Unsuback(nothing), from_client, &mut Vec::new());
    assert_eq!(sent, Err(EncodeError::Forbidden(DecodeError::WrongSender)));
}

#[test]
fn reason_code_debug_shows_name_and_number() {
    assert_eq!(
        [0, 0x7F, 0x80, 0xFF].map(|code| ReasonCode::new(code).is_error()),
        [false, false, true, true]
    );
    assert_eq!(ReasonCode::NOT_AUTHORIZED.to_string(), "Not authorized");
    assert_eq!(ReasonCode::new(0x7F).to_string(), "Reason Code 0x7f");
    assert_eq!(
        format!("{:?} {:?}", ReasonCode::BANNED, ReasonCode::new(3)),
        "ReasonCode(0x8a, Banned) ReasonCode(0x03, ?)"
    );
    let codes = Sequence::from(&[ReasonCode::BANNED]);
    assert_eq!(
        format!("{codes:?} {:?}", codes.iter()),
        "[ReasonCode(0x8a, Banned)] SequenceIter { .. }"
    );
}

#[test]
fn topic_filter_reports_its_share_name_and_wildcards() {
    let read = |filter, version| {
        let filter = TopicFilter::new(filter, version).unwrap();
        (filter.share_name().map(Text::to_str), filter.has_wildcard())
    };
    assert_eq!(read("$share/g/a/+", Version::V5_0), (Some("g"), true));
    assert_eq!(read("$share/g/a", Version::V5_0), (Some("g"), false));
    assert_eq!(read("$share/g/a", Version::V3_1_1), (None, false));
}

#[test]
fn encoder_refuses_fields_of_65_536_bytes() {
    let (long, longest) = ("x".repeat(65_536), "x".repeat(65_535));
    for (text, fits) in [(&long, false), (&longest, true)] {
        let filter = TopicFilter::new(text.as_str(), Version::V5_0);
        assert_eq!(filter.err(), (!fits).then_some(EncodeError::FieldTooLong));
        let user = [UserProperty::new("n", text)];
        let mut properties = PublishProperties {
            correlation_data: Some(text.as_bytes()),
            ..PublishProperties::default()
        };
        let connect = |password| Connect {
            user_name: Some("u".into()),
            password,
            ..Connect::new(Version::V5_0, "c")
        };
        let will = Will { topic: "w".into(), payload: text.as_bytes(), ..Will::default() };
        let mut packets: Vec<Packet<'_>> = vec![
            Publish::new(text, b"").into(),
            Publish { properties, ..Publish::new("a", b"") }.into(),
            Connect::new(Version::V5_0, text).into(),
            connect(Some(text.as_bytes())).into(),
            Connect { will: Some(will), ..connect(None) }.into(),
        ];
        properties =
            PublishProperties { user_properties: (&user).into(), ..PublishProperties::default() };
        packets.push(Publish { properties, ..Publish::new("a", b"") }.into());
        for packet in packets {
            assert_eq!(
                encode(&packet, Version::V5_0).err(),
                (!fits).then_some(EncodeError::FieldTooLong)
            );
        }
    }
}

/// [5.0 §2.1.4] [3.1.1 §2.2.3]
#[test]
fn encoder_refuses_packets_above_the_largest_remaining_length() {
    let payload = vec![0; 268_435_455];
    let mut out = Vec::new();
    let header = |size: usize, out: &mut Vec<u8>| {
        codec::encode_publish_header(&Publish::new("a", &payload[..size]), Version::V3_1_1, out)
    };
    assert_eq!(header(268_435_453, &mut out), Err(EncodeError::PacketTooLong));
    assert!(out.is_empty());
    header(268_435_452, &mut out).unwrap();
    assert_eq!(out, [0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, b'a']);
    // The size of a list that repeats one long string exceeds its memory. The encoder refuses it
    // before the output grows.
    let text = "x".repeat(65_535);
    let filters = vec![Text::from(text.as_str()); 100_000];
    let unsubscribe = Unsubscribe {
        packet_identifier: identifier(7),
        properties: UnsubscribeProperties::default(),
        topic_filters: filters.as_slice().into(),
    };
    let user = vec![UserProperty::new(&text, &text); 10_000];
    let properties = PublishProperties {
        user_properties: user.as_slice().into(),
        ..PublishProperties::default()
    };
    let publish = Publish { properties, ..Publish::new("a", b"") };
    assert_eq!(Message::new(&publish).err(), Some(EncodeError::PacketTooLong));
    assert_eq!(Message::new(&Publish::new("a", &payload)).err(), Some(EncodeError::PacketTooLong));
    let mut memory = [0; 8];
    let mut fixed = Fixed::new(&mut memory);
    assert_eq!(
        codec::encode(&unsubscribe.into(), Version::V5_0, &mut fixed),
        Err(EncodeError::PacketTooLong)
    );
    assert!(fixed.written().is_empty());
}

/// Each length field, at each size of its variable byte integer.
#[test]
fn lengths_are_correct_at_each_variable_byte_integer_boundary() {
    let text = "v".repeat(20_000);
    for length in (0..300).chain(16_200..16_500) {
        let user = [UserProperty::new("n", &text[..length])];
        let properties =
            PublishProperties { user_properties: (&user).into(), ..PublishProperties::default() };
        for payload in [&b""[..], b"payload"] {
            let publish = Publish {
                properties,
                qos: QoS::AtLeastOnce,
                packet_identifier: Some(identifier(7)),
                ..Publish::new("topic", payload)
            };
            let packet = Packet::from(publish);
            let bytes = encode(&packet, Version::V5_0).unwrap();
            let frame = codec::frame(&bytes, u32::MAX).unwrap().unwrap();
            assert_eq!(frame.as_bytes().len(), bytes.len());
            assert_eq!(codec::decode(frame, Version::V5_0), Ok(packet), "{length}");
            let mut header = Vec::new();
            codec::encode_publish_header(&publish, Version::V5_0, &mut header).unwrap();
            assert_eq!([&header[..], payload].concat(), bytes);
        }
    }
}

#[test]
fn fixed_output_is_filled_to_its_last_byte() {
    let packet = Publish::new("a", b"payload").into();
    let bytes = encode(&packet, Version::V5_0).unwrap();
    for room in 0..=3 * bytes.len() {
        let mut memory = vec![0; room];
        let mut fixed = Fixed::new(&mut memory);
        let mut fitted = 0;
        while codec::encode(&packet, Version::V5_0, &mut fixed).is_ok() {
            fitted += 1;
        }
        assert_eq!(
            codec::encode(&packet, Version::V5_0, &mut fixed),
            Err(EncodeError::NoRoom(bytes.len()))
        );
        assert_eq!(fitted, room / bytes.len());
        assert_eq!(fixed.written(), bytes.repeat(fitted));
        fixed.clear();
        assert!(fixed.written().is_empty());
        assert_eq!(codec::encode(&packet, Version::V5_0, &mut fixed).is_ok(), fitted > 0);
    }
}

/// The limit is checked against the header.
#[test]
fn frame_accepts_a_packet_exactly_as_large_as_the_limit() {
    for payload in [0, 1, 122, 123, 124, 130, 20_000] {
        let payload = vec![0; payload];
        let bytes = encode(&Publish::new("a", &payload).into(), Version::V3_1_1);
        let bytes = bytes.unwrap();
        let size = u32::try_from(bytes.len()).unwrap();
        let error = DecodeError::PacketTooLarge { size, maximum: size - 1 };
        assert!(codec::frame(&bytes, size).unwrap().is_some());
        assert_eq!(codec::frame(&bytes, size - 1), Err(error));
        assert_eq!(codec::header(&bytes, size).unwrap().unwrap().packet_size(), size);
        assert_eq!(codec::header(&bytes[..4], size - 1), Err(error));
    }
}
