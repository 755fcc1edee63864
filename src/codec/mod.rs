//! Bytes to packets and back: pure functions, without state.
//!
//! Reading takes two steps. [`frame`] finds one packet at the start of the bytes received, and says
//! so when it is not all there yet; [`decode`] checks and reads it. A decoded [`Packet`] is a view
//! of the bytes: nothing is allocated for any packet. [`encode`](fn@encode) goes the other way,
//! [`Prepared`] does so for a packet that is written more than once, and [`OwnedPacket`] is for
//! whoever must keep a packet or send it to another task.
//!
//! ```
//! use mqtt_sansio::codec::{self, Packet, Publish, Version};
//!
//! let mut bytes = Vec::new();
//! codec::encode(&Publish::new("a/b", b"hello").into(), Version::V5_0, &mut bytes)?;
//!
//! let frame = codec::frame(&bytes, u32::MAX)?.expect("the packet is all there");
//! let Packet::Publish(publish) = codec::decode(frame, Version::V5_0)? else { panic!() };
//! assert_eq!(publish.topic_name, "a/b");
//! assert_eq!(publish.payload, b"hello");
//! assert_eq!(frame.as_bytes(), bytes);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Every rule that a single packet can break is checked, in both directions, and has its own
//! [`DecodeError`]. With [`Rules`] that name the sender, that goes for what only one side may send
//! as well.

mod ack;
mod connack;
mod connect;
mod convert;
mod disconnect;
mod display;
mod encode;
mod ending;
mod error;
#[cfg(feature = "arbitrary")]
mod examples;
mod filter;
mod frame;
mod options;
mod owned;
mod packet;
mod packet_type;
mod property;
mod publish;
mod read;
mod reason;
mod rules;
mod scan;
mod sequence;
mod shown;
mod suback;
mod subscribe;
mod text;
mod topic;
mod types;
pub(crate) mod varint;
mod write;

pub use ack::Ack;
pub use connack::Connack;
pub use connect::{Connect, Will};
pub use convert::ConversionError;
pub use disconnect::{Auth, Disconnect};
pub use encode::{Prepared, encode, encode_publish_header};
pub use error::{DecodeError, EncodeError};
pub use filter::{Filter, TopicFilter};
pub use frame::{Frame, Header, frame, header};
pub use options::Options;
pub use owned::OwnedPacket;
pub use packet::{Packet, decode};
pub use packet_type::PacketType;
pub use property::{
    AckProperties, AuthProperties, ConnackProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SubscribeProperties, SubscriptionIdentifier, UnsubscribeProperties,
    UserProperty, WillProperties,
};
pub use publish::Publish;
pub use reason::ReasonCode;
pub use rules::Rules;
pub use sequence::{Sequence, SequenceIter};
pub use suback::Suback;
pub use subscribe::{RetainHandling, Subscribe, Subscription, SubscriptionOptions, Unsubscribe};
pub use text::Text;
pub use topic::{Topic, TopicName};
pub use types::{PacketIdentifier, QoS, Role, Version};
pub use write::{Fixed, Output};

pub(crate) use connect::connect_version;
pub(crate) use encode::{Encode, Identified, Measured};
pub(crate) use read::Reader;
pub(crate) use topic::{is_hidden, levels};
pub(crate) use write::{Size, Writer};
