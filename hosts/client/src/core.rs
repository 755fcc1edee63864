//! The state of a client, under one lock: the machine of `mqtt_sansio`, and who waits for what.
//! Nothing here waits or does I/O. A handle calls the machine directly, in its own task; the driver
//! task writes the output.

use crate::delivery::{self, Delivery, DeliveryResult};
use crate::driver::Status;
use crate::error::{Ended, PublishError, RequestError};
use crate::messages::{Acknowledge, Message};
use bytes::{Buf as _, BytesMut};
use log::{debug, warn};
use mqtt_sansio::Clock;
use mqtt_sansio::client::{Action, Client as Machine, ConnectError};
use mqtt_sansio::codec::{
    self, Auth, AuthProperties, Connack, Connect, Disconnect, EncodeError, Filter, OwnedPacket,
    Packet, PacketIdentifier, Publish, QoS, ReasonCode, Role, Rules, Sequence, Suback, Subscribe,
    SubscribeProperties, Subscription, SubscriptionIdentifier, Text, Unsubscribe,
    UnsubscribeProperties, Version,
};
use mqtt_sansio::session::{self, AckToken, AcknowledgeError, Acknowledgement};
use mqtt_sansio::session::{Outcome, Published, Received};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::Cursor;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Bytes of output that can wait for the socket before a publish waits, and before the client reads
/// no more.
const OUTPUT_LIMIT: usize = 256 * 1024;

/// Returns the data of the next AUTH or CONNECT; the argument is the AUTH of the server, if any.
pub(crate) type Authenticator =
    Box<dyn FnMut(Option<&Auth<'_>>) -> Result<Vec<u8>, AuthenticatorError> + Send>;

/// Any error of an authenticator.
pub(crate) type AuthenticatorError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) type RequestResult = Result<Vec<ReasonCode>, RequestError>;

/// A client as its handles, its streams and its driver share it.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Mutex<Core>,
    /// Wakes the driver: there is output, or the client is closing.
    pub(crate) wake: Notify,
    /// Wakes a publish that waits for room.
    pub(crate) room: Notify,
    /// Wakes those who wait until everything is sent and answered.
    pub(crate) idle: Notify,
    pub(crate) status: watch::Sender<Status>,
    /// The number of changes that are stored.
    pub(crate) stored: watch::Sender<u64>,
    /// The number of the last connection that has resumed the session.
    pub(crate) resumed: AtomicU64,
}

pub(crate) struct Core {
    machine: Machine,
    clock: Clock,
    /// The CONNECT, as it was configured.
    connect: OwnedPacket,
    authenticator: Option<Authenticator>,
    manual_acknowledgement: bool,
    /// Output of the machine.
    out: Vec<u8>,
    /// Whether the driver has bytes to write that it took from `out`.
    is_sending: bool,
    deliveries: HashMap<u64, oneshot::Sender<DeliveryResult>>,
    subscriptions: Vec<Subscribed>,
    unsubscriptions: Vec<Unsubscribing>,
    reauthentication: Option<oneshot::Sender<Result<(), RequestError>>>,
    /// The stream of messages that no subscription takes.
    others: Option<mpsc::Sender<Message>>,
    /// Messages that wait for room in their streams. Until it is empty, no input is handled.
    overflow: VecDeque<(mpsc::Sender<Message>, Message)>,
    next_key: u64,
    /// The number of the current connection. 0 before the first.
    connection: u64,
    /// Counts what a store must keep.
    changes: u64,
    closing: bool,
    closed: bool,
}

/// The parts that [`Options`](crate::Options) have prepared.
pub(crate) struct Parts {
    pub(crate) machine: Machine,
    pub(crate) clock: Clock,
    pub(crate) connect: OwnedPacket,
    pub(crate) authenticator: Option<Authenticator>,
    pub(crate) manual_acknowledgement: bool,
    pub(crate) subscriptions: Vec<Subscribed>,
    pub(crate) others: Option<mpsc::Sender<Message>>,
    pub(crate) next_key: u64,
}

/// A subscription that the client keeps.
pub(crate) struct Subscribed {
    /// The SUBSCRIBE, with any packet identifier.
    packet: OwnedPacket,
    /// The filters that are not unsubscribed, with the identifiers that the server has for them.
    filters: Vec<(Filter, Option<SubscriptionIdentifier>)>,
    /// The filters of the SUBSCRIBE that is not answered.
    asked: Vec<Filter>,
    sender: mpsc::Sender<Message>,
    progress: Progress,
    waiter: Option<oneshot::Sender<RequestResult>>,
}

struct Unsubscribing {
    packet: OwnedPacket,
    progress: Progress,
    waiter: oneshot::Sender<RequestResult>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The packet must be sent.
    Due,
    /// The packet was sent, with this key.
    Sent(u64),
    /// The server has the subscription.
    Active,
}

/// The state that the driver carries from one [step](Shared::step) to the next.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) received: BytesMut,
    /// Bytes to write.
    pub(crate) sending: Cursor<Vec<u8>>,
    /// Whether a part of the output was written.
    pub(crate) progressed: bool,
    /// Whether the socket must be read.
    pub(crate) reads: bool,
    pub(crate) deadline: Option<std::time::Instant>,
    /// The stream whose full buffer stops everything.
    pub(crate) full: Option<mpsc::Sender<Message>>,
}

/// The session as bytes to store, and the number of changes in it.
pub(crate) type Image = (Vec<u8>, u64, u64);

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            core: Mutex::new(Core::new(parts)),
            wake: Notify::new(),
            room: Notify::new(),
            idle: Notify::new(),
            status: watch::Sender::new(Status::Connecting),
            stored: watch::Sender::new(0),
            resumed: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- for the handles ----

    /// Publishes a message. Returns the number of changes with it, for a store.
    pub(crate) fn publish(&self, publish: &Publish<'_>) -> Result<(Delivery, u64), PublishError> {
        let mut core = self.lock();
        let was_empty = core.out.is_empty();
        let delivery = core.publish(publish)?;
        // If there was output before, the driver knows.
        if was_empty {
            self.wake.notify_one();
        }
        Ok((delivery, core.changes))
    }

    pub(crate) fn subscribe(
        &self,
        subscriptions: &[Subscription<'_>],
        properties: SubscribeProperties<'_>,
        sender: mpsc::Sender<Message>,
    ) -> Result<oneshot::Receiver<RequestResult>, RequestError> {
        let mut core = self.lock();
        core.check_open()?;
        let (waiter, answer) = oneshot::channel();
        let version = core.version();
        let subscribed = Subscribed::new(version, subscriptions, properties, sender, Some(waiter))?;
        core.subscriptions.push(subscribed);
        core.send_requests();
        self.wake.notify_one();
        Ok(answer)
    }

    pub(crate) fn unsubscribe(
        &self,
        filters: &[Text<'_>],
        properties: UnsubscribeProperties<'_>,
    ) -> Result<oneshot::Receiver<RequestResult>, RequestError> {
        let mut core = self.lock();
        core.check_open()?;
        let packet_identifier = PacketIdentifier::new(1).ok_or(RequestError::Closed)?;
        let packet = Unsubscribe { properties, ..Unsubscribe::new(packet_identifier, filters) };
        let packet = OwnedPacket::new(&packet.into(), core.version())?;
        for subscribed in &mut core.subscriptions {
            subscribed.filters.retain(|(filter, _)| !filters.contains(&filter.as_text()));
        }
        core.subscriptions.retain(|subscribed| !subscribed.filters.is_empty());
        let (waiter, answer) = oneshot::channel();
        core.unsubscriptions.push(Unsubscribing { packet, progress: Progress::Due, waiter });
        core.send_requests();
        self.wake.notify_one();
        Ok(answer)
    }

    pub(crate) fn acknowledge(
        &self,
        token: AckToken,
        acknowledgement: Acknowledgement<'_>,
    ) -> Result<(), AcknowledgeError> {
        let mut core = self.lock();
        let core = &mut *core;
        core.changes += 1;
        let acknowledged =
            core.machine.acknowledge(token, acknowledgement, core.clock.now(), &mut core.out);
        self.wake.notify_one();
        acknowledged
    }

    pub(crate) fn reauthenticate(
        &self,
    ) -> Result<oneshot::Receiver<Result<(), RequestError>>, RequestError> {
        let mut core = self.lock();
        core.check_open()?;
        let (waiter, answer) = oneshot::channel();
        core.authenticate(None)?;
        core.reauthentication = Some(waiter);
        self.wake.notify_one();
        Ok(answer)
    }

    /// Starts to end the client, with a DISCONNECT if there is a connection.
    pub(crate) fn close(&self, disconnect: Option<&Disconnect<'_>>) {
        let mut core = self.lock();
        if !core.closing {
            core.closing = true;
            core.disconnect(disconnect);
        }
        self.wake.notify_one();
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.lock().is_idle()
    }

    pub(crate) fn client_identifier(&self) -> String {
        self.lock().client_identifier()
    }

    // ---- for the driver ----

    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Starts MQTT on a new transport.
    pub(crate) fn connect(&self) -> Result<(), Ended> {
        self.lock().connect()
    }

    /// Handles what was received and what is due, and takes the output. Returns the end of the
    /// connection.
    pub(crate) fn step(self: &Arc<Self>, link: &mut Link) -> Option<Ended> {
        let mut core = self.lock();
        let core = &mut *core;
        core.empty_overflow();
        if std::mem::take(&mut link.progressed) || !link.reads {
            // A PINGREQ waits behind a large message, or its answer was not read.
            core.machine.handle_progress(core.clock.now());
        }
        let ended = core.take_steps(&mut link.received, self).or_else(|| core.handle_timeout(self));
        core.send_requests();
        if !link.sending.has_remaining() {
            // The buffers take turns, so neither is allocated again.
            link.sending.set_position(0);
            link.sending.get_mut().clear();
            std::mem::swap(&mut core.out, link.sending.get_mut());
        }
        core.is_sending = link.sending.has_remaining();
        link.full = core.overflow.front().map(|(sender, _)| sender.clone());
        link.reads = link.full.is_none() && core.out.len() < OUTPUT_LIMIT;
        link.deadline = core.machine.poll_timeout().map(|deadline| core.clock.to_std(deadline));
        if core.has_room() {
            self.room.notify_one();
        }
        if core.is_idle() {
            self.idle.notify_waiters();
        }
        ended
    }

    /// Ends the connection because the transport has failed.
    pub(crate) fn connection_lost(self: &Arc<Self>) {
        let mut core = self.lock();
        core.changes += 1;
        while let Some(action) = core.machine.connection_lost() {
            core.on_action(action, self);
        }
    }

    /// Returns the session, if it has changed since `stored` changes.
    pub(crate) fn image(&self, stored: u64) -> Option<Image> {
        let core = self.lock();
        (core.changes > stored).then(|| {
            let session = core.machine.session().to_bytes(core.clock.now());
            (session, core.changes, core.next_key)
        })
    }

    /// Ends the client: all who wait are told.
    pub(crate) fn closed(&self, ended: Ended) {
        let mut core = self.lock();
        core.closing = true;
        core.closed = true;
        core.deliveries.clear();
        core.subscriptions.clear();
        core.unsubscriptions.clear();
        core.overflow.clear();
        (core.others, core.reauthentication) = (None, None);
        self.status.send_replace(Status::Closed(ended));
        self.room.notify_waiters();
        self.room.notify_one();
        self.idle.notify_waiters();
    }
}

impl Core {
    fn new(parts: Parts) -> Self {
        let Parts { machine, clock, connect, authenticator, manual_acknowledgement, .. } = parts;
        Self {
            machine,
            clock,
            connect,
            authenticator,
            manual_acknowledgement,
            out: Vec::new(),
            is_sending: false,
            deliveries: HashMap::new(),
            subscriptions: parts.subscriptions,
            unsubscriptions: Vec::new(),
            reauthentication: None,
            others: parts.others,
            overflow: VecDeque::new(),
            next_key: parts.next_key,
            connection: 0,
            changes: 1,
            closing: false,
            closed: false,
        }
    }

    fn version(&self) -> Version {
        connect_of(&self.connect).version
    }

    /// Returns the identifier in CONNECT, or else the one that the server has assigned.
    fn client_identifier(&self) -> String {
        let configured = connect_of(&self.connect).client_identifier;
        let own =
            if configured.is_empty() { self.machine.session().client_identifier() } else { None };
        own.unwrap_or(configured.to_str()).to_owned()
    }

    const fn check_open(&self) -> Result<(), RequestError> {
        if self.closing { Err(RequestError::Closed) } else { Ok(()) }
    }

    fn has_room(&self) -> bool {
        self.out.len() < OUTPUT_LIMIT
    }

    fn is_idle(&self) -> bool {
        self.out.is_empty()
            && !self.is_sending
            && self.deliveries.is_empty()
            && self.machine.session().queued() == 0
            && self.machine.session().in_flight() == 0
    }

    const fn new_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    fn publish(&mut self, publish: &Publish<'_>) -> Result<Delivery, PublishError> {
        if self.closing {
            return Err(PublishError::Closed);
        }
        if !self.has_room() {
            return Err(session::PublishError::QueueFull.into());
        }
        let key = self.next_key + 1;
        self.machine.publish(key, publish, self.clock.now(), &mut self.out)?;
        self.next_key = key;
        self.changes += 1;
        if publish.qos == QoS::AtMostOnce {
            return Ok(Delivery::DONE);
        }
        let (sender, receiver) = oneshot::channel();
        self.deliveries.insert(key, sender);
        Ok(Delivery::new(receiver))
    }

    fn connect(&mut self) -> Result<(), Ended> {
        self.changes += 1;
        self.out.clear();
        // The last step before a lost connection can have left actions.
        while self.machine.connection_lost().is_some() {}
        let connect = connect_of(&self.connect);
        let identifier = self.client_identifier();
        let mut properties = connect.properties;
        let data;
        if let Some(authenticator) = &mut self.authenticator {
            data = authenticator(None).map_err(|error| Ended::Connect(error.to_string().into()))?;
            properties.authentication_data = Some(&data);
        }
        // Before 5.0 a clean session cannot be resumed.
        let was_connected = self.connection > 0 && connect.version == Version::V5_0;
        let connect = Connect {
            clean_start: connect.clean_start && !was_connected,
            client_identifier: (&identifier).into(),
            properties,
            ..connect
        };
        self.machine.connect(&connect, self.clock.now(), &mut self.out).map_err(|error| {
            let cause = match error {
                ConnectError::ClientIdentifier => error.to_string(),
                other => format!("cannot send CONNECT: {other}"),
            };
            Ended::Connect(cause.into())
        })
    }

    fn disconnect(&mut self, disconnect: Option<&Disconnect<'_>>) {
        let connect = connect_of(&self.connect);
        let mut end = disconnect.copied().unwrap_or_default();
        // With Clean Start, the next run does not resume the session, so it ends now.
        if disconnect.is_none() && connect.clean_start && connect.version == Version::V5_0 {
            end.properties.session_expiry_interval = Some(0);
        }
        if let Err(error) = self.machine.disconnect(&end, self.clock.now(), &mut self.out) {
            debug!("no DISCONNECT was sent: {error}");
        }
    }

    // ---- received packets ----

    fn take_steps(&mut self, received: &mut BytesMut, shared: &Arc<Shared>) -> Option<Ended> {
        let now = self.clock.now();
        let mut input = received.as_ref();
        let mut ended = None;
        // After a DISCONNECT of this side the machine takes no more input, only reports the end.
        while ended.is_none() && (self.takes_input() || !self.machine.wants_input()) {
            let Some(action) = self.machine.handle_input(&mut input, now, &mut self.out) else {
                break;
            };
            ended = self.on_action(action, shared);
        }
        let taken = received.len() - input.len();
        received.advance(taken);
        // A PUBREC, for instance, changes the session without an action.
        self.changes += u64::from(taken > 0);
        ended
    }

    fn takes_input(&self) -> bool {
        self.overflow.is_empty() && self.has_room()
    }

    fn handle_timeout(&mut self, shared: &Arc<Shared>) -> Option<Ended> {
        loop {
            let action = self.machine.handle_timeout(self.clock.now(), &mut self.out)?;
            self.changes += 1;
            let ended = self.on_action(action, shared);
            if ended.is_some() {
                return ended;
            }
        }
    }

    fn on_action(&mut self, action: Action<'_>, shared: &Arc<Shared>) -> Option<Ended> {
        match action {
            Action::Message(received) => self.on_message(&received, shared),
            Action::Published(published) => self.on_published(&published),
            Action::Connected(connack) => self.on_connected(&connack, shared),
            Action::Subscribed(key, suback) => self.on_subscribed(key, &suback),
            Action::Unsubscribed(key, unsuback) => self.on_unsubscribed(key, &unsuback),
            Action::RequestLost(key) => self.on_request_lost(key),
            Action::Authenticate(auth) => self.on_authenticate(&auth),
            Action::Closed(cause) => {
                self.reauthentication = None;
                return Some(Ended::of(&cause, self.version()));
            }
            _ => {}
        }
        None
    }

    fn on_connected(&mut self, connack: &Connack<'_>, shared: &Arc<Shared>) {
        let is_first = self.connection == 0;
        self.connection += 1;
        if connack.session_present {
            shared.resumed.store(self.connection, Ordering::Release);
        }
        debug!("connected, {} session", if connack.session_present { "resumed" } else { "new" });
        if is_first || !connack.session_present {
            // A stream that was dropped is not read.
            self.subscriptions.retain(|subscribed| !subscribed.sender.is_closed());
            for subscribed in &mut self.subscriptions {
                subscribed.progress = Progress::Due;
            }
        }
        if !connack.session_present {
            // The server has nothing to unsubscribe from.
            for done in self.unsubscriptions.drain(..) {
                let _ = done.waiter.send(Ok(Vec::new()));
            }
        }
        let rules = Rules::new(self.version()).sent_by(Role::Server);
        if let Ok(packet) = OwnedPacket::new(&(*connack).into(), rules) {
            shared.status.send_replace(Status::Connected(packet));
        }
    }

    fn on_published(&mut self, published: &Published<'_>) {
        let (key, outcome) = (published.key, &published.outcome);
        if let Outcome::SessionLost(Some(message)) = outcome {
            // At least once is what QoS 1 asks for.
            let again = message.to_publish();
            if message.qos() == QoS::AtLeastOnce
                && self.machine.publish(key, &again, self.clock.now(), &mut self.out).is_ok()
            {
                return;
            }
        }
        if let Some(sender) = self.deliveries.remove(&key) {
            let _ = sender.send(delivery::result(outcome));
        }
    }

    fn on_message(&mut self, received: &Received<'_>, shared: &Arc<Shared>) {
        let Ok(message) = codec::Message::new(&received.to_publish()) else {
            // The machine has checked the message.
            return debug!("a message cannot be kept");
        };
        let acknowledge = received.token.filter(|_| self.manual_acknowledgement).map(|token| {
            Box::new(Acknowledge { token, connection: self.connection, shared: shared.clone() })
        });
        let message = Message::new(message, received.dup, acknowledge);
        let identifiers = received.properties.subscription_identifiers;
        let identifiers = Some(identifiers).filter(|identifiers| !identifiers.is_empty());
        let topic = received.topic_name.as_text();
        let rest = self.deliver(topic, message, identifiers);
        // The identifiers can be those of an earlier run.
        let rest = rest.and_then(|message| self.deliver(topic, message, None));
        let Some(message) = rest else { return };
        if let Some(others) = self.others.as_ref().filter(|others| !others.is_closed()) {
            offer(others, message, &mut self.overflow);
            return;
        }
        debug!("no subscription takes {message:?}");
        if let Some(token) = received.token.filter(|_| self.manual_acknowledgement) {
            let (success, now) = (ReasonCode::SUCCESS, self.clock.now());
            let _ = self.machine.acknowledge(token, success, now, &mut self.out);
        }
    }

    /// Offers a message to each stream that it is for. Returns it if there is none.
    fn deliver(
        &mut self,
        topic: Text<'_>,
        message: Message,
        identifiers: Option<Sequence<'_, SubscriptionIdentifier>>,
    ) -> Option<Message> {
        let Self { subscriptions, overflow, .. } = self;
        let takes = |subscribed: &&Subscribed| {
            !subscribed.sender.is_closed() && subscribed.takes(topic, identifiers)
        };
        let mut senders = subscriptions.iter().filter(takes).map(|subscribed| &subscribed.sender);
        let Some(first) = senders.next() else { return Some(message) };
        for sender in senders {
            offer(sender, message.clone(), overflow);
        }
        offer(first, message, overflow);
        None
    }

    fn empty_overflow(&mut self) {
        // Each stream has its own order, so the others need not wait for a full one.
        for (sender, message) in std::mem::take(&mut self.overflow) {
            offer(&sender, message, &mut self.overflow);
        }
    }

    // ---- requests ----

    /// Sends each SUBSCRIBE and UNSUBSCRIBE that is due.
    fn send_requests(&mut self) {
        if !self.machine.is_connected() {
            return;
        }
        let is_due = |progress| progress == Progress::Due;
        for index in 0..self.subscriptions.len() {
            if self.subscriptions.get(index).is_some_and(|one| is_due(one.progress)) {
                self.send_subscribe(index);
            }
        }
        self.subscriptions.retain(|subscribed| !subscribed.filters.is_empty());
        let now = self.clock.now();
        for request in &mut self.unsubscriptions {
            let Packet::Unsubscribe(packet) = request.packet.decode() else { continue };
            if is_due(request.progress) {
                self.next_key += 1;
                let key = self.next_key;
                let filters: Vec<_> = packet.topic_filters.iter().collect();
                let out = &mut self.out;
                match self.machine.unsubscribe(key, &filters, packet.properties, now, out) {
                    Ok(()) => request.progress = Progress::Sent(key),
                    Err(error) => debug!("UNSUBSCRIBE is not sent yet: {error}"),
                }
            }
        }
    }

    fn send_subscribe(&mut self, index: usize) {
        let key = self.new_key();
        let Some(subscribed) = self.subscriptions.get_mut(index) else { return };
        let packet = subscribed.packet.clone();
        let Packet::Subscribe(packet) = packet.decode() else { return };
        // Some can be unsubscribed since.
        subscribed.asked = subscribed.filters.iter().map(|(filter, _)| filter.clone()).collect();
        let is_asked = |one: &Subscription<'_>| {
            subscribed.asked.iter().any(|filter| filter.as_text() == one.topic_filter)
        };
        let list: Vec<_> = packet.subscriptions.iter().filter(is_asked).collect();
        let mut properties = packet.properties;
        if properties.subscription_identifier.is_none()
            && connect_of(&self.connect).version == Version::V5_0
        {
            // A key of 28 bits, which repeats after 268 million requests.
            let number = u32::try_from(key % 0x0FFF_FFFF).unwrap_or(0) + 1;
            properties.subscription_identifier = SubscriptionIdentifier::new(number);
        }
        let now = self.clock.now();
        let mut sent = self.machine.subscribe(key, &list, properties, now, &mut self.out);
        let unavailable = ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED;
        if sent == Err(session::RequestError::NotSupported(unavailable)) {
            properties.subscription_identifier = packet.properties.subscription_identifier;
            sent = self.machine.subscribe(key, &list, properties, now, &mut self.out);
        }
        match sent {
            Ok(()) => {
                subscribed.progress = Progress::Sent(key);
                // A server has one subscription for each filter, the last one.
                let identifier = properties.subscription_identifier;
                let names: Vec<_> = list.iter().map(|one| one.topic_filter).collect();
                let all = self.subscriptions.iter_mut().flat_map(|one| &mut one.filters);
                all.filter(|(filter, _)| names.contains(&filter.as_text()))
                    .for_each(|(_, own)| *own = identifier);
            }
            Err(session::RequestError::NoPacketIdentifier) => {}
            Err(error) => {
                subscribed.filters.clear();
                match subscribed.waiter.take() {
                    Some(waiter) => drop(waiter.send(Err(error.into()))),
                    None => warn!("cannot subscribe again: {error}"),
                }
            }
        }
    }

    fn on_subscribed(&mut self, key: u64, suback: &Suback<'_>) {
        let sent = |subscribed: &&mut Subscribed| subscribed.progress == Progress::Sent(key);
        let Some(subscribed) = self.subscriptions.iter_mut().find(sent) else { return };
        subscribed.progress = Progress::Active;
        let codes: Vec<_> = suback.reason_codes.iter().collect();
        let answered = std::mem::take(&mut subscribed.asked).into_iter().zip(&codes);
        for (refused, code) in answered.filter(|(_, code)| code.is_error()) {
            warn!("the server refused the subscription to {refused}: {code}");
            subscribed.filters.retain(|(filter, _)| *filter != refused);
        }
        let first = codes.first().copied().unwrap_or_default();
        let result = if subscribed.filters.is_empty() {
            Err(RequestError::Refused(first))
        } else {
            Ok(codes)
        };
        if let Some(waiter) = subscribed.waiter.take() {
            let _ = waiter.send(result);
        }
        self.subscriptions.retain(|subscribed| !subscribed.filters.is_empty());
    }

    fn on_unsubscribed(&mut self, key: u64, unsuback: &Suback<'_>) {
        let sent = |one: &Unsubscribing| one.progress == Progress::Sent(key);
        let Some(index) = self.unsubscriptions.iter().position(sent) else { return };
        let codes = unsuback.reason_codes.iter().collect();
        let _ = self.unsubscriptions.swap_remove(index).waiter.send(Ok(codes));
    }

    fn on_request_lost(&mut self, key: u64) {
        let subscriptions = self.subscriptions.iter_mut().map(|one| &mut one.progress);
        let unsubscriptions = self.unsubscriptions.iter_mut().map(|one| &mut one.progress);
        subscriptions
            .chain(unsubscriptions)
            .filter(|progress| **progress == Progress::Sent(key))
            .for_each(|progress| *progress = Progress::Due);
    }

    // ---- enhanced authentication ----

    fn on_authenticate(&mut self, auth: &Auth<'_>) {
        if auth.reason_code == ReasonCode::SUCCESS {
            if let Some(waiter) = self.reauthentication.take() {
                let _ = waiter.send(Ok(()));
            }
        } else if let Err(error) = self.authenticate(Some(auth)) {
            // The server ends the connection when it has no answer.
            warn!("authentication failed on this side: {error}");
            self.disconnect(Some(&Disconnect::new(ReasonCode::UNSPECIFIED_ERROR)));
        }
    }

    /// Sends the next AUTH: an answer, or the start of a re-authentication.
    fn authenticate(&mut self, received: Option<&Auth<'_>>) -> Result<(), RequestError> {
        let unexpected = RequestError::NotSent(session::RequestError::Authentication);
        let Some(authenticator) = &mut self.authenticator else { return Err(unexpected) };
        let data = authenticator(received).map_err(|error| {
            warn!("the authenticator failed: {error}");
            unexpected
        })?;
        let authentication_method = connect_of(&self.connect).properties.authentication_method;
        let properties = AuthProperties {
            authentication_method,
            authentication_data: Some(&data),
            ..AuthProperties::default()
        };
        let reason_code = match received {
            Some(_) => ReasonCode::CONTINUE_AUTHENTICATION,
            None => ReasonCode::RE_AUTHENTICATE,
        };
        let auth = Auth { reason_code, properties };
        Ok(self.machine.authenticate(&auth, self.clock.now(), &mut self.out)?)
    }
}

impl Subscribed {
    pub(crate) fn new(
        version: Version,
        subscriptions: &[Subscription<'_>],
        properties: SubscribeProperties<'_>,
        sender: mpsc::Sender<Message>,
        waiter: Option<oneshot::Sender<RequestResult>>,
    ) -> Result<Self, RequestError> {
        let packet_identifier = PacketIdentifier::new(1).ok_or(RequestError::Closed)?;
        let packet = Subscribe { properties, ..Subscribe::new(packet_identifier, subscriptions) };
        let packet = OwnedPacket::new(&packet.into(), version)?;
        let filters = subscriptions.iter();
        let filters = filters.map(|one| Ok((Filter::new(one.topic_filter, version)?, None)));
        let filters = filters.collect::<Result<_, EncodeError>>()?;
        let asked = Vec::new();
        Ok(Self { packet, filters, asked, sender, progress: Progress::Due, waiter })
    }

    /// Whether the message is for this stream. A server can send a message once for each
    /// subscription that matches; the identifiers then tell for which.
    fn takes(
        &self,
        topic: Text<'_>,
        identifiers: Option<Sequence<'_, SubscriptionIdentifier>>,
    ) -> bool {
        let is_named = |own: Option<_>| match (identifiers, own) {
            (Some(identifiers), Some(own)) => identifiers.iter().any(|one| one == own),
            _ => true,
        };
        let mut filters = self.filters.iter();
        filters.any(|(filter, own)| is_named(*own) && filter.as_topic_filter().matches(topic))
    }
}

/// Sends a message to a stream, or keeps it until the stream has room.
fn offer(
    sender: &mpsc::Sender<Message>,
    message: Message,
    overflow: &mut VecDeque<(mpsc::Sender<Message>, Message)>,
) {
    match sender.try_send(message) {
        Ok(()) => {}
        Err(mpsc::error::TrySendError::Full(message)) => {
            overflow.push_back((sender.clone(), message));
        }
        Err(mpsc::error::TrySendError::Closed(_)) => {}
    }
}

fn connect_of(packet: &OwnedPacket) -> Connect<'_> {
    match packet.decode() {
        Packet::Connect(connect) => connect,
        _ => Connect::new(Version::V5_0, ""),
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("connection", &self.connection).finish_non_exhaustive()
    }
}
