//! Outputs: the memory that packets are appended to.

#![expect(
    clippy::inline_always,
    reason = "measured: without it a short PUBLISH takes 17 % more instructions to encode"
)]

use super::error::EncodeError;
use crate::sync::Arc;
use alloc::vec::Vec;
use bytes::BytesMut;
use core::fmt;

/// The output that packets are appended to: `Vec<u8>` and [`BytesMut`], which grow,
/// [`Vectored`](super::Vectored), which shares large payloads, or [`Fixed`], which does not grow.
///
/// The trait is sealed. It says how much has been written and how much can still be, and has the
/// ways in which bytes arrive: the fields of a packet are written in place, into memory that the
/// output provides in one piece, and a payload is appended after them, as a slice or by reference.
/// So an output need not be one piece of memory itself.
#[expect(clippy::len_without_is_empty, reason = "callers compare lengths before and after")]
pub trait Output: Sealed {
    /// Returns the number of bytes that the output holds.
    fn len(&self) -> usize;

    /// Returns the number of bytes that can still be appended; `usize::MAX` if the output grows.
    fn room(&self) -> usize;

    /// Appends bytes, or leaves the output as it is and returns [`EncodeError::NoRoom`].
    fn append_slice(&mut self, bytes: &[u8]) -> Result<(), EncodeError>;

    /// Appends bytes that are shared, from the position `from`. An output that can keep a reference
    /// does not copy them.
    #[inline(always)]
    fn append_shared(&mut self, bytes: &Arc<[u8]>, from: usize) -> Result<(), EncodeError> {
        self.append_slice(bytes.get(from..).unwrap_or_default())
    }

    /// Makes sure that `size` bytes can be appended, in any number of pieces, and then `more`,
    /// which can be shared. Otherwise returns [`EncodeError::NoRoom`].
    fn make_room(&mut self, size: usize, more: usize) -> Result<(), EncodeError>;

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
impl Sealed for super::Vectored {}

/// An [`Output`] of a fixed size, in the caller's memory.
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
    /// Creates an output in which nothing is written.
    #[must_use]
    pub const fn new(memory: &'m mut [u8]) -> Self {
        Self { memory, length: 0 }
    }

    /// Returns the packets.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.memory.get(..self.length).unwrap_or_default()
    }

    /// Removes all bytes written, so that the memory can be reused.
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
/// Room for most other packets.
const MEDIUM: usize = 256;

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
            fn make_room(&mut self, size: usize, more: usize) -> Result<(), EncodeError> {
                self.reserve(size + more);
                Ok(())
            }

            #[inline(always)]
            fn append_room(&mut self, size: usize, more: usize) -> Result<&mut [u8], EncodeError> {
                let start = self.len();
                let free = self.capacity() - start;
                // To fill memory of a size that the compiler knows costs next to nothing.
                if size <= SHORT && SHORT.max(size + more) <= free {
                    self.extend_from_slice(&[0; SHORT]);
                    self.truncate(start + size);
                } else if size <= MEDIUM && MEDIUM.max(size + more) <= free {
                    self.extend_from_slice(&[0; MEDIUM]);
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

    #[inline]
    fn append_slice(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.append_room(bytes.len(), 0)?.copy_from_slice(bytes);
        Ok(())
    }

    #[inline]
    fn make_room(&mut self, size: usize, more: usize) -> Result<(), EncodeError> {
        let needed = size.saturating_add(more);
        if needed <= self.room() { Ok(()) } else { Err(EncodeError::NoRoom(needed)) }
    }

    #[inline]
    fn append_room(&mut self, size: usize, more: usize) -> Result<&mut [u8], EncodeError> {
        let needed = size.saturating_add(more);
        let room = self.memory.get_mut(self.length..).filter(|room| room.len() >= needed);
        let room = room.and_then(|room| room.get_mut(..size)).ok_or(EncodeError::NoRoom(needed))?;
        self.length += size;
        Ok(room)
    }
}
