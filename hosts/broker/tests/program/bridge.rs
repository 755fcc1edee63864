//! Bridges to real mosquitto.

use crate::client::Client;
use crate::listeners::Certificates;
use crate::store::{free_address, play_between};
use crate::{Broker, Directory, has};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// A mosquitto that is killed at the end of the test.
struct Mosquitto(Child);

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Mosquitto {
    /// Starts mosquitto with a plain listener, and waits until it listens.
    fn start(directory: &Directory, address: &str, settings: &str) -> Self {
        let port = address.rsplit(':').next().unwrap();
        let text = format!(
            "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\n\
             max_queued_messages 0\nmax_inflight_messages 1000\n{settings}\n"
        );
        let path = directory.write("mosquitto.conf", &text);
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
        let program = program.into_iter().find(|path| Path::new(path).is_file());
        let mut command = Command::new(program.unwrap_or("mosquitto"));
        let process = command.args(["-c", &path]).stderr(Stdio::null()).spawn().unwrap();
        let mosquitto = Self(process);
        for _ in 0..1_000 {
            if TcpStream::connect(address).is_ok() {
                return mosquitto;
            }
            sleep(Duration::from_millis(10));
        }
        panic!("mosquitto does not listen");
    }
}

/// Starts a broker with a bridge, and waits until it is connected.
fn start(directory: &Directory, listen: &str, settings: &str) -> Broker {
    let text = format!("listen = [\"tcp://{listen}\"]\n{settings}");
    let path = directory.write("broker.toml", &text);
    let mut broker = Broker::start_without_waiting(&["--config", &path]);
    broker.wait(|log| log.contains("listening on") && log.contains("bridge connected"));
    // It subscribes to the local side on its own.
    sleep(Duration::from_millis(200));
    broker
}

#[test]
fn bridge_carries_messages_to_and_from_mosquitto() {
    if !has("mosquitto") {
        return;
    }
    for version in ["3.1.1", "5.0"] {
        let (directory, remote) = (Directory::new(), free_address());
        let mosquitto = Mosquitto::start(&directory, &remote, "");
        let settings = format!(
            "[[bridge]]\nname = \"up\"\naddress = \"mqtt://{remote}\"\nversion = \"{version}\"\n\
             topics = ['a/# both 2 \"\" site/', 'down/# in 1']\n"
        );
        let mut broker = start(&directory, "127.0.0.1:0", &settings);
        let mut local = Client::connected(&broker.address("tcp"), "l", None);
        let mut far = Client::connected(&remote, "r", None);
        assert_eq!((local.subscribe("#"), far.subscribe("#")), (0, 0));
        local.publish("a/1", "up");
        local.expect("a/1", "up");
        far.expect("site/a/1", "up");
        far.publish("site/a/2", "down");
        far.expect("site/a/2", "down");
        local.expect("a/2", "down");
        far.publish("down/1", "down");
        far.expect("down/1", "down");
        local.expect("down/1", "down");
        far.publish("other", "");
        far.expect("other", "");
        local.publish("other", "");
        local.expect("other", "");
        // Nothing has come back.
        local.ping();
        far.ping();
        // The bridge connects again, and subscribes again at a broker that has forgotten it.
        drop((far, mosquitto));
        broker.wait(|log| log.contains("bridge is not connected"));
        let _mosquitto = Mosquitto::start(&directory, &remote, "");
        broker.wait(|log| log.matches("bridge connected").count() == 2);
        sleep(Duration::from_millis(200));
        let mut far = Client::connected(&remote, "r", None);
        far.publish("down/2", "again");
        local.expect("down/2", "again");
        drop((local, far));
        // The end is orderly on both sides.
        broker.signal("-TERM");
        assert!(broker.end());
        let cause = "client=\"local.up\" version=5.0 cause=\"client disconnected: Success\"";
        assert!(broker.log().contains(cause), "{}", broker.log());
    }
}

#[test]
fn bridge_uses_tls_with_a_certificate_of_its_own() {
    if !has("mosquitto") {
        return;
    }
    let (directory, plain, secure) = (Directory::new(), free_address(), free_address());
    let certificates = Certificates::new();
    let path = |name| certificates.path(name);
    let (_, port) = secure.rsplit_once(':').unwrap();
    let tls = format!(
        "listener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true",
        path("ca.pem"),
        path("server.pem"),
        path("server.key")
    );
    let _mosquitto = Mosquitto::start(&directory, &plain, &tls);
    let settings = format!(
        "[[bridge]]\nname = \"up\"\naddress = \"mqtts://localhost:{port}\"\n\
         topics = [\"t out 1\"]\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n",
        path("ca.pem"),
        path("client.pem"),
        path("client.key")
    );
    let broker = start(&directory, "127.0.0.1:0", &settings);
    let mut far = Client::connected(&plain, "r", None);
    assert_eq!(far.subscribe("t"), 0);
    Client::connected(&broker.address("tcp"), "l", None).publish("t", "secret");
    far.expect("t", "secret");
    // Without its certificate the bridge is refused.
    let without: String = settings
        .lines()
        .filter(|line| !line.contains("client."))
        .fold(String::new(), |text, line| text + line + "\n");
    let text = format!("listen = [\"tcp://127.0.0.1:0\"]\n{without}");
    let path = directory.write("without.toml", &text);
    let mut broker = Broker::start_without_waiting(&["--config", &path]);
    broker.wait(|log| log.contains("bridge is not connected"));
    assert!(!broker.log().contains("bridge connected"), "{}", broker.log());
}

#[test]
fn kills_of_the_broker_lose_no_message_on_its_way_to_mosquitto() {
    if !has("mosquitto") {
        return;
    }
    let (directory, local, remote) = (Directory::new(), free_address(), free_address());
    let _mosquitto = Mosquitto::start(&directory, &remote, "");
    let settings = format!(
        "data-dir = \"{}\"\nmax-queued-messages = 1000000\n[[bridge]]\nname = \"up\"\n\
         address = \"mqtt://{remote}\"\ntopics = [\"1 out 1\", \"2 out 2\"]\n",
        directory.path("data")
    );
    let mut broker = start(&directory, &local, &settings);
    let [once, mut twice] = play_between(&local, &remote, Duration::from_secs(5), || {
        for round in 0..5 {
            sleep(Duration::from_millis(200 + round * 37 % 200));
            let _ = broker.process.kill();
            let _ = broker.process.wait();
            broker = start(&directory, &local, &settings);
        }
    });
    println!("{} messages with QoS 1, {} with QoS 2", once.sent, twice.sent);
    assert!(once.sent > 100 && twice.sent > 100);
    // The bridge has lost its state, so a message can arrive twice.
    twice.qos = 1;
    assert_eq!((once.problem(), twice.problem()), (None, None));
}
