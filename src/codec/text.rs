//! UTF-8 Encoded Strings. [5.0 §1.5.4] [3.1.1 §1.5.3]

#![expect(
    clippy::inline_always,
    reason = "measured: without it a short PUBLISH takes 17 % more instructions to encode"
)]

use super::error::{DecodeError, EncodeError};
use super::read::Reader;
use super::scan;
use alloc::string::String;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};

/// A UTF-8 Encoded String of a packet. [5.0 §1.5.4]
///
/// Like `&str`, but the conversion to `str` is deferred until [`to_str`](Self::to_str) asks for it.
/// The decoder checks a string in one pass for well-formed UTF-8, U+0000 and wildcards. A `&str`
/// would need a second pass, which costs more than the rest of a PUBLISH. Routing, storing and
/// comparing need only the bytes.
///
/// Any `&str` converts into a text, and a text compares with `str` and `String`.
/// [`encode`](fn@super::encode) checks the rules of the standard for the field: no U+0000, at most
/// 65,535 bytes, no wildcards in a Topic Name. A text remembers which of them were checked:
/// [`encode`](fn@super::encode) only copies a text that was decoded, or was made with
/// [`new`](Self::new), as a [`TopicName`](super::TopicName) or as a
/// [`TopicFilter`](super::TopicFilter).
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
#[derive(Clone, Copy)]
pub struct Text<'a> {
    bytes: &'a [u8],
    known: Known,
}

/// The rules that a string was checked for: one bit each, so that a check is one instruction.
#[derive(Clone, Copy)]
struct Known(u8);

impl Known {
    /// Only that it is UTF-8.
    const UTF_8: Self = Self(0);
    /// No U+0000, and at most 65,535 bytes.
    const STRING: Self = Self(1);
    /// Also no wildcards.
    const TOPIC_NAME: Self = Self(3);
    /// Also the syntax of a Topic Filter, except that of a share name.
    const FILTER: Self = Self(5);

    const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl<'a> Text<'a> {
    /// Checks the rules for all strings: no U+0000, and at most 65,535 bytes. [5.0 MQTT-1.5.4-2]
    /// [3.1.1 MQTT-1.5.3-2]
    ///
    /// The conversion from `&str` leaves that to [`encode`](fn@super::encode), each time.
    ///
    /// ```
    /// use mqtt_sansio::codec::Text;
    ///
    /// let content_type = Text::new("application/json")?;
    /// assert!(Text::new("\0").is_err());
    /// # Ok::<_, mqtt_sansio::codec::EncodeError>(())
    /// ```
    pub fn new(string: &'a str) -> Result<Self, EncodeError> {
        let text = Self::literal(string);
        text.check()?;
        Ok(Self { known: Known::STRING, ..text })
    }

    /// Returns the string. Costs one pass over it; keep the result rather than calling twice.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the comment proves it")]
    pub fn to_str(self) -> &'a str {
        // A `Text` is made from a `&str`, from the bytes of another `Text`, or by the decoders,
        // which have checked with `is_plain` or `is_text`, now or when they decoded the same bytes.
        core::str::from_utf8(self.bytes).expect("a Text is UTF-8")
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
        Self { bytes: string.as_bytes(), known: Known::UTF_8 }
    }

    /// Whether the string starts with `prefix`, by its bytes.
    #[must_use]
    pub fn starts_with(self, prefix: &str) -> bool {
        self.bytes.starts_with(prefix.as_bytes())
    }

    /// Returns the bytes of the string, without the length field of the wire.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the length in bytes, as [`str::len`] does.
    #[must_use]
    pub const fn len(self) -> usize {
        self.bytes.len()
    }

    /// Whether the string is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// Reads and checks a string.
    #[inline(always)]
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Self::read(reader, false)
    }

    /// Reads a string, and checks it unless it was decoded before.
    #[inline(always)]
    pub(super) fn read(reader: &mut Reader<'a>, is_checked: bool) -> Result<Self, DecodeError> {
        let text = Self::decode_again(reader)?;
        if !is_checked && !scan::is_plain::<false>(text.bytes) {
            look_closer::<false>(text.bytes)?;
        }
        Ok(text)
    }

    /// Reads a Topic Name, which can be empty but has no wildcards. [5.0 MQTT-3.3.2-2]
    /// [3.1.1 MQTT-3.3.2-2]
    #[inline(always)]
    pub(crate) fn decode_topic_name(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Self::read_topic_name(reader, false)
    }

    /// Reads a Topic Name, and checks it unless it was decoded before.
    #[inline(always)]
    pub(super) fn read_topic_name(
        reader: &mut Reader<'a>,
        is_checked: bool,
    ) -> Result<Self, DecodeError> {
        let bytes = reader.binary()?;
        Self::check_topic_name_bytes(bytes, is_checked)?;
        Ok(Self::assume_topic_name(bytes))
    }

    /// Checks the bytes of a Topic Name, unless they were decoded before.
    #[inline(always)]
    pub(super) fn check_topic_name_bytes(
        bytes: &[u8],
        is_checked: bool,
    ) -> Result<(), DecodeError> {
        if !is_checked && !scan::is_plain::<true>(bytes) {
            look_closer::<true>(bytes)?;
        }
        Ok(())
    }

    /// Reads a Response Topic. [5.0 MQTT-4.7.3-1] [5.0 MQTT-3.3.2-14]
    #[inline]
    pub(super) fn read_response_topic(
        reader: &mut Reader<'a>,
        is_checked: bool,
    ) -> Result<Self, DecodeError> {
        Self::read_topic_name(reader, is_checked).map_err(in_response_topic)
    }

    /// Reads a string that was checked when its packet was decoded.
    #[inline]
    pub(crate) fn decode_again(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.binary().map(|bytes| Self { bytes, known: Known::STRING })
    }

    /// Whether the string was checked, or is seen at once to be right. If not,
    /// [`check`](Self::check) decides.
    #[inline(always)]
    pub(super) fn is_plain_string(self) -> bool {
        self.known.contains(Known::STRING) || self.is_short() && scan::is_plain::<false>(self.bytes)
    }

    /// Whether the same holds for it as a Topic Name.
    #[inline(always)]
    pub(super) fn is_plain_topic_name(self) -> bool {
        self.known.contains(Known::TOPIC_NAME)
            || self.is_short() && scan::is_plain::<true>(self.bytes)
    }

    /// Refuses a string that `decode` refuses, or that is too long.
    pub(crate) fn check(self) -> Result<(), EncodeError> {
        if self.known.contains(Known::STRING) {
            return Ok(());
        }
        self.check_length()?;
        Ok(if scan::is_plain::<false>(self.bytes) { Ok(()) } else { no_null(self.bytes) }?)
    }

    /// Refuses a string that `decode_topic_name` refuses, or that is too long.
    pub(crate) fn check_topic_name(self) -> Result<(), EncodeError> {
        self.check_length()?;
        Ok(self.check_wildcards()?)
    }

    /// Refuses a string that `decode_topic_name` refuses.
    #[inline(always)]
    pub(super) fn check_wildcards(self) -> Result<(), DecodeError> {
        let is_right = self.known.contains(Known::TOPIC_NAME) || scan::is_plain::<true>(self.bytes);
        if is_right { Ok(()) } else { look_for_wildcards(self.bytes) }
    }

    /// Whether a field can hold the string.
    #[inline(always)]
    const fn is_short(self) -> bool {
        self.bytes.len() <= u16::MAX as usize
    }

    /// Refuses a string that no field can hold.
    #[inline(always)]
    pub(super) fn check_length(self) -> Result<(), EncodeError> {
        if self.is_short() { Ok(()) } else { Err(EncodeError::FieldTooLong) }
    }

    /// Whether the syntax of a filter was checked, except that of a share name.
    #[inline(always)]
    pub(super) const fn is_filter(self) -> bool {
        self.known.contains(Known::FILTER)
    }

    /// Whether the string has a `+` or `#`.
    pub(crate) fn has_wildcard(self) -> bool {
        has_wildcard(self.bytes)
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
        Self { bytes, known: Known::STRING }
    }

    /// Wraps the bytes of a Topic Name that was checked before.
    #[inline(always)]
    pub(crate) const fn assume_topic_name(bytes: &'a [u8]) -> Self {
        Self { bytes, known: Known::TOPIC_NAME }
    }

    /// Wraps the bytes of a Topic Filter that was checked before.
    #[inline(always)]
    pub(crate) const fn assume_filter(bytes: &'a [u8]) -> Self {
        Self { bytes, known: Known::FILTER }
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

/// Refuses a string that is not UTF-8, has U+0000 or, with `WILDCARDS`, a wildcard.
#[cold]
#[inline(never)]
pub(super) fn look_closer<const WILDCARDS: bool>(bytes: &[u8]) -> Result<(), DecodeError> {
    if scan::is_text::<WILDCARDS>(bytes) { Ok(()) } else { Err(wrong_text(bytes)) }
}

/// Returns what is wrong with a string that is refused.
#[cold]
fn wrong_text(bytes: &[u8]) -> DecodeError {
    if bytes.contains(&0) {
        DecodeError::NullCharacter
    } else if core::str::from_utf8(bytes).is_err() {
        DecodeError::InvalidUtf8
    } else {
        DecodeError::WildcardInTopicName
    }
}

#[cold]
#[inline(never)]
fn look_for_wildcards(bytes: &[u8]) -> Result<(), DecodeError> {
    no_null(bytes)?;
    // Refuses wildcards. [5.0 MQTT-3.3.2-2] [3.1.1 MQTT-3.3.2-2]
    if has_wildcard(bytes) { Err(DecodeError::WildcardInTopicName) } else { Ok(()) }
}

/// Refuses U+0000. [5.0 MQTT-1.5.4-2] [3.1.1 MQTT-1.5.3-2]
#[cold]
#[inline(never)]
pub(super) fn no_null(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut found = 0;
    scan::for_each_word(bytes, |_, word| found |= scan::nulls(word));
    if found != 0 { Err(DecodeError::NullCharacter) } else { Ok(()) }
}

/// Returns the error for a Response Topic in place of that for a Topic Name.
pub(super) fn in_response_topic(error: DecodeError) -> DecodeError {
    let is_wildcard = error == DecodeError::WildcardInTopicName;
    if is_wildcard { DecodeError::WildcardInResponseTopic } else { error }
}

fn has_wildcard(bytes: &[u8]) -> bool {
    let mut found = 0;
    scan::for_each_word(bytes, |_, word| found |= scan::wildcards(word));
    found != 0
}

impl Default for Text<'_> {
    fn default() -> Self {
        Self::assume_topic_name(&[])
    }
}

// Two strings are equal whether or not they were checked.

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes.cmp(other.bytes)
    }
}

impl Hash for Text<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
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
        self.bytes == other.as_bytes()
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.bytes == other.as_bytes()
    }
}

impl PartialEq<String> for Text<'_> {
    fn eq(&self, other: &String) -> bool {
        self.bytes == other.as_bytes()
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
