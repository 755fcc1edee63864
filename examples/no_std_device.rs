//! A sensor without an operating system: fixed buffers, `async` in the manner of embassy, and a
//! session that survives restarts, so that each reading arrives exactly once.
//!
//! The device wakes up, sends one reading, and sleeps. CI builds this file for Cortex-M4. With
//! embassy, `network` is a `TcpSocket` of `embassy-net`, and `flash` is a sector of
//! `embedded-storage`. An allocator is needed, for the messages of the session.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

use alloc::vec::Vec;
use core::time::Duration;
use embassy_futures::select::{Either, select};
use embassy_time::{Instant as Tick, Timer};
use embedded_io_async::{Read, Write};
use mqtt_sansio::Instant;
use mqtt_sansio::client::{Action, Client, ClientConfig};
use mqtt_sansio::codec::{Connect, Disconnect, Fixed, Output as _, Publish, QoS, Version};
use mqtt_sansio::session::Session;

/// No packet in either direction is larger. CONNECT states this limit to the server.
const LARGEST: usize = 256;

/// Memory that survives a restart.
pub trait Flash {
    /// Returns what was stored last, or nothing.
    fn load(&self) -> &[u8];
    /// Replaces what is stored, all or nothing.
    fn store(&mut self, bytes: &[u8]);
}

/// The reason why a reading was not acknowledged. The session has it, so the next run sends it.
#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    /// The network has failed, or the server has closed the connection.
    Network,
    /// The machine has ended the connection: the server broke a rule, or was silent.
    Closed,
}

/// Sends a reading, and those that earlier runs have not finished. Returns when the server has
/// acknowledged all of them.
pub async fn send(
    network: &mut (impl Read + Write),
    flash: &mut impl Flash,
    reading: Option<&[u8]>,
) -> Result<(), Failed> {
    let now = || Instant::from_millis(Tick::now().as_millis());
    // The clock starts at zero with each run, and nothing of this session expires.
    let session = Session::from_bytes(flash.load(), now(), Duration::ZERO).unwrap_or_default();
    let config = ClientConfig::new().maximum_queued(8, 1024).maximum_in_flight(4);
    let mut client = Client::with_session(config, session);
    let mut memory = [0; LARGEST];
    let mut out = Fixed::new(&mut memory);
    let (mut input, mut filled) = ([0; LARGEST], 0);

    let mut connect = Connect { keep_alive: 30, ..Connect::new(Version::V5_0, "sensor-4") };
    connect.properties.maximum_packet_size = Some(LARGEST as u32);
    connect.properties.session_expiry_interval = Some(u32::MAX);
    client.connect(&connect, now(), &mut out).map_err(|_| Failed::Closed)?;
    if let Some(payload) = reading {
        let message = Publish { qos: QoS::ExactlyOnce, ..Publish::new("room/4", payload) };
        client.publish(1, &message, now(), &mut out).map_err(|_| Failed::Closed)?;
    }
    loop {
        // Step until nothing is left to write. A full output makes the machine wait for room.
        loop {
            let mut rest = input.get(..filled).unwrap_or_default();
            while let Some(action) = client.handle_input(&mut rest, now(), &mut out) {
                if let Action::Closed(_) = action {
                    return Err(Failed::Closed);
                }
            }
            let left = rest.len();
            input.copy_within(filled - left..filled, 0);
            filled = left;
            let is_done = client.is_connected()
                && client.session().queued() == 0
                && client.session().in_flight() == 0;
            if is_done {
                let _ = client.disconnect(&Disconnect::default(), now(), &mut out);
            }
            // The device must not forget a state that the server knows: store first, then write.
            let image: Vec<u8> = client.session().to_bytes(now());
            if image != flash.load() {
                flash.store(&image);
            }
            network.write_all(out.written()).await.map_err(|_| Failed::Network)?;
            network.flush().await.map_err(|_| Failed::Network)?;
            if is_done {
                return Ok(());
            }
            if out.len() == 0 {
                break;
            }
            out.clear();
        }
        // Keep Alive is set, so there is always a deadline.
        let deadline = client.poll_timeout().unwrap_or_else(now);
        let timer = Timer::at(Tick::from_millis(deadline.as_millis()));
        match select(network.read(&mut input[filled..]), timer).await {
            Either::First(Ok(count @ 1..)) => filled += count,
            Either::First(_) => return Err(Failed::Network),
            Either::Second(()) => {
                if client.handle_timeout(now(), &mut out).is_some() {
                    return Err(Failed::Closed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::convert::Infallible;
    use core::future::poll_fn;
    use core::task::Poll;
    use embassy_futures::block_on;
    use embassy_time::{Duration as Pause, MockDriver};
    use mqtt_sansio::server::{self, Server, ServerConfig};

    impl Flash for Vec<u8> {
        fn load(&self) -> &[u8] {
            self
        }

        fn store(&mut self, bytes: &[u8]) {
            *self = bytes.to_vec();
        }
    }

    /// A network with a server at its other end.
    struct Network {
        server: Server,
        session: Option<Session>,
        to_device: Vec<u8>,
        /// The reads that succeed before the connection breaks.
        reads: usize,
        /// The seconds that the server takes to answer a message.
        pause: u64,
        /// When the next answer arrives.
        answers_at: Tick,
        messages: Vec<Vec<u8>>,
        pings: usize,
    }

    impl embedded_io_async::ErrorType for Network {
        type Error = Infallible;
    }

    impl Write for Network {
        async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
            let now = Instant::from_millis(Tick::now().as_millis());
            self.pings += usize::from(bytes == [0xC0, 0]);
            let mut input = bytes;
            while let Some(action) = self.server.handle_input(&mut input, now, &mut self.to_device)
            {
                match action {
                    server::Action::Connect(_) => {
                        let (session, properties) = (self.session.take(), Default::default());
                        self.server.accept(session, properties, now, &mut self.to_device).unwrap();
                    }
                    server::Action::Message(message) => {
                        self.messages.push(message.payload.to_vec());
                        self.answers_at = Tick::now() + Pause::from_secs(self.pause);
                    }
                    _ => {}
                }
            }
            Ok(bytes.len())
        }

        async fn flush(&mut self) -> Result<(), Infallible> {
            Ok(())
        }
    }

    impl Read for Network {
        async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
            poll_fn(|context| {
                if self.to_device.is_empty() || Tick::now() < self.answers_at {
                    // Time passes only while nothing else happens.
                    MockDriver::get().advance(Pause::from_secs(1));
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if self.reads == 0 {
                    return Poll::Ready(Ok(0));
                }
                self.reads -= 1;
                let count = self.to_device.len().min(buffer.len());
                buffer[..count].copy_from_slice(&self.to_device[..count]);
                self.to_device.drain(..count);
                Poll::Ready(Ok(count))
            })
            .await
        }
    }

    impl Network {
        /// Opens another connection to the same server.
        fn reconnect(self, reads: usize) -> Self {
            let mut old = self.server;
            let session = Some(old.take_session());
            let server = Server::new(ServerConfig::new(), Instant::default());
            Self { server, session, to_device: Vec::new(), reads, ..self }
        }
    }

    #[test]
    fn each_reading_arrives_once_over_restarts() {
        let mut flash = Vec::new();
        let mut network = Network {
            server: Server::new(ServerConfig::new(), Instant::default()),
            session: None,
            to_device: Vec::new(),
            reads: 1, // CONNACK. The connection breaks before PUBREC.
            pause: 0,
            answers_at: Tick::from_ticks(0),
            messages: Vec::new(),
            pings: 0,
        };
        assert_eq!(block_on(send(&mut network, &mut flash, Some(b"21.5"))), Err(Failed::Network));
        assert_eq!(network.messages, [b"21.5"]);
        // The device restarts. It sends the first PUBLISH again, and the server knows it.
        let mut network = network.reconnect(usize::MAX);
        assert_eq!(block_on(send(&mut network, &mut flash, Some(b"21.6"))), Ok(()));
        assert_eq!(network.messages, [b"21.5", b"21.6"]);
        // The device waits for a slow server, and sends a PINGREQ after its Keep Alive.
        let mut network = Network { pause: 40, ..network.reconnect(usize::MAX) };
        assert_eq!(block_on(send(&mut network, &mut flash, Some(b"21.7"))), Ok(()));
        assert_eq!((network.messages.len(), network.pings), (3, 1));
    }
}
