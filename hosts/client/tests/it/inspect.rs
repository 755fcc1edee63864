//! `inspect`, over captures that these tests write.

use crate::support::{Broker, Folder, kinds};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

fn inspect(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    command.arg("inspect").args(arguments).output().unwrap()
}

/// Returns a raw IPv4 packet with a TCP segment from one port to another.
fn segment(from: u16, to: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(40 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    if from == 1883 {
        packet[12..20].rotate_left(4);
    }
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    packet.extend(payload);
    packet
}

/// Returns a pcap file with one packet each millisecond.
fn pcap(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut file = vec![0xD4, 0xC3, 0xB2, 0xA1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend(65_535_u32.to_le_bytes());
    // Raw IP.
    file.extend(101_u32.to_le_bytes());
    for (number, packet) in (0_u32..).zip(packets) {
        let length = u32::try_from(packet.len()).unwrap();
        for field in [1_700_000_000, number * 1000, length, length] {
            file.extend(field.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

const CONNECT: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01a";
const PUBLISH: &[u8] = b"\x32\x0c\0\x06room/4\0\x0721";

/// Segments out of order, sent twice, and cut within packets.
#[test]
fn capture_is_put_together_from_segments() {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    let folder = Folder::new();
    let start = u32::MAX - 5; // The numbers wrap.
    let at = |offset: usize| start.wrapping_add(1).wrapping_add(u32::try_from(offset).unwrap());
    let stream = [CONNECT, PUBLISH].concat();
    let to_server = |from: usize, to: usize| segment(5000, 1883, at(from), ACK, &stream[from..to]);
    let packets = [
        segment(5000, 1883, start, SYN, b""),
        segment(1883, 5000, 99, SYN | ACK, b""),
        to_server(0, 4),
        to_server(10, 20),
        to_server(4, 10),
        segment(1883, 5000, 100, ACK, b"\x20\x02\0\0"),
        to_server(4, 10),
        to_server(15, stream.len()),
        segment(1883, 5000, 104, ACK, b"\x40\x02\0\x07"),
        // Another protocol on another port.
        segment(6000, 80, 1, ACK, b"GET / HTTP/1.1\r\n"),
    ];
    let file = folder.path("a.pcap");
    std::fs::write(&file, pcap(&packets)).unwrap();
    let output = inspect(&[file.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.split_once("1883 ").unwrap().1).collect();
    assert_eq!(
        lines,
        [
            "→     15 B  CONNECT     version=3.1.1 client=\"a\" clean_start keep_alive=60",
            "←      4 B  CONNACK     code=0x00 (Success)",
            "→     14 B  PUBLISH     topic=\"room/4\" id=7 qos=1 payload=2 bytes \"21\"",
            "←      4 B  PUBACK      id=7  (for room/4 after 1.0 ms)",
        ]
    );
    assert!(output.status.success());
    let json = inspect(&["--json", file.to_str().unwrap()]);
    for line in String::from_utf8(json.stdout).unwrap().lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["version"], "3.1.1");
        assert!(object["fields"].is_object());
    }
}

/// Two connections from the same port, of which the first has a broken packet.
#[test]
fn broken_packet_counts_when_its_port_is_used_again() {
    const SYN: u8 = 2;
    let folder = Folder::new();
    let file = folder.path("a.pcap");
    let connection =
        |payload| [segment(5000, 1883, 0, SYN, b""), segment(5000, 1883, 1, 16, payload)];
    let packets = [connection(b"\x36\x03\0\x01a"), connection(CONNECT)].concat();
    std::fs::write(&file, pcap(&packets)).unwrap();
    assert_eq!(inspect(&[file.to_str().unwrap()]).status.code(), Some(1));
}

/// Of mosquitto's programs, and a program that sends an invalid packet.
#[test]
fn capture_of_mosquitto_is_explained() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../web/tests/mosquitto.pcap");
    let output = inspect(&[file]);
    let text = String::from_utf8(output.stdout).unwrap();
    let count = |name: &str| text.matches(&format!(" B  {name} ")).count();
    assert_eq!((count("CONNECT"), count("PUBLISH"), count("broken: PUBLISH")), (6, 7, 1));
    assert!(text.contains("id=1  (for room/4 after 0.1 ms)"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn damaged_input_is_reported() {
    let folder = Folder::new();
    let file = folder.path("a.pcap");
    let whole = pcap(&[segment(5000, 1883, 1, 16, CONNECT)]);
    for length in 4..whole.len() {
        std::fs::write(&file, &whole[..length]).unwrap();
        // Nothing panics.
        assert!(inspect(&[file.to_str().unwrap()]).status.code().unwrap() < 2, "{length}");
    }
    std::fs::write(&file, pcap(&[segment(5000, 80, 1, 16, b"GET / HTTP/1.1")])).unwrap();
    let output = inspect(&[file.to_str().unwrap()]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("no MQTT packet was found"));
    let text = |arguments: &[&str]| {
        let output = inspect(arguments);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert!(text(&["--hex", "30", "0"]).contains("expected two hex digits for each byte"));
    assert!(text(&["--hex", "zz"]).contains("expected hex digits, got zz"));
    assert!(text(&["no such file"]).contains("cannot read no such file"));
    let broken = text(&["-V", "311", "--hex", "36 03 00 01 61"]);
    assert!(broken.contains("PUBLISH has QoS 3, expected 0, 1 or 2 [3.1.1 MQTT-3.3.1-4]"));
}

#[test]
fn proxy_explains_live_connections() {
    let folder = Folder::new();
    let broker = Broker::start(kinds()[0], &folder);
    let upstream = format!("127.0.0.1:{}", broker.port);
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_client"))
        .args(["inspect", "--proxy", "127.0.0.1:0", &upstream])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(proxy.stderr.take().unwrap()).lines();
    let listening = errors.next().unwrap().unwrap();
    let port = listening.rsplit(':').next().unwrap();
    let publish = ["pub", "-p", port, "-t", "a", "-m", "x", "-q", "2", "-P", "secret", "-u", "me"];
    let status = Command::new(env!("CARGO_BIN_EXE_client")).args(publish).status().unwrap();
    assert!(status.success());
    let lines = BufReader::new(proxy.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut names = Vec::new();
    for line in lines {
        assert!(!line.contains("secret"));
        names.push(line.split(" B  ").nth(1).unwrap().split(' ').next().unwrap().to_owned());
        if names.last().is_some_and(|name| name == "DISCONNECT") {
            break;
        }
    }
    let expected = ["CONNECT", "CONNACK", "PUBLISH", "PUBREC", "PUBREL", "PUBCOMP", "DISCONNECT"];
    assert_eq!(names, expected);
    proxy.kill().unwrap();
    proxy.wait().unwrap();
}
