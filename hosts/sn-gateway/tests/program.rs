//! The program as its users run it, in front of mosquitto. If a program is not installed, its tests
//! print SKIPPED and pass; in CI they fail.

#![cfg(feature = "program")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

use mqtt_sansio::Clock;
use mqtt_sansio::codec::QoS;
use mqtt_sansio::sn::client::{Action, Client, ClientConfig, ClientState};
use mqtt_sansio::sn::v1_2::{ReturnCode, SubscriptionTopic, TopicRef};
use std::io::{BufRead as _, BufReader};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};
use testkit::port::free_ports;

/// A process that is killed at the end of the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts mosquitto, and returns its port.
fn mosquitto() -> (Process, String) {
    let port = free_ports(1).to_string();
    let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
    let program = program.into_iter().find(|path| Path::new(path).is_file());
    let mut command = Command::new(program.unwrap_or("mosquitto"));
    let process = command.args(["-p", &port]).stderr(Stdio::null()).spawn().unwrap();
    let process = Process(process);
    let start = Instant::now();
    while TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "mosquitto does not listen");
        sleep(Duration::from_millis(10));
    }
    (process, port)
}

/// Starts the gateway with the command of the README, and returns its address.
fn gateway(broker: &str) -> (Process, String) {
    let command = include_str!("../README.md").split("\ncargo run --release -p ").nth(1).unwrap();
    let (package, flags) = command.lines().next().unwrap().split_once(" -- ").unwrap();
    assert_eq!(package, env!("CARGO_PKG_NAME"));
    let flags = flags.replace("127.0.0.1:1884", "127.0.0.1:0").replace("1883", broker);
    let mut process = Command::new(env!("CARGO_BIN_EXE_sn-gateway"))
        .args(flags.split(' '))
        .args(["--sn-topic", "7=pre/seven"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("listening on")).unwrap();
    spawn(move || lines.for_each(drop));
    (Process(process), line.rsplit("udp://").next().unwrap().to_owned())
}

/// Whether a program is there that a test needs.
fn has(check: &mut Command) -> bool {
    let check = check.stdout(Stdio::null()).stderr(Stdio::null());
    if check.status().is_ok_and(|status| status.success()) {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "{check:?} fails");
    println!("SKIPPED: {check:?} fails");
    false
}

fn has_mosquitto() -> bool {
    has(Command::new("sh").args(["-c", "PATH=$PATH:/usr/sbin command -v mosquitto"]))
}

#[test]
fn clients_of_pypi_work_in_front_of_mosquitto() {
    let mut python = Command::new("python3");
    if !has_mosquitto() || !has(python.args(["-c", "import mqttsn, mqttsn12, paho.mqtt.client"])) {
        return;
    }
    for script in ["pypi.py", "pypi_mqttsn.py"] {
        let (_mosquitto, broker) = mosquitto();
        let (_gateway, address) = gateway(&broker);
        let script = format!("{}/tests/{script}", env!("CARGO_MANIFEST_DIR"));
        let port = address.rsplit(':').next().unwrap();
        let output = Command::new("python3").args([&script, port, &broker]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn each_flag_of_the_readme_exists() {
    let output = Command::new(env!("CARGO_BIN_EXE_sn-gateway")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let words = include_str!("../README.md").split(|c: char| !c.is_alphanumeric() && c != '-');
    let mut count = 0;
    let is_flag = |word: &&str| word.starts_with("--") && word.ends_with(char::is_alphabetic);
    for flag in words.filter(is_flag) {
        let of_others = ["--release", "--help", "--sn"].contains(&flag);
        assert!(of_others || help.contains(flag), "{flag}");
        count += 1;
    }
    assert!(count > 12, "{count}");
}

/// A device with a socket.
struct Device {
    client: Client,
    socket: UdpSocket,
    clock: Clock,
    received: Vec<String>,
}

impl Device {
    fn new(config: ClientConfig, gateway: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(gateway).unwrap();
        let (client, clock) = (Client::new(config), Clock::new());
        Self { client, socket, clock, received: Vec::new() }
    }

    /// Sends a request, and waits for an action.
    fn ask<E: core::fmt::Debug>(
        &mut self,
        request: impl FnOnce(&mut Client, mqtt_sansio::Instant, &mut Vec<u8>) -> Result<(), E>,
        is_expected: impl Fn(&Action<'_>) -> bool,
    ) {
        let mut out = Vec::new();
        request(&mut self.client, self.clock.now(), &mut out).unwrap();
        self.socket.send(&out).unwrap();
        self.wait(is_expected);
    }

    fn wait(&mut self, is_expected: impl Fn(&Action<'_>) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        self.socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        while Instant::now() < end {
            let (mut datagram, mut out) = ([0; 1_500], Vec::new());
            let action = match self.socket.recv(&mut datagram) {
                Ok(length) => {
                    let now = self.clock.now();
                    self.client.handle_datagram(&datagram[..length], now, &mut out)
                }
                Err(_) => self.client.handle_timeout(self.clock.now(), &mut out),
            };
            if !out.is_empty() {
                self.socket.send(&out).unwrap();
            }
            if let Some(Action::Message(message)) = action {
                self.received.push(String::from_utf8(message.data.to_vec()).unwrap());
            }
            if action.is_some_and(|action| is_expected(&action)) {
                return;
            }
        }
        panic!("no such action in the state {:?}", self.client.state());
    }

    fn connect(&mut self, clean_session: bool) {
        self.ask(
            |client, now, out| client.connect(clean_session, now, out),
            |action| *action == Action::Connected,
        );
    }

    fn subscribe(&mut self, filter: &str, qos: QoS) {
        let topic = SubscriptionTopic::Filter(filter.into());
        let is_granted = |action: &Action<'_>| {
            let accepted = ReturnCode::Accepted;
            matches!(action, Action::Subscribed { return_code, .. } if *return_code == accepted)
        };
        self.ask(|client, now, out| client.subscribe(topic, qos, now, out), is_granted);
    }

    fn publish(&mut self, topic: TopicRef, qos: QoS, data: &[u8]) {
        self.ask(
            |client, now, out| client.publish(topic, qos, false, data, now, out),
            |action| *action == Action::Published(ReturnCode::Accepted),
        );
    }

    fn expect(&mut self, data: &[&str]) {
        while self.received.len() < data.len() {
            self.wait(|action| matches!(action, Action::Message(_)));
        }
        assert_eq!(self.received, data);
        self.received.clear();
    }
}

#[test]
fn client_machine_publishes_sleeps_and_wakes_in_front_of_mosquitto() {
    if !has_mosquitto() {
        return;
    }
    let (_mosquitto, broker) = mosquitto();
    let (_gateway, address) = gateway(&broker);
    let mut publisher = Device::new(ClientConfig::new("publisher").unwrap(), &address);
    let mut sleeper = Device::new(ClientConfig::new("sleeper").unwrap(), &address);
    publisher.connect(true);
    sleeper.connect(false);
    sleeper.subscribe("room/+", QoS::ExactlyOnce);
    sleeper.subscribe("t4", QoS::ExactlyOnce);
    sleeper.subscribe("will", QoS::AtLeastOnce);
    let short = TopicRef::short("t4").unwrap();
    let mut out = Vec::new();
    publisher.client.publish_unconnected(short, false, b"-1", &mut out).unwrap();
    publisher.socket.send(&out).unwrap();
    sleeper.expect(&["-1"]);
    for (qos, data) in [(QoS::AtLeastOnce, "1"), (QoS::ExactlyOnce, "2")] {
        publisher.publish(short, qos, data.as_bytes());
        sleeper.expect(&[data]);
    }
    sleeper.ask(
        |client, now, out| client.sleep(60, now, out),
        |action| *action == Action::Asleep { is_confirmed: true },
    );
    let mut topic = None;
    publisher.ask(
        |client, now, out| client.register("room/4", now, out),
        |action| matches!(action, Action::Registered(Ok(_))),
    );
    for id in 1..10 {
        let id = mqtt_sansio::sn::v1_2::TopicId::new(id).unwrap();
        topic = topic.or(publisher.client.topic_name(id).map(|_| TopicRef::Normal(id)));
    }
    for number in ["a", "b", "c"] {
        publisher.publish(topic.unwrap(), QoS::ExactlyOnce, number.as_bytes());
    }
    // Until mosquitto has passed them on.
    sleep(Duration::from_millis(200));
    sleeper.ask(
        |client, now, out| client.wake(now, out),
        |action| *action == Action::Asleep { is_confirmed: true },
    );
    sleeper.expect(&["a", "b", "c"]);
    assert_eq!(sleeper.client.state(), ClientState::Asleep);
    sleeper.connect(false);
    // A device that vanishes.
    let config = ClientConfig::new("mortal").unwrap().keep_alive(1);
    let config = config.will("will", QoS::AtLeastOnce, false, b"lost").unwrap();
    Device::new(config, &address).connect(true);
    sleeper.expect(&["lost"]);
    publisher.ask(
        |client, now, out| client.disconnect(now, out),
        |action| *action == Action::Disconnected,
    );
}

#[test]
fn gateway_that_is_stopped_leaves_no_will() {
    if !has_mosquitto() {
        return;
    }
    let (_mosquitto, broker) = mosquitto();
    let (mut gateway, address) = gateway(&broker);
    let mut watcher = Command::new("mosquitto_sub")
        .args(["-p", &broker, "-t", "#", "-W", "4"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let config = ClientConfig::new("mortal").unwrap();
    let config = config.will("will", QoS::AtLeastOnce, false, b"lost").unwrap();
    let mut device = Device::new(config, &address);
    device.connect(true);
    // The messages with QoS -1 have a connection of their own.
    let mut out = Vec::new();
    let topic = TopicRef::short("t4").unwrap();
    device.client.publish_unconnected(topic, false, b"-1", &mut out).unwrap();
    device.socket.send(&out).unwrap();
    // So that the watcher is seen to watch.
    device.ask(
        |client, now, out| client.publish(topic, QoS::AtLeastOnce, true, b"alive", now, out),
        |action| *action == Action::Published(ReturnCode::Accepted),
    );
    let seen = BufReader::new(watcher.stdout.take().unwrap()).lines().map_while(Result::ok);
    // The two connections are in no order.
    let mut seen = seen.filter(|line| line != "-1");
    assert_eq!(seen.next().unwrap(), "alive");
    let (id, start) = (gateway.0.id().to_string(), Instant::now());
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    device.wait(|action| *action == Action::Disconnected);
    assert!(gateway.0.wait().unwrap().success());
    assert!(start.elapsed() < Duration::from_secs(1), "a link was left open");
    assert_eq!(seen.next(), None);
    watcher.wait().unwrap();
}
