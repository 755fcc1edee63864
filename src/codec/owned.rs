//! A packet that owns its bytes.

use super::body::Encode;
use super::error::{DecodeError, EncodeError};
use super::frame::frame;
use super::packet::{Packet, decode};
use super::rules::Rules;
use bytes::{Bytes, BytesMut};
use core::fmt;

/// The checked bytes of one packet, for callers that keep it, queue it, or send it to another task.
/// Cloning shares the bytes.
///
/// ```
/// use bytes::BytesMut;
/// use mqtt_sansio::codec::{OwnedPacket, Packet, Version};
///
/// // As in a `tokio_util` decoder, `None` means that more bytes are needed.
/// let mut received = BytesMut::from(&b"\x30\x04\x00\x01a!\xC0"[..]);
/// let packet = OwnedPacket::split_from(&mut received, u32::MAX, Version::V3_1_1)?.unwrap();
/// let Packet::Publish(publish) = packet.decode() else { panic!() };
/// assert_eq!(publish.payload, b"!");
/// assert_eq!(received, &b"\xC0"[..]);
/// # Ok::<_, mqtt_sansio::codec::DecodeError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OwnedPacket {
    bytes: Bytes,
    rules: Rules,
}

impl OwnedPacket {
    /// Splits the first packet off the bytes received. Returns `None` and leaves the bytes while
    /// the packet is incomplete.
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
    ///
    /// ```
    /// use mqtt_sansio::codec::{OwnedPacket, Publish, Version};
    ///
    /// let packet = Publish::new("room/4", b"21.5").into();
    /// let owned = OwnedPacket::new(&packet, Version::V5_0)?;
    /// assert_eq!(owned.decode(), packet);
    /// assert_eq!(owned.as_bytes().len(), 15);
    /// # Ok::<_, mqtt_sansio::codec::EncodeError>(())
    /// ```
    pub fn new(packet: &Packet<'_>, rules: impl Into<Rules>) -> Result<Self, EncodeError> {
        let rules = rules.into();
        let mut bytes = BytesMut::new();
        packet.encode(rules, &mut bytes)?;
        Ok(Self { bytes: bytes.freeze(), rules })
    }

    /// Decodes the packet. Each call reads the bytes again.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the comment proves it")]
    pub fn decode(&self) -> Packet<'_> {
        // The constructors have decoded these bytes, or encoded them, by the same rules. Both are
        // pure functions.
        let frame = frame(&self.bytes, u32::MAX).ok().flatten().expect("the bytes are one packet");
        decode(frame, self.rules).expect("the bytes are a packet of these rules")
    }

    /// Returns the bytes of the packet.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the rules by which the packet was decoded or encoded.
    #[must_use]
    pub const fn rules(&self) -> Rules {
        self.rules
    }
}

impl AsRef<[u8]> for OwnedPacket {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<OwnedPacket> for Bytes {
    fn from(packet: OwnedPacket) -> Self {
        packet.bytes
    }
}

/// Formats the decoded packet, because the bytes can contain secrets.
impl fmt::Debug for OwnedPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (packet, rules) = (self.decode(), self.rules);
        f.debug_struct("OwnedPacket").field("packet", &packet).field("rules", &rules).finish()
    }
}
