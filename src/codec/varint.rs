//! Variable Byte Integers: numbers of up to 28 bits, in one to four bytes. [5.0 §1.5.5]
//! [3.1.1 §2.2.3]

use super::error::{DecodeError, EncodeError};

/// Reads the Variable Byte Integer at the start of `bytes`, in its shortest form or a longer one,
/// and returns it with the bytes after it, or `None` if the bytes end inside it.
#[inline]
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(u32, &[u8])>, DecodeError> {
    let mut value = 0;
    let mut rest = bytes;
    for shift in [0, 7, 14, 21] {
        let Some((&byte, after)) = rest.split_first() else { return Ok(None) };
        rest = after;
        value |= u32::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(Some((value, rest)));
        }
    }
    Err(DecodeError::InvalidRemainingLength)
}

/// Returns the number of bytes of a Variable Byte Integer.
pub(crate) const fn length(value: u32) -> u32 {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Passes the bytes of a Variable Byte Integer to `push`.
#[cfg(feature = "arbitrary")]
pub(crate) fn bytes(mut value: u32, mut push: impl FnMut(u8)) {
    loop {
        let [low, ..] = (value & 0x7F).to_le_bytes();
        value >>= 7;
        if value == 0 {
            return push(low);
        }
        push(low | 0x80);
    }
}

/// Checks that a Variable Byte Integer can state a length. [5.0 §1.5.5]
#[inline]
pub(crate) fn check(length: u64) -> Result<u32, EncodeError> {
    u32::try_from(length)
        .ok()
        .filter(|&length| length <= 268_435_455)
        .ok_or(EncodeError::PacketTooLong)
}
