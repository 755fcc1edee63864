//! `Arbitrary` for types that cannot derive it: values with conditions, and borrowed sequences.

use super::property::{SubscriptionIdentifier, UserProperty};
use super::read::Reader;
use super::reason::ReasonCode;
use super::sequence::{Element, Sequence};
use super::subscribe::{RetainHandling, Subscription, SubscriptionOptions};
use super::text::Text;
use super::types::QoS;
use arbitrary::{Arbitrary, Result, Unstructured};

impl<'a> Arbitrary<'a> for Text<'a> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        <&str>::arbitrary(u).map(Self::from)
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

    /// Whether the strings of the value are UTF-8. They were read without a check.
    fn is_text(&self) -> bool;
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
            .is_ok_and(|value| value.is_some_and(|value| value.is_text()))
        {
            valid = bytes.len() - reader.0.len();
        }
        Ok(Self::wire(bytes.get(..valid).unwrap_or_default()))
    }
}

macro_rules! examples {
    ($($type:ty, $constant:ty, $is_text:expr, [$($value:expr),* $(,)?];)*) => {
        $(impl<'a> Examples<'a> for $type {
            fn examples() -> &'a [Self] {
                const VALUES: &[$constant] = &[$($value),*];
                VALUES
            }

            fn is_text(&self) -> bool {
                let is_text: fn(&Self) -> bool = $is_text;
                is_text(self)
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

fn is_utf8(text: Text<'_>) -> bool {
    core::str::from_utf8(text.as_bytes()).is_ok()
}

// The last values of a list are invalid where they can be encoded.
examples! {
    UserProperty<'a>, UserProperty<'_>, |property| is_utf8(property.name) && is_utf8(property.value), [
        UserProperty { name: Text::literal("a"), value: Text::literal("b") },
        UserProperty { name: Text::literal(""), value: Text::literal("\u{20AC}") },
        UserProperty { name: Text::literal("a"), value: Text::literal("\0") },
    ];
    Subscription<'a>, Subscription<'_>, |subscription| is_utf8(subscription.topic_filter), [
        subscription("a/+/#", true),
        subscription("$share/g/x", false),
        subscription("$share/g/x", true),
    ];
    Text<'a>, Text<'_>, |text| is_utf8(*text), [
        Text::literal("a"),
        Text::literal("#"),
        Text::literal("$share//x"),
        Text::literal(""),
    ];
    ReasonCode, ReasonCode, |_| true, [ReasonCode::SUCCESS, ReasonCode::NOT_AUTHORIZED, ReasonCode::new(0x03)];
    SubscriptionIdentifier, SubscriptionIdentifier, |_| true, [SubscriptionIdentifier::MAX, SubscriptionIdentifier::MAX];
}
