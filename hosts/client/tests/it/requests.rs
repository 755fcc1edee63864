//! Requests with responses.

use crate::connection::LONG;
use crate::support::{Broker, Folder, kinds};
use mqtt_sansio_client::codec::{Publish, PublishProperties, QoS};
use mqtt_sansio_client::{Client, Message};
use tokio::time::timeout;

/// Answers each request with its payload in capitals, the second before the first.
async fn respond(client: Client) {
    let mut requests = client.subscribe("shout", QoS::AtLeastOnce).await.unwrap();
    let publish = Publish { qos: QoS::AtLeastOnce, ..Publish::new("ready", b"1") };
    client.publish(Publish { retain: true, ..publish }).await.unwrap().await.unwrap();
    let (first, second) = (requests.recv().await.unwrap(), requests.recv().await.unwrap());
    answer(&client, &second).await;
    answer(&client, &first).await;
    while let Some(request) = requests.recv().await {
        answer(&client, &request).await;
    }
}

async fn answer(client: &Client, request: &Message) {
    let properties = request.properties();
    let payload = request.payload().to_ascii_uppercase();
    let topic = properties.response_topic.unwrap();
    let correlation_data = properties.correlation_data;
    let properties = PublishProperties { correlation_data, ..PublishProperties::default() };
    client.publish(Publish { properties, ..Publish::new(topic, &payload) }).await.unwrap();
}

#[tokio::test]
async fn responses_find_their_requests() {
    for kind in kinds() {
        let folder = Folder::new();
        let broker = Broker::start(kind, &folder);
        let responder = tokio::spawn(respond(Client::connect(&broker.url()).await.unwrap()));
        let client = Client::connect(&broker.url()).await.unwrap();
        let mut ready = client.subscribe("ready", QoS::AtMostOnce).await.unwrap();
        timeout(LONG, ready.recv()).await.unwrap().unwrap();
        let requester = client.requester("responses/1").await.unwrap();
        let ask = |payload: &'static [u8]| {
            timeout(LONG, requester.request(Publish::new("shout", payload)))
        };
        let (one, two) = tokio::join!(ask(b"one"), ask(b"two"));
        assert_eq!(one.unwrap().unwrap().payload(), b"ONE");
        assert_eq!(two.unwrap().unwrap().payload(), b"TWO");
        // A dropped request disturbs no other.
        let publish = Publish::new("shout", b"lost");
        tokio::select! {
            biased;
            response = requester.request(publish) => panic!("{response:?}"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(ask(b"three").await.unwrap().unwrap().payload(), b"THREE");
        responder.abort();
    }
}
