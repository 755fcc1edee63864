//! The small values of the codec, as callers compare, convert and share them.

#![allow(elided_lifetimes_in_paths, reason = "types are listed by their names alone")]

use arbitrary::Unstructured;
use core::error::Error;
use core::hash::{Hash, Hasher as _};
use mqtt_sansio::codec::{
    self, ConversionError, DecodeError, EncodeError, Filter, Fixed, Malformed, Options,
    OwnedPacket, Packet, PacketIdentifier, PacketType, Publish, QoS, ReasonCode, Role, Rules,
    Sequence, Subscription, SubscriptionOptions, Text, Topic, TopicFilter, TopicName, Unsubscribe,
    UserProperty, Vectored, Version, Will, WillProperties,
};
use mqtt_sansio::session::{CloseCause, Message, ProtocolError};
use mqtt_sansio::{broker, client, router, server, session};
use std::collections::HashSet;
use std::hash::DefaultHasher;

#[test]
fn all_public_types_are_send_and_sync() {
    const fn check<T: Send + Sync>() {}
    macro_rules! all {
        ($($module:ident: $($type:ident $(<$($generic:ty),*>)?)*;)*) => {
            $($(check::<$module::$type $(<$($generic),*>)?>();)*)*
        };
    }
    all! {
        codec: Ack Auth Connack Connect Disconnect Packet Publish Suback Subscribe Subscription
            SubscriptionOptions RetainHandling Unsubscribe Will OwnedPacket Frame Header Fixed
            Vectored AckProperties AuthProperties ConnackProperties ConnectProperties
            DisconnectProperties
            PublishProperties SubscribeProperties UnsubscribeProperties WillProperties UserProperty
            Sequence<Text<'static>> SequenceIter<Text<'static>> Text TopicFilter Topic TopicName
            Filter Expiry Options Rules Role QoS Version PacketIdentifier PacketType
            SubscriptionIdentifier ReasonCode
            ConversionError DecodeError EncodeError;
        client: Action Client ClientConfig ConnectError;
        server: Action AnswerError Server ServerConfig;
        broker: Action Broker BrokerConfig ConnectionId;
        session: AckToken CloseCause Key Message Outcome Outgoing ProtocolError Published
            PublishError QueueLimit Received RequestError Session SubscriptionIdentifiers;
        router: RetainedStore SubscriptionIndex<u32, u32>;
    }
    check::<mqtt_sansio::Instant>();
}

#[test]
fn text_compares_with_strings_in_both_directions() {
    let (text, string) = (Text::from("a/b"), String::from("a/b"));
    assert_eq!(text, "a/b");
    assert_eq!("a/b", text);
    assert_eq!(text, string);
    assert_eq!(string, text);
    assert_eq!(text, *"a/b");
    assert_eq!(*"a/b", text);
    assert_ne!("a/c", text);
    assert_ne!(text, *"a/c");
    assert_ne!(*"a/c", text);
    assert_ne!(String::new(), text);
    assert_eq!(text.len(), 3);
    assert!(text.starts_with("a/"));
    assert!(!text.starts_with("b"));
    assert!(text < Text::from("a/c"));
    assert_eq!(<&str>::from(text), "a/b");
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn hashes_depend_on_the_value() {
    assert_ne!(hash(Text::from("a")), hash(Text::from("b")));
    let [one, other] = [[Text::from("a")], [Text::from("b")]];
    assert_ne!(hash(Sequence::from(&one)), hash(Sequence::from(&other)));
    let packet = |topic: &str| OwnedPacket::new(&Publish::new(topic, b"").into(), Version::V5_0);
    assert_ne!(hash(packet("a").unwrap()), hash(packet("b").unwrap()));
}

#[test]
fn owned_packet_is_its_bytes_and_rules() {
    let packet =
        |topic: &str, version| OwnedPacket::new(&Publish::new(topic, b"").into(), version).unwrap();
    let one = packet("a", Version::V3_1_1);
    assert_eq!(one, packet("a", Version::V3_1_1));
    assert_ne!(one, packet("b", Version::V3_1_1));
    assert_ne!(one, packet("a", Version::V3_1));
    assert_eq!(one.as_ref(), b"\x30\x03\0\x01a");
    assert_eq!(bytes::Bytes::from(one), b"\x30\x03\0\x01a"[..]);
}

#[test]
fn topic_name_compares_and_converts_as_its_text() {
    let name = TopicName::try_from("a/b").unwrap();
    assert_eq!(name.to_str(), "a/b");
    assert_eq!(name, TopicName::try_from("a/b").unwrap());
    assert_ne!(name, TopicName::try_from("a/c").unwrap());
    assert_ne!(name, "a/c");
    assert_eq!(Text::from(&name), "a/b");
    assert_eq!(Text::from(&"a/b".parse::<Topic>().unwrap()), "a/b");
    let filter = TopicFilter::try_from("$share/g/+").unwrap();
    assert_eq!(Text::from(filter), "$share/g/+");
    assert_eq!(Text::from(&filter.to_filter()), "$share/g/+");
}

#[test]
fn debug_forms_show_the_fields() {
    let publish = Publish { retain: true, ..Publish::new("a/b", b"x") };
    let bytes = OwnedPacket::new(&publish.into(), Version::V3_1_1).unwrap();
    let frame = codec::frame(bytes.as_bytes(), u32::MAX).unwrap().unwrap();
    let malformed = Malformed::arbitrary(Version::V5_0, &mut Unstructured::new(&[7; 100])).unwrap();
    for (debug, shown) in [
        (format!("{frame:?}"), "packet_size: 8"),
        (format!("{bytes:?}"), "retain: true"),
        (format!("{:?}", Message::new(&publish).unwrap()), "retain: true"),
        (format!("{:?}", Fixed::new(&mut [0; 3])), "Fixed"),
        (format!("{:?}", Vectored::new()), "Vectored"),
        (format!("{malformed:?}"), "Malformed"),
        (format!("{:?}", PacketIdentifier::new(7).unwrap()), "7"),
    ] {
        assert!(debug.contains(shown), "{debug}");
    }
}

#[test]
fn numbers_and_names_are_printed_as_their_values() {
    assert_eq!(format!("{:#x} {:#X}", ReasonCode::new(0x8D), ReasonCode::new(0x8D)), "0x8d 0x8D");
    assert_eq!(format!("{:b}", Options::NONE), "0");
    let two = Options::DUP_WITH_QOS_0 | Options::SUBACK_FAILURE;
    let names: Vec<_> = two.iter().map(|option| option.to_string()).collect();
    assert_eq!(two.to_string(), names.join(" | "));
    assert_ne!(Role::Client.to_string(), Role::Server.to_string());
    let options = SubscriptionOptions { no_local: true, ..SubscriptionOptions::default() };
    assert_eq!(u8::from(options), 4);
}

#[test]
fn message_has_the_fields_of_its_publish() {
    let mut publish = Publish { qos: QoS::AtLeastOnce, retain: true, ..Publish::new("a/b", b"xy") };
    publish.properties.content_type = Some("c".into());
    let message = Message::new(&publish).unwrap();
    assert_eq!(message.to_publish(), publish);
    assert_eq!(message.size(), 9);
    let other = message.with(QoS::ExactlyOnce, false);
    assert_eq!((other.qos(), other.retain()), (QoS::ExactlyOnce, false));
}

#[test]
fn constructors_accept_strings_of_any_kind() {
    let string = String::from("a/b");
    let expected = Publish::new("a/b", b"");
    assert_eq!(Publish::new(&string, b""), expected);
    assert_eq!(Publish::new(Text::from(&string), b""), expected);
    assert_eq!(Publish::new(string.as_str(), b""), expected);
    let identifier = PacketIdentifier::new(1).unwrap();
    let filters = vec![Text::from(&string)];
    assert_eq!(
        Unsubscribe::new(identifier, &filters),
        Unsubscribe::new(identifier, &[Text::from("a/b")])
    );
    assert_eq!(Subscription::new(&string, QoS::AtMostOnce).topic_filter, string);
}

/// Returns the user properties of a decoded PUBLISH.
fn decoded(packet: &OwnedPacket) -> Sequence<'_, UserProperty<'_>> {
    let Packet::Publish(publish) = packet.decode() else { panic!("{packet:?}") };
    publish.properties.user_properties
}

#[test]
fn sequence_is_the_same_from_values_and_from_the_wire() {
    let pairs = vec![UserProperty::new("a", "1"), UserProperty::new("b", "2")];
    for length in 0..=pairs.len() {
        let values = Sequence::from(pairs.get(..length).unwrap());
        let mut publish = Publish::new("t", b"");
        publish.properties.content_type = Some("text".into());
        publish.properties.user_properties = values;
        let packet = OwnedPacket::new(&publish.into(), Version::V5_0).unwrap();
        let wire = decoded(&packet);
        assert_eq!(wire, values);
        assert_eq!(
            (wire.len(), wire.first()),
            (length, pairs.first().copied().filter(|_| length > 0))
        );
        assert_eq!((values.len(), values.first()), (wire.len(), wire.first()));
        assert_eq!(wire.is_empty(), length == 0);
        let (least, most) = wire.iter().size_hint();
        assert!(least <= length && most.unwrap() >= length);
        assert_eq!(HashSet::from([format!("{wire:?}")]), HashSet::from([format!("{values:?}")]));
    }
    assert_eq!(Sequence::from(&pairs).len(), 2);
}

#[test]
fn topics_and_filters_are_parsed_and_printed() {
    assert_eq!("a/b".parse::<Topic>().unwrap().to_string(), "a/b");
    assert_eq!(TopicName::try_from("a/b").unwrap(), "a/b");
    for name in ["", "a/#"] {
        assert!(name.parse::<Topic>().is_err() && TopicName::try_from(name).is_err(), "{name}");
    }
    let shared = "$share/g/a/+";
    let filter = TopicFilter::try_from(shared).unwrap();
    assert_eq!(filter.to_string(), shared);
    assert_eq!(filter.share_name(), Some("g".into()));
    assert_eq!(shared.parse::<Filter>().unwrap(), filter.to_filter());
    assert_eq!(filter.to_filter().to_string(), shared);
    for filter in ["", "a#", "$share/g"] {
        let refused = TopicFilter::try_from(filter).unwrap_err();
        assert_eq!(filter.parse::<Filter>().unwrap_err(), refused);
    }
}

#[test]
fn rules_tell_what_they_were_made_of() {
    let rules = Rules::new(Version::V3_1).sent_by(Role::Server).with(Options::SUBACK_FAILURE);
    assert_eq!(rules.version(), Version::V3_1);
    assert_eq!(rules.sender(), Some(Role::Server));
    assert_eq!(rules.options(), Options::SUBACK_FAILURE);
    assert_eq!(HashSet::from([rules, rules]).len(), 1);
    for version in [Version::V3_1, Version::V3_1_1, Version::V5_0] {
        assert_eq!(Version::from_level(version.level()), Some(version));
    }
    assert_eq!(Version::from_level(6), None);
}

/// The decoder and the table of packet types agree.
#[test]
fn packet_type_names_its_senders() {
    let types = [
        PacketType::Connect,
        PacketType::Connack,
        PacketType::Publish,
        PacketType::Puback,
        PacketType::Pubrec,
        PacketType::Pubrel,
        PacketType::Pubcomp,
        PacketType::Subscribe,
        PacketType::Suback,
        PacketType::Unsubscribe,
        PacketType::Unsuback,
        PacketType::Pingreq,
        PacketType::Pingresp,
        PacketType::Disconnect,
        PacketType::Auth,
    ];
    for version in [Version::V3_1, Version::V3_1_1, Version::V5_0] {
        for sender in [Role::Client, Role::Server] {
            for packet_type in types {
                let flags = match packet_type {
                    PacketType::Pubrel | PacketType::Subscribe | PacketType::Unsubscribe => 2,
                    _ => 0,
                };
                let bytes = [(packet_type as u8) << 4 | flags, 0];
                let frame = codec::frame(&bytes, u32::MAX).unwrap().unwrap();
                let error = codec::decode(frame, Rules::new(version).sent_by(sender)).err();
                let refused = [DecodeError::WrongSender, DecodeError::ReservedPacketType];
                assert_eq!(
                    packet_type.may_be_sent_by(sender, version),
                    !error.is_some_and(|error| refused.contains(&error)),
                    "{packet_type} {sender} {version}: {error:?}"
                );
            }
        }
    }
}

#[test]
fn return_codes_convert_both_ways() {
    for code in 0..=u8::MAX {
        let reason = ReasonCode::from_return_code(code);
        assert_eq!(reason.is_some(), code < 6);
        assert_eq!(reason.and_then(ReasonCode::return_code), reason.map(|_| code));
    }
    assert_eq!(ReasonCode::BANNED.return_code(), None);
}

#[test]
fn options_are_listed_by_name() {
    assert_eq!(Options::NONE.to_string(), "NONE");
    let mut names = HashSet::new();
    for option in Options::ALL {
        assert!(names.insert(option.to_string()));
        assert!(Options::ALL.iter().copied().collect::<Options>().contains(*option));
        assert_eq!(option.iter().collect::<Vec<_>>(), [*option]);
        assert!(format!("{option:?}").contains(&option.to_string()));
    }
    let tightening = Options::REFUSE_CONTROL_CHARACTERS | Options::CHECK_PAYLOAD_FORMAT;
    for option in Options::ALL {
        let relaxes = Options::DEPLOYED_DEVICES.contains(*option);
        assert_ne!(relaxes, tightening.contains(*option), "{option}");
    }
}

#[test]
fn will_becomes_a_message_with_its_properties() {
    let user_properties = [UserProperty::new("a", "b")];
    let will = Will {
        retain: true,
        qos: QoS::ExactlyOnce,
        properties: WillProperties {
            payload_format_indicator: Some(true),
            message_expiry_interval: Some(1),
            content_type: Some("c".into()),
            response_topic: Some("r".into()),
            correlation_data: Some(b"d"),
            will_delay_interval: Some(5),
            user_properties: (&user_properties).into(),
        },
        ..Will::new("w", b"x")
    };
    let publish = will.to_publish();
    assert_eq!((publish.topic_name, publish.payload), (will.topic, will.payload));
    assert_eq!((publish.qos, publish.retain, publish.dup), (will.qos, true, false));
    let properties = publish.properties;
    assert_eq!(properties.payload_format_indicator, Some(true));
    assert_eq!(properties.message_expiry_interval, Some(1));
    assert_eq!(properties.content_type, Some("c".into()));
    assert_eq!(properties.response_topic, Some("r".into()));
    assert_eq!(properties.correlation_data, Some(&b"d"[..]));
    assert_eq!(properties.user_properties.len(), 1);
    assert_eq!((properties.topic_alias, publish.packet_identifier), (None, None));
}

#[test]
fn errors_name_their_source() {
    let error = OwnedPacket::new(&Publish::new("#", b"").into(), Version::V5_0).unwrap_err();
    assert_eq!(error, EncodeError::Forbidden(DecodeError::WildcardInTopicName));
    let source = error.source().unwrap().downcast_ref();
    assert_eq!(source, Some(&DecodeError::WildcardInTopicName));
    assert_eq!(error.to_string(), "packet breaks a rule of the standard");
    let error: ConversionError = QoS::try_from(3).unwrap_err();
    assert!(error.source().is_none());
}

#[test]
fn close_cause_leaves_the_broken_rule_to_its_source() {
    let cause = CloseCause::Violation(ProtocolError::NotConnect);
    assert_eq!(cause.to_string(), "peer broke a rule");
    let source = cause.source().unwrap().to_string();
    assert_eq!(source, "expected a CONNECT as the first packet");
    assert!(CloseCause::ConnectionLost.source().is_none());
}
