//! Sinks, into which packets are written: [`Size`], which checks and adds up, and then [`Writer`],
//! which fills in room of exactly that size.

#![expect(
    clippy::inline_always,
    reason = "measured: without it a short PUBLISH takes 17 % more instructions to encode"
)]

use super::error::EncodeError;
use super::text::Text;
use super::varint;

/// A sink, into which a packet is written field by field.
pub(crate) trait Sink {
    fn bytes<const N: usize>(&mut self, bytes: [u8; N]);

    /// Writes a field with its length, which was checked.
    fn field(&mut self, bytes: &[u8]);

    /// Writes one field of a list, in whose loop a call would cost more than the code.
    #[inline(always)]
    fn list_field(&mut self, bytes: &[u8]) {
        self.field(bytes);
    }

    /// Writes a property whose value is such a field, or begins with one.
    fn field_property(&mut self, identifier: u8, bytes: &[u8]);

    /// Checks a rule, in [`Size`] only.
    fn check<E: Into<EncodeError>>(&mut self, rule: impl FnOnce() -> Result<(), E>);

    /// Checks a string, in [`Size`] only.
    fn check_text(&mut self, text: Text<'_>);

    /// Checks a Topic Name, in [`Size`] only.
    fn check_topic_name(&mut self, name: Text<'_>);

    /// Writes a number of up to 28 bits. [5.0 §1.5.5]
    fn variable_byte_integer(&mut self, value: u32);

    /// Begins a property section, with its length. Returns `None` if it is known to be empty.
    /// [5.0 §2.2.2.1]
    fn begin_section(&mut self) -> Option<u64>;

    fn end_section(&mut self, start: u64);

    #[inline(always)]
    fn text(&mut self, text: Text<'_>) {
        self.check_text(text);
        self.field(text.as_bytes());
    }

    #[inline(always)]
    fn topic_name(&mut self, name: Text<'_>) {
        self.check_topic_name(name);
        self.field(name.as_bytes());
    }

    /// Writes Binary Data. [5.0 §1.5.6]
    #[inline(always)]
    fn binary(&mut self, bytes: &[u8]) {
        self.check_length(bytes);
        self.field(bytes);
    }

    #[inline(always)]
    fn check_length(&mut self, bytes: &[u8]) {
        self.check(|| {
            let is_right = bytes.len() <= usize::from(u16::MAX);
            if is_right { Ok(()) } else { Err(EncodeError::FieldTooLong) }
        });
    }

    #[inline(always)]
    fn u8(&mut self, value: u8) {
        self.bytes([value]);
    }

    #[inline(always)]
    fn u16(&mut self, value: u16) {
        self.bytes(value.to_be_bytes());
    }
}

/// The size of a packet, added up by the code that writes it, which also checks it. [5.0 §2.1.4]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    /// The bytes written so far: of a packet, all after the Remaining Length except the payload. A
    /// sequence of references can be longer than memory, but no number of them has 64 bits.
    total: u64,
    /// The lengths of the property sections, each in half of the bits, the first in the lower half.
    /// A CONNECT with a will has two.
    sections: u64,
    /// The bit at which the length of the next section begins.
    next: u32,
    /// Zero until [`end`](Self::end).
    remaining_length: u32,
    /// The first error, which [`end`](Self::end) returns. So the functions that write a packet have
    /// no errors, and the same functions write into a [`Writer`] without branches for them.
    error: Option<EncodeError>,
}

impl Size {
    pub(crate) fn total(&self) -> usize {
        // Less than 2^28, because it is part of a Remaining Length.
        usize::try_from(self.total).unwrap_or(usize::MAX)
    }

    /// Returns the size of the whole packet.
    pub(crate) const fn packet_size(&self) -> u32 {
        1 + varint::length(self.remaining_length) + self.remaining_length
    }

    pub(super) const fn header_size(&self) -> usize {
        1 + varint::length(self.remaining_length) as usize
    }

    pub(super) const fn remaining_length(&self) -> u32 {
        self.remaining_length
    }

    /// Adds the payload, which completes the size of a packet. Returns the first error.
    #[inline(always)]
    pub(super) fn end(&mut self, payload: usize) -> Result<(), EncodeError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.remaining_length = varint::check(self.total.saturating_add(payload as u64))?;
        Ok(())
    }
}

// These functions take the error by value: a reference would keep the whole `Size` in memory.

#[cold]
fn first_error(before: Option<EncodeError>, error: EncodeError) -> Option<EncodeError> {
    before.or(Some(error))
}

#[cold]
#[inline(never)]
fn text_error(before: Option<EncodeError>, text: Text<'_>) -> Option<EncodeError> {
    before.or_else(|| text.check().err())
}

#[cold]
#[inline(never)]
fn topic_name_error(before: Option<EncodeError>, name: Text<'_>) -> Option<EncodeError> {
    before.or_else(|| name.check_topic_name().err())
}

impl Sink for Size {
    #[inline(always)]
    fn bytes<const N: usize>(&mut self, _: [u8; N]) {
        self.total += N as u64;
    }

    #[inline(always)]
    fn field(&mut self, bytes: &[u8]) {
        self.total += 2 + bytes.len() as u64;
    }

    #[inline(always)]
    fn field_property(&mut self, _: u8, bytes: &[u8]) {
        self.total += 3 + bytes.len() as u64;
    }

    #[inline(always)]
    fn check<E: Into<EncodeError>>(&mut self, rule: impl FnOnce() -> Result<(), E>) {
        if let Err(error) = rule() {
            self.error = first_error(self.error, error.into());
        }
    }

    #[inline(always)]
    fn check_text(&mut self, text: Text<'_>) {
        if !text.is_plain_string() {
            self.error = text_error(self.error, text);
        }
    }

    #[inline(always)]
    fn check_topic_name(&mut self, name: Text<'_>) {
        if !name.is_plain_topic_name() {
            self.error = topic_name_error(self.error, name);
        }
    }

    #[inline(always)]
    fn variable_byte_integer(&mut self, value: u32) {
        self.total += u64::from(varint::length(value));
    }

    #[inline(always)]
    fn begin_section(&mut self) -> Option<u64> {
        Some(self.total)
    }

    #[inline(always)]
    fn end_section(&mut self, start: u64) {
        // One that is too long makes the packet too long.
        let length = u32::try_from(self.total - start).unwrap_or(u32::MAX);
        // The first section is in the lower half.
        self.sections |= u64::from(length) << self.next;
        self.next = 32;
        self.total += u64::from(varint::length(length));
    }
}

const TOO_SMALL: &str = "a packet is measured as it is written";

/// A sink that writes a measured, and so checked, packet into room of its size.
pub(crate) struct Writer<'m> {
    room: &'m mut [u8],
    sections: u64,
}

impl<'m> Writer<'m> {
    #[inline(always)]
    pub(crate) const fn new(room: &'m mut [u8], size: &Size) -> Self {
        Self { room, sections: size.sections }
    }

    /// Whether everything that was measured has been written.
    pub(crate) const fn is_full(&self) -> bool {
        self.room.is_empty()
    }

    /// Writes bytes without their length.
    #[inline(always)]
    pub(crate) fn copy(&mut self, bytes: &[u8]) {
        self.put([], bytes);
    }

    #[inline(always)]
    fn put<const N: usize>(&mut self, head: [u8; N], bytes: &[u8]) {
        self.room = put(core::mem::take(&mut self.room), head, bytes);
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
    fn field(&mut self, bytes: &[u8]) {
        self.room = put_field(core::mem::take(&mut self.room), bytes);
    }

    #[inline(always)]
    fn list_field(&mut self, bytes: &[u8]) {
        self.put(length(bytes), bytes);
    }

    #[inline(always)]
    fn field_property(&mut self, identifier: u8, bytes: &[u8]) {
        self.room = put_property(core::mem::take(&mut self.room), identifier, bytes);
    }

    #[inline(always)]
    fn check<E: Into<EncodeError>>(&mut self, _: impl FnOnce() -> Result<(), E>) {}

    #[inline(always)]
    fn check_text(&mut self, _: Text<'_>) {}

    #[inline(always)]
    fn check_topic_name(&mut self, _: Text<'_>) {}

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
    fn begin_section(&mut self) -> Option<u64> {
        let length = u32::try_from(self.sections & u64::from(u32::MAX)).unwrap_or(0);
        self.sections >>= 32;
        self.variable_byte_integer(length);
        (length > 0).then_some(0)
    }

    #[inline(always)]
    fn end_section(&mut self, _: u64) {}
}

// The next two functions are not inlined. Most packets have several fields: the copies would be
// most of the encoder's code, and would leave it too few registers.

#[inline(never)]
fn put_field<'m>(room: &'m mut [u8], bytes: &[u8]) -> &'m mut [u8] {
    put(room, length(bytes), bytes)
}

#[inline(never)]
fn put_property<'m>(room: &'m mut [u8], identifier: u8, bytes: &[u8]) -> &'m mut [u8] {
    let [high, low] = length(bytes);
    put(room, [identifier, high, low], bytes)
}

/// Returns the length of a field, which was checked.
#[inline(always)]
const fn length(bytes: &[u8]) -> [u8; 2] {
    let [.., high, low] = bytes.len().to_be_bytes();
    [high, low]
}

/// Writes into the room, and returns what is left of it.
#[inline(always)]
fn put<'m, const N: usize>(room: &'m mut [u8], head: [u8; N], bytes: &[u8]) -> &'m mut [u8] {
    debug_assert!(room.len() >= N + bytes.len(), "{TOO_SMALL}");
    let Some((next, rest)) = room.split_at_mut_checked(N + bytes.len()) else {
        return &mut [];
    };
    if let Some((first, after)) = next.split_first_chunk_mut() {
        *first = head;
        copy_between(bytes, after);
    }
    rest
}

/// Copies between slices of the same length. Most strings are too short for a call of `memcpy` to
/// pay.
#[inline(always)]
fn copy_between(from: &[u8], to: &mut [u8]) {
    match from.len() {
        33.. => to.copy_from_slice(from),
        16.. => copy_ends::<16>(from, to),
        8.. => copy_ends::<8>(from, to),
        4.. => copy_ends::<4>(from, to),
        2.. => copy_ends::<2>(from, to),
        _ => copy_ends::<1>(from, to),
    }
}

/// Copies the first `N` bytes and the last `N`: all bytes, if there are `N` to `2 * N`.
#[inline(always)]
fn copy_ends<const N: usize>(from: &[u8], to: &mut [u8]) {
    if let (Some(from), Some(to)) = (from.first_chunk::<N>(), to.first_chunk_mut()) {
        *to = *from;
    }
    if let (Some(from), Some(to)) = (from.last_chunk::<N>(), to.last_chunk_mut()) {
        *to = *from;
    }
}

/// Returns the lowest seven bits, which one byte of a Variable Byte Integer holds.
const fn low_bits(value: u32) -> u8 {
    (value & 0x7F) as u8
}
