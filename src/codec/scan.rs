//! The one pass over the bytes of a string that checks it, eight bytes at a time.

#![expect(
    clippy::inline_always,
    reason = "measured: without it a short PUBLISH takes 17 % more instructions to encode"
)]

/// Whether all bytes are ASCII except U+0000 and, with `WILDCARDS`, except wildcards. Nearly all
/// strings are, and one pass over words of eight bytes shows it. Other strings need a second pass.
#[inline(never)]
pub(super) fn is_plain<const WILDCARDS: bool>(bytes: &[u8]) -> bool {
    let look = |word| {
        let found = beyond_ascii_or_null(word);
        if WILDCARDS { found | zero_if_wildcard(word).wrapping_sub(ONES) } else { found }
    };
    let mut found = 0;
    if let Some(last) = bytes.last_chunk::<16>() {
        // Treats two words alike, so that the compiler makes one vector of them.
        let look_at_both = |chunk: &[u8; 16]| {
            let (first, second) = chunk.split_at(8);
            [first, second]
                .map(|half| half.first_chunk().map_or(0, |word| look(u64::from_le_bytes(*word))))
        };
        let mut both = look_at_both(last);
        let mut rest = bytes;
        while let Some((chunk, after)) = rest.split_first_chunk() {
            let [first, second] = look_at_both(chunk);
            both = [both[0] | first, both[1] | second];
            rest = after;
        }
        found = both[0] | both[1];
    } else {
        for_each_word(bytes, |_, word| found |= look(word));
    }
    found & HIGHS == 0
}

/// Calls `look` with each word of eight bytes and its position. The last word overlaps the one
/// before it, which finds the same again. A string of fewer than eight bytes is padded with U+0001.
#[inline(always)]
pub(crate) fn for_each_word(bytes: &[u8], mut look: impl FnMut(usize, u64)) {
    if let Some(last) = bytes.last_chunk::<8>() {
        let mut position = 0;
        let mut rest = bytes;
        while let Some((word, after)) = rest.split_first_chunk::<8>() {
            look(position, u64::from_le_bytes(*word));
            position += 8;
            rest = after;
        }
        if !rest.is_empty() {
            look(bytes.len() - 8, u64::from_le_bytes(*last));
        }
        return;
    }
    let bits = 8 * bytes.len();
    let word = if let (Some(first), Some(last)) =
        (bytes.first_chunk::<4>(), bytes.last_chunk::<4>())
    {
        u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << (bits - 32)
    } else if let [first, .., last] | [first @ last] = bytes {
        u64::from(*first)
            | u64::from(*bytes.get(1).unwrap_or(first)) << ((bits / 2) & 8)
            | u64::from(*last) << (bits - 8)
    } else {
        return;
    };
    look(0, word | ONES << bits);
}

/// Returns a word in which the highest bit of some byte is set if a byte is not ASCII, or is
/// U+0000.
#[inline(always)]
pub(crate) const fn beyond_ascii_or_null(word: u64) -> u64 {
    // If all bytes are ASCII, subtracting one from each sets the highest bit of the first zero
    // byte, and of no byte before it.
    word | word.wrapping_sub(ONES)
}

/// Returns a word in which the highest bit is set of each byte that is `#` or `+`.
#[inline(always)]
pub(crate) const fn wildcards(word: u64) -> u64 {
    let zero = zero_if_wildcard(word);
    // No sum carries into the next byte, so each byte is judged alone.
    !(((zero & !HIGHS) + !HIGHS) | zero) & HIGHS
}

/// Returns a word in which each `#` (0x23) and `+` (0x2B) is zero: they differ only in the bit
/// 0x08.
#[inline(always)]
const fn zero_if_wildcard(word: u64) -> u64 {
    (word | (8 * ONES)) ^ (0x2B * ONES)
}

const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each byte of a word.
pub(crate) const HIGHS: u64 = 0x8080_8080_8080_8080;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_look_at_words_agrees_with_a_look_at_each_byte() {
        for length in 1..40 {
            for position in 0..length {
                for byte in 0..=255 {
                    let mut bytes = vec![b'a'; length];
                    bytes[position] = byte;
                    let plain = byte.is_ascii() && byte != 0;
                    let wildcard = matches!(byte, b'#' | b'+');
                    assert_eq!(is_plain::<false>(&bytes), plain, "{length} {position} {byte}");
                    assert_eq!(
                        is_plain::<true>(&bytes),
                        plain && !wildcard,
                        "{length} {position} {byte}"
                    );
                    let mut found = vec![];
                    for_each_word(&bytes, |start, word| {
                        assert_eq!(wildcards(word).count_ones(), u32::from(wildcards(word) != 0));
                        found.extend(
                            (wildcards(word) != 0)
                                .then(|| start + wildcards(word).trailing_zeros() as usize / 8),
                        );
                    });
                    assert!(
                        found.iter().all(|&found| found == position),
                        "{length} {position} {byte}"
                    );
                    assert_eq!(!found.is_empty(), wildcard, "{length} {position} {byte}");
                }
            }
        }
        assert!(is_plain::<true>(b""));
    }
}
