//! Clients of MQTT-SN through `--sn`.

use crate::{Broker, has, skip};
use std::process::Command;

#[test]
fn clients_of_pypi_publish_subscribe_sleep_and_wake() {
    let has_client = Command::new("python3").args(["-c", "import mqttsn, mqttsn12"]).output();
    let has_client = has_client.is_ok_and(|output| output.status.success());
    if !has("python3") || !has_client {
        let missing = "mqtt-sn-12 and mqttsn of PyPI are not installed";
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        return skip(missing);
    }
    let flags = ["--sn", "127.0.0.1:0", "--sn-topic", "7=pre/seven"];
    let mut broker =
        Broker::start_without_waiting(&[&["--listen", "127.0.0.1:0"], &flags[..]].concat());
    broker.wait(|log| log.matches("listening on").count() == 2);
    let (sn, mqtt) = (broker.port("udp"), broker.port("tcp"));
    for script in ["pypi.py", "pypi_mqttsn.py"] {
        let script = format!("{}/../sn-gateway/tests/{script}", env!("CARGO_MANIFEST_DIR"));
        let output = Command::new("python3").args([&script, &sn, &mqtt]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn sn_needs_permission_because_it_has_no_passwords() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    let output = command.args(["--listen", "127.0.0.1:0", "--sn", "0.0.0.0:0"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("has no passwords"), "{error}");
}
