//! CONNECT: the client, its terms, and its Will Message. [5.0 §3.1] [3.1.1 §3.1]
//!
//! | field                  | bytes    | 3.1      | 3.1.1 | 5.0                |
//! |------------------------|----------|----------|-------|--------------------|
//! | protocol name          | 2 + n    | `MQIsdp` | `MQTT`| `MQTT`             |
//! | protocol version       | 1        | 3        | 4     | 5                  |
//! | connect flags          | 1        | always   | always| always             |
//! | keep alive             | 2        | always   | always| always             |
//! | properties             | n        | never    | never | always             |
//! | client identifier      | 2 + n    | always   | always| always             |
//! | will properties        | n        | never    | never | with a will        |
//! | will topic, payload    | 2 + n, twice | with a will | with a will | with a will |
//! | user name, password    | 2 + n each | as flagged, can be cut off | as flagged | as flagged |

#![expect(
    clippy::inline_always,
    reason = "measured: without it packets take 5 to 15 % more instructions to encode"
)]

use super::body::Body;
use super::error::{DecodeError, EncodeError};
use super::expiry::Expiry;
use super::frame::Frame;
use super::options::Options;
use super::packet_type::PacketType;
use super::property::{ConnectProperties, PublishProperties, WillProperties};
use super::publish::Publish;
use super::read::Reader;
use super::rules::Rules;
use super::shown::Hidden;
use super::text::Text;
use super::types::{QoS, Role, Version};
use super::varint;
use super::write::Sink;
use core::fmt;

const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

/// A CONNECT packet. [5.0 §3.1] [3.1.1 §3.1]
///
/// The packet carries its own version, which takes precedence over that of the [`Rules`].
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version that the client requests.
    pub version: Version,
    /// Whether the client requests a new session. In 3.1 and 3.1.1 this is Clean Session, and the
    /// session then also ends with the connection. [5.0 §3.1.2.4] [3.1.1 §3.1.2.4]
    ///
    /// A 5.0 client that has no state of a session must set it, or close the connection if the
    /// server has one. [5.0 MQTT-3.2.2-4]
    pub clean_start: bool,
    /// The greatest number of seconds between two packets of the client; 0 turns keep alive off.
    /// [5.0 §3.1.2.10] [3.1.1 §3.1.2.10]
    pub keep_alive: u16,
    /// The name of the session; empty if the server assigns one. [5.0 §3.1.3.1] [3.1.1 §3.1.3.1]
    pub client_identifier: Text<'a>,
    /// The message that the server publishes if the connection breaks. [5.0 §3.1.2.5]
    /// [3.1.1 §3.1.2.5]
    pub will: Option<Will<'a>>,
    /// The user name. [5.0 §3.1.3.5] [3.1.1 §3.1.3.4]
    pub user_name: Option<Text<'a>>,
    /// The password, which can be any bytes. Before 5.0 only with a user name. [5.0 §3.1.3.6]
    /// [3.1.1 §3.1.3.5]
    pub password: Option<&'a [u8]>,
    /// The properties; always empty before 5.0.
    pub properties: ConnectProperties<'a>,
}

/// The Will Message of a CONNECT. [5.0 §3.1.2.5] [3.1.1 §3.1.2.5]
#[expect(clippy::exhaustive_structs, reason = "the fields are fixed by the standard")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Will<'a> {
    /// The QoS at which the server publishes. [5.0 §3.1.2.6] [3.1.1 §3.1.2.6]
    pub qos: QoS,
    /// Whether the server retains the message. [5.0 §3.1.2.7] [3.1.1 §3.1.2.7]
    pub retain: bool,
    /// The topic name. [5.0 §3.1.3.3] [3.1.1 §3.1.3.2]
    pub topic: Text<'a>,
    /// The payload, which can be any bytes. [5.0 §3.1.3.4] [3.1.1 §3.1.3.3]
    pub payload: &'a [u8],
    /// The properties; always empty before 5.0.
    pub properties: WillProperties<'a>,
}

impl<'a> Will<'a> {
    /// Makes a Will Message with QoS 0 and without RETAIN.
    ///
    /// ```
    /// use mqtt_sansio::codec::{Connect, QoS, Version, Will};
    ///
    /// let will = Will { qos: QoS::AtLeastOnce, ..Will::new("sensor/4/state", b"lost") };
    /// let connect = Connect { will: Some(will), ..Connect::new(Version::V3_1_1, "sensor-4") };
    /// assert_eq!(connect.will.unwrap().to_publish().payload, b"lost");
    /// ```
    #[must_use]
    pub fn new(topic: impl Into<Text<'a>>, payload: &'a [u8]) -> Self {
        Self { topic: topic.into(), payload, ..Self::default() }
    }

    /// Returns the message that a server publishes for this will. [5.0 §3.1.2.5] [3.1.1 §3.1.2.5]
    ///
    /// It has all properties of the will except the Will Delay Interval, and no packet identifier.
    #[must_use]
    pub fn to_publish(&self) -> Publish<'a> {
        let WillProperties {
            payload_format_indicator,
            message_expiry_interval,
            content_type,
            response_topic,
            correlation_data,
            will_delay_interval: _,
            user_properties,
        } = self.properties;
        Publish {
            qos: self.qos,
            retain: self.retain,
            properties: PublishProperties {
                payload_format_indicator,
                message_expiry_interval,
                content_type,
                response_topic,
                correlation_data,
                user_properties,
                ..PublishProperties::default()
            },
            ..Publish::new(self.topic, self.payload)
        }
    }
}

impl<'a> Connect<'a> {
    /// Makes a CONNECT that resumes the session of `client_identifier`, with keep alive off.
    #[must_use]
    pub fn new(version: Version, client_identifier: impl Into<Text<'a>>) -> Self {
        Self {
            version,
            clean_start: false,
            keep_alive: 0,
            client_identifier: client_identifier.into(),
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties::default(),
        }
    }

    /// Returns how long the session outlives the connection. Before 5.0, Clean Session decides.
    /// [5.0 §3.1.2.11.2] [3.1.1 MQTT-3.1.2-6]
    #[must_use]
    pub fn session_expiry(&self) -> Expiry {
        match self.version {
            Version::V5_0 => {
                Expiry::from_seconds(self.properties.session_expiry_interval.unwrap_or(0))
            }
            Version::V3_1 | Version::V3_1_1 if self.clean_start => Expiry::AT_DISCONNECT,
            Version::V3_1 | Version::V3_1_1 => Expiry::Never,
        }
    }

    pub(crate) fn read(&mut self, mut reader: Reader<'a>, rules: Rules) -> Result<(), DecodeError> {
        rules.only_from(Role::Client)?;
        let r = &mut reader;
        let version = Version::decode(r, rules.options)?;
        self.version = version;
        let own = Rules { version, ..rules };
        let flags = r.u8()?;
        // 3.1 calls the bit unused, and ignores the flags of a will that is absent.
        let strict = version > Version::V3_1;
        if strict && flags & 1 != 0 {
            return Err(DecodeError::ConnectReservedFlag);
        }
        let will_qos = QoS::from_u8(flags >> 3 & 3);
        if flags & WILL == 0 && strict {
            if will_qos != Some(QoS::AtMostOnce) {
                return Err(DecodeError::WillQosWithoutWill);
            }
            if flags & WILL_RETAIN != 0 {
                return Err(DecodeError::WillRetainWithoutWill);
            }
        }
        self.clean_start = flags & CLEAN_START != 0;
        self.keep_alive = r.u16()?;
        self.properties.read(r, own)?;
        self.client_identifier = Text::read(r, rules.is_checked)?;
        if flags & WILL != 0 {
            let qos = will_qos.ok_or(DecodeError::InvalidWillQos)?;
            let will =
                self.will.insert(Will { qos, retain: flags & WILL_RETAIN != 0, ..Will::default() });
            will.properties.read(r, own)?;
            will.topic = Text::read_topic_name(r, rules.is_checked)?;
            will.payload = r.binary()?;
        }
        // 3.1 §3.1: a packet that ends before a field that a flag announces is valid.
        let cut_off = |r: &Reader<'_>| !strict && r.is_empty();
        if flags & USER_NAME != 0 && !cut_off(r) {
            self.user_name = Some(Text::read(r, rules.is_checked)?);
        }
        if flags & PASSWORD != 0 && !cut_off(r) {
            self.password = Some(r.binary()?);
        }
        // Checks the flags, because in 3.1 the fields that they announce can be cut off.
        if flags & USER_NAME == 0 {
            self.check_password(flags & PASSWORD != 0, rules)?;
        }
        reader.end()?;
        self.check_content(rules)
    }

    /// Refuses a password without a user name before 5.0. [3.1.1 MQTT-3.1.2-22]
    fn check_password(&self, alone: bool, rules: Rules) -> Result<(), DecodeError> {
        let allowed = self.version == Version::V5_0
            || rules.options.contains(Options::PASSWORD_WITHOUT_USER_NAME);
        if alone && !allowed { Err(DecodeError::PasswordWithoutUserName) } else { Ok(()) }
    }

    fn check_content(&self, rules: Rules) -> Result<(), DecodeError> {
        // [3.1.1 MQTT-3.1.3-7]; 3.1 §3.1 requires 1 to 23 characters.
        let acceptable = match self.version {
            Version::V3_1 => {
                // A byte that does not continue a character begins one.
                let bytes = self.client_identifier.as_bytes().iter();
                let characters = bytes.filter(|&&byte| byte & 0xC0 != 0x80).count();
                (1..=23).contains(&characters)
                    || characters > 0 && rules.options.contains(Options::LONG_CLIENT_IDENTIFIER)
            }
            Version::V3_1_1 => self.clean_start || !self.client_identifier.is_empty(),
            Version::V5_0 => true,
        };
        if !acceptable {
            return Err(DecodeError::ClientIdentifierRejected);
        }
        if self.will.is_some_and(|will| will.topic.is_empty()) {
            return Err(DecodeError::EmptyTopicName);
        }
        if self.properties.authentication_data.is_some()
            && self.properties.authentication_method.is_none()
        {
            return Err(DecodeError::AuthenticationDataWithoutMethod);
        }
        if let Some(will) = &self.will {
            rules.check_payload(will.properties.payload_format_indicator, will.payload)?;
        }
        rules.check_texts(|| {
            let will = self
                .will
                .as_ref()
                .is_none_or(|will| will.topic.is_clean() && will.properties.is_clean());
            let names =
                self.client_identifier.is_clean() && self.user_name.is_none_or(Text::is_clean);
            will && names && self.properties.is_clean()
        })
    }
}

impl Body for &Connect<'_> {
    #[inline(always)]
    fn first_byte(self) -> u8 {
        PacketType::Connect.first_byte()
    }

    #[inline(always)]
    fn check(self, rules: Rules) -> Result<(), EncodeError> {
        rules.only_from(Role::Client)?;
        if self.user_name.is_none() {
            self.check_password(self.password.is_some(), rules)?;
        }
        let has_properties = || {
            !self.properties.is_empty() || self.will.is_some_and(|will| !will.properties.is_empty())
        };
        Rules::new(self.version).since_5_0_if(has_properties)?;
        if let Some(will) = &self.will {
            rules.check_own_payload(will.properties.payload_format_indicator, will.payload)?;
        }
        Ok(self.check_content(rules)?)
    }

    #[inline(always)]
    fn write<S: Sink>(self, sink: &mut S, _: Rules) {
        // The Protocol Name with its length, and the version.
        match self.version {
            Version::V3_1 => sink.bytes(*b"\0\x06MQIsdp\x03"),
            Version::V3_1_1 => sink.bytes(*b"\0\x04MQTT\x04"),
            Version::V5_0 => sink.bytes(*b"\0\x04MQTT\x05"),
        }
        let will = self.will.map_or(0, |will| {
            WILL | will.qos.as_u8() << 3 | if will.retain { WILL_RETAIN } else { 0 }
        });
        let clean_start = if self.clean_start { CLEAN_START } else { 0 };
        let user_name = self.user_name.map_or(0, |_| USER_NAME);
        let password = self.password.map_or(0, |_| PASSWORD);
        let [high, low] = self.keep_alive.to_be_bytes();
        sink.bytes([clean_start | will | user_name | password, high, low]);
        self.properties.write(self.version, sink);
        sink.text(self.client_identifier);
        if let Some(will) = &self.will {
            will.properties.write(self.version, sink);
            sink.topic_name(will.topic);
            sink.binary(will.payload);
        }
        if let Some(user_name) = self.user_name {
            sink.text(user_name);
        }
        if let Some(password) = self.password {
            sink.binary(password);
        }
    }
}

impl Version {
    /// Reads the protocol name and level. [5.0 MQTT-3.1.2-1] [5.0 MQTT-3.1.2-2]
    pub(crate) fn decode(reader: &mut Reader<'_>, options: Options) -> Result<Self, DecodeError> {
        let start = *reader;
        let (name, level) = (reader.binary()?, reader.u8()?);
        let bridge =
            options.contains(Options::BRIDGE_PROTOCOL_LEVEL) && matches!(level, 0x83 | 0x84);
        match (name, if bridge { level & 0x7F } else { level }) {
            (b"MQTT", 5) => Ok(Self::V5_0),
            (b"MQTT", 4) => Ok(Self::V3_1_1),
            (b"MQIsdp", 3) => Ok(Self::V3_1),
            (b"MQTT" | b"MQIsdp", level) => Err(DecodeError::UnsupportedProtocolVersion(level)),
            _ => {
                // A name that is no string at all has an error of its own.
                Text::decode(&mut { start })?;
                Err(DecodeError::InvalidProtocolName)
            }
        }
    }
}

/// Returns the rules for the flags of a packet: for a CONNECT those of the version that it carries.
/// Only options make the two differ.
pub(super) fn own_rules(frame: Frame<'_>, rules: Rules) -> Rules {
    if frame.packet_type != PacketType::Connect || rules.options == Options::NONE {
        return rules;
    }
    let version = Version::decode(&mut Reader(frame.body), rules.options).unwrap_or(rules.version);
    Rules { version, ..rules }
}

/// Returns the protocol version that the start of a CONNECT requests, known or not, for the answer
/// to a CONNECT that cannot be decoded.
pub(crate) fn connect_version(bytes: &[u8]) -> Option<u8> {
    let (_, body) = varint::parse(bytes.get(1..)?).ok()??;
    let mut reader = Reader(body);
    let name = reader.binary().ok()?;
    let is_known =
        [Version::V3_1, Version::V5_0].iter().any(|version| version.protocol_name() == name);
    reader.u8().ok().filter(|_| is_known)
}

/// The fields, without the password.
impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            clean_start,
            keep_alive,
            client_identifier,
            will,
            user_name,
            password,
            properties,
        } = self;
        f.debug_struct("Connect")
            .field("version", version)
            .field("clean_start", clean_start)
            .field("keep_alive", keep_alive)
            .field("client_identifier", client_identifier)
            .field("will", will)
            .field("user_name", user_name)
            .field("password", &password.map(|_| Hidden))
            .field("properties", properties)
            .finish()
    }
}
