//! The memory that a broker holds for each thing that it keeps: `cargo bench --bench memory`.
//!
//! Bytes as asked from the allocator, and as glibc's allocator rounds them up. With the argument
//! `million` it opens a million idle connections instead of 20,000.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a bench stops at what it does not expect"
)]

use mqtt_sansio::Instant;
use mqtt_sansio::broker::{Action, Admission, Broker, BrokerConfig, ConnectionId};
use mqtt_sansio::codec::{
    self, Ack, Connect, ConnectProperties, Disconnect, Packet, PacketIdentifier, Publish, QoS,
    ReasonCode, Subscribe, Subscription, Version,
};
use testkit::heap::{Counting, Region};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NOW: Instant = Instant::from_millis(1_000);
const COUNT: usize = 20_000;

fn main() {
    let is_million = std::env::args().any(|argument| argument == "million");
    let count = if is_million { 1_000_000 } else { COUNT };
    let mut host = Host { broker: Broker::new(BrokerConfig::default(), 1, NOW), clients: vec![] };
    println!("{:>8} {:>8} {:>8}  bytes of each", "asked", "held", "aim");
    host.measure("idle connection with session", count, 700, |host, i| host.connect(i, None));
    if is_million {
        return;
    }
    host.measure("first subscription, a filter of its own", COUNT, 600, |host, i| {
        host.subscribe(i, &format!("a/{i}"));
    });
    host.measure("further subscription, a filter of its own", COUNT, 200, |host, i| {
        host.subscribe(i, &format!("b/{i}"));
    });
    host.measure("QoS 1 used once", COUNT, 200, |host, i| {
        host.publish(0, &format!("a/{i}"), QoS::AtLeastOnce);
        let ack = Ack::new(PacketIdentifier::new(1).unwrap(), ReasonCode::SUCCESS);
        host.give(host.clients[i], Packet::Puback(ack));
    });
    host.measure("retained message of 64 bytes", COUNT, 220, |host, i| {
        let topic = format!("retained/{i}");
        let publish = Publish { retain: true, ..Publish::new(&*topic, &[b'x'; 64]) };
        host.give(host.clients[0], publish.into());
    });
    let mut away = Host { broker: Broker::new(BrokerConfig::default(), 1, NOW), clients: vec![] };
    away.measure("session of an absent client", COUNT, 400, |host, i| {
        host.connect(i, Some(u32::MAX));
        host.give(host.clients[i], Disconnect::default().into());
        let _ = host.broker.connection_lost(host.clients[i], NOW);
    });
    away.connect(COUNT, Some(u32::MAX));
    away.subscribe(COUNT, "t");
    let subscriber = away.clients[COUNT];
    away.give(subscriber, Disconnect::default().into());
    let _ = away.broker.connection_lost(subscriber, NOW);
    away.connect(COUNT + 1, None);
    away.measure("queued message of 64 bytes", 1_000, 150, |host, _| {
        host.publish(COUNT + 1, "t", QoS::AtLeastOnce);
    });
    assert_eq!(away.broker.client(&format!("client-{COUNT}")).unwrap().queued, 1_000);
}

struct Host {
    broker: Broker,
    clients: Vec<ConnectionId>,
}

impl Host {
    fn measure(
        &mut self,
        what: &str,
        count: usize,
        limit: usize,
        mut add: impl FnMut(&mut Self, usize),
    ) {
        self.clients.reserve(count);
        let region = Region::new();
        (0..count).for_each(|i| add(self, i));
        let change = region.change();
        let count = isize::try_from(count).unwrap();
        let (asked, blocks) = (change.bytes_held / count, change.bytes_of_blocks / count);
        println!("{asked:8} {blocks:8} {limit:8}  {what}");
    }

    fn connect(&mut self, number: usize, expiry: Option<u32>) {
        let id = self.broker.open(NOW);
        self.clients.push(id);
        let properties =
            ConnectProperties { session_expiry_interval: expiry, ..ConnectProperties::default() };
        let name = format!("client-{number}");
        let connect = Connect { properties, keep_alive: 60, ..Connect::new(Version::V5_0, &name) };
        self.give(id, connect.into());
    }

    fn subscribe(&mut self, number: usize, filter: &str) {
        let subscriptions = [Subscription::new(filter, QoS::AtLeastOnce)];
        let identifier = PacketIdentifier::new(1).unwrap();
        self.give(self.clients[number], Subscribe::new(identifier, &subscriptions).into());
    }

    fn publish(&mut self, number: usize, topic: &str, qos: QoS) {
        let packet_identifier = PacketIdentifier::new(1);
        let publish = Publish { qos, packet_identifier, ..Publish::new(topic, &[b'x'; 64]) };
        self.give(self.clients[number], publish.into());
    }

    fn give(&mut self, id: ConnectionId, packet: Packet<'_>) {
        let mut bytes = Vec::new();
        codec::encode(&packet, Version::V5_0, &mut bytes).unwrap();
        assert!(!self.broker.handle_input(id, &mut &bytes[..], NOW));
        while let Some(action) = self.broker.poll_action() {
            match action {
                Action::Ask(question, _) => {
                    self.broker.accept(question, Admission::default(), NOW).unwrap();
                }
                Action::Ready(id) => while self.broker.transmit(id, NOW, &mut Vec::new()) {},
                _ => {}
            }
        }
        while self.broker.poll_timeout().is_some_and(|due| due <= NOW) {
            self.broker.handle_timeout(NOW);
        }
    }
}
