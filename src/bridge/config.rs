//! The configuration of a bridge.

use super::topic::{BridgeTopic, Side};
use crate::client::ClientConfig;
use crate::codec::{Options, QoS, Text};
use crate::session::QueueLimit;
use alloc::borrow::Cow;
use alloc::vec::Vec;

/// The topics and the limits of a bridge.
///
/// ```
/// use mqtt_sansio::bridge::BridgeConfig;
///
/// let topics = ["sensors/# out 1".parse()?, "commands/# in 2".parse()?];
/// let config = BridgeConfig::new(topics)?.receive_maximum(20);
/// assert_eq!(config.topics().len(), 2);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    topics: Vec<BridgeTopic>,
    pub(super) receive_maximum: u16,
    pub(super) buffer: QueueLimit,
    pub(super) marks_itself: bool,
    options: Options,
    maximum_packet_size: u32,
}

/// The reason why the topics do not make a bridge.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BridgeConfigError {
    /// There are no topics.
    #[error("expected at least one topic")]
    NoTopics,
    /// Two lines carry the messages of the same filter in the same direction, so the second would
    /// have no effect. The lines are counted from 0.
    #[error("topics {first} and {second} (from 0) have the same filter on the {side} side")]
    SameFilter {
        /// The first of the two lines.
        first: usize,
        /// The second of the two lines.
        second: usize,
        /// The side that the messages come from.
        side: Side,
    },
}

impl BridgeConfig {
    /// Creates a configuration with the defaults that the setters name. If several lines cover a
    /// message, the first of them decides about its name and its QoS.
    pub fn new(topics: impl IntoIterator<Item = BridgeTopic>) -> Result<Self, BridgeConfigError> {
        let topics: Vec<_> = topics.into_iter().collect();
        if topics.is_empty() {
            return Err(BridgeConfigError::NoTopics);
        }
        for (second, topic) in topics.iter().enumerate() {
            for side in [Side::Local, Side::Remote] {
                let is_same = |other: &BridgeTopic| {
                    let is_from = |topic: &BridgeTopic| topic.direction().is_from(side);
                    is_from(topic) && is_from(other) && topic.filter(side) == other.filter(side)
                };
                match topics.iter().position(is_same) {
                    Some(first) if first < second => {
                        return Err(BridgeConfigError::SameFilter { first, second, side });
                    }
                    _ => {}
                }
            }
        }
        Ok(Self {
            topics,
            receive_maximum: 100,
            buffer: QueueLimit { messages: 1_000, bytes: 16 * 1024 * 1024 },
            marks_itself: true,
            options: Options::NONE,
            maximum_packet_size: 268_435_460,
        })
    }

    /// Sets how many QoS 1 and 2 messages of a side can wait for the acknowledgement of the other
    /// one, at least 1. CONNECT tells a 5.0 broker so. From an older broker, the bridge reads up to
    /// twice as many. The default is 100.
    #[must_use]
    pub fn receive_maximum(self, receive_maximum: u16) -> Self {
        let receive_maximum = if receive_maximum == 0 { 1 } else { receive_maximum };
        Self { receive_maximum, ..self }
    }

    /// Sets how many messages, and bytes, can wait to be sent to a side before further messages
    /// with QoS 0 to it are dropped. The default is 1,000 messages and 16 MiB.
    #[must_use]
    pub fn maximum_queued(self, messages: usize, bytes: usize) -> Self {
        Self { buffer: QueueLimit { messages, bytes }, ..self }
    }

    /// Sets the largest packet in bytes that is accepted. The default is 268,435,460, the largest
    /// possible packet.
    #[must_use]
    pub fn maximum_packet_size(self, maximum_packet_size: u32) -> Self {
        Self { maximum_packet_size, ..self }
    }

    /// Sets whether a CONNECT before 5.0 has the highest bit of the protocol level set, which tells
    /// mosquitto that the client is a bridge. Such a broker then does not send the bridge its own
    /// messages, and keeps their RETAIN flag. After a broker has refused the protocol level, the
    /// next CONNECT is unmarked. The default is true, as in mosquitto (`try_private`).
    #[must_use]
    pub fn marks_itself(self, marks_itself: bool) -> Self {
        Self { marks_itself, ..self }
    }

    /// Sets deviations from the rules of the standard, on both sides. The default is none.
    #[must_use]
    pub fn options(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// Returns the topics.
    #[must_use]
    pub fn topics(&self) -> &[BridgeTopic] {
        &self.topics
    }

    /// Returns the configuration of the client of a side.
    pub(super) fn client(&self) -> ClientConfig {
        ClientConfig::new()
            .manual_acknowledgement(true)
            .maximum_packet_size(self.maximum_packet_size)
            .options(self.options)
            // The bridge itself bounds what it publishes.
            .maximum_queued(usize::MAX, usize::MAX)
    }

    /// Returns the name on the other side for a message of `side`, and its greatest QoS there.
    pub(super) fn route<'t>(&self, side: Side, name: Text<'t>) -> Option<(Cow<'t, str>, QoS)> {
        let topics = self.topics.iter().filter(|topic| topic.direction().is_from(side));
        topics.filter_map(|topic| Some((topic.translate(side, name)?, topic.maximum_qos()))).next()
    }

    /// Returns the name on the other side under which a response reaches the topic `name` of
    /// `side`, if the bridge carries it back.
    pub(super) fn response<'t>(&self, side: Side, name: Text<'t>) -> Option<Cow<'t, str>> {
        let back = |topic: &&BridgeTopic| topic.direction().is_from(side.other());
        self.topics.iter().filter(back).find_map(|topic| topic.translate(side, name))
    }
}
