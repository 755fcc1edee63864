//! Topic filters: their syntax, and which topic names they match. [5.0 §4.7] [3.1.1 §4.7]

use super::error::{DecodeError, EncodeError};
use super::read::Reader;
use super::scan;
use super::text::Text;
use super::types::Version;
use super::write::{Sink, Size};

pub(super) const SHARE: &[u8] = b"$share/";

/// A Topic Filter whose syntax is right, with the share name apart. [5.0 §4.7] [5.0 §4.8.2] [3.1.1
/// §4.7]
///
/// ```
/// use mqtt_sansio::codec::{TopicFilter, Version};
///
/// let filter = TopicFilter::new("sport/+/player1/#", Version::V3_1_1)?;
/// assert!(filter.matches("sport/tennis/player1/ranking"));
/// assert!(filter.matches("sport/tennis/player1"));
/// assert!(!filter.matches("sport/tennis/player2"));
///
/// let shared = TopicFilter::new("$share/workers/jobs/#", Version::V5_0)?;
/// assert_eq!(shared.share_name().unwrap(), "workers");
/// assert!(shared.matches("jobs/4"));
/// # Ok::<_, mqtt_sansio::codec::EncodeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicFilter<'a> {
    share_name: Option<Text<'a>>,
    filter: Text<'a>,
}

impl<'a> TopicFilter<'a> {
    /// Checks the syntax, and that a packet has room for so many bytes. [5.0 MQTT-4.7.3-3] [3.1.1
    /// MQTT-4.7.3-3]
    ///
    /// A shared subscription, `$share/{ShareName}/{filter}`, is one in 5.0 only.
    pub fn new(filter: impl Into<Text<'a>>, version: Version) -> Result<Self, EncodeError> {
        let text = filter.into();
        Size::default().binary(text.as_bytes())?;
        Self::check(text, version)?;
        let (share_name, filter) =
            if version == Version::V5_0 { split_shared(text.as_bytes())? } else { (None, text) };
        Ok(Self { share_name, filter })
    }

    /// The name of the group that shares the subscription.
    #[must_use]
    pub const fn share_name(self) -> Option<Text<'a>> {
        self.share_name
    }

    /// The filter, without `$share/{ShareName}/`.
    #[must_use]
    pub const fn filter(self) -> Text<'a> {
        self.filter
    }

    /// Whether it has a `+` or `#`.
    #[must_use]
    pub fn has_wildcard(self) -> bool {
        self.filter.has_wildcard()
    }

    /// Whether messages with that topic name are meant. [5.0 §4.7.1] [5.0 MQTT-4.7.2-1] [3.1.1
    /// MQTT-4.7.2-1]
    #[must_use]
    pub fn matches<'t>(self, topic_name: impl Into<Text<'t>>) -> bool {
        let topic_name = topic_name.into();
        if is_hidden(topic_name) && matches!(self.filter.as_bytes(), [b'+' | b'#', ..]) {
            return false;
        }
        let mut names = levels(topic_name);
        for level in levels(self.filter) {
            if level == b"#" {
                return true;
            }
            match names.next() {
                Some(name) if level == b"+" || level == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }

    /// Reads a filter.
    #[inline]
    pub(crate) fn decode(
        reader: &mut Reader<'a>,
        version: Version,
    ) -> Result<Text<'a>, DecodeError> {
        let text = Text::decode_again(reader)?;
        check(text, version, |text| Text::look_closer(text.as_bytes()).map(|_| ()))?;
        Ok(text)
    }

    /// What `decode` would say of it.
    #[inline]
    pub(crate) fn check(text: Text<'a>, version: Version) -> Result<(), DecodeError> {
        check(text, version, Text::no_null)
    }
}

/// The syntax, in one pass. [5.0 MQTT-4.7.3-1] [5.0 MQTT-4.7.1-1] [5.0 MQTT-4.7.1-2] [3.1.1
/// MQTT-4.7.3-1] [3.1.1 MQTT-4.7.1-2] [3.1.1 MQTT-4.7.1-3]
#[inline(always)]
fn check<'a>(
    filter: Text<'a>,
    version: Version,
    look_closer: impl FnOnce(Text<'a>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let bytes = filter.as_bytes();
    let (mut found, mut wildcards_stand_alone) = (0, true);
    scan::for_each_word(bytes, |start, word| {
        found |= scan::beyond_ascii_or_null(word);
        let mut wildcards = scan::wildcards(word);
        while wildcards != 0 {
            wildcards_stand_alone &=
                stands_alone(bytes, start + wildcards.trailing_zeros() as usize / 8);
            wildcards &= wildcards - 1;
        }
    });
    if found & scan::HIGHS != 0 {
        look_closer(filter)?;
    }
    match bytes {
        [] => return Err(DecodeError::EmptyTopicFilter),
        [b'$', ..] if version == Version::V5_0 => {
            split_shared(bytes)?;
        }
        _ => {}
    }
    if wildcards_stand_alone { Ok(()) } else { Err(DecodeError::InvalidWildcard) }
}

/// Whether a wildcard is all of its level and, if it is `#`, that is the last.
#[inline(always)]
fn stands_alone(filter: &[u8], position: usize) -> bool {
    let before = filter.get(position.wrapping_sub(1)).is_none_or(|&byte| byte == b'/');
    before
        && filter
            .get(position + 1)
            .is_none_or(|&byte| byte == b'/' && filter.get(position) == Some(&b'+'))
}

/// The share name of `$share/{ShareName}/{filter}`, if it is one, and the filter. [5.0
/// MQTT-4.8.2-1] [5.0 MQTT-4.8.2-2]
fn split_shared(filter: &[u8]) -> Result<(Option<Text<'_>>, Text<'_>), DecodeError> {
    let Some(shared) = filter.strip_prefix(SHARE) else { return Ok((None, Text::part(filter))) };
    let mut parts = shared.splitn(2, |&byte| byte == b'/').map(Text::part);
    match (parts.next(), parts.next()) {
        (Some(name), Some(filter))
            if !name.is_empty() && !name.has_wildcard() && !filter.is_empty() =>
        {
            Ok((Some(name), filter))
        }
        _ => Err(DecodeError::InvalidShareName),
    }
}

/// The levels of a topic name or filter; there is always one. [5.0 §4.7.1.1]
pub(crate) fn levels(topic: Text<'_>) -> impl Iterator<Item = &[u8]> {
    topic.as_bytes().split(|&byte| byte == b'/')
}

/// Whether a filter that starts with a wildcard does not match it. [5.0 MQTT-4.7.2-1] [3.1.1
/// MQTT-4.7.2-1]
pub(crate) fn is_hidden(topic_name: Text<'_>) -> bool {
    topic_name.as_bytes().first() == Some(&b'$')
}
