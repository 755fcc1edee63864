//! A day of virtual time: the client with its driver on tokio's paused clock, and the broker core
//! on the same clock, over a network that fails.

use mqtt_sansio::Instant as Moment;
use mqtt_sansio::broker::{Action, Admission, Broker, BrokerConfig, ConnectionId, Question};
use mqtt_sansio_client::codec::{
    Connect, ConnectProperties, Publish, QoS, Version, Will, WillProperties,
};
use mqtt_sansio_client::{Client, Messages, Options, Status};
use std::collections::HashMap;
use std::io;
use std::time::Duration;
use testkit::random::Random;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const KEEP_ALIVE: u16 = 60;
const WILL_DELAY: u32 = 30;
const SESSION_EXPIRY: u32 = 60 * 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Up,
    /// Each connection is closed, and no other can be opened.
    Down,
    /// Nothing arrives, and nothing fails.
    Silent,
}

pub(crate) enum Event {
    Opened(DuplexStream, watch::Receiver<Network>),
    /// Bytes from a client; none at the end of the connection.
    Received(ConnectionId, Vec<u8>),
}

/// The sides of the broker's connections.
type Writers = HashMap<ConnectionId, mpsc::UnboundedSender<Vec<u8>>>;

/// Runs the broker core with duplex streams in place of sockets.
pub(crate) async fn serve(
    mut events: mpsc::UnboundedReceiver<Event>,
    own: mpsc::UnboundedSender<Event>,
) {
    let epoch = Instant::now();
    let now = || Moment::from_millis(u64::try_from(epoch.elapsed().as_millis()).unwrap());
    let mut broker = Broker::new(BrokerConfig::default(), 0x5EED, now());
    let mut received: HashMap<ConnectionId, Vec<u8>> = HashMap::new();
    let mut writers = Writers::new();
    let mut tasks = JoinSet::new();
    loop {
        let wait = broker.poll_timeout().map_or(DAY, |at| at - now());
        match timeout(wait, events.recv()).await {
            Err(_) => broker.handle_timeout(now()),
            Ok(None) => return,
            Ok(Some(Event::Opened(stream, network))) => {
                let id = broker.open(now());
                let (reader, mut writer) = tokio::io::split(stream);
                let (sender, mut out) = mpsc::unbounded_channel::<Vec<u8>>();
                writers.insert(id, sender);
                received.insert(id, Vec::new());
                tasks.spawn(read(id, reader, network.clone(), own.clone()));
                tasks.spawn(async move {
                    let mut network = network;
                    while let Some(bytes) = out.recv().await {
                        let state = network.wait_for(|state| *state != Network::Silent).await;
                        if state.is_ok_and(|state| *state == Network::Down) {
                            return;
                        }
                        let _ = writer.write_all(&bytes).await;
                    }
                });
            }
            Ok(Some(Event::Received(id, bytes))) if bytes.is_empty() => {
                if writers.remove(&id).is_some() {
                    drop(broker.connection_lost(id, now()));
                }
            }
            Ok(Some(Event::Received(id, bytes))) => {
                received.entry(id).or_default().extend(bytes);
                feed(&mut broker, id, &mut received, now());
            }
        }
        while let Some(action) = broker.poll_action() {
            match action {
                Action::Ask(question, Question::Connect(_)) => {
                    let _ = broker.accept(question, Admission::default(), now());
                }
                Action::Ready(id) if writers.contains_key(&id) => {
                    feed(&mut broker, id, &mut received, now());
                    transmit(&mut broker, id, &writers, now());
                }
                Action::Closed(id, _) => {
                    transmit(&mut broker, id, &writers, now());
                    if writers.remove(&id).is_some() {
                        drop(broker.connection_lost(id, now()));
                    }
                }
                _ => {}
            }
        }
    }
}

/// Passes the bytes of a client to the broker, while the network carries them.
async fn read(
    id: ConnectionId,
    mut reader: ReadHalf<DuplexStream>,
    mut network: watch::Receiver<Network>,
    events: mpsc::UnboundedSender<Event>,
) {
    let mut chunk = [0; 4096];
    loop {
        let down = network.wait_for(|state| *state == Network::Down);
        let count = tokio::select! {
            count = reader.read(&mut chunk) => count.unwrap_or(0),
            _ = down => 0,
        };
        let is_down = *network.borrow() == Network::Down;
        let bytes = if is_down { Vec::new() } else { chunk[..count].to_vec() };
        let _ = network.wait_for(|state| *state != Network::Silent).await;
        let is_over = bytes.is_empty();
        if events.send(Event::Received(id, bytes)).is_err() || is_over {
            return;
        }
    }
}

fn feed(
    broker: &mut Broker,
    id: ConnectionId,
    received: &mut HashMap<ConnectionId, Vec<u8>>,
    now: Moment,
) {
    let Some(received) = received.get_mut(&id) else { return };
    let mut input = received.as_slice();
    while broker.handle_input(id, &mut input, now) {}
    let consumed = received.len() - input.len();
    received.drain(..consumed);
}

fn transmit(broker: &mut Broker, id: ConnectionId, writers: &Writers, now: Moment) {
    let mut out = Vec::new();
    while broker.transmit(id, now, &mut out) {}
    if let Some(writer) = writers.get(&id) {
        let _ = writer.send(out);
    }
}

/// Returns options for a client of the broker over the network.
pub(crate) fn options(
    identifier: &str,
    events: &mpsc::UnboundedSender<Event>,
    network: &watch::Sender<Network>,
) -> Options {
    let will = Will {
        properties: WillProperties {
            will_delay_interval: Some(WILL_DELAY),
            ..WillProperties::default()
        },
        ..Will::new("wills", identifier.as_bytes())
    };
    let properties = ConnectProperties {
        session_expiry_interval: Some(SESSION_EXPIRY),
        ..ConnectProperties::default()
    };
    let connect = Connect {
        keep_alive: KEEP_ALIVE,
        will: Some(will),
        properties,
        ..Connect::new(Version::V5_0, identifier)
    };
    let (events, network) = (events.clone(), network.subscribe());
    Options::new("mqtt://simulated").unwrap().with(&connect).unwrap().transport(move || {
        let (events, mut network) = (events.clone(), network.clone());
        async move {
            let state = *network.wait_for(|state| *state != Network::Silent).await.unwrap();
            if state == Network::Down {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (near, far) = tokio::io::duplex(64 * 1024);
            events.send(Event::Opened(far, network)).map_err(io::Error::other)?;
            Ok(near)
        }
    })
}

/// Waits until the client is connected, or is not.
async fn reaches(client: &Client, connected: bool) {
    let mut status = client.status();
    let reached = status.wait_for(|status| matches!(status, Status::Connected(_)) == connected);
    drop(reached.await.unwrap());
}

fn drain(messages: &mut Messages) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| messages.try_recv()).map(|it| it.payload().to_vec()).collect()
}

/// Numbers that were published, each with a QoS that follows from it, and what became of them.
#[derive(Default)]
struct Ledger {
    next: u32,
    /// The numbers that were published while the subscriber's session can have expired.
    excused: Vec<std::ops::Range<u32>>,
    counts: HashMap<u32, u32>,
}

impl Ledger {
    fn note(&mut self, messages: &mut Messages) {
        for payload in drain(messages) {
            let number = u32::from_be_bytes(payload.try_into().unwrap());
            *self.counts.entry(number).or_default() += 1;
        }
    }

    fn check(&self) {
        for number in 0..self.next {
            let count = self.counts.get(&number).copied().unwrap_or(0);
            let is_excused = self.excused.iter().any(|range| range.contains(&number));
            assert!(count > 0 || is_excused, "{number} is lost");
            assert!(count < 2 || qos_of(number) == QoS::AtLeastOnce, "{number} came {count} times");
        }
    }
}

const fn qos_of(number: u32) -> QoS {
    if number % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce }
}

/// Publishes a number every 20 seconds for a time.
async fn publish_for(client: &Client, ledger: &mut Ledger, stream: &mut Messages, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        let payload = ledger.next.to_be_bytes();
        let publish = Publish { qos: qos_of(ledger.next), ..Publish::new("numbers", &payload) };
        // Its outcome is checked by the flush at the end, and by the arrival.
        drop(client.publish(publish).await.unwrap());
        ledger.next += 1;
        sleep(Duration::from_secs(20).min(end - Instant::now())).await;
        ledger.note(stream);
    }
}

async fn run(seed: u64) {
    fastrand::seed(seed);
    let mut random = Random(seed);
    let start = Instant::now();
    let (events, of_broker) = mpsc::unbounded_channel();
    let broker = tokio::spawn(serve(of_broker, events.clone()));
    let (network, stable) = (watch::Sender::new(Network::Up), watch::Sender::new(Network::Up));
    let watcher = options("watcher", &events, &stable).connect().await.unwrap();
    let mut wills = watcher.subscribe("wills", QoS::AtLeastOnce).await.unwrap();
    let subscriber = options("subscriber", &events, &network).connect().await.unwrap();
    let mut stream = subscriber.subscribe("numbers", QoS::ExactlyOnce).await.unwrap();
    let publisher = options("publisher", &events, &network).connect().await.unwrap();
    let mut ledger = Ledger::default();
    let (mut outages, mut expected_wills, mut seen_wills) = (0, 0, 0);
    while start.elapsed() < DAY {
        let quiet = Duration::from_secs(300 + random.below(1_500));
        publish_for(&publisher, &mut ledger, &mut stream, quiet).await;
        assert!(matches!(*subscriber.status().borrow(), Status::Connected(_)), "kept alive");
        let (state, seconds) = match random.below(10) {
            0..3 => (Network::Down, 1 + random.below(5)),
            3..6 => (Network::Down, 120 + random.below(1_800)),
            6 => (Network::Down, 4_200 + random.below(3_600)),
            7..9 => (Network::Silent, 1 + random.below(20)),
            _ => (Network::Silent, 300 + random.below(600)),
        };
        let (first, begin) = (ledger.next, Instant::now());
        network.send_replace(state);
        outages += 1;
        if seconds > 60 {
            // PINGREQ is sent after one Keep Alive, its answer is missed after another, and the
            // last packets get five seconds.
            let noticed = timeout(Duration::from_secs(126), reaches(&subscriber, false)).await;
            assert!(
                noticed.is_ok(),
                "{state:?} is not noticed in outage {outages} at {:?}",
                start.elapsed()
            );
        }
        let rest = Duration::from_secs(seconds).saturating_sub(begin.elapsed());
        publish_for(&publisher, &mut ledger, &mut stream, rest).await;
        network.send_replace(Network::Up);
        // The longest delay is a minute, and an attempt that hangs ends after half of one.
        for client in [&subscriber, &publisher] {
            timeout(Duration::from_secs(95), reaches(client, true)).await.unwrap();
        }
        sleep(Duration::from_secs(100)).await;
        ledger.note(&mut stream);
        if seconds > u64::from(SESSION_EXPIRY) {
            ledger.excused.push(first..ledger.next);
        }
        // One of each client, if it was away for longer than the delay.
        expected_wills += if seconds > 60 { 2 } else { 0 };
        seen_wills += drain(&mut wills).len();
        assert_eq!(seen_wills, expected_wills, "after {seconds} s of {state:?}");
    }
    timeout(Duration::from_secs(60), publisher.flush()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    ledger.note(&mut stream);
    ledger.check();
    println!(
        "seed {seed}: {:?}, {outages} outages, {expected_wills} wills, {} numbers, {} excused",
        start.elapsed(),
        ledger.next,
        ledger.excused.iter().map(ExactSizeIterator::len).sum::<usize>()
    );
    assert!(outages > 20 && expected_wills > 10 && ledger.next > 2_000);
    for client in [subscriber, publisher, watcher] {
        client.disconnect().await;
    }
    broker.abort();
}

#[tokio::test(start_paused = true)]
async fn client_keeps_its_promises_for_a_day_of_outages() {
    for seed in 1..=3 {
        run(seed).await;
    }
}
