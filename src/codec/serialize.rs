//! The feature `serde`: packets for logs, values and owned packets to be stored.
//!
//! A packet is a map with the names of the standard in `snake_case`, as in the wire vectors. It is
//! for people: it hides passwords and authentication data, so it cannot be read back. An
//! [`OwnedPacket`] is its bytes and rules, with all secrets, and is checked when it is read.

use super::connect::Will;
use super::entry::{Binary, HIDDEN};
use super::options::Options;
use super::owned::OwnedPacket;
use super::packet::Packet;
use super::property::UserProperty;
use super::rules::Rules;
use super::subscribe::Subscription;
use super::topic::Topic;
use super::types::{Role, Version};
use alloc::borrow::Cow;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use bytes::BytesMut;
use core::fmt;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

// ---- packets, for logs ----

/// Serializes a packet as a map of its `type` and its fields, without absent properties.
///
/// Bytes are a string if they are text, and else `{"hex": "00ff"}`. Passwords and authentication
/// data are hidden.
///
/// ```
/// use mqtt_sansio::codec::{Packet, Publish};
///
/// let json = serde_json::to_string(&Packet::from(Publish::new("room/4", b"21.5")))?;
/// assert!(json.starts_with(r#"{"type":"PUBLISH","dup":false,"qos":0,"retain":false,"#));
/// assert!(json.ends_with(r#""topic_name":"room/4","payload":"21.5"}"#));
/// # Ok::<_, serde_json::Error>(())
/// ```
impl Serialize for Packet<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &self.packet_type().to_string())?;
        macro_rules! entries {
            ($packet:ident: $($field:ident)*) => {
                $(map.serialize_entry(stringify!($field), &$packet.$field)?;)*
            };
        }
        macro_rules! properties {
            ($packet:ident) => {
                if !$packet.properties.is_empty() {
                    entries!($packet: properties);
                }
            };
        }
        match self {
            Self::Connect(packet) => {
                entries!(packet: version clean_start keep_alive client_identifier);
                optional(&mut map, "will", packet.will)?;
                optional(&mut map, "user_name", packet.user_name)?;
                optional(&mut map, "password", packet.password.map(|_| HIDDEN))?;
                properties!(packet);
            }
            Self::Connack(packet) => {
                entries!(packet: session_present reason_code);
                properties!(packet);
            }
            Self::Publish(packet) => {
                entries!(packet: dup qos retain topic_name);
                optional(&mut map, "packet_identifier", packet.packet_identifier)?;
                map.serialize_entry("payload", &Binary(packet.payload))?;
                properties!(packet);
            }
            Self::Puback(ack) | Self::Pubrec(ack) | Self::Pubrel(ack) | Self::Pubcomp(ack) => {
                entries!(ack: packet_identifier reason_code);
                properties!(ack);
            }
            Self::Subscribe(packet) => {
                entries!(packet: packet_identifier subscriptions);
                properties!(packet);
            }
            Self::Suback(packet) | Self::Unsuback(packet) => {
                entries!(packet: packet_identifier reason_codes);
                properties!(packet);
            }
            Self::Unsubscribe(packet) => {
                entries!(packet: packet_identifier topic_filters);
                properties!(packet);
            }
            Self::Pingreq | Self::Pingresp => {}
            Self::Disconnect(packet) => {
                entries!(packet: reason_code);
                properties!(packet);
            }
            Self::Auth(packet) => {
                entries!(packet: reason_code);
                properties!(packet);
            }
        }
        map.end()
    }
}

/// Adds a field that is present.
fn optional<M: SerializeMap>(
    map: &mut M,
    name: &'static str,
    value: Option<impl Serialize>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, &value))
}

impl Serialize for Will<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("qos", &self.qos)?;
        map.serialize_entry("retain", &self.retain)?;
        map.serialize_entry("topic", &self.topic)?;
        map.serialize_entry("payload", &Binary(self.payload))?;
        if !self.properties.is_empty() {
            map.serialize_entry("properties", &self.properties)?;
        }
        map.end()
    }
}

impl Serialize for Subscription<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("topic_filter", &self.topic_filter)?;
        map.serialize_entry("maximum_qos", &self.options.maximum_qos)?;
        map.serialize_entry("no_local", &self.options.no_local)?;
        map.serialize_entry("retain_as_published", &self.options.retain_as_published)?;
        map.serialize_entry("retain_handling", &(self.options.retain_handling as u8))?;
        map.end()
    }
}

/// Serializes the name and the value as a list of two, because a name can repeat.
impl Serialize for UserProperty<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.name, self.value).serialize(serializer)
    }
}

// ---- values ----

/// Serializes as the version's number, such as `3.1.1`.
impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Serializes as `client` or `server`.
impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match &*text(deserializer)? {
            "client" => Ok(Self::Client),
            "server" => Ok(Self::Server),
            other => Err(D::Error::unknown_variant(other, &["client", "server"])),
        }
    }
}

impl Serialize for Topic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_text().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&*text(deserializer)?).map_err(D::Error::custom)
    }
}

/// Serializes as a list of the names of the options.
impl Serialize for Options {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(|option| option.to_string()))
    }
}

impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<Cow<'_, str>>::deserialize(deserializer)?;
        let option = |name: &Cow<'_, str>| {
            let found = Self::ALL.iter().find(|option| option.to_string() == *name);
            let unknown = || D::Error::custom(format_args!("{name:?} is not an option"));
            found.copied().ok_or_else(unknown)
        };
        names.iter().map(option).collect()
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    Cow::deserialize(deserializer)
}

// ---- owned packets ----

/// An owned packet as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(rename = "OwnedPacket")]
struct Stored {
    version: Version,
    /// The side whose rules the packet obeys, if only one.
    sender: Option<Role>,
    options: Options,
    /// Whether the packet only forwards a message.
    forwarding: bool,
    bytes: Octets,
}

/// Serializes the bytes and the rules, with all secrets.
///
/// ```
/// use mqtt_sansio::codec::{OwnedPacket, Publish, Version};
///
/// let packet = OwnedPacket::new(&Publish::new("room/4", b"21.5").into(), Version::V5_0)?;
/// let json = serde_json::to_string(&packet)?;
/// assert_eq!(serde_json::from_str::<OwnedPacket>(&json)?, packet);
/// // Bytes that are not one packet are refused.
/// assert!(serde_json::from_str::<OwnedPacket>(&json.replace("[48,", "[0,")).is_err());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
impl Serialize for OwnedPacket {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rules = self.rules();
        let stored = Stored {
            version: rules.version,
            sender: rules.sender(),
            options: rules.options,
            forwarding: rules.forwarding,
            bytes: Octets(self.as_bytes().to_vec()),
        };
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OwnedPacket {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Stored { version, sender, options, forwarding, bytes } =
            Stored::deserialize(deserializer)?;
        let rules = Rules { forwarding, ..Rules::new(version).with(options) };
        let rules = sender.map_or(rules, |sender| rules.sent_by(sender));
        let mut bytes = BytesMut::from(&*bytes.0);
        let packet = Self::split_from(&mut bytes, u32::MAX, rules).map_err(D::Error::custom)?;
        let packet = packet.filter(|_| bytes.is_empty());
        packet.ok_or_else(|| D::Error::custom("expected the bytes of one packet"))
    }
}

/// Bytes as bytes, or as a list of numbers in formats that have no bytes.
pub(crate) struct Octets(pub(crate) Vec<u8>);

impl Serialize for Octets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Octets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Octets, E> {
                Ok(Octets(bytes.to_vec()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Octets, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = sequence.next_element()? {
                    bytes.push(byte);
                }
                Ok(Octets(bytes))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}
