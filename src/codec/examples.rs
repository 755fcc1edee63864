//! `Arbitrary` for what cannot derive it: values with conditions, and sequences, which borrow.

use super::sequence::Element;
use super::{
    QoS, Reader, ReasonCode, RetainHandling, Sequence, Subscription, SubscriptionIdentifier, SubscriptionOptions, Text,
    UserProperty,
};
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

/// Some values of an element, as a sequence has nowhere to keep those that it would make up.
pub(super) trait Examples<'a>: Sized + 'a {
    fn examples() -> &'a [Self];
}

/// Either some examples, or as much of arbitrary bytes as is in wire form.
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
        while let Ok(Some(_)) = T::next(&mut reader) {
            valid = bytes.len() - reader.0.len();
        }
        Ok(Self::wire(bytes.get(..valid).unwrap_or_default()))
    }
}

macro_rules! examples {
    ($($type:ty, $constant:ty: [$($value:expr),* $(,)?])*) => {
        $(impl<'a> Examples<'a> for $type {
            fn examples() -> &'a [Self] {
                const VALUES: &[$constant] = &[$($value),*];
                VALUES
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

// Most are right; the later ones are not.
examples! {
    UserProperty<'a>, UserProperty<'_>: [
        UserProperty { name: Text::literal("a"), value: Text::literal("b") },
        UserProperty { name: Text::literal(""), value: Text::literal("\u{20AC}") },
        UserProperty { name: Text::literal("a"), value: Text::literal("\0") },
    ]
    Subscription<'a>, Subscription<'_>: [subscription("a/+/#", true), subscription("$share/g/x", false), subscription("$share/g/x", true)]
    Text<'a>, Text<'_>: [Text::literal("a"), Text::literal("#"), Text::literal("$share//x"), Text::literal("")]
    ReasonCode, ReasonCode: [ReasonCode::SUCCESS, ReasonCode::NOT_AUTHORIZED, ReasonCode::new(0x03)]
    SubscriptionIdentifier, SubscriptionIdentifier: [SubscriptionIdentifier::MAX, SubscriptionIdentifier::MAX]
}
