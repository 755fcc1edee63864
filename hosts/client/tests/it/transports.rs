//! Each transport, against each broker.

use crate::connection::LONG;
use crate::support::{Broker, Folder, Kind, kinds, trust};
use mqtt_sansio_client::codec::{Connect, Publish, QoS, Version};
use mqtt_sansio_client::{Client, Options};
use tokio::time::timeout;

#[tokio::test]
async fn each_transport_carries_messages_of_each_size() {
    for kind in kinds() {
        let folder = Folder::new();
        let broker = Broker::start_with_all_listeners(kind, &folder);
        for url in broker.urls() {
            for version in [Version::V3_1_1, Version::V5_0] {
                let connect = Connect { clean_start: true, ..Connect::new(version, "a") };
                let options = Options::new(&url).unwrap().with(&connect).unwrap();
                let options = options.tls(trust(&folder.path("cert.pem")));
                let client = options.connect().await.unwrap_or_else(|error| {
                    panic!("{kind:?} {url}: {error}");
                });
                let mut messages = client.subscribe("a/#", QoS::AtLeastOnce).await.unwrap();
                // Longer than the buffers on the way.
                for size in [0, 1, 20_000, 200_000, 3_000_000] {
                    if kind == Kind::Mosquitto && url.starts_with("ws") && size > 200_000 {
                        // Mosquitto 2.0.11 does not answer.
                        continue;
                    }
                    let payload = vec![7; size];
                    let publish = Publish::new("a/b", &payload);
                    let publish = Publish { qos: QoS::AtLeastOnce, ..publish };
                    client.publish(publish).await.unwrap().await.unwrap();
                    let message = timeout(LONG, messages.recv()).await.unwrap().unwrap();
                    assert!(message.payload() == payload, "{kind:?} {url}: {size}");
                }
                client.disconnect().await;
            }
        }
    }
}

#[tokio::test]
async fn tls_needs_a_configuration_that_trusts_the_server() {
    let (folder, other) = (Folder::new(), Folder::new());
    let broker = Broker::start_with_all_listeners(kinds()[0], &folder);
    let url = &broker.urls()[1];
    let error = Client::connect(url).await.unwrap_err().to_string();
    assert!(error.contains("expected Options::tls for TLS"), "{error}");
    drop(Broker::start_with_all_listeners(kinds()[0], &other));
    let options = Options::new(url).unwrap().tls(trust(&other.path("cert.pem")));
    let error = options.connect().await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
}
