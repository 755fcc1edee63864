//! A QoS 1 message that another node sends again has DUP.

use crate::programs::{self, Cluster, has};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const CONNECT: &[u8] = b"\x10\x0F\0\x04MQTT\x04\0\0\x3C\0\x03dup";
const SUBSCRIBE: &[u8] = b"\x82\x0A\0\x01\0\x05dup/#\x01";
const SUBACK: &[u8] = b"\x90\x03\0\x01\x01";

/// Connects, and returns the connection if the node accepts it, with Session Present.
fn connect(node: SocketAddr) -> Option<(TcpStream, bool)> {
    let mut stream = TcpStream::connect_timeout(&node, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(CONNECT).ok()?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).ok()?;
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:x?}");
    Some((stream, connack[2] == 1))
}

/// Reads a PUBLISH with QoS 1, and returns its DUP flag, its identifier and its payload.
fn read_publish(stream: &mut TcpStream) -> (bool, u16, String) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0] & !8, 0x32, "{head:x?}");
    let mut rest = vec![0; usize::from(head[1])];
    stream.read_exact(&mut rest).unwrap();
    let payload = String::from_utf8(rest[9..].to_vec()).unwrap();
    (head[0] & 8 > 0, u16::from_be_bytes([rest[7], rest[8]]), payload)
}

// [5.0 MQTT-3.3.1-1] [5.0 MQTT-4.4.0-1]
#[test]
fn unacknowledged_message_has_dup_at_another_node() {
    if !has("nats-server") || !has("mosquitto_pub") {
        return;
    }
    let mut cluster = Cluster::start();
    let (nodes, ports) = (cluster.nodes(), cluster.ports());
    let (mut stream, _) = connect(nodes[0]).unwrap();
    stream.write_all(SUBSCRIBE).unwrap();
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).unwrap();
    assert_eq!(suback, SUBACK);
    programs::mosquitto_pub(ports[1], &["-t", "dup/1", "-m", "one", "-q", "1"]);
    let (is_repeated, identifier, payload) = read_publish(&mut stream);
    assert_eq!((is_repeated, &*payload), (false, "one"));
    // The other node asks this one, which knows what it has sent.
    let (mut stream, is_present) = connect(nodes[1]).unwrap();
    assert!(is_present);
    assert_eq!(read_publish(&mut stream), (true, identifier, "one".into()));
    programs::mosquitto_pub(ports[2], &["-t", "dup/2", "-m", "two", "-q", "1"]);
    let (is_repeated, _, payload) = read_publish(&mut stream);
    assert_eq!((is_repeated, &*payload), (false, "two"));
    // This node is lost, and with it what it has sent last.
    cluster.kill_broker(1);
    programs::mosquitto_pub(ports[0], &["-t", "dup/3", "-m", "three", "-q", "1"]);
    let deadline = Instant::now() + Duration::from_secs(30);
    let (mut stream, is_present) = loop {
        match connect(nodes[2]) {
            Some(connected) => break connected,
            None => assert!(Instant::now() < deadline, "{}", cluster.logs()),
        }
    };
    assert!(is_present);
    let repeated = [(); 2].map(|()| read_publish(&mut stream));
    assert_eq!(
        repeated.each_ref().map(|(dup, _, text)| (*dup, &**text)),
        [(true, "one"), (true, "two")]
    );
    // One that was published after the loss has possibly been sent, as far as the node knows.
    assert_eq!(read_publish(&mut stream).2, "three");
    programs::mosquitto_pub(ports[0], &["-t", "dup/4", "-m", "four", "-q", "1"]);
    let (is_repeated, _, payload) = read_publish(&mut stream);
    assert_eq!((is_repeated, &*payload), (false, "four"));
}
