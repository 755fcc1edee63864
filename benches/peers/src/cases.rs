//! The cases: packets as bytes, written here without any encoder, and as values.

use crate::peers::Form;
use mqtt_sansio::codec::{
    self, Ack, AckProperties, Auth, AuthProperties, Connack, ConnackProperties, Connect,
    ConnectProperties, Disconnect, Packet, PacketIdentifier, Publish, PublishProperties, QoS,
    ReasonCode, Sequence, Suback, Subscribe, SubscribeProperties, Subscription, Text, Unsubscribe,
    UnsubscribeProperties, UserProperty, Version, Will, WillProperties,
};
use std::rc::Rc;

/// One measurement.
pub struct Case {
    pub name: String,
    pub task: Task,
    pub sample: Rc<Sample>,
}

/// The operation to measure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Decodes into any form of packet, or into the one that is named.
    Decode(Option<Form>),
    /// Encodes into one buffer.
    Encode,
    /// Makes a packet from the values of an application, and encodes it into one buffer.
    Make,
    /// Encodes a PUBLISH without copying its payload.
    HandOn,
}

/// Bytes, and the values that they encode.
pub struct Sample {
    pub name: &'static str,
    pub version: Version,
    pub bytes: Vec<u8>,
    pub packets: Vec<Packet<'static>>,
    pub values: Option<Values>,
}

/// The values of an application that sends.
#[derive(Clone, Copy)]
pub enum Values {
    /// With QoS 0.
    Publish { topic: &'static str, payload: &'static [u8] },
    /// With QoS 1 and properties.
    Request(&'static Request),
    /// With QoS 1.
    Subscribe { filters: &'static [&'static str; 10] },
}

/// A message with five properties.
pub struct Request {
    pub topic: &'static str,
    pub payload: &'static [u8],
    pub message_expiry_interval: u32,
    pub content_type: &'static str,
    pub response_topic: &'static str,
    pub correlation_data: &'static [u8],
    pub user_property: (&'static str, &'static str),
}

static REQUEST: Request = Request {
    topic: TOPIC,
    payload: PAYLOAD.split_at(256).0,
    message_expiry_interval: 3_600,
    content_type: "application/json",
    response_topic: "answers/room4",
    correlation_data: b"request-17",
    user_property: REGION,
};

const V4: Version = Version::V3_1_1;
const V5: Version = Version::V5_0;

pub const TOPIC: &str = "sensors/room4/temp/1";
static FILTERS: [&str; 10] = [
    "sensors/room0/+/temp",
    "sensors/room1/#",
    "sensors/room2/temp",
    "sensors/+/temp",
    "sensors/room4/temp/+",
    "a/b/c/d/e",
    "sensors/room6/#",
    "$SYS/broker/load/#",
    "sensors/room8/temp",
    "sensors/room9/+",
];
const REGION: (&str, &str) = ("region", "eu-central-1");
const TRACE: (&str, &str) = ("trace", "00-4bf92f3577b34da6-01");
static REGION_ONLY: [UserProperty<'static>; 1] = [user(REGION)];
static REGION_AND_TRACE: [UserProperty<'static>; 2] = [user(REGION), user(TRACE)];
pub static PAYLOAD: [u8; 65_536] = [b'x'; 65_536];

const fn user((name, value): (&'static str, &'static str)) -> UserProperty<'static> {
    UserProperty { name: Text::literal(name), value: Text::literal(value) }
}

/// The prefix of the names of the cases of [`Task::HandOn`].
pub const HAND_ON: &str = "encode, payload handed on";

/// Returns each case, in the order of the table.
pub fn all() -> Vec<Case> {
    let publishes = [publish_64(V4), publish_64(V5), publish_with_properties()].map(Rc::new);
    let pubacks = [puback(V4), puback(V5)].map(Rc::new);
    let others: Vec<_> = [V4, V5].into_iter().flat_map(others).map(Rc::new).collect();
    let connects = [connect_v4(), connect_v5()].map(Rc::new);
    let subscribes = [subscribe(V4), subscribe(V5)].map(Rc::new);
    let streams = [stream(V4), stream(V5)].map(Rc::new);
    let connack = Rc::new(connack());
    let large = Rc::new(publish_64_kib());

    let mut cases = Vec::new();
    let mut add = |what: &str, task: Task, sample: &Rc<Sample>| {
        let version = if sample.version == V4 { "v4" } else { "v5" };
        cases.push(Case {
            name: format!("{what}: {version} {}", sample.name),
            task,
            sample: sample.clone(),
        });
    };
    let packets = || {
        publishes
            .iter()
            .chain(&pubacks)
            .chain(&connects)
            .chain(&subscribes)
            .chain([&connack])
            .chain(&others)
    };
    packets().chain(&streams).for_each(|sample| add("decode", Task::Decode(None), sample));
    publishes
        .iter()
        .chain(&streams)
        .for_each(|sample| add("decode owned", Task::Decode(Some(Form::Owned)), sample));
    publishes.iter().for_each(|sample| {
        add("decode owned and read", Task::Decode(Some(Form::OwnedAndRead)), sample)
    });
    packets().for_each(|sample| add("encode", Task::Encode, sample));
    add("encode", Task::Encode, &large);
    publishes
        .iter()
        .chain(&subscribes)
        .for_each(|sample| add("made and encoded", Task::Make, sample));
    add(HAND_ON, Task::HandOn, &large);
    cases
}

fn publish_64(version: Version) -> Sample {
    let properties: &[&[u8]] = if version == V5 { &[&[0]] } else { &[] };
    Sample {
        name: "PUBLISH 64 B",
        version,
        bytes: packet(0x30, &[&string(TOPIC), &properties.concat(), &PAYLOAD[..64]]),
        packets: vec![Publish::new(TOPIC, &PAYLOAD[..64]).into()],
        values: Some(Values::Publish { topic: TOPIC, payload: &PAYLOAD[..64] }),
    }
}

fn publish_64_kib() -> Sample {
    Sample {
        name: "PUBLISH 64 KiB",
        version: V4,
        bytes: packet(0x30, &[&string(TOPIC), &PAYLOAD]),
        packets: vec![Publish::new(TOPIC, &PAYLOAD).into()],
        values: None,
    }
}

fn publish_with_properties() -> Sample {
    let properties = section(&[
        &[0x02, 0, 0, 0x0E, 0x10],
        &property(0x03, "application/json"),
        &property(0x08, "answers/room4"),
        &property(0x09, "request-17"),
        &user_property(REGION),
    ]);
    let publish = Publish {
        qos: QoS::AtLeastOnce,
        packet_identifier: identifier(),
        properties: PublishProperties {
            message_expiry_interval: Some(REQUEST.message_expiry_interval),
            content_type: Some(REQUEST.content_type.into()),
            response_topic: Some(REQUEST.response_topic.into()),
            correlation_data: Some(REQUEST.correlation_data),
            user_properties: (&REGION_ONLY).into(),
            ..PublishProperties::default()
        },
        ..Publish::new(REQUEST.topic, REQUEST.payload)
    };
    Sample {
        name: "PUBLISH 256 B, 5 properties",
        version: V5,
        bytes: packet(
            0x32,
            &[&string(TOPIC), &IDENTIFIER.to_be_bytes(), &properties, &PAYLOAD[..256]],
        ),
        packets: vec![publish.into()],
        values: Some(Values::Request(&REQUEST)),
    }
}

fn puback(version: Version) -> Sample {
    let ack = Ack::new(identifier().expect("not zero"), ReasonCode::SUCCESS);
    let bytes = packet(0x40, &[&IDENTIFIER.to_be_bytes()]);
    Sample { name: "PUBACK", version, bytes, packets: vec![Packet::Puback(ack)], values: None }
}

const CLIENT: &str = "client-0001-with-a-name";
const WILL_TOPIC: &str = "status/client-0001";
const USER_NAME: &str = "device-0001";
const PASSWORD: &str = "correct horse battery";

fn connect_v4() -> Sample {
    let connect = Connect {
        clean_start: true,
        keep_alive: 60,
        will: Some(Will {
            qos: QoS::AtLeastOnce,
            topic: WILL_TOPIC.into(),
            payload: b"offline",
            ..Will::default()
        }),
        user_name: Some(USER_NAME.into()),
        password: Some(PASSWORD.as_bytes()),
        ..Connect::new(V4, CLIENT)
    };
    let strings = [CLIENT, WILL_TOPIC, "offline", USER_NAME, PASSWORD].map(string).concat();
    Sample {
        name: "CONNECT full",
        version: V4,
        bytes: packet(0x10, &[&string("MQTT"), &[4, 0b1100_1110, 0, 60], &strings]),
        packets: vec![connect.into()],
        values: None,
    }
}

/// Returns a CONNECT in which no property has its default value: some peers leave those out.
fn connect_v5() -> Sample {
    let properties = section(&[
        &[0x11, 0, 0, 0x0E, 0x10],
        &property(0x15, "SCRAM-SHA-256"),
        &property(0x16, "n,,n=device-0001,r=fyko"),
        &[0x17, 0],
        &[0x19, 1],
        &[0x21, 0, 100],
        &[0x22, 0, 10],
        &[0x27, 0, 0x10, 0, 0],
        &user_property(REGION),
        &user_property(TRACE),
    ]);
    let will_properties = section(&[
        &[0x01, 1],
        &[0x02, 0, 0, 0, 120],
        &property(0x03, "text/plain"),
        &property(0x08, "answers/status"),
        &property(0x09, "will-1"),
        &[0x18, 0, 0, 0, 30],
        &user_property(REGION),
    ]);
    let will = Will {
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: WILL_TOPIC.into(),
        payload: b"offline",
        properties: WillProperties {
            payload_format_indicator: Some(true),
            message_expiry_interval: Some(120),
            content_type: Some("text/plain".into()),
            response_topic: Some("answers/status".into()),
            correlation_data: Some(b"will-1"),
            will_delay_interval: Some(30),
            user_properties: (&REGION_ONLY).into(),
        },
    };
    let connect = Connect {
        clean_start: true,
        keep_alive: 60,
        will: Some(will),
        user_name: Some(USER_NAME.into()),
        password: Some(PASSWORD.as_bytes()),
        properties: ConnectProperties {
            session_expiry_interval: Some(3_600),
            authentication_method: Some("SCRAM-SHA-256".into()),
            authentication_data: Some(b"n,,n=device-0001,r=fyko"),
            request_problem_information: Some(false),
            request_response_information: Some(true),
            receive_maximum: Some(100),
            topic_alias_maximum: Some(10),
            maximum_packet_size: Some(1 << 20),
            user_properties: (&REGION_AND_TRACE).into(),
        },
        ..Connect::new(V5, CLIENT)
    };
    let strings = [WILL_TOPIC, "offline", USER_NAME, PASSWORD].map(string).concat();
    let start = [&string("MQTT")[..], &[5, 0b1110_1110, 0, 60]].concat();
    Sample {
        name: "CONNECT, all properties",
        version: V5,
        bytes: packet(0x10, &[&start, &properties, &string(CLIENT), &will_properties, &strings]),
        packets: vec![connect.into()],
        values: None,
    }
}

fn connack() -> Sample {
    let properties = section(&[
        &[0x11, 0, 0, 0x0E, 0x10],
        &property(0x12, "auto-0123456789"),
        &[0x13, 0, 30],
        &property(0x1F, "welcome back"),
        &[0x21, 0, 100],
        &[0x22, 0, 10],
        &[0x24, 1],
        &[0x27, 0, 0x10, 0, 0],
        &user_property(REGION),
        &user_property(TRACE),
    ]);
    let connack = Connack {
        session_present: true,
        reason_code: ReasonCode::SUCCESS,
        properties: ConnackProperties {
            session_expiry_interval: Some(3_600),
            assigned_client_identifier: Some("auto-0123456789".into()),
            server_keep_alive: Some(30),
            reason_string: Some("welcome back".into()),
            receive_maximum: Some(100),
            topic_alias_maximum: Some(10),
            maximum_qos: Some(QoS::AtLeastOnce),
            maximum_packet_size: Some(1 << 20),
            user_properties: (&REGION_AND_TRACE).into(),
            ..ConnackProperties::default()
        },
    };
    Sample {
        name: "CONNACK, 10 properties",
        version: V5,
        bytes: packet(0x20, &[&[1, 0], &properties]),
        packets: vec![connack.into()],
        values: None,
    }
}

fn subscribe(version: Version) -> Sample {
    let subscriptions: &'static [_] =
        FILTERS.map(|filter| Subscription::new(filter, QoS::AtLeastOnce)).to_vec().leak();
    let subscribe = Subscribe {
        packet_identifier: identifier().expect("not zero"),
        properties: SubscribeProperties::default(),
        subscriptions: Sequence::from(subscriptions),
    };
    Sample {
        name: "SUBSCRIBE, 10 filters",
        version,
        bytes: packet(
            0x82,
            &[&IDENTIFIER.to_be_bytes(), no_properties(version), &subscription_list()],
        ),
        packets: vec![subscribe.into()],
        values: Some(Values::Subscribe { filters: &FILTERS }),
    }
}

fn subscription_list() -> Vec<u8> {
    FILTERS.map(|filter| [&string(filter)[..], &[1]].concat()).concat()
}

/// Returns the remaining packet types.
fn others(version: Version) -> Vec<Sample> {
    let packet_identifier = identifier().expect("not zero");
    let ack = Ack::new(packet_identifier, ReasonCode::SUCCESS);
    let suback = |reason_codes| Suback {
        packet_identifier,
        properties: AckProperties::default(),
        reason_codes,
    };
    let topic_filters: &'static [Text<'static>] = FILTERS.map(Text::from).to_vec().leak();
    let unsubscribe = Unsubscribe {
        packet_identifier,
        properties: UnsubscribeProperties::default(),
        topic_filters: topic_filters.into(),
    };
    let identified = |first: u8, rest: &[u8]| packet(first, &[&IDENTIFIER.to_be_bytes(), rest]);
    let listed =
        |first: u8, list: &[u8]| identified(first, &[no_properties(version), list].concat());
    let unsubscribed = if version == V5 { &[ReasonCode::SUCCESS; 10][..] } else { &[] };
    let mut packets: Vec<(&'static str, Vec<u8>, Packet<'static>)> = vec![
        ("PUBREC", identified(0x50, &[]), Packet::Pubrec(ack)),
        ("PUBREL", identified(0x62, &[]), Packet::Pubrel(ack)),
        ("PUBCOMP", identified(0x70, &[]), Packet::Pubcomp(ack)),
        (
            "SUBACK, 10 codes",
            listed(0x90, &[1; 10]),
            Packet::Suback(suback((&[ReasonCode::GRANTED_QOS_1; 10]).into())),
        ),
        (
            "UNSUBSCRIBE, 10 filters",
            listed(0xA2, &FILTERS.map(string).concat()),
            unsubscribe.into(),
        ),
        (
            "UNSUBACK",
            listed(0xB0, &vec![0; unsubscribed.len()]),
            Packet::Unsuback(suback(unsubscribed.into())),
        ),
        ("PINGREQ", packet(0xC0, &[]), Packet::Pingreq),
        ("PINGRESP", packet(0xD0, &[]), Packet::Pingresp),
        ("DISCONNECT", packet(0xE0, &[]), Disconnect::default().into()),
    ];
    if version == V5 {
        let properties = AuthProperties {
            authentication_method: Some("SCRAM-SHA-256".into()),
            authentication_data: Some(b"n,,n=device-0001,r=fyko"),
            ..AuthProperties::default()
        };
        let bytes = section(&[
            &property(0x15, "SCRAM-SHA-256"),
            &property(0x16, "n,,n=device-0001,r=fyko"),
        ]);
        let auth = Auth { reason_code: ReasonCode::CONTINUE_AUTHENTICATION, properties };
        packets.push(("AUTH", packet(0xF0, &[&[0x18], &bytes]), auth.into()));
    } else {
        packets.push(("CONNACK", packet(0x20, &[&[0, 0]]), Connack::default().into()));
    }
    let sample = |(name, bytes, packet)| Sample {
        name,
        version,
        bytes,
        packets: vec![packet],
        values: None,
    };
    packets.into_iter().map(sample).collect()
}

/// Returns 10,000 packets: 60 % PUBLISH of many sizes, 25 % acknowledgements, 15 % others.
///
/// The decoder of this crate finds the values: the other cases check it, and here it must agree
/// with the peers. There is no UNSUBSCRIBE, because mqttbytes has a `dbg!` left in it
/// ([`Codec::LEFT_OUT`](crate::codec::Codec::LEFT_OUT)), and no DISCONNECT, because it would be the
/// last packet.
fn stream(version: Version) -> Sample {
    const PACKETS: usize = 10_000;
    let mut random = Random(1);
    let identified = |first: u8, rest: &[u8]| {
        packet(first, &[&IDENTIFIER.to_be_bytes(), no_properties(version), rest])
    };
    let codes: &[u8] = if version == V5 { &[0; 10] } else { &[] };
    let mut bytes = Vec::new();
    for _ in 0..PACKETS {
        bytes.extend(match random.below(100) {
            0..60 => random_publish(&mut random, version),
            60..72 => packet(0x40, &[&random.identifier()]),
            72..77 => packet(0x50, &[&random.identifier()]),
            77..81 => packet(0x62, &[&random.identifier()]),
            81..85 => packet(0x70, &[&random.identifier()]),
            85..89 => packet(0xC0, &[]),
            89..93 => packet(0xD0, &[]),
            93..96 => identified(0x82, &subscription_list()),
            96..98 => identified(0x90, &[1; 10]),
            _ => identified(0xB0, codes),
        });
    }
    let mut rest: &'static [u8] = bytes.clone().leak();
    let mut packets = Vec::new();
    while let Some(frame) = codec::frame(rest, u32::MAX).expect("frames") {
        rest = &rest[frame.as_bytes().len()..];
        packets.push(codec::decode(frame, version).expect("packets"));
    }
    assert_eq!(packets.len(), PACKETS);
    Sample { name: "mixed stream", version, bytes, packets, values: None }
}

/// Returns a PUBLISH: half have QoS 1, most are small, and in 5.0 a quarter have properties.
fn random_publish(random: &mut Random, version: Version) -> Vec<u8> {
    let topic = ["a/b", TOPIC, "factory/hall-2/line-7/robot-12/joint-3/torque"][random.below(3)];
    let size =
        [random.below(32), 32 + random.below(96), 128 + random.below(384), random.below(2048)];
    let size = size[[0, 1, 1, 1, 1, 2, 2, 3][random.below(8)]];
    let (first, identifier) =
        if random.below(2) == 0 { (0x30, vec![]) } else { (0x32, random.identifier().to_vec()) };
    let properties = match version {
        V5 if random.below(4) == 0 => section(&[
            &[0x02, 0, 0, 0, 60],
            &property(0x03, "application/json"),
            &user_property(REGION),
        ]),
        _ => no_properties(version).to_vec(),
    };
    packet(first, &[&string(topic), &identifier, &properties, &PAYLOAD[..size]])
}

/// A linear congruential generator: the same stream in every run.
pub struct Random(pub u32);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as usize % limit
    }

    fn identifier(&mut self) -> [u8; 2] {
        (1 + self.below(65_535) as u16).to_be_bytes()
    }
}

pub const IDENTIFIER: u16 = 10;

fn identifier() -> Option<PacketIdentifier> {
    PacketIdentifier::new(IDENTIFIER)
}

pub fn no_properties(version: Version) -> &'static [u8] {
    if version == V5 { &[0] } else { &[] }
}

pub fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    [vec![first], section(parts)].concat()
}

/// Returns the parts after their length.
fn section(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut bytes = Vec::new();
    let mut length = body.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(body);
    bytes
}

pub fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn property(identifier: u8, text: &str) -> Vec<u8> {
    [vec![identifier], string(text)].concat()
}

fn user_property((name, value): (&str, &str)) -> Vec<u8> {
    [property(0x26, name), string(value)].concat()
}
