//! The fixed header, and the bytes of one packet. [5.0 §2.1] [3.1.1 §2.2]

#![expect(
    clippy::inline_always,
    reason = "measured: decoded in place, a PUBLISH is not copied through memory"
)]

use super::error::DecodeError;
use super::options::Options;
use super::packet_type::PacketType;
use super::read::Reader;
use super::rules::Rules;
use super::types::Version;
use super::varint;
use core::fmt;

/// The fixed header of a packet, which is known before the rest has arrived. [5.0 §2.1]
/// [3.1.1 §2.2]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    packet_type: PacketType,
    flags: u8,
    packet_size: u32,
}

impl Header {
    /// Returns the type of the packet.
    #[must_use]
    pub const fn packet_type(self) -> PacketType {
        self.packet_type
    }

    /// Returns the size of the whole packet in bytes, including the header. [5.0 §2.1.4]
    #[must_use]
    pub const fn packet_size(self) -> u32 {
        self.packet_size
    }
}

/// The bytes of one packet, not decoded yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub(super) packet_type: PacketType,
    pub(super) flags: u8,
    /// Whether the Remaining Length has no more bytes than it needs.
    minimal: bool,
    bytes: &'a [u8],
    pub(super) body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Returns the type of the packet.
    #[must_use]
    pub const fn packet_type(self) -> PacketType {
        self.packet_type
    }

    /// Returns the whole packet, from its first byte to its last.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Returns a copy, field by field, so that this one can stay in registers. A copy of the whole
    /// takes unused bytes with it.
    #[inline(always)]
    pub(crate) const fn copy(self) -> Self {
        let Self { packet_type, flags, minimal, bytes, body } = self;
        Self { packet_type, flags, minimal, bytes, body }
    }

    /// Returns the body after checking the flags; not for PUBLISH, which has its own flags.
    #[inline(always)]
    pub(crate) fn body(self, rules: Rules) -> Result<Reader<'a>, DecodeError> {
        let expected = self.packet_type.flags();
        if self.flags == expected || self.tolerates_flags(expected, rules) {
            self.any_body(rules)
        } else {
            Err(DecodeError::InvalidHeaderFlags)
        }
    }

    /// Whether the rules accept flags that are not the expected ones.
    #[cold]
    fn tolerates_flags(self, expected: u8, rules: Rules) -> bool {
        // In 3.1 a packet that is resent can carry DUP. [3.1 §3.6, §3.8, §3.10]
        let is_resent = expected != 0 && self.flags == expected | 0x08;
        match rules.version {
            Version::V3_1 if is_resent => true,
            Version::V3_1 | Version::V3_1_1 => rules.options.contains(Options::UNUSED_HEADER_FLAGS),
            Version::V5_0 => false,
        }
    }

    /// Whether DUP is set, which packets other than PUBLISH have only in 3.1. [3.1 §2.1]
    pub(crate) const fn dup(self) -> bool {
        self.flags & 0x08 != 0
    }

    /// Returns the body, whatever the flags.
    #[inline(always)]
    pub(super) fn any_body(self, rules: Rules) -> Result<Reader<'a>, DecodeError> {
        let right = self.minimal
            || rules.version < Version::V5_0 && rules.options.contains(Options::NON_MINIMAL_LENGTH);
        if right { Ok(Reader(self.body)) } else { Err(DecodeError::NonMinimalVariableByteInteger) }
    }

    /// Removes the first packet from `input` and returns it.
    #[inline]
    pub(crate) fn take(
        input: &mut &'a [u8],
        maximum_packet_size: u32,
    ) -> Result<Option<Self>, DecodeError> {
        let frame = frame(input, maximum_packet_size)?;
        if let Some(frame) = frame {
            *input = input.get(frame.bytes.len()..).unwrap_or_default();
        }
        Ok(frame)
    }
}

/// The header, without the bytes, which can contain secrets.
impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("packet_type", &self.packet_type)
            .field("flags", &self.flags)
            .field("packet_size", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// Reads the fixed header at the start of `bytes`, or returns `None` while it is incomplete.
///
/// The [`packet_size`](Header::packet_size) tells a reader how many bytes to wait for. A packet
/// larger than `maximum_packet_size` is refused here, before its bytes need to be kept.
///
/// ```
/// use mqtt_sansio::codec::{self, DecodeError};
///
/// let header = codec::header(&[0x30, 0x80, 0x01], u32::MAX)?.unwrap();
/// assert_eq!(header.packet_size(), 3 + 128);
/// let announced = [0x30, 0xFF, 0xFF, 0xFF, 0x7F];
/// assert_eq!(
///     codec::header(&announced, 1_000_000),
///     Err(DecodeError::PacketTooLarge { size: 268_435_460, maximum: 1_000_000 })
/// );
/// # Ok::<_, DecodeError>(())
/// ```
#[inline]
pub fn header(bytes: &[u8], maximum_packet_size: u32) -> Result<Option<Header>, DecodeError> {
    Ok(split_header(bytes, maximum_packet_size)?.map(|(header, _)| header))
}

/// Reads the fixed header, and returns it with the bytes after it.
#[inline]
fn split_header(
    bytes: &[u8],
    maximum_packet_size: u32,
) -> Result<Option<(Header, &[u8])>, DecodeError> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let packet_type = PacketType::from_number(first >> 4).ok_or(DecodeError::ReservedPacketType)?;
    let Some((remaining_length, after)) = varint::parse(rest)? else { return Ok(None) };
    let length_of_length = rest.len() - after.len();
    // At most 4 and 268,435,455.
    let packet_size = 1 + u32::try_from(length_of_length).unwrap_or(0) + remaining_length;
    if packet_size > maximum_packet_size {
        return Err(DecodeError::PacketTooLarge {
            size: packet_size,
            maximum: maximum_packet_size,
        });
    }
    Ok(Some((Header { packet_type, flags: first & 0x0F, packet_size }, after)))
}

/// Finds the packet at the start of `bytes`, or returns `None` while it is incomplete.
///
/// An incomplete packet is not an error. The next call reads only its header again.
#[inline(always)]
pub fn frame(bytes: &[u8], maximum_packet_size: u32) -> Result<Option<Frame<'_>>, DecodeError> {
    // Most headers have two bytes.
    if let ([first, length @ 0..=0x7F, rest @ ..], 0x81..) = (bytes, maximum_packet_size) {
        let (packet_type, length) = (PacketType::from_number(first >> 4), usize::from(*length));
        if let (Some(packet_type), Some(body), Some(bytes)) =
            (packet_type, rest.get(..length), bytes.get(..length + 2))
        {
            return Ok(Some(Frame {
                packet_type,
                flags: first & 0x0F,
                minimal: true,
                bytes,
                body,
            }));
        }
    }
    Ok(any_frame(bytes, maximum_packet_size)?.map(Frame::copy))
}

#[inline(never)]
fn any_frame(bytes: &[u8], maximum_packet_size: u32) -> Result<Option<Frame<'_>>, DecodeError> {
    let Some((Header { packet_type, flags, packet_size }, after)) =
        split_header(bytes, maximum_packet_size)?
    else {
        return Ok(None);
    };
    let header_size = bytes.len() - after.len();
    let Some(bytes) = usize::try_from(packet_size).ok().and_then(|size| bytes.get(..size)) else {
        return Ok(None);
    };
    let body = bytes.get(header_size..).unwrap_or_default();
    let minimal = varint::check(body.len() as u64)
        .is_ok_and(|length| header_size == 1 + varint::length(length) as usize);
    Ok(Some(Frame { packet_type, flags, minimal, bytes, body }))
}
