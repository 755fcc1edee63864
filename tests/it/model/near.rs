//! The client and its host.

use super::letters::End;
use super::{Clock, Count, DOWN, Far, Line, UP, World, can_be_stored_in_use, payload, topic};
use core::time::Duration;
use mqtt_sansio::client::{self, Client};
use mqtt_sansio::codec::{
    Connect, Disconnect, PacketType, Publish, PublishProperties, QoS, ReasonCode,
    SubscribeProperties, Subscription, UnsubscribeProperties, Version,
};
use mqtt_sansio::server::Server;
use mqtt_sansio::session::{AcknowledgeError, CloseCause, Outcome, PublishError, Session};
use testkit::watch::{Event, Verdict, ensure, frames, number};

impl World {
    pub(crate) fn client_steps(&mut self) -> Verdict {
        loop {
            let received = core::mem::take(&mut self.near.received);
            let (mut input, mut out) = (&received[..], Vec::new());
            let event =
                self.near.machine.handle_input(&mut input, self.now, &mut out).map(Event::Client);
            let (taken, left) = received.split_at(received.len() - input.len());
            self.near.received = left.to_vec();
            self.near.watch.goes_on();
            self.near.watch.step(taken, event.as_ref(), &out)?;
            if frames(taken)?.iter().any(|frame| frame.packet_type() == PacketType::Pingresp) {
                self.near.clock.pinged = None;
            }
            self.client_writes(&out)?;
            let Some(event) = event else { break };
            self.on_client_event(&event)?;
        }
        if self.near.attached {
            self.near.watch.rests(self.near.machine.session().in_flight())
        } else {
            Ok(())
        }
    }

    pub(crate) fn on_client_event(&mut self, event: &Event<'_>) -> Verdict {
        self.note(|| format!("{event:?}"));
        let Event::Client(action) = event else { return Ok(()) };
        match action {
            client::Action::Connected(connack) => {
                self.counts(Count::Connected, true);
                let seconds =
                    connack.properties.server_keep_alive.unwrap_or(self.near.asked_keep_alive);
                self.near.clock.keep_alive = Duration::from_secs(seconds.into());
                self.near.clock.accepted = Some(self.now);
                self.near.temporary = self.near.asked_temporary;
                if !connack.session_present && self.plan.version > Version::V3_1 {
                    self.client_gives_up();
                }
            }
            client::Action::Message(message) => {
                self.counts(Count::Arrived, true);
                let (number, by_hand) = (
                    number(message.payload).ok_or("a message has no number")?,
                    self.plan.manual[UP],
                );
                ensure!(
                    message.topic_name == topic(number),
                    "message {number} has the topic {}",
                    message.topic_name
                );
                self.letters[DOWN].arrives(number, message.qos, by_hand)?;
                self.near
                    .tokens
                    .extend(message.token.filter(|_| by_hand).map(|token| (number, token)));
            }
            client::Action::Published(published) => {
                self.ends(UP, published.key, &published.outcome)?;
            }
            client::Action::Closed(cause) => {
                self.note_close(cause)?;
                self.client_leaves();
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn note_close(&mut self, cause: &CloseCause<'_>) -> Verdict {
        self.counts(Count::Silent, *cause == CloseCause::KeepAliveTimeout);
        self.counts(Count::Unanswered, *cause == CloseCause::ConnectTimeout);
        ensure!(
            !matches!(cause, CloseCause::Violation(_) | CloseCause::Refused(_)),
            "no rule was violated: {cause:?}"
        );
        Ok(())
    }

    pub(crate) fn ends(&mut self, direction: usize, key: u64, outcome: &Outcome<'_>) -> Verdict {
        let end = match outcome {
            Outcome::Acknowledged { reason_code, .. } => End::Acknowledged(*reason_code),
            Outcome::Expired => End::Expired,
            Outcome::NotAllowed(_) => End::NotAllowed,
            Outcome::SessionLost(_) => End::Lost,
            other => return Err(format!("{other:?}")),
        };
        match end {
            End::Acknowledged(code) => self.counts(Count::Refused, code.is_error()),
            End::Expired => self.counts(Count::Expired, true),
            End::Lost => self.counts(Count::Lost, true),
            End::NotAllowed => {}
        }
        self.letters[direction].get(key)?.unseen |= direction == DOWN && self.estranged;
        self.letters[direction].ends(key, end, self.now)
    }

    /// Discards the client's session: its sent messages are lost, its received ones forgotten.
    pub(crate) fn client_gives_up(&mut self) {
        self.estranged = false;
        self.letters[UP].under_way().for_each(|letter| letter.given_up = true);
        self.letters[DOWN].under_way().for_each(|letter| letter.again = true);
    }

    pub(crate) fn client_leaves(&mut self) {
        let near = &mut self.near;
        near.attached = false;
        near.received.clear();
        near.stale = near.tokens.drain(..).map(|(_, token)| token).collect();
        if let Some(mut far) = self.far.take() {
            self.hang_up(UP, &mut far.line);
            self.far = Some(far);
        }
    }

    pub(crate) fn connect(&mut self) -> Verdict {
        let mut connect = Connect::new(self.plan.version, "c");
        connect.keep_alive = self.plan.keep_alive;
        connect.clean_start = !self.calm && self.random.percent(5);
        if self.plan.version == Version::V5_0 {
            let expiry = self.random.pick(&[u32::MAX, u32::MAX, u32::MAX, u32::MAX, 20, 0]);
            connect.properties.session_expiry_interval =
                Some(if self.calm { u32::MAX } else { expiry });
            connect.properties.receive_maximum =
                (!self.calm && self.random.percent(50)).then(|| self.random.small());
            connect.properties.topic_alias_maximum = self.random.pick(&[None, Some(1), Some(10)]);
            connect.properties.maximum_packet_size =
                (!self.calm && self.random.percent(10)).then_some(60);
        }
        self.note(|| format!("client connects: {connect:?}"));
        // A connection that was never accepted is dropped. One that has the session lives until the
        // server notices.
        self.ghost = self.far.take().filter(|far| far.accepted).or_else(|| self.ghost.take());
        let mut line = Line::default();
        if !self.calm {
            line.packets = self.random.percent(40).then(|| self.random.index(30) + 1);
            line.silent = self.random.percent(3);
        }
        self.far = Some(Far {
            machine: Server::new(self.plan.server(), self.now),
            watch: self.plan.watch(DOWN),
            line,
            received: Vec::new(),
            tokens: Vec::new(),
            requests: Vec::new(),
            accepted: false,
            closed: false,
            clock: Clock { opened: self.now, ..Clock::default() },
        });
        if connect.clean_start || self.near.temporary {
            self.client_gives_up();
        }
        let (near, mut out) = (&mut self.near, Vec::new());
        near.clock = Clock {
            opened: self.now,
            last_written: self.now,
            last_heard: self.now,
            ..Clock::default()
        };
        // Until it is accepted, it may resume an older session.
        (near.attached, near.begun, near.temporary) = (true, true, false);
        (near.asked_keep_alive, near.asked_temporary) =
            (connect.keep_alive, connect.session_expiry().to_seconds() == 0);
        near.watch.reopens();
        near.machine.connect(&connect, self.now, &mut out).map_err(|error| error.to_string())?;
        near.watch.commands(&out)?;
        self.client_writes(&out)
    }

    pub(crate) fn publish(&mut self) -> Verdict {
        let (qos, large) = (self.qos(), self.random.percent(10));
        let expiry =
            self.random.percent(self.plan.expiring).then(|| self.random.pick(&[0, 1, 2, 10]));
        let number = self.letters[UP].all.len() as u64 + 1;
        let payload = payload(number, large);
        let properties =
            PublishProperties { message_expiry_interval: expiry, ..PublishProperties::default() };
        let publish = Publish { qos, properties, ..Publish::new(topic(number), &payload) };
        let (queued, mut out) = (self.near.machine.session().queued(), Vec::new());
        let done = self.near.machine.publish(number, &publish, self.now, &mut out);
        self.note(|| format!("client publishes {number} with {qos:?}, {expiry:?}: {done:?}"));
        if let Err(error) = done {
            let full = queued >= self.plan.queue.messages && error == PublishError::QueueFull;
            ensure!(full && out.is_empty(), "message {number} was refused: {error}");
            return Ok(());
        }
        let expires_at = expiry.map(|seconds| self.now + Duration::from_secs(seconds.into()));
        self.letters[UP].add(qos, large, self.now, expires_at);
        self.near.watch.commands(&out)?;
        self.client_writes(&out)
    }

    pub(crate) fn client_acknowledges(&mut self, index: usize) -> Verdict {
        let (near, mut out) = (&mut self.near, Vec::new());
        if near.tokens.is_empty() {
            let Some(token) = near.stale.pop() else { return Ok(()) };
            let stale = near.machine.acknowledge(token, ReasonCode::SUCCESS, self.now, &mut out);
            ensure!(
                stale == Err(AcknowledgeError::Stale) && out.is_empty(),
                "a stale token is accepted: {stale:?}"
            );
            return Ok(());
        }
        let (number, token) = near.tokens.swap_remove(index % near.tokens.len());
        let (code, meant) = self.judgement();
        self.note(|| format!("client acknowledges {number} with {code:?}"));
        let near = &mut self.near;
        near.machine
            .acknowledge(token, code, self.now, &mut out)
            .map_err(|error| error.to_string())?;
        near.watch.acknowledged(token, code)?;
        near.watch.commands(&out)?;
        self.letters[DOWN].takes(number, meant)?;
        self.client_writes(&out)
    }

    pub(crate) fn subscribe(&mut self) -> Verdict {
        self.keys += 1;
        let (near, mut out) = (&mut self.near, Vec::new());
        let done = if self.keys % 2 == 0 {
            let filters =
                [Subscription::new("a", QoS::AtMostOnce), Subscription::new("b", QoS::ExactlyOnce)];
            near.machine.subscribe(
                self.keys,
                &filters,
                SubscribeProperties::default(),
                self.now,
                &mut out,
            )
        } else {
            near.machine.unsubscribe(
                self.keys,
                &["a".into()],
                UnsubscribeProperties::default(),
                self.now,
                &mut out,
            )
        };
        near.watch.commands(&out)?;
        if done.is_ok() {
            near.watch.requested(self.keys)?;
        }
        self.client_writes(&out)
    }

    pub(crate) fn client_disconnects(&mut self) -> Verdict {
        let mut out = Vec::new();
        if self.near.machine.disconnect(&Disconnect::default(), self.now, &mut out).is_err() {
            return Ok(());
        }
        self.note(|| "client disconnects".into());
        self.near.watch.goes_on();
        self.near.watch.commands(&out)?;
        self.client_writes(&out)?;
        self.near.watch.closes();
        self.client_steps()
    }

    pub(crate) fn client_is_cut(&mut self) -> Verdict {
        while let Some(action) = self.near.machine.connection_lost() {
            let event = Event::Client(action);
            self.near.watch.step(&[], Some(&event), &[])?;
            self.on_client_event(&event)?;
        }
        Ok(())
    }

    /// Ends or crashes the client, and restarts it a little later with what it has stored.
    pub(crate) fn client_restarts(&mut self) -> Verdict {
        self.counts(Count::Stored, true);
        let machine = core::mem::replace(&mut self.near.machine, Client::new(self.plan.client()));
        let crashes = can_be_stored_in_use(&self.near.watch)
            && !self.near.asked_temporary
            && self.random.percent(50);
        let bytes = if crashes {
            machine.session().to_bytes(self.now)
        } else {
            machine.into_session().to_bytes(self.now)
        };
        self.note(|| format!("client restarts, {} bytes are stored", bytes.len()));
        self.near.watch.ends();
        if self.near.attached {
            self.client_leaves();
        }
        let before = self.now;
        self.passes(2_000)?;
        let session = Session::from_bytes(&bytes, self.now, self.now - before)
            .map_err(|error| error.to_string())?;
        self.near.machine = Client::with_session(self.plan.client(), session);
        self.near.begun = false;
        self.near.stale.clear();
        Ok(())
    }
}
