//! The memory of an idle session and an idle connection, and of messages in flight.

use mqtt_sansio::Instant;
use mqtt_sansio::client::{Client, ClientConfig};
use mqtt_sansio::codec::{self, ConnackProperties, Connect, Publish, QoS, Version};
use mqtt_sansio::server::{Action, Server, ServerConfig};
use mqtt_sansio::session::{Message, Outgoing, Session};
use testkit::heap::Region;

const NOW: Instant = Instant::from_millis(0);

fn connected_server(out: &mut Vec<u8>) -> Server {
    let mut server = Server::new(ServerConfig::new(), NOW);
    let mut connect = Vec::new();
    codec::encode(&Connect::new(Version::V5_0, "c").into(), Version::V5_0, &mut connect).unwrap();
    assert!(matches!(server.handle_input(&mut &connect[..], NOW, out), Some(Action::Connect(_))));
    server.accept(None, ConnackProperties::default(), NOW, out).unwrap();
    server
}

#[test]
fn idle_machines_and_past_bursts_hold_little_memory() {
    let mut out = Vec::with_capacity(1 << 20);

    let region = Region::new();
    let session = Session::new();
    assert_eq!(region.change().bytes_held, 0);
    assert!(size_of_val(&session) < 512, "{}", size_of_val(&session));

    let region = Region::new();
    let mut server = connected_server(&mut out);
    let idle = region.change().bytes_held;
    assert!(
        size_of_val(&server) + usize::try_from(idle).unwrap() < 1_024,
        "{} + {idle}",
        size_of_val(&server)
    );

    let region = Region::new();
    let mut client = Client::new(ClientConfig::new());
    client.connect(&Connect::new(Version::V5_0, "c"), NOW, &mut out).unwrap();
    let mut connack = &b"\x20\x03\0\0\0"[..];
    while client.handle_input(&mut connack, NOW, &mut out).is_some() {}
    assert!(client.is_connected());
    let held_by_client = region.change().bytes_held;
    assert!(
        size_of_val(&client) + usize::try_from(held_by_client).unwrap() < 1_024,
        "{} + {held_by_client}",
        size_of_val(&client)
    );

    // A burst of messages, all of them in flight or queued, and then acknowledged.
    let message =
        Message::new(&Publish { qos: QoS::AtLeastOnce, ..Publish::new("t", &[0; 100]) }).unwrap();
    let region = Region::new();
    for key in 0..1_000 {
        server.deliver(Outgoing::new(Some(key), message.clone()), NOW).unwrap();
        let _ = server.flush(NOW, &mut out);
    }
    let burst = region.change().bytes_held;
    assert!(burst > 50_000, "{burst}");
    assert!(burst < 1_000 * 200, "the message itself is shared: {burst}");
    for identifier in 1..=1_000_u16 {
        let [high, low] = identifier.to_be_bytes();
        let mut puback = &[0x40, 2, high, low][..];
        while server.handle_input(&mut puback, NOW, &mut out).is_some() {}
        out.clear();
    }
    assert_eq!((server.session().in_flight(), server.session().queued()), (0, 0));
    let left = region.change().bytes_held;
    assert!(left < 1_024, "{left} bytes are left of {burst}");
}
