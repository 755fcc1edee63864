//! The store of Will Messages.

use super::action::SessionId;
use crate::codec::{EncodeError, Publish, PublishProperties, Will};
use crate::session::Message;
use crate::time::Instant;
use alloc::collections::BTreeMap;

/// The Will Messages of sessions, from CONNECT until they are published or dropped.
#[derive(Debug, Default)]
pub(super) struct Wills(BTreeMap<SessionId, StoredWill>);

/// A will as the message that is published.
#[derive(Debug)]
pub(super) struct StoredWill {
    pub(super) message: Message,
    pub(super) message_expiry_interval: Option<u32>,
    /// How many seconds the message waits after the end of the connection.
    pub(super) delay: u32,
    /// When the message is published, if the client does not come back.
    pub(super) due: Option<Instant>,
}

impl StoredWill {
    /// Copies a will. [5.0 §3.1.3.2] [5.0 MQTT-3.1.3-10]
    pub(super) fn new(will: &Will<'_>) -> Result<Self, EncodeError> {
        let Will { qos, retain, topic, payload, properties } = *will;
        let message = Message::new(&Publish {
            qos,
            retain,
            properties: PublishProperties {
                payload_format_indicator: properties.payload_format_indicator,
                message_expiry_interval: properties.message_expiry_interval,
                content_type: properties.content_type,
                response_topic: properties.response_topic,
                correlation_data: properties.correlation_data,
                user_properties: properties.user_properties,
                ..PublishProperties::default()
            },
            topic_name: topic,
            payload,
            ..Publish::default()
        })?;
        let message_expiry_interval = properties.message_expiry_interval;
        let delay = properties.will_delay_interval.unwrap_or(0);
        Ok(Self { message, message_expiry_interval, delay, due: None })
    }
}

impl Wills {
    pub(super) fn insert(&mut self, session: SessionId, will: StoredWill) {
        self.0.insert(session, will);
    }

    pub(super) fn get(&self, session: SessionId) -> Option<&StoredWill> {
        self.0.get(&session)
    }

    pub(super) fn get_mut(&mut self, session: SessionId) -> Option<&mut StoredWill> {
        self.0.get_mut(&session)
    }

    pub(super) fn remove(&mut self, session: SessionId) -> Option<StoredWill> {
        self.0.remove(&session)
    }
}
