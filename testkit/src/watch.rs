//! An independent account of one end of a connection: what the standard allows it to write next. It
//! is derived from the bytes that the end has read and written, and from the actions of its host.
//! It shares no code with the machines except the codec.
//!
//! The fuzz targets and the model in `tests/it/model/` watch the machines with it. Messages carry a
//! number at the start of their payload, which increases from message to message in each direction.

use mqtt_sansio::client;
use mqtt_sansio::codec::{
    self, Frame, Options, Packet, PacketIdentifier, PacketType, Publish, QoS, ReasonCode, Role,
    Rules, Version,
};
use mqtt_sansio::server;
use mqtt_sansio::session::{AckToken, CloseCause, Outcome, Published, Received};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A violation, if there is one.
pub type Verdict = Result<(), String>;

#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
pub use crate::ensure;

/// An action of either machine.
#[derive(Clone, Debug)]
pub enum Event<'i> {
    Client(client::Action<'i>),
    Server(server::Action<'i>),
}

impl<'i> Event<'i> {
    pub fn message(&self) -> Option<&Received<'i>> {
        match self {
            Self::Client(client::Action::Message(message))
            | Self::Server(server::Action::Message(message)) => Some(message),
            _ => None,
        }
    }

    pub fn published(&self) -> Option<&Published<'i>> {
        match self {
            Self::Client(client::Action::Published(end))
            | Self::Server(server::Action::Published(end)) => Some(end),
            _ => None,
        }
    }

    pub fn closed(&self) -> Option<&CloseCause<'i>> {
        match self {
            Self::Client(client::Action::Closed(cause))
            | Self::Server(server::Action::Closed { cause, .. }) => Some(cause),
            _ => None,
        }
    }

    /// Returns the key of a SUBSCRIBE or UNSUBSCRIBE that was answered.
    pub fn answered(&self) -> Option<u64> {
        match self {
            Self::Client(
                client::Action::Subscribed(key, _) | client::Action::Unsubscribed(key, _),
            ) => Some(*key),
            _ => None,
        }
    }

    /// Whether it is one of those that a connection ends with.
    pub fn is_last(&self) -> bool {
        self.closed().is_some() || self.request_lost().is_some()
    }

    /// Returns the key of a SUBSCRIBE or UNSUBSCRIBE that was not answered.
    pub fn request_lost(&self) -> Option<u64> {
        match self {
            Self::Client(client::Action::RequestLost(key)) => Some(*key),
            _ => None,
        }
    }

    /// Whether it asks for a SUBACK or UNSUBACK.
    pub fn asks(&self) -> bool {
        matches!(
            self,
            Self::Server(server::Action::Subscribe(..) | server::Action::Unsubscribe(..))
        )
    }
}

/// Returns the number of the message with that payload.
pub fn number(payload: &[u8]) -> Option<u64> {
    let digits = payload.iter().take_while(|byte| byte.is_ascii_digit()).count();
    core::str::from_utf8(payload.get(..digits)?).ok()?.parse().ok()
}

/// Splits bytes into packets, the last of which must be complete.
pub fn frames(mut bytes: &[u8]) -> Result<Vec<Frame<'_>>, String> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let frame = codec::frame(bytes, u32::MAX).map_err(|error| format!("{error}: {bytes:?}"))?;
        let frame = frame.ok_or_else(|| format!("half a packet: {bytes:?}"))?;
        bytes = bytes.get(frame.as_bytes().len()..).unwrap_or_default();
        frames.push(frame);
    }
    Ok(frames)
}

/// The use of an identifier that this side has assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Publish {
        qos: QoS,
        number: u64,
        /// Whether it was sent on this connection.
        here: bool,
    },
    /// A QoS 2 PUBLISH that the peer can have and no longer accepts.
    Withheld,
    Released {
        /// Absent if the message is [`Sent::Withheld`].
        number: Option<u64>,
        /// Increases from one PUBREC to the next.
        order: u64,
        /// Whether PUBREL was sent on this connection.
        here: bool,
        /// Whether the PUBLISH was, and so counts against the Receive Maximum.
        counted: bool,
    },
    Request {
        /// The type of the answer.
        packet: PacketType,
        key: Option<u64>,
        filters: usize,
    },
}

/// The state that outlives a connection.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    sent: BTreeMap<u16, Sent>,
    /// The number of PUBREC packets that have released a message.
    released: u64,
    /// QoS 2 messages that wait for PUBREL, and whether they arrived on this connection.
    taken: BTreeMap<u16, bool>,
    /// A client's messages that were in flight when the session was lost, and whether they had
    /// arrived. The host must get a report for each.
    lost: BTreeMap<u64, bool>,
    /// Whether a client has asked for a session before.
    begun: bool,
    /// Whether a client's session has ended with its connection.
    ended: bool,
    /// Whether the session was loaded from modified bytes, so that its content is unknown.
    pub unknown: bool,
}

impl Kept {
    /// Returns how many identifiers of the peer are in use.
    pub fn taken(&self) -> usize {
        self.taken.len()
    }

    /// Notes that the peer has lost the session.
    fn lose(&mut self) {
        self.taken.clear();
        self.ended = false;
        for sent in core::mem::take(&mut self.sent).into_values() {
            match sent {
                Sent::Publish { number, .. } => self.lost.insert(number, false),
                Sent::Released { number: Some(number), .. } => self.lost.insert(number, true),
                Sent::Released { number: None, .. } | Sent::Withheld | Sent::Request { .. } => None,
            };
        }
    }
}

/// A message that arrived on this connection and is not acknowledged.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    identifier: u16,
    qos: QoS,
    token: Option<AckToken>,
    verdict: Option<ReasonCode>,
    /// Whether it is a QoS 2 message that had its PUBREC and arrived again, or one that was
    /// refused.
    again: bool,
}

impl Waiting {
    /// Whether it is the QoS 2 message with that identifier.
    fn is_twice(&self, identifier: u16) -> bool {
        self.qos == QoS::ExactlyOnce && self.identifier == identifier
    }
}

/// A packet that must be written next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owed {
    packet: PacketType,
    identifier: u16,
    reason_code: ReasonCode,
    codes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No CONNECT has passed.
    Before,
    Handshake,
    Open,
    /// The last packet was written, or the connection has ended.
    Over,
}

/// The limits of one side.
#[derive(Clone, Copy, Debug)]
struct Limits {
    receive_maximum: u16,
    maximum_packet_size: u32,
    topic_alias_maximum: u16,
    maximum_qos: QoS,
    retain_available: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            receive_maximum: u16::MAX,
            maximum_packet_size: u32::MAX,
            topic_alias_maximum: 0,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
        }
    }
}

/// The configuration of the watched end.
#[derive(Clone, Copy, Debug)]
pub struct Configured {
    pub role: Role,
    pub options: Options,
    pub manual_acknowledgement: bool,
    /// The largest number of messages in flight, whatever the peer allows.
    pub maximum_in_flight: u16,
    /// The properties that a server announces to a 5.0 client.
    pub receive_maximum: u16,
}

#[derive(Clone, Debug)]
pub struct Watch {
    configured: Configured,
    pub phase: Phase,
    pub version: Version,
    own: Limits,
    peer: Limits,
    /// The topics of the aliases, of this side and of the peer.
    named: [BTreeMap<u16, Vec<u8>>; 2],
    /// The topics that the host has given with its messages, by number. Empty if it gave only an
    /// alias.
    topics: BTreeMap<u64, Vec<u8>>,
    /// The topics that the host's aliases mean.
    meant: BTreeMap<u16, Vec<u8>>,
    waiting: VecDeque<Waiting>,
    owed: VecDeque<Owed>,
    /// SUBSCRIBE and UNSUBSCRIBE packets that the host has not answered, with the number of their
    /// filters.
    requests: BTreeMap<u16, (PacketType, usize)>,
    /// The session expiry interval of a client.
    expiry: u32,
    /// The keys of the requests that the ended connection has left unanswered.
    unanswered: BTreeSet<u64>,
    accepted: bool,
    authenticates: bool,
    resumes: bool,
    /// The last message written on this connection with QoS 0, and with QoS 1 or 2, and the last
    /// that was released again.
    last: [u64; 3],
    /// The last message ever written for the first time, with QoS 0, and with QoS 1 or 2.
    newest: [u64; 2],
    /// The total number of packets that were resent.
    pub sent_again: usize,
    pub kept: Kept,
}

impl Watch {
    pub fn new(configured: Configured) -> Self {
        Self {
            configured,
            phase: Phase::Before,
            version: Version::V5_0,
            own: Limits::default(),
            peer: Limits::default(),
            named: Default::default(),
            topics: BTreeMap::new(),
            meant: BTreeMap::new(),
            waiting: VecDeque::new(),
            owed: VecDeque::new(),
            requests: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            expiry: 0,
            accepted: false,
            authenticates: false,
            resumes: false,
            last: [0; 3],
            newest: [0; 2],
            sent_again: 0,
            kept: Kept::default(),
        }
    }

    /// Notes that the same end opens its next connection.
    pub fn reopens(&mut self) {
        self.ends();
        let Self { configured, newest, sent_again, .. } = *self;
        let (kept, topics) = (core::mem::take(&mut self.kept), core::mem::take(&mut self.topics));
        *self = Self { kept, topics, newest, sent_again, ..Self::new(configured) };
    }

    /// This end resumes the session of another end, whose connection is over.
    pub fn carries_on(&mut self, other: Self) {
        (self.kept, self.newest, self.sent_again) = (other.kept, other.newest, other.sent_again);
    }

    /// Notes that the connection has ended. Messages acknowledged manually and out of order count
    /// as accepted.
    pub fn ends(&mut self) {
        self.phase = Phase::Over;
        if core::mem::take(&mut self.accepted) {
            self.kept.ended = self.expiry == 0;
        }
        for waiting in self.waiting.drain(..) {
            if waiting.qos == QoS::ExactlyOnce
                && !waiting.again
                && waiting.verdict.is_some_and(|verdict| !verdict.is_error())
            {
                self.kept.taken.insert(waiting.identifier, false);
            }
        }
        self.owed.clear();
        self.requests.clear();
        self.kept.taken.values_mut().for_each(|counted| *counted = false);
        self.unanswered.extend(self.kept.sent.values().filter_map(|sent| match sent {
            Sent::Request { key, .. } => *key,
            _ => None,
        }));
        self.kept.sent.retain(|_, sent| match sent {
            Sent::Publish { here, .. } => {
                *here = false;
                true
            }
            Sent::Released { here, counted, .. } => {
                (*here, *counted) = (false, false);
                true
            }
            Sent::Withheld => true,
            Sent::Request { .. } => false,
        });
    }

    /// Notes that the host has ended the connection, so that nothing more can be written.
    pub fn closes(&mut self) {
        self.phase = Phase::Over;
    }

    /// Judges the output of a call of the host, or of a timeout.
    pub fn commands(&mut self, written: &[u8]) -> Verdict {
        self.step(&[], None, written)
    }

    /// Notes that the host has acknowledged a message manually. Call this before the output is
    /// judged.
    pub fn acknowledged(&mut self, token: AckToken, reason_code: ReasonCode) -> Verdict {
        let waiting = self.waiting.iter_mut().find(|waiting| waiting.token == Some(token));
        let waiting = waiting.ok_or_else(|| format!("{token:?} acknowledges nothing"))?;
        ensure!(waiting.verdict.is_none(), "{token:?} was acknowledged before");
        // Before 5.0 a message cannot be refused.
        waiting.verdict =
            Some(if self.version == Version::V5_0 { reason_code } else { ReasonCode::SUCCESS });
        Ok(())
    }

    /// Notes that the host continues, which without manual acknowledgement accepts its messages.
    /// Call this before the output is judged.
    pub fn goes_on(&mut self) {
        if self.phase == Phase::Open && !self.configured.manual_acknowledgement {
            self.waiting.iter_mut().for_each(|waiting| waiting.verdict = Some(ReasonCode::SUCCESS));
        }
    }

    /// Notes that the host has published a message to that topic. Call this before the output is
    /// judged.
    pub fn publishes(&mut self, number: u64, publish: &Publish<'_>) -> Verdict {
        let topic = resolve(&mut self.meant, publish)
            .ok_or_else(|| format!("{publish:?} has no topic, and was accepted"))?;
        self.topics.insert(number, topic);
        Ok(())
    }

    /// Records the key of the last SUBSCRIBE or UNSUBSCRIBE.
    pub fn requested(&mut self, asked: u64) -> Verdict {
        let nameless = self.kept.sent.values_mut().find_map(|sent| match sent {
            Sent::Request { key, .. } if key.is_none() => Some(key),
            _ => None,
        });
        *nameless.ok_or("nothing was requested")? = Some(asked);
        Ok(())
    }

    /// Judges a step of the machine: the bytes read and written, and the event for its host.
    ///
    /// The message of the previous step is acknowledged first, answers follow the order of what was
    /// read, and queued messages go last. This holds if the host lets nothing wait that could be
    /// written.
    pub fn step(&mut self, read: &[u8], event: Option<&Event<'_>>, written: &[u8]) -> Verdict {
        let lost_request = event.and_then(Event::request_lost);
        let closed = event.and_then(Event::closed).is_some() || lost_request.is_some();
        let written = frames(written)?;
        let settled = self
            .waiting
            .iter()
            .take_while(|waiting| waiting.verdict.is_some())
            .count()
            .min(written.len());
        let read = frames(read)?;
        let early = written.iter().rposition(|frame| self.is_acknowledged_early(*frame, &read));
        let settled = early.map_or(settled, |index| settled.max(index + 1));
        let (settling, answers) = written.split_at(settled);
        settling.iter().try_for_each(|frame| self.writes(*frame))?;
        let mut ended = None;
        for (index, frame) in read.iter().enumerate() {
            ensure!(
                self.kept.unknown || ended.is_none(),
                "the outcome of message {ended:?} was not reported"
            );
            let last = index + 1 == read.len();
            match codec::decode(*frame, self.peer_rules()) {
                Ok(packet) => {
                    ended = self.reads(&packet, event.filter(|_| last), closed && last)?;
                }
                Err(error) => ensure!(closed && last, "{error}, and the connection continues"),
            }
        }
        match event.and_then(Event::published) {
            Some(Published { key, outcome, .. }) => self.completes(*key, outcome, ended)?,
            None => ensure!(
                self.kept.unknown || ended.is_none(),
                "the outcome of message {ended:?} was not reported"
            ),
        }
        answers.iter().try_for_each(|frame| self.writes(*frame))?;
        if closed {
            self.ends();
            if let Some(key) = lost_request {
                let unanswered = self.unanswered.remove(&key);
                ensure!(unanswered, "request {key} is reported as lost, and was not waiting");
            } else {
                ensure!(self.unanswered.is_empty(), "not reported as lost: {:?}", self.unanswered);
            }
            return Ok(());
        }
        ensure!(self.owed.is_empty(), "not answered: {:?}", self.owed);
        let next = self.waiting.front().filter(|next| next.again);
        ensure!(
            next.is_none() || self.phase != Phase::Open,
            "not acknowledged when repeated: {next:?}"
        );
        let received = self.waiting.iter().filter(|waiting| !waiting.again).count()
            + self.kept.taken.values().filter(|counted| **counted).count();
        ensure!(
            received <= self.own.receive_maximum.into(),
            "{received} messages are not acknowledged: {:?}",
            self.own
        );
        Ok(())
    }

    /// Whether a packet is a message that the peer acknowledges before it can have received it: the
    /// host let the message wait, and the step has written it before it has read.
    fn is_acknowledged_early(&self, written: Frame<'_>, read: &[Frame<'_>]) -> bool {
        let Ok(Packet::Publish(publish)) = codec::decode(written, self.rules()) else {
            return false;
        };
        let Some(identifier) = publish.packet_identifier else { return false };
        let is_new = !self.kept.sent.contains_key(&identifier.get());
        let acknowledges = |frame: &Frame<'_>| {
            matches!(
                codec::decode(*frame, self.peer_rules()),
                Ok(Packet::Puback(ack) | Packet::Pubrec(ack)) if ack.packet_identifier == identifier
            )
        };
        is_new && read.iter().any(acknowledges)
    }

    /// Judges a machine that has nothing more to do.
    pub fn rests(&self, in_flight: usize) -> Verdict {
        if self.phase == Phase::Open {
            let owed = self
                .waiting
                .front()
                .filter(|front| front.verdict.is_some() || !self.configured.manual_acknowledgement);
            ensure!(owed.is_none(), "not acknowledged: {owed:?}");
        }
        if self.kept.unknown {
            return Ok(());
        }
        // They are reported after the server has accepted.
        let unreported = !self.kept.lost.is_empty() && self.phase == Phase::Open;
        ensure!(!unreported, "lost messages were not reported: {:?}", self.kept.lost);
        let expected = self
            .kept
            .sent
            .values()
            .filter(|sent| !matches!(sent, Sent::Withheld | Sent::Request { .. }))
            .count();
        ensure!(in_flight == expected, "{in_flight} in flight, not {:?}", self.kept.sent);
        // Resent messages wait for the quota; PUBREL packets wait only for room for four bytes.
        let quota = self.under_way() < self.peer.receive_maximum.into();
        let waits = |sent: &&Sent| match sent {
            Sent::Publish { here, .. } => !here && quota,
            Sent::Released { here, .. } => !here && self.peer.maximum_packet_size >= 4,
            Sent::Withheld | Sent::Request { .. } => false,
        };
        let forgotten = self.kept.sent.values().find(waits).filter(|_| self.phase == Phase::Open);
        ensure!(forgotten.is_none(), "{forgotten:?} was not resent");
        Ok(())
    }

    /// Returns how many messages count against the peer's Receive Maximum.
    fn under_way(&self) -> usize {
        self.kept.sent.values().filter(|sent| sent.is_counted()).count()
    }

    /// Returns how many SUBSCRIBE and UNSUBSCRIBE packets wait for the host's answer.
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// Returns one of these requests.
    pub fn request(&self, index: usize) -> Option<(PacketType, PacketIdentifier, usize)> {
        let (identifier, (packet, filters)) =
            self.requests.iter().nth(index % self.requests.len().max(1))?;
        Some((*packet, PacketIdentifier::new(*identifier)?, *filters))
    }

    /// Returns the number of requests of this side that are not answered, or not yet reported as
    /// lost.
    pub fn own_requests(&self) -> usize {
        let is_request = |sent: &&Sent| matches!(sent, Sent::Request { .. });
        self.unanswered.len() + self.kept.sent.values().filter(is_request).count()
    }

    /// Returns how many messages wait to be acknowledged.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a message was acknowledged manually, and waits for an earlier one.
    pub fn is_out_of_turn(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.verdict.is_some())
    }

    /// Returns how many identifiers of the peer are in use.
    pub fn taken(&self) -> usize {
        self.kept.taken()
    }

    /// Whether CONNECT has asked to resume a session.
    pub fn resumes(&self) -> bool {
        self.resumes
    }

    /// Whether CONNECT has an authentication method.
    pub fn authenticates(&self) -> bool {
        self.authenticates
    }

    /// Returns what the peer may send next: packet type, identifier, and number of reason codes.
    pub fn possible(&self) -> Vec<(PacketType, u16, usize)> {
        let sent = self.kept.sent.iter().map(|(identifier, sent)| match sent {
            Sent::Publish { qos: QoS::ExactlyOnce, .. } | Sent::Withheld => {
                (PacketType::Pubrec, *identifier, 0)
            }
            Sent::Publish { .. } => (PacketType::Puback, *identifier, 0),
            Sent::Released { .. } => (PacketType::Pubcomp, *identifier, 0),
            Sent::Request { packet, filters, .. } => (*packet, *identifier, *filters),
        });
        sent.chain(self.kept.taken.keys().map(|identifier| (PacketType::Pubrel, *identifier, 0)))
            .collect()
    }

    fn rules(&self) -> Rules {
        Rules::new(self.version)
            .sent_by(self.configured.role)
            .with(self.configured.options)
            .forwarding()
    }

    fn peer_rules(&self) -> Rules {
        let peer = if self.configured.role == Role::Client { Role::Server } else { Role::Client };
        Rules::new(self.version).sent_by(peer).with(self.configured.options)
    }

    fn owe(&mut self, packet: PacketType, identifier: u16, reason_code: ReasonCode, codes: usize) {
        let reason_code =
            if self.version == Version::V5_0 { reason_code } else { ReasonCode::SUCCESS };
        self.owed.push_back(Owed { packet, identifier, reason_code, codes });
    }

    /// Checks that a packet is the one that is owed.
    fn pays(
        &mut self,
        packet: PacketType,
        identifier: u16,
        reason_code: ReasonCode,
        codes: usize,
    ) -> bool {
        let due = self.owed.front() == Some(&Owed { packet, identifier, reason_code, codes });
        if due {
            self.owed.pop_front();
        }
        due
    }

    /// Checks a packet of the peer and its effect, and whether it can have ended the connection.
    /// Returns the message that it has completed.
    fn reads(
        &mut self,
        packet: &Packet<'_>,
        event: Option<&Event<'_>>,
        closed: bool,
    ) -> Result<Option<u64>, String> {
        let in_open = !matches!(
            packet,
            Packet::Connect(_) | Packet::Connack(_) | Packet::Auth(_) | Packet::Disconnect(_)
        );
        ensure!(
            closed || !in_open || self.phase == Phase::Open,
            "{packet:?} was accepted while {:?}",
            self.phase
        );
        match packet {
            Packet::Connect(connect) if self.phase == Phase::Before => {
                self.version = connect.version;
                self.phase = Phase::Handshake;
                self.authenticates = connect.properties.authentication_method.is_some();
                let properties = &connect.properties;
                self.peer = Limits {
                    receive_maximum: properties
                        .receive_maximum
                        .unwrap_or(u16::MAX)
                        .min(self.configured.maximum_in_flight),
                    maximum_packet_size: properties.maximum_packet_size.unwrap_or(u32::MAX),
                    topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
                    ..Limits::default()
                };
                let stated = connect.version == Version::V5_0;
                self.own.receive_maximum =
                    if stated { self.configured.receive_maximum } else { u16::MAX };
            }
            Packet::Connack(connack) if self.phase == Phase::Handshake => {
                if connack.reason_code == ReasonCode::SUCCESS
                    && !connack.session_present
                    && self.version > Version::V3_1
                {
                    self.kept.lose();
                }
                if !matches!(event, Some(Event::Client(client::Action::Connected(_)))) {
                    ensure!(closed, "{connack:?} was accepted");
                    return Ok(None);
                }
                (self.phase, self.accepted) = (Phase::Open, true);
                let properties = &connack.properties;
                self.expiry = properties.session_expiry_interval.unwrap_or(self.expiry);
                self.peer = Limits {
                    receive_maximum: properties
                        .receive_maximum
                        .unwrap_or(u16::MAX)
                        .min(self.configured.maximum_in_flight),
                    maximum_packet_size: properties.maximum_packet_size.unwrap_or(u32::MAX),
                    topic_alias_maximum: properties.topic_alias_maximum.unwrap_or(0),
                    maximum_qos: properties.maximum_qos.unwrap_or(QoS::ExactlyOnce),
                    retain_available: properties.retain_available.unwrap_or(true),
                };
            }
            Packet::Connect(_) | Packet::Connack(_) => ensure!(closed, "{packet:?} was accepted"),
            Packet::Publish(publish) => {
                self.arrives(publish, event.and_then(Event::message), closed)?;
            }
            Packet::Puback(ack) => {
                let identifier = ack.packet_identifier.get();
                if let Some(Sent::Publish { qos: QoS::AtLeastOnce, number, .. }) =
                    self.kept.sent.get(&identifier).copied()
                {
                    self.kept.sent.remove(&identifier);
                    return Ok(Some(number));
                }
                ensure!(
                    closed || !self.kept.sent.contains_key(&identifier),
                    "{ack:?} acknowledges another kind of packet"
                );
            }
            Packet::Pubrec(ack) => {
                let identifier = ack.packet_identifier.get();
                match self.kept.sent.get(&identifier).copied() {
                    Some(Sent::Publish { qos: QoS::ExactlyOnce, number, here }) => {
                        if ack.reason_code.is_error() {
                            self.kept.sent.remove(&identifier);
                            return Ok(Some(number));
                        }
                        self.release(identifier, Some(number), here);
                    }
                    Some(Sent::Withheld) if ack.reason_code.is_error() => {
                        _ = self.kept.sent.remove(&identifier);
                    }
                    Some(Sent::Withheld) => self.release(identifier, None, false),
                    Some(Sent::Released { .. }) => {
                        self.owe(PacketType::Pubrel, identifier, ReasonCode::SUCCESS, 0);
                    }
                    None if self.kept.unknown => {}
                    None if ack.reason_code.is_error() => {}
                    None => self.owe(
                        PacketType::Pubrel,
                        identifier,
                        ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
                        0,
                    ),
                    Some(other) => ensure!(closed, "{ack:?} acknowledges {other:?}"),
                }
            }
            Packet::Pubcomp(ack) => {
                let identifier = ack.packet_identifier.get();
                match self.kept.sent.get(&identifier).copied() {
                    Some(Sent::Released { number, .. }) => {
                        self.kept.sent.remove(&identifier);
                        return Ok(number);
                    }
                    other => ensure!(closed || other.is_none(), "{ack:?} acknowledges {other:?}"),
                }
            }
            Packet::Pubrel(ack) => {
                let identifier = ack.packet_identifier.get();
                if self.kept.taken.remove(&identifier).is_some() {
                    self.waiting
                        .retain(|waiting| !waiting.again || waiting.identifier != identifier);
                    self.owe(PacketType::Pubcomp, identifier, ReasonCode::SUCCESS, 0);
                } else if self
                    .waiting
                    .iter()
                    .any(|waiting| !waiting.again && waiting.is_twice(identifier))
                {
                    ensure!(closed, "{ack:?} releases an unacknowledged message");
                } else if !self.kept.unknown {
                    self.owe(
                        PacketType::Pubcomp,
                        identifier,
                        ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
                        0,
                    );
                }
            }
            Packet::Subscribe(request) => {
                let filters = request.subscriptions.iter().count();
                self.asks(
                    PacketType::Subscribe,
                    request.packet_identifier.get(),
                    filters,
                    event,
                    closed,
                )?;
            }
            Packet::Unsubscribe(request) => {
                let filters = request.topic_filters.iter().count();
                self.asks(
                    PacketType::Unsubscribe,
                    request.packet_identifier.get(),
                    filters,
                    event,
                    closed,
                )?;
            }
            Packet::Suback(suback) | Packet::Unsuback(suback) => {
                let identifier = suback.packet_identifier.get();
                let answered = event.and_then(Event::answered);
                match self.kept.sent.get(&identifier) {
                    Some(Sent::Request { packet: answer, key, .. })
                        if answered.is_some()
                            && *key == answered
                            && *answer == packet.packet_type() =>
                    {
                        self.kept.sent.remove(&identifier);
                    }
                    other => ensure!(
                        closed,
                        "{suback:?} answers {other:?}, and {answered:?} was reported"
                    ),
                }
            }
            Packet::Pingreq => self.owe(PacketType::Pingresp, 0, ReasonCode::SUCCESS, 0),
            Packet::Pingresp | Packet::Disconnect(_) | Packet::Auth(_) => {}
        }
        Ok(None)
    }

    fn arrives(
        &mut self,
        publish: &Publish<'_>,
        message: Option<&Received<'_>>,
        closed: bool,
    ) -> Verdict {
        let topic = resolve(&mut self.named[1], publish);
        let identifier = publish.packet_identifier.map(|identifier| identifier.get());
        let twice = publish.qos == QoS::ExactlyOnce;
        let taken =
            twice && identifier.is_some_and(|identifier| self.kept.taken.contains_key(&identifier));
        let is =
            |waiting: &Waiting| twice && identifier.is_some_and(|number| waiting.is_twice(number));
        let waits = self.waiting.iter().any(|waiting| !waiting.again && is(waiting));
        let waits_again = self.waiting.iter().any(|waiting| waiting.again && is(waiting));
        let requested = identifier.filter(|identifier| self.requests.contains_key(identifier));
        if let Some(identifier) = requested.filter(|_| message.is_none() && !closed) {
            ensure!(
                self.version == Version::V5_0,
                "{publish:?} was accepted, and {identifier} is in use"
            );
            let verdict = Some(ReasonCode::PACKET_IDENTIFIER_IN_USE);
            self.waiting.push_back(Waiting {
                identifier,
                qos: publish.qos,
                token: None,
                verdict,
                again: true,
            });
            return Ok(());
        }
        ensure!(
            requested.is_none() || closed,
            "{publish:?} was delivered, and its identifier is in use"
        );
        let Some(message) = message else {
            ensure!(closed || taken || waits || self.kept.unknown, "{publish:?} was not delivered");
            if let Some(identifier) = identifier.filter(|_| taken && !waits_again) {
                let verdict = Some(ReasonCode::SUCCESS);
                self.waiting.push_back(Waiting {
                    identifier,
                    qos: publish.qos,
                    token: None,
                    verdict,
                    again: true,
                });
            }
            return Ok(());
        };
        ensure!(!taken && !waits, "{publish:?} was delivered again");
        let whole = message.payload == publish.payload
            && message.qos == publish.qos
            && message.retain == publish.retain;
        let named = topic.is_some_and(|topic| topic == message.topic_name.as_text().as_bytes());
        ensure!(whole && named && message.dup == publish.dup, "{publish:?} became {message:?}");
        ensure!(message.token.is_some() == identifier.is_some(), "{message:?} has the wrong token");
        if let Some(identifier) = identifier {
            let (qos, token) = (publish.qos, message.token);
            self.waiting.push_back(Waiting { identifier, qos, token, verdict: None, again: false });
        }
        Ok(())
    }

    fn asks(
        &mut self,
        packet: PacketType,
        identifier: u16,
        filters: usize,
        event: Option<&Event<'_>>,
        closed: bool,
    ) -> Verdict {
        let waits =
            self.waiting.iter().any(|waiting| !waiting.again && waiting.identifier == identifier);
        let is_message =
            self.version == Version::V5_0 && (waits || self.kept.taken.contains_key(&identifier));
        let used = is_message || self.requests.contains_key(&identifier);
        if event.is_some_and(Event::asks) {
            ensure!(
                !used || self.kept.unknown,
                "the host is asked for {identifier}, which is in use"
            );
            self.requests.insert(identifier, (packet, filters));
        } else if self.version == Version::V5_0 {
            ensure!(closed || used || self.kept.unknown, "the host was not asked for {identifier}");
            let answer = if packet == PacketType::Subscribe {
                PacketType::Suback
            } else {
                PacketType::Unsuback
            };
            self.owe(answer, identifier, ReasonCode::PACKET_IDENTIFIER_IN_USE, filters);
        } else {
            ensure!(closed, "the host was not asked for {identifier}");
        }
        Ok(())
    }

    /// Judges the outcome of a message, which the peer has caused if `ended` is that message.
    fn completes(&mut self, key: u64, outcome: &Outcome<'_>, ended: Option<u64>) -> Verdict {
        if self.kept.unknown {
            self.kept.sent.retain(|_, sent| !sent.is(key));
            return Ok(());
        }
        if let Outcome::Acknowledged { .. } = outcome {
            ensure!(
                ended == Some(key),
                "message {key} has ended, and the peer has acknowledged {ended:?}"
            );
            return Ok(());
        }
        ensure!(
            ended.is_none(),
            "message {key} has ended, and the peer has acknowledged {ended:?}"
        );
        let sent = self
            .kept
            .sent
            .iter()
            .find(|(_, sent)| sent.is(key))
            .map(|(identifier, sent)| (*identifier, *sent));
        match (outcome, sent) {
            (Outcome::Expired, _) => {
                ensure!(sent.is_none(), "message {key} has expired after it was sent");
            }
            (Outcome::SessionLost(message), _) => {
                let arrived = self.kept.lost.remove(&key);
                ensure!(
                    arrived == Some(message.is_none()),
                    "message {key} was lost as {message:?}, not {arrived:?}"
                );
            }
            _ => {}
        }
        match sent {
            Some((identifier, Sent::Publish { qos: QoS::ExactlyOnce, .. }))
                if matches!(outcome, Outcome::NotAllowed(_)) =>
            {
                self.kept.sent.insert(identifier, Sent::Withheld);
            }
            Some((identifier, _)) => _ = self.kept.sent.remove(&identifier),
            None => {}
        }
        Ok(())
    }

    fn writes(&mut self, frame: Frame<'_>) -> Verdict {
        let packet = codec::decode(frame, self.rules())
            .map_err(|error| format!("{error}: {:?}", frame.as_bytes()))?;
        let (size, maximum) = (frame.as_bytes().len(), self.peer.maximum_packet_size);
        ensure!(
            size as u64 <= maximum.into(),
            "{packet:?} of {size} bytes is larger than {maximum}"
        );
        let expected = match packet {
            Packet::Connect(_) => {
                self.phase == Phase::Before && self.configured.role == Role::Client
            }
            // An invalid CONNECT can be answered.
            Packet::Connack(_) => matches!(self.phase, Phase::Before | Phase::Handshake),
            Packet::Auth(_) => matches!(self.phase, Phase::Handshake | Phase::Open),
            _ => self.phase == Phase::Open,
        };
        // A client can disconnect before it is accepted.
        let leaves = matches!(packet, Packet::Disconnect(_)) && self.phase == Phase::Handshake;
        ensure!(
            expected || leaves && self.configured.role == Role::Client,
            "{packet:?} was written while {:?}",
            self.phase
        );
        match &packet {
            Packet::Connect(connect) => {
                self.phase = Phase::Handshake;
                self.version = connect.version;
                self.expiry = connect.session_expiry().to_seconds();
                self.authenticates = connect.properties.authentication_method.is_some();
                // Without an identifier the client asks for another session.
                let is_named = !connect.client_identifier.is_empty();
                self.resumes =
                    self.kept.begun && is_named && !connect.clean_start && !self.kept.ended;
                if !self.resumes {
                    self.kept.lose();
                }
                self.kept.begun = true;
                self.own.receive_maximum = connect.properties.receive_maximum.unwrap_or(u16::MAX);
            }
            Packet::Connack(connack) => {
                // The host can state another limit than the configuration.
                self.own.receive_maximum = connack.properties.receive_maximum.unwrap_or(u16::MAX);
                self.phase = if connack.reason_code == ReasonCode::SUCCESS {
                    Phase::Open
                } else {
                    Phase::Over
                };
            }
            Packet::Publish(publish) => self.sends(publish)?,
            Packet::Puback(ack) => {
                _ = self.settles(ack.packet_identifier.get(), QoS::AtLeastOnce, ack.reason_code)?;
            }
            Packet::Pubrec(ack) => {
                let identifier = ack.packet_identifier.get();
                let again = self.kept.unknown
                    && !self.waiting.front().is_some_and(|front| front.is_twice(identifier));
                if !self.pays(PacketType::Pubrec, identifier, ack.reason_code, 0) && !again {
                    let again = self.settles(identifier, QoS::ExactlyOnce, ack.reason_code)?;
                    if !ack.reason_code.is_error() && !again {
                        self.kept.taken.insert(identifier, true);
                    }
                }
            }
            Packet::Pubrel(ack) => {
                let identifier = ack.packet_identifier.get();
                if !self.pays(PacketType::Pubrel, identifier, ack.reason_code, 0)
                    && !self.kept.unknown
                {
                    self.releases_again(identifier)?;
                }
            }
            Packet::Pubcomp(ack) => {
                let owed =
                    self.pays(PacketType::Pubcomp, ack.packet_identifier.get(), ack.reason_code, 0);
                ensure!(owed || self.kept.unknown, "{ack:?} was written, {:?} owed", self.owed);
            }
            Packet::Subscribe(request) => {
                self.gives_out(
                    PacketType::Suback,
                    request.packet_identifier.get(),
                    request.subscriptions.iter().count(),
                )?;
            }
            Packet::Unsubscribe(request) => {
                self.gives_out(
                    PacketType::Unsuback,
                    request.packet_identifier.get(),
                    request.topic_filters.iter().count(),
                )?;
            }
            Packet::Suback(suback) | Packet::Unsuback(suback) => {
                let identifier = suback.packet_identifier.get();
                let codes: BTreeSet<_> = suback.reason_codes.iter().map(ReasonCode::get).collect();
                let (kind, count) = (packet.packet_type(), suback.reason_codes.iter().count());
                let code = codes.first().map_or(ReasonCode::SUCCESS, |code| ReasonCode::new(*code));
                if codes.len() != 1 || !self.pays(kind, identifier, code, count) {
                    let request = if kind == PacketType::Suback {
                        PacketType::Subscribe
                    } else {
                        PacketType::Unsubscribe
                    };
                    let (asked, filters) =
                        self.requests.remove(&identifier).ok_or("there was no request")?;
                    let codes = if kind == PacketType::Unsuback && self.version < Version::V5_0 {
                        0
                    } else {
                        filters
                    };
                    ensure!(
                        asked == request && count == codes,
                        "{suback:?} answers {asked:?} with {filters} filters"
                    );
                }
            }
            Packet::Pingreq => ensure!(self.configured.role == Role::Client, "a server pings"),
            Packet::Pingresp => {
                ensure!(
                    self.pays(PacketType::Pingresp, 0, ReasonCode::SUCCESS, 0),
                    "there was no PINGREQ"
                );
            }
            Packet::Disconnect(disconnect) => {
                self.phase = Phase::Over;
                self.expiry = disconnect.properties.session_expiry_interval.unwrap_or(self.expiry);
            }
            Packet::Auth(_) => {}
        }
        Ok(())
    }

    fn sends(&mut self, publish: &Publish<'_>) -> Verdict {
        let alias = publish.properties.topic_alias.unwrap_or(0);
        ensure!(
            alias <= self.peer.topic_alias_maximum,
            "alias {alias} is greater than {:?}",
            self.peer
        );
        let topic = resolve(&mut self.named[0], publish)
            .ok_or_else(|| format!("alias {alias} stands for no topic"))?;
        let allowed =
            publish.qos <= self.peer.maximum_qos && (self.peer.retain_available || !publish.retain);
        ensure!(allowed, "{publish:?} was sent to {:?}", self.peer);
        let Some(number) = number(publish.payload) else {
            ensure!(self.kept.unknown, "{publish:?} has no number");
            return Ok(());
        };
        let meant = self.topics.get(&number).is_none_or(|meant| *meant == topic);
        ensure!(
            meant || self.kept.unknown,
            "message {number} was sent to {topic:?}, not {:?}",
            self.topics.get(&number)
        );
        let class = usize::from(publish.qos > QoS::AtMostOnce);
        let [before, newest] = [&mut self.last[class], &mut self.newest[class]];
        ensure!(self.kept.unknown || *before < number, "message {number} was sent after {before}");
        *before = number;
        if !publish.dup {
            ensure!(
                self.kept.unknown || *newest < number,
                "message {number} was sent as a new one after {newest}"
            );
            *newest = number;
        }
        self.sent_again += usize::from(publish.dup);
        let Some(identifier) = publish.packet_identifier.map(|identifier| identifier.get()) else {
            return Ok(());
        };
        let now = Sent::Publish { qos: publish.qos, number, here: true };
        let known = self.kept.sent.insert(identifier, now);
        let expected = if publish.dup {
            Some(Sent::Publish { qos: publish.qos, number, here: false })
        } else {
            None
        };
        ensure!(
            known == expected || self.kept.unknown,
            "{publish:?} was sent, and {identifier} stands for {known:?}"
        );
        let count = self.under_way();
        ensure!(
            count <= self.peer.receive_maximum.into(),
            "{count} messages are in flight: {:?}",
            self.peer
        );
        Ok(())
    }

    /// Checks a PUBACK or PUBREC for the first unacknowledged message. Returns whether it had one
    /// before.
    fn settles(
        &mut self,
        identifier: u16,
        qos: QoS,
        reason_code: ReasonCode,
    ) -> Result<bool, String> {
        let first = self
            .waiting
            .pop_front()
            .ok_or_else(|| format!("{identifier} was acknowledged without a message"))?;
        ensure!(
            first.identifier == identifier && first.qos == qos,
            "{identifier} was acknowledged before {first:?}"
        );
        let expected = first
            .verdict
            .ok_or_else(|| format!("{identifier} was acknowledged, and was not accepted"))?;
        ensure!(
            reason_code == expected,
            "{identifier} was acknowledged with {reason_code}, not {expected}"
        );
        Ok(first.again)
    }

    /// Notes that the peer has a QoS 2 message.
    fn release(&mut self, identifier: u16, number: Option<u64>, counted: bool) {
        self.kept.released += 1;
        self.kept.sent.insert(
            identifier,
            Sent::Released { number, order: self.kept.released, here: true, counted },
        );
        self.owe(PacketType::Pubrel, identifier, ReasonCode::SUCCESS, 0);
    }

    /// Checks a PUBREL that was sent on an earlier connection: once on each, in the order of the
    /// PUBREC packets.
    fn releases_again(&mut self, identifier: u16) -> Verdict {
        let sent = self.kept.sent.get_mut(&identifier);
        let Some(Sent::Released { order, here, .. }) = sent else {
            return Err(format!("{identifier} was released, and stands for {sent:?}"));
        };
        ensure!(!*here, "{identifier} was released twice on a connection");
        ensure!(
            self.last[2] < *order,
            "{identifier} was released out of order: {order} after {}",
            self.last[2]
        );
        *here = true;
        self.sent_again += 1;
        self.last[2] = *order;
        Ok(())
    }

    fn gives_out(&mut self, packet: PacketType, identifier: u16, filters: usize) -> Verdict {
        let known = self.kept.sent.insert(identifier, Sent::Request { packet, key: None, filters });
        ensure!(known.is_none(), "{identifier} was assigned, and stands for {known:?}");
        Ok(())
    }
}

/// Returns the topic of a PUBLISH. An alias that comes with a name stands for it from then on.
fn resolve(named: &mut BTreeMap<u16, Vec<u8>>, publish: &Publish<'_>) -> Option<Vec<u8>> {
    let topic = publish.topic_name.as_bytes().to_vec();
    match publish.properties.topic_alias {
        Some(alias) if topic.is_empty() => return named.get(&alias).cloned(),
        Some(alias) => _ = named.insert(alias, topic.clone()),
        None => {}
    }
    Some(topic)
}

impl Sent {
    fn is(&self, key: u64) -> bool {
        match self {
            Self::Publish { number, .. } => *number == key,
            Self::Released { number, .. } => *number == Some(key),
            Self::Withheld | Self::Request { .. } => false,
        }
    }

    fn is_counted(&self) -> bool {
        matches!(self, Self::Publish { here: true, .. } | Self::Released { counted: true, .. })
    }
}
