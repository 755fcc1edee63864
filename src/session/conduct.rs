//! How a machine behaves by its configuration, whatever its role.

use super::QueueLimit;
use crate::codec::Options;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Conduct {
    pub(crate) manual_acknowledgement: bool,
    pub(crate) queue: QueueLimit,
    pub(crate) options: Options,
    /// How many topics may be given an alias by the machine itself.
    pub(crate) automatic_topic_aliases: u16,
}

impl Conduct {
    pub(crate) const fn new(queue: QueueLimit) -> Self {
        Self {
            manual_acknowledgement: false,
            queue,
            options: Options::NONE,
            automatic_topic_aliases: 0,
        }
    }
}

/// The methods for it that the configurations of both machines have, in a `conduct` of their own;
/// what waits for what, and how much may, is theirs to say.
macro_rules! conduct {
    ($queue:literal) => {
        /// Whether messages are acknowledged by `acknowledge` alone. The default is false: a
        /// message is acknowledged when the next step is taken.
        #[must_use]
        pub const fn manual_acknowledgement(self, manual_acknowledgement: bool) -> Self {
            Self { conduct: Conduct { manual_acknowledgement, ..self.conduct }, ..self }
        }

        #[doc = $queue]
        #[must_use]
        pub const fn maximum_queued(self, messages: usize, bytes: usize) -> Self {
            Self {
                conduct: Conduct { queue: QueueLimit { messages, bytes }, ..self.conduct },
                ..self
            }
        }

        /// What is different from the rules of the standard. The default is nothing.
        #[must_use]
        pub const fn options(self, options: Options) -> Self {
            Self { conduct: Conduct { options, ..self.conduct }, ..self }
        }

        /// How many topics the machine itself may give a [Topic
        /// Alias](crate::codec::PublishProperties::topic_alias), as far as the peer takes them; the
        /// first that come get one. The host cannot set aliases then. The default is 0.
        #[must_use]
        pub const fn automatic_topic_aliases(self, automatic_topic_aliases: u16) -> Self {
            Self { conduct: Conduct { automatic_topic_aliases, ..self.conduct }, ..self }
        }
    };
}

pub(crate) use conduct;
