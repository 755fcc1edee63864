//! Draws operations from the data of a fuzzer.

use super::{Host, Machine};
use crate::watch::{Configured, Watch};
use arbitrary::{Arbitrary, Unstructured};
use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::codec::{
    self, Ack, AckProperties, Auth, AuthProperties, Connack, ConnackProperties, Connect,
    ConnectProperties, Disconnect, Options, Packet, PacketIdentifier, PacketType, Publish,
    PublishProperties, QoS, ReasonCode, Role, Rules, Sequence, Suback, Subscribe,
    SubscribeProperties, Subscription, Text, Unsubscribe, UnsubscribeProperties, Version, Will,
};
use mqtt_sansio::session::QueueLimit;

pub(super) struct Draw<'a>(pub(super) Unstructured<'a>);

/// At the end of the data every method returns the first choice.
impl<'a> Draw<'a> {
    pub(super) fn below(&mut self, limit: u8) -> u8 {
        self.0.arbitrary::<u8>().unwrap_or(0) % limit
    }

    /// Whether the last of `choices` was drawn.
    pub(super) fn one_in(&mut self, choices: u8) -> bool {
        self.below(choices) == choices - 1
    }

    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.below(choices.len() as u8))]
    }

    pub(super) fn maybe<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        if self.one_in(3) { Some(self.pick(choices)) } else { None }
    }

    pub(super) fn bytes(&mut self, most: u8) -> &'a [u8] {
        let count = usize::from(self.below(most)).min(self.0.len());
        self.0.bytes(count).unwrap_or_default()
    }

    /// Draws an arbitrary value from a few bytes, because strings would use up all of them.
    pub(super) fn any<T: Arbitrary<'a>>(&mut self) -> Option<T> {
        T::arbitrary(&mut Unstructured::new(self.bytes(100))).ok()
    }

    pub(super) fn version(&mut self) -> Version {
        self.pick(&[Version::V5_0, Version::V3_1_1, Version::V5_0, Version::V3_1])
    }

    pub(super) fn qos(&mut self) -> QoS {
        self.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtMostOnce])
    }

    /// Draws a small identifier, which is likely to be in use.
    pub(super) fn identifier(&mut self) -> PacketIdentifier {
        let number =
            if self.one_in(16) { self.any().unwrap_or(1) } else { 1 + u16::from(self.below(6)) };
        PacketIdentifier::new(number).unwrap_or(PacketIdentifier::new(1).unwrap())
    }

    /// Draws a reason code, mostly success.
    pub(super) fn code(&mut self) -> ReasonCode {
        const CODES: [ReasonCode; 4] = [
            ReasonCode::QUOTA_EXCEEDED,
            ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
            ReasonCode::NO_MATCHING_SUBSCRIBERS,
            ReasonCode::UNSPECIFIED_ERROR,
        ];
        if self.one_in(3) { self.pick(&CODES) } else { ReasonCode::SUCCESS }
    }

    /// Draws a message, without its number. One in `aliases` has an alias.
    pub(super) fn publish(&mut self, aliases: u8) -> Publish<'a> {
        if self.one_in(12) {
            return self.any().unwrap_or_default();
        }
        let properties = PublishProperties {
            message_expiry_interval: if self.one_in(4) {
                Some(self.pick(&[0, 1, 2, 60]))
            } else {
                None
            },
            topic_alias: if self.one_in(aliases) { Some(self.pick(&[1, 2, 3, 0])) } else { None },
            content_type: if self.one_in(8) { self.any() } else { None },
            ..PublishProperties::default()
        };
        let topic_name =
            self.pick(&["t", "a/b", "", "a long topic name, for packets that are too large"]);
        Publish {
            qos: self.qos(),
            retain: self.one_in(6),
            properties,
            payload: self.bytes(12),
            ..Publish::new(topic_name, b"")
        }
    }

    pub(super) fn connect(&mut self) -> Connect<'a> {
        if self.one_in(12) {
            return self.any().unwrap_or_else(|| Connect::new(Version::V5_0, ""));
        }
        let mut connect = Connect::new(self.version(), "c");
        connect.clean_start = self.one_in(4);
        connect.keep_alive = self.pick(&[0, 10, 65_535, 1]);
        if self.one_in(8) {
            let (qos, retain) = (self.qos(), self.one_in(2));
            connect.will = Some(Will { qos, retain, topic: "w".into(), ..Will::default() });
        }
        if connect.version == Version::V5_0 {
            connect.properties = ConnectProperties {
                session_expiry_interval: self.pick(&[Some(u32::MAX), Some(60), None, Some(0)]),
                receive_maximum: self.maybe(&[1, 2, 5, 65_535]),
                topic_alias_maximum: self.maybe(&[2, 0, 65_535]),
                maximum_packet_size: self.maybe(&[100, 60, 200, 1_000, 20, 4, 2, 1]),
                authentication_method: if self.one_in(4) { Some("m".into()) } else { None },
                request_problem_information: self.maybe(&[false, true]),
                ..ConnectProperties::default()
            };
        }
        connect
    }

    pub(super) fn connack(&mut self, watch: &Watch) -> Connack<'a> {
        let refused = self.one_in(12);
        let session_present = watch.resumes() != self.one_in(8);
        let mut connack =
            Connack { session_present: !refused && session_present, ..Connack::default() };
        if refused {
            connack.reason_code = self.pick(&[ReasonCode::NOT_AUTHORIZED, ReasonCode::SERVER_BUSY]);
        }
        if watch.version == Version::V3_1 {
            connack.session_present = false;
        }
        if watch.version == Version::V5_0 {
            connack.properties = ConnackProperties {
                session_expiry_interval: self.maybe(&[0, 60, u32::MAX]),
                server_keep_alive: self.maybe(&[0, 1, 5]),
                receive_maximum: self.maybe(&[1, 2, 5, 65_535]),
                topic_alias_maximum: self.maybe(&[2, 0, 65_535]),
                maximum_qos: if self.one_in(6) {
                    Some(self.pick(&[QoS::AtLeastOnce, QoS::AtMostOnce]))
                } else {
                    None
                },
                retain_available: if self.one_in(6) { Some(false) } else { None },
                maximum_packet_size: self.maybe(&[100, 60, 200, 1_000, 20, 4, 2, 1]),
                wildcard_subscription_available: self.maybe(&[true, false]),
                subscription_identifier_available: self.maybe(&[true, false]),
                shared_subscription_available: self.maybe(&[true, false]),
                authentication_method: if watch.authenticates() != self.one_in(16) {
                    Some("m".into())
                } else {
                    None
                },
                ..ConnackProperties::default()
            };
        }
        connack
    }

    pub(super) fn auth(&mut self) -> Auth<'a> {
        if self.one_in(8) {
            return self.any().unwrap_or_default();
        }
        let reason_code = self.pick(&[
            ReasonCode::CONTINUE_AUTHENTICATION,
            ReasonCode::RE_AUTHENTICATE,
            ReasonCode::SUCCESS,
        ]);
        let method = if self.one_in(8) { "n" } else { "m" };
        Auth {
            reason_code,
            properties: AuthProperties {
                authentication_method: Some(method.into()),
                ..AuthProperties::default()
            },
        }
    }

    pub(super) fn filters(&mut self) -> &'static [Subscription<'static>] {
        let all = [&ONE_FILTER[..], &THREE_FILTERS, &[], &WRONG_FILTERS];
        self.pick(&all)
    }

    /// Draws a packet that the peer may send now.
    pub(super) fn right_packet(&mut self, watch: &Watch) -> Option<Packet<'a>> {
        let possible = watch.possible();
        let (packet, identifier, codes) =
            *possible.get(usize::from(self.below(255)) % possible.len().max(1))?;
        let packet_identifier = PacketIdentifier::new(identifier)?;
        let ack = Ack::new(
            packet_identifier,
            if watch.version == Version::V5_0 { self.code() } else { ReasonCode::SUCCESS },
        );
        Some(match packet {
            PacketType::Puback => Packet::Puback(ack),
            PacketType::Pubrec => Packet::Pubrec(ack),
            PacketType::Pubrel => Packet::Pubrel(Ack::new(packet_identifier, ReasonCode::SUCCESS)),
            PacketType::Pubcomp => {
                Packet::Pubcomp(Ack::new(packet_identifier, ReasonCode::SUCCESS))
            }
            _ => {
                let reason_codes = Sequence::from(&CODES[..codes.min(CODES.len())]);
                let suback = Suback {
                    packet_identifier,
                    properties: AckProperties::default(),
                    reason_codes,
                };
                let no_codes = Suback { reason_codes: Sequence::default(), ..suback };
                match packet {
                    PacketType::Suback => Packet::Suback(suback),
                    _ if watch.version < Version::V5_0 => Packet::Unsuback(no_codes),
                    _ => Packet::Unsuback(suback),
                }
            }
        })
    }

    /// Draws bytes of the peer: mostly whole packets that follow its rules.
    pub(super) fn feed(&mut self, watch: &Watch, sender: Role) -> Vec<u8> {
        let rules = Rules::new(watch.version).sent_by(sender);
        let small = [Packet::Puback, Packet::Pubrec, Packet::Pubrel, Packet::Pubcomp];
        let packet = match self.below(128) {
            0..40 => {
                let publish = self.publish(12);
                let packet_identifier =
                    if publish.qos == QoS::AtMostOnce { None } else { Some(self.identifier()) };
                let dup = publish.qos > QoS::AtMostOnce && self.one_in(3);
                Some(
                    Publish { packet_identifier, dup, ..publish.for_version(watch.version) }.into(),
                )
            }
            40..50 if sender == Role::Client => Some(self.request()),
            40..106 => self.right_packet(watch),
            106..110 => {
                let code =
                    if watch.version == Version::V5_0 { self.code() } else { ReasonCode::SUCCESS };
                Some(self.pick(&small)(Ack::new(self.identifier(), code)))
            }
            110..118 => {
                Some(if sender == Role::Client { Packet::Pingreq } else { Packet::Pingresp })
            }
            118..122 if watch.authenticates() => Some(self.auth().into()),
            118 => Some(self.auth().into()),
            119 if sender == Role::Client => Some(self.connect().into()),
            119 => Some(self.connack(watch).into()),
            120 | 121 => self.any(),
            122 => Some(Disconnect::default().into()),
            123 | 124 => return self.bytes(40).to_vec(),
            _ => None,
        };
        let mut bytes = Vec::new();
        if let Some(packet) = packet {
            let _ = codec::encode(&packet, rules.forwarding(), &mut bytes);
        }
        if self.one_in(64) && !bytes.is_empty() {
            let at = usize::from(self.below(255)) % bytes.len();
            bytes[at] ^= 1 << self.below(8);
        }
        // Sometimes the end is missing.
        bytes.truncate(if self.one_in(64) { bytes.len() / 2 } else { bytes.len() });
        bytes
    }

    pub(super) fn request(&mut self) -> Packet<'a> {
        let packet_identifier = self.identifier();
        if self.one_in(2) {
            let topic_filters = Sequence::from(&FILTERS[..1 + usize::from(self.below(2))]);
            return Unsubscribe {
                packet_identifier,
                properties: UnsubscribeProperties::default(),
                topic_filters,
            }
            .into();
        }
        let subscriptions = if self.one_in(2) { &ONE_FILTER[..] } else { &THREE_FILTERS };
        Subscribe {
            packet_identifier,
            properties: SubscribeProperties::default(),
            subscriptions: subscriptions.into(),
        }
        .into()
    }
}

pub(super) const FILTERS: [Text<'static>; 2] = [Text::literal("t"), Text::literal("a/+")];
pub(super) const CODES: [ReasonCode; 3] =
    [ReasonCode::SUCCESS, ReasonCode::GRANTED_QOS_1, ReasonCode::NOT_AUTHORIZED];

pub(super) const fn filter(topic_filter: &'static str) -> Subscription<'static> {
    let options = codec::SubscriptionOptions {
        maximum_qos: QoS::ExactlyOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: codec::RetainHandling::Send,
    };
    Subscription { topic_filter: Text::literal(topic_filter), options }
}

pub(super) const ONE_FILTER: [Subscription<'static>; 1] = [filter("t")];
pub(super) const THREE_FILTERS: [Subscription<'static>; 3] =
    [filter("a/#"), filter("+"), filter("$share/g/t")];
pub(super) const WRONG_FILTERS: [Subscription<'static>; 1] = [filter("a#")];

/// The configuration of the machine and its host.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) manual_acknowledgement: bool,
    pub(super) options: Options,
    pub(super) maximum_in_flight: u16,
    pub(super) receive_maximum: u16,
    pub(super) maximum_requests: usize,
    pub(super) maximum_packet_size: u32,
    pub(super) queue: QueueLimit,
    pub(super) connect_timeout: Duration,
    pub(super) ping_timeout: Option<Duration>,
    pub(super) maximum_keep_alive: u16,
    pub(super) maximum_qos: QoS,
    pub(super) retain_available: bool,
    pub(super) automatic_topic_aliases: u16,
    pub(super) start: Instant,
    /// The size of the pieces in which all input arrives in the second run.
    pub(super) piece: Option<usize>,
    /// The answers of the host, in order.
    pub(super) answers: Vec<u8>,
}

impl Setup {
    pub(super) fn draw(draw: &mut Draw<'_>) -> Self {
        let options = [
            Options::NONE,
            Options::REFUSE_CONTROL_CHARACTERS.union(Options::CHECK_PAYLOAD_FORMAT),
            // `watch` expects each message to be reported, and a client skips these.
            Options::DEPLOYED_DEVICES
                .iter()
                .filter(|option| *option != Options::UNREADABLE_TOPIC)
                .collect(),
        ];
        Self {
            manual_acknowledgement: draw.one_in(2),
            options: draw.pick(&options),
            maximum_in_flight: draw.pick(&[20, 1, 2, 65_535]),
            receive_maximum: draw.pick(&[20, 1, 2, 65_535]),
            maximum_requests: draw.pick(&[8, 1, 2]),
            maximum_packet_size: draw.pick(&[1_048_576, 268_435_460, 100_000, 80]),
            queue: draw.pick(&[
                QueueLimit { messages: 1_000, bytes: 1_000_000 },
                QueueLimit { messages: 3, bytes: 1_000 },
                QueueLimit { messages: 20, bytes: 30 },
                QueueLimit { messages: 0, bytes: 0 },
            ]),
            connect_timeout: Duration::from_millis(draw.pick(&[10_000, 1, 0])),
            ping_timeout: draw.pick(&[
                None,
                Some(Duration::from_millis(500)),
                Some(Duration::ZERO),
            ]),
            maximum_keep_alive: draw.pick(&[0, 5]),
            maximum_qos: draw.pick(&[
                QoS::ExactlyOnce,
                QoS::ExactlyOnce,
                QoS::ExactlyOnce,
                QoS::AtLeastOnce,
                QoS::AtMostOnce,
            ]),
            retain_available: !draw.one_in(4),
            automatic_topic_aliases: draw.pick(&[0, 0, 2]),
            start: Instant::from_millis(draw.pick(&[0, 1 << 40])),
            piece: draw.pick(&[None, Some(1), Some(3)]),
            answers: draw.bytes(8).to_vec(),
        }
    }

    pub(super) fn configured(&self, role: Role) -> Configured {
        Configured {
            role,
            options: self.options,
            manual_acknowledgement: self.manual_acknowledgement,
            maximum_in_flight: self.maximum_in_flight,
            receive_maximum: self.receive_maximum,
        }
    }
}

#[derive(Debug)]
pub(super) enum Operation<'a> {
    /// The peer sends bytes, or nothing.
    Feed(Vec<u8>),
    Wait {
        milliseconds: u64,
        /// Whether the host handles timeouts then.
        handle: bool,
    },
    /// Time passes until the next deadline.
    WaitUntilDue,
    Lost,
    Progress,
    Acknowledge {
        index: usize,
        code: ReasonCode,
    },
    Publish {
        publish: Publish<'a>,
        /// The number of bytes that are added to the payload.
        padding: usize,
        subscription_identifiers: usize,
        flush: bool,
    },
    /// The session is stored and loaded after that time, perhaps with a byte changed.
    Store {
        milliseconds: u64,
        changed: Option<(usize, u8)>,
    },
    Authenticate(Auth<'a>),
    Disconnect(Disconnect<'a>),
    // Operations of a client.
    Connect(Box<Connect<'a>>),
    Subscribe(&'static [Subscription<'static>], SubscribeProperties<'a>),
    Unsubscribe(&'static [Text<'static>]),
    // Operations of a server.
    Open,
    Accept {
        resume: bool,
        properties: Box<ConnackProperties<'a>>,
    },
    Refuse(ReasonCode),
    Answer {
        index: usize,
        identifier: PacketIdentifier,
        codes: usize,
        other: bool,
    },
}

pub(super) fn draw_common<'a, M: Machine>(host: &Host<M>, draw: &mut Draw<'a>) -> Operation<'a> {
    let peer = if M::ROLE == Role::Client { Role::Server } else { Role::Client };
    match draw.below(24) {
        0..10 => Operation::Feed(draw.feed(&host.watch, peer)),
        10..16 => Operation::Publish {
            publish: draw.publish(3),
            padding: if draw.one_in(64) { 70_000 } else { 0 },
            subscription_identifiers: if draw.one_in(8) { 2 } else { 0 },
            flush: draw.one_in(2),
        },
        16 => Operation::Wait {
            milliseconds: draw.pick(&[1, 500, 1, 1_000, 500, 10_000, 1, 100_000_000]),
            handle: draw.one_in(2),
        },
        17 => Operation::WaitUntilDue,
        18..21 => Operation::Acknowledge { index: draw.below(255).into(), code: draw.code() },
        21 if draw.one_in(3) => {
            let changed =
                if draw.one_in(8) { Some((draw.below(255).into(), draw.below(255))) } else { None };
            Operation::Store { milliseconds: draw.pick(&[0, 1, 1_500, 100_000]), changed }
        }
        22 if draw.one_in(4) => Operation::Lost,
        22 if host.watch.authenticates() || draw.one_in(4) => Operation::Authenticate(draw.auth()),
        23 if draw.one_in(4) => Operation::Disconnect(if draw.one_in(3) {
            draw.any().unwrap_or_default()
        } else {
            Disconnect::default()
        }),
        23 => Operation::Progress,
        _ => M::draw(host, draw),
    }
}
