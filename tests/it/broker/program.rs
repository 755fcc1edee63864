//! Scenarios over sockets: with `SCENARIO_BROKER` set, each scenario is played with a program that
//! is started for it, in place of the core. `.ci/scenarios` does this for several programs.
//!
//! The value is a command of the shell in which `{port}` stands for a free TCP port, and `{limits}`
//! for the flags of `broker` that give it the configuration of the scenario. A program whose
//! command has no `{limits}` plays the scenarios with the default configuration.
//!
//! A scenario ends where it needs the core itself, and counts as not played. A program cannot be
//! told to
//!
//! - let time pass (`advance`): its clock is that of the system;
//! - ask the scenario what it asks its host: `broker` answers itself, from its files of passwords
//!   and rights, which `hosts/broker/tests` has tests for;
//! - report its state, or leave output with the host (`stall`, `progress`).

use core::ops::{Deref, DerefMut};
use core::time::Duration;
use mqtt_sansio::broker::BrokerConfig;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::{panicking, sleep};
use std::time::Instant;
use testkit::port::free_ports;

/// The most time that the program has for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time after which a program is taken to have nothing to say, where nothing shows it.
pub const QUIET: Duration = Duration::from_millis(60);

/// Returns the command that starts the program, if scenarios are to be played with one.
pub fn command() -> Option<String> {
    std::env::var("SCENARIO_BROKER").ok()
}

/// Returns the flags that give `broker` this configuration, if there is a flag for each setting
/// that is not the default.
pub fn limits(config: &BrokerConfig) -> Option<String> {
    let default = settings(&BrokerConfig::default());
    // The program has defaults of its own for these two.
    let is_own = |name: &str| matches!(name, "server.maximum_packet_size" | "sys_interval");
    let settings = settings(config);
    let stated =
        settings.iter().filter(|(name, value)| is_own(name) || default.get(*name) != Some(*value));
    let flags: Option<Vec<_>> = stated.map(|(name, value)| flag(name, value)).collect();
    flags.map(|flags| flags.join(" "))
}

/// Returns the flag for a setting, if there is one.
fn flag(name: &str, value: &str) -> Option<String> {
    let name = match (name, value) {
        ("server.retain_available", "false") => return Some("--no-retain".into()),
        ("server.lower_before_5_0", "true") => return Some("--lower-before-5.0".into()),
        ("server.available.wildcard_subscription", "false") => {
            return Some("--no-wildcard-subscriptions".into());
        }
        ("server.available.subscription_identifier", "false") => {
            return Some("--no-subscription-identifiers".into());
        }
        ("server.available.shared_subscription", "false") => {
            return Some("--no-shared-subscriptions".into());
        }
        ("shared_before_5_0", "true") => return Some("--shared-before-5.0".into()),
        ("sparkplug_aware", "true") => return Some("--sparkplug".into()),
        ("server.connect_timeout", _) => "connect-timeout",
        ("server.maximum_request_size", _) => "max-request-size",
        ("server.maximum_packet_size", _) => "max-packet-size",
        ("server.receive_maximum", _) => "receive-maximum",
        ("server.topic_alias_maximum", _) => "topic-alias-maximum",
        ("server.maximum_qos", _) => "max-qos",
        ("server.maximum_keep_alive", _) => "max-keep-alive",
        ("server.maximum_session_expiry", _) => "max-session-expiry",
        ("server.maximum_in_flight", _) => "max-in-flight",
        ("server.maximum_requests", _) => "max-requests",
        ("server.common.queue.messages", _) => "max-queued-messages",
        ("server.common.queue.bytes", _) => "max-queued-bytes",
        ("server.common.automatic_topic_aliases", _) => "automatic-topic-aliases",
        ("maximum_sessions", _) => "max-sessions",
        ("maximum_subscriptions.items", _) => "max-subscriptions",
        ("maximum_subscriptions.bytes", _) => "max-subscription-bytes",
        ("maximum_levels", _) => "max-topic-levels",
        ("maximum_group_members", _) => "max-group-members",
        ("maximum_retained.messages", _) => "max-retained-messages",
        ("maximum_retained.bytes", _) => "max-retained-bytes",
        ("overflow", _) => "overflow",
        ("shared_strategy", _) => "shared-strategy",
        ("sys_interval", _) => "sys-interval",
        _ => return None,
    };
    let value = match value {
        "None" => "0",
        "Never" => "4294967295",
        "AtMostOnce" => "0",
        "AtLeastOnce" => "1",
        "ExactlyOnce" => "2",
        "DropNew" => "drop-new",
        "DropOldestQos0" => "drop-oldest-qos0",
        "Disconnect" => "disconnect",
        "RoundRobin" => "round-robin",
        "LeastInFlight" => "least-in-flight",
        "TopicHash" => "topic-hash",
        number => number.strip_suffix('s').unwrap_or(number),
    };
    // A time of part of a second cannot be said.
    (!value.contains('.') && !value.ends_with('m')).then(|| format!("--{name} {value}"))
}

/// Returns the settings of a configuration by their paths, from its debug output: there are no
/// functions that return them, because no host needs them.
fn settings(config: &BrokerConfig) -> BTreeMap<String, String> {
    let (mut settings, mut path) = (BTreeMap::new(), Vec::new());
    let shown = format!("{config:#?}");
    for line in shown.lines().skip(1) {
        let line = line.trim().trim_end_matches(',');
        let (name, value) = line.split_once(": ").unwrap_or(("", line));
        let is_group = value.ends_with(['{', '(', '[']);
        if matches!(line, "}" | ")" | "]") {
            path.pop();
        } else if is_group {
            path.push(name);
        } else {
            let names = path.iter().copied().chain([name]).filter(|name| !name.is_empty());
            settings.insert(names.collect::<Vec<_>>().join("."), value.to_owned());
        }
    }
    settings
}

/// A value that only a scenario with the core in this process has.
pub struct CoreOnly<T> {
    value: T,
    is_program: bool,
}

/// The payload of the unwinding that ends a scenario which a program cannot play.
pub struct NotPlayed;

impl<T> CoreOnly<T> {
    pub const fn new(value: T, is_program: bool) -> Self {
        Self { value, is_program }
    }

    fn check(&self) {
        if self.is_program {
            not_played();
        }
    }
}

impl<T> Deref for CoreOnly<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.check();
        &self.value
    }
}

impl<T> DerefMut for CoreOnly<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.check();
        &mut self.value
    }
}

/// Ends the scenario without a message.
pub fn not_played() -> ! {
    std::panic::resume_unwind(Box::new(NotPlayed))
}

/// A running program, and all that it has started.
pub struct Program {
    child: Child,
    port: u16,
    /// What the program says, which is shown when its scenario fails.
    errors: File,
}

impl Program {
    pub fn start(command: &str) -> Self {
        let port = free_ports(1);
        let command = command.replace("{port}", &port.to_string());
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).stdin(Stdio::null()).stdout(Stdio::null());
        let errors = unnamed_file(port);
        shell.stderr(errors.try_clone().unwrap());
        let child = shell.process_group(0).spawn().unwrap();
        let program = Self { child, port, errors };
        drop(program.connect());
        program
    }

    /// Connects, once the program listens.
    pub fn connect(&self) -> TcpStream {
        let end = Instant::now() + PATIENCE;
        loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => {
                    stream.set_nodelay(true).unwrap();
                    return stream;
                }
                Err(error) => assert!(Instant::now() < end, "the program does not listen: {error}"),
            }
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if panicking() {
            let (ended, mut said) = (self.child.try_wait(), String::new());
            let read = self.errors.rewind().and_then(|()| self.errors.read_to_string(&mut said));
            eprintln!("port {}; ended: {ended:?}; read: {read:?}; said:\n{said}", self.port);
        }
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-9", "--", &group]).status();
        let _ = self.child.wait();
    }
}

fn unnamed_file(port: u16) -> File {
    let path = std::env::temp_dir().join(format!("scenario-{}-{port}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

/// A client's end of a connection to the program.
pub struct Socket {
    stream: TcpStream,
    pub is_closed: bool,
}

impl Socket {
    pub const fn new(stream: TcpStream) -> Self {
        Self { stream, is_closed: false }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        // A program that has closed the connection is noticed by the next read.
        let _ = self.stream.write_all(bytes);
    }

    /// Reads what comes within a time. Returns whether anything has come, also the end.
    pub fn read(&mut self, within: Duration, into: &mut impl Extend<u8>) -> bool {
        if self.is_closed {
            return false;
        }
        self.stream.set_read_timeout(Some(within.max(Duration::from_millis(1)))).unwrap();
        let mut buffer = vec![0; 256 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.is_closed = true,
            Ok(count) => into.extend(buffer[..count].iter().copied()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            // A read with a time limit is interrupted when this process is frozen meanwhile.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                eprintln!("a connection has ended: {error}");
                self.is_closed = true;
            }
        }
        true
    }

    /// Reads until `is_done` or the connection ends.
    pub fn read_until<B: Extend<u8>>(
        &mut self,
        into: &mut B,
        mut is_done: impl FnMut(&mut B) -> bool,
    ) {
        let end = Instant::now() + PATIENCE;
        while !is_done(into) && !self.is_closed {
            self.read(QUIET, into);
            assert!(Instant::now() < end, "the program does not answer");
        }
    }

    /// Reads until nothing comes for a while.
    pub fn read_rest(&mut self, into: &mut impl Extend<u8>) {
        while self.read(QUIET, into) && !self.is_closed {}
    }
}
