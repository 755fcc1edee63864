//! One machine alone. The test is its peer, and writes and reads the packets.

use crate::wire::encoded;
use mqtt_sansio::Instant;
use mqtt_sansio::client::{self, Client, ClientConfig};
use mqtt_sansio::codec::{Connack, ConnackProperties, Connect, Version};
use mqtt_sansio::server::{self, RequestToken, Server, ServerConfig};

pub const NOW: Instant = Instant::from_millis(1_000);

/// Returns the CONNACK of a server that resumes the session, with Session Present if the version
/// has it.
pub fn resumed(version: Version) -> Vec<u8> {
    encoded(Connack { session_present: version > Version::V3_1, ..Connack::default() }, version)
}

/// A machine that takes steps until it needs more input. Returns the actions for its host and its
/// output.
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

/// Returns a client that has sent its CONNECT.
pub fn connecting(config: ClientConfig, connect: &Connect<'_>) -> Client {
    let mut client = Client::new(config);
    client.connect(connect, NOW, &mut Vec::new()).unwrap();
    client
}

/// Returns a client that a server has accepted with these properties.
pub fn connected(connect: &Connect<'_>, properties: ConnackProperties<'_>) -> Client {
    let mut client = connecting(ClientConfig::new(), connect);
    let connack = encoded(Connack { properties, ..Connack::default() }, connect.version);
    assert!(matches!(client.hears(&connack).0[..], [client::Action::Connected(_)]));
    client
}

/// Reconnects a client to a server that resumes the session. Returns what the client writes after
/// CONNACK.
pub fn resume(client: &mut Client, connect: &Connect<'_>) -> Vec<u8> {
    while client.connection_lost().is_some() {}
    client.connect(connect, NOW, &mut Vec::new()).unwrap();
    let connack = resumed(connect.version);
    let (actions, said) = client.hears(&connack);
    assert!(matches!(actions[..], [client::Action::Connected(_)]), "{actions:?}");
    said
}

/// Returns a server whose host has been asked to accept a client.
pub fn asked(config: ServerConfig, connect: &Connect<'_>) -> Server {
    let mut server = Server::new(config, NOW);
    let connect = encoded(*connect, connect.version);
    assert!(matches!(server.hears(&connect).0[..], [server::Action::Connect(_)]));
    server
}

/// Returns a server that has accepted a client.
pub fn accepted(connect: &Connect<'_>) -> Server {
    let mut server = asked(ServerConfig::new(), connect);
    server.accept(None, ConnackProperties::default(), NOW, &mut Vec::new()).unwrap();
    server
}

/// Returns the tokens of the SUBSCRIBE and UNSUBSCRIBE packets among the actions of a server.
pub fn tokens(actions: &[server::Action<'_>]) -> Vec<RequestToken> {
    let token = |action: &server::Action<'_>| match action {
        server::Action::Subscribe(token, _) | server::Action::Unsubscribe(token, _) => Some(*token),
        _ => None,
    };
    actions.iter().filter_map(token).collect()
}
