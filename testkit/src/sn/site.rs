//! A gateway in front of a broker core, in memory, with one clock.

use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::broker::{Action, Admission, Broker, BrokerConfig, ConnectionId, Question};
use mqtt_sansio::server::ServerConfig;
use mqtt_sansio::sn::v1_2::{Message, encode};
use mqtt_sansio::sn::{Destination, Event, Gateway, GatewayConfig, Link, State};
use std::collections::BTreeMap;

/// The address of a client.
pub type Peer = u32;

/// A gateway, a broker, and the connections between them.
pub struct Site {
    pub gateway: Gateway<Peer>,
    pub broker: Broker,
    pub now: Instant,
    /// The datagrams that the gateway has sent.
    pub sent: Vec<(Destination<Peer>, Vec<u8>)>,
    /// The changes of state, oldest first.
    pub changes: Vec<(String, State)>,
    /// Whether the broker can be reached.
    pub is_reachable: bool,
    connections: BTreeMap<Link, (ConnectionId, Vec<u8>)>,
}

impl Site {
    pub fn new(config: GatewayConfig) -> Self {
        let now = Instant::from_millis(1_000);
        Self {
            gateway: Gateway::new(config),
            broker: Broker::new(BrokerConfig::new(ServerConfig::new()), 7, now),
            now,
            sent: Vec::new(),
            changes: Vec::new(),
            is_reachable: true,
            connections: BTreeMap::new(),
        }
    }

    /// Passes a message of a client to the gateway.
    pub fn send(&mut self, peer: Peer, message: &Message<'_>) {
        let mut datagram = Vec::new();
        encode(message, &mut datagram).unwrap();
        self.send_bytes(peer, &datagram);
    }

    pub fn send_bytes(&mut self, peer: Peer, datagram: &[u8]) {
        self.gateway.handle_datagram(&peer, datagram, self.now);
        self.settle();
    }

    /// Returns the datagrams to a client, and forgets them.
    pub fn take(&mut self, peer: Peer) -> Vec<Vec<u8>> {
        let all = core::mem::take(&mut self.sent);
        let (taken, left): (Vec<_>, _) =
            all.into_iter().partition(|(to, _)| *to == Destination::Peer(peer));
        self.sent = left;
        taken.into_iter().map(|(_, datagram)| datagram).collect()
    }

    /// Lets time pass, with every timer on its way.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let timers = [self.gateway.poll_timeout(), self.broker.poll_timeout()];
            let next = timers.into_iter().flatten().min().filter(|at| *at <= end);
            self.now = next.unwrap_or(end).max(self.now);
            self.gateway.handle_timeout(self.now);
            self.broker.handle_timeout(self.now);
            self.settle();
            if next.is_none() {
                return;
            }
        }
    }

    /// Ends all connections between gateway and broker.
    pub fn cut(&mut self) {
        for (link, (id, _)) in core::mem::take(&mut self.connections) {
            let _ = self.broker.connection_lost(id, self.now);
            self.gateway.closed(link, self.now);
        }
        self.settle();
    }

    /// Carries bytes until nothing moves.
    pub fn settle(&mut self) {
        let now = self.now;
        loop {
            let mut moved = false;
            while let Some(event) = self.gateway.poll_event() {
                moved = true;
                match event {
                    Event::Open(link) if self.is_reachable => {
                        self.connections.insert(link, (self.broker.open(now), Vec::new()));
                    }
                    Event::Open(link) => self.gateway.closed(link, now),
                    Event::Close(link) => {
                        if let Some((id, _)) = self.connections.remove(&link) {
                            let mut bytes = Vec::new();
                            self.gateway.transmit(link, &mut bytes);
                            let _ = self.broker.handle_input(id, &mut &bytes[..], now);
                            let _ = self.broker.connection_lost(id, now);
                        }
                        self.gateway.closed(link, now);
                    }
                    Event::Changed { client_id, state } => {
                        self.changes.push((client_id.into(), state));
                    }
                    _ => {}
                }
            }
            for (link, (id, to_gateway)) in &mut self.connections {
                if self.gateway.wants_transmit(*link) {
                    let mut bytes = Vec::new();
                    self.gateway.transmit(*link, &mut bytes);
                    let mut input = &bytes[..];
                    let _ = self.broker.handle_input(*id, &mut input, now);
                    assert!(input.is_empty(), "the broker takes all packets");
                    moved = true;
                }
                moved |= self.broker.transmit(*id, now, to_gateway);
                if self.gateway.wants_input(*link) && !to_gateway.is_empty() {
                    let mut input = &to_gateway[..];
                    self.gateway.handle_input(*link, &mut input, now);
                    let taken = to_gateway.len() - input.len();
                    to_gateway.drain(..taken);
                    moved |= taken > 0;
                }
            }
            while let Some(action) = self.broker.poll_action() {
                moved = true;
                match action {
                    Action::Ask(question, Question::Connect(_)) => {
                        self.broker.accept(question, Admission::default(), now).unwrap();
                    }
                    Action::Closed(id, _) => {
                        let _ = self.broker.connection_lost(id, now);
                        let link = self.connections.iter().find(|(_, (other, _))| *other == id);
                        if let Some(link) = link.map(|(link, _)| *link) {
                            self.connections.remove(&link);
                            self.gateway.closed(link, now);
                        }
                    }
                    _ => {}
                }
            }
            let mut datagram = Vec::new();
            while let Some(to) = self.gateway.poll_datagram(&mut datagram) {
                self.sent.push((to, datagram.clone()));
            }
            if !moved {
                return;
            }
        }
    }
}
