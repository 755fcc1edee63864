//! Where an encoder writes to. Each packet's encoder runs twice over the same code: first over a [`Measure`], which checks
//! every rule and learns every length, then over a [`Write`], which only copies. So nothing is written before
//! all of it is known to be right, and no length is computed by a second function that could disagree.

use super::{DecodeError, EncodeError, Text};
use bytes::BufMut;

/// The four-byte Variable Byte Integer goes no further. [5.0 §1.5.5]
pub(crate) const VARIABLE_BYTE_INTEGER_MAX: usize = 268_435_455;

pub(crate) trait Sink: Sized {
    fn bytes(&mut self, bytes: &[u8]);

    /// Runs a check, in the pass that checks.
    fn check(&self, check: impl FnOnce() -> Result<(), EncodeError>) -> Result<(), EncodeError>;

    /// A part that is written with its length before it, such as a property section.
    fn section(&mut self, write: impl FnOnce(&mut Self) -> Result<(), EncodeError>) -> Result<(), EncodeError>;

    fn u8(&mut self, value: u8);
    fn u16(&mut self, value: u16);
    fn u32(&mut self, value: u32);

    #[inline]
    fn binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let length = u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong)?;
        self.u16(length);
        self.bytes(bytes);
        Ok(())
    }

    #[inline]
    fn text(&mut self, text: Text<'_>) -> Result<(), EncodeError> {
        self.check(|| Ok(text.check()?))?;
        self.binary(text.as_bytes())
    }

    #[inline]
    fn topic_name(&mut self, name: Text<'_>) -> Result<(), EncodeError> {
        self.check(|| Ok(name.check_topic_name()?))?;
        self.binary(name.as_bytes())
    }

    #[inline]
    fn variable_byte_integer(&mut self, value: u32) -> Result<(), EncodeError> {
        if value < 0x80 {
            self.u8(low_bits(value));
            return Ok(());
        }
        self.check(|| {
            let fits = usize::try_from(value).is_ok_and(|value| value <= VARIABLE_BYTE_INTEGER_MAX);
            if fits { Ok(()) } else { Err(DecodeError::InvalidRemainingLength.into()) }
        })?;
        let mut rest = value;
        while rest >= 0x80 {
            self.u8(low_bits(rest) | 0x80);
            rest >>= 7;
        }
        self.u8(low_bits(rest));
        Ok(())
    }
}

/// The seven bits that one byte of a Variable Byte Integer holds.
const fn low_bits(value: u32) -> u8 {
    (value & 0x7F) as u8
}

/// Counts and checks.
#[derive(Default)]
pub(crate) struct Measure {
    pub(crate) length: usize,
    /// The lengths of the sections in the order of their ends; a CONNECT has two.
    sections: [u32; 2],
    count: usize,
}

impl Measure {
    pub(crate) fn of(write: impl FnOnce(&mut Self) -> Result<(), EncodeError>) -> Result<Self, EncodeError> {
        let mut measure = Self::default();
        write(&mut measure)?;
        Ok(measure)
    }
}

impl Sink for Measure {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len());
    }

    #[inline]
    fn u8(&mut self, _: u8) {
        self.length = self.length.saturating_add(1);
    }

    #[inline]
    fn u16(&mut self, _: u16) {
        self.length = self.length.saturating_add(2);
    }

    #[inline]
    fn u32(&mut self, _: u32) {
        self.length = self.length.saturating_add(4);
    }

    #[inline]
    fn check(&self, check: impl FnOnce() -> Result<(), EncodeError>) -> Result<(), EncodeError> {
        check()
    }

    #[inline]
    fn section(&mut self, write: impl FnOnce(&mut Self) -> Result<(), EncodeError>) -> Result<(), EncodeError> {
        let start = self.length;
        write(self)?;
        let length = remaining_length(self.length - start)?;
        if let Some(slot) = self.sections.get_mut(self.count) {
            *slot = length;
        }
        self.count += 1;
        self.variable_byte_integer(length)
    }
}

/// A length that fits a Variable Byte Integer.
pub(crate) fn remaining_length(length: usize) -> Result<u32, EncodeError> {
    u32::try_from(length).ok().filter(|_| length <= VARIABLE_BYTE_INTEGER_MAX).ok_or(EncodeError::PacketTooLong)
}

/// Copies.
pub(crate) struct Write<'o, B> {
    out: &'o mut B,
    sections: [u32; 2],
    count: usize,
}

impl<'o, B: BufMut> Write<'o, B> {
    #[inline]
    pub(crate) fn new(measure: &Measure, out: &'o mut B) -> Self {
        Self { out, sections: measure.sections, count: 0 }
    }
}

impl<B: BufMut> Sink for Write<'_, B> {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
    }

    #[inline]
    fn u8(&mut self, value: u8) {
        self.out.put_slice(&[value]);
    }

    #[inline]
    fn u16(&mut self, value: u16) {
        self.out.put_slice(&value.to_be_bytes());
    }

    #[inline]
    fn u32(&mut self, value: u32) {
        self.out.put_slice(&value.to_be_bytes());
    }

    #[inline]
    fn check(&self, _: impl FnOnce() -> Result<(), EncodeError>) -> Result<(), EncodeError> {
        Ok(())
    }

    #[inline]
    fn section(&mut self, write: impl FnOnce(&mut Self) -> Result<(), EncodeError>) -> Result<(), EncodeError> {
        let length = self.sections.get(self.count).copied().unwrap_or_default();
        self.count += 1;
        self.variable_byte_integer(length)?;
        write(self)
    }
}
