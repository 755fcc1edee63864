//! How a packet is measured, checked and written.

#![expect(
    clippy::inline_always,
    reason = "measured: without it a short PUBLISH takes 17 % more instructions to encode"
)]

use super::error::EncodeError;
use super::output::Output;
use super::rules::Rules;
use super::write::{Sink, Size, Writer};

/// A packet that can be encoded, of one type or of any: a reference, which is passed in registers.
pub(crate) trait Body: Copy {
    /// Returns the packet type and the flags.
    fn first_byte(self) -> u8;

    /// Checks the rules that are not about a single string or value, which
    /// [`write`](Self::write) checks.
    fn check(self, rules: Rules) -> Result<(), EncodeError>;

    /// Writes all that follows the Remaining Length except the payload; into a [`Size`] first.
    fn write<S: Sink>(self, sink: &mut S, rules: Rules);

    /// Returns the length of the payload, which only a PUBLISH has.
    #[inline(always)]
    fn payload_length(self) -> usize {
        0
    }

    /// Appends the payload.
    #[inline(always)]
    fn append_payload(self, _: &mut impl Output) -> Result<(), EncodeError> {
        Ok(())
    }

    /// Returns the whole packet, if it is valid and as short as packets of its type can be.
    #[inline(always)]
    fn short_form(self, _: Rules) -> Option<Short> {
        None
    }

    /// Checks and measures the packet, which finds all errors but that of an output without room.
    fn measure(self, rules: Rules) -> Result<Size, EncodeError> {
        let mut size = Size::default();
        measure_into(self, rules, &mut size)?;
        Ok(size)
    }

    /// Writes the packet after it was measured by the same rules.
    fn write_measured(
        self,
        size: &Size,
        rules: Rules,
        out: &mut impl Output,
    ) -> Result<(), EncodeError> {
        write_head(self, self.payload_length(), size, rules, out)?;
        self.append_payload(out)
    }

    /// Measures and writes the packet. On error the output is unchanged.
    #[inline(always)]
    fn encode(self, rules: Rules, out: &mut impl Output) -> Result<(), EncodeError> {
        match self.short_form(rules) {
            Some(Short::Two(bytes)) => append_short(bytes, out),
            Some(Short::Four(bytes)) => append_short(bytes, out),
            None => measure_and_write(self, rules, out),
        }
    }
}

/// A whole packet.
pub(crate) enum Short {
    Two([u8; 2]),
    Four([u8; 4]),
}

// The next two functions are not inlined, so that the function that chooses the packet type saves
// no registers.

#[inline(never)]
fn append_short<const N: usize>(packet: [u8; N], out: &mut impl Output) -> Result<(), EncodeError> {
    out.append_slice(&packet)
}

#[inline(never)]
pub(super) fn measure_and_write(
    packet: impl Body,
    rules: Rules,
    out: &mut impl Output,
) -> Result<(), EncodeError> {
    let mut size = Size::default();
    measure_into(packet, rules, &mut size)?;
    write_head(packet, packet.payload_length(), &size, rules, out)?;
    packet.append_payload(out)
}

/// Measures through a reference: a `Size` inside a `Result` is copied piecewise, and the reader
/// waits for the pieces.
#[inline(always)]
pub(super) fn measure_into(
    packet: impl Body,
    rules: Rules,
    size: &mut Size,
) -> Result<(), EncodeError> {
    packet.write(size, rules);
    size.end(packet.payload_length())?;
    packet.check(rules)
}

/// Writes a packet without its payload, if there is room for `more` bytes after it.
#[inline(always)]
pub(super) fn write_head(
    packet: impl Body,
    more: usize,
    size: &Size,
    rules: Rules,
    out: &mut impl Output,
) -> Result<(), EncodeError> {
    let room = out.append_room(size.header_size() + size.total(), more)?;
    let mut writer = Writer::new(room, size);
    writer.u8(packet.first_byte());
    writer.variable_byte_integer(size.remaining_length());
    packet.write(&mut writer, rules);
    debug_assert!(writer.is_full(), "a packet is written as it was measured");
    Ok(())
}
