//! The variable parts of the messages. [SN §5.4]
//!
//! `layout!` declares a message whose fields stand on the wire as they stand in the table of the
//! specification. A message with a flags octet has both directions written out.

use super::error::DecodeError;
use super::types::{
    CLEAN_SESSION, DUP, PREDEFINED, PublishQos, RETAIN, ReturnCode, SHORT, SubscriptionTopic,
    TopicId, TopicRef, WILL, check_name, flag, qos, qos_flags,
};
use super::wire::{Field, Reader, Sink, optional};
use crate::codec::{PacketIdentifier, QoS, Text};

/// Declares a message by the fields of its table, in their order.
macro_rules! layout {
    ($(
        $(#[$meta:meta])*
        $name:ident $(<$a:lifetime>)? {
            $($(#[$field_meta:meta])* $field:ident: $Type:ty,)*
            $(=> $check:expr)?
        }
    )*) => {$(
        $(#[$meta])*
        #[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the specification")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
        pub struct $name $(<$a>)? {
            $($(#[$field_meta])* pub $field: $Type,)*
        }

        impl<'a> Field<'a> for with_lifetime!($name $($a)?) {
            fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
                Ok(Self { $($field: Field::read(r)?,)* })
            }

            fn write(&self, sink: &mut impl Sink) {
                $(self.$field.write(sink);)*
            }

            fn check(&self) -> Result<(), DecodeError> {
                $(Field::check(&self.$field)?;)*
                $(($check as fn(&Self) -> Result<(), DecodeError>)(self)?;)?
                Ok(())
            }
        }
    )*};
}

macro_rules! with_lifetime {
    ($name:ident) => { $name };
    ($name:ident $a:lifetime) => { $name<'a> };
}

layout! {
    /// ADVERTISE: a gateway announces itself. [SN §5.4.1]
    Advertise {
        /// The number of the gateway.
        gateway_id: u8,
        /// The seconds until its next ADVERTISE.
        duration: u16,
    }

    /// SEARCHGW: a client looks for a gateway. [SN §5.4.2]
    SearchGw {
        /// The broadcast radius of this message; 0 means all nodes.
        radius: u8,
    }

    /// GWINFO: the answer to SEARCHGW. [SN §5.4.3]
    GwInfo<'a> {
        /// The number of the gateway.
        gateway_id: u8,
        /// The address of the gateway, in the form of the network. Only a client sends it, for a
        /// gateway that it knows; empty otherwise.
        address: &'a [u8],
    }

    /// REGISTER: a topic name that a topic id will stand for. [SN §5.4.10]
    Register<'a> {
        /// The topic id that the gateway has assigned; `None` from a client.
        topic_id: Option<TopicId>,
        /// The number that the REGACK repeats.
        message_id: u16,
        /// The topic name.
        topic_name: Text<'a>,
        => |register| check_name(register.topic_name)
    }

    /// REGACK: the answer to REGISTER. [SN §5.4.11]
    Regack {
        /// The topic id to be used in PUBLISH; `None` if the registration was rejected.
        topic_id: Option<TopicId>,
        /// The message id of the REGISTER.
        message_id: u16,
        /// The outcome.
        return_code: ReturnCode,
    }

    /// PUBACK: the answer to a PUBLISH with QoS 1, or to one with any QoS that was rejected.
    /// [SN §5.4.13]
    Puback {
        /// The two octets of the topic in the PUBLISH, as [`TopicRef::wire_id`] returns them.
        topic_id: Option<TopicId>,
        /// The message id of the PUBLISH, which is 0 with QoS 0.
        message_id: u16,
        /// The outcome.
        return_code: ReturnCode,
    }
}

/// CONNECT: a client sets up a connection. [SN §5.4.4]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the specification")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct Connect<'a> {
    /// Whether the gateway must ask for a Will topic and a Will message.
    pub will: bool,
    /// Whether the gateway deletes what it has of the client. [SN §6.3]
    pub clean_session: bool,
    /// The Keep Alive in seconds; 0 turns it off, as in MQTT.
    pub duration: u16,
    /// The client identifier, of 1 to 23 characters.
    pub client_id: Text<'a>,
}

impl<'a> Field<'a> for Connect<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let [flags, protocol_id] = r.chunk()?;
        if protocol_id != PROTOCOL_ID {
            return Err(DecodeError::ProtocolId(protocol_id));
        }
        Ok(Self {
            will: flags & WILL != 0,
            clean_session: flags & CLEAN_SESSION != 0,
            duration: Field::read(r)?,
            client_id: Field::read(r)?,
        })
    }

    fn write(&self, sink: &mut impl Sink) {
        let flags = flag(self.will, WILL) | flag(self.clean_session, CLEAN_SESSION);
        sink.put(&[flags, PROTOCOL_ID]);
        self.duration.write(sink);
        self.client_id.write(sink);
    }

    fn check(&self) -> Result<(), DecodeError> {
        check_client_id(self.client_id)
    }
}

const PROTOCOL_ID: u8 = 0x01;

/// Refuses a client identifier that is empty or has more than 23 characters. [SN §5.3.1]
pub(super) fn check_client_id(client_id: Text<'_>) -> Result<(), DecodeError> {
    // A character has at most four bytes, so a longer one need not be counted.
    let is_short = client_id.len() <= 92 && client_id.to_str().chars().count() <= 23;
    if client_id.is_empty() || !is_short {
        return Err(DecodeError::ClientIdLength);
    }
    if client_id.as_bytes().contains(&0) { Err(DecodeError::NullCharacter) } else { Ok(()) }
}

/// WILLTOPIC and WILLTOPICUPD: the topic of the Will message. [SN §5.4.7] [SN §5.4.22]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the specification")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct WillTopic<'a> {
    /// The QoS of the Will message.
    pub qos: QoS,
    /// Whether the server retains the Will message.
    pub retain: bool,
    /// The topic name.
    pub topic: Text<'a>,
}

impl<'a> Field<'a> for WillTopic<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let [flags] = r.chunk()?;
        Ok(Self { qos: qos(flags)?, retain: flags & RETAIN != 0, topic: Field::read(r)? })
    }

    fn write(&self, sink: &mut impl Sink) {
        sink.put(&[qos_flags(self.qos) | flag(self.retain, RETAIN)]);
        self.topic.write(sink);
    }

    fn check(&self) -> Result<(), DecodeError> {
        check_name(self.topic)
    }
}

optional! { WillTopic<'a> }

/// PUBLISH: a message. [SN §5.4.12]
///
/// ```
/// use mqtt_sansio::codec::QoS;
/// use mqtt_sansio::sn::v1_2::{Publish, TopicId, TopicRef};
///
/// let topic = TopicRef::Predefined(TopicId::new(7).unwrap());
/// let reading = Publish { retain: true, ..Publish::new(topic, b"21.5") };
/// assert_eq!(reading.qos, QoS::AtMostOnce.into());
/// ```
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the specification")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct Publish<'a> {
    /// Whether the message might have been sent before, with QoS 1 and 2 only.
    pub dup: bool,
    /// The QoS, which can be −1 from a client.
    pub qos: PublishQos,
    /// Whether the server retains the message.
    pub retain: bool,
    /// The topic.
    pub topic: TopicRef,
    /// The message id, with QoS 1 and 2 only.
    pub message_id: Option<PacketIdentifier>,
    /// The payload.
    pub data: &'a [u8],
}

impl<'a> Publish<'a> {
    /// Makes a message with QoS 0 and without RETAIN.
    #[must_use]
    pub fn new(topic: TopicRef, data: &'a [u8]) -> Self {
        let qos = PublishQos::default();
        Self { dup: false, qos, retain: false, topic, message_id: None, data }
    }
}

impl<'a> Field<'a> for Publish<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let [flags, first, second] = r.chunk()?;
        Ok(Self {
            dup: flags & DUP != 0,
            qos: PublishQos::from_flags(flags),
            retain: flags & RETAIN != 0,
            topic: TopicRef::new(flags, [first, second])?,
            message_id: PacketIdentifier::new(u16::read(r)?),
            data: r.rest(),
        })
    }

    fn write(&self, sink: &mut impl Sink) {
        let flags =
            flag(self.dup, DUP) | self.qos.flags() | flag(self.retain, RETAIN) | self.topic.flags();
        let [first, second] = self.topic.octets();
        sink.put(&[flags, first, second]);
        self.message_id.map_or(0, PacketIdentifier::get).write(sink);
        sink.put(self.data);
    }

    fn check(&self) -> Result<(), DecodeError> {
        self.topic.check()?;
        match (self.qos.is_acknowledged(), self.message_id) {
            (true, None) => return Err(DecodeError::MissingMessageId),
            (false, Some(_)) => return Err(DecodeError::UnexpectedMessageId),
            (false, None) if self.dup => return Err(DecodeError::DupWithoutAcknowledgement),
            _ => {}
        }
        match (self.qos, self.topic) {
            (PublishQos::MinusOne, TopicRef::Normal(_)) => Err(DecodeError::QosMinusOneTopic),
            _ => Ok(()),
        }
    }
}

/// SUBSCRIBE: a client subscribes to a topic. [SN §5.4.15]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the specification")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct Subscribe<'a> {
    /// Whether the message might have been sent before.
    pub dup: bool,
    /// The greatest QoS of the messages.
    pub qos: QoS,
    /// The number that the SUBACK repeats.
    pub message_id: u16,
    /// The topic.
    pub topic: SubscriptionTopic<'a>,
}

impl<'a> Field<'a> for Subscribe<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let [flags] = r.chunk()?;
        Ok(Self {
            dup: flags & DUP != 0,
            qos: qos(flags)?,
            message_id: Field::read(r)?,
            topic: read_subscription_topic(flags, r)?,
        })
    }

    fn write(&self, sink: &mut impl Sink) {
        sink.put(&[flag(self.dup, DUP) | qos_flags(self.qos) | self.topic.flags()]);
        self.message_id.write(sink);
        self.topic.write(sink);
    }

    fn check(&self) -> Result<(), DecodeError> {
        self.topic.check()
    }
}

/// SUBACK: the answer to SUBSCRIBE. [SN §5.4.16]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the specification")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct Suback {
    /// The granted QoS.
    pub qos: QoS,
    /// The topic id of the messages; `None` for a short topic or a filter with wildcards.
    pub topic_id: Option<TopicId>,
    /// The message id of the SUBSCRIBE.
    pub message_id: u16,
    /// The outcome.
    pub return_code: ReturnCode,
}

impl<'a> Field<'a> for Suback {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let [flags] = r.chunk()?;
        Ok(Self {
            qos: qos(flags)?,
            topic_id: Field::read(r)?,
            message_id: Field::read(r)?,
            return_code: Field::read(r)?,
        })
    }

    fn write(&self, sink: &mut impl Sink) {
        sink.put(&[qos_flags(self.qos)]);
        self.topic_id.write(sink);
        self.message_id.write(sink);
        self.return_code.write(sink);
    }
}

/// UNSUBSCRIBE: a client ends a subscription. [SN §5.4.17]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the specification")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct Unsubscribe<'a> {
    /// The number that the UNSUBACK repeats.
    pub message_id: u16,
    /// The topic of the subscription.
    pub topic: SubscriptionTopic<'a>,
}

impl<'a> Field<'a> for Unsubscribe<'a> {
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let [flags] = r.chunk()?;
        Ok(Self { message_id: Field::read(r)?, topic: read_subscription_topic(flags, r)? })
    }

    fn write(&self, sink: &mut impl Sink) {
        sink.put(&[self.topic.flags()]);
        self.message_id.write(sink);
        self.topic.write(sink);
    }

    fn check(&self) -> Result<(), DecodeError> {
        self.topic.check()
    }
}

fn read_subscription_topic<'a>(
    flags: u8,
    r: &mut Reader<'a>,
) -> Result<SubscriptionTopic<'a>, DecodeError> {
    if flags & (PREDEFINED | SHORT) == 0 {
        return Text::read(r).map(SubscriptionTopic::Filter);
    }
    Ok(match TopicRef::new(flags, r.chunk()?)? {
        TopicRef::Short(octets) => SubscriptionTopic::Short(octets),
        TopicRef::Normal(id) | TopicRef::Predefined(id) => SubscriptionTopic::Predefined(id),
    })
}

impl SubscriptionTopic<'_> {
    const fn flags(&self) -> u8 {
        match self {
            Self::Filter(_) => 0,
            Self::Predefined(_) => PREDEFINED,
            Self::Short(_) => SHORT,
        }
    }

    fn write(&self, sink: &mut impl Sink) {
        match self {
            Self::Filter(filter) => filter.write(sink),
            Self::Predefined(id) => id.get().write(sink),
            Self::Short(octets) => sink.put(octets),
        }
    }
}
