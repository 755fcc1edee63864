//! MQTT packets as a stream and a sink: the codec as a `tokio_util::codec`.
//!
//! Copy [`Mqtt`] into a program that wants packets and no session. The client and server machines
//! do not need it: they read bytes.

use bytes::BytesMut;
use futures_util::{SinkExt as _, StreamExt as _};
use mqtt_sansio::codec::{
    self, Connack, Connect, DecodeError, Disconnect, EncodeError, OwnedPacket,
};
use mqtt_sansio::codec::{Packet, Publish, Role, Rules, Version};
use std::io;
use tokio::io::DuplexStream;
use tokio_util::codec::{Decoder, Encoder, Framed};

fn main() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let (near, far) = tokio::io::duplex(64);
        let client = Framed::new(near, Mqtt::new(Role::Client, Version::V3_1_1, 1024));
        // The server learns the version from CONNECT.
        let server = Framed::new(far, Mqtt::new(Role::Server, Version::V5_0, 1024));
        let ((), received) = tokio::try_join!(publish(client), receive(server))?;
        assert_eq!(received, ["room/4 21.5", "room/5 21.6"]);
        Ok(())
    })
}

async fn publish(mut connection: Framed<DuplexStream, Mqtt>) -> Result<(), Error> {
    connection.send(Connect::new(Version::V3_1_1, "tokio-codec").into()).await?;
    if let Some(connack) = connection.next().await.transpose()? {
        println!("{}", connack.decode());
    }
    connection.feed(Publish::new("room/4", b"21.5").into()).await?;
    connection.feed(Publish::new("room/5", b"21.6").into()).await?;
    connection.send(Disconnect::default().into()).await
}

async fn receive(mut connection: Framed<DuplexStream, Mqtt>) -> Result<Vec<String>, Error> {
    let mut received = Vec::new();
    while let Some(packet) = connection.next().await {
        match packet?.decode() {
            Packet::Connect(_) => connection.send(Connack::default().into()).await?,
            Packet::Publish(publish) => {
                let payload = String::from_utf8_lossy(publish.payload);
                received.push(format!("{} {payload}", publish.topic_name));
            }
            Packet::Disconnect(_) => break,
            other => println!("not handled: {other}"),
        }
    }
    Ok(received)
}

/// One end of a connection.
pub struct Mqtt {
    own: Role,
    version: Version,
    maximum_packet_size: u32,
}

impl Mqtt {
    /// Creates a codec that refuses larger packets from their header, before it buffers them.
    pub fn new(own: Role, version: Version, maximum_packet_size: u32) -> Self {
        Self { own, version, maximum_packet_size }
    }
}

/// The reason why a stream or sink has ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The transport has failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer sent an invalid packet. `DecodeError::reason_code` is the code to answer with.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The packet to send is invalid, and nothing was written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl Decoder for Mqtt {
    type Item = OwnedPacket;
    type Error = Error;

    fn decode(&mut self, received: &mut BytesMut) -> Result<Option<OwnedPacket>, Error> {
        let peer = match self.own {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        let rules = Rules::new(self.version).sent_by(peer);
        let packet = OwnedPacket::split_from(received, self.maximum_packet_size, rules)?;
        // A CONNECT names its version, which holds for all packets after it.
        if let Some(Packet::Connect(connect)) = packet.as_ref().map(OwnedPacket::decode) {
            self.version = connect.version;
        }
        Ok(packet)
    }
}

impl Encoder<Packet<'_>> for Mqtt {
    type Error = Error;

    fn encode(&mut self, packet: Packet<'_>, out: &mut BytesMut) -> Result<(), Error> {
        let rules = Rules::new(self.version).sent_by(self.own);
        Ok(codec::encode(&packet, rules, out)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_pass_in_both_directions() {
        main().unwrap();
    }

    #[test]
    fn invalid_packet_ends_the_stream() {
        let mut codec = Mqtt::new(Role::Server, Version::V3_1_1, 1024);
        let mut decode = |bytes: &[u8]| codec.decode(&mut BytesMut::from(bytes));
        assert!(matches!(decode(b"\x30\x03\0\x01"), Ok(None)));
        let expected = "PUBLISH has QoS 3, expected 0, 1 or 2";
        assert_eq!(decode(b"\x36\x03\0\x01a").unwrap_err().to_string(), expected);
        // Only the header has arrived.
        assert!(matches!(
            decode(b"\x30\x81\x08"),
            Err(Error::Decode(DecodeError::PacketTooLarge { .. }))
        ));
    }
}
