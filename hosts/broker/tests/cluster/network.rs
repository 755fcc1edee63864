//! A network of namespaces: each server and each broker has one of its own, as a machine has. A
//! switch connects them, and a second link connects each broker with its clients.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The namespaces, which are removed at the end.
pub(crate) struct Network {
    /// The beginning of their names.
    prefix: String,
    /// The second number of all addresses.
    subnet: u8,
}

/// A machine in the network.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Machine {
    Server(usize),
    Broker(usize),
}

impl Machine {
    /// Returns the name of its link at the switch.
    fn link(self) -> String {
        match self {
            Self::Server(index) => format!("s{index}"),
            Self::Broker(index) => format!("b{index}"),
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        (0..3).flat_map(|index| [Self::Server(index), Self::Broker(index)])
    }
}

impl Network {
    /// Returns `None` if this user or this system has no network namespaces.
    pub(crate) fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id();
        let subnet = 100 + ((id + number) % 100) as u8;
        let network = Self { prefix: format!("mq{id}{number}"), subnet };
        let made = network.make();
        if made.is_none() {
            println!("SKIPPED: network namespaces are not permitted, or `ip` is not installed");
        }
        made.map(|()| network)
    }

    fn make(&self) -> Option<()> {
        let (prefix, switch) = (&self.prefix, self.name("switch"));
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        for machine in Machine::all() {
            let (name, link) = (self.namespace(machine), machine.link());
            ip(&["netns", "add", &name])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            self.plug(&link, &["eth0", "netns", &name])?;
            let address = format!("{}/24", self.address(machine));
            ip(&["-n", &name, "address", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            let Machine::Broker(index) = machine else { continue };
            let own = format!("{prefix}c{index}");
            ip(&["link", "add", &own, "type", "veth", "peer", "name", "eth1", "netns", &name])?;
            let [here, there] =
                [1, 2].map(|host| format!("10.{}.{}.{host}/24", self.subnet, 1 + index));
            ip(&["address", "add", &here, "dev", &own])?;
            ip(&["link", "set", &own, "up"])?;
            ip(&["-n", &name, "address", "add", &there, "dev", "eth1"])?;
            ip(&["-n", &name, "link", "set", "eth1", "up"])?;
        }
        // The tests look at the servers.
        let own = format!("{prefix}t");
        self.plug("test", &[&own, "netns", &std::process::id().to_string()])?;
        ip(&["address", "add", &format!("10.{}.0.1/24", self.subnet), "dev", &own])?;
        ip(&["link", "set", &own, "up"])
    }

    /// Adds a link to the switch, with another end.
    fn plug(&self, link: &str, end: &[&str]) -> Option<()> {
        let switch = self.name("switch");
        let add = ["-n", &switch, "link", "add", link, "type", "veth", "peer", "name"];
        ip(&[&add[..], end].concat())?;
        ip(&["-n", &switch, "link", "set", link, "master", "br0", "up"])
    }

    fn name(&self, what: &str) -> String {
        format!("{}{what}", self.prefix)
    }

    fn namespace(&self, machine: Machine) -> String {
        self.name(&machine.link())
    }

    /// Returns the address of a machine for the others.
    pub(crate) fn address(&self, machine: Machine) -> Ipv4Addr {
        let host = match machine {
            Machine::Server(index) => 11 + index,
            Machine::Broker(index) => 21 + index,
        };
        Ipv4Addr::new(10, self.subnet, 0, host as u8)
    }

    /// Returns the address of a broker for its clients.
    pub(crate) fn for_clients(&self, broker: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, self.subnet, 1 + broker as u8, 2)
    }

    /// Returns a command that runs a program on a machine.
    pub(crate) fn command(&self, machine: Machine, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(machine), program]);
        command
    }

    /// Sets the link of a machine to the others down, or up again.
    pub(crate) fn cut(&self, machine: Machine, is_cut: bool) {
        let state = if is_cut { "down" } else { "up" };
        let switch = self.name("switch");
        ip(&["-n", &switch, "link", "set", &machine.link(), state]).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The other ends of their links go with them.
        for machine in Machine::all() {
            let _ = ip(&["netns", "delete", &self.namespace(machine)]);
        }
        let _ = ip(&["netns", "delete", &self.name("switch")]);
    }
}

fn ip(arguments: &[&str]) -> Option<()> {
    let status = Command::new("ip").args(arguments).stderr(Stdio::null()).status();
    status.ok()?.success().then_some(())
}
