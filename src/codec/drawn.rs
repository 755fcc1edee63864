//! Arbitrary packets, most of which can be encoded, so that a fuzzer gets past the first check.
//!
//! One packet in sixteen is drawn carelessly: only its types limit its fields.

use super::ack::Ack;
use super::connack::Connack;
use super::connect::{Connect, Will};
use super::disconnect::{Auth, Disconnect};
use super::examples::{filters, suback_codes, subscriptions};
use super::packet::Packet;
use super::packet_type::PacketType;
use super::property::PublishProperties;
use super::publish::Publish;
use super::reason::ReasonCode;
use super::rules::Rules;
use super::sequence::{Element, Sequence};
use super::suback::Suback;
use super::subscribe::{Subscribe, Unsubscribe};
use super::text::Text;
use super::types::{QoS, Role, Version};
use arbitrary::{Arbitrary, Result, Unstructured};

/// Draws a packet of 5.0, or a CONNECT of any version. More than nine in ten can be encoded.
/// [`Packet::arbitrary_by`] draws packets of other versions.
impl<'a> Arbitrary<'a> for Packet<'a> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let packet = Self::arbitrary_by(Version::V5_0, u)?;
        if !matches!(packet, Self::Connect(_)) {
            return Ok(packet);
        }
        let version: Version = u.arbitrary()?;
        Ok(Self::Connect(Draw::new(version.into(), u)?.connect()?))
    }
}

impl<'a> Packet<'a> {
    /// Draws a packet that the rules allow: of a type that its sender can send, with the fields
    /// that the version has. More than nine in ten can be encoded.
    ///
    /// ```
    /// use arbitrary::Unstructured;
    /// use mqtt_sansio::codec::{self, Packet, Role, Rules, Version};
    ///
    /// let rules = Rules::new(Version::V3_1_1).sent_by(Role::Client);
    /// let mut u = Unstructured::new(b"any bytes, such as those of a fuzzer");
    /// let packet = Packet::arbitrary_by(rules, &mut u)?;
    /// assert!(codec::encode(&packet, rules, &mut Vec::new()).is_ok());
    /// # Ok::<_, arbitrary::Error>(())
    /// ```
    pub fn arbitrary_by(rules: impl Into<Rules>, u: &mut Unstructured<'a>) -> Result<Self> {
        let mut draw = Draw::new(rules.into(), u)?;
        Ok(match draw.packet_type()? {
            PacketType::Connect => Self::Connect(draw.connect()?),
            PacketType::Connack => Self::Connack(draw.connack()?),
            PacketType::Publish => Self::Publish(draw.publish()?),
            PacketType::Puback => Self::Puback(draw.ack(PacketType::Puback)?),
            PacketType::Pubrec => Self::Pubrec(draw.ack(PacketType::Pubrec)?),
            PacketType::Pubrel => Self::Pubrel(draw.ack(PacketType::Pubrel)?),
            PacketType::Pubcomp => Self::Pubcomp(draw.ack(PacketType::Pubcomp)?),
            PacketType::Subscribe => Self::Subscribe(draw.subscribe()?),
            PacketType::Suback => Self::Suback(draw.suback(PacketType::Suback)?),
            PacketType::Unsubscribe => Self::Unsubscribe(draw.unsubscribe()?),
            PacketType::Unsuback => Self::Unsuback(draw.suback(PacketType::Unsuback)?),
            PacketType::Pingreq => Self::Pingreq,
            PacketType::Pingresp => Self::Pingresp,
            PacketType::Disconnect => Self::Disconnect(draw.disconnect()?),
            PacketType::Auth => Self::Auth(draw.auth()?),
        })
    }
}

macro_rules! packets {
    ($($packet:ident: $draw:expr;)*) => {
        $(
            /// Draws by the rules of 5.0. More than nine in ten can be encoded.
            impl<'a> Arbitrary<'a> for $packet<'a> {
                fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
                    let draw: fn(&mut Draw<'_, 'a>) -> Result<Self> = $draw;
                    draw(&mut Draw::new(Version::V5_0.into(), u)?)
                }
            }
        )*
    };
}

packets! {
    Connect: |draw| draw.connect();
    Will: |draw| draw.will();
    Connack: |draw| draw.connack();
    Publish: |draw| draw.publish();
    Ack: |draw| draw.ack(PacketType::Puback);
    Subscribe: |draw| draw.subscribe();
    Suback: |draw| draw.suback(PacketType::Suback);
    Unsubscribe: |draw| draw.unsubscribe();
    Disconnect: |draw| draw.disconnect();
    Auth: |draw| draw.auth();
}

struct Draw<'u, 'a> {
    rules: Rules,
    u: &'u mut Unstructured<'a>,
    is_careless: bool,
}

impl<'u, 'a> Draw<'u, 'a> {
    fn new(rules: Rules, u: &'u mut Unstructured<'a>) -> Result<Self> {
        let is_careless = u.int_in_range(0..=15)? == 15;
        Ok(Self { rules, u, is_careless })
    }

    fn any<T: Arbitrary<'a>>(&mut self) -> Result<T> {
        self.u.arbitrary()
    }

    const fn is_v5(&self) -> bool {
        matches!(self.rules.version, Version::V5_0)
    }

    /// Draws a type. If it cannot be sent, the next one that can is the result.
    fn packet_type(&mut self) -> Result<PacketType> {
        let mut number: u8 = self.u.int_in_range(1..=15)?;
        loop {
            let packet_type = PacketType::from_number(number);
            let is_sent = |sender| {
                packet_type.is_some_and(|it| it.may_be_sent_by(sender, self.rules.version))
            };
            let allowed = self.rules.from_client && is_sent(Role::Client)
                || self.rules.from_server && is_sent(Role::Server);
            match packet_type {
                Some(packet_type) if allowed || self.is_careless => return Ok(packet_type),
                _ => number = number % 15 + 1,
            }
        }
    }

    fn properties<T: Arbitrary<'a> + Default>(&mut self) -> Result<T> {
        if self.is_v5() || self.is_careless { self.any() } else { Ok(T::default()) }
    }

    /// Draws bytes that have room in a field.
    fn binary(&mut self) -> Result<&'a [u8]> {
        let bytes: &[u8] = self.any()?;
        Ok(bytes.get(..65_535).unwrap_or(bytes))
    }

    fn topic_name(&mut self) -> Result<Text<'a>> {
        let text: Text<'_> = self.any()?;
        if self.is_careless {
            return Ok(text);
        }
        let name = text.to_str().split(['+', '#']).next().unwrap_or_default();
        Ok(if name.is_empty() { "t".into() } else { name.into() })
    }

    /// Draws a code. If the packet cannot carry it, the next one that it can is the result.
    fn reason_code(&mut self, packet: PacketType) -> Result<ReasonCode> {
        let code: u8 = self.any()?;
        let mut codes = (0..=u8::MAX).map(|step| ReasonCode::new(code.wrapping_add(step)));
        let allowed = |code: &ReasonCode| self.is_careless || self.rules.allows(*code, packet);
        Ok(codes.find(allowed).unwrap_or_default())
    }

    /// Draws a list, which is replaced by the valid `examples` if it breaks a rule.
    fn list<T: Element<'a>>(
        &mut self,
        examples: &'a [T],
        is_valid: impl Fn(T, Rules) -> bool,
    ) -> Result<Sequence<'a, T>>
    where
        Sequence<'a, T>: Arbitrary<'a>,
    {
        let list: Sequence<'_, T> = self.any()?;
        let is_good = !list.is_empty() && list.iter().all(|value| is_valid(value, self.rules));
        if is_good || self.is_careless {
            return Ok(list);
        }
        let start = self.u.choose_index(examples.len())?;
        let end = self.u.int_in_range(start + 1..=examples.len())?;
        Ok(examples.get(start..end).unwrap_or(examples).into())
    }

    fn connect(&mut self) -> Result<Connect<'a>> {
        let version = self.rules.version;
        let mut connect = Connect {
            version,
            clean_start: self.any()?,
            keep_alive: self.any()?,
            client_identifier: self.any()?,
            will: if self.any()? { Some(self.will()?) } else { None },
            user_name: self.any()?,
            password: if self.any()? { Some(self.binary()?) } else { None },
            properties: self.properties()?,
        };
        if self.is_careless {
            return Ok(connect);
        }
        if version == Version::V3_1 {
            let identifier = connect.client_identifier.to_str();
            let end = identifier.char_indices().nth(23).map_or(identifier.len(), |(end, _)| end);
            let identifier = identifier.get(..end).unwrap_or_default();
            connect.client_identifier = if identifier.is_empty() { "c" } else { identifier }.into();
        }
        connect.clean_start |= connect.client_identifier.is_empty();
        if connect.password.is_some() && !self.is_v5() {
            connect.user_name = connect.user_name.or(Some(Text::literal("u")));
        }
        if connect.properties.authentication_method.is_none() {
            connect.properties.authentication_data = None;
        }
        Ok(connect)
    }

    fn will(&mut self) -> Result<Will<'a>> {
        let (qos, retain, topic) = (self.any()?, self.any()?, self.topic_name()?);
        let mut will =
            Will { qos, retain, topic, payload: self.binary()?, properties: self.properties()? };
        self.fit(&mut will.properties.payload_format_indicator, will.payload);
        Ok(will)
    }

    /// Clears the Payload Format Indicator of a payload that is not text.
    fn fit(&self, indicator: &mut Option<bool>, payload: &[u8]) {
        if !self.is_careless && core::str::from_utf8(payload).is_err() {
            *indicator = indicator.map(|_| false);
        }
    }

    fn connack(&mut self) -> Result<Connack<'a>> {
        let reason_code = self.reason_code(PacketType::Connack)?;
        let can_be_present = self.is_careless
            || reason_code == ReasonCode::SUCCESS && self.rules.version > Version::V3_1;
        let session_present = self.any::<bool>()? && can_be_present;
        Ok(Connack { session_present, reason_code, properties: self.properties()? })
    }

    fn publish(&mut self) -> Result<Publish<'a>> {
        let qos: QoS = self.any()?;
        let is_acknowledged = qos > QoS::AtMostOnce;
        let packet_identifier =
            if is_acknowledged || self.is_careless { Some(self.any()?) } else { None };
        let mut publish = Publish {
            dup: self.any::<bool>()? && (is_acknowledged || self.is_careless),
            qos,
            retain: self.any()?,
            topic_name: self.topic_name()?,
            packet_identifier,
            properties: self.properties()?,
            payload: self.any()?,
        };
        let PublishProperties { payload_format_indicator, topic_alias, .. } =
            &mut publish.properties;
        self.fit(payload_format_indicator, publish.payload);
        if topic_alias.is_some() && self.any()? {
            publish.topic_name = Text::default();
        }
        if !self.rules.from_server && !self.is_careless {
            publish.properties.subscription_identifiers = Sequence::default();
        }
        Ok(publish)
    }

    fn ack(&mut self, packet: PacketType) -> Result<Ack<'a>> {
        Ok(Ack {
            packet_identifier: self.any()?,
            reason_code: self.reason_code(packet)?,
            properties: self.properties()?,
        })
    }

    fn subscribe(&mut self) -> Result<Subscribe<'a>> {
        let examples = subscriptions(self.is_v5());
        let subscriptions = self.list(examples, |subscription, rules| {
            let one = [subscription];
            Packet::from(Subscribe::new(super::PacketIdentifier::FIRST, &one)).is_valid(rules)
        })?;
        let (packet_identifier, properties) = (self.any()?, self.properties()?);
        Ok(Subscribe { packet_identifier, properties, subscriptions })
    }

    fn suback(&mut self, packet: PacketType) -> Result<Suback<'a>> {
        let has_codes = packet == PacketType::Suback || self.is_v5();
        let reason_codes = if has_codes || self.is_careless {
            let examples = suback_codes(packet, self.rules.version);
            self.list(examples, move |code, rules| rules.allows(code, packet))?
        } else {
            Sequence::default()
        };
        let (packet_identifier, properties) = (self.any()?, self.properties()?);
        Ok(Suback { packet_identifier, properties, reason_codes })
    }

    fn unsubscribe(&mut self) -> Result<Unsubscribe<'a>> {
        let topic_filters = self.list(filters(), |filter, rules| {
            super::filter::TopicFilter::check(filter, rules.version).is_ok()
        })?;
        let (packet_identifier, properties) = (self.any()?, self.properties()?);
        Ok(Unsubscribe { packet_identifier, properties, topic_filters })
    }

    fn disconnect(&mut self) -> Result<Disconnect<'a>> {
        let reason_code = self.reason_code(PacketType::Disconnect)?;
        let mut disconnect = Disconnect { reason_code, properties: self.properties()? };
        if !self.is_careless {
            // The code and the properties must be those of one sender.
            if !self.rules.from_client {
                disconnect.properties.session_expiry_interval = None;
            }
            if !self.rules.from_server {
                disconnect.properties.server_reference = None;
            }
        }
        Ok(disconnect)
    }

    fn auth(&mut self) -> Result<Auth<'a>> {
        let reason_code = self.reason_code(PacketType::Auth)?;
        let mut auth = Auth { reason_code, properties: self.properties()? };
        if !self.is_careless {
            let method = &mut auth.properties.authentication_method;
            *method = method.or(Some(Text::literal("m")));
        }
        Ok(auth)
    }
}
