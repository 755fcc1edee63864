//! The interface of a codec that takes part, and the buffers to read from and write to.

use crate::cases::Values;
use bytes::BytesMut;
use mqtt_sansio::codec::{Packet, Role};
use ntex_bytes::BytePages;

/// A codec of one version of the protocol, called as its users call it.
pub trait Codec {
    /// The buffer of received bytes.
    type Buffer: Buffer;
    /// The decoded packet. It borrows from the buffer, or ignores the lifetime.
    type Packet<'a>: Clone + 'a;
    /// The argument of `encode`: a reference, or an owned packet if `encode` consumes it.
    type Outgoing<'a>;
    /// The buffer of encoded bytes.
    type Output: Output;

    /// Takes the first packet off the buffer and shows it to `user`; `None` if it is incomplete.
    ///
    /// The packet is not returned, because that would move it once more than the codec does, and
    /// some packets have 500 bytes.
    fn decode<'a, R>(
        &mut self,
        buffer: &'a mut Self::Buffer,
        user: impl FnOnce(&Self::Packet<'a>) -> R,
    ) -> Result<Option<R>, Refused>;

    /// Returns the argument of `encode`. Not timed: a sender has it.
    fn outgoing<'a>(packet: &'a Self::Packet<'_>) -> Self::Outgoing<'a>;

    /// Encodes a packet into an output that is empty and has been used before.
    fn encode(&mut self, packet: Self::Outgoing<'_>, out: &mut Self::Output)
    -> Result<(), Refused>;

    /// Encodes a PUBLISH without copying its payload.
    fn hand_on(
        &mut self,
        _packet: Self::Outgoing<'_>,
        _out: &mut Self::Output,
    ) -> Result<(), Refused> {
        Err(Refused)
    }

    /// Makes a packet from the values of an application, and encodes it. Only for the crates that
    /// are among the fastest to encode.
    fn make(&mut self, _values: Values, _out: &mut Self::Output) -> Result<(), Refused> {
        Err(Refused)
    }

    /// Whether the caller of `hand_on` must send the payload after the output; otherwise it is part
    /// of the output.
    const PAYLOAD_APART: bool = false;

    /// Returns the fields of a PUBLISH or PUBACK that the codec shows; `None` for other packets,
    /// which are checked by encoding them again.
    fn seen(packet: &Self::Packet<'_>) -> Option<Seen>;

    /// Makes the packet from the values, for a codec that encodes other types than it decodes.
    fn from_values(_packet: &'static Packet<'static>) -> Option<Self::Packet<'static>> {
        None
    }

    /// The prefix of the names of packets that are left out, and the reason.
    const LEFT_OUT: Option<(&'static str, &'static str)> = None;

    /// Tells the codec the sender, if it can use that.
    fn sent_by(&mut self, _role: Role) {}
}

/// The codec refuses the packet. The errors of the peers are not needed here.
#[derive(Clone, Copy, Debug)]
pub struct Refused;

/// The fields of a PUBLISH or PUBACK that a codec shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    topic: Vec<u8>,
    payload: Vec<u8>,
    packet_identifier: u16,
    message_expiry_interval: Option<u32>,
    content_type: Option<String>,
}

impl Seen {
    /// Returns the fields of a PUBLISH. Without a packet identifier, codecs give `None` or
    /// `Some(0)`.
    pub fn publish(
        topic: impl AsRef<[u8]>,
        payload: impl AsRef<[u8]>,
        packet_identifier: impl Into<Option<u16>>,
    ) -> Self {
        Self {
            topic: topic.as_ref().to_vec(),
            payload: payload.as_ref().to_vec(),
            packet_identifier: packet_identifier.into().unwrap_or(0),
            ..Self::default()
        }
    }

    /// Adds two properties. The others are checked by encoding the packet again.
    pub fn with(
        self,
        message_expiry_interval: Option<u32>,
        content_type: Option<impl AsRef<str>>,
    ) -> Self {
        let content_type = content_type.map(|text| text.as_ref().to_owned());
        Self { message_expiry_interval, content_type, ..self }
    }

    /// Returns the fields of a PUBACK.
    pub fn puback(packet_identifier: u16) -> Self {
        Self { packet_identifier, ..Self::default() }
    }

    /// Returns the expected fields.
    pub fn of(packet: &Packet<'_>) -> Option<Self> {
        match packet {
            Packet::Publish(publish) => {
                let properties = publish.properties;
                let content_type = properties.content_type.map(|text| text.to_str());
                let identifier = publish.packet_identifier.map(|identifier| identifier.get());
                let seen =
                    Self::publish(publish.topic_name.as_bytes(), publish.payload, identifier);
                Some(seen.with(properties.message_expiry_interval, content_type))
            }
            Packet::Puback(ack) => Some(Self::puback(ack.packet_identifier.get())),
            _ => None,
        }
    }
}

/// A buffer of received bytes.
pub trait Buffer: 'static {
    /// Returns a buffer with some bytes and room for more, like the buffer of a connection: some
    /// codecs reserve after each packet.
    fn of(bytes: &[u8]) -> Self;

    /// Appends received bytes.
    fn receive(&mut self, bytes: &[u8]);
}

const ROOM: usize = 16_384;

/// The buffer of codecs that decode slices.
pub struct Unread {
    pub bytes: Vec<u8>,
    pub start: usize,
}

impl Unread {
    /// Takes the next packet, for codecs that need whole packets or do not report how much they
    /// consumed.
    pub fn whole(&mut self) -> Result<Option<Whole<'_>>, Refused> {
        let bytes = &self.bytes[self.start..];
        let (mut length, mut header) = (0, 1);
        loop {
            let Some(&byte) = bytes.get(header) else { return Ok(None) };
            length |= usize::from(byte & 0x7F) << (7 * (header - 1));
            header += 1;
            if byte & 0x80 == 0 {
                break;
            }
            if header == 5 {
                return Err(Refused);
            }
        }
        let Some(bytes) = bytes.get(..header + length) else { return Ok(None) };
        self.start += bytes.len();
        Ok(Some(Whole { bytes, header }))
    }
}

/// One packet.
pub struct Whole<'a> {
    pub bytes: &'a [u8],
    /// The size of its fixed header.
    pub header: usize,
}

impl<'a> Whole<'a> {
    pub fn first_byte(&self) -> u8 {
        self.bytes[0]
    }

    pub fn body(&self) -> &'a [u8] {
        &self.bytes[self.header..]
    }
}

impl Buffer for Unread {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: with_room(bytes), start: 0 }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }
}

impl Buffer for BytesMut {
    fn of(bytes: &[u8]) -> Self {
        let mut buffer = Self::with_capacity(bytes.len() + ROOM);
        buffer.extend_from_slice(bytes);
        buffer
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Buffer for ntex_bytes::BytesMut {
    fn of(bytes: &[u8]) -> Self {
        let mut buffer = Self::with_capacity(bytes.len() + ROOM);
        buffer.extend_from_slice(bytes);
        buffer
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A buffer of encoded bytes.
pub trait Output {
    /// Returns an output with room for the largest packet.
    fn warm() -> Self;

    fn clear(&mut self);

    /// Returns all written bytes. Can empty the output.
    fn contents(&mut self) -> Vec<u8>;
}

const LARGEST: usize = 70_000;

fn with_room(bytes: &[u8]) -> Vec<u8> {
    let mut vec = Vec::with_capacity(bytes.len() + ROOM);
    vec.extend_from_slice(bytes);
    vec
}

impl Output for Vec<u8> {
    fn warm() -> Self {
        Self::with_capacity(LARGEST)
    }

    fn clear(&mut self) {
        self.clear();
    }

    fn contents(&mut self) -> Vec<u8> {
        self.clone()
    }
}

impl Output for BytesMut {
    fn warm() -> Self {
        Self::with_capacity(LARGEST)
    }

    fn clear(&mut self) {
        self.clear();
    }

    fn contents(&mut self) -> Vec<u8> {
        self.to_vec()
    }
}

impl Output for BytePages {
    fn warm() -> Self {
        Self::default()
    }

    fn clear(&mut self) {
        self.clear();
    }

    fn contents(&mut self) -> Vec<u8> {
        self.freeze().to_vec()
    }
}

/// The output of codecs that write to a slice and return the length.
pub struct Slots {
    pub slots: Vec<u8>,
    pub used: usize,
}

impl Output for Slots {
    fn warm() -> Self {
        Self { slots: vec![0; LARGEST], used: 0 }
    }

    fn clear(&mut self) {
        self.used = 0;
    }

    fn contents(&mut self) -> Vec<u8> {
        self.slots[..self.used].to_vec()
    }
}
