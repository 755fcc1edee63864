use mqtt_sansio_client::Client;
use mqtt_sansio_client::codec::{Publish, QoS};

#[tokio::main(flavor = "current_thread")]
pub async fn run(port: u16) {
    let client = Client::connect(&format!("mqtt://127.0.0.1:{port}")).await.unwrap();
    let mut messages = client.subscribe("room/+", QoS::AtLeastOnce).await.unwrap();
    let mut deliveries = Vec::new();
    for number in 0..10 {
        let payload = format!("{number}");
        let reading = Publish::new("room/4", payload.as_bytes());
        let reading = Publish { qos: QoS::AtLeastOnce, ..reading };
        deliveries.push(client.publish(reading).await.unwrap());
    }
    let mut acknowledged = 0;
    for delivery in deliveries {
        delivery.await.unwrap();
        acknowledged += 1;
    }
    for _ in 0..10 {
        messages.recv().await.unwrap();
    }
    println!("acknowledged {acknowledged}, received 10");
    client.disconnect().await;
}
