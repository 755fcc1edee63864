//! A server for the clients that are measured: it acknowledges what it receives, and sends as many
//! messages as a filter `QOS/COUNT` says. Other messages go back to the client if it has a filter.

use mqtt_sansio::Clock;
use mqtt_sansio::codec::{ConnackProperties, Message, Publish, QoS, ReasonCode};
use mqtt_sansio::server::{Action, Server, ServerConfig};
use mqtt_sansio::session::Outgoing;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::spawn;

/// Starts the server, and returns its port.
pub fn start() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn(move || {
        for socket in listener.incoming() {
            spawn(|| serve(socket.unwrap()));
        }
    });
    port
}

/// Runs a connection to its end. A lost one ends the thread.
fn serve(mut socket: TcpStream) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let clock = Clock::new();
    let mut server = Server::new(ServerConfig::new().maximum_in_flight(100), clock.now());
    let (mut received, mut out, mut chunk) = (Vec::new(), Vec::new(), vec![0; 64 * 1024]);
    let mut due: Option<(Message, u32)> = None;
    let mut is_subscribed = false;
    loop {
        let mut input = received.as_slice();
        while let Some(action) = server.handle_input(&mut input, clock.now(), &mut out) {
            match action {
                Action::Connect(_) => {
                    let none = ConnackProperties::default();
                    server.accept(None, none, clock.now(), &mut out).ok()?;
                }
                Action::Subscribe(token, subscribe) => {
                    let one = subscribe.subscriptions.iter().next()?;
                    let (filter, qos) = (one.topic_filter.to_str(), one.options.maximum_qos);
                    is_subscribed = true;
                    if let Some(count) = filter.split_once('/').and_then(|(_, n)| n.parse().ok()) {
                        let publish = Publish { qos, ..Publish::new(filter, &[b'x'; 64]) };
                        due = Some((Message::new(&publish).ok()?, count));
                    }
                    let codes = [ReasonCode::from(qos.as_u8())];
                    server.suback(token, &codes, Default::default(), clock.now(), &mut out).ok()?;
                }
                Action::Message(message) if is_subscribed => {
                    let message = Message::new(&message.to_publish()).ok()?;
                    let message = message.with(QoS::AtLeastOnce, false);
                    server.deliver(Outgoing::new(None, message), clock.now()).ok()?;
                }
                Action::Closed { .. } => return socket.write_all(&out).ok(),
                _ => {}
            }
        }
        let taken = received.len() - input.len();
        received.drain(..taken);
        // The queue is written before it gets more.
        loop {
            if let Some((message, count)) = &mut due {
                let outgoing = || Outgoing::new(None, message.clone());
                while *count > 0 && server.deliver(outgoing(), clock.now()).is_ok() {
                    *count -= 1;
                }
            }
            let has_more = server.flush(clock.now(), &mut out);
            socket.write_all(&out).ok()?;
            let is_empty = std::mem::take(&mut out).is_empty();
            if !has_more && is_empty {
                break;
            }
        }
        let count = socket.read(&mut chunk).ok()?;
        if count == 0 {
            return None;
        }
        received.extend_from_slice(&chunk[..count]);
    }
}
