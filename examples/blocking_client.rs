//! A client on `std::net`, without an async runtime.
//!
//! The machine takes one step at a time, so a program that reads from top to bottom needs one
//! function: [`Connection::wait_for`] moves bytes until the event comes that the program waits for.
//!
//! ```sh
//! cargo run -p mqtt-sansio-examples --example blocking_client 127.0.0.1:1883
//! ```

use mqtt_sansio::client::{Action, Client, ClientConfig};
use mqtt_sansio::codec::{Connect, Disconnect, Publish, QoS, Subscription, Version};
use mqtt_sansio::{Clock, Instant};
use std::error::Error;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1883".to_owned());
    println!("received {:?}", publish_and_receive(&server)?);
    Ok(())
}

/// Subscribes, publishes with QoS 2, and returns the message that comes back.
fn publish_and_receive(server: &str) -> Result<String, Box<dyn Error>> {
    let mut connection = Connection::open(server, None)?;

    let filters = [Subscription::new("room/+", QoS::ExactlyOnce)];
    let now = connection.now();
    connection.client.subscribe(1, &filters, Default::default(), now, &mut connection.out)?;
    connection.wait_for(|action| matches!(action, Action::Subscribed(1, _)).then_some(()))?;

    let reading = Publish { qos: QoS::ExactlyOnce, ..Publish::new("room/4", b"21.5") };
    let now = connection.now();
    connection.client.publish(2, &reading, now, &mut connection.out)?;
    // The outcome and the message come in any order.
    let (mut is_published, mut payload) = (false, None);
    let payload = connection.wait_for(|action| {
        match action {
            Action::Published(published) => is_published = published.key == 2,
            Action::Message(message) => {
                payload = Some(String::from_utf8_lossy(message.payload).into_owned());
            }
            _ => {}
        }
        if is_published { payload.take() } else { None }
    })?;

    let now = connection.now();
    connection.client.disconnect(&Disconnect::default(), now, &mut connection.out)?;
    connection.socket.write_all(&connection.out)?;
    Ok(payload)
}

pub(crate) struct Connection {
    socket: TcpStream,
    clock: Clock,
    pub(crate) client: Client,
    /// Bytes that the machine has not taken.
    received: Vec<u8>,
    /// Bytes that the socket has not taken.
    pub(crate) out: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(server: &str, user: Option<(&str, &str)>) -> Result<Self, Box<dyn Error>> {
        let socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(Duration::from_secs(30)))?;
        let (clock, client) = (Clock::new(), Client::new(ClientConfig::new()));
        let mut new = Self { socket, clock, client, received: Vec::new(), out: Vec::new() };
        // Keep Alive gives the machine a deadline, so a silent server cannot stop the program.
        // Without a client identifier, the server assigns one.
        let connect = Connect {
            clean_start: true,
            keep_alive: 30,
            user_name: user.map(|(name, _)| name.into()),
            password: user.map(|(_, password)| password.as_bytes()),
            ..Connect::new(Version::V5_0, "")
        };
        new.client.connect(&connect, new.clock.now(), &mut new.out)?;
        new.wait_for(|action| matches!(action, Action::Connected(_)).then_some(()))?;
        Ok(new)
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Runs the connection until `found` returns a value. Input after that event stays for the next
    /// call. Events that `found` does not want are dropped.
    pub(crate) fn wait_for<T>(
        &mut self,
        mut found: impl FnMut(Action<'_>) -> Option<T>,
    ) -> Result<T, Box<dyn Error>> {
        loop {
            // 1. Step through what was received. Replies are appended to `out`.
            let mut input = self.received.as_slice();
            let result = loop {
                match self.client.handle_input(&mut input, self.clock.now(), &mut self.out) {
                    None => break None,
                    Some(Action::Closed(cause)) => break Some(Err(cause.to_string().into())),
                    Some(action) => {
                        if let Some(value) = found(action) {
                            break Some(Ok(value));
                        }
                    }
                }
            };
            let taken = self.received.len() - input.len();
            self.received.drain(..taken);
            // 2. Write the replies. At the end, that is a DISCONNECT with the reason.
            self.socket.write_all(&self.out)?;
            self.out.clear();
            if let Some(result) = result {
                return result;
            }
            // 3. Read, but not beyond the next deadline. A timeout of zero would mean none.
            let deadline = self.client.poll_timeout().unwrap_or_else(|| self.now());
            let wait = (deadline - self.now()).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(wait))?;
            let mut chunk = [0; 4096];
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
            // 4. Send the PINGREQ that is due, or end the connection.
            let action = self.client.handle_timeout(self.now(), &mut self.out);
            if let Some(Action::Closed(cause)) = action {
                return Err(cause.to_string().into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::process::{Command, Stdio};

    #[test]
    fn message_comes_back_from_mosquitto() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mosquitto = Command::new("mosquitto")
            .args(["-p", &free.port().to_string()])
            .env("PATH", path)
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut mosquitto) = mosquitto else {
            assert!(std::env::var_os("CI").is_none(), "mosquitto is not installed");
            return;
        };
        while TcpStream::connect(free).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let received = publish_and_receive(&free.to_string());
        mosquitto.kill().unwrap();
        mosquitto.wait().unwrap();
        assert_eq!(received.unwrap(), "21.5");
    }
}
