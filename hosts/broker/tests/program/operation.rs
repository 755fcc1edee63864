//! Figures, the log, and the control socket.

use crate::client::{Client, packet, text};
use crate::{Broker, Directory};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

const LISTEN: [&str; 2] = ["--listen", "tcp://127.0.0.1:0"];

pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn metrics_count_connections_refusals_and_messages() {
    let directory = Directory::new();
    let acl = directory.write("acl", "topic read a\n");
    let flags = [&LISTEN[..], &["--metrics", "127.0.0.1:0", "--acl-file", &acl]].concat();
    let broker = Broker::start(&flags);
    let log = broker.log();
    let (_, rest) = log.split_once("serving figures address=").unwrap();
    let metrics = rest.lines().next().unwrap();
    let mut client = Client::connected(&broker.address("tcp"), "a", None);
    client.publish("b", "not allowed");
    client.ping();
    let will = [&text("MQTT")[..], &[4, 6, 0, 0], &text("w"), &text("b"), &text("will")].concat();
    let mut refused = Client::tcp(&broker.address("tcp"));
    refused.send(&packet(0x10, &will));
    assert_eq!(refused.receive()[3], 5);
    let answer = get(metrics, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for line in [
        "# TYPE mqtt_sessions_connected gauge\nmqtt_sessions_connected 1\n",
        "# TYPE mqtt_messages_received_total counter\nmqtt_messages_received_total{qos=\"0\"} 1\n",
        "mqtt_messages_dropped_total{cause=\"not_authorized\"} 1\n",
        "mqtt_clients_accepted_total 1\n",
        "mqtt_clients_refused_total{reason=\"Not authorized\"} 1\n",
    ] {
        assert!(answer.contains(line), "{line}: {answer}");
    }
    assert!(get(metrics, "/healthz").ends_with("\r\n\r\nok\n"));
    assert!(get(metrics, "/").starts_with("HTTP/1.1 404"));
}

#[test]
fn log_has_json_lines_with_the_same_fields() {
    let flags = [&LISTEN[..], &["--log-format", "json"]].concat();
    let mut broker = Broker::start_without_waiting(&flags);
    broker.wait(|log| log.contains("listening on tcp://"));
    let log = broker.log();
    let (_, rest) = log.split_once("listening on tcp://").unwrap();
    drop(Client::connected(rest.split('"').next().unwrap(), "a\n\"b", None));
    broker.wait(|log| log.contains("connection ended"));
    let log = broker.log();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(last["client"], "a\n\"b");
    assert_eq!(last["version"], "3.1.1");
    assert_eq!(last["cause"], "transport was closed without DISCONNECT");
    assert!(last["address"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[test]
fn log_level_silences_less_important_events() {
    let flags = [&LISTEN[..], &["--log-level", "error", "--metrics", "127.0.0.1:0"]].concat();
    let mut broker = Broker::start_without_waiting(&flags);
    std::thread::sleep(std::time::Duration::from_millis(300));
    broker.signal("-TERM");
    assert!(broker.end());
    assert_eq!(broker.log(), "");
}

#[test]
fn dropped_messages_are_logged_by_cause() {
    let directory = Directory::new();
    let acl = directory.write("acl", "topic read a\n");
    let mut broker = Broker::start(&[&LISTEN[..], &["--acl-file", &acl]].concat());
    let mut client = Client::connected(&broker.address("tcp"), "a", None);
    for _ in 0..100 {
        client.publish("b", "not allowed");
    }
    client.ping();
    broker.wait(|log| log.contains("messages dropped cause=\"not_authorized\" count=100"));
    assert_eq!(broker.log().matches("messages dropped").count(), 1);
}

/// The last interval is cut short.
#[test]
fn dropped_messages_are_logged_when_the_broker_stops() {
    let directory = Directory::new();
    let acl = directory.write("acl", "topic read a\n");
    let mut broker = Broker::start(&[&LISTEN[..], &["--acl-file", &acl]].concat());
    let mut client = Client::connected(&broker.address("tcp"), "a", None);
    client.publish("b", "not allowed");
    client.ping();
    broker.signal("-TERM");
    assert!(broker.end());
    broker.wait(|log| log.contains("messages dropped cause=\"not_authorized\" count=1\n"));
}

#[test]
fn ctl_lists_shows_publishes_disconnects_and_ends() {
    let directory = Directory::new();
    let socket = directory.path("control");
    let mut broker = Broker::start(&[&LISTEN[..], &["--control", &socket]].concat());
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ctl = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        let output = command.args(["ctl", "--socket", &socket]).args(arguments).output().unwrap();
        let text = if output.status.success() { output.stdout } else { output.stderr };
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let mut client = Client::tcp(&broker.address("tcp"));
    assert_eq!(client.connect(5, "one", None), 0);
    let mut other = Client::connected(&broker.address("tcp"), "two", None);
    assert_eq!(other.subscribe("a"), 0);

    let (_, lines) = ctl(&["--json", "list"]);
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["client"], "two");
    assert_eq!(lines[1]["subscriptions"], 1);
    assert_eq!(lines[0]["version"], "5.0");
    assert!(ctl(&["list"]).1.starts_with("CLIENT  CONNECTED  SUBSCRIPTIONS"));
    assert!(ctl(&["show", "two"]).1.contains("127.0.0.1:"));
    assert_eq!(ctl(&["show", "no"]), (false, "error: there is no client \"no\"\n".to_owned()));

    assert!(ctl(&["publish", "a", "text"]).0);
    other.expect("a", "text");
    assert!(!ctl(&["publish", "#", "text"]).0);
    let (_, stats) = ctl(&["stats"]);
    assert!(stats.contains("mqtt_sessions "), "{stats}");

    assert!(ctl(&["disconnect", "one"]).0);
    let disconnect = client.receive();
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x98));
    assert!(ctl(&["end", "two"]).0);
    assert_eq!(other.expect_end(), b"");
    broker.wait(|log| log.matches("connection ended").count() == 2);
    assert_eq!(ctl(&["--json", "list"]), (true, String::new()));
    broker.signal("-TERM");
    assert!(broker.end());
    assert!(!std::path::Path::new(&socket).exists());
}
