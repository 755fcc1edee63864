//! The server and its host.

use super::{Count, DOWN, Far, Parked, UP, World, can_be_stored_in_use, payload, topic};
use core::time::Duration;
use mqtt_sansio::codec::{
    AckProperties, ConnackProperties, Connect, Disconnect, PacketType, Publish, ReasonCode, Version,
};
use mqtt_sansio::server::{self};
use mqtt_sansio::session::{CloseCause, Message, Outgoing, Session};
use testkit::watch::{Event, Verdict, ensure, number};

impl World {
    pub(crate) fn server_steps(&mut self, far: &mut Far) -> Verdict {
        loop {
            let received = core::mem::take(&mut far.received);
            let (mut input, mut out) = (&received[..], Vec::new());
            let event = far.machine.handle_input(&mut input, self.now, &mut out).map(Event::Server);
            let (taken, left) = received.split_at(received.len() - input.len());
            far.received = left.to_vec();
            far.watch.goes_on();
            far.watch.step(taken, event.as_ref(), &out)?;
            self.carry(DOWN, &mut far.line, &out)?;
            let Some(event) = event else { break };
            self.on_server_event(far, &event)?;
        }
        if far.accepted { far.watch.rests(far.machine.session().in_flight()) } else { Ok(()) }
    }

    pub(crate) fn on_server_event(&mut self, far: &mut Far, event: &Event<'_>) -> Verdict {
        self.note(|| format!("{event:?}"));
        let Event::Server(action) = event else { return Ok(()) };
        match action {
            server::Action::Connect(connect) => self.server_accepts(far, connect)?,
            server::Action::Message(message) => {
                self.counts(Count::Arrived, true);
                let (number, by_hand) = (
                    number(message.payload).ok_or("a message has no number")?,
                    self.plan.manual[DOWN],
                );
                ensure!(
                    message.topic_name == topic(number),
                    "message {number} has the topic {}",
                    message.topic_name
                );
                self.letters[UP].arrives(number, message.qos, by_hand)?;
                far.tokens.extend(message.token.filter(|_| by_hand).map(|token| (number, token)));
            }
            server::Action::Published(published) => {
                self.ends(DOWN, published.key, &published.outcome)?;
            }
            server::Action::Subscribe(token, request) => {
                let filters = request.subscriptions.iter().count();
                far.requests.push((*token, filters, PacketType::Subscribe));
            }
            server::Action::Unsubscribe(token, request) => {
                let filters = request.topic_filters.iter().count();
                far.requests.push((*token, filters, PacketType::Unsubscribe));
            }
            server::Action::Closed { cause, publish_will } => {
                let normal = matches!(cause, CloseCause::Disconnected(_));
                ensure!(
                    *publish_will == (far.accepted && !normal),
                    "the will after {cause:?}: {publish_will}"
                );
                self.note_close(cause)?;
                far.closed = true;
                far.received.clear();
                if far.accepted {
                    self.park(far);
                }
                self.hang_up(DOWN, &mut far.line);
            }
            _ => {}
        }
        if event.asks() && self.random.percent(70) { self.server_answers(far) } else { Ok(()) }
    }

    /// Keeps the session for the client's next connection.
    pub(crate) fn park(&mut self, far: &mut Far) {
        far.accepted = false;
        far.watch.ends();
        let expiry = far.machine.session_expiry().to_seconds();
        let until = (expiry < u32::MAX).then(|| self.now + Duration::from_secs(expiry.into()));
        let watch = core::mem::replace(&mut far.watch, self.plan.watch(DOWN));
        self.parked = Some(Parked { session: far.machine.take_session(), watch, until });
        self.expire_parked();
    }

    pub(crate) fn expire_parked(&mut self) {
        if self
            .parked
            .take_if(|parked| parked.until.is_some_and(|until| until <= self.now))
            .is_some()
        {
            self.note(|| "the server drops the session".into());
            // If the client does not learn of it, because the next CONNACK is lost, it resumes
            // another session: it resends delivered messages, and takes new ones for repeats. The
            // standard gives it no way to notice.
            self.estranged = true;
            self.letters[UP].under_way().for_each(|letter| letter.again = true);
            self.server_forgets();
        }
    }

    pub(crate) fn server_forgets(&mut self) {
        let owed = self.letters[DOWN].all.iter_mut().filter(|letter| letter.end.is_none());
        owed.for_each(|letter| letter.dropped = true);
    }

    pub(crate) fn server_accepts(&mut self, far: &mut Far, connect: &Connect<'_>) -> Verdict {
        if let Some(mut ghost) = self.ghost.take() {
            self.note(|| "the server takes the session from an older connection".into());
            self.counts(Count::TakenOver, true);
            self.park(&mut ghost);
        }
        self.expire_parked();
        let mut session = None;
        match self.parked.take() {
            Some(parked) if !connect.clean_start => {
                far.watch.carries_on(parked.watch);
                session = Some(parked.session);
            }
            Some(_) => self.server_forgets(),
            None => {}
        }
        let mut out = Vec::new();
        let accepted =
            far.machine.accept(session, ConnackProperties::default(), self.now, &mut out);
        accepted.map_err(|error| error.to_string())?;
        far.accepted = true;
        let (asked, most) = (connect.keep_alive, self.plan.maximum_keep_alive);
        let too_long =
            most > 0 && self.plan.version == Version::V5_0 && (asked == 0 || asked > most);
        far.clock.keep_alive = Duration::from_secs(if too_long { most } else { asked }.into());
        (far.clock.accepted, far.clock.last_heard) = (Some(self.now), self.now);
        far.watch.commands(&out)?;
        self.carry(DOWN, &mut far.line, &out)?;
        self.server_flushes(far)
    }

    pub(crate) fn server_answers(&mut self, far: &mut Far) -> Verdict {
        if far.requests.is_empty() || !far.accepted {
            return Ok(());
        }
        let (token, filters, request) =
            far.requests.swap_remove(self.random.index(far.requests.len()));
        let (codes, mut out) = (vec![ReasonCode::SUCCESS; filters], Vec::new());
        let was_read = far.machine.wants_input();
        let answered = match request {
            PacketType::Subscribe => {
                far.machine.suback(token, &codes, AckProperties::default(), self.now, &mut out)
            }
            _ => far.machine.unsuback(token, &codes, AckProperties::default(), self.now, &mut out),
        };
        answered.map_err(|error| error.to_string())?;
        if !was_read && far.machine.wants_input() {
            far.clock.last_heard = self.now;
        }
        far.watch.commands(&out)?;
        self.carry(DOWN, &mut far.line, &out)
    }

    pub(crate) fn server_flushes(&mut self, far: &mut Far) -> Verdict {
        let mut out = Vec::new();
        let more = far.machine.flush(self.now, &mut out);
        ensure!(!more, "there was room for more than {} bytes", out.len());
        far.watch.commands(&out)?;
        self.carry(DOWN, &mut far.line, &out)
    }

    /// Delivers a message to the client, wherever its session is now.
    pub(crate) fn deliver(&mut self) -> Verdict {
        let (qos, large) = (self.qos(), self.random.percent(10));
        let expiry = self
            .random
            .percent(self.plan.expiring)
            .then(|| self.random.pick(&[0, 500, 1_500, 10_000]));
        let expires_at = expiry.map(|milliseconds| self.now + Duration::from_millis(milliseconds));
        let number = self.letters[DOWN].all.len() as u64 + 1;
        let message =
            Message::new(&Publish { qos, ..Publish::new(topic(number), &payload(number, large)) })
                .unwrap();
        let outgoing = Outgoing { expires_at, ..Outgoing::new(Some(number), message) };
        let (queue, now) = (self.plan.queue, self.now);
        let live = [&mut self.far, &mut self.ghost].into_iter().flatten().find(|far| far.accepted);
        let (done, queued) = match (live, &mut self.parked) {
            (Some(far), _) => {
                (far.machine.deliver(outgoing, now).is_ok(), far.machine.session().queued())
            }
            (None, Some(parked)) => {
                (parked.session.enqueue(outgoing, queue, now).is_ok(), parked.session.queued())
            }
            (None, None) => return Ok(()),
        };
        self.note(|| format!("server delivers {number} with {qos:?}, {expires_at:?}: {done}"));
        ensure!(done || queued >= queue.messages, "message {number} was refused");
        if done {
            self.letters[DOWN].add(qos, large, self.now, expires_at);
        }
        let flush = |world: &mut Self, far: &mut Far| {
            world.server_flushes(far)?;
            world.server_steps(far)
        };
        self.with_far(flush)?;
        self.with_ghost(flush)
    }

    pub(crate) fn server_acknowledges(&mut self, far: &mut Far, index: usize) -> Verdict {
        if far.tokens.is_empty() || !far.accepted {
            return Ok(());
        }
        let (number, token) = far.tokens.swap_remove(index % far.tokens.len());
        let ((code, meant), mut out) = (self.judgement(), Vec::new());
        self.note(|| format!("server acknowledges {number} with {code:?}"));
        far.machine
            .acknowledge(token, code, self.now, &mut out)
            .map_err(|error| error.to_string())?;
        far.watch.acknowledged(token, code)?;
        far.watch.commands(&out)?;
        self.letters[UP].takes(number, meant)?;
        self.carry(DOWN, &mut far.line, &out)
    }

    pub(crate) fn server_disconnects(&mut self, far: &mut Far) -> Verdict {
        if !far.accepted {
            return Ok(());
        }
        let mut out = Vec::new();
        self.note(|| "server disconnects".into());
        let disconnected =
            far.machine.disconnect(&Disconnect::new(ReasonCode::SERVER_BUSY), self.now, &mut out);
        disconnected.map_err(|error| error.to_string())?;
        far.watch.goes_on();
        far.watch.commands(&out)?;
        far.watch.closes();
        self.carry(DOWN, &mut far.line, &out)?;
        self.server_steps(far)
    }

    pub(crate) fn server_is_cut(&mut self, far: &mut Far) -> Verdict {
        let Some(action) = far.machine.connection_lost() else { return Ok(()) };
        let event = Event::Server(action);
        far.watch.step(&[], Some(&event), &[])?;
        self.on_server_event(far, &event)
    }

    /// Ends or crashes the server, with all its connections, and restarts it a little later with
    /// what it has stored.
    pub(crate) fn server_restarts(&mut self) -> Verdict {
        self.counts(Count::Stored, true);
        self.note(|| "server restarts".into());
        let live =
            [self.far.take(), self.ghost.take()].into_iter().flatten().find(|far| far.accepted);
        if let Some(mut far) = live {
            let crashes = can_be_stored_in_use(&far.watch) && self.random.percent(50);
            let bytes = far.machine.session().to_bytes(self.now);
            self.park(&mut far);
            if let Some(parked) = self.parked.as_mut().filter(|_| crashes) {
                parked.session = Session::from_bytes(&bytes, self.now, Duration::ZERO)
                    .map_err(|error| error.to_string())?;
            }
        }
        self.client_is_cut()?;
        let Some(parked) = self.parked.take() else { return Ok(()) };
        let (bytes, before) = (parked.session.to_bytes(self.now), self.now);
        self.passes(2_000)?;
        let session = Session::from_bytes(&bytes, self.now, self.now - before)
            .map_err(|error| error.to_string())?;
        self.parked = Some(Parked { session, ..parked });
        Ok(())
    }
}
