//! Packets as one line of a log: the packet type and `name=value` pairs.
//!
//! Secrets are hidden, long strings and lists are shortened, and control characters are escaped, so
//! that no peer can forge a line.

use super::ack::Ack;
use super::connack::Connack;
use super::connect::{Connect, Will};
use super::disconnect::{Auth, Disconnect};
use super::packet::Packet;
use super::publish::Publish;
use super::reason::ReasonCode;
use super::shown::{Show, Shown};
use super::suback::Suback;
use super::subscribe::{RetainHandling, Subscribe, Subscription, SubscriptionOptions, Unsubscribe};
use super::types::QoS;
use core::fmt::{Display, Formatter, Result};

/// Writes `name` with a space before it, if `flag`.
fn flag(f: &mut Formatter<'_>, name: &str, flag: bool) -> Result {
    if flag { write!(f, " {name}") } else { Ok(()) }
}

/// Writes the properties with a space before them, if there are any.
fn properties(f: &mut Formatter<'_>, is_empty: bool, properties: &impl Display) -> Result {
    if is_empty { Ok(()) } else { write!(f, " {properties}") }
}

/// Writes the reason code with its name, such as `code=0x87 (Not authorized)`.
fn reason(f: &mut Formatter<'_>, code: ReasonCode) -> Result {
    write!(f, " code={code:#04x} ({code})")
}

/// Writes the reason code of a packet that omits it on success.
fn reason_unless_success(f: &mut Formatter<'_>, code: ReasonCode) -> Result {
    if code == ReasonCode::SUCCESS { Ok(()) } else { reason(f, code) }
}

/// Writes what a PUBLISH and a Will Message share.
fn message(f: &mut Formatter<'_>, qos: QoS, retain: bool, payload: &[u8]) -> Result {
    write!(f, " qos={qos}")?;
    flag(f, "retain", retain)?;
    write!(f, " payload={}", Shown(payload))
}

/// The packet as one line of a log.
///
/// Passwords and authentication data are hidden. Strings are cut after 64 bytes and lists after 8
/// values. A payload is shown as its size, and as text if it is short and printable.
///
/// ```
/// use mqtt_sansio::codec::{Connect, Packet, PacketIdentifier, Publish, QoS, Version};
///
/// let publish = Publish {
///     qos: QoS::AtLeastOnce,
///     packet_identifier: PacketIdentifier::new(7),
///     ..Publish::new("room/4", b"21.5")
/// };
/// assert_eq!(
///     Packet::from(publish).to_string(),
///     r#"PUBLISH topic="room/4" id=7 qos=1 payload=4 bytes "21.5""#
/// );
///
/// let connect = Connect {
///     user_name: Some("alice".into()),
///     password: Some(b"secret"),
///     ..Connect::new(Version::V5_0, "sensor-4")
/// };
/// assert_eq!(
///     Packet::from(connect).to_string(),
///     r#"CONNECT version=5.0 client="sensor-4" keep_alive=0 user_name="alice" password=***"#
/// );
/// ```
impl Display for Packet<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Connect(packet) => packet.fmt(f),
            Self::Connack(packet) => packet.fmt(f),
            Self::Publish(packet) => packet.fmt(f),
            Self::Puback(ack) | Self::Pubrec(ack) | Self::Pubrel(ack) | Self::Pubcomp(ack) => {
                write!(f, "{} {ack}", self.packet_type())
            }
            Self::Subscribe(packet) => packet.fmt(f),
            Self::Suback(suback) | Self::Unsuback(suback) => {
                write!(f, "{} {suback}", self.packet_type())
            }
            Self::Unsubscribe(packet) => packet.fmt(f),
            Self::Pingreq | Self::Pingresp => self.packet_type().fmt(f),
            Self::Disconnect(packet) => packet.fmt(f),
            Self::Auth(packet) => packet.fmt(f),
        }
    }
}

/// As a line of a log, without the password.
impl Display for Connect<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "CONNECT version={} client={}", self.version, Shown(self.client_identifier))?;
        flag(f, "clean_start", self.clean_start)?;
        write!(f, " keep_alive={}", self.keep_alive)?;
        if let Some(user_name) = self.user_name {
            write!(f, " user_name={}", Shown(user_name))?;
        }
        flag(f, "password=***", self.password.is_some())?;
        properties(f, self.properties.is_empty(), &self.properties)?;
        self.will.map_or(Ok(()), |will| write!(f, " will=({will})"))
    }
}

/// As a part of a line of a log.
impl Display for Will<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "topic={}", Shown(self.topic))?;
        message(f, self.qos, self.retain, self.payload)?;
        properties(f, self.properties.is_empty(), &self.properties)
    }
}

/// As a line of a log.
impl Display for Connack<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("CONNACK")?;
        reason(f, self.reason_code)?;
        flag(f, "session_present", self.session_present)?;
        properties(f, self.properties.is_empty(), &self.properties)
    }
}

/// As a line of a log.
impl Display for Publish<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "PUBLISH topic={}", Shown(self.topic_name))?;
        if let Some(identifier) = self.packet_identifier {
            write!(f, " id={identifier}")?;
        }
        flag(f, "dup", self.dup)?;
        message(f, self.qos, self.retain, self.payload)?;
        properties(f, self.properties.is_empty(), &self.properties)
    }
}

/// As a line of a log, without the packet type, which the acknowledgement does not have.
impl Display for Ack<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "id={}", self.packet_identifier)?;
        reason_unless_success(f, self.reason_code)?;
        properties(f, self.properties.is_empty(), &self.properties)
    }
}

/// As a line of a log.
impl Display for Subscribe<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "SUBSCRIBE id={} filters={}", self.packet_identifier, Shown(self.subscriptions))?;
        properties(f, self.properties.is_empty(), &self.properties)
    }
}

impl Show for Subscription<'_> {
    fn show(&self, f: &mut Formatter<'_>) -> Result {
        self.fmt(f)
    }
}

/// The filter and its options, such as `"a/b" qos=1`.
impl Display for Subscription<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} {}", Shown(self.topic_filter), self.options)
    }
}

/// The maximum QoS and the options that are not the default, such as `qos=1 no_local`.
impl Display for SubscriptionOptions {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "qos={}", self.maximum_qos)?;
        flag(f, "no_local", self.no_local)?;
        flag(f, "retain_as_published", self.retain_as_published)?;
        match self.retain_handling {
            RetainHandling::Send => Ok(()),
            RetainHandling::SendIfNew => f.write_str(" retain_handling=1"),
            RetainHandling::DoNotSend => f.write_str(" retain_handling=2"),
        }
    }
}

/// As a line of a log, without the packet type, which the acknowledgement does not have.
impl Display for Suback<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "id={}", self.packet_identifier)?;
        if !self.reason_codes.is_empty() {
            write!(f, " codes={}", Shown(self.reason_codes))?;
        }
        properties(f, self.properties.is_empty(), &self.properties)
    }
}

/// As a line of a log.
impl Display for Unsubscribe<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(
            f,
            "UNSUBSCRIBE id={} filters={}",
            self.packet_identifier,
            Shown(self.topic_filters)
        )?;
        properties(f, self.properties.is_empty(), &self.properties)
    }
}

/// As a line of a log.
impl Display for Disconnect<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("DISCONNECT")?;
        reason_unless_success(f, self.reason_code)?;
        properties(f, self.properties.is_empty(), &self.properties)
    }
}

/// As a line of a log, without the authentication data.
impl Display for Auth<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("AUTH")?;
        reason(f, self.reason_code)?;
        properties(f, self.properties.is_empty(), &self.properties)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{
        AckProperties, ConnackProperties, ConnectProperties, PacketIdentifier, PublishProperties,
        SubscribeProperties, SubscriptionIdentifier, Text, UserProperty, Version,
    };
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;

    const ID: PacketIdentifier = PacketIdentifier::FIRST;

    #[test]
    fn each_packet_is_one_line() {
        let properties = AckProperties { reason_string: Some("no".into()), ..Default::default() };
        let ack = Ack { properties, ..Ack::new(ID, ReasonCode::NOT_AUTHORIZED) };
        let codes = [ReasonCode::GRANTED_QOS_1, ReasonCode::NOT_AUTHORIZED];
        let options = SubscriptionOptions {
            maximum_qos: QoS::AtLeastOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
        };
        let subscriptions = [
            Subscription::new("a/b", QoS::AtMostOnce),
            Subscription { topic_filter: "#".into(), options },
        ];
        let connack = Connack {
            session_present: true,
            properties: ConnackProperties {
                assigned_client_identifier: Some("x".into()),
                receive_maximum: Some(10),
                retain_available: Some(false),
                maximum_qos: Some(QoS::AtLeastOnce),
                ..Default::default()
            },
            ..Connack::default()
        };
        let will = Will { topic: "w".into(), payload: b"\x00", retain: true, ..Will::default() };
        let connect = Connect {
            clean_start: true,
            keep_alive: 30,
            will: Some(will),
            properties: ConnectProperties {
                session_expiry_interval: Some(60),
                ..Default::default()
            },
            ..Connect::new(Version::V5_0, "c")
        };
        let subscribe = Subscribe {
            properties: SubscribeProperties {
                subscription_identifier: Some(SubscriptionIdentifier::MAX),
                ..Default::default()
            },
            ..Subscribe::new(ID, &subscriptions)
        };
        let filters = [Text::literal("a"), Text::literal("b")];
        let unsubscribe = Unsubscribe::new(ID, &filters);
        let user_properties = [UserProperty::new("k", "v")];
        let publish = Publish {
            dup: true,
            retain: true,
            properties: PublishProperties {
                correlation_data: Some(b"\xFF"),
                user_properties: (&user_properties).into(),
                ..Default::default()
            },
            ..Publish::new("t", b"")
        };
        for (packet, line) in [
            (
                Packet::from(connect),
                "CONNECT version=5.0 client=\"c\" clean_start keep_alive=30 \
                 session_expiry_interval=60 will=(topic=\"w\" qos=0 retain payload=1 byte)",
            ),
            (
                connack.into(),
                "CONNACK code=0x00 (Success) session_present assigned_client_identifier=\"x\" \
                 receive_maximum=10 maximum_qos=1 retain_available=false",
            ),
            (
                publish.into(),
                "PUBLISH topic=\"t\" dup qos=0 retain payload=0 bytes correlation_data=1 byte \
                 user_properties=[\"k\"=\"v\"]",
            ),
            (Packet::Puback(Ack::new(ID, ReasonCode::SUCCESS)), "PUBACK id=1"),
            (Packet::Pubrec(ack), "PUBREC id=1 code=0x87 (Not authorized) reason_string=\"no\""),
            (
                subscribe.into(),
                "SUBSCRIBE id=1 filters=[\"a/b\" qos=0, \"#\" qos=1 no_local retain_as_published \
                 retain_handling=2] subscription_identifier=268435455",
            ),
            (Packet::Suback(Suback::new(ID, &codes)), "SUBACK id=1 codes=[0x01, 0x87]"),
            (unsubscribe.into(), "UNSUBSCRIBE id=1 filters=[\"a\", \"b\"]"),
            (Packet::Unsuback(Suback::new(ID, &[])), "UNSUBACK id=1"),
            (Packet::Pingreq, "PINGREQ"),
            (Disconnect::default().into(), "DISCONNECT"),
            (
                Disconnect::new(ReasonCode::SESSION_TAKEN_OVER).into(),
                "DISCONNECT code=0x8e (Session taken over)",
            ),
            (Auth::default().into(), "AUTH code=0x00 (Success)"),
        ] {
            assert_eq!(packet.to_string(), line);
        }
    }

    #[test]
    fn long_values_are_shortened() {
        let topic = "\u{20AC}".repeat(100);
        let payload = [b'x'; 65];
        let line = Publish::new(&topic, &payload).to_string();
        let start = "\u{20AC}".repeat(21);
        let expected = alloc::format!("topic=\"{start}\"... (300 bytes) qos=0 payload=65 bytes");
        assert_eq!(line, alloc::format!("PUBLISH {expected}"));
        let line = Publish::new("t", b"text").to_string();
        assert_eq!(line, "PUBLISH topic=\"t\" qos=0 payload=4 bytes \"text\"");

        let filters: Vec<_> = (0..20).map(|i| i.to_string()).collect();
        let filters: Vec<_> = filters.iter().map(|i| Text::literal(i)).collect();
        let unsubscribe = Unsubscribe::new(ID, &filters);
        let line = unsubscribe.to_string();
        assert!(line.ends_with("\"6\", \"7\", and 12 more]"), "{line}");
    }

    #[test]
    fn control_characters_do_not_reach_the_log() {
        let text = "a\n\r\u{1B}[2J\"\u{85}";
        let properties = [UserProperty::new(text, text)];
        let mut publish = Publish::new(text, text.as_bytes());
        publish.properties.user_properties = (&properties).into();
        publish.properties.correlation_data = Some(b"\n");
        publish.properties.content_type = Some(text.into());
        let line: String = publish.to_string();
        assert!(!line.contains(char::is_control), "{line:?}");
        let connect = Connect { user_name: Some(text.into()), ..Connect::new(Version::V5_0, text) };
        assert!(!connect.to_string().contains(char::is_control));
    }
}
