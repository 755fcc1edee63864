//! UTF-8 Encoded Strings, and the one pass that checks them. [5.0 §1.5.4] [3.1.1 §1.5.3]

use super::{DecodeError, Reader};
use core::fmt;

/// A UTF-8 Encoded String of a packet. [5.0 §1.5.4]
///
/// It is `&str` but for the moment at which `str` is made. The decoder checks a string in one pass, for well-formed UTF-8,
/// U+0000 and wildcards at once; a `&str` would need a second one, which costs more than the rest of a PUBLISH. So
/// the bytes are kept, known to be UTF-8, and [`as_str`](Self::as_str) makes the `&str` when it is asked for. Routing,
/// storing and comparing need the bytes only.
///
/// Any `&str` can become one. Whether the standard allows it where it stands (no U+0000, at most 65,535 bytes, no
/// wildcards in a Topic Name) is checked by [`encode`](super::encode).
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
        // There are two ways to make a `Text`: from a `&str`, and by `Text::decode`, where `Scan` has seen ASCII alone or
        // `from_utf8` has said yes.
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

    #[inline]
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let bytes = reader.binary()?;
        Scan::of::<false>(bytes).string(bytes)
    }

    /// A Topic Name, which may be empty but has no wildcards. [5.0 MQTT-3.3.2-2] [3.1.1 MQTT-3.3.2-2]
    #[inline]
    pub(crate) fn decode_topic_name(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let bytes = reader.binary()?;
        let scan = Scan::of::<true>(bytes);
        let text = scan.string(bytes)?;
        if scan.has_wildcard() { Err(DecodeError::WildcardInTopicName) } else { Ok(text) }
    }

    /// A string, and whether it has wildcard characters.
    #[inline]
    pub(crate) fn decode_topic_filter(reader: &mut Reader<'a>) -> Result<(Self, bool), DecodeError> {
        let bytes = reader.binary()?;
        let scan = Scan::of::<true>(bytes);
        Ok((scan.string(bytes)?, scan.has_wildcard()))
    }

    /// What `decode` would say of it.
    #[inline]
    pub(crate) fn check(self) -> Result<(), DecodeError> {
        Scan::of::<false>(self.0).no_null()
    }

    /// What `decode_topic_name` would say of it.
    #[inline]
    pub(crate) fn check_topic_name(self) -> Result<(), DecodeError> {
        if self.check_topic_filter()? { Err(DecodeError::WildcardInTopicName) } else { Ok(()) }
    }

    /// What `decode_topic_filter` would say of it.
    #[inline]
    pub(crate) fn check_topic_filter(self) -> Result<bool, DecodeError> {
        let scan = Scan::of::<true>(self.0);
        scan.no_null()?;
        Ok(scan.has_wildcard())
    }

    pub(crate) fn has_wildcard(self) -> bool {
        Scan::of::<true>(self.0).has_wildcard()
    }

    /// For the bytes of a `Text` that were kept, and for a part of one that was cut at an ASCII character: they are UTF-8.
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

/// What one pass over some bytes has found. U+0000 and the wildcards are single bytes that occur in no longer sequence of
/// UTF-8, so they can be looked for before it is known whether the bytes are UTF-8.
#[derive(Clone, Copy, Default)]
struct Scan {
    /// The highest bit of some byte is set if not all is ASCII.
    high: u64,
    /// The highest bit of some byte is set if there was U+0000.
    null: u64,
    /// The same for wildcards, if they were looked for.
    wildcard: u64,
}

impl Scan {
    #[inline]
    fn of<const WILDCARDS: bool>(bytes: &[u8]) -> Self {
        let mut scan = Self::default();
        if let Some(last) = bytes.last_chunk::<8>() {
            let mut rest = bytes;
            // The last word overlaps the one before it: looking twice at a byte finds the same.
            while let Some((word, after)) = rest.split_first_chunk::<8>() {
                scan.look::<WILDCARDS>(u64::from_le_bytes(*word));
                rest = after;
            }
            scan.look::<WILDCARDS>(u64::from_le_bytes(*last));
        } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            let word = (u64::from(u32::from_le_bytes(*first)) << 32) | u64::from(u32::from_le_bytes(*last));
            scan.look::<WILDCARDS>(word);
        } else if let [first, .., last] | [first @ last] = bytes {
            let middle = bytes.get(1).unwrap_or(first);
            scan.look::<WILDCARDS>(u64::from_le_bytes([*first, *middle, *last, *last, *last, *last, *last, *last]));
        }
        scan
    }

    /// Looks at eight bytes at once.
    #[inline]
    fn look<const WILDCARDS: bool>(&mut self, word: u64) {
        self.high |= word;
        self.null |= zero_byte(word);
        if WILDCARDS {
            // `#` is 0x23 and `+` is 0x2B: the bit 0x08 is all that tells them apart.
            self.wildcard |= zero_byte((word | (8 * ONES)) ^ (0x2B * ONES));
        }
    }

    #[inline]
    fn string(self, bytes: &[u8]) -> Result<Text<'_>, DecodeError> {
        self.no_null()?;
        if self.high & HIGHS != 0 && core::str::from_utf8(bytes).is_err() {
            return Err(DecodeError::InvalidUtf8);
        }
        Ok(Text(bytes))
    }

    #[inline]
    fn no_null(self) -> Result<(), DecodeError> {
        if self.null & HIGHS != 0 { Err(DecodeError::NullCharacter) } else { Ok(()) }
    }

    #[inline]
    fn has_wildcard(self) -> bool {
        self.wildcard & HIGHS != 0
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Has the highest bit of a byte set if, and if none before it is zero only if, that byte of the word is zero.
#[inline]
const fn zero_byte(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn the_scan_agrees_with_a_look_at_each_byte() {
        for length in 0..40 {
            for position in 0..length {
                for byte in 0..=255 {
                    let mut bytes = vec![b'a'; length];
                    bytes[position] = byte;
                    let scan = Scan::of::<true>(&bytes);
                    assert_eq!(scan.high & HIGHS == 0, byte < 0x80, "{length} {position} {byte}");
                    assert_eq!(scan.no_null().is_err(), byte == 0, "{length} {position} {byte}");
                    assert_eq!(scan.has_wildcard(), matches!(byte, b'#' | b'+'), "{length} {position} {byte}");
                }
            }
        }
    }
}
