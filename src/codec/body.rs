//! How a packet of one type is measured, checked and written.

#![expect(
    clippy::inline_always,
    reason = "measured: without it a short PUBLISH takes 17 % more instructions to encode"
)]

use super::error::EncodeError;
use super::output::Output;
use super::rules::Rules;
use super::write::{Sink, Size, Writer};

/// A packet that can be encoded: of one type, by its [`Body`], or of any.
pub(crate) trait Encode {
    /// Checks and measures the packet, which finds all errors but that of an output without room.
    fn measure(&self, rules: Rules) -> Result<Size, EncodeError>;

    /// Writes the packet after it was measured by the same rules.
    fn write(&self, size: &Size, rules: Rules, out: &mut impl Output) -> Result<(), EncodeError>;

    /// Measures and writes the packet. On error the output is unchanged.
    fn encode(&self, rules: Rules, out: &mut impl Output) -> Result<(), EncodeError>;
}

/// A packet of one type.
pub(super) trait Body {
    /// Returns the packet type and the flags.
    fn first_byte(&self) -> u8;

    /// Checks the rules that are not about a single string or value, which
    /// [`write`](Self::write) checks.
    fn check(&self, rules: Rules) -> Result<(), EncodeError>;

    /// Writes all that follows the Remaining Length except the payload; into a [`Size`] first.
    fn write<S: Sink>(&self, sink: &mut S, rules: Rules) -> Result<(), EncodeError>;

    /// Returns the payload, which only a PUBLISH has.
    #[inline(always)]
    fn payload(&self) -> &[u8] {
        &[]
    }

    /// Returns the whole packet and its length, if it is valid and as short as packets of its type
    /// can be.
    #[inline(always)]
    fn short_form(&self, _: Rules) -> Option<([u8; 4], usize)> {
        None
    }
}

impl<T: Body> Encode for T {
    fn measure(&self, rules: Rules) -> Result<Size, EncodeError> {
        let mut size = Size::default();
        measure_into(self, rules, &mut size)?;
        Ok(size)
    }

    fn write(&self, size: &Size, rules: Rules, out: &mut impl Output) -> Result<(), EncodeError> {
        match self.short_form(rules) {
            Some(short) => append_short(short, out),
            None => write_measured(self, self.payload(), size, rules, out),
        }
    }

    #[inline(always)]
    fn encode(&self, rules: Rules, out: &mut impl Output) -> Result<(), EncodeError> {
        match self.short_form(rules) {
            Some(short) => append_short(short, out),
            None => encode_with(self, self.payload(), rules, out),
        }
    }
}

#[inline(always)]
fn append_short(
    (bytes, length): ([u8; 4], usize),
    out: &mut impl Output,
) -> Result<(), EncodeError> {
    out.append_slice(bytes.get(..length).unwrap_or_default())
}

/// Encodes a packet, and appends `payload` in place of its own, which is measured all the same.
#[inline(never)]
pub(super) fn encode_with(
    packet: &impl Body,
    payload: &[u8],
    rules: Rules,
    out: &mut impl Output,
) -> Result<(), EncodeError> {
    let mut size = Size::default();
    measure_into(packet, rules, &mut size)?;
    write_measured(packet, payload, &size, rules, out)
}

/// Measures through a reference: a `Size` inside a `Result` is copied piecewise, and the reader
/// waits for the pieces.
#[inline(always)]
fn measure_into(packet: &impl Body, rules: Rules, size: &mut Size) -> Result<(), EncodeError> {
    packet.write(size, rules)?;
    size.end(packet.payload())?;
    packet.check(rules)
}

#[inline(always)]
fn write_measured(
    packet: &impl Body,
    payload: &[u8],
    size: &Size,
    rules: Rules,
    out: &mut impl Output,
) -> Result<(), EncodeError> {
    let room = size.header_size() as usize + size.total();
    let mut writer = Writer::new(out.append_room(room, payload.len())?, size);
    writer.header(packet.first_byte(), size);
    packet.write(&mut writer, rules)?;
    debug_assert!(writer.is_full(), "a packet is written as it was measured");
    out.append_slice(payload)
}
