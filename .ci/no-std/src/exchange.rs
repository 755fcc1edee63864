//! A client and a server machine, wired to each other.

use alloc::vec::Vec;
use mqtt_sansio::Instant;
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{ConnackProperties, Connect, Publish, QoS, Version};
use mqtt_sansio::server::{self, Server, ServerConfig};

/// Connects a client machine to a server machine and publishes a message with QoS 2. Returns the
/// number of messages that have arrived and ended: 11.
#[unsafe(no_mangle)]
pub extern "C" fn mqtt_exchange() -> u32 {
    let now = Instant::from_millis(0);
    let mut client = Client::new(ClientConfig::new());
    let mut server = Server::new(ServerConfig::new(), now);
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    if client.connect(&Connect::new(Version::V5_0, "c"), now, &mut to_server).is_err() {
        return 0;
    }
    let publish = Publish { qos: QoS::ExactlyOnce, ..Publish::new("t", b"hello") };
    if client.publish(1, &publish, now, &mut to_server).is_err() {
        return 0;
    }
    let mut count = 0;
    for _ in 0..8 {
        let sent = core::mem::take(&mut to_server);
        let mut input = sent.as_slice();
        while let Some(action) = server.handle_input(&mut input, now, &mut to_client) {
            match action {
                server::Action::Connect(_) => {
                    let _ = server.accept(None, ConnackProperties::default(), now, &mut to_client);
                }
                server::Action::Message(message) => count += u32::from(message.payload == b"hello"),
                _ => {}
            }
        }
        let sent = core::mem::take(&mut to_client);
        let mut input = sent.as_slice();
        while let Some(action) = client.handle_input(&mut input, now, &mut to_server) {
            if let client::Action::Published(published) = action {
                count += 10 * u32::from(published.key == 1);
            }
        }
    }
    count
}
