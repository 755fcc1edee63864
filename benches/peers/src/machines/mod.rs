//! One file for each crate that has session machines, and the columns of the table.
//!
//! Other crates have only parts of one (mqtt5-protocol), or one that needs a transport and a
//! runtime (ntex-mqtt).

mod flowsdk;
mod mqtt_protocol_core;
mod ours;
mod rumqttc;

use crate::jobs::{Both, Contestant, One, Side};
use crate::machine::Machine;
use mqtt_sansio::codec::Version;

/// A crate.
pub struct Column {
    pub name: &'static str,
    sides: Vec<(Version, Side, &'static dyn Contestant)>,
}

impl Column {
    fn new(name: &'static str) -> Self {
        Self { name, sides: Vec::new() }
    }

    /// Adds a client, made for at most a number of messages in flight.
    fn client<C: Machine + 'static>(
        self,
        version: Version,
        client: impl Fn(u16) -> C + 'static,
    ) -> Self {
        self.with(version, Side::Client, One(client))
    }

    /// Adds a client, a server, and the two together.
    fn both<C: Machine + 'static, S: Machine + 'static>(
        self,
        version: Version,
        client: impl Fn(u16) -> C + Copy + 'static,
        server: impl Fn(u16) -> S + Copy + 'static,
    ) -> Self {
        let pair = Both(client, server);
        self.client(version, client).with(version, Side::Server, One(server)).with(
            version,
            Side::Pair,
            pair,
        )
    }

    fn with(mut self, version: Version, side: Side, contestant: impl Contestant + 'static) -> Self {
        self.sides.push((version, side, Box::leak(Box::new(contestant))));
        self
    }

    pub fn side(&self, version: Version, side: Side) -> Option<&'static dyn Contestant> {
        self.sides
            .iter()
            .find(|(v, s, _)| *v == version && *s == side)
            .map(|(_, _, contestant)| *contestant)
    }

    /// Whether a machine delivers twice: [`Contestant::delivers_twice`].
    pub fn delivers_twice(&self) -> bool {
        self.sides.iter().any(|(version, _, contestant)| contestant.delivers_twice(*version))
    }
}

/// Returns the columns: this crate and the peers.
pub fn columns() -> Vec<Column> {
    const V4: Version = Version::V3_1_1;
    const V5: Version = Version::V5_0;
    let (mut us, mut flowsdk) = (Column::new("mqtt-sansio"), Column::new("flowsdk 0.7.0"));
    for version in [V4, V5] {
        us = us.both(
            version,
            move |limit| ours::Client::connected(version, limit),
            move |limit| ours::Server::connected(version, limit),
        );
        flowsdk = flowsdk.client(version, move |limit| flowsdk::Client::connected(version, limit));
    }
    let core = Column::new("mqtt-protocol-core 0.7.9");
    let rumqttc = Column::new("rumqttc 0.25.1");
    vec![
        us,
        core.both(V4, mqtt_protocol_core::v3_1_1::client, mqtt_protocol_core::v3_1_1::server).both(
            V5,
            mqtt_protocol_core::v5_0::client,
            mqtt_protocol_core::v5_0::server,
        ),
        rumqttc
            .client(V4, rumqttc::v4::Client::connected)
            .client(V5, rumqttc::v5::Client::connected),
        flowsdk,
    ]
}
