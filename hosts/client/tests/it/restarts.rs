//! Brokers that are restarted, and connections that are cut, under load.

use crate::connection::LONG;
use crate::support::{Broker, Folder, Kind, Relay, kinds};
use mqtt_sansio_client::codec::{Connect, ConnectProperties, Publish, QoS, Version};
use mqtt_sansio_client::{Client, DeliveryError, Messages, Options};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The broker ends and starts again: ours is killed, Mosquitto has time to store its state.
    Restart,
    /// All connections are reset.
    Cut,
}

#[derive(Debug)]
struct Case {
    kind: Kind,
    version: Version,
    qos: QoS,
    fault: Fault,
    faults: u32,
}

/// The numbers that a publisher sent, by their outcomes.
#[derive(Default)]
struct Sent {
    acknowledged: Vec<u32>,
    /// The server has lost the session, so they can have arrived.
    unknown: usize,
}

/// A publisher sends numbers until the faults are over. The subscriber must receive each number
/// that was acknowledged: with QoS 1 at least once, with QoS 2 exactly once.
async fn run(case: Case) {
    let Case { kind, version, qos, fault, faults } = case;
    let folder = Folder::new();
    let mut broker = Broker::start(kind, &folder);
    let relay = Relay::start(broker.port).await;
    let subscriber = connect(&relay.url(), version, "subscriber").await;
    let messages = subscriber.subscribe("load/#", qos).await.unwrap();
    let publisher = connect(&relay.url(), version, "publisher").await;
    let (stop_load, stopped) = oneshot::channel();
    let load = tokio::spawn(load(publisher.clone(), qos, stopped));
    let received = Arc::new(Mutex::new(Received::default()));
    let counting = tokio::spawn(count(messages, received.clone()));
    for _ in 0..faults {
        sleep(Duration::from_millis(100)).await;
        match fault {
            Fault::Cut => relay.cut(),
            Fault::Restart => {
                let restart = move || {
                    broker.restart(if kind == Kind::Ours { "-KILL" } else { "-TERM" });
                    broker
                };
                broker = tokio::task::spawn_blocking(restart).await.unwrap();
            }
        }
    }
    stop_load.send(()).unwrap();
    let Sent { acknowledged, unknown } = load.await.unwrap();
    let lost = || {
        let counts = &received.lock().unwrap().counts;
        acknowledged.iter().filter(|number| !counts.contains_key(number)).count()
    };
    let start = Instant::now();
    while lost() > 0 && start.elapsed() < LONG {
        sleep(Duration::from_millis(20)).await;
    }
    // A copy would be among the next messages.
    sleep(Duration::from_millis(100)).await;
    counting.abort();
    let lost = lost();
    let Received { counts, doubled_without_dup } = std::mem::take(&mut *received.lock().unwrap());
    let doubled = counts.values().filter(|count| **count > 1).count();
    println!(
        "{case:?}: {} acknowledged, {unknown} unknown, {} received, {lost} lost, {doubled} doubled",
        acknowledged.len(),
        counts.len()
    );
    assert!(acknowledged.len() > 100);
    assert_eq!((lost, unknown), (0, 0));
    if qos == QoS::ExactlyOnce {
        // Mosquitto 2.0.11 sends a PUBLISH again after its PUBREL if it was restarted.
        let is_faulty = kind == Kind::Mosquitto && fault == Fault::Restart;
        assert_eq!(if is_faulty { doubled_without_dup } else { doubled }, 0);
    }
    // Both are connected, and still subscribed.
    let mut again = publisher.subscribe("last", qos).await.unwrap();
    publisher.publish(Publish { qos, ..Publish::new("last", b"") }).await.unwrap().await.unwrap();
    assert!(timeout(LONG, again.recv()).await.unwrap().is_some());
}

async fn connect(url: &str, version: Version, identifier: &str) -> Client {
    let session_expiry_interval = Some(3600).filter(|_| version == Version::V5_0);
    let properties = ConnectProperties { session_expiry_interval, ..ConnectProperties::default() };
    // Mosquitto does not store a session that began with Clean Start.
    let connect = Connect { properties, ..Connect::new(version, identifier) };
    let options = Options::new(url).unwrap().with(&connect).unwrap();
    options.backoff(Duration::from_millis(10), Duration::from_millis(50)).connect().await.unwrap()
}

async fn load(publisher: Client, qos: QoS, mut stopped: oneshot::Receiver<()>) -> Sent {
    let mut deliveries = Vec::new();
    while stopped.try_recv().is_err() {
        let number = u32::try_from(deliveries.len()).unwrap();
        let payload = number.to_be_bytes();
        let publish = Publish { qos, ..Publish::new("load/a", &payload) };
        deliveries.push(publisher.publish(publish).await.unwrap());
        if number % 50 == 49 {
            sleep(Duration::from_millis(1)).await;
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
    doubled_without_dup: usize,
}

async fn count(mut messages: Messages, received: Arc<Mutex<Received>>) {
    while let Some(message) = messages.recv().await {
        let number = u32::from_be_bytes(message.payload().try_into().unwrap());
        let received = &mut *received.lock().unwrap();
        let count = received.counts.entry(number).or_default();
        *count += 1;
        received.doubled_without_dup += usize::from(*count > 1 && !message.dup());
    }
}

async fn run_all(fault: Fault, faults: u32) {
    for kind in kinds() {
        for (version, qos) in [
            (Version::V5_0, QoS::ExactlyOnce),
            (Version::V5_0, QoS::AtLeastOnce),
            (Version::V3_1_1, QoS::ExactlyOnce),
            (Version::V3_1_1, QoS::AtLeastOnce),
        ] {
            run(Case { kind, version, qos, fault, faults }).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_messages_survive_20_restarts() {
    run_all(Fault::Restart, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_exactly_once_over_20_cuts() {
    run_all(Fault::Cut, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn acknowledged_messages_survive_100_restarts_and_cuts() {
    run_all(Fault::Restart, 100).await;
    run_all(Fault::Cut, 100).await;
}
