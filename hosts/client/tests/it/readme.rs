//! Each command of the README, and the program for paho in the guide.

use crate::support::{Broker, Folder, Kind, has};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// Sends the commands to the broker of the test, and ends them if they hang. A capture needs root,
/// so it is one that was made before. The proxy runs until it is interrupted.
const PRELUDE: &str = r#"
set -euo pipefail
client() {
    if [ "$1 $2" = "inspect --proxy" ]; then
        timeout -s INT --preserve-status 1 "$CLIENT" "${@/:1884/:0}"
        return
    fi
    if [ "$1" = inspect ]; then timeout 30 "$CLIENT" "$@"; return; fi
    local command=$1; shift
    timeout 30 "$CLIENT" "$command" -p "$PORT" "$@"
}
tcpdump() { cp "$CAPTURE" mqtt.pcap; }
"#;

#[test]
fn each_command_of_the_readme_works() {
    let readme = include_str!("../../README.md");
    let blocks: Vec<_> =
        readme.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let folder = Folder::new();
    let broker = Broker::start(Kind::Ours, &folder);
    let mut printed = String::new();
    for block in &blocks {
        let output = Command::new("bash")
            .args(["-c", &format!("{PRELUDE}{block}")])
            .env("CLIENT", env!("CARGO_BIN_EXE_client"))
            .env("PORT", broker.port.to_string())
            .env("CAPTURE", concat!(env!("CARGO_MANIFEST_DIR"), "/../web/tests/mosquitto.pcap"))
            .current_dir(folder.path(""))
            .output()
            .unwrap();
        assert!(output.status.success(), "{block}{output:?}");
        printed += &String::from_utf8(output.stdout).unwrap();
    }
    for expected in [
        "room/4 21.5\nroom/5 21.6\n",
        "room/6 is 21.7, QoS 0, 4 bytes\n",
        "\"payload\":21.7",
        "clean\n",
        "noon\n",
        "13 B  PUBLISH     topic=\"room/4\" qos=0 payload=2 bytes \"21\"\n",
        "broken: packet ends inside a field [5.0 §4.13.1], answered with 0x81",
        "\"packet\":\"PINGREQ\"",
        "(for room/4 after 0.1 ms)",
    ] {
        assert!(printed.contains(expected), "{expected} is not in {printed}");
    }
}

/// The program never ends, so it is killed when it has printed a message.
#[test]
fn program_for_paho_in_the_guide_prints_a_message() {
    let import = Command::new("python3").args(["-c", "import paho.mqtt.client"]).output();
    if !import.is_ok_and(|output| output.status.success()) {
        has("paho-mqtt");
        return;
    }
    let guide = include_str!("../../src/guide/from_paho.md");
    let program = guide.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = Folder::new();
    let broker = Broker::start(Kind::Ours, &folder);
    let program = program.replace("1883", &broker.port.to_string());
    let mut process = Command::new("python3")
        .args(["-u", "-c", &program])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let publish = ["pub", "-p", &broker.port.to_string(), "-t", "room/4", "-m", "21.5", "-r"];
    // The message is retained, so it arrives whenever the program subscribes.
    let status = Command::new(env!("CARGO_BIN_EXE_client")).args(publish).status().unwrap();
    assert!(status.success());
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(line, "room/4 b'21.5'\n");
}

#[test]
fn each_flag_of_the_readme_exists() {
    let mut help = String::new();
    for command in ["pub", "sub", "rr", "inspect"] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_client"));
        let output = program.args([command, "--help"]).output().unwrap();
        help += &String::from_utf8(output.stdout).unwrap();
    }
    let readme = include_str!("../../README.md");
    let words = readme.split('`').skip(1).step_by(2).flat_map(|code| {
        code.split(|next: char| !next.is_alphanumeric() && !matches!(next, '-' | '@' | '%'))
    });
    let is_flag = |word: &&str| {
        let name = word.trim_start_matches('-');
        word.starts_with('-') && name.starts_with(|first: char| first.is_ascii_alphabetic())
    };
    // Of other programs, and those that are not here.
    let of_others = [
        "--release",
        "--bin",
        "--open",
        "-i",
        "-w",
        "-c",
        "-e",
        "-S",
        "--psk",
        "--psk-identity",
        "--ciphers",
        "--tls-engine",
        "--tls-engine-kpass-sha1",
        "--keyform",
        "--nodelay",
        "--random-filter",
    ];
    let flags: Vec<_> = words.filter(is_flag).filter(|word| !of_others.contains(word)).collect();
    assert!(flags.len() > 30, "{flags:?}");
    for flag in flags {
        let exists = help.match_indices(flag).any(|(at, _)| {
            !help[at + flag.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '-')
        });
        assert!(exists, "{flag} is not in the help");
    }
}
