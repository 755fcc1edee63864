//! The cursor over the peer's bytes: every read is checked, and bytes left over are an error.

#![expect(
    clippy::inline_always,
    reason = "measured: decoded in place, a PUBLISH is not copied through memory"
)]

use super::error::DecodeError;
use super::types::PacketIdentifier;
use super::varint;

/// The unread part of a packet, or of a part of it.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// Ends a packet. Bytes left over are an error.
    #[inline(always)]
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }

    /// Skips the next byte if it is zero, and returns whether it was.
    #[inline(always)]
    pub(crate) fn skip_zero(&mut self) -> bool {
        let [0, rest @ ..] = self.0 else { return false };
        self.0 = rest;
        true
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (chunk, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*chunk)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.chunk().map(u8::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.chunk().map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.chunk().map(u32::from_be_bytes)
    }

    pub(crate) fn packet_identifier(&mut self) -> Result<PacketIdentifier, DecodeError> {
        PacketIdentifier::new(self.u16()?).ok_or(DecodeError::ZeroPacketIdentifier)
    }

    /// Reads Binary Data, or the bytes of a string: a length of two bytes, and that many bytes.
    /// [5.0 §1.5.6]
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// Reads a Variable Byte Integer, and refuses one that is not in its shortest form.
    /// [5.0 MQTT-1.5.5-1]
    #[inline]
    pub(crate) fn variable_byte_integer(&mut self) -> Result<u32, DecodeError> {
        if let [byte @ 0..=0x7F, rest @ ..] = self.0 {
            self.0 = rest;
            return Ok((*byte).into());
        }
        self.long_variable_byte_integer()
    }

    #[inline(never)]
    fn long_variable_byte_integer(&mut self) -> Result<u32, DecodeError> {
        let (value, rest) = varint::parse(self.0)?.ok_or(DecodeError::Truncated)?;
        if self.0.len() - rest.len() != varint::length(value) as usize {
            return Err(DecodeError::NonMinimalVariableByteInteger);
        }
        self.0 = rest;
        Ok(value)
    }

    /// Reads the section whose length a Variable Byte Integer before it states.
    #[inline]
    pub(crate) fn section(&mut self) -> Result<Self, DecodeError> {
        let length = self.variable_byte_integer()?;
        usize::try_from(length)
            .map_err(|_| DecodeError::Truncated)
            .and_then(|length| self.take(length))
            .map(Self)
    }
}
