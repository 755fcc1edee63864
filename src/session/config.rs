//! The part of the configuration that both machines share.

use super::QueueLimit;
use crate::codec::Options;
use core::time::Duration;

/// The settings of the exchange of messages, which each machine has a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommonConfig {
    pub(crate) manual_acknowledgement: bool,
    pub(crate) queue: QueueLimit,
    pub(crate) options: Options,
    pub(crate) automatic_topic_aliases: u16,
}

impl CommonConfig {
    pub(crate) const fn new(queue: QueueLimit) -> Self {
        Self {
            manual_acknowledgement: false,
            queue,
            options: Options::NONE,
            automatic_topic_aliases: 0,
        }
    }
}

/// How long the host can take to answer a CONNECT or AUTH, by default.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Defines the setters that `ClientConfig` and `ServerConfig` have in common, for a configuration
/// with a [`CommonConfig`] in `common` and an `answer_timeout`. The argument is the doc text of
/// `maximum_queued`, which differs between the two.
macro_rules! common_config {
    ($queue:literal) => {
        /// Sets whether messages are acknowledged only by `acknowledge`. The default is false: a
        /// message is acknowledged when the next step is taken.
        #[must_use]
        pub const fn manual_acknowledgement(self, manual_acknowledgement: bool) -> Self {
            Self { common: CommonConfig { manual_acknowledgement, ..self.common }, ..self }
        }

        #[doc = $queue]
        #[must_use]
        pub const fn maximum_queued(self, messages: usize, bytes: usize) -> Self {
            let queue = QueueLimit { messages, bytes };
            Self { common: CommonConfig { queue, ..self.common }, ..self }
        }

        /// Sets deviations from the rules of the standard. The default is none.
        #[must_use]
        pub const fn options(self, options: Options) -> Self {
            Self { common: CommonConfig { options, ..self.common }, ..self }
        }

        /// Sets how many topics the machine itself can give a
        /// [Topic Alias](crate::codec::PublishProperties::topic_alias), at most as many as the peer
        /// allows. The first topics that are sent receive one. If this is not 0, the host cannot
        /// set aliases. The default is 0.
        #[must_use]
        pub const fn automatic_topic_aliases(self, automatic_topic_aliases: u16) -> Self {
            Self { common: CommonConfig { automatic_topic_aliases, ..self.common }, ..self }
        }

        /// Sets how long the host can take to answer a CONNECT or AUTH. After that the connection
        /// ends with [`AnswerTimeout`](crate::session::CloseCause::AnswerTimeout). The default is
        /// 30 seconds.
        #[must_use]
        pub const fn answer_timeout(self, answer_timeout: Duration) -> Self {
            Self { answer_timeout, ..self }
        }
    };
}

pub(crate) use common_config;
