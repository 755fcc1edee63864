//! Brokers as processes, and the folder of a test.

use std::io::{Write as _, stderr};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A kind of broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mosquitto,
    /// The program of `hosts/broker`.
    Ours,
}

/// The kinds of brokers that are installed.
pub(crate) fn kinds() -> Vec<Kind> {
    let all = [Kind::Mosquitto, Kind::Ours];
    all.into_iter().filter(|kind| *kind == Kind::Ours || has("mosquitto")).collect()
}

/// A broker that is killed at the end of the test.
pub(crate) struct Broker {
    kind: Kind,
    process: Child,
    folder: PathBuf,
    pub(crate) port: u16,
}

impl Broker {
    /// Starts a broker on a free port of 127.0.0.1. Mosquitto keeps its state in the folder.
    pub(crate) fn start(kind: Kind, folder: &Folder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let process = spawn(kind, port, &folder.0);
        let broker = Self { kind, process, folder: folder.0.clone(), port };
        broker.wait_until_it_listens();
        broker
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Ends the program with a signal, and starts it again.
    pub(crate) fn restart(&mut self, signal: &str) {
        self.signal(signal);
        self.process.wait().unwrap();
        self.process = spawn(self.kind, self.port, &self.folder);
        self.wait_until_it_listens();
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    fn wait_until_it_listens(&self) {
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "{:?} does not listen", self.kind);
            sleep(Duration::from_millis(5));
        }
    }
}

fn spawn(kind: Kind, port: u16, folder: &Path) -> Child {
    let mut command = match kind {
        Kind::Mosquitto => {
            let config = folder.join(format!("mosquitto-{port}.conf"));
            let text = format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n\
                 persistence_location {}/\nmax_queued_messages 0\nuser root\n",
                folder.display()
            );
            std::fs::write(&config, text).unwrap();
            let mut command = Command::new("mosquitto");
            command.arg("-c").arg(config).env("PATH", search_path());
            command
        }
        Kind::Ours => {
            let mut command = Command::new(broker_program());
            command.args(["--listen", &format!("tcp://127.0.0.1:{port}")]);
            command.args(["--max-queued-messages", "1000000"]);
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

/// Returns the broker program, which is built if only this package is tested.
pub(crate) fn broker_program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let profile: &[_] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
        let build = ["build", "--quiet", "-p", "mqtt-sansio-broker"];
        let built = Command::new(env!("CARGO")).args(build).args(profile).status().unwrap();
        assert!(built.success());
        // The programs are above `deps`, which has this test.
        let test = std::env::current_exe().unwrap();
        test.ancestors().nth(2).unwrap().join("broker")
    })
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

    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
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
