//! The server's part of the operations.

use super::draw::{Draw, Operation, Setup, draw_common};
use super::{HIGH_WATER, Host, Machine, payload};
use crate::watch::{Event, Kept, Phase};
use core::iter::repeat_n;
use core::time::Duration;
use mqtt_sansio::Instant;
use mqtt_sansio::codec::{
    self, AckProperties, ConnackProperties, PacketType, Publish, PublishProperties, ReasonCode,
    Role, SubscriptionIdentifier, Version,
};
use mqtt_sansio::server::{self, AnswerError, Server, ServerConfig};
use mqtt_sansio::session::{AckToken, AcknowledgeError, Message, Outgoing, Session};

impl Machine for Server {
    const ROLE: Role = Role::Server;

    fn new(setup: &Setup) -> Self {
        Self::new(server_config(setup), setup.start)
    }

    fn input<'i>(
        &mut self,
        input: &mut &'i [u8],
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Option<Event<'i>> {
        self.handle_input(input, now, out).map(Event::Server)
    }

    fn timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Event<'static>> {
        self.handle_timeout(now, out).map(Event::Server)
    }

    fn lost(&mut self) -> Option<Event<'static>> {
        self.connection_lost().map(Event::Server)
    }

    fn due(&self) -> Option<Instant> {
        self.poll_timeout()
    }

    fn session(&self) -> &Session {
        self.session()
    }

    fn takes_input(&self) -> bool {
        self.wants_input()
    }

    fn progress(&mut self, now: Instant) {
        self.handle_progress(now);
    }

    fn acknowledge(
        &mut self,
        token: AckToken,
        code: ReasonCode,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), AcknowledgeError> {
        self.acknowledge(token, code, now, out)
    }

    fn version(&self) -> Option<Version> {
        Some(self.version())
    }

    fn draw<'a>(host: &Host<Self>, draw: &mut Draw<'a>) -> Operation<'a> {
        match (host.over, host.watch.phase) {
            (true, _) if !draw.one_in(6) => Operation::Open,
            (false, Phase::Before) if !draw.one_in(6) => {
                let mut bytes = Vec::new();
                let connect = draw.connect();
                let _ = codec::encode(&connect.into(), connect.version, &mut bytes);
                Operation::Feed(bytes)
            }
            (false, Phase::Handshake) if !draw.one_in(6) => {
                Operation::Accept { resume: !draw.one_in(6), properties: Box::default() }
            }
            _ => match draw.below(24) {
                0 => Operation::Open,
                1 => Operation::Accept {
                    resume: draw.one_in(2),
                    properties: Box::new(draw.any().unwrap_or_default()),
                },
                2 => Operation::Refuse(draw.any().unwrap_or_default()),
                3..6 => Operation::Answer {
                    index: draw.below(8).into(),
                    identifier: draw.identifier(),
                    codes: if draw.one_in(8) { draw.below(4).into() } else { usize::MAX },
                    other: draw.one_in(8),
                },
                _ => draw_common(host, draw),
            },
        }
    }

    fn operate(host: &mut Host<Self>, operation: &Operation<'_>, number: u64) {
        let (now, mut out) = (host.now, Vec::new());
        match operation {
            Operation::Publish { publish, padding, subscription_identifiers, flush } => {
                let payload = payload(number, publish, *padding);
                deliver(
                    host,
                    number,
                    &Publish { payload: &payload, ..*publish },
                    *subscription_identifiers,
                    *flush,
                );
                return;
            }
            Operation::Open => {
                let session = <Self as Machine>::unload(host);
                host.machine = Self::new(server_config(&host.setup), now);
                host.watch.reopens();
                (host.over, host.accepted) = (false, false);
                if let Some(session) = session {
                    <Self as Machine>::load(host, session);
                }
            }
            Operation::Accept { resume, properties } => {
                accept(host, *resume, properties);
                return;
            }
            Operation::Refuse(code) => {
                let done = host.machine.refuse(*code, ConnackProperties::default(), now, &mut out);
                host.judge(&[], None, &out);
                if done != Err(AnswerError::NotAsked) {
                    host.closing = true;
                    host.watch.closes();
                }
                return;
            }
            Operation::Authenticate(auth) => {
                let done = host.machine.challenge(auth, now, &mut out).is_ok();
                assert!(done || out.is_empty());
            }
            Operation::Answer { index, identifier, codes, other } => {
                let known = host.watch.request(*index).filter(|_| !other);
                let (packet, identifier, filters) =
                    known.unwrap_or((PacketType::Subscribe, *identifier, 1));
                let Some(token) = host.requests.get(&identifier).copied() else { return };
                let codes = vec![ReasonCode::SUCCESS; filters.min(*codes)];
                let done = match packet {
                    PacketType::Subscribe => {
                        host.machine.suback(token, &codes, AckProperties::default(), now, &mut out)
                    }
                    _ => host.machine.unsuback(
                        token,
                        &codes,
                        AckProperties::default(),
                        now,
                        &mut out,
                    ),
                };
                assert!(done.is_ok() || out.is_empty());
            }
            Operation::Disconnect(disconnect) => {
                let open = !host.over && !host.closing;
                let done = host.machine.disconnect(disconnect, now, &mut out);
                assert!(open || done.is_err());
                host.watch.goes_on();
                host.judge(&[], None, &out);
                if open {
                    host.closing = true;
                    host.watch.closes();
                }
                return;
            }
            _ => {}
        }
        host.judge(&[], None, &out);
    }

    fn closed(host: &mut Host<Self>, event: &Event<'_>) {
        assert!(
            host.accepted
                || !matches!(
                    event,
                    Event::Server(server::Action::Closed { publish_will: true, .. })
                )
        );
        if core::mem::take(&mut host.accepted) {
            park(host);
        }
    }

    /// Answers some requests at once, and leaves others to an operation.
    fn react(host: &mut Host<Self>, event: &Event<'_>) {
        match event {
            Event::Server(server::Action::Subscribe(token, request)) => {
                host.requests.insert(request.packet_identifier, *token);
            }
            Event::Server(server::Action::Unsubscribe(token, request)) => {
                host.requests.insert(request.packet_identifier, *token);
            }
            _ => {}
        }
        if host.over {
            return;
        }
        let answer = host
            .setup
            .answers
            .get(host.asked % host.setup.answers.len().max(1))
            .copied()
            .unwrap_or(0);
        host.asked += 1;
        if answer % 2 == 1 {
            return;
        }
        let mut out = Vec::new();
        match event {
            Event::Server(server::Action::Connect(_)) => {
                return accept(host, answer % 4 == 0, &ConnackProperties::default());
            }
            Event::Server(server::Action::Subscribe(token, request)) => {
                let codes: Vec<_> =
                    request.subscriptions.iter().map(|_| ReasonCode::GRANTED_QOS_2).collect();
                let _ = host.machine.suback(
                    *token,
                    &codes,
                    AckProperties::default(),
                    host.now,
                    &mut out,
                );
            }
            Event::Server(server::Action::Unsubscribe(token, request)) => {
                let codes: Vec<_> =
                    request.topic_filters.iter().map(|_| ReasonCode::SUCCESS).collect();
                let _ = host.machine.unsuback(
                    *token,
                    &codes,
                    AckProperties::default(),
                    host.now,
                    &mut out,
                );
            }
            _ => {}
        }
        host.judge(&[], None, &out);
    }

    fn unload(host: &mut Host<Self>) -> Option<Session> {
        if host.accepted {
            host.accepted = false;
            park(host);
        } else if !host.over {
            // The machine's own session is a new one.
            let _ = host.machine.take_session();
            let _ = host.machine.connection_lost();
            host.watch.ends();
        }
        (host.over, host.closing) = (true, false);
        host.received.clear();
        let (session, kept) = host.parked.take()?;
        host.watch.kept = kept;
        Some(session)
    }

    fn load(host: &mut Host<Self>, session: Session) {
        host.parked = Some((session, core::mem::take(&mut host.watch.kept)));
    }
}

fn server_config(setup: &Setup) -> ServerConfig {
    ServerConfig::new()
        .manual_acknowledgement(setup.manual_acknowledgement)
        .options(setup.options)
        .maximum_in_flight(setup.maximum_in_flight)
        .receive_maximum(setup.receive_maximum)
        .maximum_requests(setup.maximum_requests)
        .maximum_packet_size(setup.maximum_packet_size)
        .maximum_request_size(setup.maximum_packet_size)
        .maximum_queued(setup.queue.messages, setup.queue.bytes)
        .automatic_topic_aliases(setup.automatic_topic_aliases)
        .connect_timeout(setup.connect_timeout)
        .maximum_keep_alive(core::num::NonZeroU16::new(setup.maximum_keep_alive))
        .maximum_qos(setup.maximum_qos)
        .retain_available(setup.retain_available)
}

/// Parks the session of a connection that has ended, for the next.
fn park(host: &mut Host<Server>) {
    let session = host.machine.take_session();
    let _ = host.machine.connection_lost();
    host.watch.ends();
    host.tokens.clear();
    host.parked = Some((session, core::mem::take(&mut host.watch.kept)));
}

fn accept(host: &mut Host<Server>, resume: bool, properties: &ConnackProperties<'_>) {
    let (mut session, kept) = match host.parked.take_if(|_| resume) {
        Some((session, kept)) => (Some(session), kept),
        None => (None, Kept::default()),
    };
    let held = session.as_ref().map_or(0, |session| session.to_bytes(host.now).len());
    let (resumed, mut out) = (session.is_some(), Vec::new());
    let accepted = host.machine.accept(session.take(), *properties, host.now, &mut out);
    if let Err(error) = &mut { accepted } {
        session = error.session.take();
        assert!(session.is_some() == resumed && out.is_empty());
        host.parked = host.parked.take().or_else(|| session.map(|session| (session, kept)));
    } else {
        assert!(
            out.len() <= 512 + 4 * format!("{properties:?}").len() + 2 * held,
            "{} bytes for {held}",
            out.len()
        );
        if !resumed {
            // The old session is dropped.
            host.live.clear();
            host.parked = None;
        }
        host.watch.kept = kept;
        host.accepted = true;
        host.tally.connections += 1;
    }
    host.judge(&[], None, &out);
    flush(host);
}

fn deliver(
    host: &mut Host<Server>,
    number: u64,
    publish: &Publish<'_>,
    identifiers: usize,
    step: bool,
) {
    let expiry = publish.properties.message_expiry_interval;
    let Ok(message) = Message::new(publish) else { return };
    let outgoing = Outgoing {
        subscription_identifiers: repeat_n(SubscriptionIdentifier::MAX, identifiers).collect(),
        expires_at: expiry.map(|seconds| host.now + Duration::from_secs(seconds.into())),
        ..Outgoing::new(Some(number), message)
    };
    let done = match &mut host.parked {
        Some((session, _)) if !host.accepted => {
            session.enqueue(outgoing, host.setup.queue, host.now)
        }
        _ => host.machine.deliver(outgoing, host.now),
    };
    assert!(done.is_err() || host.accepted || host.parked.is_some());
    if done.is_ok() {
        let properties = PublishProperties { topic_alias: None, ..publish.properties };
        host.given(number, publish);
        host.watch.publishes(number, &Publish { properties, ..*publish }).unwrap();
    }
    if step {
        host.take_steps();
    } else {
        flush(host);
    }
}

/// Writes all queued output, as a host does before it reads on.
fn flush(host: &mut Host<Server>) {
    loop {
        let (mut out, held) = (Vec::new(), host.held());
        let more = host.machine.flush(host.now, &mut out);
        assert!(out.len() <= 64 + held);
        assert!(
            !more || out.len() >= HIGH_WATER,
            "there was room for more than {} bytes",
            out.len()
        );
        host.judge(&[], None, &out);
        if !more {
            return;
        }
    }
}
