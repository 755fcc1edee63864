//! The start of a node.

use crate::programs::{free_ports, has, kill};
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A server of NATS without the others of its cluster, and a node that waits for them.
struct Waiting {
    directory: std::path::PathBuf,
    server: Option<Child>,
    node: Option<Child>,
}

impl Waiting {
    fn start() -> Self {
        let name = format!("mqtt-sansio-start-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let [port, own, other, another, listener] = free_ports();
        let routes = [own, other, another].map(|port| format!("nats://127.0.0.1:{port}"));
        let text = format!(
            "server_name: n0\nlisten: 127.0.0.1:{port}\nmax_payload: 8MB\njetstream {{ store_dir: \
             {directory:?} }}\ncluster {{ name: test, listen: 127.0.0.1:{own}, routes: [{}] }}\n",
            routes.join(", ")
        );
        let configuration = directory.join("nats.conf");
        std::fs::write(&configuration, text).unwrap();
        let mut server = Command::new("nats-server");
        let server = server.arg("-c").arg(configuration).stderr(Stdio::null()).spawn().unwrap();
        let mut waiting = Self { directory, server: Some(server), node: None };
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "NATS does not start");
            sleep(Duration::from_millis(20));
        }
        let mut node = Command::new(env!("CARGO_BIN_EXE_broker"));
        node.args(["--listen", &format!("tcp://127.0.0.1:{listener}")]);
        node.args(["--cluster", &format!("nats://127.0.0.1:{port}")]);
        node.stderr(File::create(waiting.log()).unwrap());
        waiting.node = Some(node.spawn().unwrap());
        waiting
    }

    fn log(&self) -> std::path::PathBuf {
        self.directory.join("node.log")
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        kill(&mut self.node);
        kill(&mut self.server);
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn node_that_waits_to_join_obeys_signals() {
    if !has("nats-server") {
        return;
    }
    for signal in ["-TERM", "-INT"] {
        let mut waiting = Waiting::start();
        let log = waiting.log();
        let start = Instant::now();
        while !std::fs::read_to_string(&log).unwrap().contains("waiting for NATS") {
            assert!(start.elapsed() < Duration::from_secs(30), "the node does not wait");
            sleep(Duration::from_millis(20));
        }
        let node = waiting.node.as_mut().unwrap();
        let sent = Command::new("kill").args([signal, &node.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let start = Instant::now();
        let ended = loop {
            if let Some(ended) = node.try_wait().unwrap() {
                break ended;
            }
            assert!(start.elapsed() < Duration::from_secs(2), "the node does not obey {signal}");
            sleep(Duration::from_millis(20));
        };
        assert!(ended.success(), "{}", std::fs::read_to_string(&log).unwrap());
        waiting.node = None;
    }
}
