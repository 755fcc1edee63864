//! The 15 packet types. [5.0 §2.1.2] [3.1.1 §2.2.1]

/// The type of a packet. [5.0 §2.1.2] [3.1.1 §2.2.1]
#[expect(clippy::exhaustive_enums, reason = "the standard has given out all numbers but 0")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub enum PacketType {
    /// From the client: to be let in.
    Connect = 1,
    /// From the server: whether it is.
    Connack,
    /// A message.
    Publish,
    /// A message with QoS 1 has arrived.
    Puback,
    /// A message with QoS 2 has arrived.
    Pubrec,
    /// PUBREC has arrived.
    Pubrel,
    /// PUBREL has arrived.
    Pubcomp,
    /// From the client: which messages it wants.
    Subscribe,
    /// From the server: which it gets.
    Suback,
    /// From the client: which messages it no longer wants.
    Unsubscribe,
    /// From the server: that it gets them no longer.
    Unsuback,
    /// From the client: is there anybody?
    Pingreq,
    /// From the server: yes.
    Pingresp,
    /// The last packet of its sender.
    Disconnect,
    /// A step of enhanced authentication; 5.0 only.
    Auth,
}

impl PacketType {
    pub(super) const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// One bit, for sets of packet types.
    pub(crate) const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// The flags that the standard fixes for the fixed header; PUBLISH has its own. [5.0 §2.1.3]
    /// [3.1.1 §2.2.2]
    pub(super) const fn flags(self) -> u8 {
        if matches!(self, Self::Pubrel | Self::Subscribe | Self::Unsubscribe) { 0x02 } else { 0 }
    }
}
