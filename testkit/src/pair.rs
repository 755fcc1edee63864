//! A client machine and a server machine on one simulated clock, with a link between them that can
//! be split and cut.

use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{
    self, AckProperties, ConnackProperties, Connect, Expiry, Publish, QoS, ReasonCode,
};
use mqtt_sansio::server::{self, Server, ServerConfig};
use mqtt_sansio::session::{Message, Outcome, Outgoing, Published, Session};

/// How the link delivers bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Chunks {
    Whole,
    Bytes,
    /// In two parts, cut at that byte of the bytes of one side.
    CutAt(usize),
}

/// One direction of the link.
#[derive(Default)]
struct Direction {
    /// Written, and not carried yet.
    sent: Vec<u8>,
    /// Carried, and not consumed yet.
    received: Vec<u8>,
    carried: usize,
}

pub struct Pair {
    pub client: Client,
    pub server: Server,
    pub now: Instant,
    /// The actions of both, one line each: "client: …" or "server: …".
    pub log: Vec<String>,
    /// All lines since the beginning.
    all: Vec<String>,
    /// The payloads delivered to the server and to the client, in order.
    pub at_server: Vec<String>,
    pub at_client: Vec<String>,
    /// The keys of completed messages, with their outcomes.
    pub done_at_client: Vec<(u64, String)>,
    pub done_at_server: Vec<(u64, String)>,
    client_config: ClientConfig,
    server_config: ServerConfig,
    /// The server's session while there is no connection.
    pub parked: Option<Session>,
    /// Whether the connection has taken the session.
    accepted: bool,
    connected: bool,
    chunks: Chunks,
    to_server: Direction,
    to_client: Direction,
}

impl Pair {
    pub fn new(chunks: Chunks) -> Self {
        Self::with(ClientConfig::new(), ServerConfig::new(), chunks)
    }

    pub fn with(client_config: ClientConfig, server_config: ServerConfig, chunks: Chunks) -> Self {
        Self {
            client: Client::new(client_config.clone()),
            server: Server::new(server_config.clone(), Instant::default()),
            now: Instant::default(),
            log: Vec::new(),
            all: Vec::new(),
            at_server: Vec::new(),
            at_client: Vec::new(),
            done_at_client: Vec::new(),
            done_at_server: Vec::new(),
            client_config,
            server_config,
            parked: None,
            accepted: false,
            connected: false,
            chunks,
            to_server: Direction::default(),
            to_client: Direction::default(),
        }
    }

    /// Runs a scenario whole, byte by byte, and cut at each position, and checks that all runs
    /// agree.
    pub fn in_all_chunks(scenario: impl Fn(&mut Self)) {
        Self::in_all_chunks_with(&ClientConfig::new(), &ServerConfig::new(), scenario);
    }

    pub fn in_all_chunks_with(
        client: &ClientConfig,
        server: &ServerConfig,
        scenario: impl Fn(&mut Self),
    ) {
        let run = |chunks| {
            let mut pair = Self::with(client.clone(), server.clone(), chunks);
            scenario(&mut pair);
            pair
        };
        let whole = run(Chunks::Whole);
        let bytes = whole.to_server.carried.max(whole.to_client.carried);
        assert!(bytes > 0);
        for chunks in (1..bytes).map(Chunks::CutAt).chain([Chunks::Bytes]) {
            assert_eq!(run(chunks).all, whole.all, "{chunks:?}");
        }
    }

    /// Opens a connection, and carries all bytes until both are idle.
    pub fn connect(&mut self, connect: &Connect<'_>) {
        self.open(connect);
        self.settle();
    }

    /// Opens a connection without carrying anything.
    pub fn open(&mut self, connect: &Connect<'_>) {
        self.server = Server::new(self.server_config.clone(), self.now);
        (self.to_server, self.to_client) = (Direction::default(), Direction::default());
        self.connected = true;
        self.client.connect(connect, self.now, &mut self.to_server.sent).unwrap();
    }

    /// Restarts both sides, which store their sessions and load them.
    pub fn restart(&mut self) {
        let again = |session: Session| {
            Session::from_bytes(&session.to_bytes(self.now), self.now, Duration::ZERO).unwrap()
        };
        let client = core::mem::replace(&mut self.client, Client::new(self.client_config.clone()));
        self.client =
            Client::with_session(self.client_config.clone(), again(client.into_session()));
        self.parked = self.parked.take().map(again);
    }

    pub fn publish(&mut self, key: u64, publish: &Publish<'_>) {
        self.client.publish(key, publish, self.now, &mut self.to_server.sent).unwrap();
    }

    /// Runs a command of the client, whose output goes to the server.
    pub fn client<T>(
        &mut self,
        command: impl FnOnce(&mut Client, Instant, &mut Vec<u8>) -> T,
    ) -> T {
        command(&mut self.client, self.now, &mut self.to_server.sent)
    }

    /// Delivers a message from the server, or queues it in the parked session.
    pub fn deliver(&mut self, key: u64, publish: &Publish<'_>) {
        assert!(self.try_deliver(key, publish), "there is a session");
    }

    /// Does the same. Returns whether the server has a session for the message.
    pub fn try_deliver(&mut self, key: u64, publish: &Publish<'_>) -> bool {
        let outgoing = Outgoing::new(Some(key), Message::new(publish).unwrap());
        let delivered = match &mut self.parked {
            Some(session) => session.enqueue(outgoing, self.server_config.queue_limit(), self.now),
            None => self.server.deliver(outgoing, self.now),
        };
        self.flush();
        delivered.is_ok()
    }

    /// Adds bytes as if the server had written them.
    pub fn forge_to_client(&mut self, bytes: &[u8]) {
        self.to_client.sent.extend_from_slice(bytes);
    }

    pub fn forge_to_server(&mut self, bytes: &[u8]) {
        self.to_server.sent.extend_from_slice(bytes);
    }

    /// Returns what the server has written and the link has not carried.
    pub fn written_by_server(&mut self) -> Vec<u8> {
        self.flush();
        self.to_client.sent.clone()
    }

    pub fn written_by_client(&self) -> Vec<u8> {
        self.to_server.sent.clone()
    }

    /// Carries all bytes until both are idle.
    pub fn settle(&mut self) {
        while self.connected && self.carry() {}
    }

    /// Carries one packet, to the server first.
    pub fn carry_packet(&mut self) -> bool {
        self.carry_packet_first(true)
    }

    /// Carries one packet in that direction, or in the other if there is none.
    pub fn carry_packet_first(&mut self, to_server: bool) -> bool {
        self.flush();
        let mut carry_first = |to_server: bool| {
            let direction = if to_server { &mut self.to_server } else { &mut self.to_client };
            let Ok(Some(frame)) = codec::frame(&direction.sent, u32::MAX) else { return false };
            let size = frame.as_bytes().len();
            let packet: Vec<u8> = direction.sent.drain(..size).collect();
            if to_server {
                self.feed_server(&packet);
            } else {
                self.feed_client(&packet);
            }
            true
        };
        carry_first(to_server) || carry_first(!to_server)
    }

    /// Carries up to `count` bytes in one direction, which can end inside a packet.
    pub fn carry_bytes(&mut self, to_server: bool, count: usize) {
        self.flush();
        let direction = if to_server { &mut self.to_server } else { &mut self.to_client };
        let bytes: Vec<u8> = direction.sent.drain(..count.min(direction.sent.len())).collect();
        if to_server {
            self.feed_server(&bytes);
        } else {
            self.feed_client(&bytes);
        }
    }

    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Cuts the connection. Bytes that the link has not carried are lost.
    pub fn cut(&mut self) {
        while let Some(action) = self.client.connection_lost() {
            self.on_client_action(action);
        }
        while let Some(action) = self.server.connection_lost() {
            self.on_server_action(action);
        }
        (self.to_server, self.to_client) = (Direction::default(), Direction::default());
    }

    /// Lets time pass, and stops at each deadline of a machine.
    pub fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let next =
                self.client.poll_timeout().into_iter().chain(self.server.poll_timeout()).min();
            let Some(due) = next.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            let at_client = self.client.handle_timeout(self.now, &mut self.to_server.sent);
            let at_server = self.server.handle_timeout(self.now, &mut self.to_client.sent);
            at_client.into_iter().for_each(|action| self.on_client_action(action));
            at_server.into_iter().for_each(|action| self.on_server_action(action));
            self.settle();
        }
        self.now = end;
    }

    /// Returns the log since the last call.
    pub fn take_log(&mut self) -> Vec<String> {
        core::mem::take(&mut self.log)
    }

    fn note(&mut self, line: String) {
        self.all.push(line.clone());
        self.log.push(line);
    }

    fn flush(&mut self) {
        while self.server.flush(self.now, &mut self.to_client.sent) {
            if self.to_client.sent.len() > 10_000_000 {
                break;
            }
            let mut more = Vec::new();
            let _ = self.server.flush(self.now, &mut more);
            self.to_client.sent.append(&mut more);
        }
    }

    fn carry(&mut self) -> bool {
        self.flush();
        let (to_server, to_client) =
            (core::mem::take(&mut self.to_server.sent), core::mem::take(&mut self.to_client.sent));
        for chunk in split(&to_server, self.chunks, &mut self.to_server.carried) {
            self.feed_server(chunk);
        }
        for chunk in split(&to_client, self.chunks, &mut self.to_client.carried) {
            self.feed_client(chunk);
        }
        !(to_server.is_empty() && to_client.is_empty())
    }

    fn feed_server(&mut self, chunk: &[u8]) {
        let mut received = core::mem::take(&mut self.to_server.received);
        received.extend_from_slice(chunk);
        let mut input = received.as_slice();
        while let Some(action) =
            self.server.handle_input(&mut input, self.now, &mut self.to_client.sent)
        {
            self.on_server_action(action);
        }
        self.to_server.received = input.to_vec();
    }

    fn feed_client(&mut self, chunk: &[u8]) {
        let mut received = core::mem::take(&mut self.to_client.received);
        received.extend_from_slice(chunk);
        let mut input = received.as_slice();
        while let Some(action) =
            self.client.handle_input(&mut input, self.now, &mut self.to_server.sent)
        {
            self.on_client_action(action);
        }
        self.to_client.received = input.to_vec();
    }

    fn on_client_action(&mut self, action: client::Action<'_>) {
        self.note(format!("client: {action:?}"));
        match action {
            client::Action::Message(message) => {
                self.at_client.push(String::from_utf8_lossy(message.payload).into());
            }
            client::Action::Published(published) => self.done_at_client.push(outcome(&published)),
            client::Action::Closed(_) => self.connected = false,
            _ => {}
        }
    }

    /// Answers as a server that accepts every client, with its parked session, and grants every
    /// request.
    fn on_server_action(&mut self, action: server::Action<'_>) {
        self.note(format!("server: {action:?}"));
        let out = &mut self.to_client.sent;
        match action {
            server::Action::Connect(connect) => {
                let session = self.parked.take().filter(|_| !connect.clean_start);
                self.accepted = true;
                self.server.accept(session, ConnackProperties::default(), self.now, out).unwrap();
            }
            server::Action::Subscribe(token, subscribe) => {
                let code = |qos: QoS| ReasonCode::new(qos.as_u8());
                let codes: Vec<_> =
                    subscribe.subscriptions.iter().map(|s| code(s.options.maximum_qos)).collect();
                self.server.suback(token, &codes, AckProperties::default(), self.now, out).unwrap();
            }
            server::Action::Unsubscribe(token, unsubscribe) => {
                let codes = vec![ReasonCode::SUCCESS; unsubscribe.topic_filters.iter().count()];
                self.server
                    .unsuback(token, &codes, AckProperties::default(), self.now, out)
                    .unwrap();
            }
            server::Action::Message(message) => {
                self.at_server.push(String::from_utf8_lossy(message.payload).into());
            }
            server::Action::Published(published) => self.done_at_server.push(outcome(&published)),
            server::Action::Closed { .. } => {
                if core::mem::take(&mut self.accepted) {
                    let session = self.server.take_session();
                    self.parked =
                        (self.server.session_expiry() > Expiry::AT_DISCONNECT).then_some(session);
                }
                // The client reads the last output, and then the end of the transport.
                let farewell = core::mem::take(&mut self.to_client.sent);
                self.feed_client(&farewell);
                let lost = self.client.connection_lost();
                lost.into_iter().for_each(|action| self.on_client_action(action));
            }
            _ => {}
        }
    }
}

fn outcome(published: &Published<'_>) -> (u64, String) {
    let outcome = match &published.outcome {
        Outcome::Acknowledged { reason_code, .. } => reason_code.to_string(),
        Outcome::SessionLost(message) => format!("SessionLost({})", message.is_some()),
        Outcome::NotAllowed(_) => "NotAllowed".into(),
        other => format!("{other:?}"),
    };
    (published.key, outcome)
}

fn split<'b>(bytes: &'b [u8], chunks: Chunks, carried: &mut usize) -> Vec<&'b [u8]> {
    let start = *carried;
    *carried += bytes.len();
    match chunks {
        Chunks::Whole => vec![bytes],
        Chunks::Bytes => bytes.chunks(1).collect(),
        Chunks::CutAt(position) => {
            match position.checked_sub(start).and_then(|position| bytes.split_at_checked(position))
            {
                Some((before, after)) => vec![before, after],
                None => vec![bytes],
            }
        }
    }
}
