//! Parts that repeat: user properties, subscription identifiers, topic filters, reason codes.

use super::error::{DecodeError, EncodeError};
use super::read::Reader;
use super::write::Sink;
use core::fmt;
use core::marker::PhantomData;

/// Values that repeat in a packet, such as its user properties or its topic filters.
///
/// Of a decoded packet it is the bytes on the wire, which were checked once and are read as they
/// are iterated, without allocation. For a packet to be encoded it is made from a slice of values.
/// Both compare and iterate alike.
///
/// ```
/// use mqtt_sansio::codec::{Sequence, UserProperty};
///
/// let properties = [UserProperty::new("unit", "°C"), UserProperty::new("unit", "K")];
/// let sequence = Sequence::from(&properties);
/// assert_eq!(sequence.iter().filter(|property| property.name == "unit").count(), 2);
/// ```
pub struct Sequence<'a, T>(Source<'a, T>);

#[derive(Clone, Copy)]
enum Source<'a, T> {
    Wire(&'a [u8], PhantomData<T>),
    Values(&'a [T]),
}

/// One value of a [`Sequence`].
pub(crate) trait Element<'a>: Copy + PartialEq {
    /// Reads the next value, if there is one; the reader may hold other things to be passed over.
    fn next(reader: &mut Reader<'a>) -> Result<Option<Self>, DecodeError>;

    /// Writes the value.
    fn encode<S: Sink>(self, sink: &mut S) -> Result<(), EncodeError>;
}

#[expect(private_bounds, reason = "the elements are the codec's own")]
impl<'a, T: Element<'a>> Sequence<'a, T> {
    /// The values in their order.
    #[must_use]
    pub const fn iter(&self) -> Iter<'a, T> {
        Iter(self.0)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self.0 {
            Source::Wire(bytes, _) => bytes.is_empty(),
            Source::Values(values) => values.is_empty(),
        }
    }

    /// For bytes that have been checked.
    pub(crate) const fn wire(bytes: &'a [u8]) -> Self {
        Self(Source::Wire(bytes, PhantomData))
    }

    /// Writes each value.
    #[inline]
    pub(crate) fn encode<S: Sink>(&self, sink: &mut S) -> Result<(), EncodeError> {
        for value in self.iter() {
            value.encode(sink)?;
        }
        Ok(())
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

impl<'a, T: Element<'a> + fmt::Debug> fmt::Debug for Sequence<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

impl<'a, T: Element<'a>> IntoIterator for Sequence<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T: Element<'a>> IntoIterator for &Sequence<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// Iterates over a [`Sequence`].
#[derive(Clone)]
pub struct Iter<'a, T>(Source<'a, T>);

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}

impl<'a, T: Element<'a>> Iterator for Iter<'a, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Source::Wire(bytes, _) => {
                let mut reader = Reader(bytes);
                // The bytes were checked before the sequence was made, so there is no error to pass
                // on.
                let value = T::next(&mut reader).ok().flatten();
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
}
