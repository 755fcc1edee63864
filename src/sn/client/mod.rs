//! The device's side of a connection to a gateway. It knows no sockets, clocks or threads.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "most of the 27 messages mean nothing in a state, and the specification adds none"
)]

mod action;
mod config;
mod receive;
mod state;

pub use action::{Action, Received, RequestError};
pub use config::ClientConfig;
pub use state::ClientState;

use super::recent::Recent;
use super::v1_2::{
    Connect, Message, Publish, PublishQos, Register, SearchGw, Subscribe, SubscriptionTopic,
    TopicId, TopicRef, Unsubscribe, WillTopic, decode, encode,
};
use crate::codec::{Output, PacketIdentifier, QoS, Text};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use state::{Pending, Request, Transition, set_dup};

/// The device's side of a connection, and of those after it.
///
/// The host owns the socket and the clock. Each call writes at most one datagram to the output,
/// which the host sends to the gateway.
///
/// ```
/// use mqtt_sansio::Instant;
/// use mqtt_sansio::codec::QoS;
/// use mqtt_sansio::sn::client::{Action, Client, ClientConfig};
/// use mqtt_sansio::sn::v1_2::{Publish, ReturnCode};
///
/// let now = Instant::from_millis(0);
/// let mut client = Client::new(ClientConfig::new("sn-45")?);
/// let mut out = Vec::new();
/// client.connect(true, now, &mut out)?;
/// assert_eq!(out, b"\x0B\x04\x04\x01\0\x3Csn-45"); // to be sent to the gateway
///
/// out.clear();
/// assert_eq!(client.handle_datagram(b"\x03\x05\0", now, &mut out), Some(Action::Connected));
/// client.register("room/4", now, &mut out)?;
/// out.clear();
/// let action = client.handle_datagram(b"\x07\x0B\0\x01\0\x01\0", now, &mut out);
/// let Some(Action::Registered(Ok(topic))) = action else { panic!() };
/// client.publish(topic.into(), QoS::AtLeastOnce, false, b"21.5", now, &mut out)?;
/// out.clear();
/// let action = client.handle_datagram(b"\x07\x0D\0\x01\0\x02\0", now, &mut out);
/// assert_eq!(action, Some(Action::Published(ReturnCode::Accepted)));
///
/// client.sleep(3_600, now, &mut out)?;
/// out.clear();
/// let action = client.handle_datagram(b"\x02\x18", now, &mut out);
/// assert_eq!(action, Some(Action::Asleep { is_confirmed: true }));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// - A request waits for its answer, and there is one request at a time. The client sends it again
///   at [`poll_timeout`](Self::poll_timeout).
/// - A message with QoS 1 or 2 that is not acknowledged when the connection ends is sent again
///   after a [`connect`](Self::connect) without Clean Session.
/// - Messages of the gateway can arrive in any state except asleep and disconnected. Their
///   acknowledgement is in the output when they are reported.
/// - Memory: the topics, the request that is not answered, and a few numbers.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    state: ClientState,
    /// The message that the gateway has not answered, which changes the state.
    transition: Option<Pending<Transition>>,
    /// The request that the gateway has not answered.
    request: Option<Pending<Request>>,
    topics: VecDeque<(TopicId, Box<str>)>,
    last_sent: Instant,
    last_id: u16,
    /// The message with QoS 2 that the gateway has not released.
    received: Option<PacketIdentifier>,
    recent: Recent<PacketIdentifier>,
}

impl Client {
    /// Creates a client without a connection.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self {
            last_id: config.first_message_id.wrapping_sub(1),
            config,
            state: ClientState::Disconnected,
            transition: None,
            request: None,
            topics: VecDeque::new(),
            last_sent: Instant::default(),
            received: None,
            recent: Recent::default(),
        }
    }

    /// Returns the state.
    #[must_use]
    pub const fn state(&self) -> ClientState {
        self.state
    }

    /// Whether the last request is not answered.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.request.is_some()
    }

    /// Returns the name of a topic id that the client has registered or subscribed to, or the
    /// gateway has registered.
    #[must_use]
    pub fn topic_name(&self, id: TopicId) -> Option<&str> {
        self.topics.iter().find(|(other, _)| *other == id).map(|(_, name)| &**name)
    }

    // ---- requests ----

    /// Asks all nodes within a radius for a gateway. The host waits a random time of up to 5
    /// seconds before, so that clients do not all ask at the same time. [SN §6.1]
    pub fn search(&self, radius: u8, out: &mut impl Output) -> Result<(), RequestError> {
        Ok(encode(&Message::SearchGw(SearchGw { radius }), out)?)
    }

    /// Begins a connection, or returns from sleep. [SN §6.2] [SN §6.14]
    ///
    /// With Clean Session, a request that is not answered is dropped.
    pub fn connect(
        &mut self,
        clean_session: bool,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        if !matches!(
            self.state,
            ClientState::Disconnected | ClientState::Asleep | ClientState::FallingAsleep
        ) {
            return Err(RequestError::State);
        }
        let client_id = self.config.client_id.clone();
        let connect = Connect {
            will: self.config.will.is_some(),
            clean_session,
            duration: self.config.keep_alive,
            client_id: (&*client_id).into(),
        };
        let datagram = self.write(&Message::Connect(connect), now, out)?;
        self.state = ClientState::Connecting;
        let kind = Transition::Connect { clean_session };
        self.transition = Some(Pending::new(kind, datagram, self.config.retry, now));
        if clean_session {
            self.topics.clear();
            (self.request, self.received) = (None, None);
        }
        Ok(())
    }

    /// Registers a topic name. [SN §6.5]
    pub fn register(
        &mut self,
        name: &str,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        let message_id = self.next_id().get();
        let register = Register { topic_id: None, message_id, topic_name: name.into() };
        self.ask(Request::Register(message_id, name.into()), &Message::Register(register), now, out)
    }

    /// Publishes a message. [SN §6.6]
    ///
    /// With QoS 0 there is no answer. The message can be sent while another request is not
    /// answered.
    pub fn publish(
        &mut self,
        topic: TopicRef,
        qos: QoS,
        retain: bool,
        data: &[u8],
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        let publish = Publish { qos: qos.into(), retain, ..Publish::new(topic, data) };
        if qos == QoS::AtMostOnce {
            if self.state != ClientState::Active {
                return Err(RequestError::State);
            }
            return self.write(&Message::Publish(publish), now, out).map(|_| ());
        }
        let id = self.next_id();
        let message = Message::Publish(Publish { message_id: Some(id), ..publish });
        self.ask(Request::Publish(id, qos), &message, now, out)
    }

    /// Publishes a message to a predefined or short topic without a connection, in any state, with
    /// QoS −1. [SN §6.8]
    pub fn publish_unconnected(
        &self,
        topic: TopicRef,
        retain: bool,
        data: &[u8],
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        let qos = PublishQos::MinusOne;
        Ok(encode(&Message::Publish(Publish { qos, retain, ..Publish::new(topic, data) }), out)?)
    }

    /// Subscribes to a topic. [SN §6.9]
    pub fn subscribe(
        &mut self,
        topic: SubscriptionTopic<'_>,
        qos: QoS,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        let message_id = self.next_id().get();
        let name = if let SubscriptionTopic::Filter(name) = topic { Some(name) } else { None };
        let name = name.map(|name| name.to_str().into());
        let subscribe = Subscribe { dup: false, qos, message_id, topic };
        self.ask(Request::Subscribe(message_id, name), &Message::Subscribe(subscribe), now, out)
    }

    /// Ends a subscription. [SN §6.9]
    pub fn unsubscribe(
        &mut self,
        topic: SubscriptionTopic<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        let message_id = self.next_id().get();
        let message = Message::Unsubscribe(Unsubscribe { message_id, topic });
        self.ask(Request::Unsubscribe(message_id), &message, now, out)
    }

    /// Changes the topic of the Will at the gateway; `None` deletes the Will. [SN §6.4]
    pub fn update_will_topic(
        &mut self,
        topic: Option<WillTopic<'_>>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        self.ask(Request::WillTopic, &Message::WillTopicUpd(topic), now, out)
    }

    /// Changes the message of the Will at the gateway. [SN §6.4]
    pub fn update_will_message(
        &mut self,
        message: &[u8],
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        self.ask(Request::WillMessage, &Message::WillMsgUpd(message), now, out)
    }

    /// Asks the gateway to buffer messages while the client sleeps. The client must
    /// [wake](Self::wake) or connect again within `seconds`. A client that sleeps can call this
    /// again to change the time. [SN §6.14]
    pub fn sleep(
        &mut self,
        seconds: u16,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        if !matches!(self.state, ClientState::Active | ClientState::Asleep | ClientState::Awake) {
            return Err(RequestError::State);
        }
        self.leave(Some(seconds), ClientState::FallingAsleep, now, out)
    }

    /// Asks the gateway for the messages that it has buffered. The client is asleep again after
    /// the last one. [SN §6.14]
    pub fn wake(&mut self, now: Instant, out: &mut impl Output) -> Result<(), RequestError> {
        if self.state != ClientState::Asleep {
            return Err(RequestError::State);
        }
        let client_id = self.config.client_id.clone();
        self.ping(Some((&*client_id).into()), now, out)?;
        self.state = ClientState::Awake;
        Ok(())
    }

    /// Ends the connection. [SN §6.12]
    pub fn disconnect(&mut self, now: Instant, out: &mut impl Output) -> Result<(), RequestError> {
        if matches!(self.state, ClientState::Disconnected | ClientState::Disconnecting) {
            return Err(RequestError::State);
        }
        self.leave(None, ClientState::Disconnecting, now, out)
    }

    // ---- events ----

    /// Handles a datagram of the gateway.
    #[must_use = "an action that is dropped is lost"]
    pub fn handle_datagram<'d>(
        &mut self,
        datagram: &'d [u8],
        now: Instant,
        out: &mut impl Output,
    ) -> Option<Action<'d>> {
        let message = decode(datagram).ok()?;
        match message {
            Message::Advertise(advertise) => {
                let gateway_id = advertise.gateway_id;
                return Some(Action::GatewayFound { gateway_id, address: b"" });
            }
            Message::GwInfo(info) => {
                let (gateway_id, address) = (info.gateway_id, info.address);
                return Some(Action::GatewayFound { gateway_id, address });
            }
            Message::Disconnect(None) => return self.on_disconnect(),
            _ => {}
        }
        match self.state {
            ClientState::Connecting => self.on_connecting(&message, now, out),
            ClientState::Active
            | ClientState::Awake
            | ClientState::FallingAsleep
            | ClientState::Disconnecting => self.on_message(message, now, out),
            ClientState::Disconnected | ClientState::Asleep => None,
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due, if at all. Every other call
    /// can change it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let transition = self.transition.as_ref().map(|pending| pending.retry_at);
        let request = self.request.as_ref().map(|pending| pending.retry_at);
        let request = request.filter(|_| self.state == ClientState::Active);
        [transition, request, self.ping_due()].into_iter().flatten().min()
    }

    /// Sends a message that is not answered again, or a PINGREQ that is due. Does nothing if
    /// nothing is due.
    #[must_use = "an action that is dropped is lost"]
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        out: &mut impl Output,
    ) -> Option<Action<'static>> {
        let retry = self.config.retry;
        if let Some(pending) = self.transition.as_mut().filter(|it| it.retry_at <= now) {
            self.last_sent = now;
            return if pending.resend(retry, now, out) { None } else { self.give_up() };
        }
        let is_active = self.state == ClientState::Active;
        let request = self.request.as_mut().filter(|it| is_active && it.retry_at <= now);
        if let Some(pending) = request {
            set_dup(&mut pending.datagram);
            self.last_sent = now;
            return if pending.resend(retry, now, out) { None } else { self.give_up() };
        }
        if self.ping_due().is_some_and(|at| at <= now) {
            // If the output has no room, the PINGREQ is sent at the next retry.
            let _ = self.ping(None, now, out);
        }
        None
    }

    /// Returns when a PINGREQ is due: after three quarters of the Keep Alive, so that one PINGREQ
    /// can be lost.
    fn ping_due(&self) -> Option<Instant> {
        let is_due = self.state == ClientState::Active && self.transition.is_none();
        let interval = core::time::Duration::from_millis(u64::from(self.config.keep_alive) * 750);
        (is_due && self.config.keep_alive > 0).then(|| self.last_sent + interval)
    }

    /// Handles that the gateway does not answer. An awake client is asleep again, and a client that
    /// was disconnecting is disconnected.
    fn give_up(&mut self) -> Option<Action<'static>> {
        self.transition = None;
        let (state, action) = match self.state {
            ClientState::Awake | ClientState::FallingAsleep => {
                (ClientState::Asleep, Action::Asleep { is_confirmed: false })
            }
            ClientState::Disconnecting => (ClientState::Disconnected, Action::Disconnected),
            ClientState::Connecting
            | ClientState::Active
            | ClientState::Asleep
            | ClientState::Disconnected => (ClientState::Disconnected, Action::Lost),
        };
        self.end(state);
        Some(action)
    }

    // ---- helpers ----

    fn next_id(&mut self) -> PacketIdentifier {
        self.last_id = self.last_id.wrapping_add(1).max(1);
        PacketIdentifier::new(self.last_id).unwrap_or(PacketIdentifier::FIRST)
    }

    /// Sends a request, if no other one is open.
    fn ask(
        &mut self,
        kind: Request,
        message: &Message<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        if self.state != ClientState::Active {
            return Err(RequestError::State);
        }
        if self.request.is_some() {
            return Err(RequestError::Busy);
        }
        let datagram = self.write(message, now, out)?;
        self.request = Some(Pending::new(kind, datagram, self.config.retry, now));
        Ok(())
    }

    fn leave(
        &mut self,
        duration: Option<u16>,
        state: ClientState,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        let datagram = self.write(&Message::Disconnect(duration), now, out)?;
        let retry = self.config.retry;
        self.transition = Some(Pending::new(Transition::Disconnect, datagram, retry, now));
        self.state = state;
        Ok(())
    }

    fn ping(
        &mut self,
        client_id: Option<Text<'_>>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), RequestError> {
        let datagram = self.write(&Message::Pingreq(client_id), now, out)?;
        let retry = self.config.retry;
        self.transition = Some(Pending::new(Transition::Ping, datagram, retry, now));
        Ok(())
    }

    /// Ends the connection. Keeps only a message with QoS 1 or 2, for the next connection.
    fn end(&mut self, state: ClientState) {
        (self.state, self.transition) = (state, None);
        if state == ClientState::Disconnected {
            self.request.take_if(|pending| {
                !matches!(pending.kind, Request::Publish(..) | Request::Pubrel(_))
            });
        }
    }

    /// Writes a message, and returns its bytes.
    fn write(
        &mut self,
        message: &Message<'_>,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<Vec<u8>, RequestError> {
        let mut datagram = Vec::new();
        encode(message, &mut datagram)?;
        let size = datagram.len();
        out.append_slice(&datagram).map_err(|_| super::v1_2::EncodeError::NoRoom(size))?;
        self.last_sent = now;
        Ok(datagram)
    }
}
