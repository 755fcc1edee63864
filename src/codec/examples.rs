//! `Arbitrary` for types that cannot derive it: values with conditions, and borrowed sequences.

use super::filter::TopicFilter;
use super::packet_type::PacketType;
use super::property::{SubscriptionIdentifier, UserProperty};
use super::read::Reader;
use super::reason::ReasonCode;
use super::sequence::{Element, Sequence};
use super::subscribe::{RetainHandling, Subscription, SubscriptionOptions};
use super::text::Text;
use super::types::{QoS, Version};
use arbitrary::{Arbitrary, Result, Unstructured};

/// Draws a string that a field has room for. Few contain U+0000, which no field can have.
impl<'a> Arbitrary<'a> for Text<'a> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut text = <&str>::arbitrary(u)?;
        if text.contains('\0') && u.int_in_range(0..=31)? < 31 {
            text = text.split('\0').next().unwrap_or_default();
        }
        if text.len() > 65_535 {
            // A character has at most four bytes.
            text = (65_532..=65_535).find_map(|end| text.get(..end)).unwrap_or_default();
        }
        Ok(text.into())
    }
}

impl Arbitrary<'_> for SubscriptionIdentifier {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        Self::new(u.int_in_range(1..=268_435_455)?).ok_or(arbitrary::Error::IncorrectFormat)
    }
}

/// Fixed sample values. A `Sequence` borrows, so it cannot own generated ones.
pub(super) trait Examples<'a>: Sized + 'a {
    fn examples() -> &'a [Self];

    /// Whether the strings of the value are right. They were read without a check.
    fn is_right(&self) -> bool;
}

/// Either the first examples, or the start of arbitrary bytes that is in wire form.
impl<'a, T: Element<'a> + Examples<'a>> Arbitrary<'a> for Sequence<'a, T> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        if u.arbitrary()? {
            let examples = T::examples();
            let count = u.int_in_range(0..=examples.len())?;
            return Ok(examples.get(..count).unwrap_or_default().into());
        }
        let bytes = <&[u8]>::arbitrary(u)?;
        let mut reader = Reader(bytes);
        let mut valid = 0;
        while T::next(&mut reader, 0xFF)
            .is_ok_and(|value| value.is_some_and(|value| value.is_right()))
        {
            valid = bytes.len() - reader.0.len();
        }
        Ok(Self::wire(bytes.get(..valid).unwrap_or_default()))
    }
}

macro_rules! examples {
    ($($type:ty, $constant:ty, $is_right:expr, [$($value:expr),* $(,)?];)*) => {
        $(impl<'a> Examples<'a> for $type {
            fn examples() -> &'a [Self] {
                const VALUES: &[$constant] = &[$($value),*];
                VALUES
            }

            fn is_right(&self) -> bool {
                let is_right: fn(&Self) -> bool = $is_right;
                is_right(self)
            }
        })*
    };
}

const fn subscription(topic_filter: &'static str, no_local: bool) -> Subscription<'static> {
    let options = SubscriptionOptions {
        maximum_qos: QoS::ExactlyOnce,
        no_local,
        retain_as_published: true,
        retain_handling: RetainHandling::SendIfNew,
    };
    Subscription { topic_filter: Text::literal(topic_filter), options }
}

const fn plain(topic_filter: &'static str, maximum_qos: QoS) -> Subscription<'static> {
    let options = SubscriptionOptions {
        maximum_qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    Subscription { topic_filter: Text::literal(topic_filter), options }
}

fn is_text(text: Text<'_>) -> bool {
    core::str::from_utf8(text.as_bytes()).is_ok_and(|text| !text.contains('\0'))
}

fn is_filter(text: Text<'_>) -> bool {
    is_text(text) && TopicFilter::new(text.to_str(), Version::V3_1_1).is_ok()
}

// The last values of a list are invalid where they can be encoded.
examples! {
    UserProperty<'a>, UserProperty<'_>, |property| is_text(property.name) && is_text(property.value), [
        UserProperty { name: Text::literal("a"), value: Text::literal("b") },
        UserProperty { name: Text::literal(""), value: Text::literal("\u{20AC}") },
        UserProperty { name: Text::literal("a"), value: Text::literal("") },
    ];
    Subscription<'a>, Subscription<'_>, |subscription| is_filter(subscription.topic_filter), [
        subscription("a/+/#", true),
        subscription("$share/g/x", false),
        subscription("$share/g/x", true),
    ];
    Text<'a>, Text<'_>, |text| is_filter(*text), [
        Text::literal("a"),
        Text::literal("#"),
        Text::literal("$share//x"),
        Text::literal(""),
    ];
    ReasonCode, ReasonCode, |_| true, [ReasonCode::SUCCESS, ReasonCode::NOT_AUTHORIZED, ReasonCode::new(0x03)];
    SubscriptionIdentifier, SubscriptionIdentifier, |_| true, [SubscriptionIdentifier::MAX, SubscriptionIdentifier::MAX];
}

/// Returns subscriptions that are valid, also before 5.0 unless `v5`.
pub(super) const fn subscriptions(v5: bool) -> &'static [Subscription<'static>] {
    const ANY: &[Subscription<'_>] = &[
        plain("a", QoS::AtMostOnce),
        plain("a/b/+", QoS::AtLeastOnce),
        plain("#", QoS::ExactlyOnce),
        plain("/", QoS::AtLeastOnce),
        plain("$SYS/+/\u{20AC}/#", QoS::AtMostOnce),
    ];
    const V5: &[Subscription<'_>] = &[
        subscription("a/+/#", true),
        plain("a", QoS::AtMostOnce),
        subscription("$share/g/x", false),
        plain("#", QoS::ExactlyOnce),
        subscription("+", true),
        plain("$share/g//", QoS::AtLeastOnce),
    ];
    if v5 { V5 } else { ANY }
}

/// Returns topic filters that are valid in each version.
pub(super) const fn filters() -> &'static [Text<'static>] {
    const FILTERS: &[Text<'_>] = &[
        Text::literal("a"),
        Text::literal("a/+/#"),
        Text::literal("$share/g/x"),
        Text::literal("#"),
        Text::literal("//\u{20AC}"),
    ];
    FILTERS
}

/// Returns reason codes that a SUBACK or UNSUBACK can carry, which has codes in this version.
pub(super) const fn suback_codes(packet: PacketType, version: Version) -> &'static [ReasonCode] {
    const GRANTED: &[ReasonCode] =
        &[ReasonCode::SUCCESS, ReasonCode::GRANTED_QOS_1, ReasonCode::GRANTED_QOS_2];
    const OLD: &[ReasonCode] = &[
        ReasonCode::UNSPECIFIED_ERROR,
        ReasonCode::GRANTED_QOS_2,
        ReasonCode::GRANTED_QOS_1,
        ReasonCode::SUCCESS,
    ];
    const SUBACK: &[ReasonCode] = &[
        ReasonCode::GRANTED_QOS_1,
        ReasonCode::NOT_AUTHORIZED,
        ReasonCode::SUCCESS,
        ReasonCode::QUOTA_EXCEEDED,
        ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
    ];
    const UNSUBACK: &[ReasonCode] = &[
        ReasonCode::NO_SUBSCRIPTION_EXISTED,
        ReasonCode::SUCCESS,
        ReasonCode::NOT_AUTHORIZED,
        ReasonCode::PACKET_IDENTIFIER_IN_USE,
    ];
    match (packet, version) {
        (PacketType::Suback, Version::V5_0) => SUBACK,
        (PacketType::Suback, Version::V3_1_1) => OLD,
        (PacketType::Suback, Version::V3_1) => GRANTED,
        _ => UNSUBACK,
    }
}
