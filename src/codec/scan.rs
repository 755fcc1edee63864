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

/// Whether the bytes are well-formed UTF-8 without U+0000 and, with `WILDCARDS`, without wildcards.
///
/// An automaton with one look-up for each byte, whatever the script: the state is the number of
/// bits by which the entry of the next byte is shifted. 40 bytes of Chinese take 190 instructions,
/// and `core::str::from_utf8` and one pass for each rule took 840.
#[inline(never)]
pub(super) fn is_text<const WILDCARDS: bool>(bytes: &[u8]) -> bool {
    let (mut state, mut marks) = (BEGIN, 0);
    let mut step = |byte: &u8| {
        let entry = ENTRIES.get(usize::from(*byte)).copied().unwrap_or(0);
        state = entry >> (state & 31);
        if WILDCARDS {
            marks |= entry;
        }
    };
    let mut chunks = bytes.chunks_exact(8);
    // Eight at a time, because the compiler does not unroll the loop.
    for chunk in &mut chunks {
        if let [a, b, c, d, e, f, g, h] = chunk {
            [a, b, c, d, e, f, g, h].into_iter().for_each(&mut step);
        }
    }
    chunks.remainder().iter().for_each(&mut step);
    state & 31 == BEGIN && marks & WILDCARD == 0
}

/// The states of [`is_text`], as places of five bits in an entry. A search has found places in
/// which the entries of all bytes fit. The state of an error is 0, and stays 0.
const BEGIN: u32 = 26;
/// One continuation byte must follow; two; three.
const LAST: u32 = 8;
const LAST_TWO: u32 = 2;
const LAST_THREE: u32 = 4;
/// After E0, ED, F0 and F4 the next byte is restricted. [Unicode 15.0, Table 3-7]
const AFTER_E0: u32 = 15;
const AFTER_ED: u32 = 21;
const AFTER_F0: u32 = 13;
const AFTER_F4: u32 = 19;

/// The bit of an entry that marks a wildcard. No state uses it.
const WILDCARD: u32 = 1 << 31;

#[expect(clippy::indexing_slicing, reason = "checked when it is compiled")]
static ENTRIES: [u32; 256] = {
    let mut entries = [0; 256];
    let mut byte: u8 = 1;
    loop {
        entries[byte as usize] = match byte {
            b'+' | b'#' => BEGIN << BEGIN | WILDCARD,
            0x00..=0x7F => BEGIN << BEGIN,
            0x80..=0x8F => CONTINUATION | LAST << AFTER_ED | LAST_TWO << AFTER_F4,
            0x90..=0x9F => CONTINUATION | LAST << AFTER_ED | LAST_TWO << AFTER_F0,
            0xA0..=0xBF => CONTINUATION | LAST << AFTER_E0 | LAST_TWO << AFTER_F0,
            0xC2..=0xDF => LAST << BEGIN,
            0xE0 => AFTER_E0 << BEGIN,
            0xED => AFTER_ED << BEGIN,
            0xE1..=0xEF => LAST_TWO << BEGIN,
            0xF0 => AFTER_F0 << BEGIN,
            0xF1..=0xF3 => LAST_THREE << BEGIN,
            0xF4 => AFTER_F4 << BEGIN,
            0xC0..=0xC1 | 0xF5..=0xFF => 0,
        };
        if byte == 0xFF {
            break entries;
        }
        byte += 1;
    }
};

/// The entry of a continuation byte, for the states that any of them can follow.
const CONTINUATION: u32 = BEGIN << LAST | LAST << LAST_TWO | LAST_TWO << LAST_THREE;

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

/// Returns a word that is not zero if a byte is U+0000.
#[inline(always)]
pub(crate) const fn nulls(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
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

    #[test]
    fn automaton_agrees_with_the_standard_library() {
        let check = |bytes: &[u8]| {
            let is_right = core::str::from_utf8(bytes).is_ok() && !bytes.contains(&0);
            assert_eq!(is_text::<false>(bytes), is_right, "{bytes:x?}");
            let wildcard = bytes.iter().any(|byte| matches!(byte, b'#' | b'+'));
            assert_eq!(is_text::<true>(bytes), is_right && !wildcard, "{bytes:x?}");
        };
        check(b"");
        // One byte of each class for each of four places, and each pair of bytes between others.
        let classes = [
            0x00, 0x2B, 0x61, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF,
            0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF,
        ];
        for a in classes {
            for b in classes {
                for c in classes {
                    for d in classes {
                        check(&[a, b, c, d]);
                    }
                }
            }
        }
        for a in 0..=255 {
            for b in 0..=255 {
                check(&[b'a', a, b, 0xBF, 0xBF, b'b', b'c', b'd', b'e']);
            }
        }
    }

    #[test]
    fn null_is_found_in_any_place() {
        for length in 1..40 {
            for position in 0..length {
                let mut bytes = vec![0x01; length];
                bytes[position] = 0x80;
                let found = |bytes: &[u8]| {
                    let mut found = 0;
                    for_each_word(bytes, |_, word| found |= nulls(word));
                    found != 0
                };
                assert!(!found(&bytes));
                bytes[position] = 0;
                assert!(found(&bytes));
            }
        }
    }
}
