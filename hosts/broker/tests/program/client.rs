//! A client that writes its packets byte by byte, so that it shares no code with the broker.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub(crate) trait Transport: Read + Write + Send {}

impl<T: Read + Write + Send> Transport for T {}

/// Returns a packet with less than 16 KiB.
pub(crate) fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let (low, high) = (body.len() % 128, body.len() / 128);
    let mut packet = vec![first_byte];
    match high {
        0 => packet.push(low as u8),
        _ => packet.extend([low as u8 | 0x80, high as u8]),
    }
    packet.extend(body);
    packet
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// Returns a CONNECT with Clean Session.
pub(crate) fn connect(version: u8, id: &str, user: Option<(&str, &str)>) -> Vec<u8> {
    let mut body = text(if version == 3 { "MQIsdp" } else { "MQTT" });
    body.extend([version, if user.is_some() { 0xC2 } else { 0x02 }, 0, 0]);
    if version == 5 {
        body.push(0);
    }
    body.extend(text(id));
    if let Some((name, password)) = user {
        body.extend([text(name), text(password)].concat());
    }
    packet(0x10, &body)
}

/// Returns a PUBLISH with QoS 0 for 3.1.1.
pub(crate) fn publish(topic: &str, payload: &str) -> Vec<u8> {
    packet(0x30, &[&text(topic), payload.as_bytes()].concat())
}

pub(crate) struct Client {
    pub(crate) transport: Box<dyn Transport>,
}

impl Client {
    pub(crate) fn new(transport: impl Transport + 'static) -> Self {
        Self { transport: Box::new(transport) }
    }

    pub(crate) fn tcp(address: &str) -> Self {
        Self::new(open(address))
    }

    /// Connects, and must be accepted.
    pub(crate) fn connected(address: &str, id: &str, user: Option<(&str, &str)>) -> Self {
        let mut client = Self::tcp(address);
        assert_eq!(client.connect(4, id, user), 0);
        client
    }

    /// Returns the reason code of CONNACK.
    pub(crate) fn connect(&mut self, version: u8, id: &str, user: Option<(&str, &str)>) -> u8 {
        self.send(&connect(version, id, user));
        let connack = self.receive();
        assert_eq!(connack[0], 0x20, "{connack:?}");
        connack[2 + 1]
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.transport.write_all(bytes).unwrap();
        self.transport.flush().unwrap();
    }

    /// Returns the next packet, which has less than 128 bytes.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 2];
        self.transport.read_exact(&mut packet).unwrap();
        assert!(packet[1] < 128);
        packet.resize(2 + usize::from(packet[1]), 0);
        self.transport.read_exact(&mut packet[2..]).unwrap();
        packet
    }

    /// Subscribes with QoS 0. Returns the reason code of SUBACK.
    pub(crate) fn subscribe(&mut self, filter: &str) -> u8 {
        self.send(&packet(0x82, &[&[0, 1], &text(filter)[..], &[0]].concat()));
        let suback = self.receive();
        assert_eq!(suback[..4], [0x90, 3, 0, 1]);
        suback[4]
    }

    pub(crate) fn publish(&mut self, topic: &str, payload: &str) {
        self.send(&publish(topic, payload));
    }

    /// Sends PINGREQ, and expects that nothing comes before its answer.
    pub(crate) fn ping(&mut self) {
        self.send(&[0xC0, 0]);
        assert_eq!(self.receive(), [0xD0, 0]);
    }

    pub(crate) fn expect(&mut self, topic: &str, payload: &str) {
        assert_eq!(String::from_utf8(self.receive()), String::from_utf8(publish(topic, payload)));
    }

    /// Expects that the broker closes the connection. Returns what comes before.
    pub(crate) fn expect_end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        if let Err(error) = self.transport.read_to_end(&mut rest) {
            // The broker has not read all.
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        rest
    }
}

pub(crate) fn open(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}
