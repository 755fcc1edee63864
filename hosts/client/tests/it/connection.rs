//! One connection: messages, requests, limits, the end.

use crate::support::{Broker, Folder, kinds};
use mqtt_sansio_client::codec::{
    Connect, Packet, Publish, PublishProperties, QoS, ReasonCode, UserProperty, Version, Will,
};
use mqtt_sansio_client::{Client, DeliveryError, Ended, Options, PublishError, Status};
use std::time::Duration;
use tokio::time::timeout;

const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5_0];
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Returns options for a version, with a session that does not survive the connection.
pub(crate) fn options(url: &str, version: Version) -> Options {
    let identifier = format!("test-{:08x}", fastrand::u32(..));
    let connect = Connect { clean_start: true, ..Connect::new(version, &identifier) };
    Options::new(url).unwrap().with(&connect).unwrap()
}

#[tokio::test]
async fn message_arrives_with_each_version_and_qos() {
    for kind in kinds() {
        let folder = Folder::new();
        let broker = Broker::start(kind, &folder);
        for version in VERSIONS {
            let client = options(&broker.url(), version).connect().await.unwrap();
            for qos in QOS {
                let topic = format!("a/{qos}");
                let mut messages = client.subscribe(&topic, qos).await.unwrap();
                let publish = Publish { qos, ..Publish::new(&topic, b"21.5") };
                client.publish(publish).await.unwrap().await.unwrap();
                let message = timeout(LONG, messages.recv()).await.unwrap().unwrap();
                assert_eq!((message.topic(), message.payload()), (&*topic, &b"21.5"[..]));
                assert_eq!((message.qos(), message.retain(), message.dup()), (qos, false, false));
                client.unsubscribe(&[&topic]).await.unwrap();
                assert!(timeout(LONG, messages.recv()).await.unwrap().is_none());
            }
            assert!(matches!(client.disconnect().await, Ended::Requested));
        }
    }
}

/// Overlapping filters: a server can send one message for both, or one for each.
#[tokio::test]
async fn each_stream_has_each_message_once_when_filters_overlap() {
    for kind in kinds() {
        let folder = Folder::new();
        let broker = Broker::start(kind, &folder);
        let client = Client::connect(&broker.url()).await.unwrap();
        let mut all = client.subscribe("a/#", QoS::AtLeastOnce).await.unwrap();
        let mut one = client.subscribe("a/+", QoS::AtLeastOnce).await.unwrap();
        let mut same = client.subscribe("a/+", QoS::AtLeastOnce).await.unwrap();
        for payload in ["1", "2"] {
            let publish = Publish::new("a/b", payload.as_bytes());
            client.publish(publish).await.unwrap();
        }
        client.publish(Publish::new("a", b"3")).await.unwrap();
        client.flush().await;
        for (stream, expected) in
            [(&mut all, &["1", "2", "3"][..]), (&mut one, &["1", "2"]), (&mut same, &["1", "2"])]
        {
            for payload in expected {
                let message = timeout(LONG, stream.recv()).await.unwrap().unwrap();
                assert_eq!(message.payload(), payload.as_bytes(), "{kind:?}");
            }
            assert!(stream.try_recv().is_none(), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn properties_and_reason_codes_arrive() {
    for kind in kinds() {
        let folder = Folder::new();
        let broker = Broker::start(kind, &folder);
        let client = Client::connect(&broker.url()).await.unwrap();
        let user = [UserProperty::new("unit", "°C")];
        let properties = PublishProperties {
            content_type: Some("text/plain".into()),
            correlation_data: Some(b"\0\x01"),
            user_properties: (&user).into(),
            ..PublishProperties::default()
        };
        let publish = Publish { qos: QoS::AtLeastOnce, properties, ..Publish::new("a", b"x") };
        let answer = client.publish(publish).await.unwrap().await.unwrap();
        assert_eq!(answer.reason_code(), ReasonCode::NO_MATCHING_SUBSCRIBERS);
        let mut messages = client.subscribe("a", QoS::AtLeastOnce).await.unwrap();
        assert_eq!(messages.granted(), [ReasonCode::GRANTED_QOS_1]);
        client.publish(publish).await.unwrap();
        let message = timeout(LONG, messages.recv()).await.unwrap().unwrap();
        let received = message.properties();
        assert_eq!(received.content_type, properties.content_type);
        assert_eq!(received.correlation_data, properties.correlation_data);
        assert_eq!(received.user_properties, properties.user_properties);
        let status = client.status();
        let Status::Connected(connack) = &*status.borrow() else { panic!("{status:?}") };
        assert!(matches!(connack.decode(), Packet::Connack(_)));
    }
}

#[tokio::test]
async fn will_is_published_when_client_ends_with_reason_code() {
    for kind in kinds() {
        let folder = Folder::new();
        let broker = Broker::start(kind, &folder);
        let watcher = Client::connect(&broker.url()).await.unwrap();
        let mut wills = watcher.subscribe("wills/#", QoS::AtMostOnce).await.unwrap();
        let will = Some(Will::new("wills/4", b"gone"));
        let connect = Connect { will, ..Connect::new(Version::V5_0, "doomed") };
        let options = Options::new(&broker.url()).unwrap().with(&connect).unwrap();
        let doomed = options.connect().await.unwrap();
        let with_will =
            mqtt_sansio_client::codec::Disconnect::new(ReasonCode::DISCONNECT_WITH_WILL_MESSAGE);
        doomed.disconnect_with(&with_will).await;
        let message = timeout(LONG, wills.recv()).await.unwrap().unwrap();
        assert_eq!((message.topic(), message.payload()), ("wills/4", &b"gone"[..]));
    }
}

#[tokio::test]
async fn client_fails_without_server_and_starts_without() {
    let url = "mqtt://127.0.0.1:1";
    let error = Client::connect(url).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot connect to mqtt://127.0.0.1:1: "), "{error}");
    let client = Options::new(url).unwrap().start().unwrap();
    let publish = Publish { qos: QoS::AtLeastOnce, ..Publish::new("a", b"x") };
    let delivery = client.publish(publish).await.unwrap();
    assert!(matches!(client.disconnect().await, Ended::Requested));
    assert!(matches!(delivery.await, Err(DeliveryError::Closed)));
    assert!(matches!(client.publish(publish).await, Err(PublishError::Closed)));
    assert!(client.subscribe("a", QoS::AtMostOnce).await.is_err());
    client.flush().await;
}

/// The queue is full after 10 messages; the next publish waits, and goes on when there is room.
#[tokio::test]
async fn publish_waits_while_offline_queue_is_full() {
    let folder = Folder::new();
    let mut broker = Broker::start(kinds()[0], &folder);
    let config = mqtt_sansio_client::ClientConfig::new().maximum_queued(10, 1_000_000);
    let short = Duration::from_millis(50);
    let client = Options::new(&broker.url()).unwrap().config(config).backoff(short, short);
    let client = client.connect().await.unwrap();
    let mut messages = client.subscribe("a", QoS::AtLeastOnce).await.unwrap();
    broker.signal("-STOP");
    // Messages that the server does not acknowledge are in flight; the rest waits.
    let publisher = client.clone();
    let task = tokio::spawn(async move {
        for number in 0..3_000_u32 {
            let payload = number.to_string();
            let publish = Publish::new("a", payload.as_bytes());
            let publish = Publish { qos: QoS::AtLeastOnce, ..publish };
            publisher.publish(publish).await.unwrap();
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!task.is_finished());
    let publish = Publish { qos: QoS::AtLeastOnce, ..Publish::new("a", b"x") };
    assert!(matches!(client.try_publish(publish), Err(PublishError::Refused(_))));
    // A dropped publish has not queued its message.
    assert!(timeout(short, client.publish(publish)).await.is_err());
    broker.signal("-CONT");
    for number in 0..3_000_u32 {
        let message = timeout(LONG, messages.recv()).await.unwrap().unwrap();
        assert_eq!(message.payload(), number.to_string().as_bytes());
    }
    task.await.unwrap();
    timeout(LONG, client.flush()).await.unwrap();
    broker.restart("-KILL");
}

#[tokio::test]
async fn last_handle_ends_the_task() {
    let folder = Folder::new();
    let broker = Broker::start(kinds()[0], &folder);
    let client = Client::connect(&broker.url()).await.unwrap();
    let mut messages = client.subscribe("a", QoS::AtMostOnce).await.unwrap();
    let mut status = client.status();
    let clone = client.clone();
    drop(client);
    assert!(!matches!(*status.borrow(), Status::Closed(_)));
    drop(clone);
    let closed = status.wait_for(|status| matches!(status, Status::Closed(_)));
    drop(timeout(LONG, closed).await.unwrap().unwrap());
    assert!(messages.recv().await.is_none());
    // The driver holds the other end.
    assert!(timeout(LONG, async { while status.changed().await.is_ok() {} }).await.is_ok());
}

/// The functions of a user run in the task of the client.
#[tokio::test]
async fn panic_of_the_task_ends_the_client() {
    let options = Options::new("mqtt://a").unwrap();
    let options = options.transport(|| -> std::future::Ready<std::io::Result<tokio::io::Empty>> {
        panic!("the function of the user")
    });
    let error = timeout(LONG, options.connect()).await.unwrap().unwrap_err();
    assert!(error.to_string().ends_with("the task of the client was stopped"), "{error}");
}
