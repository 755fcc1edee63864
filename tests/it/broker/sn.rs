//! Scenarios through the gateway of MQTT-SN: with `SCENARIO_BROKER=mqtt-sn`, each client of 3.1.1
//! is a device that speaks MQTT-SN, and the gateway carries it to the broker, all in this process.
//! The other clients of a scenario are connected to the broker. A packet that MQTT-SN cannot say
//! fails the scenario.
//!
//! Session Present is taken from the connection of the gateway, because MQTT-SN does not have it.

use super::program;
use super::support::{C, Net};
use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::broker::{BrokerConfig, ConnectionId};
use mqtt_sansio::codec::{
    self, Ack, Connack, Packet, PacketIdentifier, Publish, ReasonCode, Suback,
};
use mqtt_sansio::sn::v1_2::{
    self, Message, Puback, PublishQos, Regack, ReturnCode, SubscriptionTopic, TopicId, TopicRef,
    WillTopic,
};
use mqtt_sansio::sn::{Destination, Gateway, GatewayConfig, Link, Retry};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use testkit::wire::encoded;

use codec::Version::V3_1_1;

/// The value of `SCENARIO_BROKER` for the gateway.
pub const COMMAND: &str = "mqtt-sn";

/// Plays a scenario through the gateway.
pub fn play(config: &BrokerConfig, scenario: impl Fn(&mut Net)) {
    let mut net = Net::through_gateway(config.clone());
    scenario(&mut net);
    if net.has_devices() {
        println!("played through the gateway");
    }
}

/// The gateway, and the devices in front of it.
pub struct Site {
    pub gateway: Gateway<C>,
    pub links: BTreeMap<Link, Pipe>,
    pub devices: BTreeMap<C, Device>,
    /// The device that has sent the last datagram.
    speaker: C,
}

/// A connection of the gateway to the broker.
pub struct Pipe {
    pub id: ConnectionId,
    pub c: C,
    pub to_broker: Vec<u8>,
    pub to_gateway: Vec<u8>,
}

impl Site {
    pub fn new() -> Self {
        let config = GatewayConfig::new(1)
            // The scenarios set no Keep Alive, and answer when they want to.
            .server_keep_alive(0)
            .retry(Retry { interval: Duration::from_secs(1_000_000), ..Retry::new() })
            .maximum_datagram(65_000)
            .maximum_buffered(10_000, 100_000_000);
        let (links, devices) = (BTreeMap::new(), BTreeMap::new());
        Self { gateway: Gateway::new(config), links, devices, speaker: 0 }
    }

    /// Adds a connection to the broker, for the device that has sent the last datagram.
    pub fn open(&mut self, link: Link, id: ConnectionId) {
        let (to_broker, to_gateway) = (Vec::new(), Vec::new());
        self.links.insert(link, Pipe { id, c: self.speaker, to_broker, to_gateway });
    }

    /// Returns the connection that carries a device.
    pub fn link(&self, c: C) -> Option<(Link, ConnectionId)> {
        let mut links = self.links.iter().filter(|(_, pipe)| pipe.c == c);
        links.next_back().map(|(link, pipe)| (*link, pipe.id))
    }

    /// Sends the messages of a device for a packet of the scenario. Returns false if another one
    /// must follow when the gateway has answered.
    pub fn send(&mut self, c: C, packet: &Packet<'_>, now: Instant) -> bool {
        let device = self.devices.entry(c).or_default();
        self.speaker = c;
        let mut datagrams = Vec::new();
        let is_done = device.say(packet, &mut |message| datagrams.push(datagram(message)));
        for datagram in datagrams {
            self.gateway.handle_datagram(&c, &datagram, now);
        }
        is_done
    }

    /// Passes the datagrams of the gateway to the devices. Returns the packets that they mean.
    pub fn receive(&mut self, now: Instant) -> Vec<(C, Meaning)> {
        let (mut all, mut received) = (Vec::new(), Vec::new());
        while let Some(to) = self.gateway.poll_datagram(&mut received) {
            let Destination::Peer(c) = to else { panic!("{to:?}") };
            let Some(device) = self.devices.get_mut(&c) else { continue };
            let mut answer = None;
            let message = v1_2::decode(&received).unwrap();
            let meaning = device.hear(&message, &mut |message| answer = Some(datagram(message)));
            all.extend(meaning.map(|meaning| (c, meaning)));
            if let Some(answer) = answer {
                self.speaker = c;
                self.gateway.handle_datagram(&c, &answer, now);
            }
        }
        all
    }
}

fn datagram(message: &Message<'_>) -> Vec<u8> {
    let mut datagram = Vec::new();
    v1_2::encode(message, &mut datagram).unwrap();
    datagram
}

/// The meaning of a datagram in MQTT.
pub enum Meaning {
    Packet(Vec<u8>),
    /// The connection has ended, after that packet.
    End(Vec<u8>),
}

/// A device of which the scenario says what it sends, in packets of MQTT.
#[derive(Default)]
pub struct Device {
    will: Option<(String, codec::QoS, bool, Vec<u8>)>,
    names: BTreeMap<TopicId, String>,
    /// The name of the REGISTER or SUBSCRIBE that is not answered.
    asked: String,
    /// The topics of messages that the device must acknowledge.
    received: BTreeMap<PacketIdentifier, TopicRef>,
    /// Whether the broker had the session.
    pub session_present: bool,
}

impl Device {
    fn say(&mut self, packet: &Packet<'_>, send: &mut dyn FnMut(&Message<'_>)) -> bool {
        match packet {
            Packet::Connect(connect) => {
                assert!(connect.user_name.is_none(), "MQTT-SN has no user names");
                let client_id = connect.client_identifier;
                let length = client_id.to_str().chars().count();
                assert!((1..=23).contains(&length), "MQTT-SN has no identifier of {length}");
                self.will = connect.will.as_ref().map(|will| {
                    let topic = will.topic.to_str().to_owned();
                    (topic, will.qos, will.retain, will.payload.to_vec())
                });
                let connect = v1_2::Connect {
                    // A device without a Will deletes the one that the gateway may have.
                    will: self.will.is_some() || !connect.clean_start,
                    clean_session: connect.clean_start,
                    duration: connect.keep_alive,
                    client_id,
                };
                send(&Message::Connect(connect));
            }
            Packet::Publish(publish) => {
                let Some(topic) = self.reference(publish.topic_name.to_str()) else {
                    self.asked = publish.topic_name.to_str().into();
                    let topic_name = publish.topic_name;
                    let register =
                        v1_2::Register { topic_id: None, message_id: 0xFFFF, topic_name };
                    send(&Message::Register(register));
                    return false;
                };
                let (dup, qos, retain) = (publish.dup, publish.qos.into(), publish.retain);
                let message_id = publish.packet_identifier;
                let sent = v1_2::Publish::new(topic, publish.payload);
                send(&Message::Publish(v1_2::Publish { dup, qos, retain, message_id, ..sent }));
            }
            Packet::Puback(ack) => {
                let topic = self.received.get(&ack.packet_identifier);
                let topic_id = topic.expect("MQTT-SN acknowledges a topic").wire_id();
                let (message_id, return_code) = (ack.packet_identifier.get(), ReturnCode::Accepted);
                send(&Message::Puback(Puback { topic_id, message_id, return_code }));
            }
            Packet::Pubrec(ack) => send(&Message::Pubrec(ack.packet_identifier)),
            Packet::Pubrel(ack) => send(&Message::Pubrel(ack.packet_identifier)),
            Packet::Pubcomp(ack) => send(&Message::Pubcomp(ack.packet_identifier)),
            Packet::Subscribe(subscribe) => {
                let all: Vec<_> = subscribe.subscriptions.iter().collect();
                let [one] = &all[..] else { panic!("MQTT-SN subscribes to one topic at a time") };
                self.asked = one.topic_filter.to_str().into();
                let topic = SubscriptionTopic::Filter(one.topic_filter);
                let (qos, message_id) =
                    (one.options.maximum_qos, subscribe.packet_identifier.get());
                let subscribe = v1_2::Subscribe { dup: false, qos, message_id, topic };
                send(&Message::Subscribe(subscribe));
            }
            Packet::Unsubscribe(unsubscribe) => {
                let all: Vec<_> = unsubscribe.topic_filters.iter().collect();
                let [one] = &all[..] else { panic!("MQTT-SN unsubscribes from one at a time") };
                let (message_id, topic) =
                    (unsubscribe.packet_identifier.get(), SubscriptionTopic::Filter(*one));
                send(&Message::Unsubscribe(v1_2::Unsubscribe { message_id, topic }));
            }
            Packet::Pingreq => send(&Message::Pingreq(None)),
            Packet::Disconnect(_) => send(&Message::Disconnect(None)),
            packet => panic!("MQTT-SN has no {packet:?}"),
        }
        true
    }

    fn reference(&self, name: &str) -> Option<TopicRef> {
        let known = self.names.iter().find(|(_, other)| *other == name);
        known.map(|(id, _)| TopicRef::Normal(*id)).or_else(|| TopicRef::short(name).ok())
    }

    fn hear(
        &mut self,
        message: &Message<'_>,
        answer: &mut dyn FnMut(&Message<'_>),
    ) -> Option<Meaning> {
        let packet = |packet: Packet<'_>| Some(Meaning::Packet(encoded(packet, V3_1_1)));
        let ack = |id: PacketIdentifier| Ack::new(id, ReasonCode::SUCCESS);
        match message {
            Message::Connack(ReturnCode::Accepted) => {
                let session_present = self.session_present;
                packet(Connack { session_present, ..Connack::default() }.into())
            }
            Message::Connack(_) => {
                let reason_code = ReasonCode::NOT_AUTHORIZED;
                let connack = Connack { reason_code, ..Connack::default() };
                Some(Meaning::End(encoded(connack, V3_1_1)))
            }
            Message::WillTopicReq => {
                let topic = self.will.as_ref().map(|(topic, qos, retain, _)| WillTopic {
                    qos: *qos,
                    retain: *retain,
                    topic: topic.as_str().into(),
                });
                answer(&Message::WillTopic(topic));
                None
            }
            Message::WillMsgReq => {
                answer(&Message::WillMsg(&self.will.as_ref().unwrap().3));
                None
            }
            Message::Register(register) => {
                let (topic_id, message_id) = (register.topic_id, register.message_id);
                self.names.insert(topic_id.unwrap(), register.topic_name.to_str().into());
                let return_code = ReturnCode::Accepted;
                answer(&Message::Regack(Regack { topic_id, message_id, return_code }));
                None
            }
            Message::Regack(regack) => {
                assert_eq!(regack.return_code, ReturnCode::Accepted);
                self.names.insert(regack.topic_id.unwrap(), self.asked.clone());
                None
            }
            Message::Publish(publish) => {
                let name = match publish.topic {
                    TopicRef::Normal(id) => self.names[&id].as_str(),
                    _ => publish.topic.short_name().unwrap(),
                };
                let PublishQos::Level(qos) = publish.qos else { panic!("{publish:?}") };
                let packet_identifier = publish.message_id;
                packet_identifier.map(|id| self.received.insert(id, publish.topic));
                let (dup, retain) = (publish.dup, publish.retain);
                let sent = Publish::new(name, publish.data);
                packet(Publish { dup, qos, retain, packet_identifier, ..sent }.into())
            }
            Message::Puback(puback) => {
                assert_eq!(puback.return_code, ReturnCode::Accepted);
                packet(Packet::Puback(ack(PacketIdentifier::new(puback.message_id).unwrap())))
            }
            Message::Pubrec(id) => packet(Packet::Pubrec(ack(*id))),
            Message::Pubrel(id) => packet(Packet::Pubrel(ack(*id))),
            Message::Pubcomp(id) => packet(Packet::Pubcomp(ack(*id))),
            Message::Suback(suback) => {
                if let Some(id) = suback.topic_id {
                    self.names.insert(id, self.asked.clone());
                }
                let code = match suback.return_code {
                    ReturnCode::Accepted => ReasonCode::new(suback.qos.as_u8()),
                    _ => ReasonCode::UNSPECIFIED_ERROR,
                };
                let packet_identifier = PacketIdentifier::new(suback.message_id).unwrap();
                packet(Packet::Suback(Suback::new(packet_identifier, &[code])))
            }
            Message::Unsuback(id) => {
                packet(Packet::Unsuback(Suback::new(PacketIdentifier::new(*id).unwrap(), &[])))
            }
            Message::Pingresp => packet(Packet::Pingresp),
            Message::Disconnect(_) => Some(Meaning::End(Vec::new())),
            message => panic!("{message:?}"),
        }
    }
}

/// Scenarios with clients of 3.1.1 hold through the gateway, except for those that
/// `differences.tsv` lists with a reason. A listed scenario that passes fails the test.
#[test]
fn scenarios_hold_through_the_gateway_of_mqtt_sn() {
    if program::command().is_some() {
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["broker::", "--nocapture"])
        .env("SCENARIO_BROKER", COMMAND)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let failed: BTreeSet<&str> =
        shown.lines().filter_map(|line| line.strip_prefix("    broker::")).collect();
    let rows = include_str!("differences.tsv").lines();
    let known: BTreeSet<&str> = rows
        .filter_map(|row| row.strip_prefix("sn\t")?.split_once('\t'))
        .map(|(name, _)| name)
        .collect();
    let played = shown.matches("played through the gateway").count();
    let errors = String::from_utf8_lossy(&output.stderr);
    let new: Vec<_> = failed.difference(&known).collect();
    assert!(new.is_empty(), "do not pass: {new:#?}\n{errors}");
    let passed: Vec<_> = known.difference(&failed).collect();
    assert!(passed.is_empty(), "pass, though they are listed: {passed:#?}");
    assert!(played > 60, "{played} were played");
}
