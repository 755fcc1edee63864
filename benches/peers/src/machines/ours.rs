//! mqtt-sansio, with the loop of its documentation: the host keeps the bytes of half a packet, and
//! reads each topic as a `&str`, as most peers do when they decode.

use crate::machine::{self, Host, Machine};
use mqtt_sansio::Instant;
use mqtt_sansio::client::{self, ClientConfig};
use mqtt_sansio::codec::{ConnackProperties, Publish, QoS, Version};
use mqtt_sansio::server::{self, ServerConfig};
use mqtt_sansio::session::{Key, Message, Outcome, Outgoing, Published};

const NOW: Instant = Instant::from_millis(1);

#[derive(Default)]
struct Buffers {
    received: Vec<u8>,
    out: Vec<u8>,
}

impl Buffers {
    /// Receives bytes. `step` takes one step, and returns false when no action is left.
    fn receive(&mut self, bytes: &[u8], mut step: impl FnMut(&mut &[u8], &mut Vec<u8>) -> bool) {
        self.received.extend_from_slice(bytes);
        let mut input = self.received.as_slice();
        while step(&mut input, &mut self.out) {}
        let taken = self.received.len() - input.len();
        self.received.drain(..taken);
    }

    fn written<R>(&mut self, write: impl FnOnce(&[u8]) -> R) -> R {
        let result = write(&self.out);
        self.out.clear();
        result
    }
}

fn completed(published: &Published<'_>, host: &mut impl Host) {
    match &published.outcome {
        Outcome::Acknowledged { reason_code, .. } if !reason_code.is_error() => {
            host.completed(published.key)
        }
        other => panic!("{other:?}"),
    }
}

/// Keeps a copy of each message with QoS 1 or 2 in an allocation of its own.
pub struct Client {
    client: client::Client,
    key: u64,
    buffers: Buffers,
}

impl Client {
    pub fn connected(version: Version, in_flight: u16) -> Self {
        let mut client = client::Client::new(ClientConfig::new().maximum_in_flight(in_flight));
        let mut buffers = Buffers::default();
        client
            .connect(&machine::connect(version, in_flight), NOW, &mut buffers.out)
            .expect("no connection before it");
        buffers.receive(
            &machine::encoded(machine::connack(version, in_flight), version),
            |input, out| client.handle_input(input, NOW, out).is_some(),
        );
        assert!(client.is_connected());
        buffers.out.clear();
        Self { client, key: 0, buffers }
    }
}

impl Machine for Client {
    type Outgoing = Publish<'static>;

    fn outgoing(qos: QoS) -> Publish<'static> {
        machine::message(qos)
    }

    fn publish(&mut self, message: Publish<'static>) -> u64 {
        self.key += 1;
        self.client.publish(self.key, &message, NOW, &mut self.buffers.out).expect("it is allowed");
        self.key
    }

    fn receive(&mut self, bytes: &[u8], host: &mut impl Host) {
        self.buffers.receive(bytes, |input, out| {
            match self.client.handle_input(input, NOW, out) {
                Some(client::Action::Message(message)) => {
                    host.message(message.topic_name.to_str().as_bytes(), message.payload)
                }
                Some(client::Action::Published(published)) => completed(&published, host),
                None => return false,
                Some(other) => panic!("{other:?}"),
            }
            true
        });
    }

    fn written<R>(&mut self, write: impl FnOnce(&[u8]) -> R) -> R {
        self.buffers.written(write)
    }
}

/// Receives messages in an allocation of their own, which the messages for other clients would
/// share.
pub struct Server {
    server: server::Server,
    key: u64,
    buffers: Buffers,
}

impl Server {
    pub fn connected(version: Version, in_flight: u16) -> Self {
        let mut server = server::Server::new(ServerConfig::new().maximum_in_flight(in_flight), NOW);
        let mut buffers = Buffers::default();
        buffers.receive(
            &machine::encoded(machine::connect(version, in_flight), version),
            |input, out| {
                let asked = server.handle_input(input, NOW, out).is_some();
                if asked {
                    server
                        .accept(None, ConnackProperties::default(), NOW, out)
                        .expect("it was asked");
                }
                asked
            },
        );
        assert!(server.is_connected());
        buffers.out.clear();
        Self { server, key: 0, buffers }
    }
}

impl Machine for Server {
    type Outgoing = Outgoing;

    fn outgoing(qos: QoS) -> Outgoing {
        Outgoing::new(Some(0), Message::new(&machine::message(qos)).expect("a message"))
    }

    fn publish(&mut self, message: Outgoing) -> u64 {
        self.key += 1;
        self.server
            .deliver(Outgoing { key: Key::new(self.key), ..message }, NOW)
            .expect("there is room");
        let _ = self.server.flush(NOW, &mut self.buffers.out);
        self.key
    }

    fn receive(&mut self, bytes: &[u8], host: &mut impl Host) {
        self.buffers.receive(bytes, |input, out| {
            match self.server.handle_input(input, NOW, out) {
                Some(server::Action::Message(message)) => {
                    host.message(message.topic_name.to_str().as_bytes(), message.payload)
                }
                Some(server::Action::Published(published)) => completed(&published, host),
                None => return false,
                Some(other) => panic!("{other:?}"),
            }
            true
        });
    }

    fn written<R>(&mut self, write: impl FnOnce(&[u8]) -> R) -> R {
        self.buffers.written(write)
    }
}
