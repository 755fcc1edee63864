//! `-D PACKET PROPERTY VALUE`: the properties of 5.0.

use anyhow::{Context as _, Result, bail, ensure};
use mqtt_sansio_client::codec::{
    ConnectProperties, DisconnectProperties, PublishProperties, SubscribeProperties,
    SubscriptionIdentifier, UnsubscribeProperties, UserProperty, WillProperties,
};
use std::str::FromStr;

/// A property of the command line.
struct Property {
    packet: String,
    name: String,
    /// Two for a user property.
    values: Vec<String>,
}

/// The properties of the command line.
pub(crate) struct Properties(Vec<Property>);

/// The properties that a packet can have.
const KNOWN: [(&str, &[&str]); 6] = [
    (
        "connect",
        &[
            "authentication-data",
            "authentication-method",
            "maximum-packet-size",
            "receive-maximum",
            "request-problem-information",
            "request-response-information",
            "session-expiry-interval",
            "topic-alias-maximum",
        ],
    ),
    (
        "publish",
        &[
            "content-type",
            "correlation-data",
            "message-expiry-interval",
            "payload-format-indicator",
            "response-topic",
            "topic-alias",
        ],
    ),
    (
        "will",
        &[
            "content-type",
            "correlation-data",
            "message-expiry-interval",
            "payload-format-indicator",
            "response-topic",
            "will-delay-interval",
        ],
    ),
    ("subscribe", &["subscription-identifier"]),
    ("unsubscribe", &[]),
    ("disconnect", &["reason-string", "session-expiry-interval"]),
];

impl Properties {
    /// Reads the words after all `-D`: packet, property, value, and a second value for a user
    /// property.
    pub(crate) fn parse(words: &[String]) -> Result<Self> {
        let mut words = words.iter();
        let mut all = Vec::new();
        while let Some(packet) = words.next() {
            let packet = packet.to_lowercase();
            let name = words.next().cloned().unwrap_or_default();
            let known = KNOWN.iter().find(|(known, _)| *known == packet);
            let (_, known) = known.with_context(|| {
                let packets = KNOWN.map(|(packet, _)| packet).join(", ");
                format!("expected {packets} after -D, got {packet:?}")
            })?;
            let is_user = name == "user-property";
            if !is_user && !known.contains(&name.as_str()) {
                let known = known.join(", ");
                bail!("expected user-property, {known} as a property of {packet}, got {name:?}");
            }
            let count = if is_user { 2 } else { 1 };
            let values: Vec<_> = words.by_ref().take(count).cloned().collect();
            ensure!(
                values.len() == count,
                "expected -D PACKET user-property NAME VALUE, or -D PACKET PROPERTY VALUE"
            );
            all.push(Property { packet, name, values });
        }
        Ok(Self(all))
    }

    fn text(&self, packet: &str, name: &str) -> Option<&str> {
        let mut all = self.0.iter().rev();
        let found = all.find(|property| property.packet == packet && property.name == name)?;
        found.values.first().map(String::as_str)
    }

    fn number<T: FromStr>(&self, packet: &str, name: &str) -> Result<Option<T>> {
        let Some(text) = self.text(packet, name) else { return Ok(None) };
        let number = text.parse().ok();
        let most = u64::MAX >> (64 - 8 * size_of::<T>());
        number.map(Some).with_context(|| format!("expected 0 to {most} for {name}, got {text:?}"))
    }

    fn flag(&self, packet: &str, name: &str) -> Result<Option<bool>> {
        let number: Option<u8> = self.number(packet, name)?;
        ensure!(number.is_none_or(|number| number < 2), "expected 0 or 1 for {name}");
        Ok(number.map(|number| number == 1))
    }

    /// Refuses properties of packets that a command does not send, beside those of each connection.
    pub(crate) fn only(&self, packets: &[&str]) -> Result<()> {
        let is_sent = |packet| {
            ["connect", "will", "disconnect"].contains(&packet) || packets.contains(&packet)
        };
        let other = self.0.iter().find(|property| !is_sent(&property.packet));
        other.map_or(Ok(()), |other| bail!("-D {0}: this command sends no {0}", other.packet))
    }

    /// Whether there is a property of a packet.
    pub(crate) fn names(&self, packet: &str) -> bool {
        self.0.iter().any(|property| property.packet == packet)
    }

    /// Returns the user properties of a packet.
    pub(crate) fn user(&self, packet: &str) -> Vec<UserProperty<'_>> {
        let all = self.0.iter().filter(|one| one.packet == packet && one.name == "user-property");
        all.filter_map(|one| match one.values.as_slice() {
            [name, value] => Some(UserProperty::new(name, value)),
            _ => None,
        })
        .collect()
    }

    pub(crate) fn connect<'a>(
        &'a self,
        user: &'a [UserProperty<'a>],
    ) -> Result<ConnectProperties<'a>> {
        Ok(ConnectProperties {
            session_expiry_interval: self.number("connect", "session-expiry-interval")?,
            authentication_method: self.text("connect", "authentication-method").map(Into::into),
            authentication_data: self.text("connect", "authentication-data").map(str::as_bytes),
            request_problem_information: self.flag("connect", "request-problem-information")?,
            request_response_information: self.flag("connect", "request-response-information")?,
            receive_maximum: self.number("connect", "receive-maximum")?,
            topic_alias_maximum: self.number("connect", "topic-alias-maximum")?,
            maximum_packet_size: self.number("connect", "maximum-packet-size")?,
            user_properties: user.into(),
        })
    }

    pub(crate) fn publish<'a>(
        &'a self,
        user: &'a [UserProperty<'a>],
    ) -> Result<PublishProperties<'a>> {
        Ok(PublishProperties {
            payload_format_indicator: self.flag("publish", "payload-format-indicator")?,
            message_expiry_interval: self.number("publish", "message-expiry-interval")?,
            content_type: self.text("publish", "content-type").map(Into::into),
            response_topic: self.text("publish", "response-topic").map(Into::into),
            correlation_data: self.text("publish", "correlation-data").map(str::as_bytes),
            topic_alias: self.number("publish", "topic-alias")?,
            user_properties: user.into(),
            ..PublishProperties::default()
        })
    }

    pub(crate) fn will<'a>(&'a self, user: &'a [UserProperty<'a>]) -> Result<WillProperties<'a>> {
        Ok(WillProperties {
            payload_format_indicator: self.flag("will", "payload-format-indicator")?,
            message_expiry_interval: self.number("will", "message-expiry-interval")?,
            content_type: self.text("will", "content-type").map(Into::into),
            response_topic: self.text("will", "response-topic").map(Into::into),
            correlation_data: self.text("will", "correlation-data").map(str::as_bytes),
            will_delay_interval: self.number("will", "will-delay-interval")?,
            user_properties: user.into(),
        })
    }

    pub(crate) fn subscribe<'a>(
        &'a self,
        user: &'a [UserProperty<'a>],
    ) -> Result<SubscribeProperties<'a>> {
        let number: Option<u32> = self.number("subscribe", "subscription-identifier")?;
        let subscription_identifier = number.map(SubscriptionIdentifier::try_from).transpose()?;
        Ok(SubscribeProperties { subscription_identifier, user_properties: user.into() })
    }

    pub(crate) fn unsubscribe<'a>(user: &'a [UserProperty<'a>]) -> UnsubscribeProperties<'a> {
        UnsubscribeProperties { user_properties: user.into() }
    }

    /// Returns the properties of DISCONNECT, if there are any.
    pub(crate) fn disconnect<'a>(
        &'a self,
        user: &'a [UserProperty<'a>],
    ) -> Result<Option<DisconnectProperties<'a>>> {
        let properties = DisconnectProperties {
            session_expiry_interval: self.number("disconnect", "session-expiry-interval")?,
            reason_string: self.text("disconnect", "reason-string").map(Into::into),
            user_properties: user.into(),
            ..DisconnectProperties::default()
        };
        Ok(Some(properties).filter(|properties| !properties.is_empty()))
    }
}
