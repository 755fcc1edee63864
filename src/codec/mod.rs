//! Converts bytes to packets and back, with pure functions.
//!
//! Reading takes two steps. [`frame`](fn@frame) finds one packet at the start of the received
//! bytes, or returns `None` while the packet is incomplete. [`decode`] checks and reads it. A
//! decoded [`Packet`] is a view of the bytes: no packet needs an allocation. [`encode`](fn@encode)
//! writes a packet. An [`OwnedPacket`] owns its bytes, so it can be kept or sent to another task.
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
//! Every rule that a single packet can break is checked in both directions, and has its own
//! [`DecodeError`]. With [`Rules`] that name the sender, packets and fields that only the other
//! side may send are refused, too. [`Options`] relax the rules for deployed devices, or tighten
//! them.
//!
//! The `Display` form of a [`Packet`] is one line for a log. Neither it nor a `Debug` form shows a
//! password or authentication data.
//!
//! This module keeps no state, and knows no connection and no session.
//!
//! # How packets are read and written
//!
//! Each packet type has a file with its layout, its struct, and both directions.
//!
//! A short packet costs 50 to 300 instructions in either direction, as much as copying the 200 to
//! 300 bytes of its struct a few times. So each packet is built in place. The packets that are
//! exchanged most often have `decode(r, rules, wrap)`: it is inlined into its caller and calls
//! `wrap`, which is `Packet::Publish` or the like, on the finished struct. The large ones have
//! `read(&mut self, …)`, which fills in a blank packet that already is in its place.
//!
//! A packet is written in two walks by the same `write` function of its `Body`. The first walk goes
//! into a `Size`: it adds up the lengths, checks each string that was not checked when it was made
//! or decoded, and fails if the packet is not valid. The second goes into a `Writer`, which fills
//! in room of exactly that size. So there is no second function for lengths that could disagree, an
//! output grows once, and nothing is written of a packet with an error. Packets of two or four
//! bytes skip both walks (`short_form`). Encoding a PUBACK takes 55 instructions, and twice as many
//! with both walks.

mod ack;
mod body;
mod connack;
mod connect;
mod convert;
mod disconnect;
mod display;
#[cfg(feature = "arbitrary")]
mod drawn;
mod encode;
mod ending;
#[cfg(feature = "serde")]
mod entry;
mod error;
#[cfg(feature = "arbitrary")]
mod examples;
mod expiry;
mod filter;
mod frame;
#[cfg(feature = "arbitrary")]
mod malformed;
mod message;
mod options;
mod output;
mod owned;
mod packet;
mod packet_type;
mod ping;
mod property;
mod publish;
mod read;
mod reason;
mod rules;
mod scan;
mod sequence;
#[cfg(feature = "serde")]
mod serialize;
mod shown;
mod suback;
mod subscribe;
mod text;
mod topic;
mod types;
mod varint;
mod vectored;
mod write;

pub use ack::Ack;
pub use connack::Connack;
pub use connect::{Connect, Will};
pub use convert::ConversionError;
pub use disconnect::{Auth, Disconnect};
pub use encode::{encode, encode_publish_header, packet_size};
pub use error::{DecodeError, EncodeError};
pub use expiry::Expiry;
pub use filter::{Filter, TopicFilter};
pub use frame::{Frame, Header, frame, header};
#[cfg(feature = "arbitrary")]
pub use malformed::Malformed;
pub use options::Options;
pub use output::{Fixed, Output};
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
pub use vectored::Vectored;

pub(crate) use ack::acknowledgement;
pub(crate) use body::Body;
pub(crate) use connect::connect_version;
pub use message::Message;
pub(crate) use publish::PublishStart;
pub(crate) use read::Reader;
#[cfg(feature = "serde")]
pub(crate) use serialize::Octets;
pub(crate) use topic::{is_hidden, levels};
pub(crate) use write::Size;
