//! A client on a thread, which reconnects to one node after the other and keeps its session.

use mqtt_sansio::client::{Action, Client, ClientConfig};
use mqtt_sansio::codec::{
    Connect, ConnectProperties, Publish, QoS, SubscribeProperties, Subscription, Version,
};
use mqtt_sansio::{Clock, Instant};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{self, Duration};

pub(crate) enum Role {
    /// Publishes to a topic, a few messages in flight.
    Publisher(String, QoS),
    /// Subscribes to a filter.
    Subscriber(String, QoS),
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    is_publishing: AtomicBool,
    is_subscribed: AtomicBool,
    is_cut: AtomicBool,
    lost_sessions: AtomicUsize,
    pending: AtomicUsize,
    /// The messages that a subscriber received, or whose acknowledgement a publisher received.
    done: Mutex<Vec<String>>,
}

pub(crate) struct Peer {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Machine {
    client: Client,
    clock: Clock,
    name: String,
    nodes: [SocketAddr; 3],
    at: usize,
    role: Role,
    stream: Option<TcpStream>,
    out: Vec<u8>,
    input: Vec<u8>,
    was_connected: bool,
    is_connected: bool,
    published: Vec<String>,
    shared: Arc<Shared>,
}

impl Peer {
    pub(crate) fn start(name: &str, nodes: [SocketAddr; 3], at: usize, role: Role) -> Self {
        let shared = Arc::new(Shared::default());
        shared.is_publishing.store(true, Ordering::Relaxed);
        let mut machine = Machine {
            client: Client::new(ClientConfig::new()),
            clock: Clock::new(),
            name: name.into(),
            nodes,
            at,
            role,
            stream: None,
            out: Vec::new(),
            input: Vec::new(),
            was_connected: false,
            is_connected: false,
            published: Vec::new(),
            shared: shared.clone(),
        };
        let thread = spawn(move || {
            while !machine.shared.is_over.load(Ordering::Relaxed) {
                machine.step();
            }
        });
        Self { shared, thread }
    }

    pub(crate) fn wait_for_subscription(&self) {
        let start = time::Instant::now();
        while !self.shared.is_subscribed.load(Ordering::Relaxed) {
            assert!(start.elapsed() < Duration::from_secs(30), "no SUBACK");
            sleep(Duration::from_millis(10));
        }
    }

    /// Lets the connection fail. The client goes to the next node.
    pub(crate) fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::Relaxed);
    }

    /// Waits until all that was published is acknowledged, and returns it.
    pub(crate) fn finish_publishing(
        self,
        limit: Duration,
        logs: &dyn Fn() -> String,
    ) -> Vec<String> {
        self.shared.is_publishing.store(false, Ordering::Relaxed);
        let start = time::Instant::now();
        sleep(Duration::from_millis(50));
        while self.shared.pending.load(Ordering::Relaxed) > 0 {
            let pending = self.shared.pending.load(Ordering::Relaxed);
            assert!(start.elapsed() < limit, "{pending} are not acknowledged\n{}", logs());
            sleep(Duration::from_millis(10));
        }
        self.stop().0
    }

    pub(crate) fn inbox(&self) -> Vec<String> {
        self.shared.done.lock().unwrap().clone()
    }

    /// Returns what was done, and how often the session was not resumed.
    pub(crate) fn stop(self) -> (Vec<String>, usize) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let lost = self.shared.lost_sessions.load(Ordering::Relaxed);
        (self.shared.done.lock().unwrap().clone(), lost)
    }
}

impl Machine {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn lose(&mut self) {
        self.stream = None;
        let _ = self.client.connection_lost();
        while self.client.connection_lost().is_some() {}
        self.out.clear();
        self.input.clear();
        self.is_connected = false;
        self.at = (self.at + 1) % 3;
    }

    fn step(&mut self) {
        if self.shared.is_cut.swap(false, Ordering::Relaxed) && self.stream.is_some() {
            self.lose();
        }
        if self.stream.is_none() && !self.connect() {
            return;
        }
        if self.is_connected {
            self.publish();
        }
        let now = self.now();
        if self.client.poll_timeout().is_some_and(|due| due <= now) {
            let ended =
                matches!(self.client.handle_timeout(now, &mut self.out), Some(Action::Closed(_)));
            if ended {
                return self.lose();
            }
        }
        let Some(stream) = &mut self.stream else { return };
        if stream.write_all(&self.out).is_err() {
            return self.lose();
        }
        self.out.clear();
        let mut buffer = [0; 16 * 1024];
        match stream.read(&mut buffer) {
            Ok(0) => return self.lose(),
            Ok(length) => self.input.extend(&buffer[..length]),
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
            Err(_) => return self.lose(),
        }
        self.read();
    }

    fn connect(&mut self) -> bool {
        let address = self.nodes[self.at % 3];
        let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) else {
            self.at = (self.at + 1) % 3;
            sleep(Duration::from_millis(50));
            return false;
        };
        stream.set_read_timeout(Some(Duration::from_millis(3))).unwrap();
        stream.set_nodelay(true).unwrap();
        let properties = ConnectProperties {
            session_expiry_interval: Some(3_600),
            receive_maximum: Some(20),
            ..ConnectProperties::default()
        };
        let connect = Connect {
            keep_alive: 2,
            clean_start: false,
            properties,
            ..Connect::new(Version::V5_0, self.name.as_str())
        };
        self.client.connect(&connect, self.clock.now(), &mut self.out).unwrap();
        self.stream = Some(stream);
        true
    }

    fn publish(&mut self) {
        let Role::Publisher(topic, qos) = &self.role else { return };
        let pending = self.shared.pending.load(Ordering::Relaxed);
        if pending < 10 && self.shared.is_publishing.load(Ordering::Relaxed) {
            let key = self.published.len();
            let id = topic.rsplit('/').next().unwrap();
            let payload = format!("{id} {key}");
            let publish = Publish { qos: *qos, ..Publish::new(topic.as_str(), payload.as_bytes()) };
            let now = self.clock.now();
            if self.client.publish(key as u64, &publish, now, &mut self.out).is_ok() {
                self.published.push(payload);
                self.shared.pending.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn read(&mut self) {
        let now = self.now();
        let (mut is_closed, mut is_connected) = (false, false);
        let mut input = &self.input[..];
        while let Some(action) = self.client.handle_input(&mut input, now, &mut self.out) {
            match action {
                Action::Connected(connack) => {
                    is_connected = true;
                    let is_lost = self.was_connected && !connack.session_present;
                    self.shared.lost_sessions.fetch_add(is_lost.into(), Ordering::Relaxed);
                }
                Action::Message(message) => {
                    let text = String::from_utf8(message.payload.to_vec()).unwrap();
                    self.shared.done.lock().unwrap().push(text);
                }
                Action::Published(published) => {
                    let text = self.published[published.key as usize].clone();
                    self.shared.done.lock().unwrap().push(text);
                    self.shared.pending.fetch_sub(1, Ordering::Relaxed);
                }
                Action::Subscribed(..) => {
                    self.shared.is_subscribed.store(true, Ordering::Relaxed);
                }
                Action::Closed(_) => {
                    is_closed = true;
                    break;
                }
                _ => {}
            }
        }
        let read = self.input.len() - input.len();
        self.input.drain(..read);
        if is_closed {
            return self.lose();
        }
        if is_connected {
            (self.is_connected, self.was_connected) = (true, true);
            if let Role::Subscriber(filter, qos) = &self.role {
                if !self.shared.is_subscribed.load(Ordering::Relaxed) {
                    let subscriptions = [Subscription::new(filter.as_str(), *qos)];
                    let properties = SubscribeProperties::default();
                    let now = self.clock.now();
                    self.client
                        .subscribe(0, &subscriptions, properties, now, &mut self.out)
                        .unwrap();
                }
            }
        }
    }
}
