//! The broker, and how it wakes the tasks around it.

use crate::access::{Credentials, Decision};
use crate::bridge;
use crate::clock::UnixClock;
#[cfg(feature = "cluster")]
use crate::cluster::{OwnNode, can_have_session, will_of};
use crate::connection::Spare;
use crate::figures::{self, Counters, Family};
use crate::journal::Journal;
use crate::limits::{Limit, Place, Places};
use crate::settings::Settings;
use crate::tls::ClientCertificate;
use mqtt_sansio::Instant;
use mqtt_sansio::broker::{
    Action, Admission, Broker, CloseCause, ConnectionId, Question, QuestionId,
};
#[cfg(feature = "cluster")]
use mqtt_sansio::codec::OwnedPacket;
use mqtt_sansio::codec::{ConnackProperties, Disconnect, Packet, ReasonCode, Version};
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
#[cfg(feature = "cluster")]
use std::cell::OnceCell;
use std::cell::{Cell, Ref, RefCell};
use std::mem;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{spawn_blocking, spawn_local, yield_now};
use tokio::time::{sleep, sleep_until};
use tracing::{debug, info, warn};

/// The time between two reports of dropped messages.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// The broker and what belongs to it. The broker is never borrowed across an `await`.
pub(crate) struct Host {
    broker: RefCell<Broker>,
    clock: UnixClock,
    pub(crate) journal: Journal,
    pub(crate) links: RefCell<FxHashMap<ConnectionId, Box<Link>>>,
    /// The connection whose task calls the broker.
    current: Cell<Option<ConnectionId>>,
    /// The broker's next deadline has moved.
    timer_moved: Notify,
    /// The settings of all listeners, each once.
    settings: Vec<Rc<Settings>>,
    /// The limits of the program as a whole.
    pub(crate) limit: Rc<Limit>,
    pub(crate) places: Rc<Places>,
    pub(crate) counters: RefCell<Counters>,
    pub(crate) bridges: RefCell<Vec<Rc<bridge::Figures>>>,
    /// The drops that are logged already, by cause.
    reported: Cell<[u64; 7]>,
    /// Runs handshakes of TLS on another thread.
    pub(crate) handshakes: Handle,
    /// The input of the connection that reads at the moment.
    pub(crate) buffer: RefCell<Box<[u8]>>,
    /// A buffer for the output of the next connection that has some.
    pub(crate) spare: Spare,
    /// The node, if the clients are shared with other brokers.
    #[cfg(feature = "cluster")]
    pub(crate) cluster: OnceCell<Rc<OwnNode>>,
}

/// A connection, as the host knows it.
pub(crate) struct Link {
    place: Place,
    certificate: Option<Box<ClientCertificate>>,
    settings: Rc<Settings>,
    /// The transport is open only to refuse the client with this reason code.
    refusal: Option<ReasonCode>,
    opened_at: Instant,
    /// Wakes the task of the connection, which then asks the broker what to do.
    waker: Waker,
    client: Client,
}

/// A client, as it describes itself in CONNECT.
#[derive(Default)]
struct Client {
    /// Empty before CONNECT, and until the broker has assigned one.
    identifier: Box<str>,
    user: Option<Box<str>>,
    /// `None` before CONNECT.
    version: Option<Version>,
}

/// Logs an event of a connection: its level, the connection, further fields, and the text.
macro_rules! event {
    ($level:ident, $link:expr, $($rest:tt)*) => {{
        let Link { place, client: Client { identifier, user, version }, .. } = $link;
        $level!(
            address = %place.address,
            client = (!identifier.is_empty()).then_some(&**identifier),
            user = user.as_deref(),
            version = version.map(tracing::field::display),
            $($rest)*
        )
    }};
}

impl Link {
    pub(crate) fn new(
        place: Place,
        certificate: Option<Box<ClientCertificate>>,
        settings: Rc<Settings>,
        refusal: Option<ReasonCode>,
    ) -> Self {
        let (opened_at, waker) = (Instant::default(), Waker::noop().clone());
        let client = Client::default();
        Self { place, certificate, settings, refusal, opened_at, waker, client }
    }

    /// Returns what `broker ctl` shows.
    pub(crate) fn describe(&self, now: Instant) -> Value {
        let Self { place, client: Client { user, version, .. }, opened_at, .. } = self;
        json!({
            "address": place.address.to_string(),
            "user": user,
            "version": version.map(|version| version.to_string()),
            "seconds": (now - *opened_at).as_secs(),
        })
    }
}

impl Host {
    /// Creates a host whose first settings are those of the program.
    pub(crate) fn new(
        broker: Broker,
        clock: UnixClock,
        settings: Vec<Rc<Settings>>,
        places: Places,
        limit: Rc<Limit>,
        handshakes: Handle,
    ) -> Self {
        Self {
            broker: RefCell::new(broker),
            clock,
            journal: Journal::default(),
            links: RefCell::default(),
            current: Cell::default(),
            timer_moved: Notify::new(),
            settings,
            limit,
            places: Rc::new(places),
            counters: RefCell::default(),
            bridges: RefCell::default(),
            reported: Cell::default(),
            handshakes,
            buffer: RefCell::new(vec![0; 64 * 1024].into()),
            spare: Cell::default(),
            #[cfg(feature = "cluster")]
            cluster: OnceCell::new(),
        }
    }

    /// Calls the broker, and obeys the actions that this causes.
    pub(crate) fn with_broker<T>(
        self: &Rc<Self>,
        call: impl FnOnce(&mut Broker, Instant) -> T,
    ) -> T {
        let now = self.clock.now();
        let broker = &mut *self.broker.borrow_mut();
        let before = broker.poll_timeout();
        let result = call(broker, now);
        while let Some(action) = broker.poll_action() {
            match action {
                Action::Ask(question, content) => self.answer(broker, question, content, now),
                Action::Ready(id) | Action::Closed(id, _) => self.wake(id),
                other => warn!(?other, "expected an action that this host knows"),
            }
        }
        if broker.poll_timeout() != before {
            self.timer_moved.notify_one();
        }
        #[cfg(feature = "cluster")]
        if let Some(node) = self.cluster.get() {
            node.pump(broker);
        }
        self.journal.look(broker);
        result
    }

    /// Returns the time by the clock of the broker.
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Calls the broker for a connection, which looks afterwards itself at what has changed for it.
    pub(crate) fn with_broker_for<T>(
        self: &Rc<Self>,
        id: ConnectionId,
        call: impl FnOnce(&mut Broker, Instant) -> T,
    ) -> T {
        self.current.set(Some(id));
        let result = self.with_broker(call);
        self.current.set(None);
        result
    }

    /// Returns the broker, to look at.
    pub(crate) fn broker(&self) -> Ref<'_, Broker> {
        self.broker.borrow()
    }

    pub(crate) fn wake(&self, id: ConnectionId) {
        if self.current.get() != Some(id) {
            if let Some(link) = self.links.borrow().get(&id) {
                link.waker.wake_by_ref();
            }
        }
    }

    /// Returns the time in which a packet of a connection must arrive as a whole.
    pub(crate) fn packet_timeout(&self, id: ConnectionId) -> Duration {
        let links = self.links.borrow();
        links.get(&id).map_or(Duration::ZERO, |link| link.settings.packet_timeout)
    }

    /// Sets what wakes the task of a connection.
    pub(crate) fn set_waker(&self, id: ConnectionId, waker: &Waker) {
        if let Some(link) = self.links.borrow_mut().get_mut(&id) {
            link.waker.clone_from(waker);
        }
    }

    /// Answers a question of the broker now, or lets a task answer it.
    fn answer(
        self: &Rc<Self>,
        broker: &mut Broker,
        question: QuestionId,
        content: Question,
        now: Instant,
    ) {
        let id = question.connection();
        let mut links = self.links.borrow_mut();
        let Some(link) = links.get_mut(&id) else { return };
        let Question::Connect(connect) = &content else {
            // Only a client with enhanced authentication asks, and none is accepted.
            let method = ReasonCode::BAD_AUTHENTICATION_METHOD;
            let _ = broker.refuse(question, method, ConnackProperties::default(), now);
            return;
        };
        let Packet::Connect(connect) = connect.decode() else { return };
        let user = connect.user_name.map(|name| name.to_str().into());
        let proven = link.certificate.as_ref().and_then(|certificate| certificate.user.clone());
        link.client = Client {
            identifier: connect.client_identifier.to_str().into(),
            user: proven.clone().or(user),
            version: Some(connect.version),
        };
        if let Some(reason_code) = link.refusal {
            return self.refuse(broker, question, link, reason_code, now);
        }
        let user = link.client.user.as_deref();
        let (address, is_proven) = (link.place.address.ip(), proven.is_some());
        let settings = link.settings.clone();
        let access = settings.access.borrow();
        match access.decide(address, user, connect.password, is_proven) {
            Decision::Accept => self.accept(broker, question, link, now),
            Decision::Refuse(reason_code) => self.refuse(broker, question, link, reason_code, now),
            Decision::Verify(wait, credentials) => {
                spawn_local(self.clone().verify(question, wait, credentials));
            }
        }
    }

    /// Answers a CONNECT as soon as its password is checked.
    async fn verify(
        self: Rc<Self>,
        question: QuestionId,
        wait: Duration,
        credentials: Credentials,
    ) {
        let id = question.connection();
        sleep(wait).await;
        let is_open = |broker: &Broker| broker.question(id).is_some_and(|(id, _)| id == question);
        if !is_open(&self.broker.borrow()) {
            return;
        }
        let check = spawn_blocking(move || credentials.are_correct());
        let is_correct = check.await.unwrap_or(false);
        self.with_broker(|broker, now| {
            let mut links = self.links.borrow_mut();
            let Some(link) = links.get_mut(&id).filter(|_| is_open(broker)) else { return };
            // The user can have been removed meanwhile.
            let settings = link.settings.clone();
            let access = settings.access.borrow();
            if is_correct && access.still_allows(link.client.user.as_deref(), false) {
                self.accept(broker, question, link, now);
            } else {
                access.failed(link.place.address.ip());
                let reason_code = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
                self.refuse(broker, question, link, reason_code, now);
            }
        });
    }

    /// Accepts a client, once this node has its session.
    fn accept(
        self: &Rc<Self>,
        broker: &mut Broker,
        question: QuestionId,
        link: &mut Link,
        now: Instant,
    ) {
        #[cfg(feature = "cluster")]
        if let Some(node) = self.cluster.get() {
            if node.is_cut_off() {
                return self.refuse(broker, question, link, ReasonCode::SERVER_UNAVAILABLE, now);
            }
            if let Some((_, Question::Connect(connect))) = broker.question(question.connection()) {
                spawn_local(self.clone().claim(node.clone(), question, connect.clone()));
                return;
            }
        }
        self.admit(broker, question, link, now);
    }

    /// Accepts a client when this node has its session.
    #[cfg(feature = "cluster")]
    async fn claim(self: Rc<Self>, node: Rc<OwnNode>, question: QuestionId, connect: OwnedPacket) {
        let Packet::Connect(connect) = connect.decode() else { return };
        let client = connect.client_identifier.to_str();
        let refusal = if !can_have_session(client) {
            Some(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID)
        } else if client.is_empty() {
            None
        } else {
            let claimed = node.claim(client, will_of(&connect)).await;
            claimed.err().map(|_| ReasonCode::SERVER_UNAVAILABLE)
        };
        let id = question.connection();
        self.with_broker(|broker, now| {
            let mut links = self.links.borrow_mut();
            let is_open = broker.question(id).is_some_and(|(open, _)| open == question);
            let link = links.get_mut(&id).filter(|_| is_open);
            match (link, refusal) {
                (Some(link), None) => {
                    self.admit(broker, question, link, now);
                    if client.is_empty() {
                        node.note_assigned(&link.client.identifier, will_of(&connect));
                    }
                }
                (Some(link), Some(reason_code)) => {
                    self.refuse(broker, question, link, reason_code, now);
                }
                (None, _) => node.connection_ended(client),
            }
        });
    }

    fn admit(&self, broker: &mut Broker, question: QuestionId, link: &mut Link, now: Instant) {
        let Link { settings, client, .. } = link;
        let (id, access) = (question.connection(), settings.access.borrow());
        let grants = access.grants(client.user.as_deref(), &client.identifier);
        let admission = Admission { grants, rates: settings.rates, ..Admission::default() };
        if let Err(error) = broker.accept(question, admission, now) {
            return event!(warn, link, %error, "cannot accept the client");
        }
        if let Some(closed) = broker.closed(id) {
            // The will is not allowed, for example.
            let cause = closed.cause.to_string();
            if let CloseCause::Refused(reason_code) = closed.cause {
                self.counters.borrow_mut().refused(reason_code);
            }
            return event!(warn, link, reason = cause, "client refused");
        }
        if client.identifier.is_empty() {
            // The broker has assigned one, which patterns with `%c` stand for as well.
            client.identifier = broker.client_identifier(id).unwrap_or_default().into();
            let grants = access.grants(client.user.as_deref(), &client.identifier);
            broker.set_grants(id, grants, now);
        }
        self.counters.borrow_mut().accepted += 1;
        event!(info, link, "client connected");
    }

    fn refuse(
        &self,
        broker: &mut Broker,
        question: QuestionId,
        link: &Link,
        reason_code: ReasonCode,
        now: Instant,
    ) {
        self.counters.borrow_mut().refused(reason_code);
        event!(warn, link, reason = reason_code.to_string(), "client refused");
        let properties = ConnackProperties::default();
        if let Err(error) = broker.refuse(question, reason_code, properties, now) {
            event!(warn, link, %error, "cannot refuse the client");
        }
    }

    /// Reads users, rights and certificates again. Clients stay connected, with their new rights,
    /// if they could connect again.
    pub(crate) fn reload(self: &Rc<Self>) {
        for settings in &self.settings {
            settings.reload();
        }
        self.with_broker(|broker, now| {
            for (id, link) in self.links.borrow().iter() {
                let Link { certificate, client, settings, .. } = &**link;
                let is_connected = broker.question(*id).is_none() && client.version.is_some();
                if !is_connected {
                    continue;
                }
                let (user, access) = (client.user.as_deref(), settings.access.borrow());
                let (certificates, certificate) =
                    (settings.certificates.borrow(), certificate.as_ref());
                let has_valid_certificate = (certificates.as_ref().zip(certificate))
                    .is_none_or(|(all, certificate)| all.still_allow(&certificate.chain));
                let is_proven = certificate.is_some_and(|certificate| certificate.user.is_some());
                if has_valid_certificate && access.still_allows(user, is_proven) {
                    broker.set_grants(*id, access.grants(user, &client.identifier), now);
                } else {
                    let disconnect = Disconnect::new(ReasonCode::NOT_AUTHORIZED);
                    broker.disconnect(*id, &disconnect, now);
                }
            }
        });
    }

    // ---- figures ----

    /// Returns all figures.
    pub(crate) fn families(&self) -> Vec<Family> {
        let (stats, bridges) = (self.broker.borrow().stats(), self.bridges.borrow());
        let families = figures::families(&stats, &self.counters.borrow(), &bridges);
        #[cfg(feature = "cluster")]
        let families = {
            let node = self.cluster.get().map(|node| figures::of_node(node));
            families.into_iter().chain(node.unwrap_or_default()).collect()
        };
        families
    }

    /// Logs dropped messages and unanswered connections for ever, with one line for each cause in
    /// each interval.
    pub(crate) async fn run_reports(self: Rc<Self>) {
        loop {
            self.report_drops();
            sleep(REPORT_INTERVAL).await;
        }
    }

    /// Logs dropped messages and unanswered connections since the last report.
    pub(crate) fn report_drops(&self) {
        let dropped = figures::dropped(&self.broker.borrow().stats().dropped);
        let unanswered = ("beyond_limit", self.counters.borrow().closed_unanswered);
        let mut reported = self.reported.get();
        for ((cause, count), reported) in dropped.into_iter().chain([unanswered]).zip(&mut reported)
        {
            match (cause, count - mem::replace(reported, count)) {
                (_, 0) => {}
                ("beyond_limit", count) => warn!(count, "connections closed without an answer"),
                (cause, count) => warn!(cause, count, "messages dropped"),
            }
        }
        self.reported.set(reported);
    }

    /// Runs the timer of the broker for ever.
    pub(crate) async fn run_timer(self: Rc<Self>) {
        loop {
            // Work that was put off is due at once. The connections have their turn before it.
            yield_now().await;
            let due = self.broker.borrow().poll_timeout();
            let deadline = self.clock.to_std(due.unwrap_or_default());
            tokio::select! {
                () = async { sleep_until(deadline.into()).await }, if due.is_some() => {
                    self.with_broker(|broker, now| broker.handle_timeout(now));
                }
                () = self.timer_moved.notified() => {}
            }
        }
    }

    // ---- connections ----

    /// Opens a connection of the broker.
    pub(crate) fn open(self: &Rc<Self>, mut link: Box<Link>) -> ConnectionId {
        let id = self.with_broker(|broker, now| {
            link.opened_at = now;
            broker.open_with(&link.settings.server, now)
        });
        self.links.borrow_mut().insert(id, link);
        id
    }

    /// Removes a connection whose transport is closed.
    pub(crate) fn remove(self: &Rc<Self>, id: ConnectionId) {
        let link = self.links.borrow_mut().remove(&id);
        let closed = self.with_broker(|broker, now| broker.connection_lost(id, now));
        if let (Some(closed), Some(link)) = (closed, link) {
            #[cfg(feature = "cluster")]
            if let Some(node) = self.cluster.get() {
                node.connection_ended(&link.client.identifier);
            }
            self.counters.borrow_mut().ended(&closed.cause);
            let source = std::error::Error::source(&closed.cause).map(ToString::to_string);
            let cause = [Some(closed.cause.to_string()), source];
            let cause = cause.into_iter().flatten().collect::<Vec<_>>().join(": ");
            match closed.cause {
                // There is a line for it already.
                CloseCause::Refused(_) => event!(debug, &*link, cause, "connection ended"),
                _ => event!(info, &*link, cause, "connection ended"),
            }
        }
    }

    /// Ends all connections.
    pub(crate) fn shut_down(self: &Rc<Self>) {
        let disconnect = Disconnect::new(ReasonCode::SERVER_SHUTTING_DOWN);
        let ids: Vec<_> = self.links.borrow().keys().copied().collect();
        self.with_broker(|broker, now| {
            for id in ids {
                broker.disconnect(id, &disconnect, now);
            }
        });
    }
}
