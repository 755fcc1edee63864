//! One machine alone: the test is its peer, and writes and reads the packets.

use crate::wire::encoded;
use mqtt_sansio::Instant;
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{Connack, ConnackProperties, Connect, Version};
use mqtt_sansio::server::{self, Server, ServerConfig};

pub const NOW: Instant = Instant::from_millis(1_000);

/// The CONNACK of a server that goes on with its session, where it can say so.
pub fn resumed(version: Version) -> Vec<u8> {
    encoded(Connack { session_present: version > Version::V3_1, ..Connack::default() }, version)
}

/// A machine that takes steps until it needs more input: what it asked of its host, and what it
/// wrote.
pub trait Hears {
    type Action<'i>;

    fn hears_at<'i>(&mut self, input: &'i [u8], now: Instant) -> (Vec<Self::Action<'i>>, Vec<u8>);

    fn hears<'i>(&mut self, input: &'i [u8]) -> (Vec<Self::Action<'i>>, Vec<u8>) {
        self.hears_at(input, NOW)
    }
}

impl Hears for Client {
    type Action<'i> = client::Action<'i>;

    fn hears_at<'i>(
        &mut self,
        mut input: &'i [u8],
        now: Instant,
    ) -> (Vec<client::Action<'i>>, Vec<u8>) {
        let mut out = Vec::new();
        (core::iter::from_fn(|| self.handle_input(&mut input, now, &mut out)).collect(), out)
    }
}

impl Hears for Server {
    type Action<'i> = server::Action<'i>;

    fn hears_at<'i>(
        &mut self,
        mut input: &'i [u8],
        now: Instant,
    ) -> (Vec<server::Action<'i>>, Vec<u8>) {
        let mut out = Vec::new();
        (core::iter::from_fn(|| self.handle_input(&mut input, now, &mut out)).collect(), out)
    }
}

/// A client that has sent its CONNECT.
pub fn connecting(config: ClientConfig, connect: &Connect<'_>) -> Client {
    let mut client = Client::new(config);
    client.connect(connect, NOW, &mut Vec::new()).unwrap();
    client
}

/// A client that a server has let in on these terms.
pub fn connected(connect: &Connect<'_>, properties: ConnackProperties<'_>) -> Client {
    let mut client = connecting(ClientConfig::new(), connect);
    let connack = encoded(Connack { properties, ..Connack::default() }, connect.version);
    assert!(matches!(client.hears(&connack).0[..], [client::Action::Connected(_)]));
    client
}

/// The next connection of a client, to a server that goes on with the session; what the client says
/// after CONNACK.
pub fn resume(client: &mut Client, connect: &Connect<'_>) -> Vec<u8> {
    client.connection_lost();
    client.connect(connect, NOW, &mut Vec::new()).unwrap();
    let connack = resumed(connect.version);
    let (actions, said) = client.hears(&connack);
    assert!(matches!(actions[..], [client::Action::Connected(_)]), "{actions:?}");
    said
}

/// A server that was asked to let a client in.
pub fn asked(config: ServerConfig, connect: &Connect<'_>) -> Server {
    let mut server = Server::new(config, NOW);
    let connect = encoded(*connect, connect.version);
    assert!(matches!(server.hears(&connect).0[..], [server::Action::Connect(_)]));
    server
}

/// A server that has let a client in.
pub fn accepted(connect: &Connect<'_>) -> Server {
    let mut server = asked(ServerConfig::new(), connect);
    server.accept(&mut None, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
    server
}
