//! A packet that owns its bytes.

use super::body::Body;
use super::error::{DecodeError, EncodeError};
use super::frame::frame;
use super::packet::{Packet, decode, decode_again};
use super::rules::Rules;
use alloc::vec::Vec;
use bytes::{Buf as _, Bytes, BytesMut};
use core::fmt;
use core::hash::{Hash, Hasher};

/// The checked bytes of one packet, for callers that keep it, queue it, or send it to another task.
///
/// A packet of up to 22 bytes, such as an acknowledgement, is copied. A longer one shares the
/// memory that it was received in, which is freed when all packets in it are dropped: a short
/// packet can keep a large buffer alive. [`compact`](Self::compact) copies it out. Cloning shares
/// the bytes.
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
#[derive(Clone)]
pub struct OwnedPacket {
    bytes: Stored,
    rules: Rules,
}

/// The bytes of a packet. The longest that is stored inline does not make the type larger than
/// [`Bytes`].
#[derive(Clone)]
enum Stored {
    Inline(u8, [u8; SHORT]),
    Shared(Bytes),
}

/// The length up to which a packet is stored inline.
const SHORT: usize = 22;

impl Stored {
    /// Copies bytes that are short enough.
    #[inline]
    fn inline(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > SHORT {
            return None;
        }
        let mut copy = [0; SHORT];
        copy.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self::Inline(u8::try_from(bytes.len()).ok()?, copy))
    }

    #[inline]
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Shared(bytes) => bytes,
        }
    }
}

impl OwnedPacket {
    /// Splits the first packet off the bytes received. Returns `None` and leaves the bytes while
    /// the packet is incomplete.
    #[inline]
    pub fn split_from(
        received: &mut BytesMut,
        maximum_packet_size: u32,
        rules: impl Into<Rules>,
    ) -> Result<Option<Self>, DecodeError> {
        let rules = rules.into();
        let Some(frame) = frame(received, maximum_packet_size)? else { return Ok(None) };
        decode(frame, rules)?;
        let bytes = frame.as_bytes();
        let size = bytes.len();
        let bytes = match Stored::inline(bytes) {
            Some(bytes) => {
                received.advance(size);
                bytes
            }
            None => Stored::Shared(received.split_to(size).freeze()),
        };
        Ok(Some(Self { bytes, rules }))
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
        let mut bytes = Vec::new();
        packet.encode(rules, &mut bytes)?;
        let bytes = Stored::inline(&bytes).unwrap_or_else(|| Stored::Shared(bytes.into()));
        Ok(Self { bytes, rules })
    }

    /// Returns the packet as a view. Its strings and lists are not checked again, so this costs
    /// about as much as reading the lengths of its fields.
    #[must_use]
    #[inline]
    #[expect(clippy::expect_used, reason = "the comment proves it")]
    pub fn decode(&self) -> Packet<'_> {
        // The constructors have decoded these bytes, or encoded them, by the same rules. Both are
        // pure functions.
        let bytes = self.bytes.as_slice();
        let frame = frame(bytes, u32::MAX).ok().flatten().expect("the bytes are one packet");
        decode_again(frame, self.rules).expect("the bytes are a packet of these rules")
    }

    /// Copies the packet into memory of its own, so that the buffer in which it was received can be
    /// freed.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use mqtt_sansio::codec::{OwnedPacket, Version};
    ///
    /// let mut received = BytesMut::from(&b"\x30\x1A\x00\x01a"[..]);
    /// received.resize(1_000_000, b'!');
    /// let packet = OwnedPacket::split_from(&mut received, u32::MAX, Version::V3_1_1)?.unwrap();
    /// drop(received);
    /// // Holds 28 bytes from here on, not a megabyte.
    /// let packet = packet.compact();
    /// # Ok::<_, mqtt_sansio::codec::DecodeError>(())
    /// ```
    #[must_use]
    pub fn compact(&self) -> Self {
        let bytes = match &self.bytes {
            Stored::Shared(bytes) => Stored::Shared(Bytes::copy_from_slice(bytes)),
            Stored::Inline(..) => self.bytes.clone(),
        };
        Self { bytes, rules: self.rules }
    }

    /// Returns the bytes of the packet.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Returns the rules by which the packet was decoded or encoded.
    #[must_use]
    pub const fn rules(&self) -> Rules {
        self.rules
    }
}

impl PartialEq for OwnedPacket {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes() && self.rules == other.rules
    }
}

impl Eq for OwnedPacket {}

impl Hash for OwnedPacket {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.as_bytes(), self.rules).hash(state);
    }
}

impl AsRef<[u8]> for OwnedPacket {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// The bytes, copied if they are few.
impl From<OwnedPacket> for Bytes {
    fn from(packet: OwnedPacket) -> Self {
        match packet.bytes {
            Stored::Inline(..) => Self::copy_from_slice(packet.as_bytes()),
            Stored::Shared(bytes) => bytes,
        }
    }
}

/// Formats the decoded packet, because the bytes can contain secrets.
impl fmt::Debug for OwnedPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (packet, rules) = (self.decode(), self.rules);
        f.debug_struct("OwnedPacket").field("packet", &packet).field("rules", &rules).finish()
    }
}
