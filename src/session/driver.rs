//! The loop that both machines share: one step, at most one action.

use super::endpoint::{Endpoint, REPLY_ROOM, Step};
use super::{CloseCause, Outcome, ProtocolError, Published, Received};
use crate::codec::{Ack, Frame, Output, PacketType, Publish};
use crate::time::Instant;
use core::ops::RangeInclusive;

/// The part of the loop that depends on the role: the handshake, the role's own packets, and the
/// end of the connection.
pub(crate) trait Machine {
    type Action<'i>: From<Received<'i>> + From<Published<'i>>;

    fn endpoint(&mut self) -> &mut Endpoint;

    /// Whether the next packet can be read. False if the host owes an answer, and after the end.
    fn wants_input(&self) -> bool;

    /// Takes one complete packet from the input before the handshake has ended.
    fn take_first<'i, O: Output>(
        &mut self,
        input: &mut &'i [u8],
        step: &mut Step<'_, O>,
    ) -> Result<Option<Frame<'i>>, ProtocolError>;

    /// Returns the largest size of the packet at the start of the input after the handshake.
    fn maximum_size(&self, input: &[u8]) -> u32;

    /// Handles one packet. The loop handles PUBLISH and its acknowledgements after the handshake.
    fn on_frame<'i, O: Output>(
        &mut self,
        frame: Frame<'i>,
        step: &mut Step<'_, O>,
    ) -> Result<Option<Self::Action<'i>>, ProtocolError>;

    /// Ends the connection because the peer broke a rule.
    fn violate<O: Output>(&mut self, error: ProtocolError, step: &mut Step<'_, O>);

    /// Whether the connection has ended, and the host was not told everything.
    fn is_closing(&self) -> bool;

    /// Returns the next of what the host is told about the end. `input` begins with the packet that
    /// has ended the connection, if one has.
    fn next_closing<'i>(&mut self, input: &mut &'i [u8]) -> Option<Self::Action<'i>>;
}

/// Defines the conversions to an action that [`Machine`] asks for.
macro_rules! action_conversions {
    ($action:ident) => {
        impl<'a> From<Received<'a>> for $action<'a> {
            #[inline]
            fn from(received: Received<'a>) -> Self {
                Self::Message(received)
            }
        }

        impl<'a> From<Published<'a>> for $action<'a> {
            #[inline]
            fn from(published: Published<'a>) -> Self {
                Self::Published(published)
            }
        }
    };
}

pub(crate) use action_conversions;

/// How a connection has ended, before the host is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A packet of the peer, DISCONNECT or a CONNACK that refuses. It stays at the start of the
    /// input until the host is told.
    Packet,
    Requested,
    Violation(ProtocolError),
    ConnectTimeout,
    AnswerTimeout,
    KeepAliveTimeout,
    ConnectionLost,
}

impl Ending {
    /// Returns the cause, unless it is a packet.
    pub(crate) const fn cause(self) -> Option<CloseCause<'static>> {
        Some(match self {
            Self::Packet => return None,
            Self::Requested => CloseCause::Requested,
            Self::Violation(error) => CloseCause::Violation(error),
            Self::ConnectTimeout => CloseCause::ConnectTimeout,
            Self::AnswerTimeout => CloseCause::AnswerTimeout,
            Self::KeepAliveTimeout => CloseCause::KeepAliveTimeout,
            Self::ConnectionLost => CloseCause::ConnectionLost,
        })
    }
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP.
const ACKNOWLEDGEMENTS: RangeInclusive<PacketType> = PacketType::Puback..=PacketType::Pubcomp;

/// Takes one step: consumes packets from `input` up to the first that has an action.
#[inline]
pub(crate) fn advance<'i, M: Machine, O: Output>(
    machine: &mut M,
    input: &mut &'i [u8],
    now: Instant,
    out: &mut O,
) -> Option<M::Action<'i>> {
    let endpoint = machine.endpoint();
    if input.is_empty() && endpoint.is_open() && endpoint.is_quiet() {
        endpoint.clock.left = 0;
        return None;
    }
    take_step(machine, input, now, out)
}

/// Makes each message in the place of the result, because to move it costs as much as to read it.
#[inline(never)]
fn take_step<'i, M: Machine, O: Output>(
    machine: &mut M,
    input: &mut &'i [u8],
    now: Instant,
    out: &mut O,
) -> Option<M::Action<'i>> {
    let step = &mut machine.endpoint().step(now, out);
    /// Unwraps a result. A violation ends the connection, and with it the loop.
    macro_rules! attempt {
        ($result:expr) => {
            match $result {
                Ok(value) => value,
                Err(error) => {
                    machine.violate(error.into(), step);
                    continue;
                }
            }
        };
    }
    machine.endpoint().hear(input.len(), step.now);
    if let Err(error) = machine.endpoint().settle(step) {
        machine.violate(error, step);
    }
    machine.endpoint().flush(step);
    while !machine.is_closing() {
        let endpoint = machine.endpoint();
        if endpoint.is_open() {
            if let Some(published) = endpoint.session.next_completed() {
                endpoint.end_step(input.len(), step);
                return Some(published.into());
            }
        }
        if input.is_empty() || !machine.wants_input() || step.out.room() < REPLY_ROOM {
            break;
        }
        let before = *input;
        let is_open = machine.endpoint().is_open();
        let frame = if is_open {
            attempt!(Frame::take(input, machine.maximum_size(input)))
        } else {
            attempt!(machine.take_first(input, step))
        };
        let Some(frame) = frame else { break };
        let (packet, endpoint) = (frame.packet_type(), machine.endpoint());
        let rules = endpoint.peer_rules();
        if is_open && packet == PacketType::Publish {
            let start = attempt!(frame.publish(rules));
            let Some(publish) = attempt!(start.without_properties(rules)) else {
                let received = endpoint.on_publish_with_properties(start.copy(), rules, step);
                let Some(received) = attempt!(received) else { continue };
                endpoint.end_step(input.len(), step);
                return Some(received.into());
            };
            let Some(topic_name) = publish.topic_name() else {
                let Publish { packet_identifier, qos, .. } = *publish.get();
                attempt!(endpoint.skip(packet_identifier, qos, step));
                continue;
            };
            if let Some(token) = attempt!(endpoint.on_publish(publish.get(), step)) {
                endpoint.end_step(input.len(), step);
                return Some(Received::of(publish.get(), topic_name, token).into());
            }
        } else if is_open && ACKNOWLEDGEMENTS.contains(&packet) {
            let ack = attempt!(frame.ack(rules));
            let Ack { packet_identifier, reason_code, properties } = ack;
            attempt!(endpoint.check_problem_information(properties.is_empty()));
            let ended = endpoint.on_ack(packet, packet_identifier, reason_code, step);
            if let Some((key, reason_code)) = attempt!(ended) {
                endpoint.end_step(input.len(), step);
                let outcome = Outcome::Acknowledged { reason_code, properties };
                return Some(Published { key, outcome }.into());
            }
        } else {
            let action = attempt!(machine.on_frame(frame.copy(), step));
            if action.is_some() {
                machine.endpoint().end_step(input.len(), step);
                return action;
            }
            if machine.is_closing() {
                // The packet has ended the connection, and is part of what the host is told.
                *input = before;
            }
        }
    }
    if !machine.is_closing() {
        machine.endpoint().end_step(input.len(), step);
        return None;
    }
    let action = machine.next_closing(input);
    machine.endpoint().end_step(input.len(), step);
    action
}
