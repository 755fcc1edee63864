//! Servers of NATS and brokers, as processes.

use crate::line::Line;
use crate::network::{Machine, Network};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Whether a program is installed. If CI is set, it must be.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    assert!(found || std::env::var_os("CI").is_none(), "{program} is not installed");
    if !found {
        println!("SKIPPED: {program} is not installed");
    }
    found
}

/// Returns ports that stay free while a program is restarted.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let first = testkit::port::free_ports(N as u16);
    std::array::from_fn(|index| first + index as u16)
}

pub(crate) struct Cluster {
    directory: PathBuf,
    servers: [Option<Child>; 3],
    brokers: [Option<Child>; 3],
    /// The ports of the servers for clients, for each other, and for figures.
    nats: [u16; 9],
    ports: [u16; 3],
    metrics: [u16; 3],
    /// The proxies between each broker and each server.
    lines: [[Line; 3]; 3],
    keeps_logs: bool,
    network: Option<Network>,
    flags: &'static [&'static str],
}

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::start_in(None, &[])
    }

    /// Starts the programs on the machines of a network, or all on this one, and the brokers with
    /// more flags.
    pub(crate) fn start_in(network: Option<Network>, flags: &'static [&'static str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mqtt-sansio-cluster-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let all: [u16; 15] = free_ports();
        let line = |server: usize| Line::open(all[server]);
        let mut cluster = Self {
            lines: std::array::from_fn(|_| std::array::from_fn(line)),
            directory,
            servers: [None, None, None],
            brokers: [None, None, None],
            nats: std::array::from_fn(|index| all[index]),
            ports: std::array::from_fn(|index| all[9 + index]),
            metrics: std::array::from_fn(|index| all[12 + index]),
            keeps_logs: false,
            network,
            flags,
        };
        cluster.start_servers();
        (0..3).for_each(|index| cluster.start_broker(index));
        // They know each other after a sign of life.
        sleep(Duration::from_millis(1_500));
        cluster
    }

    pub(crate) const fn ports(&self) -> [u16; 3] {
        self.ports
    }

    /// Returns the addresses of the brokers.
    pub(crate) fn nodes(&self) -> [SocketAddr; 3] {
        std::array::from_fn(|index| {
            let network = self.network.as_ref();
            let address = network.map(|network| network.for_clients(index));
            (address.unwrap_or(Ipv4Addr::LOCALHOST), self.ports[index]).into()
        })
    }

    /// Returns the address of a server.
    fn server(&self, index: usize) -> Ipv4Addr {
        let network = self.network.as_ref();
        let address = network.map(|network| network.address(Machine::Server(index)));
        address.unwrap_or(Ipv4Addr::LOCALHOST)
    }

    /// Returns the address of a server for clients of NATS.
    pub(crate) fn address_of_server(&self, index: usize) -> SocketAddr {
        (self.server(index), self.nats[index]).into()
    }

    fn command(&self, machine: Machine, program: &str) -> Command {
        match &self.network {
            Some(network) => network.command(machine, program),
            None => Command::new(program),
        }
    }

    fn log(&self, name: &str) -> File {
        let path = self.directory.join(name);
        File::options().create(true).append(true).open(path).unwrap()
    }

    // ---- servers ----

    /// Starts the servers that do not run, and waits until all of them are one cluster.
    pub(crate) fn start_servers(&mut self) {
        for index in 0..3 {
            if self.servers[index].is_some() {
                continue;
            }
            let routes: Vec<_> = (0..3)
                .map(|at| format!("nats://{}:{}", self.server(at), self.nats[3 + at]))
                .collect();
            let store = self.directory.join(format!("store{index}"));
            let address = self.server(index);
            let text = format!(
                "server_name: n{index}\nlisten: {address}:{}\nhttp: {address}:{}\n\
                 max_payload: 8MB\njetstream {{ store_dir: {:?}, sync_interval: always }}\n\
                 cluster {{ name: test, no_advertise: true, listen: {address}:{}, \
                 routes: [{}] }}\n",
                self.nats[index],
                self.nats[6 + index],
                store,
                self.nats[3 + index],
                routes.join(", "),
            );
            let configuration = self.directory.join(format!("n{index}.conf"));
            std::fs::write(&configuration, text).unwrap();
            let server = self
                .command(Machine::Server(index), "nats-server")
                .arg("-c")
                .arg(configuration)
                .stderr(self.log(&format!("n{index}.log")))
                .stdout(Stdio::null())
                .spawn();
            self.servers[index] = Some(server.unwrap());
        }
        let start = Instant::now();
        while (0..3).any(|index| !self.monitor(index, "healthz").contains("\"ok\"")) {
            assert!(start.elapsed() < Duration::from_secs(60), "NATS does not start");
            sleep(Duration::from_millis(50));
        }
    }

    /// Asks a server over HTTP.
    fn monitor(&self, index: usize, path: &str) -> String {
        get((self.server(index), self.nats[6 + index]).into(), path)
    }

    /// Returns the figures of a broker.
    pub(crate) fn figures(&self, index: usize) -> String {
        get((Ipv4Addr::LOCALHOST, self.metrics[index]).into(), "metrics")
    }

    /// Returns the server that leads a stream.
    pub(crate) fn leader(&self, stream: &str) -> usize {
        let start = Instant::now();
        loop {
            for index in 0..3 {
                let answer = self.monitor(index, "jsz?streams=true");
                let part = answer.split(&format!("\"name\": \"{stream}\"")).nth(1);
                let leader = part.and_then(|part| part.split("\"leader\": \"n").nth(1));
                let digit = leader.and_then(|leader| leader.chars().next()?.to_digit(10));
                if let Some(digit) = digit {
                    return digit as usize;
                }
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{stream} has no leader");
            sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn kill_server(&mut self, index: usize) {
        kill(&mut self.servers[index]);
    }

    pub(crate) fn signal_server(&self, index: usize, name: &str) {
        signal(self.servers[index].as_ref().unwrap(), name);
    }

    // ---- brokers ----

    pub(crate) fn start_broker(&mut self, index: usize) {
        let url = |at: usize| {
            let server = (index + at) % 3;
            let line = self.lines[index][server].port;
            let port = if self.network.is_some() { self.nats[server] } else { line };
            format!("nats://{}:{port}", self.server(server))
        };
        let urls = (0..3).map(url);
        let mut broker = self.command(Machine::Broker(index), env!("CARGO_BIN_EXE_broker"));
        broker.args(["--listen", &format!("tcp://{}", self.nodes()[index])]);
        broker.args(["--allow-anonymous", "true"]).args(self.flags);
        broker.args(["--cluster-node", &format!("b{index}"), "--sys-interval", "60"]);
        broker.args(["--metrics", &format!("127.0.0.1:{}", self.metrics[index])]);
        // Clients that are away for a while must not lose messages to the limit of their queue.
        broker.args(["--max-queued-messages", "50000"]);
        urls.for_each(|url| _ = broker.args(["--cluster", &url]));
        let log = self.directory.join(format!("b{index}.log"));
        let read = || std::fs::read_to_string(&log).unwrap_or_default();
        let before = read().len();
        let broker = broker.stderr(self.log(&format!("b{index}.log"))).spawn();
        self.brokers[index] = Some(broker.unwrap());
        let start = Instant::now();
        while !read()[before..].contains("listening on") {
            let is_late = start.elapsed() > Duration::from_secs(60);
            assert!(!is_late, "the broker does not start\n{}", self.logs());
            sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn kill_broker(&mut self, index: usize) {
        kill(&mut self.brokers[index]);
    }

    /// Sets the link of a machine in the network down, or up again.
    pub(crate) fn cut_link(&self, machine: Machine, is_cut: bool) {
        self.network.as_ref().unwrap().cut(machine, is_cut);
    }

    /// Cuts a broker off from all servers, or joins it again.
    pub(crate) fn cut_lines(&self, index: usize, is_cut: bool) {
        self.lines[index].iter().for_each(|line| line.cut(is_cut));
    }

    pub(crate) fn signal_broker(&self, index: usize, name: &str) {
        signal(self.brokers[index].as_ref().unwrap(), name);
    }

    /// Ends a broker as a service manager does.
    pub(crate) fn stop_broker(&mut self, index: usize) {
        self.signal_broker(index, "-TERM");
        let ended = self.brokers[index].take().unwrap().wait().unwrap();
        assert!(ended.success(), "{}", self.logs());
    }

    /// Returns the processes of the brokers and of the servers.
    pub(crate) fn processes(&self) -> (Vec<u32>, Vec<u32>) {
        let ids = |all: &[Option<Child>; 3]| all.iter().flatten().map(Child::id).collect();
        (ids(&self.brokers), ids(&self.servers))
    }

    /// Returns the ends of the logs.
    pub(crate) fn logs(&self) -> String {
        let of = |index: usize| {
            let name = format!("b{index}.log");
            let text = std::fs::read_to_string(self.directory.join(&name)).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(30)..].join("\n");
            format!("== {}\n{end}\n", self.directory.join(name).display())
        };
        (0..3).map(of).collect()
    }

    pub(crate) const fn keep_logs(&mut self) {
        self.keeps_logs = true;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.brokers.iter_mut().chain(&mut self.servers).for_each(kill);
        if !self.keeps_logs && !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// Asks a server over HTTP. Returns nothing if it does not answer.
fn get(address: SocketAddr, path: &str) -> String {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /{path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    ask().unwrap_or_default()
}

pub(crate) fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

// ---- clients of mosquitto ----

fn mosquitto(program: &str, port: u16, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(arguments);
    command
}

pub(crate) fn mosquitto_pub(port: u16, arguments: &[&str]) {
    assert!(mosquitto("mosquitto_pub", port, arguments).status().unwrap().success());
}

/// Returns what the client has printed.
pub(crate) fn mosquitto_sub(port: u16, arguments: &[&str]) -> String {
    let limit: &[&str] = if arguments.contains(&"-W") { &[] } else { &["-W", "20"] };
    let output = mosquitto("mosquitto_sub", port, arguments).args(limit).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn mosquitto_sub_with_will(port: u16, topic: &str, text: &str) -> Child {
    let arguments = ["-t", "nothing", "--will-topic", topic, "--will-payload", text];
    mosquitto("mosquitto_sub", port, &arguments).spawn().unwrap()
}
