//! Not a codec, but a lower bound: PUBLISH and PUBACK are read manually, without the checks and
//! types of a codec.
//!
//! Strings are checked with `core::str::from_utf8`, and for NUL and wildcards byte by byte;
//! properties are split and not checked for the rules of their packet. Encoding is one `memcpy` of
//! the payload after a header.

use crate::codec::{Codec, Refused, Seen, Unread};
use mqtt_sansio::codec::Packet as OurPacket;

/// The floor, with the property lengths of 5.0 or without.
pub struct Floor<const V5: bool>;

#[derive(Clone, Copy)]
pub enum Packet<'a> {
    Publish(Publish<'a>),
    Puback(u16),
}

#[derive(Clone, Copy, Default)]
pub struct Publish<'a> {
    topic: &'a str,
    identifier: u16,
    properties: Properties<'a>,
    payload: &'a [u8],
}

#[derive(Clone, Copy, Default)]
struct Properties<'a> {
    message_expiry_interval: Option<u32>,
    content_type: Option<&'a str>,
    response_topic: Option<&'a str>,
    correlation_data: Option<&'a [u8]>,
    user_property: Option<(&'a str, &'a str)>,
}

impl<const V5: bool> Codec for Floor<V5> {
    type Buffer = Unread;
    type Packet<'a> = Packet<'a>;
    type Outgoing<'a> = &'a Packet<'a>;
    type Output = Vec<u8>;

    #[inline(always)]
    fn decode<'a, R>(
        &mut self,
        buffer: &'a mut Unread,
        user: impl FnOnce(&Self::Packet<'a>) -> R,
    ) -> Result<Option<R>, Refused> {
        let Some(whole) = buffer.whole()? else { return Ok(None) };
        decode(whole.first_byte(), whole.body(), V5)
            .as_ref()
            .map(|packet| Some(user(packet)))
            .ok_or(Refused)
    }

    fn outgoing<'a>(packet: &'a Packet<'_>) -> &'a Packet<'a> {
        packet
    }

    #[inline(always)]
    fn encode(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<(), Refused> {
        match packet {
            Packet::Publish(publish) if !V5 && publish.payload.len() == 65_536 => {
                out.extend_from_slice(&[0x30, 0x96, 0x80, 0x04, 0, 20]);
                out.extend_from_slice(publish.topic.as_bytes());
                out.extend_from_slice(publish.payload);
                Ok(())
            }
            _ => Err(Refused),
        }
    }

    fn seen(packet: &Packet<'_>) -> Option<Seen> {
        Some(match packet {
            Packet::Publish(publish) => {
                let properties = publish.properties;
                let seen = Seen::publish(publish.topic, publish.payload, publish.identifier);
                seen.with(properties.message_expiry_interval, properties.content_type)
            }
            Packet::Puback(identifier) => Seen::puback(*identifier),
        })
    }

    fn from_values(packet: &'static OurPacket<'static>) -> Option<Packet<'static>> {
        let OurPacket::Publish(publish) = packet else { return None };
        let (topic, payload) = (publish.topic_name.to_str(), publish.payload);
        Some(Packet::Publish(Publish { topic, payload, ..Publish::default() }))
    }
}

#[inline(always)]
fn decode(first: u8, mut body: &[u8], v5: bool) -> Option<Packet<'_>> {
    let body = &mut body;
    match first >> 4 {
        3 => {
            let topic = text(body)?;
            if topic.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
                return None;
            }
            let identifier = if first & 0x06 == 0 { 0 } else { u16(body)? };
            let properties = if v5 { properties(body)? } else { Properties::default() };
            Some(Packet::Publish(Publish { topic, identifier, properties, payload: body }))
        }
        4 => u16(body).filter(|&identifier| identifier != 0 && body.is_empty()).map(Packet::Puback),
        _ => None,
    }
}

fn properties<'a>(body: &mut &'a [u8]) -> Option<Properties<'a>> {
    let mut properties = Properties::default();
    // No case has properties of 128 bytes or more.
    let length = take(body, 1)?[0];
    if length & 0x80 != 0 {
        return None;
    }
    let mut section = take(body, length.into())?;
    while let Some((identifier, rest)) = section.split_first() {
        section = rest;
        match identifier {
            0x02 => {
                properties.message_expiry_interval =
                    Some(u32::from_be_bytes(take(&mut section, 4)?.try_into().ok()?))
            }
            0x03 => properties.content_type = Some(text(&mut section)?),
            0x08 => properties.response_topic = Some(text(&mut section)?),
            0x09 => properties.correlation_data = Some(binary(&mut section)?),
            0x26 => properties.user_property = Some((text(&mut section)?, text(&mut section)?)),
            _ => return None,
        }
    }
    Some(properties)
}

fn take<'a>(body: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = body.split_at_checked(length)?;
    *body = rest;
    Some(taken)
}

fn u16(body: &mut &[u8]) -> Option<u16> {
    take(body, 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn binary<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u16(body)?;
    take(body, length.into())
}

fn text<'a>(body: &mut &'a [u8]) -> Option<&'a str> {
    core::str::from_utf8(binary(body)?).ok().filter(|text| !text.bytes().any(|byte| byte == 0))
}
