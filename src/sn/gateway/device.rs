//! One client of the gateway: its state, its timers, and its connection to the server.
//! [SN §6.14]

use super::config::GatewayConfig;
use super::connect::{Connecting, Will};
use super::deliver::Outbound;
use super::output::{Address, Context};
use super::receive::Inbound;
use super::topics::Topics;
use super::uplink::Uplink;
use super::{Event, State};
use crate::client::{Action, ClientConfig};
use crate::codec::{QoS, ReasonCode};
use crate::session::{CloseCause, Outcome, Published};
use crate::sn::time::silence_deadline;
use crate::sn::v1_2::{Message, ReturnCode};
use crate::time::Instant;
use alloc::boxed::Box;

/// The state of a client. The public [`State`] has the diagram.
#[derive(Debug)]
pub(super) enum Phase {
    Connecting(Connecting),
    Active,
    Asleep,
    /// The client receives the messages that were buffered when it woke.
    Awake {
        remaining: usize,
    },
    /// The gateway publishes a Will that was changed during the connection, under that key.
    Lost {
        will: Option<u64>,
    },
    Disconnected,
}

pub(super) struct Device<P> {
    pub(super) number: u64,
    pub(super) client_id: Box<str>,
    /// `None` after another client has connected from the address, and without a connection.
    pub(super) address: Option<Address<P>>,
    pub(super) phase: Phase,
    pub(super) uplink: Uplink,
    /// Whether the session at the server ends with the connection.
    pub(super) is_clean: bool,
    /// The Keep Alive of the last CONNECT, and the duration of the last sleep, in seconds.
    pub(super) keep_alive: u16,
    pub(super) sleep: u16,
    pub(super) heard: Instant,
    /// The last CONNECT, by its hash, when it was answered, and whether more has arrived since.
    pub(super) connected: Option<(u64, Instant)>,
    pub(super) is_fresh: bool,
    pub(super) will: Will,
    pub(super) topics: Topics,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    pub(super) last_key: u64,
    /// The entry in the timers of the gateway.
    pub(super) timer: Option<Instant>,
    /// Whether the gateway counts the client as connecting.
    pub(super) is_counted: bool,
}

impl<P: Clone + Ord> Device<P> {
    pub(super) fn new(number: u64, client_id: &str, now: Instant) -> Self {
        let config =
            ClientConfig::new().manual_acknowledgement(true).clean_start_when_required(true);
        Self {
            number,
            client_id: client_id.into(),
            address: None,
            phase: Phase::Disconnected,
            uplink: Uplink::new(config),
            is_clean: false,
            keep_alive: 0,
            sleep: 0,
            heard: now,
            connected: None,
            is_fresh: false,
            will: Will::default(),
            topics: Topics::default(),
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            last_key: 0,
            timer: None,
            is_counted: false,
        }
    }

    pub(super) const fn state(&self) -> State {
        match self.phase {
            Phase::Connecting(_) => State::Connecting,
            Phase::Active => State::Active,
            Phase::Asleep => State::Asleep,
            Phase::Awake { .. } => State::Awake,
            Phase::Lost { .. } => State::Lost,
            Phase::Disconnected => State::Disconnected,
        }
    }

    /// Whether the client has a connection, active or not.
    pub(super) const fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Active | Phase::Asleep | Phase::Awake { .. })
    }

    /// Whether the client receives messages now.
    const fn is_listening(&self) -> bool {
        matches!(self.phase, Phase::Active | Phase::Awake { .. })
    }

    /// Whether messages of the server are not read, because the buffer is full.
    pub(super) fn is_paused(&self, config: &GatewayConfig) -> bool {
        self.uplink.client.is_connected() && self.outbound.is_full(config)
    }

    /// Whether the gateway need not keep any state of the client.
    pub(super) const fn is_over(&self) -> bool {
        let is_away = matches!(self.phase, Phase::Lost { .. } | Phase::Disconnected);
        is_away && self.is_clean && self.uplink.link().is_none()
    }

    /// Whether the client can be forgotten if there are too many.
    pub(super) const fn is_away(&self) -> bool {
        matches!(self.phase, Phase::Lost { .. } | Phase::Disconnected)
            && self.uplink.link().is_none()
    }

    pub(super) fn set_phase(&mut self, phase: Phase, context: &mut Context<'_, P>) {
        let before = self.state();
        self.phase = phase;
        if self.state() != before {
            let client_id = self.client_id.clone();
            context.output.events.push_back(Event::Changed { client_id, state: self.state() });
        }
    }

    pub(super) fn send(&self, message: &Message<'_>, context: &mut Context<'_, P>) {
        if let Some(address) = &self.address {
            context.output.send(address, message);
        }
    }

    // ---- messages that concern the state ----

    /// Handles a PINGREQ: the probe of an active client, or the wake-up of a sleeping one.
    /// [SN §6.11] [SN §6.14]
    pub(super) fn on_ping(&mut self, context: &mut Context<'_, P>) {
        match self.phase {
            Phase::Active => self.send(&Message::Pingresp, context),
            Phase::Asleep => {
                let remaining = self.outbound.waiting();
                self.set_phase(Phase::Awake { remaining }, context);
                self.outbound.resend_now(context.now);
                self.pump(context);
            }
            Phase::Awake { .. } => {
                // The client asks again because an answer was lost.
                self.outbound.resend_now(context.now);
                self.pump(context);
            }
            Phase::Connecting(_) | Phase::Lost { .. } | Phase::Disconnected => {}
        }
    }

    /// Handles a DISCONNECT, and answers it. A sleep of 0 seconds is no sleep. [SN §6.12]
    /// [SN §6.14]
    pub(super) fn on_disconnect(&mut self, duration: u16, context: &mut Context<'_, P>) {
        self.send(&Message::Disconnect(None), context);
        if duration > 0 && self.is_connected() {
            self.sleep = duration;
            self.set_phase(Phase::Asleep, context);
        } else if !matches!(self.phase, Phase::Lost { .. }) {
            self.end_uplink(true, context);
            self.set_phase(Phase::Disconnected, context);
        }
    }

    /// Ends the connection of a client that was silent for too long, or does not answer. The server
    /// publishes the Will. [SN §6.14]
    pub(super) fn lose(&mut self, context: &mut Context<'_, P>) {
        let mut will = None;
        if self.will.is_changed {
            // The Will at the server differs from that of the client.
            if let Some(publish) = self.will.publish() {
                let (key, now) = (self.last_key + 1, context.now);
                let Uplink { client, out, .. } = &mut self.uplink;
                let is_sent = client.publish(key, &publish, now, out).is_ok();
                self.last_key = key;
                will = (is_sent && publish.qos > QoS::AtMostOnce).then_some(key);
            }
        }
        if will.is_none() {
            self.end_uplink(self.will.is_changed, context);
        }
        self.set_phase(Phase::Lost { will }, context);
    }

    /// Ends the connection of a client because the gateway stops.
    pub(super) fn shut_down(&mut self, context: &mut Context<'_, P>) {
        self.end_uplink(true, context);
        self.on_uplink_lost(ReturnCode::Congestion, context);
    }

    // ---- the connection to the server ----

    /// Ends the connection to the server: with a DISCONNECT, or without, so that the server
    /// publishes the Will.
    pub(super) fn end_uplink(&mut self, cleanly: bool, context: &mut Context<'_, P>) {
        if cleanly {
            self.uplink.disconnect(context.now);
        }
        self.drain_uplink(context);
    }

    /// Takes the last actions of the client machine.
    fn drain_uplink(&mut self, context: &mut Context<'_, P>) {
        while let Some(action) = self.uplink.next_ending() {
            if !matches!(action, Action::Closed(_)) {
                self.on_action(&action, context);
            }
        }
        if let Some(link) = self.uplink.set_closing() {
            context.output.events.push_back(Event::Close(link));
        }
        self.outbound.disconnected();
        self.inbound.request = None;
    }

    /// Handles the end of the transport, which the host has closed.
    pub(super) fn on_closed(&mut self, context: &mut Context<'_, P>) {
        if self.uplink.is_open() {
            self.drain_uplink(context);
            self.on_uplink_lost(ReturnCode::Congestion, context);
        }
        self.uplink.set_closed();
        if matches!(self.phase, Phase::Connecting(_)) {
            self.open_uplink(context);
        }
    }

    /// Tells the client that there is no connection any more.
    fn on_uplink_lost(&mut self, code: ReturnCode, context: &mut Context<'_, P>) {
        match self.phase {
            Phase::Connecting(_) => {
                self.send(&Message::Connack(code), context);
                self.set_phase(Phase::Disconnected, context);
            }
            Phase::Active | Phase::Awake { .. } => {
                self.send(&Message::Disconnect(None), context);
                self.set_phase(Phase::Disconnected, context);
            }
            // A client that sleeps is told when it wakes.
            Phase::Asleep => self.set_phase(Phase::Disconnected, context),
            Phase::Lost { .. } => self.set_phase(Phase::Lost { will: None }, context),
            Phase::Disconnected => {}
        }
    }

    /// Consumes packets of the server.
    pub(super) fn handle_input(&mut self, input: &mut &[u8], context: &mut Context<'_, P>) {
        loop {
            let (now, is_paused) = (context.now, self.is_paused(context.config));
            let Uplink { client, out, .. } = &mut self.uplink;
            if is_paused {
                // The connection is not read, so the server is not silent.
                client.handle_progress(now);
            }
            let mut nothing = &[][..];
            let input = if is_paused { &mut nothing } else { &mut *input };
            let Some(action) = client.handle_input(input, now, out) else { return };
            self.on_action(&action, context);
        }
    }

    pub(super) fn on_action(&mut self, action: &Action<'_>, context: &mut Context<'_, P>) {
        match action {
            Action::Connected(connack) => self.on_connected(connack.session_present, context),
            Action::Message(message) => self.on_message(message, context),
            Action::Published(Published { key, outcome }) => {
                let will = if let Phase::Lost { will } = self.phase { will } else { None };
                if will == Some(*key) {
                    self.end_uplink(true, context);
                    self.set_phase(Phase::Lost { will: None }, context);
                    return;
                }
                let code = match outcome {
                    Outcome::Acknowledged { reason_code, .. } => Some(*reason_code),
                    Outcome::SessionLost(None) => Some(ReasonCode::SUCCESS),
                    Outcome::SessionLost(Some(_)) => None,
                    Outcome::Expired | Outcome::NotAllowed(_) => {
                        Some(ReasonCode::UNSPECIFIED_ERROR)
                    }
                };
                self.on_published(*key, code, context);
            }
            Action::Subscribed(key, suback) => {
                let code = suback.reason_codes.iter().next();
                self.on_answer(*key, code.unwrap_or(ReasonCode::UNSPECIFIED_ERROR), context);
            }
            Action::Unsubscribed(key, _) => self.on_answer(*key, ReasonCode::SUCCESS, context),
            Action::Closed(cause) => {
                let refused = matches!(cause, CloseCause::Refused(_));
                let is_busy = cause.reason_code() == ReasonCode::SERVER_UNAVAILABLE;
                let code = match refused && !is_busy {
                    true => ReturnCode::NotSupported,
                    false => ReturnCode::Congestion,
                };
                self.drain_uplink(context);
                self.on_uplink_lost(code, context);
            }
            // The client asks again.
            Action::RequestLost(_) | Action::Authenticate(_) => {}
        }
    }

    // ---- time ----

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let own = match &self.phase {
            Phase::Connecting(connecting) => connecting.deadline(),
            Phase::Active | Phase::Asleep | Phase::Awake { .. } => self.silence_deadline(),
            Phase::Lost { .. } | Phase::Disconnected => None,
        };
        let outbound = self.is_listening().then(|| self.outbound.deadline()).flatten();
        [own, outbound, self.uplink.poll_timeout()].into_iter().flatten().min()
    }

    /// Returns when the client is lost if it stays silent.
    fn silence_deadline(&self) -> Option<Instant> {
        let sleeps = matches!(self.phase, Phase::Asleep | Phase::Awake { .. });
        let seconds = if sleeps { self.sleep } else { self.keep_alive };
        (seconds > 0).then(|| silence_deadline(self.heard, seconds))
    }

    pub(super) fn handle_timeout(&mut self, context: &mut Context<'_, P>) {
        let now = context.now;
        if self.uplink.poll_timeout().is_some_and(|at| at <= now) {
            if self.is_paused(context.config) {
                self.uplink.client.handle_progress(now);
            }
            loop {
                let Uplink { client, out, .. } = &mut self.uplink;
                let Some(action) = client.handle_timeout(now, out) else { break };
                self.on_action(&action, context);
            }
        }
        if self.is_connected() && self.silence_deadline().is_some_and(|at| at <= now) {
            return self.lose(context);
        }
        match self.phase {
            Phase::Connecting(_) => self.retry_connecting(context),
            Phase::Active | Phase::Awake { .. } => self.retry_outbound(context),
            Phase::Asleep | Phase::Lost { .. } | Phase::Disconnected => {}
        }
    }
}
