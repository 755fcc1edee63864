//! Sessions in a file, over crashes of the program, for which a dropped runtime stands.

use crate::connection::LONG;
use crate::support::{Broker, Folder, kinds};
use mqtt_sansio_client::codec::{Connect, ConnectProperties, Publish, QoS, ReasonCode, Version};
use mqtt_sansio_client::{Client, ClientConfig, Messages, Options};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::time::timeout;

fn options(url: &str, identifier: &str, store: &Path) -> Options {
    let properties =
        ConnectProperties { session_expiry_interval: Some(3600), ..ConnectProperties::default() };
    let connect = Connect { properties, ..Connect::new(Version::V5_0, identifier) };
    let options = Options::new(url).unwrap().with(&connect).unwrap().store(store);
    options.backoff(Duration::from_millis(10), Duration::from_millis(50))
}

fn number(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

async fn publish(client: &Client, numbers: std::ops::Range<u32>) {
    for payload in numbers.map(number) {
        let publish = Publish { qos: QoS::ExactlyOnce, ..Publish::new("jobs/a", &payload) };
        client.publish(publish).await.unwrap();
    }
}

async fn receive(messages: &mut Messages, numbers: std::ops::Range<u32>) {
    for payload in numbers.map(number) {
        let message = timeout(LONG, messages.recv()).await.unwrap().unwrap();
        assert_eq!(message.payload(), payload);
        message.acknowledge(ReasonCode::SUCCESS).unwrap();
    }
}

/// The publisher crashes after each ten messages, with exchanges in any state.
#[test]
fn queued_messages_arrive_exactly_once_over_crashes_of_publisher() {
    for kind in kinds() {
        let folder = Folder::new();
        let broker = Broker::start(kind, &folder);
        let store = folder.path("publisher");
        let runtime = Runtime::new().unwrap();
        let watcher = runtime.block_on(Client::connect(&broker.url())).unwrap();
        let mut messages = runtime.block_on(watcher.subscribe("jobs/#", QoS::ExactlyOnce)).unwrap();
        for crash in 0..20 {
            let runtime = Runtime::new().unwrap();
            runtime.block_on(async {
                let options = options(&broker.url(), "publisher", &store);
                // The server is not needed.
                let client = options.start().unwrap();
                publish(&client, crash * 10..crash * 10 + 10).await;
                tokio::time::sleep(Duration::from_millis((crash % 7).into())).await;
                std::mem::forget(client);
            });
            // A write of the file that has begun is completed, everything else is lost.
            drop(runtime);
        }
        runtime.block_on(async {
            let client = options(&broker.url(), "publisher", &store).connect().await.unwrap();
            client.flush().await;
            receive(&mut messages, 0..200).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(messages.try_recv().is_none(), "{kind:?}");
        });
    }
}

/// The subscriber takes a few messages, acknowledges them, and crashes.
#[test]
fn messages_arrive_exactly_once_over_crashes_of_subscriber() {
    for kind in kinds() {
        let folder = Folder::new();
        let broker = Broker::start(kind, &folder);
        let store = folder.path("subscriber");
        let run = |numbers| {
            let runtime = Runtime::new().unwrap();
            runtime.block_on(async {
                let options = options(&broker.url(), "subscriber", &store);
                let mut options = options.manual_acknowledgement(true);
                let mut jobs = options.subscribe("jobs/#", QoS::ExactlyOnce).unwrap();
                let client = options.connect().await.unwrap();
                receive(&mut jobs, numbers).await;
                // The acknowledgements are stored and sent before this message.
                let last = Publish { qos: QoS::AtLeastOnce, ..Publish::new("last", b"") };
                client.publish(last).await.unwrap().await.unwrap();
                std::mem::forget(client);
            });
            drop(runtime);
        };
        run(0..0);
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let client = Client::connect(&broker.url()).await.unwrap();
            publish(&client, 0..200).await;
            client.flush().await;
        });
        for crash in 0..20 {
            run(crash * 10..crash * 10 + 10);
        }
    }
}

#[test]
fn damaged_file_is_reported_and_kept() {
    let folder = Folder::new();
    let store = folder.path("store");
    std::fs::write(&store, "MQC\x01 something else").unwrap();
    let runtime = Runtime::new().unwrap();
    let _guard = runtime.enter();
    let error = options("mqtt://127.0.0.1:1", "a", &store).start().unwrap_err();
    assert!(error.to_string().starts_with("cannot load the session from "), "{error}");
    assert_eq!(std::fs::read(&store).unwrap(), b"MQC\x01 something else");
}

/// Prints how many bytes are written for a message of QoS 1, by the number that wait.
#[test]
#[ignore = "measures, with --nocapture and alone"]
fn measure_bytes_written_per_message() {
    let written = || {
        let text = std::fs::read_to_string("/proc/self/io").unwrap();
        let line = text.lines().find(|line| line.starts_with("wchar")).unwrap();
        line.split(' ').nth(1).unwrap().parse::<u64>().unwrap()
    };
    for waiting in [1, 100, 10_000] {
        let folder = Folder::new();
        Runtime::new().unwrap().block_on(async {
            let config = ClientConfig::new().maximum_queued(20_000, 100_000_000);
            let options = options("mqtt://127.0.0.1:1", "a", &folder.path("store"));
            let client = options.config(config).start().unwrap();
            let publish = Publish { qos: QoS::AtLeastOnce, ..Publish::new("jobs/a", &[0; 16]) };
            for _ in 1..waiting {
                client.try_publish(publish).unwrap();
            }
            client.publish(publish).await.unwrap();
            let (before, start) = (written(), Instant::now());
            for _ in 0..20 {
                client.publish(publish).await.unwrap();
            }
            let bytes = (written() - before) / 20;
            println!("{waiting} wait: {bytes} bytes and {:?} each", start.elapsed() / 20);
        });
    }
}
