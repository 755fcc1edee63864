//! UTF-8 Encoded Strings. [5.0 §1.5.4] [3.1.1 §1.5.3]

#![expect(
    clippy::inline_always,
    reason = "measured: without it a short PUBLISH takes 17 % more instructions to encode"
)]

use super::error::DecodeError;
use super::read::Reader;
use super::scan::is_plain;
use alloc::string::String;
use core::fmt;

/// A UTF-8 Encoded String of a packet. [5.0 §1.5.4]
///
/// Like `&str`, but the conversion to `str` is deferred until [`to_str`](Self::to_str) asks for it.
/// The decoder checks a string in one pass for well-formed UTF-8, U+0000 and wildcards. A `&str`
/// would need a second pass, which costs more than the rest of a PUBLISH. Routing, storing and
/// comparing need only the bytes.
///
/// Any `&str` converts into a text, and a text compares with `str` and `String`.
/// [`encode`](fn@super::encode) checks the rules of the standard for the field: no U+0000, at most
/// 65,535 bytes, no wildcards in a Topic Name.
///
/// ```
/// use mqtt_sansio::codec::Text;
///
/// let topic: Text = "sport/tennis".into();
/// assert_eq!(topic, "sport/tennis");
/// assert!(topic.starts_with("sport/"));
/// assert_eq!(topic.to_str().split('/').next(), Some("sport"));
/// assert_eq!(topic.len(), 12);
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// Returns the string. Costs one pass over it; keep the result rather than calling twice.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the comment proves it")]
    pub fn to_str(self) -> &'a str {
        // A `Text` is made from a `&str`, from the bytes of another `Text`, or by the decoders,
        // which have checked with `is_plain` or `from_utf8`.
        core::str::from_utf8(self.0).expect("a Text is UTF-8")
    }

    /// Creates a text from a string in a constant expression.
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

    /// Whether the string starts with `prefix`, by its bytes.
    #[must_use]
    pub fn starts_with(self, prefix: &str) -> bool {
        self.0.starts_with(prefix.as_bytes())
    }

    /// Returns the bytes of the string, without the length field of the wire.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Returns the length in bytes, as [`str::len`] does.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.len()
    }

    /// Whether the string is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    #[inline(always)]
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let text = Self::decode_again(reader)?;
        if !is_plain::<false>(text.0) {
            look_closer(text.0)?;
        }
        Ok(text)
    }

    /// Reads a Topic Name, which can be empty but has no wildcards. [5.0 MQTT-3.3.2-2]
    /// [3.1.1 MQTT-3.3.2-2]
    #[inline(always)]
    pub(crate) fn decode_topic_name(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let text = Self(reader.binary()?);
        if !is_plain::<true>(text.0) {
            look_closer(text.0)?;
            no_wildcard(text.0)?;
        }
        Ok(text)
    }

    /// Reads a string that was checked when its packet was decoded.
    #[inline]
    pub(crate) fn decode_again(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.binary().map(Self)
    }

    /// Refuses a string that `decode` refuses.
    #[inline]
    pub(crate) fn check(self) -> Result<(), DecodeError> {
        if is_plain::<false>(self.0) { Ok(()) } else { no_null(self.0) }
    }

    /// Refuses a string that `decode_topic_name` refuses.
    #[inline]
    pub(crate) fn check_topic_name(self) -> Result<(), DecodeError> {
        if is_plain::<true>(self.0) { Ok(()) } else { look_for_wildcards(self.0) }
    }

    /// Whether the string has a `+` or `#`.
    pub(crate) fn has_wildcard(self) -> bool {
        has_wildcard(self.0)
    }

    /// Whether the string has no control characters and no noncharacters. [5.0 §1.5.4]
    pub(crate) fn is_clean(self) -> bool {
        self.to_str().chars().all(|c| {
            let noncharacter = matches!(u32::from(c) & 0xFFFF, 0xFFFE | 0xFFFF)
                || matches!(c, '\u{FDD0}'..='\u{FDEF}');
            !noncharacter && !c.is_control()
        })
    }

    /// Wraps bytes that were checked before: those of another `Text`, or a part of one that was cut
    /// at an ASCII character.
    pub(crate) const fn assume_checked(bytes: &'a [u8]) -> Self {
        debug_assert!(core::str::from_utf8(bytes).is_ok(), "the bytes are UTF-8");
        Self(bytes)
    }
}

/// Implements `Display` and `Debug` for types that are shown as their text.
macro_rules! shown_as_text {
    ($($type:ty),*) => {
        $(impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(&self.as_text(), f)
            }
        }

        impl core::fmt::Debug for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Debug::fmt(&self.as_text(), f)
            }
        })*
    };
}

pub(super) use shown_as_text;

// The next functions look at strings that are not plain. They take bytes, which need no memory.

/// Refuses a string that is not UTF-8 or has U+0000.
#[cold]
#[inline(never)]
pub(super) fn look_closer(bytes: &[u8]) -> Result<(), DecodeError> {
    no_null(bytes)?;
    core::str::from_utf8(bytes).map(|_| ()).map_err(|_| DecodeError::InvalidUtf8)
}

#[cold]
#[inline(never)]
fn look_for_wildcards(bytes: &[u8]) -> Result<(), DecodeError> {
    no_null(bytes)?;
    no_wildcard(bytes)
}

/// Refuses wildcards. [5.0 MQTT-3.3.2-2] [3.1.1 MQTT-3.3.2-2]
#[cold]
#[inline(never)]
fn no_wildcard(bytes: &[u8]) -> Result<(), DecodeError> {
    if has_wildcard(bytes) { Err(DecodeError::WildcardInTopicName) } else { Ok(()) }
}

/// Refuses U+0000. [5.0 MQTT-1.5.4-2] [3.1.1 MQTT-1.5.3-2]
#[cold]
#[inline(never)]
pub(super) fn no_null(bytes: &[u8]) -> Result<(), DecodeError> {
    if bytes.contains(&0) { Err(DecodeError::NullCharacter) } else { Ok(()) }
}

fn has_wildcard(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| matches!(byte, b'+' | b'#'))
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(string: &'a str) -> Self {
        Self::literal(string)
    }
}

impl<'a> From<&'a String> for Text<'a> {
    fn from(string: &'a String) -> Self {
        Self::literal(string)
    }
}

impl<'a> From<Text<'a>> for &'a str {
    fn from(text: Text<'a>) -> Self {
        text.to_str()
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

impl PartialEq<String> for Text<'_> {
    fn eq(&self, other: &String) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<Text<'_>> for str {
    fn eq(&self, other: &Text<'_>) -> bool {
        other == self
    }
}

impl PartialEq<Text<'_>> for &str {
    fn eq(&self, other: &Text<'_>) -> bool {
        other == self
    }
}

impl PartialEq<Text<'_>> for String {
    fn eq(&self, other: &Text<'_>) -> bool {
        other == self
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_str())
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.to_str(), f)
    }
}
