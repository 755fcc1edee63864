//! Futures that are dropped after each number of polls: nothing is lost, doubled or kept.

use crate::simulation::{Event, Network, options, serve};
use mqtt_sansio_client::codec::{Publish, QoS};
use mqtt_sansio_client::{Client, ClientConfig, Messages};
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

/// More polls than any of these futures needs.
const MOST_POLLS: usize = 12;
const SHORT: Duration = Duration::from_secs(1);

/// Polls a future that many times, and drops it.
async fn drop_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left > 0 {
            left -= 1;
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
        }
        if left == 0 { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

struct World {
    events: mpsc::UnboundedSender<Event>,
    network: watch::Sender<Network>,
}

impl World {
    fn new() -> Self {
        let (events, of_broker) = mpsc::unbounded_channel();
        tokio::spawn(serve(of_broker, events.clone()));
        Self { events, network: watch::Sender::new(Network::Up) }
    }

    async fn client(&self, identifier: &str) -> Client {
        options(identifier, &self.events, &self.network).connect().await.unwrap()
    }
}

fn message(payload: &[u8]) -> Publish<'_> {
    Publish { qos: QoS::ExactlyOnce, ..Publish::new("a", payload) }
}

/// Returns the payloads that arrive until a second passes without one.
async fn payloads(messages: &mut Messages) -> Vec<u8> {
    let mut payloads = Vec::new();
    while let Ok(Some(message)) = timeout(SHORT, messages.recv()).await {
        payloads.push(message.payload()[0]);
    }
    payloads
}

fn has(client: &Client, counts: &str) -> bool {
    format!("{client:?}").contains(counts)
}

#[tokio::test(start_paused = true)]
async fn dropped_publish_has_queued_its_message_only_if_it_has_returned() {
    let world = World::new();
    let watcher = world.client("watcher").await;
    let mut messages = watcher.subscribe("a", QoS::ExactlyOnce).await.unwrap();
    let config = ClientConfig::new().maximum_queued(3, 10_000);
    let client = options("publisher", &world.events, &world.network);
    let client = client.config(config).connect().await.unwrap();
    let mut expected = Vec::new();
    for polls in 0..MOST_POLLS {
        world.network.send_replace(Network::Down);
        sleep(SHORT).await;
        // The queue has room for three.
        let base = u8::try_from(polls * 10).unwrap();
        for number in base..base + 6 {
            let payload = [number];
            let publishing = drop_after(polls, client.publish(message(&payload)));
            if let Ok(Some(delivery)) = timeout(SHORT, publishing).await {
                drop(delivery.unwrap());
                expected.push(number);
            }
        }
        // This one waits for room when the connection comes back.
        let waits = base + 6;
        let publishing =
            async { drop_after(polls, client.publish(message(&[waits]))).await.is_some() };
        let resuming = async {
            sleep(SHORT).await;
            world.network.send_replace(Network::Up);
        };
        let (published, ()) = tokio::join!(timeout(Duration::from_secs(120), publishing), resuming);
        if published.unwrap_or(false) {
            expected.push(waits);
        }
        timeout(Duration::from_secs(120), client.flush()).await.unwrap();
    }
    sleep(Duration::from_secs(120)).await;
    assert_eq!(payloads(&mut messages).await, expected);
    assert!(expected.len() > 3 * (MOST_POLLS - 1), "{expected:?}");
    assert!(has(&client, "deliveries: 0"), "{client:?}");
}

#[tokio::test(start_paused = true)]
async fn dropped_subscribe_keeps_no_entry() {
    let world = World::new();
    let client = world.client("a").await;
    let (mut dropped, mut completed) = (0, 0);
    for polls in 0..MOST_POLLS {
        match drop_after(polls, client.subscribe("a", QoS::ExactlyOnce)).await {
            Some(messages) => {
                completed += 1;
                drop(messages);
            }
            None => dropped += 1,
        }
        // The next stream has each message once, and the dropped ones are forgotten.
        let mut messages = client.subscribe("a", QoS::ExactlyOnce).await.unwrap();
        client.publish(message(&[7])).await.unwrap();
        assert_eq!(payloads(&mut messages).await, [7]);
        assert!(has(&client, "subscriptions: 1,"), "{polls}: {client:?}");
    }
    assert!(dropped > 1 && completed > 1, "{dropped} {completed}");
}

#[tokio::test(start_paused = true)]
async fn dropped_unsubscribe_ends_the_stream_and_keeps_no_entry() {
    let world = World::new();
    let client = world.client("a").await;
    for state in [Network::Up, Network::Down] {
        let (mut dropped, mut completed) = (0, 0);
        for polls in 0..MOST_POLLS {
            let mut messages = client.subscribe("a", QoS::ExactlyOnce).await.unwrap();
            world.network.send_replace(state);
            sleep(SHORT).await;
            // A call that is repeated offline counts once.
            for _ in 0..3 {
                let unsubscribing = drop_after(polls, client.unsubscribe(&["a"]));
                match timeout(SHORT, unsubscribing).await.unwrap_or(None) {
                    Some(_) => completed += 1,
                    None => dropped += 1,
                }
            }
            assert!(!has(&client, "unsubscriptions: 2"), "{polls}: {client:?}");
            world.network.send_replace(Network::Up);
            sleep(Duration::from_secs(120)).await;
            assert!(has(&client, "unsubscriptions: 0"), "{polls}: {client:?}");
            client.publish(message(&[7])).await.unwrap();
            let expected: &[u8] = if polls == 0 { &[7] } else { &[] };
            assert_eq!(payloads(&mut messages).await, expected, "{polls}");
        }
        assert!(dropped > 1 && (completed > 1 || state == Network::Down), "{dropped} {completed}");
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_receive_loses_no_message() {
    let world = World::new();
    let client = world.client("a").await;
    let mut messages = client.subscribe("a", QoS::ExactlyOnce).await.unwrap();
    let publisher = client.clone();
    let publishing = tokio::spawn(async move {
        for number in 0..200 {
            publisher.publish(message(&[number])).await.unwrap();
            sleep(Duration::from_millis(u64::from(number % 3))).await;
        }
    });
    let mut received = Vec::new();
    for polls in (0..4).cycle().take(10_000) {
        if let Some(next) = drop_after(polls, messages.recv()).await {
            received.push(next.unwrap().payload()[0]);
        }
        let next = poll_fn(|context| {
            // The stream is another way to the same messages.
            let next = futures_core::Stream::poll_next(pin!(&mut messages), context);
            Poll::Ready(if let Poll::Ready(next) = next { next } else { None })
        });
        received.extend(next.await.map(|message| message.payload()[0]));
        if received.len() == 200 {
            break;
        }
        sleep(Duration::from_millis(1)).await;
    }
    publishing.await.unwrap();
    assert_eq!(received, (0..200).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn dropped_request_keeps_no_entry() {
    let world = World::new();
    let client = world.client("asker").await;
    let responder = world.client("responder").await;
    let mut requests = responder.subscribe("ask", QoS::AtLeastOnce).await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let properties = mqtt_sansio_client::codec::PublishProperties {
                correlation_data: request.properties().correlation_data,
                ..Default::default()
            };
            let topic = request.properties().response_topic.unwrap();
            let response = Publish { properties, ..Publish::new(topic, request.payload()) };
            responder.publish(response).await.unwrap();
        }
    });
    let (mut dropped, mut completed) = (0, 0);
    for polls in 0..MOST_POLLS {
        drop(drop_after(polls, client.requester("responses")).await);
        let requester = client.requester("responses").await.unwrap();
        let question = |payload| Publish { qos: QoS::AtLeastOnce, ..Publish::new("ask", payload) };
        match drop_after(polls, requester.request(question(b"1"))).await {
            Some(response) => {
                completed += 1;
                assert_eq!(response.unwrap().payload(), b"1");
            }
            None => dropped += 1,
        }
        assert!(format!("{requester:?}").contains("pending: Mutex { data: {}"), "{requester:?}");
        assert_eq!(requester.request(question(b"2")).await.unwrap().payload(), b"2");
    }
    assert!(dropped > 1 && completed > 1, "{dropped} {completed}");
    // The last requester is forgotten with the next subscription.
    assert!(!has(&client, "subscriptions: 3"), "{client:?}");
    assert!(has(&client, "deliveries: 0"), "{client:?}");
}

#[tokio::test(start_paused = true)]
async fn no_task_outlives_its_client() {
    let world = World::new();
    let before = Handle::current().metrics().num_alive_tasks();
    for polls in 0..MOST_POLLS {
        drop(drop_after(polls, options("a", &world.events, &world.network).connect()).await);
        let client = world.client("a").await;
        drop(drop_after(polls, client.subscribe("a", QoS::AtMostOnce)).await);
        drop(drop_after(polls, client.requester("b")).await);
        let _ = drop_after(polls, client.flush()).await;
        drop(drop_after(polls, client.disconnect()).await);
        drop(client);
        // The last packets get five seconds.
        sleep(Duration::from_secs(60)).await;
        assert_eq!(Handle::current().metrics().num_alive_tasks(), before, "{polls}");
    }
}
