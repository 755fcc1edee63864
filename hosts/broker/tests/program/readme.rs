//! Each command, flag and setting that the READMEs name. Their Rust code is tested as doc tests of
//! the library, and the commands of the client by its own tests.

use crate::{Directory, has, run};
use std::process::Command;
use testkit::port::free_ports;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const README: &str = include_str!("../../README.md");

/// Makes the commands those of the test: the program is the one under test, on a free port; a
/// program that does not end is ended; and a test that must run longer only has to exist.
const PRELUDE: &str = r#"
set -euo pipefail
broker() {
    case "$*" in
        *--config*) "$BROKER" "$@" --check-config ;;
        *--help*) "$BROKER" "$@" ;;
        # In the background, where it takes the place of its shell, so that `kill` reaches it.
        *--listen*) exec timeout 20 "$BROKER" "${@/1883/$PORT}" ;;
        *) timeout 1 "$BROKER" --listen "tcp://127.0.0.1:$PORT" "$@" || [ $? = 124 ] ;;
    esac
}
cargo() {
    local arguments=() name= package=.
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        case "$1" in
            -p) package=$2; shift ;;
            --bin) name=$2; shift ;;
            --*) ;;
            *) arguments+=("$1") ;;
        esac
        shift
    done
    [ $# = 0 ] || shift
    case "${arguments[0]}" in
        run) [ "$name" = broker ] && broker "$@" > /dev/null ;;
        test) [ "$package" = . ] || grep -rq "^name = \"$package\"" "$ROOT"/hosts/*/Cargo.toml
            [ ${#arguments[@]} = 1 ] || grep -rqE "fn \w*${arguments[1]}" "$ROOT"/hosts/*/tests ;;
        *) echo "cargo ${arguments[*]} is not known to the test"; return 1 ;;
    esac
}
mosquitto_pub() { command mosquitto_pub -p "$PORT" "$@" || echo "refused: $*"; }
mosquitto_sub() { command mosquitto_sub -p "$PORT" -W 3 "$@" || [ $? = 27 ]; }
"#;

/// Returns the blocks of a language in a README.
fn blocks(readme: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    let rest = readme.split(&start).skip(1);
    rest.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn each_command_of_the_readmes_works() {
    if !["mosquitto_passwd", "mosquitto_pub", "mosquitto_sub"].iter().all(|program| has(program)) {
        return;
    }
    let directory = Directory::new();
    directory.write("acl", "topic readwrite #\n");
    let passwords = directory.write("passwords", "");
    assert!(run("chmod", &["600", &passwords]));
    assert!(run("mosquitto_passwd", &["-b", &passwords, "joe", "secret"]));
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    directory.write("server.pem", &certified.cert.pem());
    directory.write("devices.pem", &certified.cert.pem());
    let key = directory.write("server.key", &certified.signing_key.serialize_pem());
    assert!(run("chmod", &["600", &key]));
    directory.write("ca.pem", &certified.cert.pem());
    let configurations = blocks(README, "toml");
    assert_eq!(configurations.len(), 2);
    // Bridges can stand after the listeners.
    directory.write("broker.toml", &configurations.concat());
    let port = free_ports(1);
    let root = std::fs::read_to_string(format!("{ROOT}/README.md")).unwrap();
    let blocks = [blocks(&root, "sh"), blocks(README, "sh")].concat();
    assert_eq!(blocks.len(), 4);
    let mut printed = String::new();
    for block in &blocks {
        let block = block.replace("target/release/broker", "broker");
        let wait = "wait $(jobs -p | tail -n +2) || true; kill $(jobs -p) 2> /dev/null || true";
        let output = Command::new("bash")
            .args(["-c", &format!("{PRELUDE}{block}\n{wait}")])
            .env("BROKER", env!("CARGO_BIN_EXE_broker"))
            .env("PORT", port.to_string())
            .env("ROOT", ROOT)
            .current_dir(directory.path(""))
            .output()
            .unwrap();
        assert!(output.status.success(), "{block}{output:?}");
        printed += &String::from_utf8(output.stdout).unwrap();
    }
    // The first message arrives, the second is dropped, and the third is refused.
    let (arrived, refused) = ("house/sensor-4/temperature 21.5\n", "refused: -u sensor-4 -P wrong");
    assert!(printed.contains(arrived) && printed.contains(refused), "{printed}");
    assert_eq!(printed.matches("house/").count(), 2, "{printed}");
}

#[test]
fn each_flag_and_setting_of_the_readme_exists() {
    let help = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        let output = command.args(arguments).arg("--help").output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let (program, ctl, store) = (help(&[]), help(&["ctl"]), help(&["store"]));
    let all = [&program, &ctl, &store, &help(&["ctl", "publish"])].map(String::as_str).concat();
    let has_flag = |flag: &str| {
        all.match_indices(flag).any(|(at, _)| {
            !all[at + flag.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '-')
        })
    };
    // In code, so that a dash in a sentence is none.
    let code: Vec<_> = README.split('`').skip(1).step_by(2).collect();
    let of_cargo = ["--release", "--bin", "--nocapture", "--ignored"];
    let flags: Vec<_> = code
        .iter()
        .flat_map(|code| code.split(|next: char| !next.is_alphanumeric() && next != '-'))
        .filter(|word| word.starts_with("--") && word.len() > 2 && !of_cargo.contains(word))
        .collect();
    assert!(flags.len() > 20, "{flags:?}");
    for flag in flags {
        assert!(has_flag(flag), "{flag} is not in the help");
    }
    let section =
        |title: &str| README.split(title).nth(1).unwrap().split("\n\n## ").next().unwrap();
    let rows = |title| section(title).lines().filter(|line| line.starts_with("| `"));
    // The error for an unknown setting of a bridge names the known ones.
    let directory = Directory::new();
    let file = directory.write("bridge.toml", "[[bridge]]\nno-such = 1\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    let output = command.args(["--check-config", "--config", &file]).output().unwrap();
    let of_bridges = String::from_utf8(output.stderr).unwrap();
    assert!(of_bridges.contains("expected one of `name`"), "{of_bridges}");
    let is_of_bridges = |name: &str| of_bridges.contains(&format!("`{name}`"));
    for row in rows("## Bridges") {
        for name in row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2) {
            assert!(is_of_bridges(name), "{name} is not a setting of a bridge");
        }
    }
    for row in rows("## Moving from mosquitto") {
        let here = row.split('|').nth(2).unwrap();
        for setting in here.split('`').skip(1).step_by(2) {
            let name = setting.split(['=', ' ']).next().unwrap();
            let is_name = name.starts_with(|first: char| first.is_alphabetic())
                && !name.contains(':')
                && !name.starts_with("[[");
            assert!(
                !is_name || has_flag(&format!("--{name}")) || is_of_bridges(name),
                "{setting} is not a setting"
            );
        }
    }
    for (title, help) in [("## Keeping sessions", &store), ("## Watching it", &ctl)] {
        for row in rows(title).filter(|row| !row.starts_with("| `broker")) {
            for code in row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2) {
                let command = code.split(' ').next().unwrap();
                let forms = [format!("\n  {command} "), format!("- {command}:")];
                assert!(forms.iter().any(|form| help.contains(form)), "{command}: {help}");
            }
        }
    }
}
