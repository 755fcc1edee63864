//! Every packet in every state of either role: one table for each role, and one outcome in each
//! cell.
//!
//! `-` is not read. `ok` is accepted without a report to the host or a packet to the peer. Other
//! cells name the report to the host or the packet to the peer, and `closed` the reason code of a
//! DISCONNECT.

use core::fmt::Debug;
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{
    self, Ack, AckProperties, Auth, AuthProperties, Connack, ConnackProperties, Connect,
    Disconnect, Packet, PacketIdentifier, Publish, QoS, ReasonCode, Suback, Subscribe,
    SubscribeProperties, Subscription, Text, Unsubscribe, UnsubscribeProperties, Version,
};
use mqtt_sansio::server::{self, Server, ServerConfig};
use mqtt_sansio::session::{Message, Outgoing};
use testkit::machine::{Hears, NOW, accepted, asked, connected, connecting};
use testkit::wire::{V5_0, VERSIONS, ack, encoded, identifier, lasting, message, packets};

const METHOD: &str = "SCRAM";

/// Before CONNECT; awaits CONNACK; connected; has written DISCONNECT; awaits CONNACK, with enhanced
/// authentication; re-authenticates.
const CLIENT: &str = "\
3.1   Connect     | - | closed | closed | closed
3.1   Connack     | - | connected | closed | closed
3.1   Publish     | - | closed | message | closed
3.1   Puback      | - | closed | ok | closed
3.1   Pubrec      | - | closed | PUBREL | closed
3.1   Pubrel      | - | closed | PUBCOMP | closed
3.1   Pubcomp     | - | closed | ok | closed
3.1   Subscribe   | - | closed | closed | closed
3.1   Suback      | - | closed | closed | closed
3.1   Unsubscribe | - | closed | closed | closed
3.1   Unsuback    | - | closed | closed | closed
3.1   Pingreq     | - | closed | closed | closed
3.1   Pingresp    | - | closed | ok | closed
3.1   Disconnect  | - | closed | closed | closed
3.1   Auth        | - | closed | closed | closed
3.1.1 Connect     | - | closed | closed | closed
3.1.1 Connack     | - | connected | closed | closed
3.1.1 Publish     | - | closed | message | closed
3.1.1 Puback      | - | closed | ok | closed
3.1.1 Pubrec      | - | closed | PUBREL | closed
3.1.1 Pubrel      | - | closed | PUBCOMP | closed
3.1.1 Pubcomp     | - | closed | ok | closed
3.1.1 Subscribe   | - | closed | closed | closed
3.1.1 Suback      | - | closed | closed | closed
3.1.1 Unsubscribe | - | closed | closed | closed
3.1.1 Unsuback    | - | closed | closed | closed
3.1.1 Pingreq     | - | closed | closed | closed
3.1.1 Pingresp    | - | closed | ok | closed
3.1.1 Disconnect  | - | closed | closed | closed
3.1.1 Auth        | - | closed | closed | closed
5.0   Connect     | - | closed | closed 82 | closed | closed | closed 82
5.0   Connack     | - | connected | closed 82 | closed | closed 82 | closed 82
5.0   Publish     | - | closed | message | closed | closed | message
5.0   Puback      | - | closed | ok | closed | closed | ok
5.0   Pubrec      | - | closed | PUBREL 92 | closed | closed | PUBREL 92
5.0   Pubrel      | - | closed | PUBCOMP 92 | closed | closed | PUBCOMP 92
5.0   Pubcomp     | - | closed | ok | closed | closed | ok
5.0   Subscribe   | - | closed | closed 82 | closed | closed | closed 82
5.0   Suback      | - | closed | closed 82 | closed | closed | closed 82
5.0   Unsubscribe | - | closed | closed 82 | closed | closed | closed 82
5.0   Unsuback    | - | closed | closed 82 | closed | closed | closed 82
5.0   Pingreq     | - | closed | closed 82 | closed | closed | closed 82
5.0   Pingresp    | - | closed | ok | closed | closed | ok
5.0   Disconnect  | - | closed | closed | closed | closed | closed
5.0   Auth 00     | - | closed 82 | closed 82 | closed | closed 82 | authenticate
5.0   Auth 18     | - | closed 82 | closed 82 | closed | authenticate | authenticate
5.0   Auth 19     | - | closed 82 | closed 82 | closed | closed 82 | closed 82
";

/// Before CONNECT; before the host's answer to it; connected; disconnected by the host; after the
/// end; awaits AUTH; re-authenticates, and waits for the client; the same, and waits for the host.
const SERVER: &str = "\
3.1   Connect     | connect | - | closed | closed | -
3.1   Connack     | closed | - | closed | closed | -
3.1   Publish     | closed | - | message | closed | -
3.1   Puback      | closed | - | ok | closed | -
3.1   Pubrec      | closed | - | PUBREL | closed | -
3.1   Pubrel      | closed | - | PUBCOMP | closed | -
3.1   Pubcomp     | closed | - | ok | closed | -
3.1   Subscribe   | closed | - | subscribe | closed | -
3.1   Suback      | closed | - | closed | closed | -
3.1   Unsubscribe | closed | - | unsubscribe | closed | -
3.1   Unsuback    | closed | - | closed | closed | -
3.1   Pingreq     | closed | - | PINGRESP | closed | -
3.1   Pingresp    | closed | - | closed | closed | -
3.1   Disconnect  | closed | - | closed | closed | -
3.1   Auth        | closed | - | closed | closed | -
3.1.1 Connect     | connect | - | closed | closed | -
3.1.1 Connack     | closed | - | closed | closed | -
3.1.1 Publish     | closed | - | message | closed | -
3.1.1 Puback      | closed | - | ok | closed | -
3.1.1 Pubrec      | closed | - | PUBREL | closed | -
3.1.1 Pubrel      | closed | - | PUBCOMP | closed | -
3.1.1 Pubcomp     | closed | - | ok | closed | -
3.1.1 Subscribe   | closed | - | subscribe | closed | -
3.1.1 Suback      | closed | - | closed | closed | -
3.1.1 Unsubscribe | closed | - | unsubscribe | closed | -
3.1.1 Unsuback    | closed | - | closed | closed | -
3.1.1 Pingreq     | closed | - | PINGRESP | closed | -
3.1.1 Pingresp    | closed | - | closed | closed | -
3.1.1 Disconnect  | closed | - | closed | closed | -
3.1.1 Auth        | closed | - | closed | closed | -
5.0   Connect     | connect | - | closed 82 | closed | - | closed CONNACK 82 | closed 82 | -
5.0   Connack     | closed | - | closed 82 | closed | - | closed CONNACK 82 | closed 82 | -
5.0   Publish     | closed | - | message | closed | - | closed CONNACK 82 | message | -
5.0   Puback      | closed | - | ok | closed | - | closed CONNACK 82 | ok | -
5.0   Pubrec      | closed | - | PUBREL 92 | closed | - | closed CONNACK 82 | PUBREL 92 | -
5.0   Pubrel      | closed | - | PUBCOMP 92 | closed | - | closed CONNACK 82 | PUBCOMP 92 | -
5.0   Pubcomp     | closed | - | ok | closed | - | closed CONNACK 82 | ok | -
5.0   Subscribe   | closed | - | subscribe | closed | - | closed CONNACK 82 | subscribe | -
5.0   Suback      | closed | - | closed 82 | closed | - | closed CONNACK 82 | closed 82 | -
5.0   Unsubscribe | closed | - | unsubscribe | closed | - | closed CONNACK 82 | unsubscribe | -
5.0   Unsuback    | closed | - | closed 82 | closed | - | closed CONNACK 82 | closed 82 | -
5.0   Pingreq     | closed | - | PINGRESP | closed | - | closed CONNACK 82 | PINGRESP | -
5.0   Pingresp    | closed | - | closed 82 | closed | - | closed CONNACK 82 | closed 82 | -
5.0   Disconnect  | closed | - | closed | closed | - | closed | closed | -
5.0   Auth 00     | closed | - | closed 82 | closed | - | closed CONNACK 82 | closed 82 | -
5.0   Auth 18     | closed | - | closed 82 | closed | - | authenticate | authenticate | -
5.0   Auth 19     | closed | - | closed 82 | closed | - | closed CONNACK 82 | closed 82 | -
";

/// A client has in flight, by identifier: 1 QoS 1; 2 QoS 2; 3 QoS 2 after PUBREL; 4 SUBSCRIBE; 5
/// UNSUBSCRIBE. The server has in flight: 6 QoS 2, acknowledged manually; 7 QoS 2, not
/// acknowledged. A PUBREC for 6 therefore waits for one for 7. 8 is unknown.
const EXCHANGES: &str = "\
3.1   Puback      | published | closed | closed | closed | closed | ok | ok | ok
3.1   Pubrec      | closed | PUBREL | PUBREL | closed | closed | PUBREL | PUBREL | PUBREL
3.1   Pubcomp     | closed | closed | published | closed | closed | ok | ok | ok
3.1   Pubrel      | PUBCOMP | PUBCOMP | PUBCOMP | PUBCOMP | PUBCOMP | PUBCOMP | closed | PUBCOMP
3.1   Suback      | closed | closed | closed | subscribed | closed | closed | closed | closed
3.1   Unsuback    | closed | closed | closed | closed | unsubscribed | closed | closed | closed
3.1   Publish 1   | message | message | message | message | message | message | message | message
3.1   Publish 2   | message | message | message | message | message | ok | ok | message
3.1.1 Puback      | published | closed | closed | closed | closed | ok | ok | ok
3.1.1 Pubrec      | closed | PUBREL | PUBREL | closed | closed | PUBREL | PUBREL | PUBREL
3.1.1 Pubcomp     | closed | closed | published | closed | closed | ok | ok | ok
3.1.1 Pubrel      | PUBCOMP | PUBCOMP | PUBCOMP | PUBCOMP | PUBCOMP | PUBCOMP | closed | PUBCOMP
3.1.1 Suback      | closed | closed | closed | subscribed | closed | closed | closed | closed
3.1.1 Unsuback    | closed | closed | closed | closed | unsubscribed | closed | closed | closed
3.1.1 Publish 1   | message | message | message | message | message | message | message | message
3.1.1 Publish 2   | message | message | message | message | message | ok | ok | message
5.0   Puback      | published | closed 82 | closed 82 | closed 82 | closed 82 | ok | ok | ok
5.0   Pubrec      | closed 82 | PUBREL | PUBREL | closed 82 | closed 82 | PUBREL 92 | PUBREL 92 | PUBREL 92
5.0   Pubcomp     | closed 82 | closed 82 | published | closed 82 | closed 82 | ok | ok | ok
5.0   Pubrel      | PUBCOMP 92 | PUBCOMP 92 | PUBCOMP 92 | PUBCOMP 92 | PUBCOMP 92 | PUBCOMP | closed 82 | PUBCOMP 92
5.0   Suback      | closed 82 | closed 82 | closed 82 | subscribed | closed 82 | closed 82 | closed 82 | closed 82
5.0   Unsuback    | closed 82 | closed 82 | closed 82 | closed 82 | unsubscribed | closed 82 | closed 82 | closed 82
5.0   Publish 1   | message | message | message | message | message | message | message | message
5.0   Publish 2   | message | message | message | message | message | ok | ok | message
";

/// A server has in flight, by identifier: 1 QoS 1; 2 QoS 2; 3 QoS 2 after PUBREL. The client has
/// unanswered: 4 SUBSCRIBE; 5 UNSUBSCRIBE; 6 and 7 as in [`EXCHANGES`], so that a refusal also
/// waits. 8 is unknown.
const SERVER_EXCHANGES: &str = "\
3.1   Puback      | published | closed | closed | ok | ok | ok | ok | ok
3.1   Pubrec      | closed | PUBREL | PUBREL | PUBREL | PUBREL | PUBREL | PUBREL | PUBREL
3.1   Pubcomp     | closed | closed | published | ok | ok | ok | ok | ok
3.1   Pubrel      | PUBCOMP | PUBCOMP | PUBCOMP | PUBCOMP | PUBCOMP | PUBCOMP | closed | PUBCOMP
3.1   Suback      | closed | closed | closed | closed | closed | closed | closed | closed
3.1   Unsuback    | closed | closed | closed | closed | closed | closed | closed | closed
3.1   Publish 1   | message | message | message | closed | closed | message | message | message
3.1   Publish 2   | message | message | message | closed | closed | ok | ok | message
3.1.1 Puback      | published | closed | closed | ok | ok | ok | ok | ok
3.1.1 Pubrec      | closed | PUBREL | PUBREL | PUBREL | PUBREL | PUBREL | PUBREL | PUBREL
3.1.1 Pubcomp     | closed | closed | published | ok | ok | ok | ok | ok
3.1.1 Pubrel      | PUBCOMP | PUBCOMP | PUBCOMP | PUBCOMP | PUBCOMP | PUBCOMP | closed | PUBCOMP
3.1.1 Suback      | closed | closed | closed | closed | closed | closed | closed | closed
3.1.1 Unsuback    | closed | closed | closed | closed | closed | closed | closed | closed
3.1.1 Publish 1   | message | message | message | closed | closed | message | message | message
3.1.1 Publish 2   | message | message | message | closed | closed | ok | ok | message
5.0   Puback      | published | closed 82 | closed 82 | ok | ok | ok | ok | ok
5.0   Pubrec      | closed 82 | PUBREL | PUBREL | PUBREL 92 | PUBREL 92 | PUBREL 92 | PUBREL 92 | PUBREL 92
5.0   Pubcomp     | closed 82 | closed 82 | published | ok | ok | ok | ok | ok
5.0   Pubrel      | PUBCOMP 92 | PUBCOMP 92 | PUBCOMP 92 | PUBCOMP 92 | PUBCOMP 92 | PUBCOMP | closed 82 | PUBCOMP 92
5.0   Suback      | closed 82 | closed 82 | closed 82 | closed 82 | closed 82 | closed 82 | closed 82 | closed 82
5.0   Unsuback    | closed 82 | closed 82 | closed 82 | closed 82 | closed 82 | closed 82 | closed 82 | closed 82
5.0   Publish 1   | message | message | message | ok | ok | message | message | message
5.0   Publish 2   | message | message | message | ok | ok | ok | ok | message
";

/// [5.0 §2.1.2] [5.0 §3.1.4] [5.0 §4.12] [3.1.1 §2.2.1] [3.1.1 §3.1.4]
#[test]
fn client_has_one_outcome_for_each_packet_in_each_state() {
    let rows = table(clients, Client::wants_input);
    assert_eq!(rows, CLIENT, "{rows}");
}

/// [5.0 §2.1.2] [5.0 §3.1.4] [5.0 §4.12] [3.1.1 §2.2.1] [3.1.1 §3.1.4]
#[test]
fn server_has_one_outcome_for_each_packet_in_each_state() {
    let rows = table(servers, Server::wants_input);
    assert_eq!(rows, SERVER, "{rows}");
}

/// [5.0 §4.3] [5.0 §3.6.2.1] [3.1.1 §4.3]
#[test]
fn machine_has_one_outcome_for_each_answer_to_each_exchange() {
    let (client, server) = (exchanges(busy), exchanges(busy_server));
    assert_eq!(client, EXCHANGES, "{client}");
    assert_eq!(server, SERVER_EXCHANGES, "{server}");
}

fn exchanges<M: Hears>(busy: fn(Version) -> M) -> String
where
    for<'i> M::Action<'i>: Debug,
{
    let mut rows = String::new();
    for version in VERSIONS {
        let mut each = |name: &str, packet: &dyn Fn(PacketIdentifier) -> Packet<'static>| {
            let cells = (1..=8).map(|number| {
                cell(
                    &mut busy(version),
                    true,
                    &encoded(packet(identifier(number)), version),
                    version,
                )
            });
            rows += &row(version, name, cells);
        };
        let ack = |number| Ack::new(number, ReasonCode::SUCCESS);
        each("Puback", &|number| Packet::Puback(ack(number)));
        each("Pubrec", &|number| Packet::Pubrec(ack(number)));
        each("Pubcomp", &|number| Packet::Pubcomp(ack(number)));
        each("Pubrel", &|number| Packet::Pubrel(ack(number)));
        each("Suback", &|number| Packet::Suback(suback(number, &CODE)));
        each("Unsuback", &|number| Packet::Unsuback(suback(number, unsuback_codes(version))));
        for (name, qos) in [("Publish 1", QoS::AtLeastOnce), ("Publish 2", QoS::ExactlyOnce)] {
            each(name, &|number| {
                Publish { packet_identifier: Some(number), ..message(qos, "x") }.into()
            });
        }
    }
    rows
}

fn outcome<A: Debug>((actions, written): (Vec<A>, Vec<u8>), version: Version) -> String {
    let mut said: Vec<String> = Vec::new();
    for action in actions {
        let action = format!("{action:?}");
        // The requests of the busy client end with each violation.
        if action.starts_with("RequestLost") {
            continue;
        }
        said.push(action.split(['(', ' ', '{']).next().unwrap().to_lowercase());
    }
    for packet in packets(&written, version) {
        let code = match &packet {
            Packet::Disconnect(disconnect) => {
                said.push(format!("{:02x}", disconnect.reason_code.get()));
                continue;
            }
            Packet::Connack(connack) => format!(" {:02x}", connack.reason_code.get()),
            Packet::Puback(ack)
            | Packet::Pubrec(ack)
            | Packet::Pubrel(ack)
            | Packet::Pubcomp(ack)
                if ack.reason_code.is_error() =>
            {
                format!(" {:02x}", ack.reason_code.get())
            }
            Packet::Suback(suback) => {
                format!(" {:02x}", suback.reason_codes.iter().next().unwrap().get())
            }
            _ => String::new(),
        };
        said.push(format!("{:?}{code}", packet.packet_type()).to_uppercase());
    }
    if said.is_empty() { "ok".into() } else { said.join(" ") }
}

fn auth(code: ReasonCode) -> Auth<'static> {
    Auth {
        reason_code: code,
        properties: AuthProperties {
            authentication_method: Some(METHOD.into()),
            ..AuthProperties::default()
        },
    }
}

fn with_method(version: Version) -> Connect<'static> {
    let mut connect = lasting(version);
    connect.properties.authentication_method = Some(METHOD.into());
    connect
}

const CODE: [ReasonCode; 1] = [ReasonCode::SUCCESS];

fn suback(packet_identifier: PacketIdentifier, codes: &'static [ReasonCode]) -> Suback<'static> {
    Suback { packet_identifier, properties: AckProperties::default(), reason_codes: codes.into() }
}

fn unsuback_codes(version: Version) -> &'static [ReasonCode] {
    if version == V5_0 { &CODE } else { &[] }
}

/// Returns one packet of each type, none of which answers another.
fn all(version: Version) -> Vec<Vec<u8>> {
    let subscriptions = [Subscription::new("a", QoS::AtMostOnce)];
    let filters = [Text::from("a")];
    let ack = Ack::new(identifier(9), ReasonCode::SUCCESS);
    let mut packets: Vec<Packet<'_>> = vec![
        lasting(version).into(),
        Connack::default().into(),
        Publish::new("a", b"").into(),
        Packet::Puback(ack),
        Packet::Pubrec(ack),
        Packet::Pubrel(ack),
        Packet::Pubcomp(ack),
        Subscribe {
            packet_identifier: identifier(9),
            properties: SubscribeProperties::default(),
            subscriptions: (&subscriptions).into(),
        }
        .into(),
        Packet::Suback(suback(identifier(9), &CODE)),
        Unsubscribe {
            packet_identifier: identifier(9),
            properties: UnsubscribeProperties::default(),
            topic_filters: (&filters).into(),
        }
        .into(),
        Packet::Unsuback(suback(identifier(9), unsuback_codes(version))),
        Packet::Pingreq,
        Packet::Pingresp,
        Disconnect::default().into(),
    ];
    if version == V5_0 {
        let codes =
            [ReasonCode::SUCCESS, ReasonCode::CONTINUE_AUTHENTICATION, ReasonCode::RE_AUTHENTICATE];
        packets.extend(codes.map(|code| Packet::from(auth(code))));
    }
    packets
        .into_iter()
        .map(|packet| encoded(packet, version))
        .chain((version < V5_0).then(|| vec![0xF0, 0]))
        .collect()
}

fn clients(version: Version) -> Vec<Client> {
    let mut closing = connected(&lasting(version), ConnackProperties::default());
    closing.disconnect(&Disconnect::default(), NOW, &mut Vec::new()).unwrap();
    let connecting = |connect: Connect<'_>| connecting(ClientConfig::new(), &connect);
    let mut clients = vec![
        Client::new(ClientConfig::new()),
        connecting(lasting(version)),
        connected(&lasting(version), ConnackProperties::default()),
        closing,
    ];
    if version == V5_0 {
        let terms = ConnackProperties {
            authentication_method: Some(METHOD.into()),
            ..ConnackProperties::default()
        };
        let mut again = connected(&with_method(version), terms);
        again.authenticate(&auth(ReasonCode::RE_AUTHENTICATE), NOW, &mut Vec::new()).unwrap();
        clients.extend([connecting(with_method(version)), again]);
    }
    clients
}

/// Returns a server in each state of [`SERVER`]. After CONNECT the host must answer; after AUTH the
/// client must send the next step.
fn servers(version: Version) -> Vec<Server> {
    let mut closed = accepted(&lasting(version));
    let _ = closed.connection_lost();
    let mut closing = accepted(&lasting(version));
    closing.disconnect(&Disconnect::default(), NOW, &mut Vec::new()).unwrap();
    let mut servers = vec![
        Server::new(ServerConfig::new(), NOW),
        asked(ServerConfig::new(), &lasting(version)),
        accepted(&lasting(version)),
        closing,
        closed,
    ];
    if version == V5_0 {
        let mut challenged = asked(ServerConfig::new(), &with_method(version));
        challenged
            .challenge(&auth(ReasonCode::CONTINUE_AUTHENTICATION), NOW, &mut Vec::new())
            .unwrap();
        let mut again = accepted(&with_method(version));
        again.hears(&encoded(auth(ReasonCode::RE_AUTHENTICATE), version));
        again.challenge(&auth(ReasonCode::CONTINUE_AUTHENTICATION), NOW, &mut Vec::new()).unwrap();
        let mut asks = accepted(&with_method(version));
        asks.hears(&encoded(auth(ReasonCode::RE_AUTHENTICATE), version));
        servers.extend([challenged, again, asks]);
    }
    servers
}

/// Returns the outcome of each packet in each state of a machine.
fn table<M: Hears>(machines: fn(Version) -> Vec<M>, wants_input: fn(&M) -> bool) -> String
where
    for<'i> M::Action<'i>: Debug,
{
    let mut rows = String::new();
    for (version, bytes) in VERSIONS
        .into_iter()
        .flat_map(|version| all(version).into_iter().map(move |bytes| (version, bytes)))
    {
        let cells = machines(version).into_iter().map(|mut machine| {
            let reads = wants_input(&machine);
            cell(&mut machine, reads, &bytes, version)
        });
        rows += &row(version, &name(&bytes), cells);
    }
    rows
}

fn row(version: Version, name: &str, cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<_> = cells.collect();
    format!("{:5} {name:11} | {}\n", version.to_string(), cells.join(" | "))
}

/// Names a packet, with the reason code of an AUTH.
fn name(bytes: &[u8]) -> String {
    let name = format!("{:?}", codec::frame(bytes, u32::MAX).unwrap().unwrap().packet_type());
    match bytes {
        [0xF0, _, code, ..] => format!("{name} {code:02x}"),
        _ => name,
    }
}

fn cell<M: Hears>(machine: &mut M, reads: bool, bytes: &[u8], version: Version) -> String
where
    for<'i> M::Action<'i>: Debug,
{
    let said = outcome(machine.hears(bytes), version);
    if reads || said != "ok" { said } else { "-".into() }
}

/// Returns the client of [`EXCHANGES`].
fn busy(version: Version) -> Client {
    let mut client = Client::new(ClientConfig::new().manual_acknowledgement(true));
    let mut out = Vec::new();
    client.connect(&lasting(version), NOW, &mut out).unwrap();
    client.hears(&encoded(Connack::default(), version));
    for (key, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce), (3, QoS::ExactlyOnce)] {
        client.publish(key, &message(qos, "x"), NOW, &mut out).unwrap();
    }
    client.hears(&ack(Packet::Pubrec, 3, version));
    client
        .subscribe(
            4,
            &[Subscription::new("a", QoS::AtMostOnce)],
            SubscribeProperties::default(),
            NOW,
            &mut out,
        )
        .unwrap();
    client.unsubscribe(5, &["a".into()], UnsubscribeProperties::default(), NOW, &mut out).unwrap();
    for number in [6, 7] {
        let publish = encoded(
            Publish {
                packet_identifier: Some(identifier(number)),
                ..message(QoS::ExactlyOnce, "x")
            },
            version,
        );
        let (actions, _) = client.hears(&publish);
        let [client::Action::Message(received)] = &actions[..] else { panic!("{actions:?}") };
        if number == 6 {
            client
                .acknowledge(received.token.unwrap(), ReasonCode::SUCCESS, NOW, &mut out)
                .unwrap();
        }
    }
    client
}

/// Returns the server of [`SERVER_EXCHANGES`].
fn busy_server(version: Version) -> Server {
    let mut server = asked(ServerConfig::new().manual_acknowledgement(true), &lasting(version));
    let mut out = Vec::new();
    server.accept(None, ConnackProperties::default(), NOW, &mut out).unwrap();
    for (key, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce), (3, QoS::ExactlyOnce)] {
        server
            .deliver(Outgoing::new(Some(key), Message::new(&message(qos, "x")).unwrap()), NOW)
            .unwrap();
    }
    let _ = server.flush(NOW, &mut out);
    server.hears(&ack(Packet::Pubrec, 3, version));
    for bytes in all(version).iter().filter(|bytes| matches!(bytes[0], 0x82 | 0xA2)) {
        let mut bytes = bytes.clone();
        bytes[3] = if bytes[0] == 0x82 { 4 } else { 5 };
        assert_eq!(server.hears(&bytes).0.len(), 1);
    }
    for number in [6, 7] {
        let publish = encoded(
            Publish {
                packet_identifier: Some(identifier(number)),
                ..message(QoS::ExactlyOnce, "x")
            },
            version,
        );
        let (actions, _) = server.hears(&publish);
        let [server::Action::Message(received)] = &actions[..] else { panic!("{actions:?}") };
        if number == 6 {
            server
                .acknowledge(received.token.unwrap(), ReasonCode::SUCCESS, NOW, &mut out)
                .unwrap();
        }
    }
    server
}
