//! The broker, and how it wakes the tasks around it.

use crate::access::{Access, Credentials, Decision};
use crate::config::Arguments;
use crate::connection::Peer;
use crate::tls::Certificates;
use log::{debug, info, warn};
use mqtt_sansio::broker::{
    Action, Admission, Broker, CloseCause, ConnectionId, Question, QuestionId, Rates,
};
use mqtt_sansio::codec::{ConnackProperties, Disconnect, Packet, ReasonCode, Version};
use mqtt_sansio::{Clock, Instant};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{spawn_blocking, spawn_local, yield_now};
use tokio::time::{sleep, sleep_until};
use tokio_rustls::TlsAcceptor;

/// The broker and what belongs to it. The broker is never borrowed across an `await`.
pub(crate) struct Host {
    broker: RefCell<Broker>,
    clock: Clock,
    links: RefCell<HashMap<ConnectionId, Link>>,
    /// The broker's next deadline has moved.
    timer_moved: Notify,
    /// A transport was closed.
    ended: Notify,
    access: RefCell<Access>,
    certificates: RefCell<Option<Certificates>>,
    rates: Rates,
    /// The open transports, with those that the broker does not know yet.
    open: Cell<usize>,
    maximum_open: usize,
    /// The open transports of each address, if they are limited.
    addresses: RefCell<HashMap<IpAddr, usize>>,
    maximum_per_address: Option<NonZeroUsize>,
    pub(crate) certificate_user: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) packet_timeout: Duration,
    /// The input of the connection that reads at the moment.
    pub(crate) buffer: RefCell<Box<[u8]>>,
}

/// The place of an open transport.
pub(crate) struct Place {
    host: Rc<Host>,
    address: Option<IpAddr>,
}

impl Place {
    pub(crate) const fn host(&self) -> &Rc<Host> {
        &self.host
    }

    /// Counts the transport for its address. Returns whether there is room.
    pub(crate) fn count(&mut self, address: Option<IpAddr>) -> bool {
        let Some((address, limit)) = address.zip(self.host.maximum_per_address) else {
            return true;
        };
        let mut addresses = self.host.addresses.borrow_mut();
        let count = addresses.entry(address).or_default();
        let has_room = *count < limit.get();
        if has_room {
            *count += 1;
            self.address = Some(address);
        }
        has_room
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self { host, address } = self;
        host.open.set(host.open.get() - 1);
        host.ended.notify_one();
        if let Some(address) = address {
            let mut addresses = host.addresses.borrow_mut();
            if let Entry::Occupied(mut entry) = addresses.entry(*address) {
                *entry.get_mut() -= 1;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        }
    }
}

/// A connection, as the host knows it.
pub(crate) struct Link {
    peer: Peer,
    /// Wakes the task of the connection, which then asks the broker what to do.
    waker: Rc<Notify>,
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

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.identifier {
            "" => write!(f, "client without identifier")?,
            identifier => write!(f, "client {identifier:?}")?,
        }
        if let Some(user) = &self.user {
            write!(f, " of user {user:?}")?;
        }
        self.version.map_or(Ok(()), |version| write!(f, " with MQTT {version}"))
    }
}

impl Link {
    pub(crate) fn new(peer: Peer) -> Self {
        Self { peer, waker: Rc::default(), client: Client::default() }
    }
}

impl Host {
    pub(crate) fn new(
        arguments: &Arguments,
        access: Access,
        certificates: Option<Certificates>,
        seed: u128,
    ) -> Self {
        let clock = Clock::new();
        Self {
            broker: RefCell::new(Broker::new(arguments.broker_config(), seed, clock.now())),
            clock,
            links: RefCell::default(),
            timer_moved: Notify::new(),
            ended: Notify::new(),
            access: RefCell::new(access),
            certificates: RefCell::new(certificates),
            rates: arguments.rates(),
            open: Cell::new(0),
            maximum_open: arguments.max_connections,
            addresses: RefCell::default(),
            maximum_per_address: arguments.max_connections_per_address,
            certificate_user: arguments.certificate_user,
            connect_timeout: Duration::from_secs(arguments.connect_timeout),
            packet_timeout: Duration::from_secs(arguments.packet_timeout),
            buffer: RefCell::new(vec![0; 64 * 1024].into()),
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
                other => warn!("expected an action that this host knows, found {other:?}"),
            }
        }
        if broker.poll_timeout() != before {
            self.timer_moved.notify_one();
        }
        result
    }

    fn wake(&self, id: ConnectionId) {
        if let Some(link) = self.links.borrow().get(&id) {
            link.waker.notify_one();
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
        link.client = Client {
            identifier: connect.client_identifier.to_str().into(),
            user: link.peer.user.clone().or(user),
            version: Some(connect.version),
        };
        let user = link.client.user.as_deref();
        let (address, is_proven) = (link.peer.address, link.peer.user.is_some());
        match self.access.borrow().decide(address, user, connect.password, is_proven) {
            Decision::Accept => self.accept(broker, question, link, now),
            Decision::Refuse(reason_code) => refuse(broker, question, link, reason_code, now),
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
            if is_correct && self.access.borrow().still_allows(link.client.user.as_deref(), false) {
                self.accept(broker, question, link, now);
            } else {
                self.access.borrow().failed(link.peer.address);
                let reason_code = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
                refuse(broker, question, link, reason_code, now);
            }
        });
    }

    fn accept(&self, broker: &mut Broker, question: QuestionId, link: &mut Link, now: Instant) {
        let Link { peer, client, .. } = link;
        let (id, access) = (question.connection(), self.access.borrow());
        let grants = access.grants(client.user.as_deref(), &client.identifier);
        let admission = Admission { grants, rates: self.rates, ..Admission::default() };
        if let Err(error) = broker.accept(question, admission, now) {
            return warn!("{}: cannot accept {client}: {error}", peer.name);
        }
        if let Some(closed) = broker.closed(id) {
            // The will is not allowed, for example.
            return warn!("{}: refused {client}: {}", peer.name, closed.cause);
        }
        if client.identifier.is_empty() {
            // The broker has assigned one, which patterns with `%c` stand for as well.
            client.identifier = broker.client_identifier(id).unwrap_or_default().into();
            let grants = access.grants(client.user.as_deref(), &client.identifier);
            broker.set_grants(id, grants, now);
        }
        info!("{}: {client} connected", peer.name);
    }

    /// Reads users, rights and certificates again. Clients stay connected, with their new rights,
    /// if their users still exist.
    pub(crate) fn reload(self: &Rc<Self>) {
        self.access.borrow_mut().reload();
        if let Some(certificates) = &mut *self.certificates.borrow_mut() {
            certificates.reload();
        }
        self.with_broker(|broker, now| {
            let access = self.access.borrow();
            for (id, Link { peer, client, .. }) in self.links.borrow().iter() {
                let is_connected = broker.question(*id).is_none() && client.version.is_some();
                if !is_connected {
                    continue;
                }
                let user = client.user.as_deref();
                if access.still_allows(user, peer.user.is_some()) {
                    broker.set_grants(*id, access.grants(user, &client.identifier), now);
                } else {
                    let disconnect = Disconnect::new(ReasonCode::NOT_AUTHORIZED);
                    broker.disconnect(*id, &disconnect, now);
                }
            }
        });
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

    /// Returns how many transports are open.
    pub(crate) fn connections(&self) -> usize {
        self.open.get()
    }

    /// Returns a place for a transport, if there is one.
    pub(crate) fn take_place(self: &Rc<Self>) -> Option<Place> {
        let has_room = self.open.get() < self.maximum_open;
        has_room.then(|| {
            self.open.set(self.open.get() + 1);
            Place { host: self.clone(), address: None }
        })
    }

    /// Returns what accepts TLS connections, if there is a certificate.
    pub(crate) fn tls(&self) -> Option<TlsAcceptor> {
        self.certificates.borrow().as_ref().map(Certificates::acceptor)
    }

    /// Adds a connection. Returns what wakes its task.
    pub(crate) fn add(&self, id: ConnectionId, link: Link) -> Rc<Notify> {
        let waker = link.waker.clone();
        self.links.borrow_mut().insert(id, link);
        waker
    }

    /// Removes a connection whose transport is closed.
    pub(crate) fn remove(self: &Rc<Self>, id: ConnectionId) {
        let link = self.links.borrow_mut().remove(&id);
        let closed = self.with_broker(|broker, now| broker.connection_lost(id, now));
        if let (Some(closed), Some(link)) = (closed, link) {
            match closed.cause {
                // There is a line for it already.
                CloseCause::Refused(_) => debug!("{}: {closed}", link.peer.name),
                _ => info!("{}: {closed}", link.peer.name),
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

    /// Waits until no transport is open.
    pub(crate) async fn all_ended(&self) {
        while self.connections() > 0 {
            self.ended.notified().await;
        }
    }
}

fn refuse(
    broker: &mut Broker,
    question: QuestionId,
    link: &Link,
    reason_code: ReasonCode,
    now: Instant,
) {
    let Link { peer, client, .. } = link;
    warn!("{}: refused {client}: {reason_code}", peer.name);
    if let Err(error) = broker.refuse(question, reason_code, ConnackProperties::default(), now) {
        warn!("{}: cannot refuse {client}: {error}", peer.name);
    }
}
