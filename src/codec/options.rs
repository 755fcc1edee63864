//! Ways in which the rules can be bent, for devices that are in the field, or tightened.

use core::fmt;
use core::ops::BitOr;

/// Declares the options: the bit of each, what it does, and where the standard speaks of it.
macro_rules! options {
    ($($(#[$meta:meta])* $name:ident = $bit:literal;)*) => {
        impl Options {
            $($(#[$meta])* pub const $name: Self = Self(1 << $bit);)*
        }

        impl fmt::Debug for Options {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let all = [$((stringify!($name), Self::$name)),*];
                f.debug_set().entries(all.into_iter().filter(|(_, option)| self.has(*option)).map(|(name, _)| name)).finish()
            }
        }
    };
}

/// What is to be different from the rules of the standard. Each option is off unless it is named.
///
/// ```
/// use mqtt_sansio::codec::{self, DecodeError, Options, Rules, Version};
///
/// // DUP is set in a PUBLISH with QoS 0.
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
    /// 3.1, 3.1.1: a Remaining Length may have more bytes than it needs. [3.1.1 §2.2.3]
    NON_MINIMAL_LENGTH = 0;
    /// 3.1: the flags of a fixed header are not looked at but in PUBLISH: the text calls them
    /// unused. [3.1 §2.1]
    UNUSED_HEADER_FLAGS = 1;
    /// 3.1, 3.1.1: the highest bit of the protocol level, by which some bridges make themselves
    /// known, is not looked at.
    BRIDGE_PROTOCOL_LEVEL = 2;
    /// 3.1: a client identifier may have more than 23 characters. [3.1 §3.1]
    LONG_CLIENT_IDENTIFIER = 3;
    /// 3.1, 3.1.1: a password may come without a user name. [3.1.1 MQTT-3.1.2-22]
    PASSWORD_WITHOUT_USER_NAME = 4;
    /// A PUBLISH with QoS 0 may have DUP set, and is read as if it had not. [5.0 MQTT-3.3.1-2]
    /// [3.1.1 MQTT-3.3.1-2]
    DUP_WITH_QOS_0 = 5;
    /// 3.1: a SUBACK may refuse with 0x80, which 3.1.1 brought. [3.1.1 §3.9.3]
    SUBACK_FAILURE = 6;
    /// Strings with control characters or noncharacters are refused, which a receiver may do. [5.0
    /// §1.5.4] [3.1.1 §1.5.3]
    REFUSE_CONTROL_CHARACTERS = 7;
    /// 5.0: a payload that is said to be UTF-8 is refused if it is not, which a receiver may do.
    /// [5.0 §3.3.2.3.2]
    CHECK_PAYLOAD_FORMAT = 8;
}

impl Options {
    /// The standard as it is.
    pub const NONE: Self = Self(0);

    /// Those of both. For use in a `const`; else `|` says the same.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of the others are among them.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Options {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}
