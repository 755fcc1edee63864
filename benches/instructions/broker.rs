//! The broker core: one PUBLISH to one subscriber, and to a hundred.

use crate::samples::TOPIC;
use crate::{Cases, Repeat};
use core::hint::black_box;
use mqtt_sansio::Instant;
use mqtt_sansio::broker::{Action, Admission, Broker, BrokerConfig, ConnectionId};
use mqtt_sansio::codec::{
    self, Ack, Connect, Packet, PacketIdentifier, PacketType, Publish, QoS, ReasonCode, Subscribe,
    SubscribeProperties, Subscription, Version,
};
use mqtt_sansio::server::ServerConfig;
use std::collections::BTreeMap;

const NOW: Instant = Instant::from_millis(1);
const PUBLISH: u8 = PacketType::Publish as u8;
const PUBREL: u8 = PacketType::Pubrel as u8;

pub fn add(cases: &mut Cases) {
    for version in [Version::V3_1_1, Version::V5_0] {
        for subscribers in [1, 100] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let level = qos.as_u8();
                cases.add(format!("broker 1:{subscribers} {version} QoS {level}"), move || {
                    fan_out(subscribers, qos, version, None)
                });
            }
        }
    }
    for subscribers in [1, 100] {
        for (store, name) in [(Store::Late, "late"), (Store::Prompt, "prompt")] {
            cases.add(format!("broker 1:{subscribers} 5.0 QoS 1, {name} store"), move || {
                fan_out(subscribers, QoS::AtLeastOnce, Version::V5_0, Some(store))
            });
        }
    }
}

/// A durable broker, whose host stores the records in a map.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    /// It fetches the records when all subscribers have acknowledged the message.
    Late,
    /// It fetches them after each call.
    Prompt,
}

/// A broker with its host: one buffer, which holds the output of one connection at a time.
struct Host {
    broker: Broker,
    version: Version,
    out: Vec<u8>,
    /// The packets with which subscribers have to answer, without their packet identifiers.
    answers: Vec<(ConnectionId, PacketType, [u8; 2])>,
    delivered: usize,
    store: Option<Store>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Host {
    fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        let _ = self.broker.handle_input(id, &mut &bytes[..], NOW);
        self.obey();
        if self.store == Some(Store::Prompt) {
            self.sync();
        }
    }

    fn sync(&mut self) {
        while self.broker.wants_journal() {
            let batch = self.broker.poll_journal(|record| match record.value {
                Some(value) => _ = self.records.insert(record.key.into(), value.into()),
                None => _ = self.records.remove(record.key),
            });
            batch.into_iter().for_each(|batch| self.broker.durable(batch));
            self.obey();
        }
    }

    fn obey(&mut self) {
        while let Some(action) = self.broker.poll_action() {
            match action {
                Action::Ask(question, _) => {
                    self.broker.accept(question, Admission::default(), NOW).unwrap();
                }
                Action::Ready(connection) => {
                    self.out.clear();
                    while self.broker.transmit(connection, NOW, &mut self.out) {}
                    self.read(connection);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Counts the messages in the output of a connection, and notes the answers to them. It does
    /// not decode them, because the client's work is not the broker's.
    fn read(&mut self, id: ConnectionId) {
        let mut rest = &self.out[..];
        while let [first, length, ..] = *rest {
            let (packet, after) = rest.split_at(2 + usize::from(length));
            rest = after;
            let (position, answer) = match (first >> 4, first >> 1 & 0b11) {
                (PUBLISH, 0) => (0, None),
                (PUBLISH, 1) => (4 + TOPIC.len(), Some(PacketType::Puback)),
                (PUBLISH, _) => (4 + TOPIC.len(), Some(PacketType::Pubrec)),
                (PUBREL, _) => (2, Some(PacketType::Pubcomp)),
                _ => continue,
            };
            self.delivered += usize::from(first >> 4 == PUBLISH);
            if let Some(answer) = answer {
                self.answers.push((id, answer, [packet[position], packet[position + 1]]));
            }
        }
    }

    fn connected(&mut self, name: &str) -> ConnectionId {
        let id = self.broker.open(NOW);
        let mut connect = Connect { clean_start: true, ..Connect::new(self.version, name) };
        connect.properties.session_expiry_interval = self.store.map(|_| u32::MAX);
        self.receive(id, &encoded(connect, self.version));
        self.sync();
        id
    }
}

fn encoded<'a>(packet: impl Into<Packet<'a>>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(&packet.into(), version, &mut bytes).unwrap();
    bytes
}

/// Publishes a message, hands it to each subscriber, and takes their acknowledgements.
fn fan_out(subscribers: usize, qos: QoS, version: Version, store: Option<Store>) -> Repeat {
    let config = BrokerConfig::new(ServerConfig::new()).durable(store.is_some());
    let mut host = Host {
        broker: Broker::new(config, 1, NOW),
        version,
        out: Vec::new(),
        answers: Vec::new(),
        delivered: 0,
        store,
        records: BTreeMap::new(),
    };
    for number in 0..subscribers {
        let id = host.connected(&format!("subscriber-{number:04}"));
        let subscriptions = [Subscription::new("sensors/+/temp/#", qos)];
        let subscribe = Subscribe {
            packet_identifier: PacketIdentifier::new(1).unwrap(),
            properties: SubscribeProperties::default(),
            subscriptions: (&subscriptions).into(),
        };
        host.receive(id, &encoded(subscribe, version));
    }
    let publisher = host.connected("publisher");
    let packet_identifier = (qos != QoS::AtMostOnce).then_some(PacketIdentifier::new(1).unwrap());
    let publish = Publish { qos, packet_identifier, ..Publish::new(TOPIC, &[b'x'; 64]) };
    let publish = encoded(publish, version);
    let pubrel = Packet::Pubrel(Ack::new(PacketIdentifier::new(1).unwrap(), ReasonCode::SUCCESS));
    let pubrel = encoded(pubrel, version);
    Box::new(move |count| {
        for _ in 0..count {
            host.receive(publisher, black_box(&publish));
            if qos == QoS::ExactlyOnce {
                host.receive(publisher, &pubrel);
            }
            while let Some((id, answer, [high, low])) = host.answers.pop() {
                host.receive(id, &[(answer as u8) << 4, 2, high, low]);
            }
            host.sync();
        }
        assert_eq!(host.delivered, count * subscribers);
    })
}
