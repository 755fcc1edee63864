//! Mosquitto's clients and paho-mqtt.

use super::{Broker, Directory, has, skip};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

/// A subscriber that is killed at the end of the test.
struct Subscriber(Child);

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Subscriber {
    /// Starts a subscriber, and gives it time to subscribe.
    fn start(port: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", port]).args(arguments).args(["-W", "60"]);
        let subscriber = command.stdout(Stdio::piped()).spawn().unwrap();
        sleep(Duration::from_millis(400));
        Self(subscriber)
    }

    /// Returns all output of the process, after it has ended.
    fn output(mut self) -> Vec<u8> {
        let mut output = Vec::new();
        self.0.stdout.take().unwrap().read_to_end(&mut output).unwrap();
        let status = self.0.wait().unwrap();
        assert!(
            status.success(),
            "{status} {}",
            String::from_utf8_lossy(&output[..output.len().min(200)])
        );
        output
    }
}

fn publish(port: &str, arguments: &[&str]) {
    publish_from(port, arguments, Stdio::null());
}

fn publish_from(port: &str, arguments: &[&str], input: Stdio) {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", port]).args(arguments).stdin(input);
    let status = command.status().unwrap();
    assert!(status.success(), "{arguments:?}: {status}");
}

/// Tests every version and QoS, a message of 16 MiB, retained messages, a will, and a subscriber
/// that was offline.
fn exchange(port: &str, folder: &Directory) {
    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            let subscriber =
                Subscriber::start(port, &["-V", version, "-q", qos, "-t", "a/#", "-C", "3"]);
            // By one client, because messages with QoS 0 of several have no order.
            let lines = folder.write("lines", "one\ntwo\nthree\n");
            let arguments = ["-V", version, "-q", qos, "-t", "a/b", "-l"];
            publish_from(port, &arguments, File::open(lines).unwrap().into());
            assert_eq!(subscriber.output(), b"one\ntwo\nthree\n", "{version} QoS {qos}");
        }
        publish(port, &["-V", version, "-t", "kept", "-m", "retained", "-r", "-q", "1"]);
        assert_eq!(
            Subscriber::start(port, &["-V", version, "-t", "kept", "-C", "1"]).output(),
            b"retained\n"
        );
        publish(port, &["-V", version, "-t", "kept", "-n", "-r", "-q", "1"]);

        // A subscriber gets the retained message, and those after it.
        publish(port, &["-V", version, "-t", "kept/1", "-m", "old", "-r", "-q", "1"]);
        let subscriber = Subscriber::start(port, &["-V", version, "-t", "kept/#", "-C", "3"]);
        publish(port, &["-V", version, "-t", "kept/1", "-m", "new", "-q", "1"]);
        publish(port, &["-V", version, "-t", "kept/2", "-m", "newer", "-q", "1"]);
        assert_eq!(subscriber.output(), b"old\nnew\nnewer\n");
        publish(port, &["-V", version, "-t", "kept/1", "-n", "-r", "-q", "1"]);

        let watcher = Subscriber::start(port, &["-V", version, "-t", "will", "-C", "1"]);
        drop(Subscriber::start(
            port,
            &["-V", version, "-t", "x", "--will-topic", "will", "--will-payload", "killed"],
        ));
        assert_eq!(watcher.output(), b"killed\n");

        // Mosquitto's subscriber delivers a QoS 2 message on PUBREL, so the order holds for each
        // QoS.
        for qos in ["1", "2"] {
            let name = format!("{version}-{qos}");
            let session = |count| {
                let mut arguments =
                    vec!["-V", version, "-i", &name, "-c", "-q", "2", "-t", "away", "-C", count];
                arguments.extend(if version == "mqttv5" { &["-x", "300"][..] } else { &[] });
                Subscriber::start(port, &arguments)
            };
            let subscriber = session("1");
            publish(port, &["-V", version, "-q", "1", "-t", "away", "-m", "here"]);
            assert_eq!(subscriber.output(), b"here\n");
            let expected = ["one", "two", "three", "four", "five"];
            for message in expected {
                publish(port, &["-V", version, "-q", qos, "-t", "away", "-m", message]);
            }
            assert_eq!(
                String::from_utf8(session("5").output()).unwrap(),
                expected.join("\n") + "\n"
            );
        }
    }
    let (file, payload) = large_file(folder);
    for version in VERSIONS {
        let mut subscriber =
            Subscriber::start(port, &["-V", version, "-q", "2", "-t", "large", "-C", "1", "-N"]);
        let output = read_all(subscriber.0.stdout.take().unwrap());
        publish(port, &["-V", version, "-q", "2", "-t", "large", "-f", file.to_str().unwrap()]);
        assert!(output.join().unwrap() == payload, "{version}: 16 MiB arrive intact");
    }
}

fn read_all(mut output: ChildStdout) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

fn large_file(folder: &Directory) -> (PathBuf, Vec<u8>) {
    let mut state = 1_u32;
    let payload: Vec<u8> = (0..16 << 20)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect();
    let path = folder.0.join("large");
    File::create(&path).unwrap().write_all(&payload).unwrap();
    (path, payload)
}

#[test]
fn mosquitto_clients_work_with_the_broker_program() {
    if has("mosquitto_sub") && has("mosquitto_pub") {
        let broker = Broker::start(&["--listen", "tcp://127.0.0.1:0"]);
        exchange(&broker.port("tcp"), &Directory::new());
    }
}

#[test]
fn paho_clients_work_with_the_broker_program() {
    if has_paho() {
        let broker = Broker::start(&["--listen", "tcp://127.0.0.1:0"]);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program/paho_clients.py");
        let status = Command::new("python3").arg(script).arg(broker.port("tcp")).status().unwrap();
        assert!(status.success(), "{status}");
    }
}

/// Whether paho-mqtt 2 is installed. If CI is set, it must be.
fn has_paho() -> bool {
    let import = "import paho.mqtt.client as c; c.CallbackAPIVersion";
    let command = || Command::new("python3").args(["-c", import]).stderr(Stdio::null()).status();
    let found = has("python3") && command().is_ok_and(|status| status.success());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "paho-mqtt 2 is not installed");
        skip("paho-mqtt 2 is missing");
    }
    found
}
