//! SUBSCRIBE and UNSUBSCRIBE: lists of topic filters. [5.0 §3.8] [5.0 §3.10] [3.1.1 §3.8]
//! [3.1.1 §3.10]
//!
//! | field             | bytes | SUBSCRIBE | UNSUBSCRIBE |
//! |-------------------|-------|-----------|-------------|
//! | packet identifier | 2     | always    | always      |
//! | properties        | n     | 5.0       | 5.0         |
//! | topic filter      | 2 + n | one or more | one or more |
//! | options           | 1     | after each filter; before 5.0 only the QoS | never |

#![expect(
    clippy::inline_always,
    reason = "measured: without it packets take 5 to 15 % more instructions to encode"
)]

use super::body::Body;
use super::error::{DecodeError, EncodeError};
use super::filter::{SHARE, TopicFilter};
use super::options::Options;
use super::packet_type::PacketType;
use super::property::{SubscribeProperties, UnsubscribeProperties};
use super::read::Reader;
use super::rules::Rules;
use super::sequence::{Element, Sequence};
use super::text::Text;
use super::types::{PacketIdentifier, QoS, Role, Version};
use super::write::Sink;

/// A SUBSCRIBE packet. [5.0 §3.8] [3.1.1 §3.8]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// The packet identifier, which the SUBACK repeats.
    pub packet_identifier: PacketIdentifier,
    /// The properties; always empty before 5.0.
    pub properties: SubscribeProperties<'a>,
    /// The subscriptions, at least one. [5.0 MQTT-3.8.3-2] [3.1.1 MQTT-3.8.3-3]
    pub subscriptions: Sequence<'a, Subscription<'a>>,
}

/// A topic filter, and how the server sends messages for it. [5.0 §3.8.3.1] [3.1.1 §3.8.3]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct Subscription<'a> {
    /// The topic filter, not checked yet: its syntax depends on the version.
    pub topic_filter: Text<'a>,
    /// How the server sends messages for the filter.
    pub options: SubscriptionOptions,
}

impl<'a> Subscription<'a> {
    /// Makes a subscription with a maximum QoS and the default for all other options.
    #[must_use]
    pub fn new(topic_filter: impl Into<Text<'a>>, maximum_qos: QoS) -> Self {
        let options = SubscriptionOptions { maximum_qos, ..SubscriptionOptions::default() };
        Self { topic_filter: topic_filter.into(), options }
    }
}

/// The Subscription Options. [5.0 §3.8.3.1]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct SubscriptionOptions {
    /// The greatest QoS at which the server sends messages; the only option before 5.0.
    pub maximum_qos: QoS,
    /// Whether the server omits the client's own messages; not with a shared subscription.
    /// [5.0 MQTT-3.8.3-4]
    pub no_local: bool,
    /// Whether the server keeps the RETAIN flag as it was published. [5.0 MQTT-3.3.1-13]
    pub retain_as_published: bool,
    /// When the server sends retained messages.
    pub retain_handling: RetainHandling,
}

/// When the server sends retained messages for a subscription. [5.0 §3.8.3.1]
#[expect(clippy::exhaustive_enums, reason = "the standard has closed the set")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum RetainHandling {
    /// 0: at each SUBSCRIBE.
    #[default]
    Send,
    /// 1: only if the subscription is new.
    SendIfNew,
    /// 2: never.
    DoNotSend,
}

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;

impl SubscriptionOptions {
    fn decode(byte: u8, rules: Rules) -> Result<Self, DecodeError> {
        let byte = byte & rules.subscription_bits();
        let reserved = if rules.version == Version::V5_0 { 0xC0 } else { 0xFC };
        if byte & reserved != 0 {
            return Err(DecodeError::SubscribeReservedBits);
        }
        Ok(Self {
            maximum_qos: QoS::from_u8(byte & 3).ok_or(DecodeError::InvalidSubscriptionQos)?,
            no_local: byte & NO_LOCAL != 0,
            retain_as_published: byte & RETAIN_AS_PUBLISHED != 0,
            retain_handling: match byte >> 4 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(DecodeError::InvalidRetainHandling),
            },
        })
    }

    #[inline(always)]
    fn as_u8(self) -> u8 {
        let no_local = u8::from(self.no_local) * NO_LOCAL;
        let retain_as_published = u8::from(self.retain_as_published) * RETAIN_AS_PUBLISHED;
        let retain_handling = (self.retain_handling as u8) << 4;
        retain_handling | retain_as_published | no_local | self.maximum_qos.as_u8()
    }
}

/// Reads the byte of a 5.0 SUBSCRIBE, of which a 3.1 or 3.1.1 one has the lowest two bits.
///
/// ```
/// use mqtt_sansio::codec::{DecodeError, SubscriptionOptions};
///
/// let options = SubscriptionOptions::try_from(0x05)?;
/// assert!(options.no_local);
/// assert_eq!(u8::from(options), 0x05);
/// let error = SubscriptionOptions::try_from(0x03);
/// assert_eq!(error, Err(DecodeError::InvalidSubscriptionQos));
/// # Ok::<_, DecodeError>(())
/// ```
impl TryFrom<u8> for SubscriptionOptions {
    type Error = DecodeError;

    fn try_from(byte: u8) -> Result<Self, DecodeError> {
        Self::decode(byte, Version::V5_0.into())
    }
}

impl From<SubscriptionOptions> for u8 {
    fn from(options: SubscriptionOptions) -> Self {
        options.as_u8()
    }
}

impl<'a> Subscription<'a> {
    /// Checks the next subscription of a packet.
    fn decode(r: &mut Reader<'a>, rules: Rules) -> Result<(), DecodeError> {
        let topic_filter = TopicFilter::decode(r, rules.version)?;
        let options = SubscriptionOptions::decode(r.u8()?, rules)?;
        check_subscription(topic_filter, options, rules)
    }
}

#[inline(always)]
fn check_subscription(
    topic_filter: &[u8],
    options: SubscriptionOptions,
    rules: Rules,
) -> Result<(), DecodeError> {
    if options.no_local && topic_filter.starts_with(SHARE) {
        return Err(DecodeError::NoLocalOnSharedSubscription);
    }
    rules.check_texts(|| Text::assume_checked(topic_filter).is_clean())
}

impl<'a> Element<'a> for Subscription<'a> {
    fn next(r: &mut Reader<'a>, bits: u8) -> Result<Option<Self>, DecodeError> {
        if r.is_empty() {
            return Ok(None);
        }
        // Before 5.0 the bits that only 5.0 uses are zero or do not count, so its rules read all
        // versions.
        let topic_filter = Text::assume_filter(r.binary()?);
        Ok(Some(Self { topic_filter, options: (r.u8()? & bits).try_into()? }))
    }
}

impl<'a> Element<'a> for Text<'a> {
    fn next(r: &mut Reader<'a>, _: u8) -> Result<Option<Self>, DecodeError> {
        if r.is_empty() { Ok(None) } else { r.binary().map(Text::assume_filter).map(Some) }
    }
}

impl<'a> Subscribe<'a> {
    /// Makes a SUBSCRIBE without properties.
    ///
    /// ```
    /// use mqtt_sansio::codec::{PacketIdentifier, QoS, Subscribe, Subscription};
    ///
    /// let subscriptions = [Subscription::new("room/+/temperature", QoS::AtLeastOnce)];
    /// let subscribe = Subscribe::new(PacketIdentifier::try_from(7)?, &subscriptions);
    /// assert_eq!(subscribe.subscriptions.len(), 1);
    /// # Ok::<_, mqtt_sansio::codec::ConversionError>(())
    /// ```
    #[must_use]
    pub fn new(
        packet_identifier: PacketIdentifier,
        subscriptions: impl Into<Sequence<'a, Subscription<'a>>>,
    ) -> Self {
        let (properties, subscriptions) = (SubscribeProperties::default(), subscriptions.into());
        Self { packet_identifier, properties, subscriptions }
    }

    pub(crate) fn read(&mut self, mut r: Reader<'a>, rules: Rules) -> Result<(), DecodeError> {
        rules.only_from(Role::Client)?;
        self.packet_identifier = r.packet_identifier()?;
        self.properties.read(&mut r, rules)?;
        let bits = rules.subscription_bits();
        self.subscriptions = decode_list(r, bits, rules, |r| Subscription::decode(r, rules))?;
        rules.check_texts(|| self.properties.is_clean())
    }
}

impl Body for &Subscribe<'_> {
    #[inline(always)]
    fn first_byte(self) -> u8 {
        PacketType::Subscribe.first_byte()
    }

    #[inline(always)]
    fn check(self, rules: Rules) -> Result<(), EncodeError> {
        rules.only_from(Role::Client)?;
        rules.since_5_0_if(|| !self.properties.is_empty())?;
        rules.check_texts(|| self.properties.is_clean())?;
        not_empty(self.subscriptions)
    }

    #[inline(always)]
    fn write<S: Sink>(self, sink: &mut S, rules: Rules) {
        sink.u16(self.packet_identifier.get());
        self.properties.write(rules.version, sink);
        let mut are_simple = rules.options == Options::NONE;
        self.subscriptions.write(sink, |Subscription { topic_filter, options }, sink| {
            are_simple &= is_simple(topic_filter);
            sink.list_field(topic_filter.as_bytes());
            sink.u8(options.as_u8());
        });
        sink.check(|| {
            let is_simple =
                are_simple && (rules.version == Version::V5_0 || have_only_qos(self.subscriptions));
            if is_simple { Ok(()) } else { check_subscriptions(self.subscriptions, rules) }
        });
    }
}

/// Whether the options are such that versions before 5.0 have them.
#[inline(never)]
fn have_only_qos(subscriptions: Sequence<'_, Subscription<'_>>) -> bool {
    subscriptions.iter().all(|subscription| subscription.options.as_u8() <= 2)
}

#[inline(never)]
fn check_subscriptions(
    subscriptions: Sequence<'_, Subscription<'_>>,
    rules: Rules,
) -> Result<(), EncodeError> {
    subscriptions.iter().try_for_each(|Subscription { topic_filter, options }| {
        TopicFilter::check(topic_filter, rules.version)?;
        rules.since_5_0_if(|| options.as_u8() > 2)?;
        Ok(check_subscription(topic_filter.as_bytes(), options, rules)?)
    })
}

/// An UNSUBSCRIBE packet. [5.0 §3.10] [3.1.1 §3.10]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// The packet identifier, which the UNSUBACK repeats.
    pub packet_identifier: PacketIdentifier,
    /// The properties; always empty before 5.0.
    pub properties: UnsubscribeProperties<'a>,
    /// The topic filters, at least one. [5.0 MQTT-3.10.3-2] [3.1.1 MQTT-3.10.3-2]
    pub topic_filters: Sequence<'a, Text<'a>>,
}

impl<'a> Unsubscribe<'a> {
    /// Makes an UNSUBSCRIBE without properties.
    ///
    /// ```
    /// use mqtt_sansio::codec::{PacketIdentifier, Text, Unsubscribe};
    ///
    /// let topic_filters = [Text::from("room/4/#")];
    /// let unsubscribe = Unsubscribe::new(PacketIdentifier::try_from(7)?, &topic_filters);
    /// assert_eq!(unsubscribe.topic_filters.first(), Some("room/4/#".into()));
    /// # Ok::<_, mqtt_sansio::codec::ConversionError>(())
    /// ```
    #[must_use]
    pub fn new(
        packet_identifier: PacketIdentifier,
        topic_filters: impl Into<Sequence<'a, Text<'a>>>,
    ) -> Self {
        let (properties, topic_filters) = (UnsubscribeProperties::default(), topic_filters.into());
        Self { packet_identifier, properties, topic_filters }
    }

    pub(crate) fn read(&mut self, mut r: Reader<'a>, rules: Rules) -> Result<(), DecodeError> {
        rules.only_from(Role::Client)?;
        self.packet_identifier = r.packet_identifier()?;
        self.properties.read(&mut r, rules)?;
        self.topic_filters = decode_list(r, 0xFF, rules, |r| {
            let filter = TopicFilter::decode(r, rules.version)?;
            rules.check_texts(|| Text::assume_checked(filter).is_clean())
        })?;
        rules.check_texts(|| self.properties.is_clean())
    }
}

impl Body for &Unsubscribe<'_> {
    #[inline(always)]
    fn first_byte(self) -> u8 {
        PacketType::Unsubscribe.first_byte()
    }

    #[inline(always)]
    fn check(self, rules: Rules) -> Result<(), EncodeError> {
        rules.only_from(Role::Client)?;
        rules.since_5_0_if(|| !self.properties.is_empty())?;
        rules.check_texts(|| self.properties.is_clean())?;
        not_empty(self.topic_filters)
    }

    #[inline(always)]
    fn write<S: Sink>(self, sink: &mut S, rules: Rules) {
        sink.u16(self.packet_identifier.get());
        self.properties.write(rules.version, sink);
        let mut are_simple = rules.options == Options::NONE;
        self.topic_filters.write(sink, |filter, sink| {
            are_simple &= is_simple(filter);
            sink.list_field(filter.as_bytes());
        });
        sink.check(|| if are_simple { Ok(()) } else { check_filters(self.topic_filters, rules) });
    }
}

#[inline(never)]
fn check_filters(filters: Sequence<'_, Text<'_>>, rules: Rules) -> Result<(), EncodeError> {
    filters.iter().try_for_each(|filter| {
        TopicFilter::check(filter, rules.version)?;
        Ok(rules.check_texts(|| filter.is_clean())?)
    })
}

/// Checks the rest of the packet as a list that is not empty, unless it was decoded before.
#[inline(always)]
fn decode_list<'a, T: Element<'a>>(
    mut r: Reader<'a>,
    bits: u8,
    rules: Rules,
    check: impl Fn(&mut Reader<'a>) -> Result<(), DecodeError>,
) -> Result<Sequence<'a, T>, DecodeError> {
    if r.is_empty() {
        return Err(DecodeError::EmptySubscribe);
    }
    let list = Sequence::masked_wire(r.0, bits);
    while !rules.is_checked && !r.is_empty() {
        check(&mut r)?;
    }
    Ok(list)
}

/// Whether a filter was checked by rules that do not depend on the version.
#[inline(always)]
fn is_simple(filter: Text<'_>) -> bool {
    let bytes = filter.as_bytes();
    filter.is_filter() && !(bytes.first() == Some(&b'$') && bytes.starts_with(SHARE))
}

fn not_empty<'a, T: Element<'a>>(list: Sequence<'a, T>) -> Result<(), EncodeError> {
    if list.is_empty() { Err(DecodeError::EmptySubscribe.into()) } else { Ok(()) }
}
