//! Where an encoder writes to: an [`Output`], or [`Measure`], which only counts. Both are written to by the same code, so there
//! is no second function for a length that could disagree.
//!
//! A packet is checked and written in one pass. A length that stands before what it counts is filled in after that; should
//! anything be wrong, the output is cut back to what it was.

use super::{EncodeError, Text};
use alloc::vec::Vec;
use bytes::BytesMut;

/// What packets are appended to: `Vec<u8>` and [`BytesMut`], which grow, and [`Fixed`], which does not.
#[expect(private_bounds, reason = "nobody else has a use for what it has")]
pub trait Output: Sink {}

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
    /// Greater than the size of the memory once something had no room.
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

/// Counts.
pub(crate) struct Measure(usize);

impl Measure {
    /// How much is written.
    pub(crate) fn of(write: impl FnOnce(&mut Self) -> Result<(), EncodeError>) -> Result<u32, EncodeError> {
        let mut measure = Self(0);
        write(&mut measure)?;
        u32::try_from(measure.0).map_err(|_| EncodeError::PacketTooLong)
    }
}

/// What an encoder needs of an output.
pub(crate) trait Sink {
    /// How many bytes were written.
    fn length(&self) -> usize;

    fn bytes(&mut self, bytes: &[u8]);

    /// What was written after `start`; nothing where it was not kept.
    fn after(&mut self, start: usize) -> &mut [u8];

    /// Takes back what was written after `start`.
    fn cut(&mut self, start: usize);

    /// Says that so many bytes will be written.
    fn expect(&mut self, size: usize);

    /// Whether all that was written has found room.
    fn is_complete(&self) -> bool;

    #[inline]
    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    #[inline]
    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    #[inline]
    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Binary Data, or a string that was checked. [5.0 §1.5.6]
    #[inline(always)]
    fn binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let length = u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong)?;
        self.u16(length);
        self.bytes(bytes);
        Ok(())
    }

    #[inline]
    fn text(&mut self, text: Text<'_>) -> Result<(), EncodeError> {
        text.check()?;
        self.binary(text.as_bytes())
    }

    #[inline(always)]
    fn topic_name(&mut self, name: Text<'_>) -> Result<(), EncodeError> {
        name.check_topic_name()?;
        self.binary(name.as_bytes())
    }

    /// A number of up to 28 bits. [5.0 §1.5.5]
    #[inline]
    fn variable_byte_integer(&mut self, value: u32) {
        let mut rest = value;
        while rest >= 0x80 {
            self.u8(low_bits(rest) | 0x80);
            rest >>= 7;
        }
        self.u8(low_bits(rest));
    }

    /// A part that is written with its length before it, such as a property section.
    #[inline]
    fn section(&mut self, write: impl FnOnce(&mut Self) -> Result<(), EncodeError>) -> Result<(), EncodeError> {
        let start = self.length();
        self.u8(0);
        write(self)?;
        let length = remaining_length(self.length() - start - 1)?;
        self.fill_in(start, 1, length);
        Ok(())
    }

    /// Fills in the Variable Byte Integer at `start`, for which `kept` bytes were kept, no more than it needs.
    #[inline]
    fn fill_in(&mut self, start: usize, kept: usize, value: u32) {
        let length = length_of_length(value) as usize;
        if length > kept {
            self.move_up(start, kept, length);
        }
        let mut rest = value;
        for byte in self.after(start).iter_mut().take(length) {
            *byte = low_bits(rest) | if rest < 0x80 { 0 } else { 0x80 };
            rest >>= 7;
        }
    }

    /// Moves what stands after the `kept` bytes at `start`, so that there are `length`.
    #[inline(never)]
    fn move_up(&mut self, start: usize, kept: usize, length: usize) {
        for _ in kept..length {
            self.u8(0);
        }
        let after = self.after(start);
        if let Some(end) = (after.len() + kept).checked_sub(length) {
            after.copy_within(kept..end, length);
        }
    }
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

macro_rules! growing {
    ($($buffer:ty)*) => {
        $(impl Sink for $buffer {
            #[inline]
            fn length(&self) -> usize {
                self.len()
            }

            #[inline]
            fn bytes(&mut self, bytes: &[u8]) {
                self.extend_from_slice(bytes);
            }

            #[inline]
            fn after(&mut self, start: usize) -> &mut [u8] {
                self.get_mut(start..).unwrap_or_default()
            }

            #[inline]
            fn cut(&mut self, start: usize) {
                self.truncate(start);
            }

            #[inline]
            fn expect(&mut self, size: usize) {
                self.reserve(size);
            }

            #[inline]
            fn is_complete(&self) -> bool {
                true
            }
        })*
    };
}

growing! { Vec<u8> BytesMut }

impl Sink for Fixed<'_> {
    fn length(&self) -> usize {
        self.length
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let end = self.length.saturating_add(bytes.len());
        if let Some(room) = self.memory.get_mut(self.length..end) {
            room.copy_from_slice(bytes);
        }
        self.length = end;
    }

    fn after(&mut self, start: usize) -> &mut [u8] {
        self.memory.get_mut(start..self.length).unwrap_or_default()
    }

    fn cut(&mut self, start: usize) {
        self.length = start;
    }

    fn expect(&mut self, _: usize) {}

    fn is_complete(&self) -> bool {
        self.length <= self.memory.len()
    }
}

impl Sink for Measure {
    fn length(&self) -> usize {
        self.0
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0 = self.0.saturating_add(bytes.len());
    }

    fn after(&mut self, _: usize) -> &mut [u8] {
        &mut []
    }

    fn cut(&mut self, start: usize) {
        self.0 = start;
    }

    fn expect(&mut self, _: usize) {}

    fn is_complete(&self) -> bool {
        true
    }
}
