//! The client's part of the operations.

use super::draw::{Draw, FILTERS, Operation, Setup, draw_common};
use super::{Host, Machine, payload};
use crate::watch::{Event, Phase};
use mqtt_sansio::Instant;
use mqtt_sansio::client::{Client, ClientConfig};
use mqtt_sansio::codec::{
    self, Publish, ReasonCode, Role, SubscribeProperties, SubscriptionIdentifier,
    UnsubscribeProperties, Version,
};
use mqtt_sansio::session::{AckToken, AcknowledgeError, Session};

impl Machine for Client {
    const ROLE: Role = Role::Client;

    fn new(setup: &Setup) -> Self {
        Self::new(client_config(setup))
    }

    fn input<'i>(
        &mut self,
        input: &mut &'i [u8],
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Option<Event<'i>> {
        self.handle_input(input, now, out).map(Event::Client)
    }

    fn timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Event<'static>> {
        self.handle_timeout(now, out).map(Event::Client)
    }

    fn lost(&mut self) -> Option<Event<'static>> {
        self.connection_lost().map(Event::Client)
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
        None
    }

    fn draw<'a>(host: &Host<Self>, draw: &mut Draw<'a>) -> Operation<'a> {
        match (host.over, host.watch.phase) {
            (true, _) if !draw.one_in(6) => Operation::Connect(Box::new(draw.connect())),
            (false, Phase::Handshake) if !draw.one_in(6) => {
                let mut bytes = Vec::new();
                let connack = draw.connack(&host.watch);
                let _ = codec::encode(&connack.into(), host.watch.version, &mut bytes);
                Operation::Feed(bytes)
            }
            _ => match draw.below(32) {
                0 => Operation::Connect(Box::new(draw.connect())),
                1 => Operation::Unsubscribe(&FILTERS[..usize::from(draw.below(3))]),
                2 => {
                    let subscription_identifier =
                        if draw.one_in(3) { SubscriptionIdentifier::new(7) } else { None };
                    let properties = SubscribeProperties {
                        subscription_identifier,
                        ..SubscribeProperties::default()
                    };
                    Operation::Subscribe(draw.filters(), properties)
                }
                _ => draw_common(host, draw),
            },
        }
    }

    fn operate(host: &mut Host<Self>, operation: &Operation<'_>, number: u64) {
        let (now, mut out) = (host.now, Vec::new());
        let client = &mut host.machine;
        let queued = client.session().queued();
        let done = match operation {
            Operation::Connect(connect) => {
                let done = client.connect(connect, now, &mut out).is_ok();
                assert!(host.over || !done, "one connection at a time");
                if done {
                    (host.over, host.closing) = (false, false);
                    host.watch.reopens();
                    host.received.clear();
                }
                done
            }
            Operation::Publish { publish, padding, .. } => {
                let payload = payload(number, publish, *padding);
                let publish = Publish { payload: &payload, ..*publish };
                let done = client.publish(number, &publish, now, &mut out).is_ok();
                // Expired messages may have made room in vain.
                assert!(
                    done || client.session().queued() <= queued,
                    "a refused message is not queued"
                );
                if done {
                    host.given(number, &publish);
                    host.watch.publishes(number, &publish).unwrap();
                }
                done
            }
            Operation::Subscribe(filters, properties) => {
                client.subscribe(number, filters, *properties, now, &mut out).is_ok()
            }
            Operation::Unsubscribe(filters) => client
                .unsubscribe(number, filters, UnsubscribeProperties::default(), now, &mut out)
                .is_ok(),
            Operation::Authenticate(auth) => client.authenticate(auth, now, &mut out).is_ok(),
            Operation::Disconnect(disconnect) => {
                // Delivered messages are acknowledged first, even if DISCONNECT itself cannot be
                // written.
                let done = client.disconnect(disconnect, now, &mut out).is_ok();
                if done || !out.is_empty() {
                    host.watch.goes_on();
                }
                host.judge(&[], None, &out);
                if done {
                    host.closing = true;
                    host.watch.closes();
                }
                return;
            }
            _ => false,
        };
        assert!(done || out.is_empty(), "{operation:?} is refused, and {out:?} written");
        host.judge(&[], None, &out);
        if done && matches!(operation, Operation::Subscribe(..) | Operation::Unsubscribe(_)) {
            host.given += 1;
            host.watch.requested(number).unwrap();
        }
    }

    fn closed(_host: &mut Host<Self>, _event: &Event<'_>) {}

    fn react(_host: &mut Host<Self>, _event: &Event<'_>) {}

    fn unload(host: &mut Host<Self>) -> Option<Session> {
        let machine = core::mem::replace(&mut host.machine, Self::new(client_config(&host.setup)));
        host.watch.ends();
        (host.over, host.closing) = (true, false);
        host.received.clear();
        host.tokens.clear();
        Some(machine.into_session())
    }

    fn load(host: &mut Host<Self>, session: Session) {
        host.machine = Self::with_session(client_config(&host.setup), session);
    }
}

fn client_config(setup: &Setup) -> ClientConfig {
    let config = ClientConfig::new()
        .manual_acknowledgement(setup.manual_acknowledgement)
        .options(setup.options)
        .maximum_in_flight(setup.maximum_in_flight)
        .maximum_packet_size(setup.maximum_packet_size)
        .maximum_queued(setup.queue.messages, setup.queue.bytes)
        .automatic_topic_aliases(setup.automatic_topic_aliases)
        .connect_timeout(setup.connect_timeout);
    match setup.ping_timeout {
        Some(timeout) => config.ping_timeout(timeout),
        None => config,
    }
}
