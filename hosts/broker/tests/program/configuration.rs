//! The configuration file.

use crate::client::{Client, connect};
use crate::{Broker, Directory};

/// Returns whether CONNACK has this Maximum QoS.
fn has_maximum_qos(broker: &Broker, qos: u8) -> bool {
    let mut client = Client::tcp(&broker.address("tcp"));
    client.send(&connect(5, "a", None));
    client.receive().windows(2).any(|bytes| bytes == [0x24, qos])
}

#[test]
fn command_line_takes_precedence_over_configuration_file() {
    let directory = Directory::new();
    let file = directory.write("broker.toml", "listen = [\"tcp://127.0.0.1:0\"]\nmax-qos = 1\n");
    for (flags, qos) in [(&[][..], 1), (&["--max-qos", "0"], 0)] {
        let flags = [&["--config", &file], flags].concat();
        let mut broker = Broker::start_without_waiting(&flags);
        broker.wait(|log| log.contains("listening on tcp://127.0.0.1:"));
        assert!(has_maximum_qos(&broker, qos), "{flags:?}");
    }
}

#[test]
fn listener_has_settings_of_its_own() {
    let directory = Directory::new();
    let acl = directory.write("acl", "topic read a\n");
    let file = directory.write(
        "broker.toml",
        &format!(
            "listen = [\"tcp://127.0.0.1:0\"]\nmax-qos = 2\n\
             [[listener]]\nlisten = \"tcp://127.0.0.1:0?proxy\"\n\
             max-qos = 1\nmax-packet-size = 100\nacl-file = {acl:?}\nmax-connections = 1\n"
        ),
    );
    let mut broker = Broker::start_without_waiting(&["--config", &file]);
    broker.wait(|log| log.matches("listening on tcp://127.0.0.1:").count() == 2);
    let log = broker.log();
    let (_, rest) = log.rsplit_once("listening on tcp://").unwrap();
    let own = rest.lines().next().unwrap().strip_suffix("?proxy").unwrap();
    let open = || {
        let mut client = Client::tcp(own);
        client.send(b"PROXY TCP4 1.2.3.4 5.6.7.8 9 1883\r\n");
        client
    };
    let mut reader = Client::connected(&broker.address("tcp"), "reader", None);
    assert_eq!(reader.subscribe("#"), 0);
    let mut client = open();
    client.send(&connect(5, "a", None));
    let connack = client.receive();
    assert_eq!(connack[3], 0);
    assert!(connack.windows(2).any(|bytes| bytes == [0x24, 1]), "Maximum QoS: {connack:?}");
    assert!(connack.windows(5).any(|bytes| bytes == [0x27, 0, 0, 0, 100]), "{connack:?}");
    client.send(b"\x30\x05\0\x01b\0x");
    client.ping();
    reader.ping();
    assert_eq!(open().connect(5, "b", None), 0x97);
    let mut other = Client::connected(&broker.address("tcp"), "c", None);
    other.publish("b", &"x".repeat(110));
    reader.expect("b", &"x".repeat(110));
}

#[test]
fn check_config_reports_the_first_error() {
    let directory = Directory::new();
    let passwords = directory.write("passwords", "joe:plain\n");
    let bad = directory.write("bad.toml", "max-qos = 3\n");
    let good = directory.write("good.toml", "max-qos = 1\n");
    for (flags, expected) in [
        (["--config", &bad], "invalid value '3' for '--max-qos"),
        (["--config", "missing.toml"], "missing.toml: No such file"),
        (["--password-file", &passwords], "passwords: line 1: expected a hash"),
    ] {
        let flags = [&flags[..], &["--check-config"]].concat();
        let mut broker = Broker::start_without_waiting(&flags);
        assert!(!broker.end());
        broker.wait(|log| log.contains(expected));
    }
    assert!(Broker::start_without_waiting(&["--config", &good, "--check-config"]).end());
}
