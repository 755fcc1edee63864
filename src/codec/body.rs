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

/// A packet of one type: a reference, which is passed in registers.
pub(super) trait Body: Copy {
    /// Returns the packet type and the flags.
    fn first_byte(self) -> u8;

    /// Checks the rules that are not about a single string or value, which
    /// [`write`](Self::write) checks.
    fn check(self, rules: Rules) -> Result<(), EncodeError>;

    /// Writes all that follows the Remaining Length except the payload; into a [`Size`] first.
    fn write<S: Sink>(self, sink: &mut S, rules: Rules);

    /// Returns the payload, which only a PUBLISH has.
    #[inline(always)]
    fn payload(&self) -> &[u8] {
        &[]
    }

    /// Returns the whole packet, if it is valid and as short as packets of its type can be.
    #[inline(always)]
    fn short_form(self, _: Rules) -> Option<Short> {
        None
    }
}

/// A whole packet.
pub(super) enum Short {
    Two([u8; 2]),
    Four([u8; 4]),
}

impl Short {
    #[inline(always)]
    fn append_to(self, out: &mut impl Output) -> Result<(), EncodeError> {
        match self {
            Self::Two(bytes) => append_short(bytes, out),
            Self::Four(bytes) => append_short(bytes, out),
        }
    }
}

impl<T: Body> Encode for T {
    fn measure(&self, rules: Rules) -> Result<Size, EncodeError> {
        let mut size = Size::default();
        measure_into(*self, rules, &mut size)?;
        Ok(size)
    }

    fn write(&self, size: &Size, rules: Rules, out: &mut impl Output) -> Result<(), EncodeError> {
        match self.short_form(rules) {
            Some(short) => short.append_to(out),
            None => write_alone(*self, size, rules, out),
        }
    }

    #[inline(always)]
    fn encode(&self, rules: Rules, out: &mut impl Output) -> Result<(), EncodeError> {
        match self.short_form(rules) {
            Some(short) => short.append_to(out),
            None => measure_and_write(*self, rules, out),
        }
    }
}

// The next three functions are not inlined, so that the function that chooses the packet type saves
// no registers.

#[inline(never)]
fn append_short<const N: usize>(packet: [u8; N], out: &mut impl Output) -> Result<(), EncodeError> {
    out.append_slice(&packet)
}

#[inline(never)]
fn measure_and_write(
    packet: impl Body,
    rules: Rules,
    out: &mut impl Output,
) -> Result<(), EncodeError> {
    let mut size = Size::default();
    measure_into(packet, rules, &mut size)?;
    write_measured(packet, packet.payload(), &size, rules, out)
}

#[inline(never)]
fn write_alone(
    packet: impl Body,
    size: &Size,
    rules: Rules,
    out: &mut impl Output,
) -> Result<(), EncodeError> {
    write_measured(packet, packet.payload(), size, rules, out)
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
    size.end(packet.payload())?;
    packet.check(rules)
}

/// Writes a packet with `payload` in place of its own, which was measured all the same.
#[inline(always)]
pub(super) fn write_measured(
    packet: impl Body,
    payload: &[u8],
    size: &Size,
    rules: Rules,
    out: &mut impl Output,
) -> Result<(), EncodeError> {
    let room = out.append_room(size.header_size() + size.total(), payload.len())?;
    let mut writer = Writer::new(room, size);
    writer.u8(packet.first_byte());
    writer.variable_byte_integer(size.remaining_length());
    packet.write(&mut writer, rules);
    debug_assert!(writer.is_full(), "a packet is written as it was measured");
    out.append_slice(payload)
}
