//! Options that relax the standard's rules for deployed devices, or tighten them.

use core::fmt;
use core::ops::BitOr;

/// Declares the options: the bit of each, its effect, and the section that it concerns.
macro_rules! options {
    ($($(#[$meta:meta])* $name:ident = $bit:literal;)*) => {
        impl Options {
            $($(#[$meta])* pub const $name: Self = Self(1 << $bit);)*

            /// Each single option, in the order of the bits.
            ///
            /// ```
            /// use mqtt_sansio::codec::Options;
            ///
            /// let wanted = "DUP_WITH_QOS_0";
            /// let option = Options::ALL.iter().find(|option| option.to_string() == wanted);
            /// assert_eq!(option, Some(&Options::DUP_WITH_QOS_0));
            /// ```
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];
        }
    };
}

/// Deviations from the standard that a decoder accepts or refuses. All are off by default.
///
/// [`DEPLOYED_DEVICES`](Self::DEPLOYED_DEVICES) names the ones that relax the standard. An option
/// applies only to the versions that its description names, or to all if it names none.
///
/// ```
/// use mqtt_sansio::codec::{self, DecodeError, Options, Rules, Version};
///
/// // A PUBLISH with QoS 0 and DUP.
/// let frame = codec::frame(&[0x38, 0x03, 0x00, 0x01, b'a'], u32::MAX)?.unwrap();
/// assert_eq!(codec::decode(frame, Version::V3_1_1), Err(DecodeError::DupWithQos0));
///
/// let options = Options::DUP_WITH_QOS_0 | Options::PASSWORD_WITHOUT_USER_NAME;
/// assert!(codec::decode(frame, Rules::new(Version::V3_1_1).with(options)).is_ok());
/// # Ok::<_, DecodeError>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Options(u16);

options! {
    /// 3.1, 3.1.1: accepts a Remaining Length with more bytes than it needs. [3.1.1 §2.2.3]
    NON_MINIMAL_LENGTH = 0;
    /// 3.1, 3.1.1: ignores the flags of the fixed header, except in PUBLISH. 3.1 calls them unused,
    /// 3.1.1 reserves them. [3.1 §2.1] [3.1.1 MQTT-2.2.2-2]
    UNUSED_HEADER_FLAGS = 1;
    /// 3.1, 3.1.1: ignores the highest bit of the protocol level, which some bridges set to mark
    /// themselves.
    BRIDGE_PROTOCOL_LEVEL = 2;
    /// 3.1: accepts a client identifier of more than 23 characters. [3.1 §3.1]
    LONG_CLIENT_IDENTIFIER = 3;
    /// 3.1, 3.1.1: accepts a password without a user name. [3.1.1 MQTT-3.1.2-22]
    PASSWORD_WITHOUT_USER_NAME = 4;
    /// Accepts a PUBLISH with QoS 0 and DUP, and clears DUP. [5.0 MQTT-3.3.1-2]
    /// [3.1.1 MQTT-3.3.1-2]
    DUP_WITH_QOS_0 = 5;
    /// 3.1: accepts the failure code 0x80 in a SUBACK, which 3.1.1 introduced. [3.1.1 §3.9.3]
    SUBACK_FAILURE = 6;
    /// Refuses strings with control characters or noncharacters, as a receiver is free to do.
    /// [5.0 §1.5.4] [3.1.1 §1.5.3]
    REFUSE_CONTROL_CHARACTERS = 7;
    /// 5.0: refuses a payload that is not UTF-8 although its Payload Format Indicator says so, as
    /// a receiver is free to do. [5.0 §3.3.2.3.2]
    CHECK_PAYLOAD_FORMAT = 8;
    /// 3.1, 3.1.1: ignores the upper six bits of a requested QoS in SUBSCRIBE.
    /// [3.1.1 MQTT-3.8.3-4]
    RESERVED_QOS_BITS = 9;
    /// 3.1, 3.1.1: accepts a PUBLISH from a server although its topic name is not UTF-8 (usually
    /// it is Latin-1), as an [empty](crate::codec::Publish::topic_name) name. [3.1.1 MQTT-3.3.2-1]
    ///
    /// The bytes of the name are not shown, because a `Text` is always UTF-8, and a converted name
    /// could equal the name of another topic. Before 5.0 no other message has an empty name, and
    /// such a message cannot be encoded. [`Client`](crate::client::Client) acknowledges and skips
    /// it, so that the server does not resend it forever.
    UNREADABLE_TOPIC = 10;
}

impl Options {
    /// No options: the unmodified standard.
    pub const NONE: Self = Self(0);

    /// The options that deployed devices are known to need: all that relax the standard.
    pub const DEPLOYED_DEVICES: Self = Self::NON_MINIMAL_LENGTH
        .union(Self::UNUSED_HEADER_FLAGS)
        .union(Self::BRIDGE_PROTOCOL_LEVEL)
        .union(Self::LONG_CLIENT_IDENTIFIER)
        .union(Self::PASSWORD_WITHOUT_USER_NAME)
        .union(Self::DUP_WITH_QOS_0)
        .union(Self::SUBACK_FAILURE)
        .union(Self::RESERVED_QOS_BITS)
        .union(Self::UNREADABLE_TOPIC);

    /// Returns the options that are in either set. `|` does the same outside of a `const`.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether an option refuses packets because of their content. Then a packet that was checked
    /// without options must be checked again.
    pub(crate) const fn check_content(self) -> bool {
        self.contains(Self::REFUSE_CONTROL_CHARACTERS) || self.contains(Self::CHECK_PAYLOAD_FORMAT)
    }

    /// Whether all options of `other` are in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the options of this set, one by one.
    ///
    /// ```
    /// use mqtt_sansio::codec::Options;
    ///
    /// let set = Options::DUP_WITH_QOS_0 | Options::SUBACK_FAILURE;
    /// assert_eq!(set.iter().count(), 2);
    /// assert_eq!(set.iter().collect::<Options>(), set);
    /// ```
    pub fn iter(self) -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(move |option| self.contains(*option))
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        let all = Self::ALL.iter().zip(Self::NAMES);
        all.filter(move |(option, _)| self.contains(**option)).map(|(_, name)| *name)
    }
}

impl BitOr for Options {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl Extend<Self> for Options {
    fn extend<I: IntoIterator<Item = Self>>(&mut self, options: I) {
        for option in options {
            *self = *self | option;
        }
    }
}

impl FromIterator<Self> for Options {
    fn from_iter<I: IntoIterator<Item = Self>>(options: I) -> Self {
        let mut set = Self::NONE;
        set.extend(options);
        set
    }
}

/// The names of the options, joined by `|`; `NONE` for the empty set.
///
/// ```
/// use mqtt_sansio::codec::Options;
///
/// let set = Options::SUBACK_FAILURE | Options::DUP_WITH_QOS_0;
/// assert_eq!(set.to_string(), "DUP_WITH_QOS_0 | SUBACK_FAILURE");
/// assert_eq!(format!("{set:#b}"), "0b1100000");
/// ```
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("NONE");
        }
        for (position, name) in self.names().enumerate() {
            f.write_str(if position > 0 { " | " } else { "" })?;
            f.write_str(name)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl fmt::Binary for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Binary::fmt(&self.0, f)
    }
}
