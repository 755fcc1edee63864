//! Runs `spec-vectors/sn-v1.2/`.

use mqtt_sansio::codec::{Fixed, PacketIdentifier, QoS};
use mqtt_sansio::sn::v1_2::{
    Advertise, Connect, DecodeError, Encapsulated, EncodeError, GwInfo, Message, MessageType,
    Puback, Publish, PublishQos, Regack, Register, ReturnCode, SearchGw, Suback, Subscribe,
    SubscriptionTopic, TopicId, TopicRef, Unsubscribe, WillTopic, decode, encode,
};
use std::collections::BTreeSet;
use testkit::vectors::{hex, tables};
use toml::{Table, Value};

#[test]
fn vectors_of_sn_1_2_hold() {
    let vectors = tables("sn-v1.2");
    let failures: Vec<_> = vectors
        .iter()
        .filter_map(|(file, vector)| {
            let failure = check(vector).err()?;
            Some(format!("{file} {}: {failure}", vector["name"]))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(vectors.len() >= 175, "only {} vectors", vectors.len());
}

/// [SN §5.2.2]
#[test]
fn each_message_type_has_a_vector() {
    let named: BTreeSet<_> = tables("sn-v1.2")
        .iter()
        .filter_map(|(_, vector)| Some(vector.get("packet")?["type"].as_str()?.to_owned()))
        .collect();
    let types: Vec<_> = (0..=u8::MAX).filter_map(MessageType::from_u8).collect();
    assert_eq!(types.len(), 27);
    assert!(types.iter().all(|message_type| named.contains(message_type.name())), "{named:?}");
    assert_eq!(named.len(), 28, "the types, and the encapsulation");
}

fn check(vector: &Table) -> Result<(), String> {
    let bytes = hex(vector["bytes"].as_str().unwrap());
    let is_encapsulated = bytes.get(1) == Some(&0xFE);
    if let Some(name) = vector.get("error") {
        let error =
            if is_encapsulated { Encapsulated::decode(&bytes).err() } else { decode(&bytes).err() };
        let error = error.map(|error| format!("{error:?}"));
        let found = error.as_deref().and_then(|error| error.split('(').next());
        return if found == name.as_str() { Ok(()) } else { Err(format!("{error:?}")) };
    }
    let fields = Fields(vector["packet"].as_table().unwrap());
    let mut encoded = Vec::new();
    if is_encapsulated {
        let expected = Encapsulated {
            radius: fields.number("radius") as u8,
            node_id: fields.bytes("node_id"),
            message: fields.bytes("message"),
        };
        let decoded = Encapsulated::decode(&bytes).map_err(|error| error.to_string())?;
        expected.encode(&mut encoded).map_err(|error| error.to_string())?;
        return compare(&(decoded, &encoded), &(expected, &bytes));
    }
    let expected = fields.message();
    let decoded = decode(&bytes).map_err(|error| error.to_string())?;
    encode(&expected, &mut encoded).map_err(|error| error.to_string())?;
    compare(&decoded, &expected)?;
    if vector.get("canonical").is_none_or(|canonical| canonical == &Value::Boolean(true)) {
        compare(&encoded, &bytes)?;
    }
    Ok(())
}

fn compare<T: PartialEq + core::fmt::Debug>(found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{found:?}, expected {expected:?}")) }
}

struct Fields<'v>(&'v Table);

impl Fields<'_> {
    fn message(&self) -> Message<'static> {
        match self.0["type"].as_str().unwrap() {
            "ADVERTISE" => Message::Advertise(Advertise {
                gateway_id: self.number("gateway_id") as u8,
                duration: self.number("duration") as u16,
            }),
            "SEARCHGW" => Message::SearchGw(SearchGw { radius: self.number("radius") as u8 }),
            "GWINFO" => Message::GwInfo(GwInfo {
                gateway_id: self.number("gateway_id") as u8,
                address: self.bytes("address"),
            }),
            "CONNECT" => Message::Connect(Connect {
                will: self.flag("will"),
                clean_session: self.flag("clean_session"),
                duration: self.number("duration") as u16,
                client_id: self.text("client_id").into(),
            }),
            "CONNACK" => Message::Connack(self.code()),
            "WILLTOPICREQ" => Message::WillTopicReq,
            "WILLTOPIC" => Message::WillTopic(self.will()),
            "WILLMSGREQ" => Message::WillMsgReq,
            "WILLMSG" => Message::WillMsg(self.bytes("will_msg")),
            "REGISTER" => Message::Register(Register {
                topic_id: self.id("topic_id"),
                message_id: self.number("message_id") as u16,
                topic_name: self.text("topic_name").into(),
            }),
            "REGACK" => Message::Regack(Regack {
                topic_id: self.id("topic_id"),
                message_id: self.number("message_id") as u16,
                return_code: self.code(),
            }),
            "PUBLISH" => Message::Publish(Publish {
                dup: self.flag("dup"),
                qos: match self.number("qos") {
                    -1 => PublishQos::MinusOne,
                    _ => self.qos().into(),
                },
                retain: self.flag("retain"),
                topic: match self.subscription_topic() {
                    SubscriptionTopic::Predefined(id) => TopicRef::Predefined(id),
                    SubscriptionTopic::Short(octets) => TopicRef::Short(octets),
                    SubscriptionTopic::Filter(_) => TopicRef::Normal(self.id("topic_id").unwrap()),
                },
                message_id: PacketIdentifier::new(self.number("message_id") as u16),
                data: self.bytes("data"),
            }),
            "PUBACK" => Message::Puback(Puback {
                topic_id: self.id("topic_id"),
                message_id: self.number("message_id") as u16,
                return_code: self.code(),
            }),
            "PUBREC" => Message::Pubrec(self.identifier()),
            "PUBREL" => Message::Pubrel(self.identifier()),
            "PUBCOMP" => Message::Pubcomp(self.identifier()),
            "SUBSCRIBE" => Message::Subscribe(Subscribe {
                dup: self.flag("dup"),
                qos: self.qos(),
                message_id: self.number("message_id") as u16,
                topic: self.subscription_topic(),
            }),
            "SUBACK" => Message::Suback(Suback {
                qos: self.qos(),
                topic_id: self.id("topic_id"),
                message_id: self.number("message_id") as u16,
                return_code: self.code(),
            }),
            "UNSUBSCRIBE" => Message::Unsubscribe(Unsubscribe {
                message_id: self.number("message_id") as u16,
                topic: self.subscription_topic(),
            }),
            "UNSUBACK" => Message::Unsuback(self.number("message_id") as u16),
            "PINGREQ" => Message::Pingreq(
                self.0.contains_key("client_id").then(|| self.text("client_id").into()),
            ),
            "PINGRESP" => Message::Pingresp,
            "DISCONNECT" => Message::Disconnect(
                self.0.contains_key("duration").then(|| self.number("duration") as u16),
            ),
            "WILLTOPICUPD" => Message::WillTopicUpd(self.will()),
            "WILLTOPICRESP" => Message::WillTopicResp(self.code()),
            "WILLMSGUPD" => Message::WillMsgUpd(self.bytes("will_msg")),
            "WILLMSGRESP" => Message::WillMsgResp(self.code()),
            other => panic!("{other}"),
        }
    }

    fn will(&self) -> Option<WillTopic<'static>> {
        self.0.contains_key("topic").then(|| WillTopic {
            qos: self.qos(),
            retain: self.flag("retain"),
            topic: self.text("topic").into(),
        })
    }

    fn subscription_topic(&self) -> SubscriptionTopic<'static> {
        match (self.id("predefined_topic_id"), self.0.get("short_topic")) {
            (Some(id), _) => SubscriptionTopic::Predefined(id),
            (None, Some(name)) => {
                SubscriptionTopic::Short(name.as_str().unwrap().as_bytes().try_into().unwrap())
            }
            (None, None) => SubscriptionTopic::Filter(self.text("filter").into()),
        }
    }

    fn identifier(&self) -> PacketIdentifier {
        PacketIdentifier::new(self.number("message_id") as u16).unwrap()
    }

    fn id(&self, name: &str) -> Option<TopicId> {
        TopicId::new(self.number(name) as u16)
    }

    fn code(&self) -> ReturnCode {
        ReturnCode::from_u8(self.number("return_code") as u8).unwrap()
    }

    fn qos(&self) -> QoS {
        QoS::from_u8(self.number("qos") as u8).unwrap()
    }

    fn number(&self, name: &str) -> i64 {
        self.0.get(name).map_or(0, |value| value.as_integer().unwrap())
    }

    fn flag(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.as_bool().unwrap())
    }

    fn text(&self, name: &str) -> &'static str {
        core::str::from_utf8(self.bytes(name)).unwrap()
    }

    fn bytes(&self, name: &str) -> &'static [u8] {
        let bytes = match self.0.get(name) {
            None => Vec::new(),
            Some(Value::String(text)) => text.clone().into_bytes(),
            Some(value) => match value.get("hex") {
                Some(digits) => hex(digits.as_str().unwrap()),
                None => {
                    let times = value["times"].as_integer().unwrap() as usize;
                    value["repeat"].as_str().unwrap().repeat(times).into_bytes()
                }
            },
        };
        bytes.leak()
    }
}

/// [SN §5.2.1]
#[test]
fn message_longer_than_its_length_field_is_not_encoded() {
    let data = vec![b'a'; 65_532];
    let mut out = Vec::new();
    assert_eq!(encode(&Message::WillMsg(&data), &mut out), Err(EncodeError::TooLong(65_536)));
    let node_id = &[0; 253];
    let encapsulated = Encapsulated { radius: 0, node_id, message: b"" };
    assert_eq!(encapsulated.encode(&mut out), Err(EncodeError::TooLong(256)));
    assert_eq!(out, b"");
    let mut room = [0; 2];
    let out = &mut Fixed::new(&mut room);
    assert_eq!(encode(&Message::WillMsg(b"a"), out), Err(EncodeError::NoRoom(3)));
    assert_eq!(encode(&Message::Pingresp, out), Ok(()));
}

/// [SN §5.5]
#[test]
fn plain_message_and_encapsulated_message_are_told_apart() {
    assert_eq!(decode(b"\x03\xFE\0\x02\x17"), Err(DecodeError::Encapsulated));
    assert_eq!(Encapsulated::decode(b"\x02\x17"), Err(DecodeError::NotEncapsulated));
}
