//! The feature `serde`: packets as maps, and values that are stored and read back.

use mqtt_sansio::codec::{
    self, Auth, AuthProperties, Connect, Options, OwnedPacket, Packet, PacketIdentifier, Publish,
    QoS, ReasonCode, Role, Rules, SubscriptionIdentifier, Topic, Version,
};
use mqtt_sansio::session::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::{files, vectors};

/// The vectors were written without the code, so they are an independent account of the names.
#[test]
fn decoded_packet_serializes_like_its_vector() {
    let json: Value = serde_json::from_str(&files::read("spec-vectors/vectors.json")).unwrap();
    let mut count = 0;
    for vector in json["vectors"].as_array().unwrap() {
        let (Some(hex), Some(expected)) = (vector["bytes"].as_str(), vector.get("packet")) else {
            continue;
        };
        // MQTT-SN has no `Packet`.
        let Ok(version) = vector["version"].as_str().unwrap().parse() else { continue };
        let rules = Rules::new(version);
        let rules = match vector["from"].as_str() {
            Some("client") => rules.sent_by(Role::Client),
            Some("server") => rules.sent_by(Role::Server),
            _ => rules,
        };
        let bytes = vectors::hex(hex);
        let frame = codec::frame(&bytes, u32::MAX).unwrap().unwrap();
        let packet = serde_json::to_value(codec::decode(frame, rules).unwrap()).unwrap();
        compare(expected, &packet, version, &vector.to_string());
        count += 1;
    }
    assert!(count > 1_000, "{count}");
}

/// Checks each field of the vector, and that there is no property that it lacks.
fn compare(expected: &Value, packet: &Value, version: Version, vector: &str) {
    for (name, expected) in expected.as_object().unwrap() {
        let found = &packet[name];
        match (name.as_str(), found) {
            ("will", _) => compare(expected, found, version, vector),
            ("subscriptions", _) => {
                for (expected, found) in
                    expected.as_array().unwrap().iter().zip(found.as_array().unwrap())
                {
                    compare(expected, found, version, vector);
                }
            }
            ("properties", _) => {
                let keys = |value: &Value| value.as_object().map(serde_json::Map::len);
                assert!(keys(expected) == Some(0) || keys(expected) == keys(found), "{vector}");
                compare(expected, found, version, vector);
            }
            ("password" | "authentication_data", _) => assert_eq!(found, "***", "{vector}"),
            // The codec translates return codes.
            ("reason_code", _) if version < Version::V5_0 => {}
            _ => assert_eq!(plain(expected), plain(found), "{name}: {vector}"),
        }
    }
}

/// Returns strings and bytes in one form, as the README of the vectors describes them.
fn plain(value: &Value) -> Value {
    if let Some(hex) = value["hex"].as_str() {
        return json!(vectors::hex(hex));
    }
    match (&value["repeat"], value["times"].as_u64()) {
        (Value::String(text), Some(times)) => json!(text.repeat(times as usize).as_bytes()),
        (number, Some(times)) => json!(vec![number; times as usize]),
        _ => match value {
            Value::String(text) => json!(text.as_bytes()),
            Value::Array(values) => values.iter().map(plain).collect(),
            _ => value.clone(),
        },
    }
}

#[test]
fn serialized_packet_hides_passwords_and_authentication_data() {
    let secret = b"SECRET";
    let connect = Connect {
        user_name: Some("joe".into()),
        password: Some(secret),
        ..Connect::new(Version::V5_0, "c")
    };
    let properties = AuthProperties {
        authentication_method: Some("m".into()),
        authentication_data: Some(secret),
        ..AuthProperties::default()
    };
    let reason_code = ReasonCode::CONTINUE_AUTHENTICATION;
    let auth = Auth { reason_code, properties };
    for packet in [Packet::from(connect), auth.into()] {
        let text = serde_json::to_string(&packet).unwrap();
        assert!(text.contains("***") && !text.contains("SECRET"), "{text}");
    }
}

#[test]
fn payload_serializes_as_text_or_as_hex_digits() {
    for (payload, expected) in
        [(&b"\xC2\xB0C"[..], json!("°C")), (b"", json!("")), (b"a\0", json!({ "hex": "6100" }))]
    {
        let packet = serde_json::to_value(Packet::from(Publish::new("t", payload))).unwrap();
        assert_eq!(packet["payload"], expected);
    }
}

#[test]
fn stored_value_is_read_back_and_another_refused() {
    fn check<T>(value: T, expected: &Value, wrong: &Value)
    where
        T: Serialize + DeserializeOwned + PartialEq + core::fmt::Debug,
    {
        let stored = serde_json::to_value(&value).unwrap();
        assert_eq!(&stored, expected);
        assert_eq!(serde_json::from_value::<T>(stored).unwrap(), value);
        assert!(serde_json::from_value::<T>(wrong.clone()).is_err(), "{wrong}");
    }
    check(QoS::ExactlyOnce, &json!(2), &json!(3));
    check(ReasonCode::NOT_AUTHORIZED, &json!(0x87), &json!(256));
    check(PacketIdentifier::new(7).unwrap(), &json!(7), &json!(0));
    check(SubscriptionIdentifier::MAX, &json!(268_435_455), &json!(268_435_456));
    check(Version::V3_1_1, &json!("3.1.1"), &json!("4.0"));
    check(Role::Server, &json!("server"), &json!("broker"));
    check(Topic::new("a/b").unwrap(), &json!("a/b"), &json!("a/+"));
    let options = Options::DUP_WITH_QOS_0 | Options::SUBACK_FAILURE;
    check(options, &json!(["DUP_WITH_QOS_0", "SUBACK_FAILURE"]), &json!(["ALL"]));
    let message = Message::new(&Publish::new("t", b"!")).unwrap();
    check(message.clone(), &json!(message.to_bytes()), &json!([9]));
}

#[test]
fn stored_packet_keeps_its_rules_and_secrets() {
    let connect = Connect { password: Some(b"SECRET"), ..Connect::new(Version::V5_0, "c") };
    let rules = Rules::new(Version::V5_0).sent_by(Role::Client);
    let rules = rules.with(Options::REFUSE_CONTROL_CHARACTERS).forwarding();
    let packet = OwnedPacket::new(&connect.into(), rules).unwrap();
    let stored = serde_json::to_value(&packet).unwrap();
    let read: OwnedPacket = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!((&read, read.rules()), (&packet, rules));
    let broken = |change: fn(&mut Value)| {
        let mut stored = stored.clone();
        change(&mut stored);
        serde_json::from_value::<OwnedPacket>(stored).is_err()
    };
    assert!(broken(|stored| stored["sender"] = json!("server")), "a server sends no CONNECT");
    assert!(broken(|stored| stored["bytes"].as_array_mut().unwrap().push(json!(0))));
    assert!(broken(|stored| drop(stored["bytes"].as_array_mut().unwrap().pop())));
}
