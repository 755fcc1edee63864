//! The program for rumqttc in the guide, so that the page shows code that works.

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use std::time::Duration;
use tokio::task;

#[tokio::test]
async fn program_of_the_guide_receives_its_message() {
    let port = crate::server::start();
    let mut options = MqttOptions::new("sensor-4", "localhost", port);
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut eventloop) = AsyncClient::new(options, 10);
    task::spawn(async move {
        client.subscribe("room/+", QoS::AtLeastOnce).await.unwrap();
        client.publish("room/4", QoS::AtLeastOnce, false, "21.5").await.unwrap();
    });
    let mut received = 0;
    while let Ok(notification) = eventloop.poll().await {
        if let Event::Incoming(Packet::Publish(publish)) = notification {
            println!("{} {:?}", publish.topic, publish.payload);
            received += 1;
            break;
        }
    }
    assert_eq!(received, 1);
}

/// Each line of the page is a line of this file, in the same order.
#[test]
fn program_of_the_guide_is_this_one() {
    let guide = include_str!("../../../hosts/client/src/guide/from_rumqttc.md");
    let program = guide.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let program = program.replace("1883", "port");
    let mut lines = include_str!("guide.rs").lines().map(str::trim);
    for line in program.lines().map(str::trim).filter(|line| !line.is_empty()) {
        assert!(lines.any(|own| own == line), "{line}");
    }
}
