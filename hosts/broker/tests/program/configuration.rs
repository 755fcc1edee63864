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
