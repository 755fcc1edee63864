//! Topic filters: their syntax, and which topic names they match. [5.0 §4.7] [3.1.1 §4.7]

use super::{DecodeError, Text, Version};

const SHARE: &[u8] = b"$share/";

/// A Topic Filter whose syntax is right, with the share name apart. [5.0 §4.7] [5.0 §4.8.2] [3.1.1 §4.7]
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
/// # Ok::<_, mqtt_sansio::codec::DecodeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicFilter<'a> {
    share_name: Option<Text<'a>>,
    filter: Text<'a>,
}

impl<'a> TopicFilter<'a> {
    /// Checks the syntax. A shared subscription, `$share/{ShareName}/{filter}`, is one in 5.0 only.
    pub fn new(filter: impl Into<Text<'a>>, version: Version) -> Result<Self, DecodeError> {
        let text = filter.into();
        Self::check(text, text.check_topic_filter()?, version)
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

    /// Whether messages with that topic name are meant. [5.0 §4.7.1] [5.0 MQTT-4.7.2-1] [3.1.1 MQTT-4.7.2-1]
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

    /// The syntax of a string, whatever it is.
    #[inline]
    pub(crate) fn check_all(text: Text<'a>, version: Version) -> Result<(), DecodeError> {
        Self::check(text, text.check_topic_filter()?, version).map(|_| ())
    }

    /// The syntax of a string that is known to be one, and to have wildcard characters or not.
    #[inline]
    pub(crate) fn check(text: Text<'a>, has_wildcard: bool, version: Version) -> Result<Self, DecodeError> {
        let shared = text.as_bytes().strip_prefix(SHARE).filter(|_| version == Version::V5_0);
        let Some(shared) = shared else {
            check_levels(text, has_wildcard)?;
            return Ok(Self { share_name: None, filter: text });
        };
        // [5.0 MQTT-4.8.2-1] [5.0 MQTT-4.8.2-2]
        let slash = shared.iter().position(|&byte| byte == b'/').ok_or(DecodeError::InvalidShareName)?;
        let (name, rest) = shared.split_at_checked(slash).ok_or(DecodeError::InvalidShareName)?;
        let (name, filter) = (Text::part(name), Text::part(rest.split_first().map_or(rest, |(_, filter)| filter)));
        if name.is_empty() || name.has_wildcard() || filter.is_empty() {
            return Err(DecodeError::InvalidShareName);
        }
        check_levels(filter, has_wildcard)?;
        Ok(Self { share_name: Some(name), filter })
    }
}

/// [5.0 MQTT-4.7.3-1] [5.0 MQTT-4.7.1-1] [5.0 MQTT-4.7.1-2] [3.1.1 MQTT-4.7.3-1] [3.1.1 MQTT-4.7.1-2] [3.1.1 MQTT-4.7.1-3]
fn check_levels(filter: Text<'_>, has_wildcard: bool) -> Result<(), DecodeError> {
    if filter.is_empty() {
        return Err(DecodeError::EmptyTopicFilter);
    }
    if !has_wildcard {
        return Ok(());
    }
    // A wildcard stands alone: between separators or the ends, and `#` before the end.
    let mut before = &b'/';
    let mut rest = filter.as_bytes();
    while let Some(position) = rest.iter().position(|byte| matches!(byte, b'+' | b'#')) {
        let Some((start, [wildcard, after @ ..])) = rest.split_at_checked(position) else { break };
        let ends = after.is_empty() || *wildcard == b'+' && after.starts_with(b"/");
        if *start.last().unwrap_or(before) != b'/' || !ends {
            return Err(DecodeError::InvalidWildcard);
        }
        before = wildcard;
        rest = after;
    }
    Ok(())
}

/// The levels of a topic name or filter; there is always one. [5.0 §4.7.1.1]
pub(crate) fn levels(topic: Text<'_>) -> impl Iterator<Item = &[u8]> {
    topic.as_bytes().split(|&byte| byte == b'/')
}

/// Whether a filter that starts with a wildcard does not match it. [5.0 MQTT-4.7.2-1] [3.1.1 MQTT-4.7.2-1]
pub(crate) fn is_hidden(topic_name: Text<'_>) -> bool {
    topic_name.as_bytes().first() == Some(&b'$')
}
