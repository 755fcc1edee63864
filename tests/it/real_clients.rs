//! The broker program with mosquitto's clients and paho-mqtt. If a program is not installed, its
//! tests print SKIPPED and pass; in CI they fail.

use core::time::Duration;
use std::io::{BufRead as _, BufReader, Read as _, Write as _, stderr};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

/// Whether a program runs, and with success if that matters. If CI is set, it must. The message
/// bypasses the capture of `cargo test`, so that its user sees which tests were skipped.
#[expect(clippy::explicit_write, reason = "the test harness would capture `eprintln!`")]
fn has(program: &str, arguments: &[&str], must_succeed: bool) -> bool {
    let status =
        Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let runs = status.is_ok_and(|status| status.success() || !must_succeed);
    if !runs {
        let missing = format!("`{program} {}` does not run", arguments.join(" "));
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        writeln!(stderr(), "SKIPPED: a test with real clients, because {missing}").unwrap();
    }
    runs
}

/// Returns the command of a program, which is built if only this test was asked for.
fn program(name: &str) -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let profile: &[_] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
        let build = ["build", "--quiet", "--bin", "broker"].iter().chain(profile);
        let built = Command::new(env!("CARGO")).args(build).status().unwrap();
        assert!(built.success());
        // The programs are above `deps`, which has this test.
        std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
    });
    Command::new(folder.join(name))
}

/// A process that is killed at the end of the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
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

/// Starts the broker program on a free port.
fn broker() -> (Process, String) {
    let mut broker = Process::start(
        program("broker").args(["--listen", "tcp://127.0.0.1:0"]).stderr(Stdio::piped()),
    );
    let mut lines = BufReader::new(broker.0.stderr.take().unwrap()).lines();
    let line = lines
        .by_ref()
        .map_while(Result::ok)
        .find(|line| line.contains("listening on"))
        .expect("the broker listens");
    // The rest of its log is read and dropped, because it must not fill the pipe.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    (broker, line.rsplit(':').next().unwrap().to_owned())
}

/// A publisher and a subscriber of the same implementation.
struct Make {
    publish: fn() -> Command,
    subscribe: fn() -> Command,
    host: &'static [&'static str],
}

const MOSQUITTO: Make = Make {
    publish: || Command::new("mosquitto_pub"),
    subscribe: || Command::new("mosquitto_sub"),
    host: &["-h", "127.0.0.1", "-p"],
};

impl Make {
    fn publish(&self, port: &str, arguments: &[&str]) {
        let status = (self.publish)().args(self.host).arg(port).args(arguments).status().unwrap();
        assert!(status.success(), "{arguments:?}: {status}");
    }

    /// Starts a subscriber, and gives it time to subscribe.
    fn subscribe(&self, port: &str, arguments: &[&str]) -> Process {
        let subscriber = Process::start(
            (self.subscribe)()
                .args(self.host)
                .arg(port)
                .args(arguments)
                .args(["-W", "60"])
                .stdout(Stdio::piped()),
        );
        sleep(Duration::from_millis(400));
        subscriber
    }
}

/// Tests every version and QoS, a message of 16 MiB, retained messages, a will, and a subscriber
/// that was offline.
fn exchange(make: &Make, port: &str) {
    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            let subscriber =
                make.subscribe(port, &["-V", version, "-q", qos, "-t", "a/#", "-C", "3"]);
            for message in ["one", "two", "three"] {
                make.publish(port, &["-V", version, "-q", qos, "-t", "a/b", "-m", message]);
            }
            assert_eq!(subscriber.output(), b"one\ntwo\nthree\n", "{version} QoS {qos}");
        }
        make.publish(port, &["-V", version, "-t", "kept", "-m", "retained", "-r", "-q", "1"]);
        assert_eq!(
            make.subscribe(port, &["-V", version, "-t", "kept", "-C", "1"]).output(),
            b"retained\n"
        );
        make.publish(port, &["-V", version, "-t", "kept", "-n", "-r", "-q", "1"]);

        // A subscriber gets the retained message, and those after it.
        make.publish(port, &["-V", version, "-t", "kept/1", "-m", "old", "-r", "-q", "1"]);
        let subscriber = make.subscribe(port, &["-V", version, "-t", "kept/#", "-C", "3"]);
        make.publish(port, &["-V", version, "-t", "kept/1", "-m", "new"]);
        make.publish(port, &["-V", version, "-t", "kept/2", "-m", "newer", "-q", "1"]);
        assert_eq!(subscriber.output(), b"old\nnew\nnewer\n");
        make.publish(port, &["-V", version, "-t", "kept/1", "-n", "-r", "-q", "1"]);

        let watcher = make.subscribe(port, &["-V", version, "-t", "will", "-C", "1"]);
        drop(make.subscribe(
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
                make.subscribe(port, &arguments)
            };
            let subscriber = session("1");
            make.publish(port, &["-V", version, "-q", "1", "-t", "away", "-m", "here"]);
            assert_eq!(subscriber.output(), b"here\n");
            let expected = ["one", "two", "three", "four", "five"];
            for message in expected {
                make.publish(port, &["-V", version, "-q", qos, "-t", "away", "-m", message]);
            }
            assert_eq!(
                String::from_utf8(session("5").output()).unwrap(),
                expected.join("\n") + "\n"
            );
        }
    }
    let (file, payload) = large_file(port);
    for version in VERSIONS {
        let mut subscriber =
            make.subscribe(port, &["-V", version, "-q", "2", "-t", "large", "-C", "1", "-N"]);
        let output = read_all(subscriber.0.stdout.take().unwrap());
        make.publish(
            port,
            &["-V", version, "-q", "2", "-t", "large", "-f", file.to_str().unwrap()],
        );
        assert!(output.join().unwrap() == payload, "{version}: 16 MiB arrive intact");
    }
    std::fs::remove_file(file).unwrap();
}

fn read_all(mut output: ChildStdout) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

fn large_file(name: &str) -> (PathBuf, Vec<u8>) {
    let mut state = 1_u32;
    let payload: Vec<u8> = (0..16 << 20)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect();
    let path = std::env::temp_dir().join(format!("mqtt-sansio-{}-{name}", std::process::id()));
    std::fs::File::create(&path).unwrap().write_all(&payload).unwrap();
    (path, payload)
}

#[test]
fn mosquitto_clients_work_with_the_broker_program() {
    if has("mosquitto_sub", &["--help"], false) && has("mosquitto_pub", &["--help"], false) {
        let (_broker, port) = broker();
        exchange(&MOSQUITTO, &port);
    }
}

#[test]
fn paho_clients_work_with_the_broker_program() {
    if has("python3", &["-c", "import paho.mqtt.client as c; c.CallbackAPIVersion"], true) {
        let (_broker, port) = broker();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/paho_clients.py");
        let status = Command::new("python3").arg(script).arg(port).status().unwrap();
        assert!(status.success(), "{status}");
    }
}
