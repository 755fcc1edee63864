//! A packet that owns its bytes.

use super::encode::Encode;
use super::error::{DecodeError, EncodeError};
use super::frame::frame;
use super::packet::{Packet, decode};
use super::rules::Rules;
use bytes::{Bytes, BytesMut};

/// One packet's bytes, checked: to be kept, queued, or sent to another task. Cloning shares the
/// bytes.
///
/// ```
/// use bytes::BytesMut;
/// use mqtt_sansio::codec::{OwnedPacket, Packet, Version};
///
/// // As in a `tokio_util` decoder: `None` means that more bytes are needed.
/// let mut received = BytesMut::from(&b"\x30\x04\x00\x01a!\xC0"[..]);
/// let packet = OwnedPacket::split_from(&mut received, u32::MAX, Version::V3_1_1)?.unwrap();
/// let Packet::Publish(publish) = packet.packet() else { panic!() };
/// assert_eq!(publish.payload, b"!");
/// assert_eq!(received, &b"\xC0"[..]);
/// # Ok::<_, mqtt_sansio::codec::DecodeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedPacket {
    bytes: Bytes,
    rules: Rules,
}

impl OwnedPacket {
    /// Splits the first packet off the bytes received, or gives `None` and leaves them while it is
    /// not all there.
    pub fn split_from(
        received: &mut BytesMut,
        maximum_packet_size: u32,
        rules: impl Into<Rules>,
    ) -> Result<Option<Self>, DecodeError> {
        let rules = rules.into();
        let Some(frame) = frame(received, maximum_packet_size)? else { return Ok(None) };
        decode(frame, rules)?;
        let size = frame.as_bytes().len();
        Ok(Some(Self { bytes: received.split_to(size).freeze(), rules }))
    }

    /// Encodes a packet.
    pub fn new(packet: &Packet<'_>, rules: impl Into<Rules>) -> Result<Self, EncodeError> {
        let rules = rules.into();
        let mut bytes = BytesMut::new();
        packet.encode_to(rules, &mut bytes)?;
        Ok(Self { bytes: bytes.freeze(), rules })
    }

    /// The packet, read anew from the bytes.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the comment proves it")]
    pub fn packet(&self) -> Packet<'_> {
        // The same bytes were decoded by the same rules, or encoded by them, when they came to be
        // here; both are pure.
        let frame = frame(&self.bytes, u32::MAX).ok().flatten().expect("the bytes are one packet");
        decode(frame, self.rules).expect("the bytes are a packet of these rules")
    }

    /// The bytes of the packet.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }
}
