//! The broker, which all threads share, and how it wakes the tasks around it.

use crate::access::{Credentials, Decision};
use crate::bridge;
use crate::clock::UnixClock;
#[cfg(feature = "cluster")]
use crate::cluster::{OwnNode, can_have_session, will_of};
use crate::connection::Spare;
use crate::figures::{self, Counters, Family};
use crate::journal::Journal;
use crate::limits::{Address, Limit, Place, Places};
use crate::listener::{Accepted, serve_accepted};
use crate::lock::Lock;
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
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::{spawn_blocking, spawn_local, yield_now};
use tokio::time::{sleep, sleep_until};
use tracing::{debug, error, info, warn};

/// The time between two reports of dropped messages.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// The state that the threads share, which each locks for a call of the broker. Of the work for a
/// message most is in the sockets, which each thread has for itself: see `README.md`, "Threads".
pub(crate) struct State {
    pub(crate) broker: Broker,
    pub(crate) links: FxHashMap<ConnectionId, Box<Link>>,
    /// The time for which the timer waits.
    timer: Option<Instant>,
    is_shutting_down: bool,
}

impl State {
    /// Returns the thread of the connection that a client has.
    fn thread_of(&self, client: &str) -> Option<u16> {
        let id = self.broker.client(client)?.connection?;
        Some(self.links.get(&id)?.place.thread)
    }

    /// Returns the time in which a packet of a connection must arrive as a whole.
    pub(crate) fn packet_timeout(&self, id: ConnectionId) -> Duration {
        self.links.get(&id).map_or(Duration::ZERO, |link| link.settings.packet_timeout)
    }
}

/// The broker and what belongs to it, for all threads.
pub(crate) struct Shared {
    state: Lock<State>,
    clock: UnixClock,
    pub(crate) journal: Journal,
    /// The broker's next deadline is earlier than the timer knows.
    timer_moved: Notify,
    /// The settings of all listeners, each once.
    settings: Vec<Arc<Settings>>,
    /// The limits of the program as a whole.
    pub(crate) limit: Arc<Limit>,
    pub(crate) places: Arc<Places>,
    pub(crate) counters: Lock<Counters>,
    /// Runs handshakes of TLS, and checks passwords, on other threads.
    pub(crate) helpers: Handle,
    threads: Vec<Thread>,
}

/// A thread, for the others.
struct Thread {
    errands: UnboundedSender<Errand>,
    /// The batches of tasks that others have asked it to wake, and that have not had their turn.
    behind: AtomicUsize,
}

/// A thread is asked for something by another one.
pub(crate) enum Errand {
    /// Serve a connection.
    Serve(Accepted),
    /// Wake tasks, all at once.
    Wake(Vec<Waker>),
    /// Answer when the connections that can be served now have had their turn.
    Turn(oneshot::Sender<()>),
}

impl Shared {
    /// Creates what is shared, with the settings of the program first.
    pub(crate) fn new(
        broker: Broker,
        clock: UnixClock,
        settings: Vec<Arc<Settings>>,
        places: Places,
        limit: Arc<Limit>,
        helpers: Handle,
        threads: Vec<UnboundedSender<Errand>>,
    ) -> Self {
        let links = FxHashMap::default();
        let thread = |errands| Thread { errands, behind: 0.into() };
        let threads = threads.into_iter().map(thread).collect();
        Self {
            state: Lock::new(State { broker, links, timer: None, is_shutting_down: false }),
            clock,
            journal: Journal::default(),
            timer_moved: Notify::new(),
            settings,
            limit,
            places: Arc::new(places),
            counters: Lock::default(),
            helpers,
            threads,
        }
    }

    /// Locks the state, to look at it. No lock is held across an `await`, nor during another call.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Asks a thread for something.
    pub(crate) fn ask(&self, thread: u16, errand: Errand) {
        if let Some(thread) = self.threads.get(usize::from(thread)) {
            let _ = thread.errands.send(errand);
        }
    }
}

/// One thread with its connections. The first thread also has the listeners and all else.
pub(crate) struct Host {
    pub(crate) shared: Arc<Shared>,
    /// The number of the thread.
    thread: u16,
    /// The connection whose task calls the broker.
    current: Cell<Option<ConnectionId>>,
    /// The wakers of tasks on each other thread, on their way there.
    woken: RefCell<Box<[Vec<Waker>]>>,
    /// Wakes the task that brings them there.
    postman: RefCell<Waker>,
    pub(crate) bridges: RefCell<Vec<Rc<bridge::Figures>>>,
    /// The drops that are logged already, by cause.
    reported: Cell<[u64; 7]>,
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
    settings: Arc<Settings>,
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
        settings: Arc<Settings>,
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
    pub(crate) fn new(shared: Arc<Shared>, thread: u16) -> Self {
        let woken = shared.threads.iter().map(|_| Vec::new()).collect();
        Self {
            shared,
            thread,
            current: Cell::default(),
            woken: RefCell::new(woken),
            postman: RefCell::new(Waker::noop().clone()),
            bridges: RefCell::default(),
            reported: Cell::default(),
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
        self.with_state(|state, now| call(&mut state.broker, now))
    }

    /// Calls the broker, with the connections at hand.
    pub(crate) fn with_state<T>(self: &Rc<Self>, call: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.shared.lock();
        // With the lock, so that the broker's time does not go back.
        let now = self.now();
        let result = call(&mut state, now);
        self.act(&mut state, now);
        self.end_call(&mut state);
        result
    }

    /// Calls the broker for a connection until the actions that this causes change nothing for the
    /// connection.
    pub(crate) fn with_state_for<T>(
        self: &Rc<Self>,
        id: ConnectionId,
        mut call: impl FnMut(&mut State, Instant) -> T,
        is_settled: impl Fn(&Broker, &T) -> bool,
    ) -> T {
        let mut state = self.shared.lock();
        let now = self.now();
        self.current.set(Some(id));
        let result = loop {
            let result = call(&mut state, now);
            self.act(&mut state, now);
            if is_settled(&state.broker, &result) {
                break result;
            }
        };
        self.current.set(None);
        self.end_call(&mut state);
        result
    }

    /// Does what a call of the broker has asked for.
    fn act(self: &Rc<Self>, state: &mut State, now: Instant) {
        while let Some(action) = state.broker.poll_action() {
            match action {
                Action::Ask(question, content) => self.answer(state, question, content, now),
                Action::Ready(id) | Action::Closed(id, _) => self.wake(&state.links, id),
                other => warn!(?other, "expected an action that this host knows"),
            }
        }
    }

    /// Wakes the task of a connection. If it is on another thread, the tasks that can run here now
    /// have their turn first: the other thread, which would wait for the lock, gets more at once.
    pub(crate) fn wake(&self, links: &FxHashMap<ConnectionId, Box<Link>>, id: ConnectionId) {
        if self.current.get() == Some(id) {
            return;
        }
        let Some(Link { place, waker, .. }) = links.get(&id).map(|link| &**link) else { return };
        if place.thread == self.thread {
            return waker.wake_by_ref();
        }
        if let Some(woken) = self.woken.borrow_mut().get_mut(usize::from(place.thread)) {
            if woken.is_empty() {
                self.postman.borrow().wake_by_ref();
            }
            // One subscriber often has messages of many publishers.
            if woken.last().is_none_or(|last| !last.will_wake(waker)) {
                woken.push(waker.clone());
            }
        }
    }

    /// Wakes tasks on other threads for ever.
    async fn run_postman(self: Rc<Self>) {
        poll_fn(|context| {
            self.postman.borrow_mut().clone_from(context.waker());
            self.wake_others();
            Poll::<()>::Pending
        })
        .await;
    }

    /// Asks each other thread to wake its tasks that have something to do.
    fn wake_others(&self) {
        for (woken, thread) in self.woken.borrow_mut().iter_mut().zip(&self.shared.threads) {
            if !woken.is_empty() {
                thread.behind.fetch_add(1, Ordering::AcqRel);
                let _ = thread.errands.send(Errand::Wake(mem::take(woken)));
            }
        }
    }

    fn end_call(&self, state: &mut State) {
        let State { broker, timer, .. } = state;
        if let Some(due) = broker.poll_timeout() {
            if timer.is_none_or(|timer| due < timer) {
                *timer = Some(due);
                self.shared.timer_moved.notify_one();
            }
        }
        #[cfg(feature = "cluster")]
        if let Some(node) = self.cluster.get() {
            node.pump(broker);
        }
        self.shared.journal.look(broker);
    }

    /// Returns the time by the clock of the broker.
    pub(crate) fn now(&self) -> Instant {
        self.shared.clock.now()
    }

    /// Sets what wakes the task of a connection.
    pub(crate) fn set_waker(&self, id: ConnectionId, waker: &Waker) {
        if let Some(link) = self.shared.lock().links.get_mut(&id) {
            link.waker.clone_from(waker);
        }
    }

    /// Returns a place on this thread for a transport that the program itself opens, if there is
    /// one.
    pub(crate) fn take_place(&self, address: Address) -> Option<Place> {
        self.shared.places.take_on(self.thread, address)
    }

    /// Answers a question of the broker now, or lets a task answer it.
    fn answer(
        self: &Rc<Self>,
        state: &mut State,
        question: QuestionId,
        content: Question,
        now: Instant,
    ) {
        let id = question.connection();
        let State { broker, links, .. } = &mut *state;
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
        let decision =
            link.settings.access.lock().decide(address, user, connect.password, is_proven);
        match decision {
            Decision::Accept => self.accept(state, question, now),
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
        if !is_open(&self.shared.lock().broker, question) {
            return;
        }
        let check = self.shared.helpers.spawn_blocking(move || credentials.are_correct());
        let is_correct = check.await.unwrap_or(false);
        self.with_state(|state, now| {
            let State { broker, links, .. } = &mut *state;
            let link = links.get_mut(&id).filter(|_| is_open(broker, question));
            let Some(link) = link else { return };
            let user = link.client.user.as_deref();
            // The user can have been removed meanwhile.
            if is_correct && link.settings.access.lock().still_allows(user, false) {
                self.accept(state, question, now);
            } else {
                link.settings.access.lock().failed(link.place.address.ip());
                let reason_code = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
                self.refuse(broker, question, link, reason_code, now);
            }
        });
    }

    /// Accepts a client, once this node has its session, and once what the client sent before is
    /// read.
    fn accept(self: &Rc<Self>, state: &mut State, question: QuestionId, now: Instant) {
        let id = question.connection();
        let client = state.links.get(&id).map_or("", |link| &link.client.identifier);
        let thread = state.thread_of(client);
        let State { broker, links, .. } = state;
        let Some(link) = links.get_mut(&id) else { return };
        #[cfg(feature = "cluster")]
        if let Some(node) = self.cluster.get() {
            if node.is_cut_off() {
                return self.refuse(broker, question, link, ReasonCode::SERVER_UNAVAILABLE, now);
            }
            if let Some((_, Question::Connect(connect))) = broker.question(id) {
                spawn_local(self.clone().claim(node.clone(), question, connect.clone()));
                return;
            }
        }
        match thread.filter(|thread| *thread != self.thread) {
            Some(thread) => drop(spawn_local(self.clone().take_over(question, thread))),
            None => self.admit(broker, question, link, now),
        }
    }

    /// Accepts a client that has a connection on another thread already, when that thread has read
    /// what has arrived there: perhaps a last message and a DISCONNECT. One thread alone reads in
    /// the order of arrival.
    async fn take_over(self: Rc<Self>, question: QuestionId, thread: u16) {
        let _ = self.turn_of(thread).await;
        let id = question.connection();
        self.with_state(|State { broker, links, .. }, now| {
            if let Some(link) = links.get_mut(&id).filter(|_| is_open(broker, question)) {
                self.admit(broker, question, link, now);
            }
        });
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
            let waits = || is_open(&self.shared.lock().broker, question);
            let claimed = node.claim(client, will_of(&connect), waits).await;
            claimed.err().map(|_| ReasonCode::SERVER_UNAVAILABLE)
        };
        let id = question.connection();
        self.with_state(|State { broker, links, .. }, now| {
            let link = links.get_mut(&id).filter(|_| is_open(broker, question));
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
        let (id, access) = (question.connection(), settings.access.lock());
        let grants = access.grants(client.user.as_deref(), &client.identifier);
        let admission = Admission { grants, rates: settings.rates, ..Admission::default() };
        if let Err(error) = broker.accept(question, admission, now) {
            return event!(warn, link, %error, "cannot accept the client");
        }
        if let Some(closed) = broker.closed(id) {
            // The will is not allowed, for example.
            let cause = closed.cause.to_string();
            if let CloseCause::Refused(reason_code) = closed.cause {
                self.shared.counters.lock().refused(reason_code);
            }
            return event!(warn, link, reason = cause, "client refused");
        }
        if client.identifier.is_empty() {
            // The broker has assigned one, which patterns with `%c` stand for as well.
            client.identifier = broker.client_identifier(id).unwrap_or_default().into();
            let grants = access.grants(client.user.as_deref(), &client.identifier);
            broker.set_grants(id, grants, now);
        }
        self.shared.counters.lock().accepted += 1;
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
        self.shared.counters.lock().refused(reason_code);
        event!(warn, link, reason = reason_code.to_string(), "client refused");
        let properties = ConnackProperties::default();
        if let Err(error) = broker.refuse(question, reason_code, properties, now) {
            event!(warn, link, %error, "cannot refuse the client");
        }
    }

    /// Reads users, rights and certificates again. Clients stay connected, with their new rights,
    /// if they could connect again.
    pub(crate) async fn reload(self: &Rc<Self>) {
        let mut reloaded = Vec::new();
        for settings in self.shared.settings.clone() {
            // A slow disk must not hold this thread up.
            match spawn_blocking(move || settings.reload()).await {
                Ok(all) => reloaded.extend(all),
                Err(error) => error!(%error, "the files were not read"),
            }
        }
        self.with_state(|State { broker, links, .. }, now| {
            for (id, link) in &*links {
                let Link { certificate, client, settings, .. } = &**link;
                let is_connected = broker.question(*id).is_none() && client.version.is_some();
                if !is_connected {
                    continue;
                }
                let (user, access) = (client.user.as_deref(), settings.access.lock());
                let (certificates, certificate) =
                    (settings.certificates.lock(), certificate.as_ref());
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
        for (what, result) in reloaded {
            match result {
                Ok(()) => info!("reloaded the {what}"),
                Err(error) => warn!(error = format!("{error:#}"), "the {what} stay as they were"),
            }
        }
    }

    // ---- figures ----

    /// Returns all figures.
    pub(crate) fn families(&self) -> Vec<Family> {
        let (stats, bridges) = (self.shared.lock().broker.stats(), self.bridges.borrow());
        let families = figures::families(&stats, &self.shared.counters.lock(), &bridges);
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
        let dropped = figures::dropped(&self.shared.lock().broker.stats().dropped);
        let unanswered = ("beyond_limit", self.shared.counters.lock().closed_unanswered);
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
            let due = {
                let mut state = self.shared.lock();
                state.timer = state.broker.poll_timeout();
                state.timer
            };
            if due.is_some_and(|due| due <= self.now()) {
                self.with_broker(|broker, now| broker.handle_timeout(now));
                continue;
            }
            let deadline = self.shared.clock.to_std(due.unwrap_or_default());
            tokio::select! {
                () = async { sleep_until(deadline.into()).await }, if due.is_some() => {}
                () = self.shared.timer_moved.notified() => {}
            }
        }
    }

    // ---- connections ----

    /// Starts the tasks that connect this thread with others.
    pub(crate) fn start(self: Rc<Self>, errands: UnboundedReceiver<Errand>) {
        spawn_local(self.clone().run_postman());
        spawn_local(self.run_errands(errands));
    }

    /// Does what this thread is asked for, for ever.
    async fn run_errands(self: Rc<Self>, mut errands: UnboundedReceiver<Errand>) {
        while let Some(errand) = errands.recv().await {
            match errand {
                Errand::Serve(accepted) => serve_accepted(self.clone(), accepted),
                Errand::Wake(wakers) => {
                    wakers.into_iter().for_each(Waker::wake);
                    behind_others().await;
                    if let Some(thread) = self.shared.threads.get(usize::from(self.thread)) {
                        thread.behind.fetch_sub(1, Ordering::AcqRel);
                    }
                }
                Errand::Turn(answer) => {
                    // Tasks with input are woken, and have their turn.
                    yield_now().await;
                    yield_now().await;
                    let _ = answer.send(());
                }
            }
        }
    }

    /// Asks another thread to serve the connections that it can serve now.
    fn turn_of(&self, thread: u16) -> oneshot::Receiver<()> {
        let (answer, answered) = oneshot::channel();
        self.shared.ask(thread, Errand::Turn(answer));
        answered
    }

    /// Returns the other threads whose tasks still have something to write from here.
    pub(crate) fn others_behind(&self) -> Vec<u16> {
        let woken = self.woken.borrow();
        let threads = (0..).zip(self.shared.threads.iter().zip(&*woken));
        let others = threads.filter(|(number, _)| *number != self.thread);
        let is_behind = |(thread, woken): (&Thread, &Vec<Waker>)| {
            !woken.is_empty() || thread.behind.load(Ordering::Acquire) > 0
        };
        others.filter(|(_, other)| is_behind(*other)).map(|(number, _)| number).collect()
    }

    /// Asks the other threads for their turn, if they are behind. One thread alone writes what it
    /// has read before it reads much more: else a client that publishes fast fills the queues of
    /// subscribers that read well.
    pub(crate) fn turn_of_others(&self) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
        let behind = self.others_behind();
        self.wake_others();
        let turns: Vec<_> = behind.into_iter().map(|number| self.turn_of(number)).collect();
        if turns.is_empty() {
            return None;
        }
        Some(Box::pin(async {
            for turn in turns {
                let _ = turn.await;
            }
        }))
    }

    /// Opens a connection of the broker.
    pub(crate) fn open(self: &Rc<Self>, mut link: Box<Link>) -> ConnectionId {
        self.with_state(|state, now| {
            link.opened_at = now;
            let id = state.broker.open_with(&link.settings.server, now);
            state.links.insert(id, link);
            if state.is_shutting_down {
                let disconnect = Disconnect::new(ReasonCode::SERVER_SHUTTING_DOWN);
                state.broker.disconnect(id, &disconnect, now);
            }
            id
        })
    }

    /// Removes a connection whose transport is closed.
    pub(crate) fn remove(self: &Rc<Self>, id: ConnectionId) {
        let (link, closed) = self.with_state(|state, now| {
            (state.links.remove(&id), state.broker.connection_lost(id, now))
        });
        if let (Some(closed), Some(mut link)) = (closed, link) {
            // Before the log has it, because another thread can accept the next client then.
            link.place.leave_limits();
            #[cfg(feature = "cluster")]
            if let Some(node) = self.cluster.get() {
                node.connection_ended(&link.client.identifier);
            }
            self.shared.counters.lock().ended(&closed.cause);
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
        self.with_state(|state, now| {
            state.is_shutting_down = true;
            for id in state.links.keys() {
                state.broker.disconnect(*id, &disconnect, now);
            }
        });
    }
}

/// Lets all tasks run that can run now, but looks for no events of the system.
async fn behind_others() {
    let mut is_behind = false;
    poll_fn(|context| match mem::replace(&mut is_behind, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// Whether the broker still waits for the answer to a question.
pub(crate) fn is_open(broker: &Broker, question: QuestionId) -> bool {
    broker.question(question.connection()).is_some_and(|(open, _)| open == question)
}
