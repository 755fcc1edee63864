//! One client under load, and many that are idle.

use mqtt_sansio_client::codec::{Connect, Publish, QoS, Version};
use mqtt_sansio_client::{Client, ClientConfig, Options};
use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, Outgoing};
use std::time::Instant;

const TOPIC: &str = "factory/1/line/2/t/3";
const PAYLOAD: &[u8] = &[b'x'; 64];
/// The messages in flight, and those that wait in the channel of rumqttc.
const IN_FLIGHT: u16 = 100;

/// Prints nanoseconds of CPU and of time, or the bytes of the idle clients.
#[tokio::main(flavor = "current_thread")]
pub async fn run(client: &str, case: &str, qos: u8, count: u32, port: u16) {
    match (client, case) {
        ("ours", "idle") => {
            let mut clients = vec![ours(port, "first").await];
            let before = resident_bytes();
            for number in 1..=count {
                clients.push(ours(port, &number.to_string()).await);
            }
            println!("{}", resident_bytes() - before);
        }
        ("rumqttc", "idle") => {
            let mut clients = vec![theirs(port, "first").await];
            let before = resident_bytes();
            for number in 1..=count {
                clients.push(theirs(port, &number.to_string()).await);
            }
            println!("{}", resident_bytes() - before);
        }
        ("ours", "send") => {
            let client = ours(port, "ours").await;
            let publish =
                Publish { qos: QoS::from_u8(qos).unwrap(), ..Publish::new(TOPIC, PAYLOAD) };
            let start = Start::now();
            for _ in 0..count {
                client.publish(publish).await.unwrap();
            }
            client.flush().await;
            start.print();
        }
        ("ours", _) => {
            let client = ours(port, "ours").await;
            let start = Start::now();
            let filter = format!("{qos}/{count}");
            let mut messages = client.subscribe(&filter, QoS::from_u8(qos).unwrap()).await.unwrap();
            for _ in 0..count {
                messages.recv().await.unwrap();
            }
            start.print();
        }
        (_, "send") => {
            let (client, mut events) = theirs(port, "theirs").await;
            let start = Start::now();
            tokio::spawn(async move {
                for _ in 0..count {
                    client.publish(TOPIC, level(qos), false, PAYLOAD).await.unwrap();
                }
                std::future::pending::<()>().await;
            });
            let mut sent = 0;
            while sent < count {
                sent += match events.poll().await.unwrap() {
                    Event::Outgoing(Outgoing::Publish(_)) => u32::from(qos == 0),
                    Event::Incoming(Incoming::PubAck(_) | Incoming::PubComp(_)) => 1,
                    _ => 0,
                };
            }
            start.print();
        }
        (..) => {
            let (client, mut events) = theirs(port, "theirs").await;
            let start = Start::now();
            client.subscribe(format!("{qos}/{count}"), level(qos)).await.unwrap();
            let mut received = 0;
            while received < count {
                if let Event::Incoming(Incoming::Publish(_)) = events.poll().await.unwrap() {
                    received += 1;
                }
            }
            start.print();
        }
    }
}

async fn ours(port: u16, identifier: &str) -> Client {
    let connect = Connect::new(Version::V3_1_1, identifier);
    let connect = Connect { clean_start: true, keep_alive: 60, ..connect };
    let options = Options::new(&format!("mqtt://127.0.0.1:{port}")).unwrap();
    let config = ClientConfig::new().maximum_in_flight(IN_FLIGHT);
    options.with(&connect).unwrap().config(config).connect().await.unwrap()
}

async fn theirs(port: u16, identifier: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(identifier, "127.0.0.1", port);
    options.set_keep_alive(std::time::Duration::from_secs(60)).set_inflight(IN_FLIGHT);
    let (client, mut events) = AsyncClient::new(options, IN_FLIGHT.into());
    events.poll().await.unwrap();
    (client, events)
}

fn level(qos: u8) -> rumqttc::QoS {
    rumqttc::qos(qos).unwrap()
}

struct Start {
    cpu: u64,
    time: Instant,
}

impl Start {
    fn now() -> Self {
        Self { cpu: cpu(), time: Instant::now() }
    }

    fn print(&self) {
        println!("{} {}", cpu() - self.cpu, self.time.elapsed().as_nanos());
    }
}

/// Returns the nanoseconds that this thread, the only one, has run.
fn cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
