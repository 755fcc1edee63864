//! The configuration of a client.

use crate::codec::{EncodeError, QoS, TopicName};
use crate::sn::Retry;
use crate::sn::v1_2::DecodeError;
use alloc::boxed::Box;
use core::time::Duration;

/// The configuration of a [`Client`](super::Client).
///
/// ```
/// use mqtt_sansio::codec::QoS;
/// use mqtt_sansio::sn::client::ClientConfig;
///
/// let config = ClientConfig::new("sn-45")?.keep_alive(300);
/// let config = config.will("will", QoS::AtMostOnce, false, b"lost")?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub(super) client_id: Box<str>,
    pub(super) keep_alive: u16,
    pub(super) will: Option<Will>,
    pub(super) retry: Retry,
    pub(super) duplicate_window: Duration,
    pub(super) maximum_topics: usize,
    pub(super) first_message_id: u16,
}

#[derive(Clone, Debug)]
pub(super) struct Will {
    pub(super) topic: Box<str>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) message: Box<[u8]>,
}

impl ClientConfig {
    /// Creates a configuration with the defaults that the setters name. The client identifier has 1
    /// to 23 characters. [SN §5.3.1]
    pub fn new(client_id: &str) -> Result<Self, DecodeError> {
        crate::sn::v1_2::Message::Pingreq(Some(client_id.into())).check()?;
        Ok(Self {
            client_id: client_id.into(),
            keep_alive: 60,
            will: None,
            retry: Retry::new(),
            duplicate_window: Duration::from_secs(5),
            maximum_topics: 16,
            first_message_id: 1,
        })
    }

    /// Sets the Keep Alive in seconds; 0 turns it off. The default is 60.
    #[must_use]
    pub fn keep_alive(self, keep_alive: u16) -> Self {
        Self { keep_alive, ..self }
    }

    /// Sets the Will. The default is none: CONNECT then keeps a Will that the gateway already has.
    /// [SN §6.3]
    pub fn will(
        self,
        topic: &str,
        qos: QoS,
        retain: bool,
        message: &[u8],
    ) -> Result<Self, EncodeError> {
        TopicName::new(topic)?;
        let will = Some(Will { topic: topic.into(), qos, retain, message: message.into() });
        Ok(Self { will, ..self })
    }

    /// Sets T_retry and N_retry for messages that the gateway must answer.
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// Sets how long the network can delay a copy of a datagram. A message with QoS 2 that arrives
    /// again in this time is not reported again. The default is 5 seconds.
    #[must_use]
    pub fn duplicate_window(self, duplicate_window: Duration) -> Self {
        Self { duplicate_window, ..self }
    }

    /// Sets how many topics the client remembers by their topic ids. Beyond that it forgets the
    /// oldest one, which the gateway then registers again. The default is 16.
    #[must_use]
    pub fn maximum_topics(self, maximum_topics: usize) -> Self {
        Self { maximum_topics, ..self }
    }

    /// Sets the first message id. A device that keeps no state over a restart should choose it at
    /// random, so that the gateway does not take a new message for a copy. The default is 1.
    #[must_use]
    pub fn first_message_id(self, first_message_id: u16) -> Self {
        Self { first_message_id, ..self }
    }
}
