//! The 27 properties of 5.0: one struct for each packet, made from one table each. [5.0 §2.2.2]

use super::error::{DecodeError, EncodeError};
use super::read::Reader;
use super::rules::Rules;
use super::sequence::{Element, Sequence};
use super::shown::{Hidden, Show, Shown};
use super::text::Text;
use super::types::{QoS, Role, Version};
use super::write::Sink;
use core::fmt;

const USER_PROPERTY: u32 = 0x26;
const SUBSCRIPTION_IDENTIFIER: u32 = 0x0B;
/// The one property that is a secret.
const AUTHENTICATION_DATA: u32 = 0x16;

/// A User Property: a name and a value. The same name may come more than once. [5.0 §2.2.2.2]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct UserProperty<'a> {
    /// What it is called.
    pub name: Text<'a>,
    /// What it says.
    pub value: Text<'a>,
}

impl<'a> UserProperty<'a> {
    /// Makes a user property of two strings.
    #[must_use]
    pub fn new(name: impl Into<Text<'a>>, value: impl Into<Text<'a>>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

impl<'a> Value<'a> for UserProperty<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { name: Text::decode(reader)?, value: Text::decode(reader)? })
    }

    fn decode_again(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { name: Text::decode_again(reader)?, value: Text::decode_again(reader)? })
    }

    fn write<S: Sink>(self, sink: &mut S) -> Result<(), EncodeError> {
        sink.text(self.name)?;
        sink.text(self.value)
    }

    fn is_clean(self) -> bool {
        self.name.is_clean() && self.value.is_clean()
    }
}

/// A Subscription Identifier, 1 to 268,435,455: the number that a client gave a subscription, and
/// that comes with each message for it. [5.0 §3.8.2.1.2]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionIdentifier(core::num::NonZeroU32);

impl SubscriptionIdentifier {
    /// 268,435,455, the greatest.
    pub const MAX: Self = Self(core::num::NonZeroU32::MIN.saturating_add(268_435_454));

    /// The identifier of that number, if it is neither zero nor too large.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match core::num::NonZeroU32::new(number) {
            Some(value) if number <= 268_435_455 => Some(Self(value)),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl Show for UserProperty<'_> {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", Shown(self.name), Shown(self.value))
    }
}

impl Show for SubscriptionIdentifier {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The properties that may repeat, with their identifiers.
macro_rules! repeated_properties {
    ($($type:ty: $identifier:ident;)*) => {
        $(impl<'a> Element<'a> for $type {
            /// The next one in a section that has been checked, and holds others as well.
            fn next(reader: &mut Reader<'a>, _: u8) -> Result<Option<Self>, DecodeError> {
                while !reader.is_empty() {
                    let identifier = reader.variable_byte_integer()?;
                    if identifier == $identifier {
                        return Value::decode_again(reader).map(Some);
                    }
                    pass_over(identifier, reader)?;
                }
                Ok(None)
            }

            #[inline]
            fn write<S: Sink>(self, sink: &mut S) -> Result<(), EncodeError> {
                sink.variable_byte_integer($identifier);
                Value::write(self, sink)
            }
        })*
    };
}

repeated_properties! {
    UserProperty<'a>: USER_PROPERTY;
    SubscriptionIdentifier: SUBSCRIPTION_IDENTIFIER;
}

/// Goes past the value of a property. [5.0 §2.2.2.2, Table 2-4]
fn pass_over(identifier: u32, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    match identifier {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => reader.take(1).map(|_| ()),
        0x13 | 0x21 | 0x22 | 0x23 => reader.take(2).map(|_| ()),
        0x02 | 0x11 | 0x18 | 0x27 => reader.take(4).map(|_| ()),
        0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => reader.binary().map(|_| ()),
        SUBSCRIPTION_IDENTIFIER => reader.variable_byte_integer().map(|_| ()),
        USER_PROPERTY => reader.binary().and_then(|_| reader.binary()).map(|_| ()),
        _ => Err(DecodeError::PropertyNotAllowed(identifier)),
    }
}

/// The type of a property's value.
trait Value<'a>: Copy {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;

    /// Reads what was checked when the packet was decoded.
    fn decode_again(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Self::decode(reader)
    }

    fn write<S: Sink>(self, sink: &mut S) -> Result<(), EncodeError>;

    /// Whether its strings have no control characters.
    fn is_clean(self) -> bool {
        true
    }
}

impl Value<'_> for bool {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            // The caller knows which property it is.
            _ => Err(OUT_OF_RANGE),
        }
    }

    fn write<S: Sink>(self, sink: &mut S) -> Result<(), EncodeError> {
        sink.u8(self.into());
        Ok(())
    }
}

impl Value<'_> for QoS {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::from_u8(reader.u8()?).ok_or(OUT_OF_RANGE)
    }

    fn write<S: Sink>(self, sink: &mut S) -> Result<(), EncodeError> {
        sink.u8(self.as_u8());
        Ok(())
    }
}

impl Value<'_> for u16 {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.u16()
    }

    fn write<S: Sink>(self, sink: &mut S) -> Result<(), EncodeError> {
        sink.u16(self);
        Ok(())
    }
}

impl Value<'_> for u32 {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.u32()
    }

    fn write<S: Sink>(self, sink: &mut S) -> Result<(), EncodeError> {
        sink.u32(self);
        Ok(())
    }
}

impl Value<'_> for SubscriptionIdentifier {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::new(reader.variable_byte_integer()?).ok_or(OUT_OF_RANGE)
    }

    fn write<S: Sink>(self, sink: &mut S) -> Result<(), EncodeError> {
        sink.variable_byte_integer(self.get());
        Ok(())
    }
}

impl<'a> Value<'a> for Text<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Text::decode(reader)
    }

    fn write<S: Sink>(self, sink: &mut S) -> Result<(), EncodeError> {
        sink.text(self)
    }

    fn is_clean(self) -> bool {
        Text::is_clean(self)
    }
}

impl<'a> Value<'a> for &'a [u8] {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.binary()
    }

    fn write<S: Sink>(self, sink: &mut S) -> Result<(), EncodeError> {
        sink.binary(self)
    }
}

const OUT_OF_RANGE: DecodeError = DecodeError::InvalidPropertyValue(0);

/// Puts the identifier into an error that a [`Value`] could not name.
fn named(error: DecodeError, identifier: u32) -> DecodeError {
    if error == OUT_OF_RANGE { DecodeError::InvalidPropertyValue(identifier) } else { error }
}

fn not_zero(number: impl Into<u32>) -> Result<(), DecodeError> {
    if number.into() == 0 { Err(OUT_OF_RANGE) } else { Ok(()) }
}

fn topic_alias(alias: u16) -> Result<(), DecodeError> {
    if alias == 0 { Err(DecodeError::ZeroTopicAlias) } else { Ok(()) }
}

fn below_2(qos: QoS) -> Result<(), DecodeError> {
    if qos == QoS::ExactlyOnce { Err(OUT_OF_RANGE) } else { Ok(()) }
}

/// [5.0 MQTT-4.7.3-1] [5.0 MQTT-3.3.2-14]
fn response_topic(topic: Text<'_>) -> Result<(), DecodeError> {
    if topic.is_empty() {
        return Err(DecodeError::EmptyTopicName);
    }
    topic.check_topic_name().map_err(|error| {
        let is_wildcard = error == DecodeError::WildcardInTopicName;
        if is_wildcard { DecodeError::WildcardInResponseTopic } else { error }
    })
}

/// Declares the properties of a packet: identifier, field, type, and the check of the range where
/// the type allows more than the standard. They are written in the order of the table. A `repeated`
/// property stays in wire form.
macro_rules! properties {
    (
        $(#[$meta:meta])*
        pub struct $name:ident<'a> {
            $($(#[$field_meta:meta])* $id:literal $field:ident: $type:ty $(= $check:ident)?,)*
            $(repeated $(#[$repeated_meta:meta])* $repeated_id:ident $repeated:ident: $element:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
        #[derive(Clone, Copy, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
        pub struct $name<'a> {
            $($(#[$field_meta])* pub $field: Option<$type>,)*
            $($(#[$repeated_meta])* pub $repeated: Sequence<'a, $element>,)*
        }

        impl<'a> $name<'a> {
            /// Whether the packet has none of them.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                $(self.$field.is_none() &&)* $(self.$repeated.is_empty() &&)* true
            }

            /// Whether no string has control characters.
            pub(crate) fn is_clean(&self) -> bool {
                $(self.$field.is_none_or(Value::is_clean) &&)* $(self.$repeated.iter().all(Value::is_clean) &&)* true
            }

            /// Reads the Property Length and the properties, in place: they are too large to be
            /// moved. Nothing before 5.0, which has neither.
            #[inline(always)]
            pub(crate) fn read(&mut self, reader: &mut Reader<'a>, version: Version) -> Result<(), DecodeError> {
                // Most packets have none.
                if version < Version::V5_0 || reader.skip_zero() { Ok(()) } else { self.read_section(reader.section()?) }
            }

            /// Reads properties that have no length before them.
            pub(crate) fn read_section(&mut self, mut section: Reader<'a>) -> Result<(), DecodeError> {
                while !section.is_empty() {
                    let start = section.0;
                    let identifier = section.variable_byte_integer()?;
                    match identifier {
                        $($id => {
                            if self.$field.is_some() {
                                return Err(DecodeError::DuplicateProperty(identifier));
                            }
                            let value: $type = Value::decode(&mut section).map_err(|error| named(error, identifier))?;
                            $($check(value).map_err(|error| named(error, identifier))?;)?
                            self.$field = Some(value);
                        })*
                        $($repeated_id => {
                            if self.$repeated.is_empty() {
                                self.$repeated = Sequence::wire(start);
                            }
                            <$element as Value>::decode(&mut section).map_err(|error| named(error, identifier))?;
                        })*
                        _ => return Err(DecodeError::PropertyNotAllowed(identifier)),
                    }
                }
                Ok(())
            }

            /// Writes the Property Length and the properties; nothing before 5.0, which has
            /// neither.
            #[inline(always)]
            pub(crate) fn write<S: Sink>(&self, version: Version, sink: &mut S) -> Result<(), EncodeError> {
                let section = if version == Version::V5_0 { sink.begin_section() } else { None };
                let Some(start) = section else { return Ok(()) };
                self.write_section(sink)?;
                sink.end_section(start)
            }

            /// Writes the properties alone.
            #[inline(always)]
            pub(crate) fn write_section<S: Sink>(&self, sink: &mut S) -> Result<(), EncodeError> {
                $(if let Some(value) = self.$field {
                    $(sink.check(|| $check(value).map_err(|error| named(error, $id)))?;)?
                    sink.u8($id);
                    Value::write(value, sink)?;
                })*
                $(if !self.$repeated.is_empty() {
                    self.$repeated.write(sink)?;
                })*
                Ok(())
            }
        }

        /// The properties that are present. Authentication data is hidden.
        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut present = f.debug_struct(stringify!($name));
                $(if let Some(value) = &self.$field {
                    let value: &dyn fmt::Debug =
                        if $id == AUTHENTICATION_DATA { &Hidden } else { value };
                    present.field(stringify!($field), value);
                })*
                $(if !self.$repeated.is_empty() {
                    present.field(stringify!($repeated), &self.$repeated);
                })*
                present.finish()
            }
        }

        /// The properties that are present, as a part of a line of a log. Authentication data is
        /// hidden.
        impl fmt::Display for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut space = "";
                $(if let Some(value) = self.$field {
                    f.write_str(core::mem::replace(&mut space, " "))?;
                    f.write_str(concat!(stringify!($field), "="))?;
                    if $id == AUTHENTICATION_DATA { write!(f, "{Hidden:?}")? } else { value.show(f)? }
                })*
                $(if !self.$repeated.is_empty() {
                    f.write_str(core::mem::replace(&mut space, " "))?;
                    f.write_str(concat!(stringify!($repeated), "="))?;
                    self.$repeated.show(f)?;
                })*
                let _ = space;
                Ok(())
            }
        }
    };
}

properties! {
    /// Properties of a CONNECT packet. [5.0 §3.1.2.11]
    pub struct ConnectProperties<'a> {
        /// Seconds that the session outlives the connection; absent is 0, 0xFFFFFFFF is for ever.
        /// [5.0 §3.1.2.11.2]
        0x11 session_expiry_interval: u32,
        /// The name of the method of enhanced authentication. [5.0 §3.1.2.11.9]
        0x15 authentication_method: Text<'a>,
        /// What the method says at its start. [5.0 §3.1.2.11.10]
        0x16 authentication_data: &'a [u8],
        /// Whether reason strings and user properties may come with any packet; absent is true.
        /// [5.0 §3.1.2.11.7]
        0x17 request_problem_information: bool,
        /// Whether the server should send Response Information; absent is false. [5.0 §3.1.2.11.6]
        0x19 request_response_information: bool,
        /// QoS 1 and 2 messages that the client takes at once, at least 1; absent is 65,535. [5.0
        /// §3.1.2.11.3]
        0x21 receive_maximum: u16 = not_zero,
        /// The greatest topic alias that the client takes; absent is 0, none. [5.0 §3.1.2.11.5]
        0x22 topic_alias_maximum: u16,
        /// The largest packet in bytes that the client takes, at least 1; absent is no limit. [5.0
        /// §3.1.2.11.4]
        0x27 maximum_packet_size: u32 = not_zero,
        repeated
        /// [5.0 §3.1.2.11.8]
        USER_PROPERTY user_properties: UserProperty<'a>,
    }
}

properties! {
    /// Properties of a Will Message. [5.0 §3.1.3.2]
    pub struct WillProperties<'a> {
        /// Whether the payload is UTF-8 text; absent is false. [5.0 §3.1.3.2.3]
        0x01 payload_format_indicator: bool,
        /// Seconds that the message is worth sending once it is published; absent is for ever. [5.0
        /// §3.1.3.2.4]
        0x02 message_expiry_interval: u32,
        /// What the payload is, in words of the applications. [5.0 §3.1.3.2.5]
        0x03 content_type: Text<'a>,
        /// The topic for an answer. [5.0 §3.1.3.2.6]
        0x08 response_topic: Text<'a> = response_topic,
        /// Tells the asker which request an answer is for. [5.0 §3.1.3.2.7]
        0x09 correlation_data: &'a [u8],
        /// Seconds from the end of the connection to the publication; absent is 0. [5.0 §3.1.3.2.2]
        0x18 will_delay_interval: u32,
        repeated
        /// [5.0 §3.1.3.2.8]
        USER_PROPERTY user_properties: UserProperty<'a>,
    }
}

properties! {
    /// Properties of a CONNACK packet. [5.0 §3.2.2.3]
    pub struct ConnackProperties<'a> {
        /// Seconds that the session outlives the connection; absent is what CONNECT asked for. [5.0
        /// §3.2.2.3.2]
        0x11 session_expiry_interval: u32,
        /// The client identifier that the server chose because CONNECT had none. [5.0 §3.2.2.3.7]
        0x12 assigned_client_identifier: Text<'a>,
        /// Seconds of keep alive that the client must use in place of its own; 0 is none. [5.0
        /// §3.2.2.3.14]
        0x13 server_keep_alive: u16,
        /// The authentication method of CONNECT. [5.0 §3.2.2.3.17]
        0x15 authentication_method: Text<'a>,
        /// What the method says at its end. [5.0 §3.2.2.3.18]
        0x16 authentication_data: &'a [u8],
        /// From which the client may make response topics. [5.0 §3.2.2.3.15]
        0x1A response_information: Text<'a>,
        /// Other servers to use, separated by spaces. [5.0 §3.2.2.3.16]
        0x1C server_reference: Text<'a>,
        /// For people to read. [5.0 §3.2.2.3.9]
        0x1F reason_string: Text<'a>,
        /// QoS 1 and 2 messages that the server takes at once, at least 1; absent is 65,535. [5.0
        /// §3.2.2.3.3]
        0x21 receive_maximum: u16 = not_zero,
        /// The greatest topic alias that the server takes; absent is 0, none. [5.0 §3.2.2.3.8]
        0x22 topic_alias_maximum: u16,
        /// The greatest QoS that the server takes, 0 or 1; absent is 2. [5.0 §3.2.2.3.4]
        0x24 maximum_qos: QoS = below_2,
        /// Whether the server keeps retained messages; absent is true. [5.0 §3.2.2.3.5]
        0x25 retain_available: bool,
        /// The largest packet in bytes that the server takes, at least 1; absent is no limit. [5.0
        /// §3.2.2.3.6]
        0x27 maximum_packet_size: u32 = not_zero,
        /// Whether filters may have wildcards; absent is true. [5.0 §3.2.2.3.11]
        0x28 wildcard_subscription_available: bool,
        /// Whether subscriptions may have identifiers; absent is true. [5.0 §3.2.2.3.12]
        0x29 subscription_identifier_available: bool,
        /// Whether subscriptions may be shared; absent is true. [5.0 §3.2.2.3.13]
        0x2A shared_subscription_available: bool,
        repeated
        /// [5.0 §3.2.2.3.10]
        USER_PROPERTY user_properties: UserProperty<'a>,
    }
}

properties! {
    /// Properties of a PUBLISH packet. [5.0 §3.3.2.3]
    pub struct PublishProperties<'a> {
        /// Whether the payload is UTF-8 text; absent is false. [5.0 §3.3.2.3.2]
        0x01 payload_format_indicator: bool,
        /// Seconds that the message is worth sending; absent is for ever. [5.0 §3.3.2.3.3]
        0x02 message_expiry_interval: u32,
        /// What the payload is, in words of the applications. [5.0 §3.3.2.3.9]
        0x03 content_type: Text<'a>,
        /// The topic for an answer. [5.0 §3.3.2.3.5]
        0x08 response_topic: Text<'a> = response_topic,
        /// Tells the asker which request an answer is for. [5.0 §3.3.2.3.6]
        0x09 correlation_data: &'a [u8],
        /// The number that stands, or from now on can stand, for the topic name; at least 1. [5.0
        /// §3.3.2.3.4]
        0x23 topic_alias: u16 = topic_alias,
        repeated
        /// Those of the subscriptions for which a server sends the message. [5.0 §3.3.2.3.8]
        SUBSCRIPTION_IDENTIFIER subscription_identifiers: SubscriptionIdentifier,
        repeated
        /// [5.0 §3.3.2.3.7]
        USER_PROPERTY user_properties: UserProperty<'a>,
    }
}

properties! {
    /// Properties of the packets that acknowledge: PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and
    /// UNSUBACK. [5.0 §3.4.2.2]
    pub struct AckProperties<'a> {
        /// For people to read. [5.0 §3.4.2.2.2]
        0x1F reason_string: Text<'a>,
        repeated
        /// [5.0 §3.4.2.2.3]
        USER_PROPERTY user_properties: UserProperty<'a>,
    }
}

properties! {
    /// Properties of a SUBSCRIBE packet. [5.0 §3.8.2.1]
    pub struct SubscribeProperties<'a> {
        /// Comes with each message for the subscriptions of the packet. [5.0 §3.8.2.1.2]
        0x0B subscription_identifier: SubscriptionIdentifier,
        repeated
        /// [5.0 §3.8.2.1.3]
        USER_PROPERTY user_properties: UserProperty<'a>,
    }
}

properties! {
    /// Properties of an UNSUBSCRIBE packet. [5.0 §3.10.2.1]
    pub struct UnsubscribeProperties<'a> {
        repeated
        /// [5.0 §3.10.2.1.2]
        USER_PROPERTY user_properties: UserProperty<'a>,
    }
}

properties! {
    /// Properties of a DISCONNECT packet. [5.0 §3.14.2.2]
    pub struct DisconnectProperties<'a> {
        /// Seconds that the session outlives the connection, in place of what CONNECT asked for;
        /// from a client only. [5.0 §3.14.2.2.2]
        0x11 session_expiry_interval: u32,
        /// Other servers to use, separated by spaces; from a server only. [5.0 §3.14.2.2.5]
        0x1C server_reference: Text<'a>,
        /// For people to read. [5.0 §3.14.2.2.3]
        0x1F reason_string: Text<'a>,
        repeated
        /// [5.0 §3.14.2.2.4]
        USER_PROPERTY user_properties: UserProperty<'a>,
    }
}

properties! {
    /// Properties of an AUTH packet. [5.0 §3.15.2.2]
    pub struct AuthProperties<'a> {
        /// The authentication method of CONNECT. [5.0 §3.15.2.2.2]
        0x15 authentication_method: Text<'a>,
        /// The next step of the method. [5.0 §3.15.2.2.3]
        0x16 authentication_data: &'a [u8],
        /// For people to read. [5.0 §3.15.2.2.4]
        0x1F reason_string: Text<'a>,
        repeated
        /// [5.0 §3.15.2.2.5]
        USER_PROPERTY user_properties: UserProperty<'a>,
    }
}

impl PublishProperties<'_> {
    /// [5.0 MQTT-3.3.4-6]
    pub(crate) fn check_sender(&self, rules: Rules) -> Result<(), DecodeError> {
        if rules.sender == Some(Role::Client) && !self.subscription_identifiers.is_empty() {
            return Err(DecodeError::PropertyFromWrongSender(SUBSCRIPTION_IDENTIFIER));
        }
        Ok(())
    }
}

impl DisconnectProperties<'_> {
    /// [5.0 MQTT-3.14.2-2] [5.0 §3.14.2.2.5]
    pub(crate) fn check_sender(&self, rules: Rules) -> Result<(), DecodeError> {
        match rules.sender {
            Some(Role::Server) if self.session_expiry_interval.is_some() => {
                Err(DecodeError::PropertyFromWrongSender(0x11))
            }
            Some(Role::Client) if self.server_reference.is_some() => {
                Err(DecodeError::PropertyFromWrongSender(0x1C))
            }
            _ => Ok(()),
        }
    }
}
