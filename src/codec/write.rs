//! What packets are written to. The same code walks a packet twice: once for [`Size`], which adds up, and once for [`Writer`], which
//! checks each string and copies it into room of just that size. So there is no second function for a length that could disagree,
//! an output grows once, and each byte is copied once.

use super::{EncodeError, Text};
use alloc::vec::Vec;
use bytes::BytesMut;

/// What packets are appended to: `Vec<u8>` and [`BytesMut`], which grow, and [`Fixed`], which does not.
#[expect(private_bounds, reason = "nobody else has a use for what it has")]
pub trait Output: Append {}

impl Output for Vec<u8> {}
impl Output for BytesMut {}
impl Output for Fixed<'_> {}

/// An [`Output`] of a fixed size, in memory that the caller has.
///
/// ```
/// use mqtt_sansio::codec::{self, EncodeError, Fixed, Packet, Publish, Version};
///
/// let mut memory = [0; 16];
/// let mut out = Fixed::new(&mut memory);
/// codec::encode(&Packet::Pingreq, Version::V5_0, &mut out)?;
/// assert_eq!(out.written(), [0xC0, 0x00]);
///
/// let large = Publish::new("a/b", &[0; 100]).into();
/// assert_eq!(codec::encode(&large, Version::V5_0, &mut out), Err(EncodeError::NoRoom(108)));
/// assert_eq!(out.written(), [0xC0, 0x00]);
/// # Ok::<_, EncodeError>(())
/// ```
#[derive(Debug)]
pub struct Fixed<'m> {
    memory: &'m mut [u8],
    length: usize,
}

impl<'m> Fixed<'m> {
    /// Nothing is written yet.
    #[must_use]
    pub const fn new(memory: &'m mut [u8]) -> Self {
        Self { memory, length: 0 }
    }

    /// The packets.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.memory.get(..self.length).unwrap_or_default()
    }

    /// Makes room for others.
    pub const fn clear(&mut self) {
        self.length = 0;
    }
}

/// What an encoder needs of an output.
pub(crate) trait Append {
    /// Has `size` bytes written, and appends the payload to them. Where they cannot be written, or there is no room, all is as it was.
    fn append_with(
        &mut self,
        size: usize,
        payload: &[u8],
        write: impl FnOnce(&mut [u8]) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError>;
}

/// Room for most of the packets that are written most often.
const SHORT: usize = 64;

macro_rules! growing {
    ($($buffer:ty)*) => {
        $(impl Append for $buffer {
            #[inline]
            fn append_with(
                &mut self,
                size: usize,
                payload: &[u8],
                write: impl FnOnce(&mut [u8]) -> Result<(), EncodeError>,
            ) -> Result<(), EncodeError> {
                let start = self.len();
                if size <= SHORT && SHORT.max(size + payload.len()) <= self.capacity() - start {
                    // To fill memory of a size that the compiler knows costs next to nothing.
                    self.extend_from_slice(&[0; SHORT]);
                    self.truncate(start + size);
                } else {
                    self.reserve(size + payload.len());
                    self.resize(start + size, 0);
                }
                let result = write(self.get_mut(start..).unwrap_or_default());
                if result.is_ok() {
                    self.extend_from_slice(payload);
                } else {
                    self.truncate(start);
                }
                result
            }
        })*
    };
}

growing! { Vec<u8> BytesMut }

impl Append for Fixed<'_> {
    fn append_with(
        &mut self,
        size: usize,
        payload: &[u8],
        write: impl FnOnce(&mut [u8]) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let end = self.length.saturating_add(size).saturating_add(payload.len());
        let room = self.memory.get_mut(self.length..end).ok_or(EncodeError::NoRoom(end - self.length))?;
        let (room, last) = room.split_at_mut(size);
        write(room)?;
        last.copy_from_slice(payload);
        self.length = end;
        Ok(())
    }
}

/// What a packet is written to, field by field.
pub(crate) trait Sink {
    fn bytes<const N: usize>(&mut self, bytes: [u8; N]);

    /// Binary Data, or a string that was checked. [5.0 §1.5.6]
    fn binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError>;

    fn text(&mut self, text: Text<'_>) -> Result<(), EncodeError>;

    fn topic_name(&mut self, name: Text<'_>) -> Result<(), EncodeError>;

    /// A number of up to 28 bits. [5.0 §1.5.5]
    fn variable_byte_integer(&mut self, value: u32);

    /// A property section, with its length before it. [5.0 §2.2.2.1]
    fn section(&mut self, write: impl FnOnce(&mut Self) -> Result<(), EncodeError>) -> Result<(), EncodeError>;

    #[inline(always)]
    fn u8(&mut self, value: u8) {
        self.bytes([value]);
    }

    #[inline(always)]
    fn u16(&mut self, value: u16) {
        self.bytes(value.to_be_bytes());
    }

    #[inline(always)]
    fn u32(&mut self, value: u32) {
        self.bytes(value.to_be_bytes());
    }
}

/// Adds up.
#[derive(Clone, Copy, Default)]
pub(crate) struct Size {
    total: usize,
    /// The lengths of the property sections, each in half of the bits, the first in the lower half. A CONNECT with a will has two.
    sections: u64,
    /// At which bit the next one begins.
    next: u32,
}

impl Size {
    pub(crate) const fn total(&self) -> usize {
        self.total
    }

    #[inline(always)]
    const fn add(&mut self, size: usize) {
        // A list of references can be longer than any memory.
        self.total = self.total.saturating_add(size);
    }
}

impl Sink for Size {
    #[inline(always)]
    fn bytes<const N: usize>(&mut self, _: [u8; N]) {
        self.add(N);
    }

    #[inline(always)]
    fn binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.add(2 + usize::from(field_length(bytes)?));
        Ok(())
    }

    #[inline(always)]
    fn text(&mut self, text: Text<'_>) -> Result<(), EncodeError> {
        self.binary(text.as_bytes())
    }

    #[inline(always)]
    fn topic_name(&mut self, name: Text<'_>) -> Result<(), EncodeError> {
        self.binary(name.as_bytes())
    }

    #[inline(always)]
    fn variable_byte_integer(&mut self, value: u32) {
        self.add(length_of_length(value) as usize);
    }

    #[inline(always)]
    fn section(&mut self, write: impl FnOnce(&mut Self) -> Result<(), EncodeError>) -> Result<(), EncodeError> {
        let start = self.total;
        write(self)?;
        let length = remaining_length(self.total - start)?;
        self.sections |= u64::from(length) << (self.next & 32);
        self.next += 32;
        self.variable_byte_integer(length);
        Ok(())
    }
}

/// Checks and writes into room of the right size.
pub(crate) struct Writer<'m> {
    room: &'m mut [u8],
    sections: u64,
}

impl<'m> Writer<'m> {
    /// Room for a packet that has been measured.
    #[inline(always)]
    pub(crate) const fn new(room: &'m mut [u8], size: Size) -> Self {
        Self { room, sections: size.sections }
    }

    /// Whether all has been written that was measured.
    pub(crate) const fn is_full(&self) -> bool {
        self.room.is_empty()
    }

    /// Bytes without their length.
    #[inline(always)]
    pub(crate) fn copy(&mut self, bytes: &[u8]) {
        if let Some((next, rest)) = core::mem::take(&mut self.room).split_at_mut_checked(bytes.len()) {
            next.copy_from_slice(bytes);
            self.room = rest;
        }
    }
}

impl Sink for Writer<'_> {
    #[inline(always)]
    fn bytes<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some((next, rest)) = core::mem::take(&mut self.room).split_first_chunk_mut() {
            *next = bytes;
            self.room = rest;
        }
    }

    #[inline(always)]
    fn binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.u16(field_length(bytes)?);
        self.copy(bytes);
        Ok(())
    }

    #[inline(always)]
    fn text(&mut self, text: Text<'_>) -> Result<(), EncodeError> {
        self.binary(text.as_bytes())?;
        Ok(text.check()?)
    }

    #[inline(always)]
    fn topic_name(&mut self, name: Text<'_>) -> Result<(), EncodeError> {
        self.binary(name.as_bytes())?;
        Ok(name.check_topic_name()?)
    }

    #[inline(always)]
    fn variable_byte_integer(&mut self, value: u32) {
        let mut rest = value;
        while rest >= 0x80 {
            self.u8(low_bits(rest) | 0x80);
            rest >>= 7;
        }
        self.u8(low_bits(rest));
    }

    #[inline(always)]
    fn section(&mut self, write: impl FnOnce(&mut Self) -> Result<(), EncodeError>) -> Result<(), EncodeError> {
        let length = u32::try_from(self.sections & u64::from(u32::MAX)).unwrap_or(0);
        self.sections >>= 32;
        self.variable_byte_integer(length);
        if length == 0 { Ok(()) } else { write(self) }
    }
}

/// The length that stands before a string or Binary Data. [5.0 §1.5.4] [5.0 §1.5.6]
#[inline(always)]
fn field_length(bytes: &[u8]) -> Result<u16, EncodeError> {
    u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong)
}

/// The seven bits that one byte of a Variable Byte Integer holds.
const fn low_bits(value: u32) -> u8 {
    (value & 0x7F) as u8
}

/// The number of bytes of a Variable Byte Integer.
pub(crate) const fn length_of_length(value: u32) -> u32 {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// A length that a Variable Byte Integer can tell. [5.0 §1.5.5]
#[inline]
pub(crate) fn remaining_length(length: usize) -> Result<u32, EncodeError> {
    u32::try_from(length).ok().filter(|&length| length <= 268_435_455).ok_or(EncodeError::PacketTooLong)
}
