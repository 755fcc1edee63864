//! Messages: received ones as views of the input, kept ones in an allocation of their own.

use super::AckToken;
use crate::codec::{
    AckProperties, Message, Publish, PublishProperties, QoS, ReasonCode, SubscriptionIdentifier,
    TopicName,
};
use crate::time::Instant;
use alloc::boxed::Box;
use core::num::NonZero;
use core::ops::Deref;

/// A message that has arrived. It is a view of the input, except for a topic name that an alias
/// stood for.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// The topic name, from the packet or from its topic alias.
    pub topic_name: TopicName<'a>,
    /// The payload, which can be any bytes.
    pub payload: &'a [u8],
    /// The QoS with which it was sent to this side.
    pub qos: QoS,
    /// To a server: whether the message must be retained. To a client: whether it was.
    pub retain: bool,
    /// Whether the peer says that it may have sent the message before.
    pub dup: bool,
    /// The properties without the topic alias, which has no meaning outside the connection.
    pub properties: PublishProperties<'a>,
    /// The token that acknowledges a QoS 1 or 2 message manually.
    pub token: Option<AckToken>,
}

impl<'a> Received<'a> {
    #[inline]
    pub(crate) fn of(
        publish: &Publish<'a>,
        topic_name: TopicName<'a>,
        token: Option<AckToken>,
    ) -> Self {
        let Publish { payload, qos, retain, dup, .. } = *publish;
        let properties = PublishProperties { topic_alias: None, ..publish.properties };
        Self { topic_name, payload, qos, retain, dup, properties, token }
    }

    /// Returns the message as a PUBLISH, to be forwarded or kept.
    #[must_use]
    pub fn to_publish(&self) -> Publish<'_> {
        Publish {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic_name: self.topic_name.as_text(),
            packet_identifier: None,
            properties: self.properties,
            payload: self.payload,
        }
    }
}

/// A message for one receiver, with what depends on that receiver.
///
/// ```
/// use mqtt_sansio::codec::Publish;
/// use mqtt_sansio::session::{Message, Outgoing};
///
/// let message = Message::new(&Publish::new("room/4", b"21.5"))?;
/// let outgoing = Outgoing::new(Some(7), message.clone());
/// assert_eq!((outgoing.key.unwrap().get(), outgoing.message), (7, message));
/// # Ok::<_, mqtt_sansio::codec::EncodeError>(())
/// ```
#[expect(clippy::exhaustive_structs, reason = "all fields are the caller's to choose")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The message, with the QoS and RETAIN flag that it must be sent with.
    pub message: Message,
    /// The caller's name for the message, with which its outcome is reported. Without a key there
    /// is no report.
    pub key: Option<Key>,
    /// The identifiers of the subscriptions for which it is sent. None before 5.0 and from a
    /// client.
    pub subscription_identifiers: SubscriptionIdentifiers,
    /// The time after which the message must not be sent for the first time. [5.0 MQTT-3.3.2-5]
    pub expires_at: Option<Instant>,
}

impl Outgoing {
    /// Creates an outgoing message without subscription identifiers that does not expire. The key
    /// `u64::MAX` stands for none.
    #[must_use]
    #[inline]
    pub fn new(key: Option<u64>, message: Message) -> Self {
        let (key, subscription_identifiers) = (key.and_then(Key::new), Default::default());
        Self { message, key, subscription_identifiers, expires_at: None }
    }

    /// Returns the key as a number.
    #[inline]
    pub(crate) fn number(&self) -> Option<u64> {
        self.key.map(Key::get)
    }

    /// Returns the number of bytes that count towards a queue limit: those of the message, and four
    /// for each subscription identifier.
    #[must_use]
    pub fn size(&self) -> usize {
        self.message.size() + 4 * self.subscription_identifiers.len()
    }

    /// Returns the report of its outcome. There is none for QoS 0 or without a key.
    pub(crate) fn ended(self, outcome: Outcome<'static>) -> Option<Published<'static>> {
        let key = self.number().filter(|_| self.message.qos() > QoS::AtMostOnce)?;
        Some(Published { key, outcome })
    }
}

/// The caller's name for a message: any number but `u64::MAX`.
///
/// ```
/// use mqtt_sansio::session::Key;
///
/// assert_eq!(Key::new(7).map(Key::get), Some(7));
/// assert!(Key::new(u64::MAX).is_none());
/// assert_eq!(size_of::<Option<Key>>(), 8);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(
    /// One more than the number, so that an `Option<Key>` takes eight bytes.
    NonZero<u64>,
);

impl Key {
    /// Creates a key. There is none for `u64::MAX`.
    #[must_use]
    #[inline]
    pub const fn new(number: u64) -> Option<Self> {
        match number.checked_add(1) {
            Some(more) => match NonZero::new(more) {
                Some(more) => Some(Self(more)),
                None => None,
            },
            None => None,
        }
    }

    /// Returns the number.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u64 {
        self.0.get() - 1
    }
}

/// The identifiers of the subscriptions for which a message is sent. Most messages have none, so
/// they take the room of a pointer.
///
/// ```
/// use mqtt_sansio::codec::SubscriptionIdentifier;
/// use mqtt_sansio::session::SubscriptionIdentifiers;
///
/// let none = SubscriptionIdentifiers::default();
/// let both = SubscriptionIdentifiers::from_iter([SubscriptionIdentifier::MAX; 2]);
/// assert_eq!((none.len(), both.len()), (0, 2));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionIdentifiers(Option<Box<Identifiers>>);

/// One identifier is in the same block.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identifiers {
    One([SubscriptionIdentifier; 1]),
    Many(Box<[SubscriptionIdentifier]>),
}

impl Deref for SubscriptionIdentifiers {
    type Target = [SubscriptionIdentifier];

    #[inline]
    fn deref(&self) -> &[SubscriptionIdentifier] {
        match self.0.as_deref() {
            None => &[],
            Some(Identifiers::One(one)) => one,
            Some(Identifiers::Many(many)) => many,
        }
    }
}

impl FromIterator<SubscriptionIdentifier> for SubscriptionIdentifiers {
    #[inline]
    fn from_iter<I: IntoIterator<Item = SubscriptionIdentifier>>(identifiers: I) -> Self {
        let mut identifiers = identifiers.into_iter();
        let Some(first) = identifiers.next() else { return Self(None) };
        Self(Some(Box::new(match identifiers.next() {
            None => Identifiers::One([first]),
            Some(second) => {
                Identifiers::Many([first, second].into_iter().chain(identifiers).collect())
            }
        })))
    }
}

/// The report of the outcome of a QoS 1 or 2 message. There is exactly one for each key.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published<'a> {
    /// The caller's name for the message.
    pub key: u64,
    /// The outcome of the message.
    pub outcome: Outcome<'a>,
}

/// The outcome of a QoS 1 or 2 message.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The receiver has answered with PUBACK, PUBCOMP, or a PUBREC with an error.
    Acknowledged {
        /// An [error](ReasonCode::is_error) if the receiver refused the message.
        reason_code: ReasonCode,
        /// The properties of the answer.
        properties: AckProperties<'a>,
    },
    /// The message expired while it waited, and was not sent. [5.0 MQTT-3.3.2-5]
    Expired,
    /// The message waited, or had to be resent, and the next connection did not allow it because of
    /// its size, QoS or RETAIN flag. One that had to be resent may have arrived before. A message
    /// of a server counts as delivered. [5.0 MQTT-3.1.2-25] [5.0 MQTT-3.2.2-15]
    NotAllowed(Message),
    /// The peer has lost the session, so it is unknown whether the message has arrived. A message
    /// that is published again can arrive twice. `None` means that the peer has received the
    /// message, and only the end of its QoS 2 exchange is missing. A server that delivers a message
    /// at PUBREL may have lost it.
    SessionLost(Option<Message>),
}
