use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};
use std::time::Duration;

#[tokio::main(flavor = "current_thread")]
pub async fn run(port: u16) {
    let mut options = MqttOptions::new("rumqttc", "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(60));
    let (client, mut events) = AsyncClient::new(options, 100);
    let publisher = client.clone();
    let mut publisher = Some(async move {
        for number in 0..10 {
            let payload = format!("{number}");
            publisher.publish("room/4", QoS::AtLeastOnce, false, payload).await.unwrap();
        }
    });
    let (mut acknowledged, mut received) = (0, 0);
    let mut delay = Duration::from_millis(250);
    while acknowledged < 10 || received < 10 {
        match events.poll().await {
            Ok(Event::Incoming(Incoming::ConnAck(connack))) => {
                delay = Duration::from_millis(250);
                if !connack.session_present {
                    client.subscribe("room/+", QoS::AtLeastOnce).await.unwrap();
                }
            }
            Ok(Event::Incoming(Incoming::SubAck(_))) => {
                if let Some(publisher) = publisher.take() {
                    tokio::spawn(publisher);
                }
            }
            Ok(Event::Incoming(Incoming::PubAck(_))) => acknowledged += 1,
            Ok(Event::Incoming(Incoming::Publish(_))) => received += 1,
            Ok(_) => {}
            Err(_) => {
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(Duration::from_secs(60));
            }
        }
    }
    println!("acknowledged {acknowledged}, received {received}");
    client.disconnect().await.unwrap();
    while events.poll().await.is_ok() {}
}
