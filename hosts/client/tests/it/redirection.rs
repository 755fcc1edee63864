//! Server redirection, with servers that play a part, and with real brokers behind them.
//! [5.0 §4.11]

use crate::authentication::{read, send};
use crate::connection::LONG;
use crate::support::{Broker, Folder, kinds, trust};
use mqtt_sansio_client::codec::{
    Ack, Connack, ConnackProperties, Disconnect, DisconnectProperties, Packet, Publish, QoS,
    ReasonCode, Suback,
};
use mqtt_sansio_client::rustls::pki_types::pem::PemObject as _;
use mqtt_sansio_client::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use mqtt_sansio_client::rustls::{ServerConfig, crypto};
use mqtt_sansio_client::{Ended, Options, ServerReference, StartError, Status};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, duplex};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

const TEMPORARY: ReasonCode = ReasonCode::USE_ANOTHER_SERVER;
const PERMANENT: ReasonCode = ReasonCode::SERVER_MOVED;

/// The part of a server in one connection.
#[derive(Clone, Copy)]
enum Part {
    /// No connection can be opened.
    Down,
    /// It refers to other servers in CONNACK.
    Refuse(ReasonCode, &'static str),
    /// It accepts the client, with or without its session. It answers packets, and refers to other
    /// servers in DISCONNECT in place of the first PUBACK.
    Accept(bool, Option<(ReasonCode, &'static str)>),
    /// It accepts the client, and closes the connection in place of the first PUBACK.
    Close,
}

/// The parts of each server, by its name.
type Parts = &'static [(&'static str, &'static [Part])];

/// Events of a test, such as "a connects" for the server `a`.
type Log = Arc<Mutex<Vec<String>>>;

async fn play(mut stream: impl AsyncRead + AsyncWrite + Unpin, name: &str, part: Part, log: Log) {
    let received = &mut bytes::BytesMut::new();
    let note = |event: &str| log.lock().unwrap().push(format!("{name} {event}"));
    while let Some(packet) = read(&mut stream, received).await {
        match packet.decode() {
            Packet::Connect(connect) => {
                note(if connect.clean_start { "connects clean" } else { "connects" });
                let mut connack = Connack {
                    reason_code: ReasonCode::SUCCESS,
                    session_present: matches!(part, Part::Accept(true, _)),
                    properties: ConnackProperties::default(),
                };
                if let Part::Refuse(code, reference) = part {
                    connack.reason_code = code;
                    connack.properties.server_reference = Some(reference.into());
                    return send(&mut stream, connack.into()).await;
                }
                send(&mut stream, connack.into()).await;
            }
            Packet::Subscribe(subscribe) => {
                note("subscribes");
                let suback = Suback::new(subscribe.packet_identifier, &[ReasonCode::GRANTED_QOS_1]);
                send(&mut stream, Packet::Suback(suback)).await;
            }
            Packet::Publish(publish) => {
                note("publishes");
                match part {
                    Part::Close => return,
                    Part::Accept(_, Some((reason_code, reference))) => {
                        let properties = DisconnectProperties {
                            server_reference: Some(reference.into()),
                            ..DisconnectProperties::default()
                        };
                        let disconnect = Disconnect { reason_code, properties };
                        return send(&mut stream, disconnect.into()).await;
                    }
                    _ => {
                        let identifier = publish.packet_identifier.unwrap();
                        let puback = Ack::new(identifier, ReasonCode::SUCCESS);
                        send(&mut stream, Packet::Puback(puback)).await;
                    }
                }
            }
            _ => {}
        }
    }
}

/// Returns options for the server `a`, and the log. The n-th connection to a server gets the n-th
/// of its parts, or the last one.
fn site(parts: Parts) -> (Options, Log) {
    let log = Log::default();
    let of_servers = log.clone();
    let mut numbers = vec![0; parts.len()];
    let options = Options::new("mqtt://a").unwrap().dial(move |host, port| {
        let index = parts.iter().position(|(name, _)| *name == host).unwrap();
        let own = parts[index].1;
        let part = own[numbers[index].min(own.len() - 1)];
        numbers[index] += 1;
        let log = of_servers.clone();
        async move {
            assert_eq!(port, 1883);
            // An instant connection would replace a status before the test sees it.
            sleep(Duration::from_millis(1)).await;
            if matches!(part, Part::Down) {
                log.lock().unwrap().push(format!("{host} is down"));
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (near, far) = duplex(1000);
            tokio::spawn(async move { play(far, &host, part, log).await });
            Ok(near)
        }
    });
    (options, log)
}

fn events(log: &Log) -> String {
    log.lock().unwrap().join(", ")
}

/// Connects, following up to `most` references, publishes a message, and returns the events.
async fn publish(parts: Parts, most: u8) -> String {
    let (options, log) = site(parts);
    let client = options.follow_server_reference(most, |_| true).connect().await.unwrap();
    client.publish(message()).await.unwrap().await.unwrap();
    events(&log)
}

fn message() -> Publish<'static> {
    Publish { qos: QoS::AtLeastOnce, ..Publish::new("t", b"1") }
}

#[tokio::test(start_paused = true)]
async fn reference_is_shown_and_not_followed_by_default() {
    let parts: Parts = &[("a", &[Part::Refuse(TEMPORARY, "b")])];
    let (options, log) = site(parts);
    let error = options.connect().await.unwrap_err();
    assert!(error.to_string().ends_with("; the server refers to b"), "{error}");
    let StartError::Connect { cause, .. } = error else { panic!() };
    assert_eq!(cause.server_reference().as_deref(), Some("b"));
    assert_eq!(events(&log), "a connects clean");
}

#[tokio::test(start_paused = true)]
async fn only_allowed_servers_are_followed() {
    let parts: Parts =
        &[("a", &[Part::Refuse(TEMPORARY, "x:1 b ] c")]), ("c", &[Part::Accept(false, None)])];
    let (options, log) = site(parts);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let allow = move |server: &ServerReference| {
        seen.lock().unwrap().push(server.to_string());
        server.host == "c"
    };
    let client = options.follow_server_reference(1, allow).connect().await.unwrap();
    assert_eq!(*asked.lock().unwrap(), ["x:1", "b:1883", "c:1883"]);
    client.publish(message()).await.unwrap().await.unwrap();
    assert_eq!(events(&log), "a connects clean, c connects clean, c publishes");
}

/// The client returns to the first server after a temporary redirection.
#[tokio::test(start_paused = true)]
async fn client_returns_after_temporary_redirection() {
    let parts: Parts =
        &[("a", &[Part::Refuse(TEMPORARY, "b"), Part::Accept(true, None)]), ("b", &[Part::Close])];
    let expected = "a connects clean, b connects clean, b publishes, a connects, a publishes";
    assert_eq!(publish(parts, 2).await, expected);
}

/// The other server of a permanent redirection takes the place of the first one.
#[tokio::test(start_paused = true)]
async fn client_stays_after_permanent_redirection() {
    let parts: Parts =
        &[("a", &[Part::Refuse(PERMANENT, "b")]), ("b", &[Part::Close, Part::Accept(true, None)])];
    let expected = "a connects clean, b connects clean, b publishes, b connects, b publishes";
    assert_eq!(publish(parts, 2).await, expected);
}

/// A permanent redirection to a server that does not accept the client changes nothing.
#[tokio::test(start_paused = true)]
async fn client_returns_when_other_server_does_not_accept_it() {
    let parts: Parts =
        &[("a", &[Part::Refuse(PERMANENT, "b"), Part::Accept(false, None)]), ("b", &[Part::Down])];
    let (options, log) = site(parts);
    let client = options.follow_server_reference(2, |_| true).start().unwrap();
    client.publish(message()).await.unwrap().await.unwrap();
    assert_eq!(events(&log), "a connects clean, b is down, a connects clean, a publishes");
}

#[tokio::test(start_paused = true)]
async fn servers_of_a_list_are_tried_in_order() {
    let parts: Parts = &[
        ("a", &[Part::Refuse(TEMPORARY, "b c d")]),
        ("b", &[Part::Down]),
        ("c", &[Part::Accept(false, None)]),
    ];
    let (options, log) = site(parts);
    options.follow_server_reference(2, |_| true).connect().await.unwrap();
    assert_eq!(events(&log), "a connects clean, b is down, c connects clean");
}

/// Two servers that refer to each other: a burst of 4 attempts, and then delays.
#[tokio::test(start_paused = true)]
async fn loop_of_references_ends_in_a_delay() {
    let parts: Parts =
        &[("a", &[Part::Refuse(PERMANENT, "b")]), ("b", &[Part::Refuse(PERMANENT, "a")])];
    let (options, log) = site(parts);
    assert!(options.follow_server_reference(3, |_| true).connect().await.is_err());
    let burst = "a connects clean, b connects clean, a connects clean, b connects clean";
    assert_eq!(events(&log), burst);
    let (options, log) = site(parts);
    let options = options.backoff(Duration::from_secs(1), Duration::from_secs(60));
    let _client = options.follow_server_reference(3, |_| true).start().unwrap();
    sleep(Duration::from_secs(600)).await;
    let attempts = log.lock().unwrap().len();
    assert!((40..120).contains(&attempts), "{attempts}");
}

/// The client publishes the unacknowledged message again at the other server, and subscribes there.
#[tokio::test(start_paused = true)]
async fn disconnect_with_reference_moves_subscription_and_messages() {
    let parts: Parts = &[
        ("a", &[Part::Accept(false, Some((TEMPORARY, "b")))]),
        ("b", &[Part::Accept(false, None)]),
    ];
    let (options, log) = site(parts);
    let options = options.no_reconnect().follow_server_reference(1, |_| true);
    let client = options.connect().await.unwrap();
    let _messages = client.subscribe("t", QoS::AtLeastOnce).await.unwrap();
    let mut status = client.status();
    let delivery = client.publish(message()).await.unwrap();
    let redirected = status.wait_for(|status| matches!(status, Status::Redirected { .. })).await;
    let Status::Redirected { cause, server } = redirected.unwrap().clone() else { panic!() };
    assert!(matches!(cause, Ended::Disconnected(_)), "{cause}");
    assert_eq!((&*server.host, server.port, server.is_permanent), ("b", 1883, false));
    delivery.await.unwrap();
    let events = events(&log);
    assert!(events.starts_with("a connects clean, a subscribes, a publishes, b connects, b "));
    for event in ["b subscribes", "b publishes"] {
        assert_eq!(events.matches(event).count(), 1, "{events}");
    }
}

/// Servers without a common session: what `a` still has of the client is of no use after `b`.
#[tokio::test(start_paused = true)]
async fn client_returns_clean_when_servers_share_no_session() {
    let parts: Parts = &[
        ("a", &[Part::Accept(false, Some((TEMPORARY, "b"))), Part::Accept(false, None)]),
        ("b", &[Part::Close]),
    ];
    let expected = "a connects clean, a publishes, b connects, b publishes, a connects clean, \
                    a publishes";
    assert_eq!(publish(parts, 1).await, expected);
    // A cluster has the session everywhere.
    let parts: Parts = &[
        ("a", &[Part::Accept(false, Some((TEMPORARY, "b"))), Part::Accept(true, None)]),
        ("b", &[Part::Accept(true, Some((TEMPORARY, "c")))]),
        ("c", &[Part::Down]),
    ];
    let expected = "a connects clean, a publishes, b connects, b publishes, c is down, \
                    a connects, a publishes";
    assert_eq!(publish(parts, 2).await, expected);
}

/// A server that refers to a real broker, over TCP and TLS: the scheme of the URL is kept.
#[tokio::test]
async fn client_follows_to_each_broker_with_its_scheme() {
    for kind in kinds() {
        let folder = Folder::new();
        let broker = Broker::start_with_all_listeners(kind, &folder);
        for (scheme, port) in [("mqtt", broker.port), ("mqtts", broker.port + 1)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("{scheme}://localhost:{}", listener.local_addr().unwrap().port());
            let reference: &'static str = format!("localhost:{port}").leak();
            let acceptor = (scheme == "mqtts").then(|| {
                let certificate = CertificateDer::from_pem_file(folder.path("cert.pem")).unwrap();
                let key = PrivateKeyDer::from_pem_file(folder.path("key.pem")).unwrap();
                let provider = Arc::new(crypto::ring::default_provider());
                let config = ServerConfig::builder_with_provider(provider);
                let config = config.with_safe_default_protocol_versions().unwrap();
                let config = config.with_no_client_auth().with_single_cert(vec![certificate], key);
                TlsAcceptor::from(Arc::new(config.unwrap()))
            });
            let log = Log::default();
            let of_server = log.clone();
            let server = tokio::spawn(async move {
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    let (part, log) = (Part::Refuse(PERMANENT, reference), of_server.clone());
                    match &acceptor {
                        Some(acceptor) => {
                            play(acceptor.accept(socket).await.unwrap(), "a", part, log).await;
                        }
                        None => play(socket, "a", part, log).await,
                    }
                }
            });
            let options = Options::new(&url).unwrap().tls(trust(&folder.path("cert.pem")));
            let options = options.follow_server_reference(1, move |server| server.port == port);
            let client = timeout(LONG, options.connect()).await.unwrap().unwrap();
            let mut messages = client.subscribe("t", QoS::AtLeastOnce).await.unwrap();
            client.publish(message()).await.unwrap().await.unwrap();
            assert_eq!(timeout(LONG, messages.recv()).await.unwrap().unwrap().payload(), b"1");
            client.disconnect().await;
            assert_eq!(events(&log), "a connects clean", "{kind:?} {url}");
            server.abort();
        }
    }
}
