//! One message for many receivers: encoded once for each version, QoS and RETAIN flag.

use super::Message;
use crate::codec::{PacketIdentifier, QoS, Version};
use alloc::vec::Vec;

/// The packets of the message at hand. The buffers are used again for the next message.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    packets: [PreparedPacket; PACKETS],
    /// A bit for each packet that was asked for since the message came, and one for each that is
    /// there.
    are_wanted: u16,
    are_there: u16,
}

/// 3.1 and 3.1.1, and 5.0; three QoS levels; RETAIN or not.
const PACKETS: usize = 2 * 3 * 2;

#[derive(Debug, Default)]
struct PreparedPacket {
    bytes: Vec<u8>,
    /// The position of the packet identifier, if there is one.
    identifier: usize,
}

impl Prepared {
    /// Forgets the packets of the message before.
    pub(crate) const fn begin(&mut self) {
        (self.are_wanted, self.are_there) = (0, 0);
    }

    /// Returns the PUBLISH of the message at hand, from the second time on that it is asked for:
    /// most messages have one receiver.
    #[inline]
    pub(crate) fn packet(
        &mut self,
        message: &Message,
        version: Version,
        (qos, retain): (QoS, bool),
        packet_identifier: Option<PacketIdentifier>,
    ) -> Option<&[u8]> {
        let index = usize::from(qos.as_u8()) * 2 + usize::from(retain);
        let index = if version == Version::V5_0 { index + PACKETS / 2 } else { index };
        let packet = self.packets.get_mut(index)?;
        let bit = 1 << index;
        if self.are_there & bit == 0 {
            if self.are_wanted & bit == 0 {
                self.are_wanted |= bit;
                return None;
            }
            packet.encode(&message.with(qos, retain), version)?;
            self.are_there |= bit;
        }
        if let Some(packet_identifier) = packet_identifier {
            let place = packet.bytes.get_mut(packet.identifier..)?.first_chunk_mut()?;
            *place = packet_identifier.get().to_be_bytes();
        }
        Some(&packet.bytes)
    }
}

impl PreparedPacket {
    #[inline(never)]
    fn encode(&mut self, message: &Message, version: Version) -> Option<()> {
        self.bytes.clear();
        let identifier = Some(PacketIdentifier::FIRST).filter(|_| message.qos() > QoS::AtMostOnce);
        let measured = message.measure(version);
        message.write(measured, version, false, identifier, &mut self.bytes).ok()?;
        // Behind the first byte, the Remaining Length, and the topic name with its length.
        let length = 1 + self.bytes.get(1..)?.iter().position(|byte| *byte < 0x80)?;
        self.identifier = 1 + length + 2 + message.topic_name().as_text().as_bytes().len();
        Some(())
    }
}
