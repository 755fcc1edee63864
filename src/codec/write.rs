//! What packets are written to. The same code walks a packet twice: once for [`Size`], which checks
//! and adds up, and once for [`Writer`], which copies into room of just that size. So there is no
//! second function for a length that could disagree, an output grows once, each byte is copied
//! once, and nothing is written of a packet with an error.

use super::error::{DecodeError, EncodeError};
use super::text::Text;
use super::varint;
use alloc::vec::Vec;
use bytes::BytesMut;
use core::fmt;

/// The output that packets are appended to: `Vec<u8>` and [`BytesMut`], which grow, or [`Fixed`],
/// which does not.
///
/// The trait is sealed. It says how much has been written and how much can still be, and has the two
/// ways in which bytes arrive: the fields of a packet are written in place, into memory that the
/// output provides in one piece, and a payload is appended as a slice after them. So an output need
/// not be one piece of memory itself.
#[expect(clippy::len_without_is_empty, reason = "callers compare lengths before and after")]
pub trait Output: Sealed {
    /// Returns the number of bytes that the output holds.
    fn len(&self) -> usize;

    /// Returns the number of bytes that can still be appended; `usize::MAX` if the output grows.
    fn room(&self) -> usize;

    /// Appends bytes, or leaves the output as it is and returns [`EncodeError::NoRoom`].
    fn append_slice(&mut self, bytes: &[u8]) -> Result<(), EncodeError>;

    /// Appends `size` bytes, which the caller then overwrites, if there is room for `more` after
    /// them. Otherwise leaves the output as it is and returns [`EncodeError::NoRoom`].
    fn append_room(&mut self, size: usize, more: usize) -> Result<&mut [u8], EncodeError>;
}

/// Keeps [`Output`] to the types of this file.
#[expect(unnameable_types, reason = "a trait that cannot be named cannot be implemented")]
pub trait Sealed {}

impl Sealed for Vec<u8> {}
impl Sealed for BytesMut {}
impl Sealed for Fixed<'_> {}

/// An [`Output`] of a fixed size, in memory that the caller has.
///
/// ```
/// use mqtt_sansio::codec::{self, EncodeError, Fixed, Output, Packet, Publish, Version};
///
/// let mut memory = [0; 16];
/// let mut out = Fixed::new(&mut memory);
/// codec::encode(&Packet::Pingreq, Version::V5_0, &mut out)?;
/// assert_eq!(out.written(), [0xC0, 0x00]);
/// assert_eq!((out.len(), out.room()), (2, 14));
///
/// let large = Publish::new("a/b", &[0; 100]).into();
/// assert_eq!(codec::encode(&large, Version::V5_0, &mut out), Err(EncodeError::NoRoom(108)));
/// assert_eq!(out.written(), [0xC0, 0x00]);
/// # Ok::<_, EncodeError>(())
/// ```
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

/// The sizes, without the bytes, which can contain secrets.
impl fmt::Debug for Fixed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixed")
            .field("size", &self.memory.len())
            .field("written", &self.length)
            .finish_non_exhaustive()
    }
}

/// Room for most of the packets that are written most often.
const SHORT: usize = 64;

macro_rules! growing {
    ($($buffer:ty)*) => {
        $(impl Output for $buffer {
            fn len(&self) -> usize {
                self.len()
            }

            fn room(&self) -> usize {
                usize::MAX
            }

            #[inline(always)]
            fn append_slice(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
                self.extend_from_slice(bytes);
                Ok(())
            }

            #[inline(always)]
            fn append_room(&mut self, size: usize, more: usize) -> Result<&mut [u8], EncodeError> {
                let start = self.len();
                if size <= SHORT && SHORT.max(size + more) <= self.capacity() - start {
                    // To fill memory of a size that the compiler knows costs next to nothing.
                    self.extend_from_slice(&[0; SHORT]);
                    self.truncate(start + size);
                } else {
                    self.reserve(size + more);
                    self.resize(start + size, 0);
                }
                Ok(self.get_mut(start..).unwrap_or_default())
            }
        })*
    };
}

growing! { Vec<u8> BytesMut }

impl Output for Fixed<'_> {
    fn len(&self) -> usize {
        self.length
    }

    fn room(&self) -> usize {
        self.memory.len() - self.length
    }

    fn append_slice(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.append_room(bytes.len(), 0)?.copy_from_slice(bytes);
        Ok(())
    }

    fn append_room(&mut self, size: usize, more: usize) -> Result<&mut [u8], EncodeError> {
        let needed = size.saturating_add(more);
        let room = self.memory.get_mut(self.length..).filter(|room| room.len() >= needed);
        let room = room.and_then(|room| room.get_mut(..size)).ok_or(EncodeError::NoRoom(needed))?;
        self.length += size;
        Ok(room)
    }
}

/// What a packet is written to, field by field.
pub(crate) trait Sink {
    fn bytes<const N: usize>(&mut self, bytes: [u8; N]);

    /// Binary Data, or a string that was checked. [5.0 §1.5.6]
    fn binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError>;

    /// What must not be wrong: [`Size`] asks, [`Writer`] takes for granted.
    fn check(&self, rule: impl FnOnce() -> Result<(), DecodeError>) -> Result<(), EncodeError>;

    /// A number of up to 28 bits. [5.0 §1.5.5]
    fn variable_byte_integer(&mut self, value: u32);

    /// Begins a property section, with its length; `None` where that is known to be zero. [5.0
    /// §2.2.2.1]
    fn begin_section(&mut self) -> Option<SectionStart>;

    fn end_section(&mut self, start: SectionStart) -> Result<(), EncodeError>;

    #[inline(always)]
    fn text(&mut self, text: Text<'_>) -> Result<(), EncodeError> {
        self.binary(text.as_bytes())?;
        self.check(|| text.check())
    }

    #[inline(always)]
    fn topic_name(&mut self, name: Text<'_>) -> Result<(), EncodeError> {
        self.binary(name.as_bytes())?;
        self.check(|| name.check_topic_name())
    }

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

/// For [`Size`]: the total at the begin of a property section.
pub(crate) struct SectionStart(usize);

/// Checks and adds up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    total: usize,
    /// The lengths of the property sections, each in half of the bits, the first in the lower half.
    /// A CONNECT with a will has two.
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
        if bytes.len() > usize::from(u16::MAX) {
            return Err(EncodeError::FieldTooLong);
        }
        self.add(2 + bytes.len());
        Ok(())
    }

    #[inline(always)]
    fn check(&self, rule: impl FnOnce() -> Result<(), DecodeError>) -> Result<(), EncodeError> {
        Ok(rule()?)
    }

    #[inline(always)]
    fn variable_byte_integer(&mut self, value: u32) {
        self.add(varint::length(value) as usize);
    }

    #[inline(always)]
    fn begin_section(&mut self) -> Option<SectionStart> {
        Some(SectionStart(self.total))
    }

    #[inline(always)]
    fn end_section(&mut self, start: SectionStart) -> Result<(), EncodeError> {
        debug_assert!(self.next < u64::BITS, "a packet has two property sections at most");
        let length = varint::check(self.total - start.0)?;
        self.sections |= u64::from(length) << (self.next & 32);
        self.next += 32;
        self.variable_byte_integer(length);
        Ok(())
    }
}

const TOO_SMALL: &str = "a packet is measured as it is written";

/// Writes what has been measured, and so checked, into room of that size.
pub(crate) struct Writer<'m> {
    room: &'m mut [u8],
    sections: u64,
}

impl<'m> Writer<'m> {
    #[inline(always)]
    pub(crate) const fn new(room: &'m mut [u8], size: &Size) -> Self {
        Self { room, sections: size.sections }
    }

    /// Whether all has been written that was measured.
    pub(crate) const fn is_full(&self) -> bool {
        self.room.is_empty()
    }

    /// Bytes without their length.
    #[inline(always)]
    pub(crate) fn copy(&mut self, bytes: &[u8]) {
        debug_assert!(self.room.len() >= bytes.len(), "{TOO_SMALL}");
        if let Some((next, rest)) =
            core::mem::take(&mut self.room).split_at_mut_checked(bytes.len())
        {
            copy_between(bytes, next);
            self.room = rest;
        }
    }
}

impl Sink for Writer<'_> {
    #[inline(always)]
    fn bytes<const N: usize>(&mut self, bytes: [u8; N]) {
        debug_assert!(self.room.len() >= N, "{TOO_SMALL}");
        if let Some((next, rest)) = core::mem::take(&mut self.room).split_first_chunk_mut() {
            *next = bytes;
            self.room = rest;
        }
    }

    #[inline(always)]
    fn binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let [.., high, low] = bytes.len().to_be_bytes();
        self.bytes([high, low]);
        self.copy(bytes);
        Ok(())
    }

    #[inline(always)]
    fn check(&self, _: impl FnOnce() -> Result<(), DecodeError>) -> Result<(), EncodeError> {
        Ok(())
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
    fn begin_section(&mut self) -> Option<SectionStart> {
        let length = u32::try_from(self.sections & u64::from(u32::MAX)).unwrap_or(0);
        self.sections >>= 32;
        self.variable_byte_integer(length);
        (length > 0).then_some(SectionStart(0))
    }

    #[inline(always)]
    fn end_section(&mut self, _: SectionStart) -> Result<(), EncodeError> {
        Ok(())
    }
}

/// Copies between slices of one length. Most strings are too short for a call of `memcpy` to be
/// worth it.
#[inline(always)]
fn copy_between(from: &[u8], to: &mut [u8]) {
    match from.len() {
        4..=7 => copy_ends::<4>(from, to),
        8..=15 => copy_ends::<8>(from, to),
        16..=32 => copy_ends::<16>(from, to),
        _ => to.copy_from_slice(from),
    }
}

/// Copies the first `N` bytes and the last: all, where there are no fewer than `N` and no more than
/// twice as many.
#[inline(always)]
fn copy_ends<const N: usize>(from: &[u8], to: &mut [u8]) {
    if let (Some(from), Some(to)) = (from.first_chunk::<N>(), to.first_chunk_mut()) {
        *to = *from;
    }
    if let (Some(from), Some(to)) = (from.last_chunk::<N>(), to.last_chunk_mut()) {
        *to = *from;
    }
}

/// The seven bits that one byte of a Variable Byte Integer holds.
const fn low_bits(value: u32) -> u8 {
    (value & 0x7F) as u8
}
