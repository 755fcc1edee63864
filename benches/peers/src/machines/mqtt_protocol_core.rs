//! mqtt-protocol-core: each call returns a `Vec` of events. The packets to send are among them, and
//! are gathered in one buffer, as a vectored write would. The timers that it requests are the
//! host's, and not set here. It is configured to acknowledge messages itself.

use crate::cases::{PAYLOAD, TOPIC};
use crate::machine::{self, Host, Machine};
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{Connection, Event, Sendable};
use mqtt_protocol_core::mqtt::packet::{self, GenericPacketTrait, Packet, Qos};
use mqtt_protocol_core::mqtt::{self, ArcPayload, IntoPayload, role};
use mqtt_sansio::codec::{QoS, Version};

/// Gathers the packets to send, and reports the other events to the host.
fn handle(events: Vec<Event>, out: &mut Vec<u8>, host: &mut impl Host) {
    for event in events {
        match event {
            Event::RequestSendPacket { packet, .. } => {
                packet.to_buffers().iter().for_each(|part| out.extend_from_slice(part))
            }
            Event::NotifyPacketReceived(Packet::V3_1_1Publish(publish)) => {
                host.message(publish.topic_name().as_bytes(), publish.payload().as_slice());
            }
            Event::NotifyPacketReceived(Packet::V5_0Publish(publish)) => {
                host.message(publish.topic_name().as_bytes(), publish.payload().as_slice());
            }
            Event::NotifyPacketIdReleased(identifier) => host.completed(identifier.into()),
            Event::NotifyError(error) => panic!("{error:?}"),
            Event::RequestClose => panic!("closes"),
            Event::NotifyPacketReceived(_)
            | Event::RequestTimerReset { .. }
            | Event::RequestTimerCancel(_) => {}
        }
    }
}

/// Packets of the handshake and published packets.
struct Nobody;

impl Host for Nobody {
    fn message(&mut self, _: &[u8], _: &[u8]) {}

    fn completed(&mut self, _: u64) {}
}

macro_rules! version {
    ($version:ident, $ours:path) => {
        pub mod $version {
            use super::*;
            use packet::$version::{Connack, Connect, Publish};

            pub struct Side<Role: role::RoleType> {
                connection: Connection<Role>,
                out: Vec<u8>,
            }

            impl<Role: role::RoleType> Side<Role> {
                fn new() -> Self {
                    let version = if $ours == Version::V5_0 {
                        mqtt::Version::V5_0
                    } else {
                        mqtt::Version::V3_1_1
                    };
                    let mut connection = Connection::new(version);
                    connection.set_auto_pub_response(true);
                    Self { connection, out: Vec::new() }
                }
            }

            pub fn client(in_flight: u16) -> Side<role::Client> {
                let mut side = Side::new();
                let connect = machine::encoded(machine::connect($ours, in_flight), $ours);
                let (connect, _) = Connect::parse(&connect[2..]).expect("a CONNECT");
                handle(side.connection.checked_send(connect), &mut side.out, &mut Nobody);
                side.receive(
                    &machine::encoded(machine::connack($ours, in_flight), $ours),
                    &mut Nobody,
                );
                side.out.clear();
                side
            }

            pub fn server(in_flight: u16) -> Side<role::Server> {
                let mut side = Side::new();
                side.receive(
                    &machine::encoded(machine::connect($ours, in_flight), $ours),
                    &mut Nobody,
                );
                let connack = machine::encoded(machine::connack($ours, in_flight), $ours);
                let (connack, _) = Connack::parse(&connack[2..]).expect("a CONNACK");
                handle(side.connection.checked_send(connack), &mut side.out, &mut Nobody);
                side.out.clear();
                side
            }

            impl<Role: role::RoleType> Machine for Side<Role>
            where
                Publish: Sendable<Role, u16>,
            {
                /// The payload. A packet needs its identifier, so making one, which copies the
                /// topic, is part of publishing.
                type Outgoing = (QoS, ArcPayload);

                fn outgoing(qos: QoS) -> Self::Outgoing {
                    (qos, PAYLOAD[..64].into_payload())
                }

                fn publish(&mut self, (qos, payload): Self::Outgoing) -> u64 {
                    let level = Qos::try_from(qos.as_u8()).expect("0 to 2");
                    let mut publish = Publish::builder()
                        .topic_name(TOPIC)
                        .expect("a topic")
                        .qos(level)
                        .payload(payload);
                    let mut identifier = 0;
                    if qos > QoS::AtMostOnce {
                        identifier = self.connection.acquire_packet_id().expect("one is free");
                        publish = publish.packet_id(identifier);
                    }
                    let publish = publish.build().expect("a PUBLISH");
                    handle(self.connection.checked_send(publish), &mut self.out, &mut Nobody);
                    identifier.into()
                }

                fn receive(&mut self, bytes: &[u8], host: &mut impl Host) {
                    let mut input = Cursor::new(bytes);
                    while input.position() < bytes.len() as u64 {
                        handle(self.connection.recv(&mut input), &mut self.out, host);
                    }
                }

                fn written<R>(&mut self, write: impl FnOnce(&[u8]) -> R) -> R {
                    let result = write(&self.out);
                    self.out.clear();
                    result
                }
            }
        }
    };
}

version!(v3_1_1, Version::V3_1_1);
version!(v5_0, Version::V5_0);
