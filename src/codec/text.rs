//! UTF-8 Encoded Strings, and the one pass that checks them. [5.0 §1.5.4] [3.1.1 §1.5.3]

use super::{DecodeError, Reader};
use core::fmt;

/// A UTF-8 Encoded String of a packet. [5.0 §1.5.4]
///
/// It is `&str` but for the moment at which `str` is made. The decoder checks a string in one pass,
/// for well-formed UTF-8, U+0000 and wildcards at once; a `&str` would need a second one, which
/// costs more than the rest of a PUBLISH. So the bytes are kept, known to be UTF-8, and
/// [`as_str`](Self::as_str) makes the `&str` when it is asked for. Routing, storing and comparing
/// need the bytes only.
///
/// Any `&str` can become one. Whether the standard allows it where it stands (no U+0000, at most
/// 65,535 bytes, no wildcards in a Topic Name) is checked by [`encode`](fn@super::encode).
///
/// ```
/// use mqtt_sansio::codec::Text;
///
/// let topic: Text = "sport/tennis".into();
/// assert_eq!(topic, "sport/tennis");
/// assert_eq!(topic.as_str().split('/').next(), Some("sport"));
/// assert_eq!(topic.as_bytes().len(), 12);
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// The string. Costs one pass over it; keep the result rather than calling twice.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the comment proves it")]
    pub fn as_str(self) -> &'a str {
        // A `Text` is made from a `&str`, by the decoders, where `is_plain` has seen ASCII alone or
        // `from_utf8` has said yes, or from the bytes of another `Text`.
        core::str::from_utf8(self.0).expect("a Text is UTF-8")
    }

    /// A string known when the program is compiled.
    ///
    /// ```
    /// use mqtt_sansio::codec::Text;
    ///
    /// const TOPIC: Text<'_> = Text::literal("room/4");
    /// assert_eq!(TOPIC, "room/4");
    /// ```
    #[must_use]
    pub const fn literal(string: &'a str) -> Self {
        Self(string.as_bytes())
    }

    /// The bytes of the string, without the length that stands before it on the wire.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether it has no characters.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    #[inline(always)]
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let bytes = reader.binary()?;
        if is_plain::<false>(bytes) { Ok(Self(bytes)) } else { Self::look_closer(bytes) }
    }

    /// A Topic Name, which may be empty but has no wildcards. [5.0 MQTT-3.3.2-2] [3.1.1
    /// MQTT-3.3.2-2]
    #[inline(always)]
    pub(crate) fn decode_topic_name(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let bytes = reader.binary()?;
        if is_plain::<true>(bytes) {
            return Ok(Self(bytes));
        }
        let text = Self::look_closer(bytes)?;
        text.no_wildcard()?;
        Ok(text)
    }

    /// A string that was checked when its packet was decoded.
    #[inline]
    pub(crate) fn decode_again(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.binary().map(Self)
    }

    /// Reads bytes that are not plain.
    #[cold]
    #[inline(never)]
    pub(crate) fn look_closer(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        Self(bytes).no_null()?;
        if core::str::from_utf8(bytes).is_ok() {
            Ok(Self(bytes))
        } else {
            Err(DecodeError::InvalidUtf8)
        }
    }

    /// What `decode` would say of it.
    #[inline]
    pub(crate) fn check(self) -> Result<(), DecodeError> {
        if is_plain::<false>(self.0) { Ok(()) } else { self.no_null() }
    }

    /// What `decode_topic_name` would say of it.
    #[inline]
    pub(crate) fn check_topic_name(self) -> Result<(), DecodeError> {
        if is_plain::<true>(self.0) { Ok(()) } else { self.look_for_wildcards() }
    }

    #[cold]
    #[inline(never)]
    fn look_for_wildcards(self) -> Result<(), DecodeError> {
        self.no_null()?;
        self.no_wildcard()
    }

    /// [5.0 MQTT-3.3.2-2] [3.1.1 MQTT-3.3.2-2]
    #[cold]
    #[inline(never)]
    fn no_wildcard(self) -> Result<(), DecodeError> {
        if self.has_wildcard() { Err(DecodeError::WildcardInTopicName) } else { Ok(()) }
    }

    /// [5.0 MQTT-1.5.4-2] [3.1.1 MQTT-1.5.3-2]
    #[cold]
    #[inline(never)]
    pub(crate) fn no_null(self) -> Result<(), DecodeError> {
        if self.0.contains(&0) { Err(DecodeError::NullCharacter) } else { Ok(()) }
    }

    /// Whether it has a `+` or `#`.
    pub(crate) fn has_wildcard(self) -> bool {
        self.0.iter().any(|byte| matches!(byte, b'+' | b'#'))
    }

    /// Whether it has no control characters and no noncharacters. [5.0 §1.5.4]
    pub(crate) fn is_clean(self) -> bool {
        self.as_str().chars().all(|c| {
            let noncharacter = matches!(u32::from(c) & 0xFFFF, 0xFFFE | 0xFFFF)
                || matches!(c, '\u{FDD0}'..='\u{FDEF}');
            !noncharacter && !c.is_control()
        })
    }

    /// For the bytes of a `Text` that were kept, and for a part of one that was cut at an ASCII
    /// character: they are UTF-8.
    pub(crate) const fn part(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(string: &'a str) -> Self {
        Self::literal(string)
    }
}

impl<'a> From<Text<'a>> for &'a str {
    fn from(text: Text<'a>) -> Self {
        text.as_str()
    }
}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Whether all is ASCII without U+0000 and, if they are looked for, without wildcards: what nearly
/// all strings are, and what one pass over words of eight bytes can tell. Anything else needs a
/// closer look.
#[inline(never)]
fn is_plain<const WILDCARDS: bool>(bytes: &[u8]) -> bool {
    let look = |word| {
        let found = beyond_ascii_or_null(word);
        if WILDCARDS { found | zero_if_wildcard(word).wrapping_sub(ONES) } else { found }
    };
    let mut found = 0;
    if let Some(last) = bytes.last_chunk::<16>() {
        // Two words alike at a time: compilers make one vector of them.
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

/// Calls `look` with each eight bytes and the position of the first. The last eight overlap those
/// before them: to look twice at a byte finds the same. A string of less than eight is filled up
/// with U+0001.
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

/// Has the highest bit of some byte set if one of them is not ASCII, or U+0000.
#[inline(always)]
pub(crate) const fn beyond_ascii_or_null(word: u64) -> u64 {
    // Where all is ASCII, taking one from each byte sets the highest bit of the first that is zero
    // and of none before it.
    word | word.wrapping_sub(ONES)
}

/// Has the highest bit set of those bytes that are `#` or `+`.
#[inline(always)]
pub(crate) const fn wildcards(word: u64) -> u64 {
    let zero = zero_if_wildcard(word);
    // No sum reaches the next byte, so each byte is judged by itself.
    !(((zero & !HIGHS) + !HIGHS) | zero) & HIGHS
}

/// `#` is 0x23 and `+` is 0x2B: the bit 0x08 is all that tells them apart.
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
