//! Conversions of the codec's small values from and to numbers and text.

use super::property::SubscriptionIdentifier;
use super::reason::ReasonCode;
use super::types::{PacketIdentifier, QoS, Role, Version};
use core::fmt;
use core::str::FromStr;

/// The error of a conversion from a number or a string that is not a value of the type.
///
/// ```
/// use mqtt_sansio::codec::{QoS, Version};
///
/// let error = QoS::try_from(3).unwrap_err();
/// assert_eq!(error.to_string(), "expected a QoS of 0, 1 or 2, got 3");
/// let error = "4".parse::<Version>().unwrap_err();
/// assert_eq!(error.to_string(), "expected the version 3.1, 3.1.1, 5 or 5.0, got another text");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConversionError {
    expected: &'static str,
    /// The number that was given, or `None` if a text was given.
    number: Option<u32>,
}

impl ConversionError {
    pub(super) const fn from_number(expected: &'static str, number: u32) -> Self {
        Self { expected, number: Some(number) }
    }

    const fn from_text(expected: &'static str) -> Self {
        Self { expected, number: None }
    }
}

impl fmt::Display for ConversionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, got ", self.expected)?;
        match self.number {
            Some(number) => write!(f, "{number}"),
            None => f.write_str("another text"),
        }
    }
}

impl core::error::Error for ConversionError {}

/// Converts a type with a checked constructor from its number, to it, and from its decimal digits.
macro_rules! checked_numbers {
    ($($type:ident, $number:ident, $new:ident, $get:ident, $expected:literal;)*) => {
        $(
            impl TryFrom<$number> for $type {
                type Error = ConversionError;

                fn try_from(number: $number) -> Result<Self, ConversionError> {
                    Self::$new(number)
                        .ok_or(ConversionError::from_number($expected, number.into()))
                }
            }

            impl From<$type> for $number {
                fn from(value: $type) -> Self {
                    value.$get()
                }
            }

            impl FromStr for $type {
                type Err = ConversionError;

                fn from_str(text: &str) -> Result<Self, ConversionError> {
                    let number: Result<$number, _> = text.parse();
                    number.map_or(Err(ConversionError::from_text($expected)), Self::try_from)
                }
            }

            /// The number.
            impl fmt::Display for $type {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.$get().fmt(f)
                }
            }
        )*
    };
}

checked_numbers! {
    QoS, u8, from_u8, as_u8, "a QoS of 0, 1 or 2";
    PacketIdentifier, u16, new, get, "a packet identifier of 1 to 65,535";
    SubscriptionIdentifier, u32, new, get, "a subscription identifier of 1 to 268,435,455";
}

impl From<u8> for ReasonCode {
    fn from(code: u8) -> Self {
        Self::new(code)
    }
}

impl From<ReasonCode> for u8 {
    fn from(code: ReasonCode) -> Self {
        code.get()
    }
}

/// Reads the standard's name of a reason code in any case, or a number such as `135` or `0x87`.
///
/// ```
/// use mqtt_sansio::codec::ReasonCode;
///
/// for text in ["Not authorized", "NOT AUTHORIZED", "135", "0x87", "Reason Code 0x87"] {
///     assert_eq!(text.parse(), Ok(ReasonCode::NOT_AUTHORIZED));
/// }
/// assert!("0x100".parse::<ReasonCode>().is_err());
/// ```
impl FromStr for ReasonCode {
    type Err = ConversionError;

    fn from_str(text: &str) -> Result<Self, ConversionError> {
        let named = (0..=u8::MAX)
            .map(Self::new)
            .find(|code| code.name().is_some_and(|name| name.eq_ignore_ascii_case(text)));
        // `Display` writes a code without a name in this way.
        let digits = text.strip_prefix("Reason Code ").unwrap_or(text);
        let number = || match digits.strip_prefix("0x") {
            Some(digits) => u8::from_str_radix(digits, 16),
            None => digits.parse(),
        };
        named
            .or_else(|| number().ok().map(Self::new))
            .ok_or(ConversionError::from_text("the name of a reason code or a number of 0 to 255"))
    }
}

impl fmt::LowerHex for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.get(), f)
    }
}

impl fmt::UpperHex for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::UpperHex::fmt(&self.get(), f)
    }
}

/// The version's number, such as `3.1.1`.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V3_1 => "3.1",
            Self::V3_1_1 => "3.1.1",
            Self::V5_0 => "5.0",
        })
    }
}

/// Reads the version's number; `5` is `5.0`.
///
/// ```
/// use mqtt_sansio::codec::Version;
///
/// assert_eq!("3.1.1".parse(), Ok(Version::V3_1_1));
/// assert_eq!("5".parse(), Ok(Version::V5_0));
/// ```
impl FromStr for Version {
    type Err = ConversionError;

    fn from_str(text: &str) -> Result<Self, ConversionError> {
        match text {
            "3.1" => Ok(Self::V3_1),
            "3.1.1" => Ok(Self::V3_1_1),
            "5" | "5.0" => Ok(Self::V5_0),
            _ => Err(ConversionError::from_text("the version 3.1, 3.1.1, 5 or 5.0")),
        }
    }
}

/// `client` or `server`.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use core::num::NonZeroU16;

    #[test]
    fn a_number_converts_if_it_is_a_value_of_the_type() {
        for number in 0..=u8::MAX {
            assert_eq!(QoS::try_from(number).ok().map(u8::from), Some(number).filter(|n| *n < 3));
            assert_eq!(u8::from(ReasonCode::from(number)), number);
        }
        for number in [0, 1, u16::MAX] {
            let expected = Some(number).filter(|n| *n > 0);
            assert_eq!(PacketIdentifier::try_from(number).ok().map(u16::from), expected);
            let non_zero = NonZeroU16::new(number);
            assert_eq!(non_zero.map(PacketIdentifier::from).map(NonZeroU16::from), non_zero);
        }
        for number in [0, 1, 268_435_455, 268_435_456, u32::MAX] {
            let expected = Some(number).filter(|n| (1..=268_435_455).contains(n));
            assert_eq!(SubscriptionIdentifier::try_from(number).ok().map(u32::from), expected);
        }
    }

    #[test]
    fn the_text_of_a_value_is_read_as_that_value() {
        fn check<T>(value: T)
        where
            T: FromStr<Err = ConversionError> + ToString + PartialEq + fmt::Debug,
        {
            assert_eq!(value.to_string().parse(), Ok(value));
        }
        (0..3).filter_map(QoS::from_u8).for_each(check);
        (0..=u8::MAX).map(ReasonCode::new).for_each(check);
        [Version::V3_1, Version::V3_1_1, Version::V5_0].into_iter().for_each(check);
        [1, u16::MAX].into_iter().filter_map(PacketIdentifier::new).for_each(check);
        check(SubscriptionIdentifier::MAX);
    }

    #[test]
    fn a_text_that_is_no_value_is_refused() {
        for text in ["", "-1", "+", "1.0", " 1", "70000000000", "0x", "3.1.2", "MQTT"] {
            assert!(text.parse::<QoS>().is_err(), "{text}");
            assert!(text.parse::<PacketIdentifier>().is_err(), "{text}");
            assert!(text.parse::<SubscriptionIdentifier>().is_err(), "{text}");
            assert!(text.parse::<ReasonCode>().is_err(), "{text}");
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
        let error = "0".parse::<PacketIdentifier>().unwrap_err();
        assert_eq!(error.to_string(), "expected a packet identifier of 1 to 65,535, got 0");
        let error = "x".parse::<QoS>().unwrap_err();
        assert_eq!(error.to_string(), "expected a QoS of 0, 1 or 2, got another text");
    }
}
