//! The part of a machine that both roles share: the session, the connection, and the exchange of
//! messages. `Client` and `Server` add the handshake and keep alive.

mod alias;
mod connection;
mod receive;
mod send;

use super::error::WriteError;
use super::{Change, CommonConfig, Limits, ProtocolError, Session};
use crate::codec::{Body, Output, Packet, Role, Rules, Size, Version};
use crate::time::Instant;
use connection::Connection;
pub(crate) use send::REPLY_ROOM;

/// One end of a connection, whatever its role.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) session: Session,
    pub(crate) connection: Connection,
    config: CommonConfig,
    pub(crate) clock: Clock,
}

/// One call of the host: its time, and the output that it appends to.
#[derive(Debug)]
pub(crate) struct Step<'o, O> {
    pub(crate) now: Instant,
    pub(crate) out: &'o mut O,
    /// The length of the output before the call.
    start: usize,
}

/// When something was last received and sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// The latest time that the host gave. A clock that steps back is treated as standing still.
    pub(crate) latest: Instant,
    pub(crate) last_sent: Instant,
    pub(crate) last_received: Instant,
    /// The number of bytes of input that the last step left.
    pub(crate) left: usize,
}

impl Clock {
    const fn starting_at(now: Instant) -> Self {
        Self { latest: now, last_sent: now, last_received: now, left: 0 }
    }
}

impl Endpoint {
    /// Creates an endpoint that is not [opened](Self::open). The session is not in use.
    pub(crate) fn new(role: Role, session: Session, config: CommonConfig, now: Instant) -> Self {
        let connection = Connection::new(role, Version::V5_0, Limits::default(), Limits::default());
        Self { session, connection, config, clock: Clock::starting_at(now) }
    }

    /// Returns the rules by which the peer's packets are read.
    #[inline]
    pub(crate) fn peer_rules(&self) -> Rules {
        let peer = if self.connection.role == Role::Client { Role::Server } else { Role::Client };
        Rules::new(self.connection.version).sent_by(peer).with(self.config.options)
    }

    /// Returns the rules by which packets are written.
    #[inline]
    pub(crate) fn rules(&self) -> Rules {
        self.application_rules(self.connection.version).forwarding()
    }

    /// Returns the rules by which a message of the application is checked.
    fn application_rules(&self, version: Version) -> Rules {
        Rules::new(version).sent_by(self.connection.role).with(self.config.options)
    }

    // ---- the connection ----

    /// Starts a connection on which no messages are exchanged until it is
    /// [opened](Self::open).
    pub(crate) fn begin(&mut self, version: Version, own: Limits, peer: Limits) {
        self.connection = Connection::new(self.connection.role, version, own, peer);
    }

    /// Whether messages are exchanged.
    #[inline]
    pub(crate) const fn is_open(&self) -> bool {
        self.connection.is_open
    }

    /// Opens the connection for messages, starting with those that the session must resend.
    pub(crate) fn open(&mut self, step: &mut Step<'_, impl Output>) {
        self.connection.is_open = true;
        self.session.connections += 1;
        self.session.outbound.resume();
        self.flush(step);
    }

    /// Ends the connection, and returns the keys of the requests that were not answered.
    pub(crate) fn close(&mut self) -> impl Iterator<Item = u64> + use<> {
        let unacknowledged = self.connection.close();
        if !self.config.manual_acknowledgement {
            // The host has these messages; another PUBLISH would be the same message.
            for packet_identifier in unacknowledged.exactly_once() {
                self.session.inbound.insert(packet_identifier, super::inbound::Exchange::ACCEPTED);
                self.session.note(Change::Accepted { packet_identifier });
            }
        }
        self.session.outbound.queue.expire_unsent();
        self.session.disconnected()
    }

    /// Whether a step without input would do nothing.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        let Session { outbound, completed, .. } = &self.session;
        self.connection.unacknowledged.is_empty() && !outbound.waits() && completed.is_empty()
    }

    // ---- time ----

    /// Starts a call of the host.
    #[inline]
    pub(crate) fn step<'o, O: Output>(&mut self, now: Instant, out: &'o mut O) -> Step<'o, O> {
        let start = out.len();
        Step { now: self.advance_to(now), out, start }
    }

    /// Notes the time, and returns the latest that the host gave.
    #[inline]
    pub(crate) fn advance_to(&mut self, now: Instant) -> Instant {
        self.clock.latest = self.clock.latest.max(now);
        self.clock.latest
    }

    /// Ends a step, which has left input of that length.
    #[inline]
    pub(crate) fn end_step(&mut self, input: usize, step: &Step<'_, impl Output>) {
        self.clock.left = input;
        self.finish(step);
    }

    /// Notes whether the call has written something.
    #[inline]
    pub(crate) fn finish(&mut self, step: &Step<'_, impl Output>) {
        if step.out.len() > step.start {
            self.clock.last_sent = step.now;
        }
    }

    /// Notes that a transport was opened.
    pub(crate) fn restart_clock(&mut self, now: Instant) {
        self.clock = Clock::starting_at(self.advance_to(now));
    }

    /// Notes the length of the input of a step. Any new byte is a sign of life, also one of an
    /// incomplete packet.
    #[inline]
    pub(crate) fn hear(&mut self, input: usize, now: Instant) {
        if input > self.clock.left {
            self.clock.last_received = now;
        }
    }

    /// Restarts the peer's time to send something.
    pub(crate) fn touch(&mut self, now: Instant) {
        let now = self.advance_to(now);
        self.clock.last_received = self.clock.last_received.max(now);
    }

    // ---- writing ----

    /// Writes a packet, unless it exceeds the peer's Maximum Packet Size.
    #[inline]
    pub(crate) fn write(&self, packet: impl Body, out: &mut impl Output) -> Result<(), WriteError> {
        if self.connection.peer.maximum_packet_size == u32::MAX {
            return Ok(packet.encode(self.rules(), out)?);
        }
        self.write_limited(packet, out)
    }

    #[inline(never)]
    fn write_limited(&self, packet: impl Body, out: &mut impl Output) -> Result<(), WriteError> {
        let size = self.check_size(packet)?;
        Ok(packet.write_measured(&size, self.rules(), out)?)
    }

    /// Checks that a packet can be encoded and does not exceed the peer's Maximum Packet Size.
    fn check_size(&self, packet: impl Body) -> Result<Size, WriteError> {
        let measured = packet.measure(self.rules())?;
        let (size, maximum) = (measured.packet_size(), self.connection.peer.maximum_packet_size);
        if size > maximum { Err(WriteError::TooLarge { size, maximum }) } else { Ok(measured) }
    }

    /// Writes a packet. If it exceeds the peer's Maximum Packet Size, leaves out the user
    /// properties, the reason string, or both, whichever is the first to suffice.
    /// [5.0 MQTT-3.2.2-19] [5.0 MQTT-3.2.2-20]
    pub(crate) fn write_shortened(
        &self,
        packet: &Packet<'_>,
        out: &mut impl Output,
    ) -> Result<(), WriteError> {
        let mut written = self.write(packet, out);
        for (reason_string, user_properties) in [(true, false), (false, true), (false, false)] {
            if !matches!(written, Err(WriteError::TooLarge { .. })) {
                break;
            }
            written = self.write(&packet.keeping(reason_string, user_properties), out);
        }
        written
    }

    /// Writes a packet without which the connection cannot continue.
    pub(crate) fn answer(
        &self,
        packet: impl Body,
        out: &mut impl Output,
    ) -> Result<(), ProtocolError> {
        self.write(packet, out).map_err(|_| ProtocolError::NoRoomForAnswer)
    }
}
