//! How long a session outlives its connection. [5.0 §3.1.2.11.2]

/// A Session Expiry Interval: when a session ends after its connection. [5.0 §3.1.2.11.2]
///
/// A packet carries it as a number of seconds; the greatest number means "never".
///
/// ```
/// use mqtt_sansio::codec::Expiry;
///
/// assert_eq!(Expiry::from_seconds(60), Expiry::After(60));
/// assert_eq!(Expiry::from_seconds(u32::MAX), Expiry::Never);
/// assert_eq!(Expiry::Never.to_seconds(), u32::MAX);
/// assert!(Expiry::After(60) < Expiry::Never);
/// ```
#[expect(clippy::exhaustive_enums, reason = "the standard knows no other")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expiry {
    /// The session ends that many seconds after the connection; 0 ends it with the connection.
    After(u32),
    /// The session does not expire.
    Never,
}

impl Expiry {
    /// The session ends with the connection.
    pub const AT_DISCONNECT: Self = Self::After(0);

    /// Converts the value of the property.
    #[must_use]
    pub const fn from_seconds(seconds: u32) -> Self {
        if seconds == u32::MAX { Self::Never } else { Self::After(seconds) }
    }

    /// Returns the value of the property.
    #[must_use]
    pub const fn to_seconds(self) -> u32 {
        match self {
            Self::After(seconds) => seconds,
            Self::Never => u32::MAX,
        }
    }
}
