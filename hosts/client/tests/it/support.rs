//! Brokers as processes, and the folder of a test.

use mqtt_sansio_client::rustls::pki_types::CertificateDer;
use mqtt_sansio_client::rustls::pki_types::pem::PemObject as _;
use mqtt_sansio_client::rustls::{ClientConfig, RootCertStore, crypto};
use std::io::{Write as _, stderr};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant};
use testkit::port::free_ports;

/// A kind of broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mosquitto,
    /// The program of `hosts/broker`.
    Ours,
}

/// Returns the kinds of brokers that are installed.
pub(crate) fn kinds() -> Vec<Kind> {
    let all = [Kind::Ours, Kind::Mosquitto];
    all.into_iter().filter(|kind| *kind == Kind::Ours || has("mosquitto")).collect()
}

/// A broker that is killed at the end of the test.
pub(crate) struct Broker {
    kind: Kind,
    process: Child,
    folder: PathBuf,
    /// Whether it keeps its state in the folder.
    is_durable: bool,
    /// The port of its plain listener. The next ones are those of TLS, WebSocket, and both.
    pub(crate) port: u16,
}

/// The schemes of the listeners, in the order of the ports.
pub(crate) const SCHEMES: [&str; 4] = ["mqtt", "mqtts", "ws", "wss"];

impl Broker {
    /// Starts a broker on a free port of 127.0.0.1. It keeps its state in the folder.
    pub(crate) fn start(kind: Kind, folder: &Folder) -> Self {
        Self::start_on(kind, folder, free_ports(1), true)
    }

    /// Starts a broker with each kind of listener. Its certificate is in the folder as `cert.pem`.
    pub(crate) fn start_with_all_listeners(kind: Kind, folder: &Folder) -> Self {
        make_certificate(folder);
        Self::start_on(kind, folder, free_ports(SCHEMES.len() as u16), true)
    }

    /// Starts a broker with each kind of listener, whose state ends with its process.
    pub(crate) fn start_in_memory(kind: Kind, folder: &Folder) -> Self {
        make_certificate(folder);
        Self::start_on(kind, folder, free_ports(SCHEMES.len() as u16), false)
    }

    fn start_on(kind: Kind, folder: &Folder, port: u16, is_durable: bool) -> Self {
        let process = spawn(kind, port, &folder.0, is_durable);
        let broker = Self { kind, process, folder: folder.0.clone(), is_durable, port };
        broker.wait_until_it_listens();
        broker
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Returns the URL of each listener.
    pub(crate) fn urls(&self) -> Vec<String> {
        let network = SCHEMES.iter().zip(self.port..);
        let network = network.map(|(scheme, port)| format!("{scheme}://localhost:{port}"));
        network.chain([format!("unix:{}", self.folder.join("socket").display())]).collect()
    }

    /// Ends the program with a signal, and starts it again.
    pub(crate) fn restart(&mut self, signal: &str) {
        self.signal(signal);
        self.process.wait().unwrap();
        self.process = spawn(self.kind, self.port, &self.folder, self.is_durable);
        self.wait_until_it_listens();
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    fn wait_until_it_listens(&self) {
        let start = Instant::now();
        let has_all = self.folder.join("cert.pem").exists();
        for port in (self.port..).take(if has_all { SCHEMES.len() } else { 1 }) {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                assert!(
                    start.elapsed() < Duration::from_secs(20),
                    "{:?} does not listen",
                    self.kind
                );
                sleep(Duration::from_millis(5));
            }
        }
    }
}

fn make_certificate(folder: &Folder) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(folder.path("cert.pem"), certified.cert.pem()).unwrap();
    std::fs::write(folder.path("key.pem"), certified.signing_key.serialize_pem()).unwrap();
}

/// Returns a configuration that trusts one certificate.
pub(crate) fn trust(certificate: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// Starts the program, with all listeners if there is a certificate.
fn spawn(kind: Kind, port: u16, folder: &Path, is_durable: bool) -> Child {
    let path = |name| folder.join(name).display().to_string();
    let (cert, key, socket) = (path("cert.pem"), path("key.pem"), path("socket"));
    let has_all = Path::new(&cert).exists();
    let mut command = match kind {
        Kind::Mosquitto => {
            let mut text = format!(
                "allow_anonymous true\npersistence {is_durable}\npersistence_location {}/\n\
                 max_queued_messages 0\nuser root\nlistener {port} 127.0.0.1\n",
                folder.display()
            );
            if has_all {
                let tls = format!("certfile {cert}\nkeyfile {key}\n");
                let next = [1, 2, 3].map(|next| format!("listener {} 127.0.0.1\n", port + next));
                let websocket = "protocol websockets\n";
                text += &format!("{}{tls}{}{websocket}", next[0], next[1]);
                text += &format!("{}{websocket}{tls}listener 0 {socket}\n", next[2]);
            }
            let config = folder.join("mosquitto.conf");
            std::fs::write(&config, text).unwrap();
            let mut command = Command::new("mosquitto");
            command.arg("-c").arg(config).env("PATH", search_path());
            command
        }
        Kind::Ours => {
            let mut command = Command::new(broker_program());
            command.args(["--max-queued-messages", "1000000"]);
            if is_durable {
                command.args(["--data-dir", &path("store")]);
            }
            command.args(["--listen", &format!("tcp://127.0.0.1:{port}")]);
            if has_all {
                command.args(["--cert", &cert, "--key", &key]);
                for (scheme, port) in ["tls", "ws", "wss"].iter().zip(port + 1..) {
                    command.args(["--listen", &format!("{scheme}://127.0.0.1:{port}")]);
                }
                command.args(["--listen", &format!("unix:{socket}")]);
            }
            command
        }
    };
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the broker program, which is built if only this package is tested. `cargo test` has
/// built it with the same features, so after that it is found as it is. `BROKER` names another one.
pub(crate) fn broker_program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(program) = std::env::var_os("BROKER") {
            return program.into();
        }
        let profile: &[_] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        // Cargo names this package to its tests, which would build some dependencies again.
        for (name, _) in std::env::vars().filter(|(name, _)| is_of_package(name)) {
            build.env_remove(name);
        }
        let built = build.args(["test", "--no-run", "--quiet"]).args(profile).status().unwrap();
        assert!(built.success());
        // The programs are above `deps`, which has this test.
        let test = std::env::current_exe().unwrap();
        test.ancestors().nth(2).unwrap().join("broker")
    })
}

fn is_of_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| variable.starts_with(prefix))
}

fn search_path() -> String {
    format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Whether a program is installed. If CI is set, it must be. The message bypasses the capture of
/// `cargo test`, so that its user sees which tests were skipped.
#[expect(clippy::explicit_write, reason = "the test harness would capture `eprintln!`")]
pub(crate) fn has(program: &str) -> bool {
    let found = std::env::split_paths(&search_path()).any(|path| path.join(program).is_file());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{program} is not installed");
        writeln!(stderr(), "SKIPPED: a test of the client, because {program} is missing").unwrap();
    }
    found
}

/// A folder that is removed at the end of the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mqtt-sansio-client-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A listener that forwards connections to a broker, and can cut them.
pub(crate) struct Relay {
    port: u16,
    cut: tokio::sync::watch::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    /// Starts a relay to a port of 127.0.0.1.
    pub(crate) async fn start(broker: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = tokio::sync::watch::Sender::new(());
        let cuts = cut.clone();
        let task = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut cut = cuts.subscribe();
                tokio::spawn(async move {
                    let far = tokio::net::TcpStream::connect(("127.0.0.1", broker)).await;
                    let Ok(mut far) = far else { return };
                    tokio::select! {
                        _ = cut.changed() => {}
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    }
                });
            }
        });
        Self { port, cut, task }
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub(crate) fn cut(&self) {
        self.cut.send_replace(());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
