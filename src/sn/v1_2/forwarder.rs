//! The encapsulation of messages by a forwarder. [SN §5.5]
//!
//! | octet   | field            |
//! |---------|------------------|
//! | 0       | length of the header, up to the end of the node id |
//! | 1       | 0xFE             |
//! | 2       | control: radius in bits 1 and 0, others reserved |
//! | 3 to n  | wireless node id |
//! | n + 1 … | message          |

use super::error::{DecodeError, EncodeError};
use super::wire::{Field, Reader, Sink, Writer};
use crate::codec::Output;

pub(super) const MESSAGE_TYPE: u8 = 0xFE;
const RADIUS: u8 = 0x03;
const HEADER: usize = 3;

/// A message with the wireless node that has sent it, or that must receive it. [SN §5.5]
///
/// ```
/// use mqtt_sansio::sn::v1_2::{self, Encapsulated, Message};
///
/// let forwarded = Encapsulated::decode(b"\x04\xFE\0\x07\x02\x16")?;
/// assert_eq!(forwarded.node_id, [7]);
/// assert_eq!(v1_2::decode(forwarded.message)?, Message::Pingreq(None));
/// # Ok::<_, v1_2::DecodeError>(())
/// ```
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the specification")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct Encapsulated<'a> {
    /// The broadcast radius, 0 to 3, which matters from gateway to forwarder only.
    pub radius: u8,
    /// The wireless node, as the forwarder calls it: at most 252 octets.
    pub node_id: &'a [u8],
    /// The message, not decoded.
    pub message: &'a [u8],
}

impl<'a> Encapsulated<'a> {
    /// Reads the header of a forwarder. The message in it is not checked.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader(datagram);
        let [length, number] = r.chunk()?;
        if number != MESSAGE_TYPE {
            return Err(DecodeError::NotEncapsulated);
        }
        let node_id_length =
            usize::from(length).checked_sub(HEADER).ok_or(DecodeError::InvalidLength)?;
        let radius = u8::read(&mut r)?;
        let (node_id, message) =
            r.rest().split_at_checked(node_id_length).ok_or(DecodeError::Truncated)?;
        let encapsulated = Self { radius, node_id, message };
        encapsulated.check()?;
        Ok(encapsulated)
    }

    /// Appends the header and the message to an output.
    pub fn encode(&self, out: &mut impl Output) -> Result<(), EncodeError> {
        self.check()?;
        let header = HEADER + self.node_id.len();
        let length = u8::try_from(header).map_err(|_| EncodeError::TooLong(header))?;
        let size = header + self.message.len();
        let room = out.append_room(size, 0).map_err(|_| EncodeError::NoRoom(size))?;
        let mut writer = Writer(room);
        writer.put(&[length, MESSAGE_TYPE, self.radius]);
        writer.put(self.node_id);
        writer.put(self.message);
        Ok(())
    }

    const fn check(&self) -> Result<(), DecodeError> {
        if self.radius & !RADIUS == 0 { Ok(()) } else { Err(DecodeError::ReservedControlBits) }
    }
}
