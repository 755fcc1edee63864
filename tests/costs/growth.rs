//! Repeated work leaves no memory behind.

use mqtt_sansio::broker::{Action, Admission, Broker, BrokerConfig, ConnectionId};
use mqtt_sansio::client::{Client, ClientConfig};
use mqtt_sansio::codec::{ConnackProperties, Connect, Packet, Publish, QoS};
use mqtt_sansio::server::{Server, ServerConfig};
use mqtt_sansio::session::{Message, Outgoing, Session};
use testkit::heap::Region;
use testkit::machine::{Hears, NOW, accepted};
use testkit::wire::{VERSIONS, ack, encoded, identifier, lasting, message, subscribe};

/// Repeats a round. The heap must not grow by a byte per round, except during the first ones.
fn repeat(what: &str, mut round: impl FnMut()) {
    (0..100).for_each(|_| round());
    let region = Region::new();
    (0..10_000).for_each(|_| round());
    let grown = region.change().bytes_held;
    assert!(grown.abs() < 2_000, "{what}: {grown} bytes");
}

/// Connects a client and a server, with messages in flight in both directions, and cuts them.
fn reconnect(client: &mut Client, parked: &mut Option<Session>, connect: &Connect<'_>) {
    let publish = message(QoS::ExactlyOnce, "x");
    let mut out = Vec::new();
    client.connect(connect, NOW, &mut out).unwrap();
    let mut server = Server::new(ServerConfig::new(), NOW);
    server.hears(&out);
    out.clear();
    let session = parked.take().filter(|_| !connect.clean_start);
    server.accept(session, ConnackProperties::default(), NOW, &mut out).unwrap();
    // Enough messages wait for each reconnect to resend some and complete some.
    if client.session().in_flight() + client.session().queued() < 10 {
        client.publish(1, &publish, NOW, &mut Vec::new()).unwrap();
        server.deliver(Outgoing::new(Some(2), Message::new(&publish).unwrap()), NOW).unwrap();
    }
    let _ = server.flush(NOW, &mut out);
    let (_, up) = client.hears(&out);
    let (_, down) = server.hears(&up);
    client.hears(&down);
    let _ = client.connection_lost();
    *parked = Some(server.take_session());
}

/// Does what the broker asks of its host, and accepts every client.
fn serve(broker: &mut Broker) {
    while let Some(action) = broker.poll_action() {
        match action {
            Action::Ask(question, _) => {
                broker.accept(question, Admission::default(), NOW).unwrap();
            }
            Action::Ready(id) => while broker.transmit(id, NOW, &mut Vec::new()) {},
            Action::Closed(id, _) => {
                let _ = broker.connection_lost(id, NOW);
            }
            _ => {}
        }
    }
}

fn give(broker: &mut Broker, id: ConnectionId, bytes: &[u8]) {
    let mut input = bytes;
    while !input.is_empty() {
        while broker.handle_input(id, &mut input, NOW) {}
        serve(broker);
    }
}

/// Runs a connection that subscribes, publishes with each QoS, and breaks during its exchanges.
fn visit(broker: &mut Broker, connect: &Connect<'_>) {
    let version = connect.version;
    let publish =
        Publish { packet_identifier: Some(identifier(2)), ..message(QoS::ExactlyOnce, "x") };
    let connection = broker.open(NOW);
    for bytes in [
        encoded(*connect, version),
        subscribe(1, "t", QoS::ExactlyOnce, version),
        encoded(publish, version),
        encoded(message(QoS::AtMostOnce, "x"), version),
        ack(Packet::Pubrel, 2, version),
    ] {
        give(broker, connection, &bytes);
    }
    let _ = broker.connection_lost(connection, NOW);
    serve(broker);
}

/// [5.0 §4.3.3] [3.1.1 §4.3.3]
#[test]
fn repeats_and_reconnects_leave_no_memory() {
    for version in VERSIONS {
        let publish = Publish {
            packet_identifier: Some(identifier(1)),
            dup: true,
            ..message(QoS::ExactlyOnce, "x")
        };
        let bytes = encoded(publish, version);
        let mut server = accepted(&lasting(version));
        repeat("one QoS 2 message, repeatedly", || assert!(server.hears(&bytes).0.len() <= 1));
        let mut broker = Broker::new(BrokerConfig::new(ServerConfig::new()), 1, NOW);
        let connection = broker.open(NOW);
        give(&mut broker, connection, &encoded(lasting(version), version));
        repeat("the same to a broker", || give(&mut broker, connection, &bytes));

        let clean = Connect { clean_start: true, ..Connect::new(version, "c") };
        for connect in [lasting(version), clean] {
            let (mut client, mut parked) = (Client::new(ClientConfig::new()), None);
            repeat("reconnects", || reconnect(&mut client, &mut parked, &connect));
            let server = ServerConfig::new().maximum_queued(5, 1_000).maximum_in_flight(5);
            let mut broker = Broker::new(BrokerConfig::new(server), 1, NOW);
            repeat("clients of a broker", || visit(&mut broker, &connect));
        }
    }
}
