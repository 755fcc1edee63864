//! The limits that each side states for the other.

use crate::codec::{ConnackProperties, ConnectProperties, QoS};

/// The limits that one side states in CONNECT or CONNACK.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// 65,535 if none was stated, as in the standard. [5.0 §3.1.2.11.3] [5.0 §3.2.2.3.3]
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) maximum_qos: QoS,
    pub(crate) retain_available: bool,
    /// Whether the other side can send a reason string and user properties with any packet.
    /// [5.0 §3.1.2.11.7]
    pub(crate) problem_information: bool,
}

impl Limits {
    /// Returns the limits of a CONNECT.
    pub(crate) fn of_connect(properties: &ConnectProperties<'_>) -> Self {
        Self {
            receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
            maximum_packet_size: properties.maximum_packet_size.unwrap_or(u32::MAX),
            topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
            problem_information: properties.request_problem_information != Some(false),
            ..Self::default()
        }
    }

    /// Returns the limits of a CONNACK.
    pub(crate) fn of_connack(properties: &ConnackProperties<'_>) -> Self {
        Self {
            receive_maximum: properties.receive_maximum.unwrap_or(u16::MAX),
            maximum_packet_size: properties.maximum_packet_size.unwrap_or(u32::MAX),
            topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
            maximum_qos: properties.maximum_qos.unwrap_or(QoS::ExactlyOnce),
            retain_available: properties.retain_available.unwrap_or(true),
            problem_information: true,
        }
    }
}

/// The limits of a side that states none.
impl Default for Limits {
    fn default() -> Self {
        Self::of_connack(&ConnackProperties::default())
    }
}
