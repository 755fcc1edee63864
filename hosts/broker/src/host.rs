//! The broker, and how it wakes the tasks around it.

use crate::config::Arguments;
use crate::connection::Peer;
use log::{debug, info, warn};
use mqtt_sansio::broker::{Action, Admission, Broker, ConnectionId, Question, QuestionId, Rates};
use mqtt_sansio::codec::{ConnackProperties, Disconnect, Packet, ReasonCode};
use mqtt_sansio::{Clock, Instant};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep_until;

/// The broker and what belongs to it. The broker is never borrowed across an `await`.
pub(crate) struct Host {
    broker: RefCell<Broker>,
    clock: Clock,
    links: RefCell<HashMap<ConnectionId, Link>>,
    /// The broker's next deadline has moved.
    timer_moved: Notify,
    /// A connection has ended.
    ended: Notify,
    rates: Rates,
    pub(crate) maximum_connections: usize,
    pub(crate) packet_timeout: Duration,
    /// The input of the connection that reads at the moment.
    pub(crate) buffer: RefCell<Box<[u8]>>,
}

/// What the host knows about a connection.
pub(crate) struct Link {
    peer: Peer,
    /// Wakes the task of the connection, which then asks the broker what to do.
    waker: Rc<Notify>,
}

impl Link {
    pub(crate) fn new(peer: Peer) -> Self {
        Self { peer, waker: Rc::default() }
    }
}

impl Host {
    pub(crate) fn new(arguments: &Arguments, seed: u128) -> Self {
        let clock = Clock::new();
        Self {
            broker: RefCell::new(Broker::new(arguments.broker_config(), seed, clock.now())),
            clock,
            links: RefCell::default(),
            timer_moved: Notify::new(),
            ended: Notify::new(),
            rates: arguments.rates(),
            maximum_connections: arguments.max_connections,
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
                Action::Ask(question, content) => self.answer(broker, question, &content, now),
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

    fn answer(&self, broker: &mut Broker, question: QuestionId, content: &Question, now: Instant) {
        let Question::Connect(connect) = content else {
            let refused = broker.refuse(
                question,
                ReasonCode::BAD_AUTHENTICATION_METHOD,
                ConnackProperties::default(),
                now,
            );
            debug!("refused {content:?}: {refused:?}");
            return;
        };
        let Packet::Connect(connect) = connect.decode() else { return };
        info!("client {:?} connects with MQTT {}", connect.client_identifier, connect.version);
        let admission = Admission { rates: self.rates, ..Admission::default() };
        if let Err(error) = broker.accept(question, admission, now) {
            warn!("cannot accept a client: {error}");
        }
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

    /// Returns how many connections the broker has.
    pub(crate) fn connections(&self) -> usize {
        self.links.borrow().len()
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
            info!("{}: {closed}", link.peer.name);
        }
        self.ended.notify_one();
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

    /// Waits until there is no connection.
    pub(crate) async fn all_ended(&self) {
        while self.connections() > 0 {
            self.ended.notified().await;
        }
    }
}
