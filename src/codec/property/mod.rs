//! The 27 properties of 5.0: their values, and one struct for each packet. `tables` lists them.
//! [5.0 §2.2.2]

#![expect(
    clippy::inline_always,
    reason = "measured: without it a PUBLISH with 5 properties takes more instructions to decode"
)]

use crate::codec::error::DecodeError;
use crate::codec::read::Reader;
use crate::codec::rules::Rules;
use crate::codec::sequence::{Element, Sequence};
use crate::codec::shown::{Hidden, Show, Shown};
use crate::codec::text::{Text, in_response_topic};
use crate::codec::types::{QoS, Version};
use crate::codec::write::Sink;
use core::fmt;

/// A User Property: a name and a value. The same name can appear more than once. [5.0 §2.2.2.2]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct UserProperty<'a> {
    /// The name.
    pub name: Text<'a>,
    /// The value.
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
    #[inline]
    fn decode(reader: &mut Reader<'a>, _: u32, is_checked: bool) -> Result<Self, DecodeError> {
        let name = Text::read(reader, is_checked)?;
        Ok(Self { name, value: Text::read(reader, is_checked)? })
    }

    fn skip(reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        reader.binary().and_then(|_| reader.binary()).map(|_| ())
    }

    #[inline(always)]
    fn write<S: Sink>(self, identifier: u8, sink: &mut S) {
        sink.check_text(self.name);
        sink.field_property(identifier, self.name.as_bytes());
        sink.text(self.value);
    }

    fn is_clean(self) -> bool {
        self.name.is_clean() && self.value.is_clean()
    }
}

/// A Subscription Identifier, 1 to 268,435,455: the number that a client assigns to a subscription,
/// and that the server adds to each message for it. [5.0 §3.8.2.1.2]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "u32", into = "u32")
)]
pub struct SubscriptionIdentifier(core::num::NonZeroU32);

impl SubscriptionIdentifier {
    /// 268,435,455, the greatest.
    pub const MAX: Self = Self(core::num::NonZeroU32::MIN.saturating_add(268_435_454));

    /// Returns the identifier of a number that is neither zero nor too large.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match core::num::NonZeroU32::new(number) {
            Some(value) if number <= 268_435_455 => Some(Self(value)),
            _ => None,
        }
    }

    /// Returns the number.
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

#[cfg(feature = "serde")]
crate::codec::entry::plain_properties! { SubscriptionIdentifier }

/// Implements the iteration over a property that repeats.
macro_rules! repeated_properties {
    ($($type:ty: $property:ident, $decode_again:expr;)*) => {
        $(impl<'a> Element<'a> for $type {
            /// Reads the next one of a section that was checked, and that holds others as well.
            fn next(reader: &mut Reader<'a>, _: u8) -> Result<Option<Self>, DecodeError> {
                while !reader.is_empty() {
                    let identifier = reader.variable_byte_integer()?;
                    if identifier == tables::$property::ID {
                        return $decode_again(reader).map(Some);
                    }
                    tables::skip(identifier, reader)?;
                }
                Ok(None)
            }
        })*
    };
}

repeated_properties! {
    UserProperty<'a>: user_property, |reader: &mut Reader<'a>| {
        Ok(Self { name: Text::decode_again(reader)?, value: Text::decode_again(reader)? })
    };
    SubscriptionIdentifier: subscription_identifier, |reader: &mut Reader<'a>| {
        Value::decode(reader, tables::subscription_identifier::ID, true)
    };
}

/// The type of the value of a property.
trait Value<'a>: Copy {
    /// Reads a value, and checks its strings unless they were decoded before. `identifier` is that
    /// of the property, for the error.
    fn decode(
        reader: &mut Reader<'a>,
        identifier: u32,
        is_checked: bool,
    ) -> Result<Self, DecodeError>;

    /// Skips a value that was checked.
    fn skip(reader: &mut Reader<'a>) -> Result<(), DecodeError>;

    /// Writes the property with this identifier.
    fn write<S: Sink>(self, identifier: u8, sink: &mut S);

    /// Whether the strings of the value have no control characters or noncharacters.
    fn is_clean(self) -> bool {
        true
    }
}

impl Value<'_> for bool {
    fn decode(reader: &mut Reader<'_>, identifier: u32, _: bool) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::InvalidPropertyValue(identifier)),
        }
    }

    fn skip(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        reader.take(1).map(|_| ())
    }

    #[inline(always)]
    fn write<S: Sink>(self, identifier: u8, sink: &mut S) {
        sink.bytes([identifier, self.into()]);
    }
}

impl Value<'_> for QoS {
    fn decode(reader: &mut Reader<'_>, identifier: u32, _: bool) -> Result<Self, DecodeError> {
        Self::from_u8(reader.u8()?).ok_or(DecodeError::InvalidPropertyValue(identifier))
    }

    fn skip(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        reader.take(1).map(|_| ())
    }

    #[inline(always)]
    fn write<S: Sink>(self, identifier: u8, sink: &mut S) {
        sink.bytes([identifier, self.as_u8()]);
    }
}

impl Value<'_> for u16 {
    fn decode(reader: &mut Reader<'_>, _: u32, _: bool) -> Result<Self, DecodeError> {
        reader.u16()
    }

    fn skip(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        reader.take(2).map(|_| ())
    }

    #[inline(always)]
    fn write<S: Sink>(self, identifier: u8, sink: &mut S) {
        let [a, b] = self.to_be_bytes();
        sink.bytes([identifier, a, b]);
    }
}

impl Value<'_> for u32 {
    fn decode(reader: &mut Reader<'_>, _: u32, _: bool) -> Result<Self, DecodeError> {
        reader.u32()
    }

    fn skip(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        reader.take(4).map(|_| ())
    }

    #[inline(always)]
    fn write<S: Sink>(self, identifier: u8, sink: &mut S) {
        let [a, b, c, d] = self.to_be_bytes();
        sink.bytes([identifier, a, b, c, d]);
    }
}

impl Value<'_> for SubscriptionIdentifier {
    fn decode(reader: &mut Reader<'_>, identifier: u32, _: bool) -> Result<Self, DecodeError> {
        Self::new(reader.variable_byte_integer()?)
            .ok_or(DecodeError::InvalidPropertyValue(identifier))
    }

    fn skip(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        reader.variable_byte_integer().map(|_| ())
    }

    #[inline(always)]
    fn write<S: Sink>(self, identifier: u8, sink: &mut S) {
        sink.u8(identifier);
        sink.variable_byte_integer(self.get());
    }
}

impl<'a> Value<'a> for Text<'a> {
    #[inline]
    fn decode(
        reader: &mut Reader<'a>,
        identifier: u32,
        is_checked: bool,
    ) -> Result<Self, DecodeError> {
        if identifier == tables::response_topic::ID {
            Text::read_response_topic(reader, is_checked)
        } else {
            Text::read(reader, is_checked)
        }
    }

    fn skip(reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        reader.binary().map(|_| ())
    }

    #[inline(always)]
    fn write<S: Sink>(self, identifier: u8, sink: &mut S) {
        sink.check_text(self);
        sink.field_property(identifier, self.as_bytes());
    }

    fn is_clean(self) -> bool {
        Text::is_clean(self)
    }
}

impl<'a> Value<'a> for &'a [u8] {
    fn decode(reader: &mut Reader<'a>, _: u32, _: bool) -> Result<Self, DecodeError> {
        reader.binary()
    }

    fn skip(reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        reader.binary().map(|_| ())
    }

    #[inline(always)]
    fn write<S: Sink>(self, identifier: u8, sink: &mut S) {
        sink.check_length(self);
        sink.field_property(identifier, self);
    }
}

fn check_not_zero(number: impl Into<u32>, identifier: u32) -> Result<(), DecodeError> {
    if number.into() == 0 { Err(DecodeError::InvalidPropertyValue(identifier)) } else { Ok(()) }
}

fn check_topic_alias(alias: u16, _: u32) -> Result<(), DecodeError> {
    if alias == 0 { Err(DecodeError::ZeroTopicAlias) } else { Ok(()) }
}

fn check_below_2(qos: QoS, identifier: u32) -> Result<(), DecodeError> {
    let refused = qos == QoS::ExactlyOnce;
    if refused { Err(DecodeError::InvalidPropertyValue(identifier)) } else { Ok(()) }
}

/// Refuses a Response Topic that is not a Topic Name. [5.0 MQTT-4.7.3-1] [5.0 MQTT-3.3.2-14]
fn check_response_topic(topic: Text<'_>, _: u32) -> Result<(), DecodeError> {
    if topic.is_empty() {
        return Err(DecodeError::EmptyTopicName);
    }
    topic.check_wildcards().map_err(in_response_topic)
}

/// Declares all properties: identifier, name, type, and the check of the value where the type
/// allows more than the standard.
macro_rules! property_list {
    ($($id:literal $name:ident: $type:ty $(= $check:ident)?;)*) => {
        $(pub(super) mod $name {
            use crate::codec::property::*;

            pub(crate) const ID: u32 = $id;
            /// The identifier as it is written: each is less than 0x80.
            pub(crate) const BYTE: u8 = $id;

            #[allow(clippy::extra_unused_lifetimes, reason = "some types have none")]
            #[inline(always)]
            pub(super) fn check<'a>(_value: $type) -> Result<(), DecodeError> {
                $($check(_value, ID)?;)?
                Ok(())
            }
        })*

        /// Names the type of a property.
        macro_rules! property_type {
            $(($name) => { $type };)*
        }

        /// Skips the value of a property that was checked.
        pub(super) fn skip<'a>(
            identifier: u32,
            reader: &mut Reader<'a>,
        ) -> Result<(), DecodeError> {
            match identifier {
                $($name::ID => <$type as Value>::skip(reader),)*
                _ => Err(DecodeError::PropertyNotAllowed(identifier)),
            }
        }
    };
}

/// Declares the properties of a packet, in the order in which they are written. A `repeated`
/// property stays in wire form.
macro_rules! properties {
    (
        $(#[$meta:meta])*
        pub struct $name:ident<'a> {
            $($(#[$field_meta:meta])* $field:ident,)*
        } repeated {
            $($(#[$repeated_meta:meta])* $repeated:ident: $element:ident,)*
        }
    ) => {
        $(#[$meta])*
        #[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
        #[derive(Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name<'a> {
            $($(#[$field_meta])* pub $field: Option<property_type!($field)>,)*
            $($(#[$repeated_meta])* pub $repeated: Sequence<'a, property_type!($element)>,)*
        }

        impl<'a> $name<'a> {
            /// Whether there are no properties.
            #[must_use]
            #[inline]
            pub fn is_empty(&self) -> bool {
                $(self.$field.is_none() &&)* $(self.$repeated.is_empty() &&)* true
            }

            /// Whether no string has control characters or noncharacters.
            pub(crate) fn is_clean(&self) -> bool {
                $(self.$field.is_none_or(Value::is_clean) &&)*
                $(self.$repeated.iter().all(Value::is_clean) &&)*
                true
            }

            /// Reads the Property Length and the properties into `self`, because moving them costs
            /// more than reading them. Reads nothing before 5.0, which has neither.
            #[inline(always)]
            pub(crate) fn read(
                &mut self,
                reader: &mut Reader<'a>,
                rules: Rules,
            ) -> Result<(), DecodeError> {
                // Most packets have none.
                if rules.version < Version::V5_0 || reader.skip_zero() {
                    return Ok(());
                }
                self.read_section(reader.section()?, rules.is_checked)
            }

            /// Reads properties that have no length before them.
            pub(crate) fn read_section(
                &mut self,
                mut section: Reader<'a>,
                is_checked: bool,
            ) -> Result<(), DecodeError> {
                while !section.is_empty() {
                    let start = section.0;
                    let identifier = section.variable_byte_integer()?;
                    match identifier {
                        $($field::ID => {
                            if self.$field.is_some() {
                                return Err(DecodeError::DuplicateProperty(identifier));
                            }
                            let value = Value::decode(&mut section, $field::ID, is_checked)?;
                            $field::check(value)?;
                            self.$field = Some(value);
                        })*
                        $($element::ID => {
                            if self.$repeated.is_empty() {
                                self.$repeated = Sequence::wire(start);
                            }
                            if is_checked {
                                <property_type!($element) as Value>::skip(&mut section)?;
                                continue;
                            }
                            let value: property_type!($element) =
                                Value::decode(&mut section, $element::ID, false)?;
                            $element::check(value)?;
                        })*
                        _ => return Err(DecodeError::PropertyNotAllowed(identifier)),
                    }
                }
                Ok(())
            }

            /// Writes the Property Length and the properties, or nothing before 5.0, which has
            /// neither.
            #[inline(always)]
            pub(crate) fn write<S: Sink>(
                &self,
                version: Version,
                sink: &mut S,
            ) {
                if version < Version::V5_0 {
                    return;
                }
                if let Some(start) = sink.begin_section() {
                    self.write_section(sink);
                    sink.end_section(start);
                }
            }

            /// Writes the properties without a length before them.
            #[inline(always)]
            pub(crate) fn write_section<S: Sink>(&self, sink: &mut S) {
                $(if let Some(value) = self.$field {
                    sink.check(|| $field::check(value));
                    Value::write(value, $field::BYTE, sink);
                })*
                $(if !self.$repeated.is_empty() {
                    self.$repeated.write(sink, |value, sink| value.write($element::BYTE, sink));
                })*
            }
        }

        /// Draws properties. A value that its property cannot have is left out.
        #[cfg(feature = "arbitrary")]
        impl<'a> arbitrary::Arbitrary<'a> for $name<'a> {
            fn arbitrary(u: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
                Ok(Self {
                    $($field: u
                        .arbitrary::<Option<property_type!($field)>>()?
                        .filter(|value| $field::check(*value).is_ok()),)*
                    $($repeated: u.arbitrary()?,)*
                })
            }
        }

        /// Serializes the properties that are present. Authentication data is hidden.
        #[cfg(feature = "serde")]
        impl serde::Serialize for $name<'_> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                #[allow(unused_imports, reason = "one packet has no such property")]
                use crate::codec::entry::{HIDDEN, Property as _};
                use serde::ser::SerializeMap as _;
                let mut map = serializer.serialize_map(None)?;
                $(match self.$field {
                    Some(_) if $field::ID == authentication_data::ID => {
                        map.serialize_entry(stringify!($field), HIDDEN)?;
                    }
                    Some(value) => value.add_to(&mut map, stringify!($field))?,
                    None => {}
                })*
                $(if !self.$repeated.is_empty() {
                    map.serialize_entry(stringify!($repeated), &self.$repeated)?;
                })*
                map.end()
            }
        }

        /// The properties that are present. Authentication data is hidden.
        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut present = f.debug_struct(stringify!($name));
                $(if let Some(value) = &self.$field {
                    let value: &dyn fmt::Debug =
                        if $field::ID == authentication_data::ID { &Hidden } else { value };
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
                    if $field::ID == authentication_data::ID {
                        write!(f, "{Hidden:?}")?;
                    } else {
                        value.show(f)?;
                    }
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

#[macro_use]
mod tables;

pub use tables::{
    AckProperties, AuthProperties, ConnackProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SubscribeProperties, UnsubscribeProperties, WillProperties,
};

impl PublishProperties<'_> {
    /// Refuses Subscription Identifiers from a client. [5.0 MQTT-3.3.4-6]
    pub(crate) fn check_sender(&self, rules: Rules) -> Result<(), DecodeError> {
        let allowed = rules.from_server || self.subscription_identifiers.is_empty();
        allow_from_sender(allowed, tables::subscription_identifier::ID)
    }
}

impl DisconnectProperties<'_> {
    /// Refuses a property that only the other side can send. [5.0 MQTT-3.14.2-2]
    /// [5.0 §3.14.2.2.5]
    pub(crate) fn check_sender(&self, rules: Rules) -> Result<(), DecodeError> {
        let allowed = rules.from_client || self.session_expiry_interval.is_none();
        allow_from_sender(allowed, tables::session_expiry_interval::ID)?;
        let allowed = rules.from_server || self.server_reference.is_none();
        allow_from_sender(allowed, tables::server_reference::ID)
    }
}

fn allow_from_sender(allowed: bool, identifier: u32) -> Result<(), DecodeError> {
    if allowed { Ok(()) } else { Err(DecodeError::PropertyFromWrongSender(identifier)) }
}
