//! Packets that break a rule, for fuzzing programs that decode.

use super::body::Body as _;
use super::error::DecodeError;
use super::frame::frame;
use super::packet::{Packet, decode};
use super::packet_type::PacketType;
use super::rules::Rules;
use super::types::Version;
use super::varint;
use alloc::vec::Vec;
use arbitrary::{Result, Unstructured};
use core::fmt;

/// The bytes of one packet that breaks a rule, for fuzzing another decoder.
///
/// It is a valid packet in which one thing was changed: a bit, a length, a string, a property, or
/// another part. So it reaches the checks behind the first one. [`error`](Self::error) says which
/// rule is broken, as the decoder of this crate sees it. The packet is complete: a receiver must
/// refuse it, and need not wait for more bytes.
///
/// ```
/// use arbitrary::Unstructured;
/// use mqtt_sansio::codec::{Malformed, Version};
///
/// let mut u = Unstructured::new(b"any bytes, such as those of a fuzzer");
/// let malformed = Malformed::arbitrary(Version::V5_0, &mut u)?;
/// println!("{:02x?} must be refused: {}", malformed.as_bytes(), malformed.error());
/// assert!(malformed.error().reason_code().is_error());
/// # Ok::<_, arbitrary::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Malformed {
    bytes: Vec<u8>,
    error: DecodeError,
}

impl Malformed {
    /// Draws a packet, and breaks it.
    pub fn arbitrary(rules: impl Into<Rules>, u: &mut Unstructured<'_>) -> Result<Self> {
        let rules = rules.into();
        Self::new(&Packet::arbitrary_by(rules, u)?, rules, u)
    }

    /// Breaks a packet. One that cannot be encoded is replaced by a PINGREQ.
    pub fn new(
        packet: &Packet<'_>,
        rules: impl Into<Rules>,
        u: &mut Unstructured<'_>,
    ) -> Result<Self> {
        let mut rules = rules.into();
        if let Packet::Connect(connect) = packet {
            rules.version = connect.version;
        }
        let mut valid = Vec::new();
        if packet.encode(rules, &mut valid).is_err() {
            valid = [0xC0, 0].to_vec();
        }
        // Most changes break a rule. Some do not, such as that of a bit of a payload.
        for _ in 0..8 {
            let bytes = Parts::of(&valid).changed(rules.version, u)?;
            if let Some(error) = broken_rule(&bytes, rules) {
                return Ok(Self { bytes, error });
            }
        }
        // Packet type 0 is reserved.
        if let Some(first) = valid.first_mut() {
            *first &= 0x0F;
        }
        Ok(Self { bytes: valid, error: DecodeError::ReservedPacketType })
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the rule that is broken. If there are several, another decoder can report another
    /// one.
    #[must_use]
    pub const fn error(&self) -> DecodeError {
        self.error
    }
}

impl fmt::Debug for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Malformed")
            .field("bytes", &format_args!("{:02x?}", self.bytes))
            .field("error", &self.error)
            .finish()
    }
}

/// Returns the rule that a complete packet breaks.
fn broken_rule(bytes: &[u8], rules: Rules) -> Option<DecodeError> {
    let frame = match frame(bytes, u32::MAX) {
        Ok(frame) => frame?,
        Err(error) => return Some(error),
    };
    decode(frame, rules).err().filter(|_| frame.as_bytes().len() == bytes.len())
}

/// A packet without its Remaining Length, which changes with the body.
struct Parts {
    first: u8,
    body: Vec<u8>,
}

/// Bytes that matter: wildcards, the ends of ranges, and what no string can have.
const TELLING: &[u8] = &[0, 1, 2, 3, b'+', b'#', b'/', 0x7F, 0x80, 0xC0, 0xED, 0xFF];

/// Properties whose value, presence or repetition breaks a rule in some packet.
const PROPERTIES: &[&[u8]] = &[
    b"\x7F\0",
    b"\x01\x02",
    b"\x0B\0",
    b"\x0B\x01",
    b"\x08\0\0",
    b"\x08\0\x01#",
    b"\x11\0\0\0\x01",
    b"\x11\0\0\0\x01\x11\0\0\0\x01",
    b"\x15\0\x01m\x15\0\x01m",
    b"\x16\0\x01d",
    b"\x1C\0\x01s",
    b"\x1F\0\x01\xFF",
    b"\x1F\0\x01r\x1F\0\x01r",
    b"\x21\0\0",
    b"\x23\0\0",
    b"\x24\x02",
    b"\x26\0\x01a\0\x01\0",
    b"\x27\0\0\0\0",
    b"\xA3\x01\0\x01",
];

impl Parts {
    fn of(packet: &[u8]) -> Self {
        let (first, rest) = packet.split_first().unwrap_or((&0, &[]));
        let body = varint::parse(rest).ok().flatten().map_or(rest, |(_, body)| body);
        Self { first: *first, body: body.to_vec() }
    }

    /// Changes one thing, and returns the packet.
    fn changed(mut self, version: Version, u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let at = self.position(u)?;
        match u.int_in_range(0..=13)? {
            0 => self.first ^= 1 << u.int_in_range(0..=3)?,
            1 => self.first ^= 1 << u.int_in_range(4..=7)?,
            2 => self.body.push(u.arbitrary()?),
            3 => drop(self.body.pop()),
            4 => self.body.truncate(at),
            5 => drop(self.body.drain(at..self.body.len().min(at + 2))),
            6 => self.body.insert(at, *u.choose(TELLING)?),
            7 | 8 => {
                let bit = 1 << u.int_in_range(0..=7)?;
                self.body.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bit);
            }
            9 | 10 => {
                let new = *u.choose(TELLING)?;
                self.body.iter_mut().skip(at).take(1).for_each(|byte| *byte = new);
            }
            11 => return Ok(self.with_length(|length| *length = [0xFF; 4].to_vec())),
            12 => {
                // More bytes than the number needs.
                return Ok(self.with_length(|length| {
                    if length.len() < 4 {
                        length.iter_mut().for_each(|byte| *byte |= 0x80);
                        length.push(0);
                    }
                }));
            }
            _ if version == Version::V5_0 => self.add_property(u.choose(PROPERTIES)?),
            _ => self.body.clear(),
        }
        Ok(self.with_length(|_| {}))
    }

    /// Draws a place in the body: one of the first 16, which have the most rules, the last one,
    /// which can be an options byte, or any.
    fn position(&self, u: &mut Unstructured<'_>) -> Result<usize> {
        let last = self.body.len().saturating_sub(1);
        match u.int_in_range(0..=3)? {
            0 | 1 => u.int_in_range(0..=last.min(15)),
            2 => u.int_in_range(0..=last),
            _ => Ok(last),
        }
    }

    /// Adds a property, with the omitted fields before it.
    fn add_property(&mut self, property: &[u8]) {
        let first_length = |body: &[u8]| match *body {
            [high, low, ..] => usize::from(u16::from_be_bytes([high, low])),
            _ => 0,
        };
        let has_identifier = self.first & 0x06 != 0;
        let at = match PacketType::from_number(self.first >> 4) {
            Some(PacketType::Connect) => 10,
            Some(PacketType::Publish) => {
                2 + first_length(&self.body) + if has_identifier { 2 } else { 0 }
            }
            Some(
                PacketType::Puback | PacketType::Pubrec | PacketType::Pubrel | PacketType::Pubcomp,
            ) => 3,
            Some(PacketType::Disconnect | PacketType::Auth) => 1,
            Some(PacketType::Pingreq | PacketType::Pingresp) => return,
            _ => 2,
        };
        if self.body.len() <= at {
            self.body.resize(at, 0);
            self.body.push(0);
        }
        let section = self.body.get(at..).unwrap_or_default();
        let Ok(Some((length, rest))) = varint::parse(section) else { return };
        let after = rest.get(length as usize..).unwrap_or_default();
        let old = rest.get(..length as usize).unwrap_or_default();
        let mut new = self.body.get(..at).unwrap_or_default().to_vec();
        let total = u32::try_from(old.len() + property.len()).unwrap_or(0);
        varint::bytes(total, |byte| new.push(byte));
        for part in [old, property, after] {
            new.extend_from_slice(part);
        }
        self.body = new;
    }

    /// Returns the packet with a Remaining Length that `change` has changed.
    fn with_length(self, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut length = Vec::new();
        varint::bytes(u32::try_from(self.body.len()).unwrap_or(0), |byte| length.push(byte));
        change(&mut length);
        let mut packet = [self.first].to_vec();
        packet.extend(length);
        packet.extend(self.body);
        packet
    }
}
