//! What a codec has to offer to take part, and the buffers that they read from and write to.

use crate::cases::Values;
use bytes::BytesMut;
use mqtt_sansio::codec::{Packet, Role};
use ntex_bytes::BytePages;

/// A codec of one version of the protocol, called as its users call it.
pub trait Codec {
    /// Where bytes that have arrived wait.
    type Buffer: Buffer;
    /// What the codec decodes to. It borrows from the buffer, or the lifetime says nothing.
    type Packet<'a>: Clone + 'a;
    /// What one call of `encode` takes: a reference where it takes one, a packet of its own where
    /// it uses it up.
    type Outgoing<'a>;
    /// Where encoded bytes go.
    type Output: Output;

    /// Takes the first packet off the buffer and shows it to `user`; `None` if it is not all there.
    ///
    /// It is not returned because that would move it once more than the codec does, and packets are
    /// large: some have 500 bytes.
    fn decode<'a, R>(
        &mut self,
        buffer: &'a mut Self::Buffer,
        user: impl FnOnce(&Self::Packet<'a>) -> R,
    ) -> Result<Option<R>, Refused>;

    /// Makes what `encode` takes. Not timed: a sender has it.
    fn outgoing<'a>(packet: &'a Self::Packet<'_>) -> Self::Outgoing<'a>;

    /// Encodes a packet into an output that is empty and warm.
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

    /// Makes a packet of what an application has, and encodes it. Only there for the crates that
    /// are among the fastest to encode.
    fn make(&mut self, _values: Values, _out: &mut Self::Output) -> Result<(), Refused> {
        Err(Refused)
    }

    /// Whether the caller of `hand_on` is to send the payload after the output; else it is part of
    /// the output.
    const PAYLOAD_APART: bool = false;

    /// What the codec shows of a PUBLISH or PUBACK; `None` for other packets, which are checked by
    /// encoding them again.
    fn seen(packet: &Self::Packet<'_>) -> Option<Seen>;

    /// Makes the packet from the values, for the codec whose packets are made from values unlike
    /// those that it decodes.
    fn from_values(_packet: &'static Packet<'static>) -> Option<Self::Packet<'static>> {
        None
    }

    /// How the name of a packet begins that is not asked for, and why.
    const LEFT_OUT: Option<(&'static str, &'static str)> = None;

    /// Says who sends, to a codec that can make use of it.
    fn sent_by(&mut self, _role: Role) {}
}

/// The codec does not take the packet. The peers' own errors are of no use here.
#[derive(Clone, Copy, Debug)]
pub struct Refused;

/// What a codec shows of a PUBLISH or PUBACK.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    topic: Vec<u8>,
    payload: Vec<u8>,
    packet_identifier: u16,
    message_expiry_interval: Option<u32>,
    content_type: Option<String>,
}

impl Seen {
    /// A PUBLISH; without a packet identifier it has `None` or `Some(0)`, as the codecs have it.
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

    /// Two properties stand for the rest of them, which are checked by encoding the packet again.
    pub fn with(
        self,
        message_expiry_interval: Option<u32>,
        content_type: Option<impl AsRef<str>>,
    ) -> Self {
        let content_type = content_type.map(|text| text.as_ref().to_owned());
        Self { message_expiry_interval, content_type, ..self }
    }

    /// A PUBACK.
    pub fn puback(packet_identifier: u16) -> Self {
        Self { packet_identifier, ..Self::default() }
    }

    /// What should be seen.
    pub fn of(packet: &Packet<'_>) -> Option<Self> {
        match packet {
            Packet::Publish(publish) => {
                let properties = publish.properties;
                let content_type = properties.content_type.map(|text| text.as_str());
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

/// Bytes that have arrived.
pub trait Buffer: 'static {
    /// A buffer with some bytes, and room for more, as the buffer of a connection has: some codecs
    /// reserve after each packet.
    fn of(bytes: &[u8]) -> Self;

    /// Appends what has arrived.
    fn receive(&mut self, bytes: &[u8]);
}

const ROOM: usize = 16_384;

/// The buffer of codecs that decode slices.
pub struct Unread {
    pub bytes: Vec<u8>,
    pub start: usize,
}

impl Unread {
    /// Takes the next packet, for codecs that want whole packets or do not say how much they have
    /// used.
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

/// Encoded bytes.
pub trait Output {
    /// An output with room for the largest packet.
    fn warm() -> Self;

    fn clear(&mut self);

    /// All that was written. May empty the output.
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

/// The output of codecs that write to a slice and say how much.
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
