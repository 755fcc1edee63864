//! The topics of a bridge: which messages it carries in which direction, and under which names.

use crate::codec::{EncodeError, Filter, QoS, Text, TopicName, Version};
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use core::fmt;
use core::str::FromStr;

/// A side of a bridge.
#[expect(clippy::exhaustive_enums, reason = "a bridge has two sides")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The broker that the bridge belongs to.
    Local,
    /// The other broker.
    Remote,
}

impl Side {
    /// Returns the other side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Local => Self::Remote,
            Self::Remote => Self::Local,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Local { "local" } else { "remote" })
    }
}

/// The direction in which a bridge carries messages.
#[expect(clippy::exhaustive_enums, reason = "a bridge has two sides")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the remote side to the local one.
    In,
    /// From the local side to the remote one.
    Out,
    /// In both directions.
    Both,
}

impl Direction {
    /// Whether messages of that side are carried to the other one.
    #[must_use]
    pub const fn is_from(self, side: Side) -> bool {
        !matches!((self, side), (Self::In, Side::Local) | (Self::Out, Side::Remote))
    }
}

/// A line of the table of a bridge: the messages of `prefix + pattern` on one side become those of
/// the other prefix on the other side.
///
/// It is parsed from the arguments of mosquitto's `topic`: the pattern, and then the direction
/// (`out` if absent), the maximum QoS (0 if absent), and the local and the remote prefix (empty if
/// absent). `""` is an empty text.
///
/// ```
/// use mqtt_sansio::bridge::{BridgeTopic, Side};
///
/// let topic: BridgeTopic = "sensors/# out 1 \"\" site-a/".parse()?;
/// assert_eq!(topic.filter(Side::Remote).to_string(), "site-a/sensors/#");
/// let name = topic.translate(Side::Local, "sensors/4".into());
/// assert_eq!(name.as_deref(), Some("site-a/sensors/4"));
/// # Ok::<_, mqtt_sansio::bridge::BridgeTopicError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeTopic {
    local: Pattern,
    remote: Pattern,
    direction: Direction,
    maximum_qos: QoS,
}

/// The topics of one side.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    prefix: Box<str>,
    /// The prefix, and the pattern of both sides.
    filter: Filter,
}

/// The reason why a line of the table is not accepted.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BridgeTopicError {
    /// There is no pattern, or more than five fields.
    #[error("expected a pattern, and at most a direction, a QoS and two prefixes")]
    Fields,
    /// The second field is no direction.
    #[error("expected `in`, `out` or `both` after the pattern")]
    Direction,
    /// The third field is no QoS.
    #[error("expected the QoS 0, 1 or 2 after the direction")]
    Qos,
    /// A prefix cannot be the start of a topic name.
    #[error("{0} prefix is not the start of a topic name: {1}")]
    Prefix(Side, EncodeError),
    /// A prefix and the pattern are no topic filter.
    #[error("{0} prefix and the pattern are no topic filter: {1}")]
    Filter(Side, EncodeError),
    /// A shared subscription cannot be bridged, because No Local cannot be set for it.
    /// [5.0 MQTT-3.8.3-4]
    #[error("expected no shared subscription on the {0} side")]
    Shared(Side),
}

impl BridgeTopic {
    /// Creates a line without prefixes. Messages are carried at `maximum_qos` at most.
    pub fn new(
        pattern: &str,
        direction: Direction,
        maximum_qos: QoS,
    ) -> Result<Self, BridgeTopicError> {
        Self::with_prefixes(pattern, direction, maximum_qos, "", "")
    }

    /// Creates a line with prefixes. The pattern can be empty if the prefixes are not: they are
    /// then the whole topic names.
    pub fn with_prefixes(
        pattern: &str,
        direction: Direction,
        maximum_qos: QoS,
        local_prefix: &str,
        remote_prefix: &str,
    ) -> Result<Self, BridgeTopicError> {
        Ok(Self {
            local: Pattern::new(Side::Local, local_prefix, pattern)?,
            remote: Pattern::new(Side::Remote, remote_prefix, pattern)?,
            direction,
            maximum_qos,
        })
    }

    /// Returns the topic filter of a side.
    #[must_use]
    pub const fn filter(&self, side: Side) -> &Filter {
        &self.pattern(side).filter
    }

    /// Returns the direction.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// Returns the greatest QoS at which messages are carried.
    #[must_use]
    pub const fn maximum_qos(&self) -> QoS {
        self.maximum_qos
    }

    /// Returns the name on the other side for a topic name of `side`, whatever the direction.
    /// `None` means that the line does not cover the topic.
    ///
    /// `a/#` matches `a` too. With the prefix `a/` that name is not covered, because it does not
    /// begin with the prefix.
    #[must_use]
    pub fn translate<'t>(&self, side: Side, topic_name: Text<'t>) -> Option<Cow<'t, str>> {
        let (from, to) = (self.pattern(side), self.pattern(side.other()));
        if !from.filter.as_topic_filter().matches(topic_name) {
            return None;
        }
        let name = topic_name.to_str();
        let rest = name.strip_prefix(&*from.prefix)?;
        if from.prefix == to.prefix {
            return Some(name.into());
        }
        let translated = format!("{}{rest}", to.prefix);
        // It can be too long or empty.
        TopicName::new(translated.as_str()).is_ok().then(|| translated.into())
    }

    const fn pattern(&self, side: Side) -> &Pattern {
        match side {
            Side::Local => &self.local,
            Side::Remote => &self.remote,
        }
    }
}

impl Pattern {
    fn new(side: Side, prefix: &str, pattern: &str) -> Result<Self, BridgeTopicError> {
        if !prefix.is_empty() {
            TopicName::new(prefix).map_err(|error| BridgeTopicError::Prefix(side, error))?;
        }
        let filter = Filter::new(format!("{prefix}{pattern}").as_str(), Version::V5_0)
            .map_err(|error| BridgeTopicError::Filter(side, error))?;
        if filter.as_topic_filter().share_name().is_some() {
            return Err(BridgeTopicError::Shared(side));
        }
        Ok(Self { prefix: prefix.into(), filter })
    }
}

impl FromStr for BridgeTopic {
    type Err = BridgeTopicError;

    fn from_str(line: &str) -> Result<Self, BridgeTopicError> {
        let mut fields =
            line.split_whitespace().map(|field| if field == "\"\"" { "" } else { field });
        let pattern = fields.next().ok_or(BridgeTopicError::Fields)?;
        let direction = match fields.next() {
            Some("in") => Direction::In,
            None | Some("out") => Direction::Out,
            Some("both") => Direction::Both,
            Some(_) => return Err(BridgeTopicError::Direction),
        };
        let maximum_qos = match fields.next() {
            None | Some("0") => QoS::AtMostOnce,
            Some("1") => QoS::AtLeastOnce,
            Some("2") => QoS::ExactlyOnce,
            Some(_) => return Err(BridgeTopicError::Qos),
        };
        let (local, remote) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        if fields.next().is_some() {
            return Err(BridgeTopicError::Fields);
        }
        Self::with_prefixes(pattern, direction, maximum_qos, local, remote)
    }
}
