//! Manual acknowledgement.

use crate::connection::LONG;
use crate::support::{Broker, Folder, Relay, kinds};
use mqtt_sansio_client::codec::{Connect, ConnectProperties, Publish, QoS, ReasonCode, Version};
use mqtt_sansio_client::{Client, Options};
use std::time::Duration;
use tokio::time::timeout;

fn options(url: &str) -> Options {
    let properties = ConnectProperties {
        session_expiry_interval: Some(60),
        receive_maximum: Some(3),
        ..ConnectProperties::default()
    };
    let connect = Connect { clean_start: true, properties, ..Connect::new(Version::V5_0, "m") };
    let options = Options::new(url).unwrap().with(&connect).unwrap().manual_acknowledgement(true);
    options.backoff(Duration::from_millis(10), Duration::from_millis(50))
}

async fn publish(client: &Client, payload: &str) {
    let publish = Publish { qos: QoS::ExactlyOnce, ..Publish::new("a", payload.as_bytes()) };
    client.publish(publish).await.unwrap().await.unwrap();
}

/// Messages in the buffer of the stream are resent after the connection is lost, and seen once.
#[tokio::test]
async fn unacknowledged_messages_come_again_once_after_a_cut() {
    for kind in kinds() {
        let folder = Folder::new();
        let broker = Broker::start(kind, &folder);
        let relay = Relay::start(broker.port).await;
        let publisher = Client::connect(&broker.url()).await.unwrap();
        let client = options(&relay.url("mqtt")).connect().await.unwrap();
        let mut messages = client.subscribe("a", QoS::ExactlyOnce).await.unwrap();
        for payload in ["1", "2", "3", "4"] {
            publish(&publisher, payload).await;
        }
        let first = timeout(LONG, messages.recv()).await.unwrap().unwrap();
        assert_eq!(first.payload(), b"1");
        let mut status = client.status();
        status.mark_unchanged();
        tokio::time::sleep(Duration::from_millis(100)).await;
        relay.cut();
        let is_back = |status: &_| matches!(status, mqtt_sansio_client::Status::Connected(_));
        timeout(LONG, status.changed()).await.unwrap().unwrap();
        drop(timeout(LONG, status.wait_for(is_back)).await.unwrap().unwrap());
        // Its connection has ended.
        assert!(first.acknowledge(ReasonCode::SUCCESS).is_err());
        for payload in ["1", "2", "3", "4"] {
            let message = timeout(LONG, messages.recv()).await.unwrap().unwrap();
            assert_eq!(message.payload(), payload.as_bytes(), "{kind:?}");
            message.acknowledge(ReasonCode::SUCCESS).unwrap();
            let again = message.acknowledge(ReasonCode::SUCCESS);
            assert!(again.is_err(), "acknowledged twice");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(messages.try_recv().is_none());
    }
}

/// Without acknowledgements, the server sends no more than the Receive Maximum.
#[tokio::test]
async fn receive_maximum_holds_back_the_server() {
    for kind in kinds() {
        let folder = Folder::new();
        let broker = Broker::start(kind, &folder);
        let client = options(&broker.url()).connect().await.unwrap();
        let mut messages = client.subscribe("a", QoS::ExactlyOnce).await.unwrap();
        for payload in ["1", "2", "3", "4"] {
            // The acknowledgement arrives, because the socket is still read.
            publish(&client, payload).await;
        }
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(timeout(LONG, messages.recv()).await.unwrap().unwrap());
        }
        assert!(timeout(Duration::from_millis(200), messages.recv()).await.is_err());
        held[0].acknowledge(ReasonCode::SUCCESS).unwrap();
        assert!(timeout(LONG, messages.recv()).await.unwrap().is_some());
    }
}

/// [5.0 MQTT-3.4.2-1]
#[tokio::test]
async fn acknowledgement_refuses_code_of_another_packet() {
    let folder = Folder::new();
    let broker = Broker::start(kinds()[0], &folder);
    let client = options(&broker.url()).connect().await.unwrap();
    let mut messages = client.subscribe("a", QoS::ExactlyOnce).await.unwrap();
    publish(&client, "1").await;
    let message = timeout(LONG, messages.recv()).await.unwrap().unwrap();
    assert!(message.acknowledge(ReasonCode::SERVER_BUSY).is_err());
    assert!(message.acknowledge(ReasonCode::QUOTA_EXCEEDED).is_ok());
}
