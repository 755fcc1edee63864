//! Runs `spec-vectors/`: each valid packet decodes to its values and encodes to its bytes, and each
//! invalid one is refused for the reason that the vector names. The format is described in
//! `spec-vectors/README.md`.

use mqtt_sansio::codec::{
    self, Ack, AckProperties, Auth, AuthProperties, Connack, ConnackProperties, Connect,
    ConnectProperties, Disconnect, DisconnectProperties, Options, OwnedPacket, Packet,
    PacketIdentifier, Publish, PublishProperties, QoS, ReasonCode, RetainHandling, Role, Rules,
    Sequence, Suback, Subscribe, SubscribeProperties, Subscription, SubscriptionIdentifier,
    SubscriptionOptions, Text, Unsubscribe, UnsubscribeProperties, UserProperty, Version, Will,
    WillProperties,
};
use testkit::vectors::{hex, sender, tables};
use toml::{Table, Value};

#[test]
fn vectors_of_3_1_hold() {
    run(Version::V3_1, "v3.1", 370);
}

#[test]
fn vectors_of_3_1_1_hold() {
    run(Version::V3_1_1, "v3.1.1", 570);
}

#[test]
fn vectors_of_5_0_hold() {
    run(Version::V5_0, "v5.0", 2_890);
}

fn run(version: Version, folder: &str, at_least: usize) {
    let vectors = tables(folder);
    let failures: Vec<_> = vectors
        .iter()
        .filter_map(|(file, vector)| {
            let failure = check(version, vector).err()?;
            Some(format!("{file} {}: {failure}", vector["name"]))
        })
        .collect();
    let count = vectors.len();
    assert!(
        failures.is_empty(),
        "{} of {count} vectors fail:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(count >= at_least, "only {count} vectors");
}

fn check(version: Version, vector: &Table) -> Result<(), String> {
    let bytes = hex(vector["bytes"].as_str().unwrap());
    let senders =
        sender(vector).map_or_else(|| vec![Role::Client, Role::Server], |sender| vec![sender]);
    senders.into_iter().try_for_each(|sender| check_from(version, sender, &bytes, vector))
}

fn check_from(version: Version, sender: Role, bytes: &[u8], vector: &Table) -> Result<(), String> {
    // A vector can have a payload that is not the UTF-8 it is said to be.
    let rules = Rules::new(version).sent_by(sender).forwarding();
    if let Some(missing) = vector.get("incomplete") {
        assert!(codec::frame(bytes, u32::MAX).map_err(|error| format!("{error:?}"))?.is_none());
        let known = codec::header(bytes, u32::MAX)
            .unwrap()
            .map_or(1, |header| header.packet_size() as usize - bytes.len());
        return if missing.as_integer() == Some(known as i64) {
            Ok(())
        } else {
            Err(format!("{known} bytes are missing"))
        };
    }
    let decoded = codec::frame(bytes, u32::MAX).and_then(|frame| {
        let frame = frame.ok_or(codec::DecodeError::Truncated)?;
        assert_eq!(frame.as_bytes().len(), bytes.len(), "the vector is more than one packet");
        codec::decode(frame, rules)
    });
    if let Some(error) = vector.get("error") {
        let found = decoded.err().ok_or_else(|| format!("decodes to {decoded:?}"))?;
        let name = format!("{found:?}");
        let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap();
        let code = vector["reason_code"].as_integer().unwrap();
        if name != error.as_str().unwrap() || i64::from(found.reason_code().get()) != code {
            return Err(format!(
                "{error} {code:#x} expected, not {found:?} {}",
                found.reason_code()
            ));
        }
        tolerated(version, rules, bytes, vector)?;
        return tells(found, version, vector);
    }
    let decoded = decoded.map_err(|error| format!("{error:?}"))?;
    let expected = packet(version, vector["packet"].as_table().unwrap());
    if decoded != expected {
        return Err(format!("decodes to {decoded:?}, not {expected:?}"));
    }
    for packet in [&decoded, &expected] {
        let mut out = Vec::new();
        codec::encode(packet, rules, &mut out)
            .map_err(|error| format!("does not encode: {error:?}"))?;
        if vector.get("canonical").is_none_or(|canonical| canonical.as_bool().unwrap()) {
            if out != bytes {
                return Err(format!(
                    "encodes to {}",
                    out.iter().map(|byte| format!("{byte:02x} ")).collect::<String>()
                ));
            }
        } else if codec::decode(codec::frame(&out, u32::MAX).unwrap().unwrap(), rules)
            != Ok(*packet)
        {
            return Err(format!("encodes to bytes that do not decode equal: {out:02x?}"));
        }
        let mut exact = vec![0; out.len()];
        codec::encode(packet, rules, &mut codec::Fixed::new(&mut exact)).unwrap();
        assert_eq!(exact, out);
        let mut short = vec![0; out.len() - 1];
        let mut room = codec::Fixed::new(&mut short);
        assert_eq!(
            codec::encode(packet, rules, &mut room),
            Err(codec::EncodeError::NoRoom(out.len()))
        );
        assert!(room.written().is_empty());
        assert_eq!(OwnedPacket::new(packet, rules).unwrap().decode(), *packet);
    }
    Ok(())
}

/// Decodes bytes that an option tolerates, if the vector names one.
fn tolerated(version: Version, rules: Rules, bytes: &[u8], vector: &Table) -> Result<(), String> {
    let Some(tolerated) = vector.get("tolerated") else { return Ok(()) };
    let name = tolerated["option"].as_str().unwrap();
    let option = Options::ALL.iter().find(|option| option.to_string() == name).unwrap();
    let expected = packet(version, tolerated["packet"].as_table().unwrap());
    let frame = codec::frame(bytes, u32::MAX).unwrap().unwrap();
    let decoded = codec::decode(frame, rules.with(*option));
    if decoded == Ok(expected) {
        Ok(())
    } else {
        Err(format!("with {name} decodes to {decoded:?}, not {expected:?}"))
    }
}

/// Checks that an error cites a statement that the vector says is violated. An error without a
/// numbered statement can cite a section.
fn tells(error: codec::DecodeError, version: Version, vector: &Table) -> Result<(), String> {
    let told = error.citation(version);
    let of = if version == Version::V5_0 { "5.0 " } else { "3.1.1 " };
    let cited = vector["cites"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|cite| cite.as_str().unwrap().strip_prefix(of));
    let numbered: Vec<_> = cited.filter(|cite| cite.starts_with("MQTT-")).collect();
    let right = told.contains('§')
        || numbered.is_empty()
        || told.split(", ").any(|told| numbered.contains(&told));
    if right {
        Ok(())
    } else {
        Err(format!("{error:?} cites {told}, and the vector violates {numbered:?}"))
    }
}

/// Packets borrow from values that live as long as the process.
fn leak<T>(values: Vec<T>) -> &'static [T] {
    values.leak()
}

fn binary(value: &Value) -> &'static [u8] {
    match value {
        Value::String(text) => leak(text.clone().into_bytes()),
        Value::Table(table) => match table.get("hex") {
            Some(digits) => leak(hex(digits.as_str().unwrap())),
            None => leak(
                table["repeat"]
                    .as_str()
                    .unwrap()
                    .repeat(table["times"].as_integer().unwrap() as usize)
                    .into_bytes(),
            ),
        },
        other => panic!("{other}"),
    }
}

fn text(value: &Value) -> Text<'static> {
    core::str::from_utf8(binary(value)).unwrap().into()
}

fn number<T: TryFrom<i64, Error: core::fmt::Debug>>(value: &Value) -> T {
    value.as_integer().unwrap().try_into().unwrap()
}

fn flag(value: &Value) -> bool {
    value.as_bool().unwrap()
}

fn qos(value: &Value) -> QoS {
    QoS::from_u8(number(value)).unwrap()
}

fn identifier(value: &Value) -> PacketIdentifier {
    PacketIdentifier::new(number(value)).unwrap()
}

/// A packet or its properties. Each key is read once, and none may be left over.
struct Fields(Table);

impl Fields {
    fn get<T>(&mut self, key: &str, convert: impl FnOnce(&Value) -> T) -> Option<T> {
        self.0.remove(key).map(|value| convert(&value))
    }

    fn or_default<T: Default>(&mut self, key: &str, convert: impl FnOnce(&Value) -> T) -> T {
        self.get(key, convert).unwrap_or_default()
    }

    fn list<T>(&mut self, key: &str, convert: impl FnMut(&Value) -> T) -> &'static [T] {
        leak(
            self.get(key, |list| list.as_array().unwrap().iter().map(convert).collect())
                .unwrap_or_default(),
        )
    }

    fn user_properties(&mut self) -> &'static [UserProperty<'static>] {
        self.list("user_properties", |pair| UserProperty {
            name: text(&pair[0]),
            value: text(&pair[1]),
        })
    }

    fn properties(&mut self) -> Self {
        Self(self.get("properties", |value| value.as_table().unwrap().clone()).unwrap_or_default())
    }

    fn done<T>(&self, value: T) -> T {
        assert!(self.0.is_empty(), "unknown keys: {:?}", self.0);
        value
    }
}

fn packet(version: Version, table: &Table) -> Packet<'static> {
    let mut fields = Fields(table.clone());
    let kind = fields.get("type", |kind| kind.as_str().unwrap().to_owned()).unwrap();
    let f = &mut fields;
    let packet = match kind.as_str() {
        "CONNECT" => Packet::Connect(Connect {
            version,
            clean_start: f.or_default("clean_start", flag),
            keep_alive: f.or_default("keep_alive", number),
            client_identifier: f.or_default("client_identifier", text),
            will: f.get("will", |will| {
                let mut f = Fields(will.as_table().unwrap().clone());
                let will = Will {
                    qos: f.or_default("qos", qos),
                    retain: f.or_default("retain", flag),
                    topic: f.get("topic", text).unwrap(),
                    payload: f.or_default("payload", binary),
                    properties: will_properties(f.properties()),
                };
                f.done(will)
            }),
            user_name: f.get("user_name", text),
            password: f.get("password", binary),
            properties: connect_properties(f.properties()),
        }),
        "CONNACK" => {
            // Before 5.0 the vectors have the return code of the wire.
            let code = f.or_default("reason_code", number::<u8>);
            let same = [0x00, 0x84, 0x85, 0x88, 0x86, 0x87];
            let code = if version == Version::V5_0 { code } else { same[usize::from(code)] };
            Packet::Connack(Connack {
                session_present: f.or_default("session_present", flag),
                reason_code: ReasonCode::new(code),
                properties: connack_properties(f.properties()),
            })
        }
        "PUBLISH" => Packet::Publish(Publish {
            dup: f.or_default("dup", flag),
            qos: f.or_default("qos", qos),
            retain: f.or_default("retain", flag),
            topic_name: f.or_default("topic_name", text),
            packet_identifier: f.get("packet_identifier", identifier),
            properties: publish_properties(f.properties()),
            payload: f.or_default("payload", binary),
        }),
        "PUBACK" => Packet::Puback(ack(f)),
        "PUBREC" => Packet::Pubrec(ack(f)),
        "PUBREL" => Packet::Pubrel(ack(f)),
        "PUBCOMP" => Packet::Pubcomp(ack(f)),
        "SUBSCRIBE" => Packet::Subscribe(Subscribe {
            packet_identifier: f.get("packet_identifier", identifier).unwrap(),
            properties: subscribe_properties(f.properties()),
            subscriptions: f.list("subscriptions", subscription).into(),
        }),
        "SUBACK" => Packet::Suback(suback(f)),
        "UNSUBSCRIBE" => Packet::Unsubscribe(Unsubscribe {
            packet_identifier: f.get("packet_identifier", identifier).unwrap(),
            properties: unsubscribe_properties(f.properties()),
            topic_filters: f.list("topic_filters", text).into(),
        }),
        "UNSUBACK" => Packet::Unsuback(suback(f)),
        "PINGREQ" => Packet::Pingreq,
        "PINGRESP" => Packet::Pingresp,
        "DISCONNECT" => Packet::Disconnect(Disconnect {
            reason_code: f.get("reason_code", number).map(ReasonCode::new).unwrap_or_default(),
            properties: disconnect_properties(f.properties()),
        }),
        "AUTH" => Packet::Auth(Auth {
            reason_code: f.get("reason_code", number).map(ReasonCode::new).unwrap_or_default(),
            properties: auth_properties(f.properties()),
        }),
        other => panic!("{other}"),
    };
    fields.done(packet)
}

fn subscription(value: &Value) -> Subscription<'static> {
    let mut f = Fields(value.as_table().unwrap().clone());
    let subscription = Subscription {
        topic_filter: f.get("topic_filter", text).unwrap(),
        options: SubscriptionOptions {
            maximum_qos: f.or_default("maximum_qos", qos),
            no_local: f.or_default("no_local", flag),
            retain_as_published: f.or_default("retain_as_published", flag),
            retain_handling: match f.or_default("retain_handling", number::<u8>) {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                _ => RetainHandling::DoNotSend,
            },
        },
    };
    f.done(subscription)
}

fn ack(f: &mut Fields) -> Ack<'static> {
    Ack {
        packet_identifier: f.get("packet_identifier", identifier).unwrap(),
        reason_code: f.get("reason_code", number).map(ReasonCode::new).unwrap_or_default(),
        properties: ack_properties(f.properties()),
    }
}

fn suback(f: &mut Fields) -> Suback<'static> {
    Suback {
        packet_identifier: f.get("packet_identifier", identifier).unwrap(),
        reason_codes: f.get("reason_codes", reason_codes).unwrap_or_default().into(),
        properties: ack_properties(f.properties()),
    }
}

fn reason_codes(value: &Value) -> &'static [ReasonCode] {
    let code = |value: &Value| ReasonCode::new(number(value));
    leak(match value {
        Value::Table(table) => {
            vec![code(&table["repeat"]); number::<u32>(&table["times"]) as usize]
        }
        list => list.as_array().unwrap().iter().map(code).collect(),
    })
}

fn subscription_identifier(value: &Value) -> SubscriptionIdentifier {
    SubscriptionIdentifier::new(number(value)).unwrap()
}

fn subscription_identifiers(value: &Value) -> Sequence<'static, SubscriptionIdentifier> {
    leak(value.as_array().unwrap().iter().map(subscription_identifier).collect()).into()
}

/// Defines the readers of properties: a field for each key, with the conversion of its value. A
/// forgotten field does not compile, and a key without a field fails.
macro_rules! properties {
    ($($read:ident: $Properties:ident {
        $($field:ident: $convert:ident,)*
        $([$list:ident: $convert_list:ident],)?
    })*) => {$(
        fn $read(mut f: Fields) -> $Properties<'static> {
            let properties = $Properties {
                $($field: f.get(stringify!($field), $convert),)*
                $($list: f.or_default(stringify!($list), $convert_list),)?
                user_properties: f.user_properties().into(),
            };
            f.done(properties)
        }
    )*};
}

properties! {
    ack_properties: AckProperties {
        reason_string: text,
    }
    subscribe_properties: SubscribeProperties {
        subscription_identifier: subscription_identifier,
    }
    unsubscribe_properties: UnsubscribeProperties {}
    connect_properties: ConnectProperties {
        session_expiry_interval: number,
        authentication_method: text,
        authentication_data: binary,
        request_problem_information: flag,
        request_response_information: flag,
        receive_maximum: number,
        topic_alias_maximum: number,
        maximum_packet_size: number,
    }
    will_properties: WillProperties {
        payload_format_indicator: flag,
        message_expiry_interval: number,
        content_type: text,
        response_topic: text,
        correlation_data: binary,
        will_delay_interval: number,
    }
    connack_properties: ConnackProperties {
        session_expiry_interval: number,
        assigned_client_identifier: text,
        server_keep_alive: number,
        authentication_method: text,
        authentication_data: binary,
        response_information: text,
        server_reference: text,
        reason_string: text,
        receive_maximum: number,
        topic_alias_maximum: number,
        maximum_qos: qos,
        retain_available: flag,
        maximum_packet_size: number,
        wildcard_subscription_available: flag,
        subscription_identifier_available: flag,
        shared_subscription_available: flag,
    }
    publish_properties: PublishProperties {
        payload_format_indicator: flag,
        message_expiry_interval: number,
        content_type: text,
        response_topic: text,
        correlation_data: binary,
        topic_alias: number,
        [subscription_identifiers: subscription_identifiers],
    }
    disconnect_properties: DisconnectProperties {
        session_expiry_interval: number,
        server_reference: text,
        reason_string: text,
    }
    auth_properties: AuthProperties {
        authentication_method: text,
        authentication_data: binary,
        reason_string: text,
    }
}
