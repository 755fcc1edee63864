//! TLS and credentials between a broker and NATS.

use crate::programs::{free_ports, has, kill, mosquitto_pub, mosquitto_sub};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair as TlsKey};
use serde_json::{Value, json};
use std::fs::File;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A server of NATS with certificates beside it.
struct Server {
    directory: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Server {
    /// Starts a server that needs TLS, with more lines of its configuration.
    fn start(name: &str, lines: &str) -> Self {
        let directory = format!("mqtt-sansio-security-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(directory);
        std::fs::create_dir(&directory).unwrap();
        let [port] = free_ports();
        let mut server = Self { directory, port, process: None };
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, TlsKey::generate().unwrap()).unwrap();
        server.write("ca.pem", &issuer.pem());
        for name in ["server", "node"] {
            let key = TlsKey::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            server.write(&format!("{name}.pem"), &params.signed_by(&key, &issuer).unwrap().pem());
            server.write(&format!("{name}.key"), &key.serialize_pem());
        }
        let text = format!(
            "listen: 127.0.0.1:{port}\nmax_payload: 8MB\n\
             jetstream {{ store_dir: {:?}, sync_interval: always }}\n\
             tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: {} }}\n{lines}\n",
            server.path("store"),
            server.path("server.pem"),
            server.path("server.key"),
            server.path("ca.pem"),
            name == "certificate",
        );
        server.write("nats.conf", &text);
        let log = File::create(server.path("nats.log")).unwrap();
        let mut command = Command::new("nats-server");
        command.arg("-c").arg(server.path("nats.conf")).stderr(log).stdout(Stdio::null());
        server.process = Some(command.spawn().unwrap());
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "{}", server.log("nats.log"));
            sleep(Duration::from_millis(20));
        }
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Starts a broker with an address and flags; those that begin with `@` are files. Returns
    /// `None` if it refuses to start.
    fn broker(&self, user: &str, flags: &[&str]) -> Option<Broker> {
        let [port] = free_ports();
        let file = |flag: &&str| match flag.strip_prefix('@') {
            Some(name) => self.path(name).display().to_string(),
            None => (*flag).to_owned(),
        };
        let mut process = Command::new(env!("CARGO_BIN_EXE_broker"))
            .args(["--listen", &format!("tcp://127.0.0.1:{port}"), "--cluster-replicas", "1"])
            .args(["--cluster", &format!("tls://{user}localhost:{}", self.port)])
            .args(flags.iter().map(file))
            .stderr(File::create(self.path("broker.log")).unwrap())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !self.log("broker.log").contains("listening on") {
            if process.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{}", self.log("broker.log"));
            sleep(Duration::from_millis(20));
        }
        Some(Broker { process: Some(process), port })
    }

    /// Checks that a broker with these flags works, and that one with others does not start and
    /// says why.
    fn check(&self, (user, flags): (&str, &[&str]), wrong: &[(&str, &[&str], &str)]) {
        let broker = self.broker(user, flags);
        let broker = broker.unwrap_or_else(|| panic!("{}", self.log("broker.log")));
        let retained = ["-t", "secret", "-m", "text", "-q", "1", "-r"];
        mosquitto_pub(broker.port, &retained);
        assert_eq!(mosquitto_sub(broker.port, &["-t", "secret", "-C", "1"]), "text\n");
        drop(broker);
        for (user, flags, cause) in wrong {
            let log = || self.log("broker.log");
            assert!(self.broker(user, flags).is_none(), "{user:?} {flags:?}");
            assert!(log().contains(cause), "{user:?} {flags:?}: {}", log());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        kill(&mut self.process);
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

struct Broker {
    process: Option<Child>,
    port: u16,
}

impl Drop for Broker {
    fn drop(&mut self) {
        kill(&mut self.process);
    }
}

const CA: [&str; 2] = ["--cluster-ca", "@ca.pem"];

#[test]
fn broker_reaches_nats_by_tls_with_a_password() {
    if !has("nats-server") || !has("mosquitto_pub") {
        return;
    }
    let server = Server::start("password", "authorization { user: mqtt, password: \"p@ss:word\" }");
    let wrong: [(&str, &[&str], &str); 3] = [
        ("mqtt:other@", &CA, "authorization violation"),
        ("", &CA, "authorization violation"),
        ("mqtt:p%40ss%3Aword@", &[], "cannot connect to NATS"),
    ];
    server.check(("mqtt:p%40ss%3Aword@", &CA), &wrong);
}

#[test]
fn broker_reaches_nats_with_a_token() {
    if !has("nats-server") || !has("mosquitto_pub") {
        return;
    }
    let server = Server::start("token", "authorization { token: s3cret }");
    server.check(("s3cret@", &CA), &[("secret@", &CA, "authorization violation")]);
}

#[test]
fn broker_reaches_nats_with_a_certificate() {
    if !has("nats-server") || !has("mosquitto_pub") {
        return;
    }
    let server = Server::start("certificate", "");
    let own = [&CA[..], &["--cluster-cert", "@node.pem", "--cluster-key", "@node.key"]].concat();
    server.check(("", &own), &[("", &CA, "cannot connect to NATS")]);
}

#[test]
fn broker_reaches_nats_with_credentials() {
    if !has("nats-server") || !has("mosquitto_pub") {
        return;
    }
    // What `nsc` writes: an operator, accounts for the system and for the brokers, and a user.
    let [operator, system, account] =
        [KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account()];
    let (user, other) = (KeyPair::new_user(), KeyPair::new_user());
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1,
        "leaf": -1, "wildcards": true, "mem_storage": -1, "disk_storage": -1, "streams": -1,
        "consumer": -1,
    });
    let of_account = json!({ "type": "account", "version": 2, "limits": limits });
    let lines = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{ {}: {}, {}: {} }}",
        jwt(&operator, &operator, &json!({ "type": "operator", "version": 2 })),
        system.public_key(),
        system.public_key(),
        jwt(&operator, &system, &json!({ "type": "account", "version": 2 })),
        account.public_key(),
        jwt(&operator, &account, &of_account),
    );
    let server = Server::start("credentials", &lines);
    let of_user = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
    let token = jwt(&account, &user, &of_user);
    for (name, key) in [("mqtt.creds", &user), ("other.creds", &other)] {
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            key.seed().unwrap(),
        );
        server.write(name, &text);
    }
    let flags = |name: &'static str| [&CA[..], &["--cluster-credentials", name]].concat();
    let wrong: [(&str, &[&str], &str); 2] = [
        ("", &flags("@other.creds"), "authorization violation"),
        ("", &flags("@missing.creds"), "No such file"),
    ];
    server.check(("", &flags("@mqtt.creds")), &wrong);
}

/// Returns a token of NATS about `subject`, signed by `issuer`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "jti": "test", "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "test",
        "sub": subject.public_key(), "nats": nats,
    });
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}
