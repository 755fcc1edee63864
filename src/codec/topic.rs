//! Topic names that were checked, and their levels. [5.0 §4.7] [3.1.1 §4.7]

use super::error::{DecodeError, EncodeError};
use super::text::{Text, shown_as_text};
use crate::sync::Arc;
use core::borrow::Borrow;
use core::str::FromStr;

/// An owned Topic Name: not empty, no wildcards, no U+0000, at most 65,535 bytes. [5.0 §4.7]
/// [3.1.1 §4.7]
///
/// Clones share the bytes. As a key of a map, a topic is looked up by its bytes or by another
/// topic.
///
/// ```
/// use mqtt_sansio::codec::Topic;
///
/// let topic = Topic::new("sport/tennis")?;
/// assert_eq!(topic.as_text(), "sport/tennis");
/// assert!(Topic::new("sport/#").is_err());
/// # Ok::<_, mqtt_sansio::codec::EncodeError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<[u8]>);

impl Topic {
    /// Checks and copies a topic name.
    pub fn new<'t>(name: impl Into<Text<'t>>) -> Result<Self, EncodeError> {
        TopicName::new(name).map(TopicName::into_topic)
    }

    /// Returns the name.
    #[must_use]
    pub fn as_text(&self) -> Text<'_> {
        // Each constructor has checked the bytes.
        Text::assume_topic_name(&self.0)
    }
}

/// Checks and copies a topic name.
impl FromStr for Topic {
    type Err = EncodeError;

    fn from_str(name: &str) -> Result<Self, EncodeError> {
        Self::new(name)
    }
}

impl Borrow<[u8]> for Topic {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// A checked Topic Name that is borrowed, such as from a received PUBLISH, or a shared [`Topic`],
/// such as the one that a topic alias stands for.
///
/// ```
/// use mqtt_sansio::codec::{Topic, TopicName};
///
/// let name = TopicName::new("sport/tennis")?;
/// let topic: Topic = name.clone().into_topic();
/// assert_eq!(name, TopicName::from(topic));
/// assert!(TopicName::new("").is_err());
/// # Ok::<_, mqtt_sansio::codec::EncodeError>(())
/// ```
#[derive(Clone)]
pub struct TopicName<'a>(Name<'a>);

#[derive(Clone)]
enum Name<'a> {
    Borrowed(Text<'a>),
    Shared(Topic),
}

impl<'a> TopicName<'a> {
    /// Checks a topic name. [5.0 MQTT-4.7.3-1] [5.0 MQTT-3.3.2-2] [3.1.1 MQTT-4.7.3-1]
    /// [3.1.1 MQTT-3.3.2-2]
    pub fn new(name: impl Into<Text<'a>>) -> Result<Self, EncodeError> {
        let name = name.into();
        if name.is_empty() {
            return Err(DecodeError::EmptyTopicName.into());
        }
        name.check_topic_name()?;
        Ok(Self(Name::Borrowed(Text::assume_topic_name(name.as_bytes()))))
    }

    /// Wraps the topic name of a PUBLISH that was decoded, without checking it again.
    pub(super) fn from_decoded(name: Text<'a>) -> Self {
        debug_assert!(Self::new(name).is_ok(), "the topic name was checked");
        Self(Name::Borrowed(name))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_text(&self) -> Text<'_> {
        match &self.0 {
            Name::Borrowed(text) => *text,
            Name::Shared(topic) => topic.as_text(),
        }
    }

    /// Returns the name as a `str`. Costs one pass over it.
    #[must_use]
    pub fn to_str(&self) -> &str {
        self.as_text().to_str()
    }

    /// Returns the name as an owned topic, copied unless it is shared already.
    #[must_use]
    pub fn into_topic(self) -> Topic {
        match self.0 {
            Name::Borrowed(text) => Topic(text.as_bytes().into()),
            Name::Shared(topic) => topic,
        }
    }
}

impl<'a> TryFrom<&'a str> for TopicName<'a> {
    type Error = EncodeError;

    fn try_from(name: &'a str) -> Result<Self, EncodeError> {
        Self::new(name)
    }
}

impl From<Topic> for TopicName<'_> {
    fn from(topic: Topic) -> Self {
        Self(Name::Shared(topic))
    }
}

impl<'a> From<&'a Topic> for TopicName<'a> {
    fn from(topic: &'a Topic) -> Self {
        Self(Name::Borrowed(topic.as_text()))
    }
}

impl<'a> From<&'a TopicName<'_>> for TopicName<'a> {
    fn from(name: &'a TopicName<'_>) -> Self {
        Self(Name::Borrowed(name.as_text()))
    }
}

impl<'a> From<&'a Topic> for Text<'a> {
    fn from(topic: &'a Topic) -> Self {
        topic.as_text()
    }
}

impl<'a> From<&'a TopicName<'_>> for Text<'a> {
    fn from(name: &'a TopicName<'_>) -> Self {
        name.as_text()
    }
}

impl PartialEq for TopicName<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_text() == other.as_text()
    }
}

impl Eq for TopicName<'_> {}

impl PartialEq<&str> for TopicName<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.as_text() == *other
    }
}

shown_as_text! { Topic, TopicName<'_> }

/// Returns the levels of a topic name or filter, of which there is at least one. [5.0 §4.7.1.1]
pub(crate) fn levels(topic: Text<'_>) -> impl Iterator<Item = &[u8]> {
    topic.as_bytes().split(|&byte| byte == b'/')
}

/// Whether a topic name starts with `$`, so that no filter that starts with a wildcard matches it.
/// [5.0 MQTT-4.7.2-1] [3.1.1 MQTT-4.7.2-1]
pub(crate) fn is_hidden(topic_name: Text<'_>) -> bool {
    topic_name.as_bytes().first() == Some(&b'$')
}
