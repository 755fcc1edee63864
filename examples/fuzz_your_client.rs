//! Fuzzes a client in any language with the wire vectors and mutants of them.
//!
//! The client connects to this program, which accepts it and then sends one invalid packet. The
//! client must end the connection, and a client of 5.0 should say why.
//!
//! ```sh
//! cargo run -p mqtt-sansio-examples --example fuzz_your_client -- \
//!     mosquitto_sub -V 5 -t x -p PORT
//! ```

use mqtt_sansio::Instant;
use mqtt_sansio::codec::{self, ConnackProperties, Packet, ReasonCode, Role, Rules, Version};
use mqtt_sansio::server::{Action, Server, ServerConfig};
use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

fn main() -> io::Result<()> {
    let command: Vec<_> = std::env::args().skip(1).collect();
    let [program, arguments @ ..] = command.as_slice() else {
        return Err(io::Error::other("expected the command of a client, with PORT for the port"));
    };
    let start = |port: u16| {
        let arguments = arguments.iter().map(|one| one.replace("PORT", &port.to_string()));
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    };
    let (mut tried, mut faults) = (0, 0);
    for case in invalid_vectors().into_iter().chain(mutants(1_000)) {
        let mut client = None;
        let answer = try_client(&case.bytes, |port| client = Some(start(port)));
        if let Some(Ok(mut client)) = client {
            client.kill()?;
            client.wait()?;
        }
        tried += 1;
        match answer? {
            Answer::Open => {
                faults += 1;
                println!("accepts {}: {:02x?}", case.name, case.bytes);
            }
            Answer::Closed(Some(code)) if code != case.reason_code => {
                println!("answers {} with {code}, expected {}", case.name, case.reason_code);
            }
            Answer::Closed(_) => {}
        }
    }
    println!("{faults} of {tried} invalid packets were accepted");
    Ok(())
}

/// A packet that a client of 5.0 must refuse.
struct Case {
    name: String,
    bytes: Vec<u8>,
    reason_code: ReasonCode,
}

/// The answer of the client to an invalid packet.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The client continues, which is a fault.
    Open,
    /// The client closes the connection, with the code of its DISCONNECT if it sends one.
    Closed(Option<ReasonCode>),
}

/// Accepts the client that `start` starts, and sends it the packet.
fn try_client(packet: &[u8], start: impl FnOnce(u16)) -> io::Result<Answer> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    start(listener.local_addr()?.port());
    let (mut socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let now = Instant::from_millis(0);
    let mut server = Server::new(ServerConfig::new(), now);
    let (mut received, mut out) = (Vec::new(), Vec::new());
    let mut chunk = [0; 4096];
    while !server.is_connected() {
        let count = socket.read(&mut chunk)?;
        received.extend_from_slice(&chunk[..count]);
        let mut input = received.as_slice();
        if let Some(Action::Connect(connect)) = server.handle_input(&mut input, now, &mut out) {
            let mut properties = ConnackProperties::default();
            if connect.client_identifier.is_empty() {
                properties.assigned_client_identifier = Some("fuzzed".into());
            }
            server.accept(None, properties, now, &mut out).map_err(io::Error::other)?;
        }
        let taken = received.len() - input.len();
        received.drain(..taken);
    }
    socket.write_all(&out)?;
    // The client can close the connection before it has read all bytes.
    let _ = socket.write_all(packet);
    loop {
        match socket.read(&mut chunk) {
            Ok(count @ 1..) => received.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Answer::Open),
            _ => break,
        }
    }
    let mut code = None;
    while let Ok(Some(frame)) = codec::frame(&received, u32::MAX) {
        if let Ok(Packet::Disconnect(disconnect)) = codec::decode(frame, Version::V5_0) {
            code = Some(disconnect.reason_code);
        }
        received.drain(..frame.as_bytes().len());
    }
    Ok(Answer::Closed(code))
}

/// Returns the vectors with an error that a server can send.
fn invalid_vectors() -> Vec<Case> {
    let invalid = vectors().into_iter().filter_map(|(name, bytes, vector)| {
        let reason_code = u8::try_from(vector.get("reason_code")?.as_integer()?).ok()?.into();
        Some(Case { name, bytes, reason_code })
    });
    invalid.collect()
}

/// Returns valid packets with a few wrong bytes, which the codec judges.
fn mutants(count: usize) -> impl Iterator<Item = Case> {
    let mut valid = vectors();
    valid.retain(|(_, _, vector)| vector.contains_key("packet"));
    let mut state = 1_u64;
    let mut random = move |below: usize| {
        // xorshift64: the same mutants in each run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mutants = std::iter::from_fn(move || {
        let (name, mut bytes, _) = valid[random(valid.len())].clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        Some((format!("mutant of {name}"), bytes))
    });
    let rules = Rules::new(Version::V5_0).sent_by(Role::Server);
    let invalid = mutants.filter_map(move |(name, bytes)| {
        let error = match codec::frame(&bytes, u32::MAX) {
            Ok(Some(frame)) => codec::decode(frame, rules).err()?,
            Ok(None) => return None,
            Err(error) => error,
        };
        Some(Case { name, bytes, reason_code: error.reason_code() })
    });
    invalid.take(count)
}

/// Returns the short vectors of 5.0 that a server, or either side, sends, with their bytes.
/// `spec-vectors/README.md` describes them.
fn vectors() -> Vec<(String, Vec<u8>, toml::Table)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../spec-vectors/v5.0");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        let file: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        for vector in file["vector"].as_array().into_iter().flatten() {
            let vector = vector.as_table().unwrap();
            let bytes = hex(vector["bytes"].as_str().unwrap());
            if vector["from"].as_str() != Some("client") && bytes.len() < LONG {
                let file = path.file_stem().unwrap_or_default().to_string_lossy();
                let name = format!("{file}/{}", vector["name"].as_str().unwrap());
                all.push((name, bytes, vector.clone()));
            }
        }
    }
    all
}

/// The length from which vectors are left out. Some have 256 MB.
const LONG: usize = 1024;

/// Reads pairs of hex digits. `61*300` is a byte 300 times, and `#` begins a comment.
fn hex(text: &str) -> Vec<u8> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let words = lines.flat_map(str::split_whitespace).flat_map(|word| {
        let (digits, times) = word.split_once('*').unwrap_or((word, "1"));
        let byte = u8::from_str_radix(digits, 16).unwrap();
        std::iter::repeat_n(byte, times.parse().unwrap())
    });
    words.take(LONG).collect()
}

#[cfg(test)]
#[path = "blocking_client.rs"]
#[expect(dead_code, reason = "its `main` is not used")]
mod blocking_client;

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::spawn;

    #[test]
    fn blocking_client_refuses_each_invalid_packet_with_its_code() {
        let cases: Vec<_> = invalid_vectors().into_iter().chain(mutants(200)).collect();
        assert!(cases.len() > 1_300, "{}", cases.len());
        for Case { name, bytes, reason_code } in cases {
            let answer = try_client(&bytes, |port| {
                spawn(move || {
                    let server = format!("127.0.0.1:{port}");
                    let mut connection = blocking_client::Connection::open(&server, None).unwrap();
                    // Until the machine closes the connection.
                    connection.wait_for(|_| None::<()>).unwrap_err();
                });
            });
            assert_eq!(answer.unwrap(), Answer::Closed(Some(reason_code)), "{name} {bytes:02x?}");
        }
    }

    /// A client that does not look at what it receives.
    #[test]
    fn careless_client_is_found() {
        let case = invalid_vectors().remove(0);
        let answer = try_client(&case.bytes, |port| {
            spawn(move || {
                let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
                socket.write_all(b"\x10\x0d\0\x04MQTT\x05\x02\0\0\0\0\0").unwrap();
                let _ = io::copy(&mut socket, &mut io::sink());
            });
        });
        assert_eq!(answer.unwrap(), Answer::Open);
    }
}
