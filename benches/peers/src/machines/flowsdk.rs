//! flowsdk: its client without I/O. For servers it has only a session of packets, without bytes or
//! a connection, which does not report the outcome of a message.

use crate::cases::{PAYLOAD, TOPIC};
use crate::machine::{self, Host, Machine};
use flowsdk::mqtt_client::{MqttClientOptions, MqttEvent, PortableNoIoMqttClient, PublishCommand};
use flowsdk::time::Timestamp;
use mqtt_sansio::codec::{QoS, Version};

const NOW: Timestamp = Timestamp::ZERO;

pub struct Client(PortableNoIoMqttClient);

impl Client {
    pub fn connected(version: Version, in_flight: u16) -> Self {
        let (level, options) =
            (if version == Version::V5_0 { 5 } else { 4 }, MqttClientOptions::builder());
        let options = options
            .mqtt_version(level)
            .client_id("client-0001")
            .clean_start(false)
            .receive_maximum(in_flight);
        let options = if level == 5 { options.session_expiry_interval(3_600) } else { options };
        let mut client = PortableNoIoMqttClient::new_at(options.build(), NOW);
        client.connect_at(NOW).expect("no connection before it");
        client.take_outgoing_at(NOW).expect("a CONNECT");
        let connack = machine::encoded(machine::connack(version, in_flight), version);
        client.handle_incoming_at(&connack, NOW).expect("time goes on");
        assert!(client.is_connected());
        Self(client)
    }
}

impl Machine for Client {
    type Outgoing = PublishCommand;

    fn outgoing(qos: QoS) -> PublishCommand {
        PublishCommand::simple(TOPIC, PAYLOAD[..64].to_vec(), qos.as_u8(), false)
    }

    fn publish(&mut self, message: PublishCommand) -> u64 {
        self.0.publish_at(message, NOW).expect("it is allowed").unwrap_or(0).into()
    }

    fn receive(&mut self, bytes: &[u8], host: &mut impl Host) {
        for event in self.0.handle_incoming_at(bytes, NOW).expect("time goes on") {
            match event {
                MqttEvent::MessageReceived(message) => {
                    host.message(message.topic_name.as_bytes(), &message.payload)
                }
                MqttEvent::Published(published) => {
                    host.completed(published.packet_id.unwrap_or(0).into())
                }
                MqttEvent::PublishReceived { .. } | MqttEvent::PubRelReceived { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn written<R>(&mut self, write: impl FnOnce(&[u8]) -> R) -> R {
        if self.0.has_pending_output() {
            write(&self.0.take_outgoing_at(NOW).expect("time goes on"))
        } else {
            write(&[])
        }
    }
}
