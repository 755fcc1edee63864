//! Brokers that are restarted, and connections that are cut, under load.

use crate::connection::LONG;
use crate::support::{Broker, Folder, Kind, Relay, SCHEMES, kinds, trust};
use mqtt_sansio_client::codec::{Connect, ConnectProperties, Publish, QoS, Version};
use mqtt_sansio_client::{Client, DeliveryError, Messages, Options};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The broker ends and starts again: ours is killed, Mosquitto has time to store its state.
    Restart,
    /// The broker is killed and starts again without any state.
    Amnesia,
    /// All connections are reset.
    Cut,
}

#[derive(Debug)]
struct Case {
    kind: Kind,
    /// One of [`SCHEMES`].
    scheme: &'static str,
    version: Version,
    fault: Fault,
    faults: u32,
}

/// Sends numbers from a publisher until the faults are over: even ones with QoS 1, odd ones with
/// QoS 2. The subscriber must receive each number that was acknowledged: with QoS 1 at least once,
/// with QoS 2 exactly once. After each fault its stream must go on.
async fn run(case: Case) {
    let Case { kind, scheme, version, fault, faults } = case;
    let folder = Folder::new();
    let mut broker = match fault {
        Fault::Amnesia => Broker::start_in_memory(kind, &folder),
        _ => Broker::start_with_all_listeners(kind, &folder),
    };
    let listener = (broker.port..).zip(SCHEMES).find(|(_, own)| *own == scheme).unwrap().0;
    let relay = Relay::start(listener).await;
    let url = relay.url(scheme);
    let certificate = folder.path("cert.pem");
    let subscriber = connect(&url, &certificate, version, "subscriber").await;
    let messages = subscriber.subscribe("load/#", QoS::ExactlyOnce).await.unwrap();
    let publisher = connect(&url, &certificate, version, "publisher").await;
    let (stop_load, stopped) = oneshot::channel();
    let published = Arc::new(AtomicU32::new(0));
    let received = Arc::new(Mutex::new(Received::default()));
    let load = tokio::spawn(load(publisher.clone(), published.clone(), received.clone(), stopped));
    let counting = tokio::spawn(count(messages, received.clone()));
    for number in 1..=faults {
        sleep(Duration::from_millis(100)).await;
        match fault {
            Fault::Cut => relay.cut(),
            Fault::Restart | Fault::Amnesia => {
                let is_stored = fault == Fault::Restart && kind == Kind::Mosquitto;
                let restart = move || {
                    broker.restart(if is_stored { "-TERM" } else { "-KILL" });
                    broker
                };
                broker = tokio::task::spawn_blocking(restart).await.unwrap();
            }
        }
        // The subscriber has resumed its session or subscribed again if later messages arrive.
        let before = published.load(Ordering::Relaxed);
        let start = Instant::now();
        while received.lock().unwrap().highest <= before {
            assert!(
                start.elapsed() < 3 * LONG,
                "{case:?}: no message arrives after fault {number}"
            );
            sleep(Duration::from_millis(5)).await;
        }
    }
    stop_load.send(()).unwrap();
    let Sent { acknowledged, unknown } = load.await.unwrap();
    let lost = || {
        let counts = &received.lock().unwrap().counts;
        acknowledged.iter().filter(|number| !counts.contains_key(number)).count()
    };
    let start = Instant::now();
    while lost() > 0 && fault != Fault::Amnesia && start.elapsed() < LONG {
        sleep(Duration::from_millis(20)).await;
    }
    // A copy would be among the next messages.
    sleep(Duration::from_millis(100)).await;
    counting.abort();
    let lost = lost();
    let Received { counts, doubled_without_dup, .. } =
        std::mem::take(&mut *received.lock().unwrap());
    let doubled = |qos| {
        let mut all = counts.iter();
        all.by_ref().filter(|(number, count)| qos_of(**number) == qos && **count > 1).count()
    };
    println!(
        "{case:?}: {} acknowledged, {unknown} unknown, {} received, {lost} lost, doubled: {} with \
         QoS 1, {} with QoS 2",
        acknowledged.len(),
        counts.len(),
        doubled(QoS::AtLeastOnce),
        doubled(QoS::ExactlyOnce)
    );
    assert!(acknowledged.len() > 100);
    // A broker that has lost its state has lost what it acknowledged.
    if fault != Fault::Amnesia {
        assert_eq!((lost, unknown), (0, 0));
    }
    // Mosquitto 2.0.11 sends a PUBLISH again after its PUBREL if it was restarted.
    let is_faulty = kind == Kind::Mosquitto && fault == Fault::Restart;
    assert_eq!(if is_faulty { doubled_without_dup } else { doubled(QoS::ExactlyOnce) }, 0);
}

const fn qos_of(number: u32) -> QoS {
    if number % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce }
}

async fn connect(url: &str, certificate: &Path, version: Version, identifier: &str) -> Client {
    let session_expiry_interval = Some(3600).filter(|_| version == Version::V5_0);
    let properties = ConnectProperties { session_expiry_interval, ..ConnectProperties::default() };
    // Mosquitto does not store a session that began with Clean Start.
    let connect = Connect { properties, ..Connect::new(version, identifier) };
    let options = Options::new(url).unwrap().with(&connect).unwrap().tls(trust(certificate));
    options.backoff(Duration::from_millis(10), Duration::from_millis(50)).connect().await.unwrap()
}

/// The numbers that a publisher sent, by their outcomes.
#[derive(Default)]
struct Sent {
    acknowledged: Vec<u32>,
    /// The server has lost the session, so they can have arrived.
    unknown: usize,
}

async fn load(
    publisher: Client,
    published: Arc<AtomicU32>,
    received: Arc<Mutex<Received>>,
    mut stopped: oneshot::Receiver<()>,
) -> Sent {
    let mut deliveries = Vec::new();
    while stopped.try_recv().is_err() {
        let number = u32::try_from(deliveries.len()).unwrap();
        let payload = number.to_be_bytes();
        let publish = Publish { qos: qos_of(number), ..Publish::new("load/a", &payload) };
        deliveries.push(publisher.publish(publish).await.unwrap());
        published.store(number, Ordering::Relaxed);
        // A subscriber that is slower than the publisher must not fall behind for ever.
        let is_ahead = received.lock().unwrap().highest + 500 < number;
        if is_ahead || number % 20 == 19 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    let mut sent = Sent::default();
    for (number, delivery) in (0..).zip(deliveries) {
        match timeout(LONG, delivery).await.unwrap() {
            Ok(_) => sent.acknowledged.push(number),
            Err(DeliveryError::SessionLost) => sent.unknown += 1,
            Err(error) => panic!("{number}: {error}"),
        }
    }
    sent
}

/// The numbers that have arrived.
#[derive(Default)]
struct Received {
    counts: HashMap<u32, u32>,
    highest: u32,
    /// Copies with QoS 2 that the server did not mark as sent before.
    doubled_without_dup: usize,
}

async fn count(mut messages: Messages, received: Arc<Mutex<Received>>) {
    while let Some(message) = messages.recv().await {
        let number = u32::from_be_bytes(message.payload().try_into().unwrap());
        let received = &mut *received.lock().unwrap();
        let count = received.counts.entry(number).or_default();
        *count += 1;
        let is_copy = *count > 1 && qos_of(number) == QoS::ExactlyOnce;
        received.doubled_without_dup += usize::from(is_copy && !message.dup());
        received.highest = received.highest.max(number);
    }
}

async fn run_all(scheme: &'static str, fault: Fault, faults: u32) {
    for kind in kinds() {
        for version in [Version::V5_0, Version::V3_1_1] {
            run(Case { kind, scheme, version, fault, faults }).await;
        }
    }
}

async fn run_long(scheme: &'static str) {
    for fault in [Fault::Restart, Fault::Amnesia, Fault::Cut] {
        run_all(scheme, fault, 100).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_messages_survive_restarts() {
    run_all("mqtt", Fault::Restart, 10).await;
    run_all("mqtts", Fault::Restart, 3).await;
    run_all("ws", Fault::Restart, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_subscribes_again_when_broker_has_lost_its_state() {
    run_all("mqtt", Fault::Amnesia, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_exactly_once_over_20_cuts() {
    run_all("mqtt", Fault::Cut, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn acknowledged_messages_survive_100_faults_over_tcp() {
    run_long("mqtt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn acknowledged_messages_survive_100_faults_over_tls() {
    run_long("mqtts").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn acknowledged_messages_survive_100_faults_over_websocket() {
    run_long("ws").await;
}
