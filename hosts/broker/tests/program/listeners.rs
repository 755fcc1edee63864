//! Each kind of listener.

use crate::client::{Client, Transport, open};
use crate::{Broker, Directory, has, run};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::client::WantsClientCert;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, StreamOwned,
};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// The files of an authority, and of a server and a client with certificates from it.
pub(crate) struct Certificates {
    directory: Directory,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let directory = Directory::new();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        directory.write("ca.pem", &issuer.pem());
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.serial_number = Some(SerialNumber::from(7));
            directory
                .write(&format!("{name}.pem"), &params.signed_by(&key, &issuer).unwrap().pem());
            directory.write(&format!("{name}.key"), &key.serialize_pem());
        }
        // One list revokes nothing, the other what is above.
        for (name, serial) in [("empty.crl", 8), ("crl", 7)] {
            let crl = CertificateRevocationListParams {
                this_update: date_time_ymd(2024, 1, 1),
                next_update: date_time_ymd(2124, 1, 1),
                crl_number: SerialNumber::from(1),
                issuing_distribution_point: None,
                revoked_certs: vec![RevokedCertParams {
                    serial_number: SerialNumber::from(serial),
                    revocation_time: date_time_ymd(2024, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                }],
                key_identifier_method: KeyIdMethod::Sha256,
            };
            directory.write(name, &crl.signed_by(&issuer).unwrap().pem().unwrap());
        }
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path(name)
    }
}

pub(crate) fn tls(address: &str, certificates: &Certificates) -> impl Transport + 'static {
    let config = tls_config(certificates).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), open(address))
}

fn tls_with_certificate(address: &str, certificates: &Certificates) -> impl Transport + 'static {
    let chain = vec![CertificateDer::from_pem_file(certificates.path("client.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certificates.path("client.key")).unwrap();
    let config = tls_config(certificates).with_client_auth_cert(chain, key).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), open(address))
}

fn tls_config(certificates: &Certificates) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.path("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}

/// A WebSocket as a stream, with a message for each write.
pub(crate) struct Stream<T> {
    socket: WebSocket<T>,
    received: Vec<u8>,
}

impl<T: Transport> Stream<T> {
    pub(crate) fn new(transport: T) -> Self {
        let mut request = "ws://localhost/any/path".into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
        let (socket, response) = tungstenite::client(request, transport).ok().unwrap();
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
        Self { socket, received: Vec::new() }
    }
}

impl<T: Transport> Read for Stream<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.received.is_empty() {
            match self.socket.read() {
                Ok(message) => self.received = message.into_data().to_vec(),
                Err(_) => return Ok(0),
            }
        }
        let count = self.received.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.received[..count]);
        self.received.drain(..count);
        Ok(count)
    }
}

impl<T: Transport> Write for Stream<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.send(Message::Binary(bytes.to_vec().into())).unwrap();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn each_kind_of_listener_carries_messages() {
    let certificates = Certificates::new();
    let path = certificates.path("socket");
    // A program that was killed leaves its socket behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let unix = format!("unix:{path}");
    let (cert, key) = (certificates.path("server.pem"), certificates.path("server.key"));
    let mut flags = vec!["--cert", &cert, "--key", &key, "--listen", &unix];
    for url in ["tcp://127.0.0.1:0", "tls://127.0.0.1:0", "ws://127.0.0.1:0", "wss://127.0.0.1:0"] {
        flags.extend(["--listen", url]);
    }
    let mut broker = Broker::start(&flags);
    let stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut clients = [
        Client::tcp(&broker.address("tcp")),
        Client::new(stream),
        Client::new(tls(&broker.address("tls"), &certificates)),
        Client::new(Stream::new(open(&broker.address("ws")))),
        Client::new(Stream::new(tls(&broker.address("wss"), &certificates))),
    ];
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.connect(4, &number.to_string(), None), 0);
        assert_eq!(client.subscribe("a/#"), 0);
    }
    // Longer than the buffers on the way.
    let large = "x".repeat(10_000);
    for number in 0..clients.len() {
        clients[number].publish("a/b", &number.to_string());
        for client in &mut clients {
            client.expect("a/b", &number.to_string());
        }
        clients[number].publish("a/large", &large);
        let expected = crate::client::publish("a/large", &large);
        for client in &mut clients {
            let mut received = vec![0; expected.len()];
            client.transport.read_exact(&mut received).unwrap();
            assert!(received == expected);
        }
    }
    broker.signal("-TERM");
    assert!(broker.end());
    assert!(!std::path::Path::new(&path).exists());
}

/// [5.0 MQTT-6.0.0-1] [5.0 MQTT-6.0.0-3]
#[test]
fn websocket_with_text_or_another_protocol_is_refused() {
    let broker = Broker::start(&["--listen", "ws://127.0.0.1:0"]);
    let mut stream = Stream::new(open(&broker.address("ws")));
    stream.socket.send(Message::Text("text".into())).unwrap();
    assert_eq!(Client::new(stream).expect_end(), b"");

    let mut request = "ws://localhost/".into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "chat".parse().unwrap());
    assert!(tungstenite::client(request, open(&broker.address("ws"))).is_err());
}

#[test]
fn client_without_certificate_is_refused_until_reload_changes_authority() {
    if !has("mosquitto_pub") || !has("mosquitto_sub") {
        return;
    }
    let (ours, others) = (Certificates::new(), Certificates::new());
    let (cert, key, ca) = (ours.path("server.pem"), ours.path("server.key"), ours.path("ca.pem"));
    let crl = ours.path("empty.crl");
    let mut broker = Broker::start(&[
        "--listen",
        "tls://127.0.0.1:0",
        "--cert",
        &cert,
        "--key",
        &key,
        "--client-ca",
        &ca,
        "--client-crl",
        &crl,
    ]);
    let port = broker.port("tls");
    let client = |certificates: &Certificates, arguments: &[&str]| {
        let file = |name| certificates.path(name);
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "localhost", "-p", &port, "-t", "a", "-m", "b", "-q", "1"]);
        command.args(["--cafile", &file("ca.pem")]).args(arguments);
        if arguments.is_empty() {
            command.args(["--cert", &file("client.pem"), "--key", &file("client.key")]);
        }
        command.stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(client(&ours, &[]));
    assert!(!client(&ours, &["-d"]), "without a certificate");
    assert!(!client(&others, &[]), "with a certificate from another authority");

    let files = [("server.pem", &cert), ("server.key", &key), ("ca.pem", &ca), ("empty.crl", &crl)];
    for (name, path) in files {
        std::fs::copy(others.path(name), path).unwrap();
    }
    broker.signal("-HUP");
    broker.wait(|log| log.contains("reloaded the certificates"));
    assert!(client(&others, &[]));
    let mut live = Client::new(tls_with_certificate(&broker.address("tls"), &others));
    assert_eq!(live.connect(5, "live", None), 0);
    std::fs::copy(others.path("crl"), &crl).unwrap();
    broker.signal("-HUP");
    broker.wait(|log| log.matches("reloaded the certificates").count() == 2);
    let disconnect = live.receive();
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x87));
    assert!(!client(&others, &[]), "with a certificate that is revoked");
    std::fs::copy(others.path("empty.crl"), &crl).unwrap();
    broker.signal("-HUP");
    broker.wait(|log| log.matches("reloaded the certificates").count() == 3);
    std::fs::write(&key, "no key").unwrap();
    broker.signal("-HUP");
    broker.wait(|log| log.contains("the certificates stay as they were"));
    assert!(client(&others, &[]));
}

#[test]
fn common_name_of_certificate_is_the_user_name() {
    if !has("mosquitto_pub") {
        return;
    }
    let files = Certificates::new();
    let path = |name| files.path(name);
    // A user name in CONNECT is not asked for, and counts for nothing.
    let acl = files.directory.write("acl", "user client\ntopic write a\nuser other\ntopic b\n");
    let mut broker = Broker::start(&[
        "--listen",
        "tls://127.0.0.1:0",
        "--cert",
        &path("server.pem"),
        "--key",
        &path("server.key"),
        "--client-ca",
        &path("ca.pem"),
        "--certificate-user",
        "--acl-file",
        &acl,
        "--listen",
        "tcp://127.0.0.1:0",
    ]);
    let mut reader = Client::connected(&broker.address("tcp"), "reader", Some(("other", "")));
    assert_eq!(reader.subscribe("b"), 0);
    let port = broker.port("tls");
    let publish = |topic, user| {
        let (ca, cert, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
        let files = ["--cafile", &ca, "--cert", &cert, "--key", &key];
        let arguments = ["-h", "localhost", "-p", &port, "-t", topic, "-m", "x", "-u", user];
        let all = [&arguments[..], &files, &["-V", "5", "-q", "1"]].concat();
        run("mosquitto_pub", &all)
    };
    assert!(publish("a", "other"));
    publish("b", "other");
    reader.ping();
    broker.wait(|log| log.contains("user=\"client\" version=5.0"));
    broker.signal("-HUP");
    reader.ping();
}

#[test]
fn balancer_says_who_its_client_is() {
    let mut broker = Broker::start(&["--listen", "tcp://127.0.0.1:0?proxy"]);
    let address = broker.address("tcp");
    let address = address.strip_suffix("?proxy").unwrap();
    let mut client = Client::tcp(address);
    client.send(b"PROXY TCP4 1.2.3.4 5.6.7.8 9 1883\r\n");
    assert_eq!(client.connect(4, "a", None), 0);
    broker
        .wait(|log| log.contains("client connected address=1.2.3.4:9 client=\"a\" version=3.1.1"));
    let mut client = Client::tcp(address);
    client.send(&crate::client::connect(4, "a", None));
    assert_eq!(client.expect_end(), b"");
}
