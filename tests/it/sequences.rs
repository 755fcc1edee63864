//! Repeated properties are found at every position, among properties of every type.

use mqtt_sansio::codec::{
    self, Connect, Options, OwnedPacket, Packet, PacketIdentifier, Publish, QoS, Rules, Sequence,
    UserProperty, Version,
};

const USER: &[u8] = b"\x26\0\x01n\0\x01v";

/// Returns a packet with a user property before, between and after the others.
fn interleaved(start: &[u8], others: &[&[u8]], end: &[u8]) -> Vec<u8> {
    let mut properties = USER.to_vec();
    for other in others {
        properties.extend_from_slice(other);
        properties.extend_from_slice(USER);
    }
    let (first, body) = start.split_first().unwrap();
    let mut rest = body.to_vec();
    length(&mut rest, properties.len());
    rest.extend(properties);
    rest.extend_from_slice(end);
    let mut packet = vec![*first];
    length(&mut packet, rest.len());
    packet.extend(rest);
    packet
}

fn length(out: &mut Vec<u8>, length: usize) {
    if length >= 0x80 {
        out.push((length & 0x7F) as u8 | 0x80);
    }
    out.push((if length >= 0x80 { length >> 7 } else { length }) as u8);
}

fn decode(bytes: &[u8]) -> Packet<'_> {
    // These options refuse nothing here: the strings have no control characters.
    let rules = Rules::new(Version::V5_0)
        .with(Options::REFUSE_CONTROL_CHARACTERS | Options::CHECK_PAYLOAD_FORMAT);
    codec::decode(codec::frame(bytes, u32::MAX).unwrap().unwrap(), rules).unwrap()
}

#[test]
fn user_properties_are_found_among_all_properties() {
    let connack: [&[u8]; 16] = [
        b"\x11\0\0\0\x09",
        b"\x12\0\x02id",
        b"\x13\0\x09",
        b"\x15\0\x01m",
        b"\x16\0\x02\x26\0",
        b"\x1A\0\x01r",
        b"\x1C\0\x01s",
        b"\x1F\0\x01t",
        b"\x21\0\x09",
        b"\x22\0\x09",
        b"\x24\x01",
        b"\x25\x01",
        b"\x27\0\0\0\x09",
        b"\x28\x00",
        b"\x29\x01",
        b"\x2A\x01",
    ];
    let connect: [&[u8]; 8] = [
        b"\x11\0\0\0\x09",
        b"\x15\0\x01m",
        b"\x16\0\x01d",
        b"\x17\x01",
        b"\x19\x01",
        b"\x21\0\x09",
        b"\x22\0\x09",
        b"\x27\0\0\0\x09",
    ];
    let bytes = interleaved(b"\x20\0\0", &connack, b"");
    let Packet::Connack(connack) = decode(&bytes) else { panic!() };
    assert_eq!(
        connack.properties.user_properties.iter().collect::<Vec<_>>(),
        [UserProperty::new("n", "v"); 17]
    );
    let bytes = interleaved(b"\x10\0\x04MQTT\x05\x02\0\0", &connect, b"\0\x01c");
    let Packet::Connect(connect) = decode(&bytes) else { panic!() };
    assert_eq!(connect.properties.user_properties.iter().count(), 9);
}

#[test]
fn subscription_identifiers_and_user_properties_can_interleave() {
    let publish: [&[u8]; 9] = [
        b"\x0B\x07",
        b"\x01\x01",
        b"\x0B\x80\x01",
        b"\x02\0\0\0\x09",
        b"\x03\0\x01t",
        b"\x08\0\x01r",
        b"\x0B\xFF\xFF\xFF\x7F",
        b"\x09\0\x02\x0B\x01",
        b"\x23\0\x09",
    ];
    let bytes = interleaved(b"\x30\0\x01a", &publish, b"payload");
    let Packet::Publish(publish) = decode(&bytes) else { panic!() };
    let identifiers: Vec<u32> = publish
        .properties
        .subscription_identifiers
        .iter()
        .map(|identifier| identifier.get())
        .collect();
    assert_eq!(identifiers, [7, 128, 268_435_455]);
    assert_eq!(publish.properties.user_properties.iter().count(), 10);
    assert_eq!(publish.payload, b"payload");
    // The packet keeps all properties when it is written again, in the order of the table.
    let again = OwnedPacket::new(&publish.into(), Version::V5_0).unwrap();
    assert_eq!(again.decode(), Packet::Publish(publish));
    assert_eq!(again.as_bytes().len(), bytes.len());
}

#[test]
fn packet_for_an_older_version_keeps_all_except_properties() {
    let bytes = interleaved(b"\x3B\0\x01a\0\x07", &[b"\x02\0\0\0\x09"], b"payload");
    let Packet::Publish(publish) = decode(&bytes) else { panic!() };
    assert_eq!(publish.for_version(Version::V5_0), publish);
    for version in [Version::V3_1, Version::V3_1_1] {
        let older = publish.for_version(version);
        let expected = Publish {
            dup: true,
            qos: QoS::AtLeastOnce,
            retain: true,
            packet_identifier: PacketIdentifier::new(7),
            ..Publish::new("a", b"payload")
        };
        assert_eq!(older, expected);
    }
}

/// Passwords and authentication data must not reach logs.
#[test]
fn debug_forms_hide_secrets() {
    let mut connect = Connect {
        user_name: Some("user".into()),
        password: Some(b"secret"),
        ..Connect::new(Version::V5_0, "c")
    };
    connect.properties.authentication_method = Some("m".into());
    connect.properties.authentication_data = Some(b"secret");
    let mut auth = codec::Auth::default();
    auth.properties.authentication_data = Some(b"secret");
    let secret = format!("{:?}", &b"secret"[..]);
    for text in [format!("{connect:?}"), format!("{auth:?}")] {
        assert!(!text.contains("secret") && !text.contains(&secret), "{text}");
        assert!(text.contains("authentication_data: ***"), "{text}");
    }
    assert!(format!("{connect:?}").contains("\"user\""));
}

/// [3.1.1 MQTT-3.1.2-6] [5.0 §3.1.2.11.2]
#[test]
fn clean_session_determines_session_expiry_before_5_0() {
    for (version, clean_start, asked, expected) in [
        (Version::V3_1_1, true, None, 0),
        (Version::V3_1_1, false, None, u32::MAX),
        (Version::V3_1, true, None, 0),
        (Version::V3_1, false, None, u32::MAX),
        (Version::V5_0, true, None, 0),
        (Version::V5_0, false, None, 0),
        (Version::V5_0, true, Some(7), 7),
        (Version::V5_0, false, Some(7), 7),
    ] {
        let mut connect = Connect { clean_start, ..Connect::new(version, "c") };
        connect.properties.session_expiry_interval = asked;
        assert_eq!(connect.session_expiry().to_seconds(), expected, "{version} {clean_start}");
    }
}

#[test]
fn sequence_equals_its_copy() {
    let properties = [UserProperty::new("n", "v"), UserProperty::new("n", "w")];
    let sequence = Sequence::from(&properties);
    #[allow(clippy::clone_on_copy, reason = "generic code clones it")]
    let clone = sequence.clone();
    assert_eq!(clone, sequence);
    assert_eq!(clone.iter().count(), 2);
    assert_ne!(clone, Sequence::default());
}
