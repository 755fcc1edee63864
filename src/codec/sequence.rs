//! Repeated parts: user properties, subscription identifiers, topic filters, reason codes.

#![expect(
    clippy::inline_always,
    reason = "measured: without it a SUBSCRIBE takes 10 % more instructions to encode"
)]

use super::error::DecodeError;
use super::read::Reader;
use super::write::Sink;
use alloc::vec::Vec;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::iter::FusedIterator;

/// A borrowed list of repeated values in a packet, such as its user properties or topic filters.
///
/// In a decoded packet it refers to the bytes on the wire. They were checked when the packet was
/// decoded, and iteration reads them without allocation. For a packet to be encoded it is made from
/// a slice of values. Both kinds compare and iterate alike.
///
/// Because the wire states no count, [`len`](Self::len) reads the whole list, and the iterator is
/// not an [`ExactSizeIterator`].
///
/// ```
/// use mqtt_sansio::codec::{Sequence, UserProperty};
///
/// let properties = [UserProperty::new("unit", "°C"), UserProperty::new("unit", "K")];
/// let sequence = Sequence::from(&properties);
/// assert_eq!(sequence.iter().filter(|property| property.name == "unit").count(), 2);
/// assert_eq!(sequence.first(), Some(properties[0]));
/// ```
///
/// A list can be a temporary inside the packet literal, if the same statement uses the packet:
///
/// ```
/// use mqtt_sansio::codec::{self, Disconnect, DisconnectProperties, UserProperty, Version};
///
/// let mut out = Vec::new();
/// codec::encode(
///     &Disconnect {
///         properties: DisconnectProperties {
///             user_properties: (&[UserProperty::new("uptime", "3 d")]).into(),
///             ..DisconnectProperties::default()
///         },
///         ..Disconnect::default()
///     }
///     .into(),
///     Version::V5_0,
///     &mut out,
/// )?;
/// assert_eq!(out.len(), 18);
/// # Ok::<_, codec::EncodeError>(())
/// ```
pub struct Sequence<'a, T>(Source<'a, T>);

#[derive(Clone, Copy)]
enum Source<'a, T> {
    /// The bytes, and the bits of each options byte that count.
    Wire(&'a [u8], u8),
    Values(&'a [T]),
}

/// A value of a [`Sequence`].
pub(crate) trait Element<'a>: Copy + PartialEq {
    /// Reads the next value, if there is one, and skips other values before it. `bits` are the bits
    /// of an options byte that count.
    fn next(reader: &mut Reader<'a>, bits: u8) -> Result<Option<Self>, DecodeError>;
}

#[expect(private_bounds, reason = "only types of the codec are elements")]
impl<'a, T: Element<'a>> Sequence<'a, T> {
    /// Returns an iterator over the values in their order.
    #[must_use]
    pub const fn iter(&self) -> SequenceIter<'a, T> {
        SequenceIter(self.0)
    }

    /// Returns the first value.
    #[must_use]
    pub fn first(&self) -> Option<T> {
        self.iter().next()
    }

    /// Counts the values. Costs one pass over a list that is on the wire.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.0 {
            Source::Wire(..) => self.iter().count(),
            Source::Values(values) => values.len(),
        }
    }

    /// Whether there are no values. Costs nothing, unlike [`len`](Self::len).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self.0 {
            Source::Wire(bytes, _) => bytes.is_empty(),
            Source::Values(values) => values.is_empty(),
        }
    }

    /// Makes a sequence of bytes that were checked.
    pub(crate) const fn wire(bytes: &'a [u8]) -> Self {
        Self::masked_wire(bytes, 0xFF)
    }

    /// Makes a sequence of bytes that were checked, of whose options only these bits count.
    pub(crate) const fn masked_wire(bytes: &'a [u8], bits: u8) -> Self {
        Self(Source::Wire(bytes, bits))
    }

    /// Writes each value. Chooses the source once, not for each value.
    #[inline(always)]
    pub(crate) fn write<S: Sink>(&self, sink: &mut S, mut write: impl FnMut(T, &mut S)) {
        // Loops, because a call of `Iterator::for_each` would keep the sink in memory.
        match self.0 {
            Source::Values(values) => {
                for value in values {
                    write(*value, sink);
                }
            }
            Source::Wire(..) => {
                for value in self {
                    write(value, sink);
                }
            }
        }
    }
}

impl<T> Default for Sequence<'_, T> {
    fn default() -> Self {
        Self(Source::Values(&[]))
    }
}

impl<'a, T> From<&'a [T]> for Sequence<'a, T> {
    fn from(values: &'a [T]) -> Self {
        Self(Source::Values(values))
    }
}

impl<'a, T, const N: usize> From<&'a [T; N]> for Sequence<'a, T> {
    fn from(values: &'a [T; N]) -> Self {
        Self(Source::Values(values))
    }
}

impl<'a, T> From<&'a Vec<T>> for Sequence<'a, T> {
    fn from(values: &'a Vec<T>) -> Self {
        values.as_slice().into()
    }
}

impl<T: Copy> Clone for Sequence<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Copy> Copy for Sequence<'_, T> {}

impl<'a, T: Element<'a>> PartialEq for Sequence<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(*other)
    }
}

impl<'a, T: Element<'a> + Eq> Eq for Sequence<'a, T> {}

impl<'a, T: Element<'a> + Hash> Hash for Sequence<'a, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for value in self {
            // As `PartialEq`, it must not depend on the source.
            (1_u8, value).hash(state);
        }
        0_u8.hash(state);
    }
}

impl<'a, T: Element<'a> + fmt::Debug> fmt::Debug for Sequence<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

impl<'a, T: Element<'a>> IntoIterator for Sequence<'a, T> {
    type Item = T;
    type IntoIter = SequenceIter<'a, T>;

    fn into_iter(self) -> SequenceIter<'a, T> {
        self.iter()
    }
}

impl<'a, T: Element<'a>> IntoIterator for &Sequence<'a, T> {
    type Item = T;
    type IntoIter = SequenceIter<'a, T>;

    fn into_iter(self) -> SequenceIter<'a, T> {
        self.iter()
    }
}

/// An iterator over the values of a [`Sequence`].
#[derive(Clone)]
pub struct SequenceIter<'a, T>(Source<'a, T>);

impl<T> fmt::Debug for SequenceIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SequenceIter").finish_non_exhaustive()
    }
}

impl<'a, T: Element<'a>> Iterator for SequenceIter<'a, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Source::Wire(bytes, bits) => {
                let mut reader = Reader(bytes);
                // The bytes were checked before the sequence was made, so no error can occur.
                let value = T::next(&mut reader, *bits).ok().flatten();
                *bytes = reader.0;
                value
            }
            Source::Values(values) => {
                let (first, rest) = values.split_first()?;
                *values = rest;
                Some(*first)
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.0 {
            Source::Wire(bytes, _) => (0, Some(bytes.len())),
            Source::Values(values) => (values.len(), Some(values.len())),
        }
    }
}

impl<'a, T: Element<'a>> FusedIterator for SequenceIter<'a, T> {}
