//! A broker on a port of 127.0.0.1, in threads of the test, for the examples of the guides.

use core::time::Duration;
use mqtt_sansio::Clock;
use mqtt_sansio::broker::{Action, Admission, Broker, BrokerConfig, ConnectionId, Question};
use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::spawn;

/// A broker that accepts each client, and can cut connections and lose its sessions.
#[derive(Debug)]
pub struct LocalBroker {
    port: u16,
    events: Sender<Event>,
}

#[derive(Debug)]
enum Event {
    Opened(TcpStream),
    /// Bytes for the broker of that number; none at the end of the connection.
    Received(u32, ConnectionId, Vec<u8>),
    Cut,
    Forget,
}

impl LocalBroker {
    /// Starts a broker on a free port. It ends with the process.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (events, receiver) = channel();
        let (accepted, of_readers) = (events.clone(), events.clone());
        spawn(move || run(receiver, of_readers));
        spawn(move || {
            for socket in listener.incoming() {
                if accepted.send(Event::Opened(socket.unwrap())).is_err() {
                    return;
                }
            }
        });
        Self { port, events }
    }

    /// Returns the address, such as `127.0.0.1:1883`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the address as a URL.
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address())
    }

    /// Closes all connections, as a failing network does.
    pub fn cut(&self) {
        self.events.send(Event::Cut).unwrap();
    }

    /// Closes all connections and forgets all sessions, as a broker without a store does when it is
    /// restarted.
    pub fn forget(&self) {
        self.events.send(Event::Forget).unwrap();
    }
}

fn run(events: Receiver<Event>, of_readers: Sender<Event>) {
    let clock = Clock::new();
    let new = || Broker::new(BrokerConfig::default(), 0x5EED, clock.now());
    let (mut broker, mut number) = (new(), 0);
    let mut sockets: HashMap<ConnectionId, (TcpStream, Vec<u8>)> = HashMap::new();
    let close = |(socket, _): (TcpStream, Vec<u8>)| drop(socket.shutdown(Shutdown::Both));
    loop {
        let wait = broker.poll_timeout().map_or(Duration::from_secs(3_600), |at| at - clock.now());
        match events.recv_timeout(wait) {
            Ok(Event::Opened(socket)) => {
                socket.set_nodelay(true).unwrap();
                let id = broker.open(clock.now());
                let (mut reader, of_reader) = (socket.try_clone().unwrap(), of_readers.clone());
                sockets.insert(id, (socket, Vec::new()));
                spawn(move || {
                    let mut chunk = [0; 65_536];
                    loop {
                        let count = reader.read(&mut chunk).unwrap_or(0);
                        let received = Event::Received(number, id, chunk[..count].to_vec());
                        if of_reader.send(received).is_err() || count == 0 {
                            return;
                        }
                    }
                });
            }
            Ok(Event::Received(of, id, bytes)) if of == number && bytes.is_empty() => {
                sockets.remove(&id).into_iter().for_each(close);
                drop(broker.connection_lost(id, clock.now()));
            }
            Ok(Event::Received(of, id, bytes)) if of == number => {
                if let Some((_, received)) = sockets.get_mut(&id) {
                    received.extend(bytes);
                    feed(&mut broker, id, received, &clock);
                }
            }
            Ok(Event::Received(..)) => {}
            Ok(event @ (Event::Cut | Event::Forget)) => {
                for (id, it) in sockets.drain() {
                    close(it);
                    drop(broker.connection_lost(id, clock.now()));
                }
                if matches!(event, Event::Forget) {
                    (broker, number) = (new(), number + 1);
                }
            }
            Err(RecvTimeoutError::Timeout) => broker.handle_timeout(clock.now()),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(action) = broker.poll_action() {
            match action {
                Action::Ask(question, Question::Connect(_)) => {
                    let _ = broker.accept(question, Admission::default(), clock.now());
                }
                Action::Ready(id) => {
                    let Some((socket, received)) = sockets.get_mut(&id) else { continue };
                    feed(&mut broker, id, received, &clock);
                    transmit(&mut broker, id, socket, &clock);
                }
                Action::Closed(id, _) => {
                    let Some(mut it) = sockets.remove(&id) else { continue };
                    transmit(&mut broker, id, &mut it.0, &clock);
                    close(it);
                    drop(broker.connection_lost(id, clock.now()));
                }
                _ => {}
            }
        }
    }
}

fn feed(broker: &mut Broker, id: ConnectionId, received: &mut Vec<u8>, clock: &Clock) {
    let mut input = received.as_slice();
    while broker.handle_input(id, &mut input, clock.now()) {}
    let consumed = received.len() - input.len();
    received.drain(..consumed);
}

fn transmit(broker: &mut Broker, id: ConnectionId, socket: &mut TcpStream, clock: &Clock) {
    let mut out = Vec::new();
    loop {
        let more = broker.transmit(id, clock.now(), &mut out);
        // A reader notices the end of the connection.
        let _ = socket.write_all(&out);
        out.clear();
        if !more {
            return;
        }
    }
}
