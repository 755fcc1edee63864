//! The states of a packet identifier that this side has given out.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the table lists the packets that are valid in each state; all others are errors"
)]

use super::{Message, Outgoing};
use crate::codec::{PacketType, QoS};

/// The use of a packet identifier. [5.0 §4.3] [3.1.1 §4.3]
///
/// ```text
///  QoS 1   (none) ──PUBLISH──► AwaitAck ──PUBACK──► (none)
///  QoS 2   (none) ──PUBLISH──► AwaitAck ──PUBREC──► AwaitPubcomp ──PUBCOMP──► (none)
///                                 └──PUBREC with an error──► (none)
///  SUBSCRIBE, UNSUBSCRIBE      AwaitSuback ──SUBACK, UNSUBACK──► (none)
///
///  The connection ends:   AwaitAck ──► DuePublish, AwaitPubcomp ──► DuePubrel
///                         AwaitSuback ──► (none)
///  The next one begins:   DuePublish ──PUBLISH with DUP──► AwaitAck
///                         DuePubrel ──PUBREL──► AwaitPubcomp
///  It forbids the resend: QoS 1 DuePublish ──► (none)
///                         QoS 2 DuePublish ──► Withheld ──PUBREC──► AwaitPubcomp
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// A PUBLISH that must be resent.
    DuePublish(Outgoing),
    /// A PUBLISH that was sent on this connection.
    AwaitAck(Outgoing),
    /// A QoS 2 PUBLISH that may have reached the peer but exceeds the new connection's limits, such
    /// as its Maximum QoS. It must not be resent, and its outcome was reported. Its identifier
    /// stays reserved, because the peer could take another message for this one.
    Withheld,
    /// A PUBREL that must be resent.
    DuePubrel {
        /// The key of the message.
        key: Option<u64>,
    },
    /// A PUBREL that was sent on this connection.
    AwaitPubcomp {
        /// The key of the message.
        key: Option<u64>,
        /// Whether its PUBLISH was sent on this connection too, and so counts towards the Receive
        /// Maximum.
        counted: bool,
    },
    /// A SUBSCRIBE or UNSUBSCRIBE that was sent on this connection.
    AwaitSuback {
        /// The key of the request.
        key: u64,
        /// The number of its topic filters.
        filters: usize,
        /// The packet that was sent.
        request: Request,
    },
}

/// A packet that asks for a SUBACK or UNSUBACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// SUBSCRIBE.
    Subscribe,
    /// UNSUBSCRIBE.
    Unsubscribe,
}

impl Request {
    /// Returns the type of the packet that answers.
    pub(crate) const fn answer(self) -> PacketType {
        match self {
            Self::Subscribe => PacketType::Suback,
            Self::Unsubscribe => PacketType::Unsuback,
        }
    }
}

/// The meaning of a PUBACK, PUBREC or PUBCOMP for the identifier that it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The exchange is complete.
    Completes {
        /// The key of the message.
        key: Option<u64>,
        /// Whether the message counts towards the Receive Maximum.
        counted: bool,
    },
    /// The message has arrived: PUBREL is due.
    Releases {
        /// The key of the message.
        key: Option<u64>,
        /// Whether the message counts towards the Receive Maximum.
        counted: bool,
    },
    /// The PUBREC is a repeat: PUBREL is due once more.
    ReleasesAgain,
    /// The identifier is not in use.
    Unknown,
    /// The identifier is in use for a packet of another kind.
    Mismatch,
}

impl Slot {
    /// Returns what an acknowledgement means in this state. This is the table of the standard.
    /// [5.0 §4.3] [3.1.1 §4.3]
    pub(crate) fn answered(&self, packet: PacketType, is_error: bool) -> Meaning {
        // The peer can acknowledge a message before it is resent, because the peer has it.
        let publish = match self {
            Self::AwaitAck(outgoing) => Some((outgoing, true)),
            Self::DuePublish(outgoing) => Some((outgoing, false)),
            _ => None,
        };
        if let Some((outgoing, counted)) = publish {
            let key = outgoing.number();
            return match (outgoing.message.qos(), packet) {
                (QoS::AtLeastOnce, PacketType::Puback) => Meaning::Completes { key, counted },
                (QoS::ExactlyOnce, PacketType::Pubrec) if is_error => {
                    Meaning::Completes { key, counted }
                }
                (QoS::ExactlyOnce, PacketType::Pubrec) => Meaning::Releases { key, counted },
                _ => Meaning::Mismatch,
            };
        }
        match (self, packet) {
            (Self::Withheld, PacketType::Pubrec) if is_error => {
                Meaning::Completes { key: None, counted: false }
            }
            (Self::Withheld, PacketType::Pubrec) => Meaning::Releases { key: None, counted: false },
            (Self::AwaitPubcomp { key, counted }, PacketType::Pubcomp) => {
                Meaning::Completes { key: *key, counted: *counted }
            }
            (Self::DuePubrel { key }, PacketType::Pubcomp) => {
                Meaning::Completes { key: *key, counted: false }
            }
            (Self::AwaitPubcomp { .. } | Self::DuePubrel { .. }, PacketType::Pubrec) => {
                Meaning::ReleasesAgain
            }
            _ => Meaning::Mismatch,
        }
    }

    /// Returns the state after the connection has ended; `None` frees the identifier.
    pub(crate) fn disconnected(self) -> Option<Self> {
        match self {
            Self::AwaitAck(outgoing) => Some(Self::DuePublish(outgoing)),
            Self::AwaitPubcomp { key, .. } => Some(Self::DuePubrel { key }),
            // Requests are not part of the session. [5.0 §4.1] [3.1.1 §4.1]
            Self::AwaitSuback { .. } => None,
            Self::DuePublish(_) | Self::Withheld | Self::DuePubrel { .. } => Some(self),
        }
    }

    /// Whether it stands for a message whose outcome is not reported yet.
    pub(crate) const fn is_in_flight(&self) -> bool {
        !matches!(self, Self::Withheld | Self::AwaitSuback { .. })
    }

    /// Returns the key and the message, if it is still needed, of an exchange that the peer has
    /// forgotten; `None` if the host expects no outcome.
    pub(crate) fn lost(self) -> Option<(u64, Option<Message>)> {
        match self {
            Self::DuePublish(outgoing) | Self::AwaitAck(outgoing) => {
                Some((outgoing.number()?, Some(outgoing.message)))
            }
            Self::DuePubrel { key } | Self::AwaitPubcomp { key, .. } => Some((key?, None)),
            Self::Withheld | Self::AwaitSuback { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each acknowledgement in each state. [5.0 §4.3] [3.1.1 §4.3]
    #[test]
    fn acknowledgement_has_one_meaning_in_each_state() {
        let outgoing = |qos| {
            let publish = crate::codec::Publish { qos, ..crate::codec::Publish::new("t", b"") };
            Outgoing::new(Some(1), Message::new(&publish).unwrap())
        };
        let key = Some(1);
        let (completes, completed) =
            (Meaning::Completes { key, counted: true }, Meaning::Completes { key, counted: false });
        let (releases, released) =
            (Meaning::Releases { key, counted: true }, Meaning::Releases { key, counted: false });
        let withheld_releases = Meaning::Releases { key: None, counted: false };
        let withheld_completes = Meaning::Completes { key: None, counted: false };
        let (again, mismatch) = (Meaning::ReleasesAgain, Meaning::Mismatch);
        let (once, twice) = (outgoing(QoS::AtLeastOnce), outgoing(QoS::ExactlyOnce));
        let request = Slot::AwaitSuback { key: 0, filters: 1, request: Request::Subscribe };
        // PUBACK, PUBREC, PUBREC with an error, PUBCOMP.
        for (slot, expected) in [
            (request, [mismatch; 4]),
            (Slot::AwaitAck(once.clone()), [completes, mismatch, mismatch, mismatch]),
            (Slot::DuePublish(once), [completed, mismatch, mismatch, mismatch]),
            (Slot::AwaitAck(twice.clone()), [mismatch, releases, completes, mismatch]),
            (Slot::DuePublish(twice), [mismatch, released, completed, mismatch]),
            (Slot::AwaitPubcomp { key, counted: true }, [mismatch, again, again, completes]),
            (Slot::DuePubrel { key }, [mismatch, again, again, completed]),
            (Slot::Withheld, [mismatch, withheld_releases, withheld_completes, mismatch]),
        ] {
            let packets =
                [PacketType::Puback, PacketType::Pubrec, PacketType::Pubrec, PacketType::Pubcomp];
            let meant = [0, 1, 2, 3].map(|index| slot.answered(packets[index], index == 2));
            assert_eq!(meant, expected, "{slot:?}");
        }
    }
}
