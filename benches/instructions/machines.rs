//! A client and a server, each against bytes: one message, with all its acknowledgements.

#![expect(
    clippy::inline_always,
    reason = "the harness must not add calls of its own to what is counted"
)]

use crate::samples::TOPIC;
use crate::{Cases, Repeat};
use core::hint::black_box;
use core::ops::Range;
use mqtt_sansio::Instant;
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{
    self, Connack, ConnackProperties, Connect, Packet, PacketIdentifier, Publish, QoS, Version,
};
use mqtt_sansio::server::{self, Server, ServerConfig};
use mqtt_sansio::session::{Message, Outgoing};

const NOW: Instant = Instant::from_millis(1);

pub fn add(cases: &mut Cases) {
    for version in [Version::V3_1_1, Version::V5_0] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let level = qos.as_u8();
            cases.add(format!("client receives {version} QoS {level}"), move || {
                receive(connected_client(version), qos, version)
            });
            cases.add(format!("client sends {version} QoS {level}"), move || {
                send(connected_client(version), qos)
            });
            cases.add(format!("server receives {version} QoS {level}"), move || {
                receive(connected_server(version), qos, version)
            });
            cases.add(format!("server sends {version} QoS {level}"), move || {
                send(connected_server(version), qos)
            });
        }
    }
    for version in [Version::V3_1_1, Version::V5_0] {
        cases.add(format!("client connects {version}"), move || connect(version));
        cases.add(format!("server accepts {version}"), move || accept(version));
    }
}

/// One end of a connection with its buffers.
trait Machine: 'static {
    fn publish(&mut self, key: u64, qos: QoS);
    /// Takes bytes, and counts messages and outcomes.
    fn receive(&mut self, bytes: &[u8]);
    fn out(&mut self) -> &mut Vec<u8>;
    /// Returns the numbers of messages received and acknowledged to their end.
    fn seen(&self) -> (usize, usize);
}

struct ClientEnd {
    client: Client,
    out: Vec<u8>,
    seen: (usize, usize),
}

impl Machine for ClientEnd {
    #[inline(always)]
    fn publish(&mut self, key: u64, qos: QoS) {
        let message = Publish { qos, ..Publish::new(black_box(TOPIC), black_box(&[b'x'; 64])) };
        self.client.publish(key, &message, NOW, &mut self.out).unwrap();
    }

    #[inline(always)]
    fn receive(&mut self, mut bytes: &[u8]) {
        while let Some(action) = self.client.handle_input(&mut bytes, NOW, &mut self.out) {
            match action {
                client::Action::Message(message) => {
                    black_box((message.topic_name.to_str(), message.payload));
                    self.seen.0 += 1;
                }
                client::Action::Published(_) => self.seen.1 += 1,
                other => panic!("{other:?}"),
            }
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn seen(&self) -> (usize, usize) {
        self.seen
    }
}

struct ServerEnd {
    server: Server,
    message: [Message; 3],
    out: Vec<u8>,
    seen: (usize, usize),
}

impl Machine for ServerEnd {
    #[inline(always)]
    fn publish(&mut self, key: u64, qos: QoS) {
        let message = self.message[usize::from(qos.as_u8())].clone();
        self.server.deliver(Outgoing::new(Some(key), message), NOW).unwrap();
        let _ = self.server.flush(NOW, &mut self.out);
    }

    #[inline(always)]
    fn receive(&mut self, mut bytes: &[u8]) {
        while let Some(action) = self.server.handle_input(&mut bytes, NOW, &mut self.out) {
            match action {
                server::Action::Message(message) => {
                    black_box((message.topic_name.to_str(), message.payload));
                    self.seen.0 += 1;
                }
                server::Action::Published(_) => self.seen.1 += 1,
                other => panic!("{other:?}"),
            }
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn seen(&self) -> (usize, usize) {
        self.seen
    }
}

fn connect_packet(version: Version) -> Connect<'static> {
    let mut connect = Connect { keep_alive: 60, ..Connect::new(version, "client-0001") };
    if version == Version::V5_0 {
        connect.properties.session_expiry_interval = Some(3_600);
    }
    connect
}

fn encoded<'a>(packet: impl Into<Packet<'a>>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(&packet.into(), version, &mut bytes).unwrap();
    bytes
}

fn connected_client(version: Version) -> ClientEnd {
    let mut client = Client::new(ClientConfig::new());
    let mut out = Vec::new();
    client.connect(&connect_packet(version), NOW, &mut out).unwrap();
    let connack = encoded(Connack::default(), version);
    assert!(client.handle_input(&mut &connack[..], NOW, &mut out).is_some());
    assert!(client.is_connected());
    out.clear();
    ClientEnd { client, out, seen: (0, 0) }
}

fn accept_connect(version: Version, connect: &[u8], out: &mut Vec<u8>) -> Server {
    let mut server = Server::new(ServerConfig::new(), NOW);
    assert!(server.handle_input(&mut &connect[..], NOW, out).is_some());
    assert_eq!(server.version(), version);
    server.accept(None, ConnackProperties::default(), NOW, out).unwrap();
    server
}

fn connected_server(version: Version) -> ServerEnd {
    let mut out = Vec::new();
    let server = accept_connect(version, &encoded(connect_packet(version), version), &mut out);
    assert!(server.is_connected());
    out.clear();
    let message = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
        .map(|qos| Message::new(&Publish { qos, ..Publish::new(TOPIC, &[b'x'; 64]) }).unwrap());
    ServerEnd { server, message, out, seen: (0, 0) }
}

const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;

/// Returns an acknowledgement that reports success. It has the same bytes in all versions.
fn ack(first: u8, identifier: [u8; 2]) -> [u8; 4] {
    [first, 2, identifier[0], identifier[1]]
}

/// The position of the packet identifier: after a fixed header of two bytes, and the topic name.
const IDENTIFIER: Range<usize> = 4 + TOPIC.len()..6 + TOPIC.len();

/// Receives a PUBLISH, and the PUBREL of a QoS 2 message, and answers each at once.
fn receive(mut machine: impl Machine, qos: QoS, version: Version) -> Repeat {
    let packet_identifier = (qos != QoS::AtMostOnce).then_some(PacketIdentifier::new(1).unwrap());
    let publish = Publish { qos, packet_identifier, ..Publish::new(TOPIC, &[b'x'; 64]) };
    let mut publish = encoded(publish, version);
    Box::new(move |count| {
        for number in 1..=count {
            let identifier = u16::try_from(number).unwrap().to_be_bytes();
            if qos != QoS::AtMostOnce {
                publish[IDENTIFIER].copy_from_slice(&identifier);
            }
            machine.receive(black_box(&publish));
            if qos == QoS::ExactlyOnce {
                machine.receive(&ack(PUBREL, identifier));
            }
            black_box(machine.out()).clear();
        }
        assert_eq!(machine.seen(), (count, 0));
    })
}

/// Sends a PUBLISH and receives its acknowledgements.
fn send(mut machine: impl Machine, qos: QoS) -> Repeat {
    Box::new(move |count| {
        for number in 1..=count {
            machine.out().clear();
            machine.publish(number as u64, qos);
            if qos == QoS::AtMostOnce {
                continue;
            }
            let bytes = &black_box(machine.out())[IDENTIFIER];
            let identifier = [bytes[0], bytes[1]];
            if qos == QoS::ExactlyOnce {
                machine.receive(&ack(PUBREC, identifier));
                machine.receive(&ack(PUBCOMP, identifier));
            } else {
                machine.receive(&ack(PUBACK, identifier));
            }
        }
        let ended = if qos == QoS::AtMostOnce { 0 } else { count };
        assert_eq!(machine.seen(), (0, ended));
    })
}

/// Makes a client, and connects it.
fn connect(version: Version) -> Repeat {
    let connack = encoded(Connack::default(), version);
    let connect = connect_packet(version);
    let mut out = Vec::with_capacity(256);
    Box::new(move |count| {
        for _ in 0..count {
            out.clear();
            let mut client = Client::new(ClientConfig::new());
            client.connect(black_box(&connect), NOW, &mut out).unwrap();
            assert!(client.handle_input(&mut &connack[..], NOW, &mut out).is_some());
            black_box(&client);
        }
    })
}

/// Makes a server, and accepts a client.
fn accept(version: Version) -> Repeat {
    let connect = encoded(connect_packet(version), version);
    let mut out = Vec::with_capacity(256);
    Box::new(move |count| {
        for _ in 0..count {
            out.clear();
            black_box(&accept_connect(version, black_box(&connect), &mut out));
        }
    })
}
