//! The loop that both machines share: one step, at most one action.

use super::endpoint::{Endpoint, REPLY_ROOM, Step};
use super::{CloseCause, ProtocolError, Published, Received};
use crate::codec::{Frame, Output};

/// The part of the loop that depends on the role: the handshake, the role's own packets, and the
/// end of the connection.
pub(crate) trait Machine {
    type Action<'i>: From<Received<'i>> + From<Published<'i>>;

    fn endpoint(&mut self) -> &mut Endpoint;

    /// Whether the next packet can be read. False if the host owes an answer, and after the end.
    fn wants_input(&self) -> bool;

    /// Takes one complete packet from the input.
    fn take<'i, O: Output>(
        &mut self,
        input: &mut &'i [u8],
        step: &mut Step<'_, O>,
    ) -> Result<Option<Frame<'i>>, ProtocolError>;

    /// Handles one packet. The action is written to its final place, because to move it costs as
    /// much as to read it.
    fn on_frame<'i, O: Output>(
        &mut self,
        frame: Frame<'i>,
        step: &mut Step<'_, O>,
        action: &mut Option<Self::Action<'i>>,
    ) -> Result<(), ProtocolError>;

    /// Ends the connection because the peer broke a rule.
    fn violate<O: Output>(&mut self, error: ProtocolError, step: &mut Step<'_, O>);

    /// Whether the connection has ended, and the host was not told everything.
    fn is_closing(&self) -> bool;

    /// Returns the next of what the host is told about the end. `input` begins with the packet that
    /// has ended the connection, if one has.
    fn next_closing<'i>(&mut self, input: &mut &'i [u8]) -> Option<Self::Action<'i>>;
}

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

/// Takes one step: consumes packets from `input` up to the first that has an action.
#[inline(never)]
pub(crate) fn advance<'i, M: Machine, O: Output>(
    machine: &mut M,
    input: &mut &'i [u8],
    step: &mut Step<'_, O>,
    action: &mut Option<M::Action<'i>>,
) {
    machine.endpoint().hear(input.len(), step.now);
    if !machine.is_closing() {
        if let Err(error) = run(machine, input, step, action) {
            machine.violate(error, step);
        }
    }
    if action.is_none() && machine.is_closing() {
        *action = machine.next_closing(input);
    }
    machine.endpoint().leave(input.len());
    machine.endpoint().finish(step);
}

#[inline]
fn run<'i, M: Machine, O: Output>(
    machine: &mut M,
    input: &mut &'i [u8],
    step: &mut Step<'_, O>,
    action: &mut Option<M::Action<'i>>,
) -> Result<(), ProtocolError> {
    if machine.endpoint().is_open() {
        machine.endpoint().settle(step)?;
        machine.endpoint().flush(step);
    }
    while action.is_none() {
        let endpoint = machine.endpoint();
        if endpoint.is_open() {
            if let Some(published) = endpoint.next_completed() {
                *action = Some(published.into());
                break;
            }
        }
        if !machine.wants_input() || step.out.room() < REPLY_ROOM {
            break;
        }
        let before = *input;
        let Some(frame) = machine.take(input, step)? else { break };
        machine.on_frame(frame, step, action)?;
        if machine.is_closing() {
            // The packet has ended the connection, and is part of what the host is told.
            if action.is_none() {
                *input = before;
            }
            break;
        }
    }
    Ok(())
}
