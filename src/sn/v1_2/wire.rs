//! The cursor over the bytes of a message, the sinks that a message is written to, and the fields
//! that both know.

use super::error::DecodeError;
use super::types::{ReturnCode, TopicId};
use crate::codec::{PacketIdentifier, Text};

/// The unread part of a message. Every read is checked, and bytes left over are an error.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn chunk<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (chunk, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*chunk)
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }

    pub(super) fn end(self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }
}

/// The place that a message is written to. A message is written twice: the first time only its
/// size is added up.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

/// Adds up the size.
#[derive(Default)]
pub(super) struct Size(pub(super) usize);

impl Sink for Size {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Fills in room of exactly the size that was added up.
pub(super) struct Writer<'m>(pub(super) &'m mut [u8]);

impl Sink for Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        debug_assert!(self.0.len() >= bytes.len(), "a message is measured as it is written");
        if let Some((next, rest)) = core::mem::take(&mut self.0).split_at_mut_checked(bytes.len()) {
            next.copy_from_slice(bytes);
            self.0 = rest;
        }
    }
}

/// A field of a message, or its whole variable part.
pub(super) trait Field<'a>: Sized {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError>;

    fn write(&self, sink: &mut impl Sink);

    /// Refuses a value that `read` never returns, or that the message must not have.
    fn check(&self) -> Result<(), DecodeError> {
        Ok(())
    }
}

impl<'a> Field<'a> for u8 {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        r.chunk().map(Self::from_be_bytes)
    }

    fn write(&self, sink: &mut impl Sink) {
        sink.put(&[*self]);
    }
}

impl<'a> Field<'a> for u16 {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        r.chunk().map(Self::from_be_bytes)
    }

    fn write(&self, sink: &mut impl Sink) {
        sink.put(&self.to_be_bytes());
    }
}

/// A message id with QoS 1 or 2, which is not 0.
impl<'a> Field<'a> for PacketIdentifier {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Self::new(u16::read(r)?).ok_or(DecodeError::MissingMessageId)
    }

    fn write(&self, sink: &mut impl Sink) {
        self.get().write(sink);
    }
}

/// A topic id that can be absent, which is coded 0x0000. [SN §5.4.10]
impl<'a> Field<'a> for Option<TopicId> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match u16::read(r)? {
            0 => Ok(None),
            id => TopicId::new(id).map(Some).ok_or(DecodeError::ReservedTopicId),
        }
    }

    fn write(&self, sink: &mut impl Sink) {
        self.map_or(0, TopicId::get).write(sink);
    }
}

impl<'a> Field<'a> for ReturnCode {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let code = u8::read(r)?;
        Self::from_u8(code).ok_or(DecodeError::ReturnCode(code))
    }

    fn write(&self, sink: &mut impl Sink) {
        self.as_u8().write(sink);
    }
}

/// Bytes up to the end of the message.
impl<'a> Field<'a> for &'a [u8] {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(r.rest())
    }

    fn write(&self, sink: &mut impl Sink) {
        sink.put(self);
    }
}

/// A string up to the end of the message.
impl<'a> Field<'a> for Text<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        core::str::from_utf8(r.rest()).map(Into::into).map_err(|_| DecodeError::InvalidUtf8)
    }

    fn write(&self, sink: &mut impl Sink) {
        sink.put(self.as_bytes());
    }
}

/// The last field of a message, if it can be omitted: the header alone is then the message.
macro_rules! optional {
    ($($field:ty),*) => {
        $(impl<'a> Field<'a> for Option<$field> {
            fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
                if r.is_empty() { Ok(None) } else { Field::read(r).map(Some) }
            }

            fn write(&self, sink: &mut impl Sink) {
                if let Some(field) = self {
                    field.write(sink);
                }
            }

            fn check(&self) -> Result<(), DecodeError> {
                self.as_ref().map_or(Ok(()), Field::check)
            }
        })*
    };
}

pub(super) use optional;

optional! { u16, Text<'a> }
