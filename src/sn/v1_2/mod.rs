//! Converts datagrams of MQTT-SN 1.2 to messages and back, with pure functions.
//!
//! A datagram is one message. [`decode`] checks and reads it; the decoded [`Message`] is a view of
//! its bytes. [`encode`] appends a message to an output. A datagram that a forwarder has wrapped is
//! [`Encapsulated`].
//!
//! ```
//! use mqtt_sansio::codec::QoS;
//! use mqtt_sansio::sn::v1_2::{self, Message, Publish, TopicRef};
//!
//! let reading = Publish::new(TopicRef::short("t4")?, b"21.5");
//! let mut datagram = Vec::new();
//! v1_2::encode(&Message::Publish(reading), &mut datagram)?;
//! assert_eq!(datagram, b"\x0B\x0C\x02t4\0\021.5");
//! assert_eq!(v1_2::decode(&datagram)?, Message::Publish(reading));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Every rule that a single message can break is checked in both directions, and has its own
//! [`DecodeError`]. Flags that the specification calls "not used" are ignored when a message is
//! decoded, and written as 0.
//!
//! The codec allocates nothing, keeps no state, and knows no client and no gateway.

mod body;
mod error;
mod forwarder;
mod message;
mod types;
mod wire;

pub use body::{
    Advertise, Connect, GwInfo, Puback, Publish, Regack, Register, SearchGw, Suback, Subscribe,
    Unsubscribe, WillTopic,
};
pub use error::{DecodeError, EncodeError};
pub use forwarder::Encapsulated;
pub use message::{Message, MessageType, decode, encode};
pub use types::{PublishQos, ReturnCode, SubscriptionTopic, TopicId, TopicRef};
