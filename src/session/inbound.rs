//! Messages that arrive: which have been acknowledged, and which have been seen before.

use crate::codec::{PacketIdentifier, QoS, ReasonCode};
use alloc::collections::{BTreeMap, VecDeque};

/// The QoS 2 messages whose identifiers the peer has not released: what survives a connection.
pub(crate) type Inbound = BTreeMap<PacketIdentifier, Exchange>;

/// Where the receiver of a QoS 2 message stands. [5.0 §4.3.3] [3.1.1 §4.3.3]
///
/// ```text
///  PUBLISH ──► DuePubrec ──PUBREC──► AwaitPubrel ──PUBREL, PUBCOMP──► (none)
///                   └──PUBREC with an error──────────────────────────► (none)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// The message was delivered, and not acknowledged yet.
    DuePubrec,
    /// It was acknowledged; another PUBLISH is the same message. [5.0 MQTT-4.3.3-10]
    AwaitPubrel {
        /// Whether it was sent on this connection, and so takes part of the Receive Maximum.
        counted: bool,
    },
}

/// What becomes of the exchanges when the connection ends: what was not acknowledged comes again, and is then new.
pub(crate) fn disconnected(inbound: &mut Inbound) {
    inbound.retain(|_, exchange| match exchange {
        Exchange::DuePubrec => false,
        Exchange::AwaitPubrel { counted } => {
            *counted = false;
            true
        }
    });
}

/// Permission to acknowledge one message, on the connection that it came by. It is for the machine that gave it: another one may take
/// it for one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckToken {
    pub(crate) epoch: u32,
    number: u64,
}

/// The messages of this connection that are not acknowledged, in the order of their arrival.
///
/// Acknowledgements leave in that order, whatever the order in which they are asked for. [5.0 MQTT-4.6.0-2] [5.0 MQTT-4.6.0-3]
/// [3.1.1 MQTT-4.6.0-2] [3.1.1 MQTT-4.6.0-3]
#[derive(Debug, Default)]
pub(crate) struct Unacknowledged {
    waiting: VecDeque<Waiting>,
    /// The number of the first one waiting.
    first: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) packet_identifier: PacketIdentifier,
    pub(crate) qos: QoS,
    verdict: Option<ReasonCode>,
}

impl Unacknowledged {
    pub(crate) fn push(&mut self, packet_identifier: PacketIdentifier, qos: QoS, epoch: u32) -> AckToken {
        let number = self.first + self.waiting.len() as u64;
        self.waiting.push_back(Waiting { packet_identifier, qos, verdict: None });
        AckToken { epoch, number }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Notes what a message is to be acknowledged with; false if that has been said already.
    pub(crate) fn decide(&mut self, token: AckToken, verdict: ReasonCode) -> bool {
        let index = token.number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| self.waiting.get_mut(index)) {
            Some(waiting) if waiting.verdict.is_none() => {
                waiting.verdict = Some(verdict);
                true
            }
            _ => false,
        }
    }

    /// Accepts all that nothing has been said of.
    pub(crate) fn accept_all(&mut self) {
        for waiting in &mut self.waiting {
            waiting.verdict.get_or_insert(ReasonCode::SUCCESS);
        }
    }

    /// The next one that can be acknowledged.
    pub(crate) fn next(&self) -> Option<(Waiting, ReasonCode)> {
        let waiting = *self.waiting.front()?;
        Some((waiting, waiting.verdict?))
    }

    /// The next one has been acknowledged.
    pub(crate) fn pop(&mut self) {
        if self.waiting.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// QoS 2 messages that were taken, but whose acknowledgement waits for that of an earlier one.
    pub(crate) fn taken(&self) -> impl Iterator<Item = PacketIdentifier> + '_ {
        let taken =
            |waiting: &&Waiting| waiting.qos == QoS::ExactlyOnce && waiting.verdict.is_some_and(|verdict| !verdict.is_error());
        self.waiting.iter().filter(taken).map(|waiting| waiting.packet_identifier)
    }
}
