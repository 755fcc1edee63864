//! The messages, and their possible outcomes.

use mqtt_sansio::Instant;
use mqtt_sansio::codec::{Publish, QoS, ReasonCode};
use testkit::watch::{Verdict, ensure, number};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Acknowledged(ReasonCode),
    Expired,
    NotAllowed,
    Lost,
}

/// A message. Its number is its position in its direction, from 1.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) qos: QoS,
    pub(crate) large: bool,
    pub(crate) made_at: Instant,
    pub(crate) expires_at: Option<Instant>,
    pub(crate) written: bool,
    pub(crate) arrived: usize,
    /// How often the application has accepted it, and the reason codes with which it has refused
    /// it.
    pub(crate) taken: usize,
    pub(crate) refused: Vec<ReasonCode>,
    pub(crate) end: Option<End>,
    /// The sender has discarded the session of the message.
    pub(crate) given_up: bool,
    /// The sender's host has dropped it without a report.
    pub(crate) dropped: bool,
    /// The receiver has discarded the session, so that it may deliver the message again.
    pub(crate) again: bool,
    /// The receiver knows the identifier from another session, and takes the message for a repeat.
    pub(crate) unseen: bool,
}

/// All messages of one direction.
#[derive(Default)]
pub(crate) struct Letters {
    pub(crate) all: Vec<Letter>,
    /// The last message that arrived for the first time, by QoS.
    pub(crate) last: [u64; 3],
}

impl Letters {
    pub(crate) fn add(
        &mut self,
        qos: QoS,
        large: bool,
        made_at: Instant,
        expires_at: Option<Instant>,
    ) {
        let (written, arrived, taken, refused, end) = (false, 0, 0, Vec::new(), None);
        let (given_up, dropped, again, unseen) = (false, false, false, false);
        let letter = Letter {
            qos,
            large,
            made_at,
            expires_at,
            written,
            arrived,
            taken,
            refused,
            end,
            given_up,
            dropped,
            again,
            unseen,
        };
        self.all.push(letter);
    }

    pub(crate) fn get(&mut self, number: u64) -> Result<&mut Letter, String> {
        let index = (number as usize).checked_sub(1);
        index
            .and_then(|index| self.all.get_mut(index))
            .ok_or_else(|| format!("there is no message {number}"))
    }

    pub(crate) fn under_way(&mut self) -> impl Iterator<Item = &mut Letter> {
        self.all
            .iter_mut()
            .filter(|letter| letter.qos > QoS::AtMostOnce && letter.written && letter.end.is_none())
    }

    /// Whether an outcome of a message is still pending.
    pub(crate) fn are_owed(&self) -> bool {
        self.all
            .iter()
            .any(|letter| letter.qos > QoS::AtMostOnce && letter.end.is_none() && !letter.dropped)
    }

    pub(crate) fn writes(&mut self, publish: &Publish<'_>, now: Instant) -> Verdict {
        let number = number(publish.payload).ok_or("a message has no number")?;
        let letter = self.get(number)?;
        if let Some(at) = letter.expires_at {
            // A message that is sent at once need not be queued, even if its queue is full.
            ensure!(
                publish.dup || at > now || letter.made_at == now,
                "message {number} was sent at {now:?}, not by {at:?}"
            );
            let left = (at - now).as_millis().div_ceil(1_000);
            let stated = publish.properties.message_expiry_interval.map(u128::from);
            ensure!(
                stated == Some(left),
                "message {number} has {left} s left, and states {stated:?}"
            );
        }
        ensure!(
            publish.dup == letter.written,
            "message {number} was sent with DUP {}: {letter:?}",
            publish.dup
        );
        ensure!(letter.end.is_none(), "message {number} was sent after its end");
        letter.written = true;
        Ok(())
    }

    /// Delivers a message to the application, which accepts it unless it acknowledges manually.
    pub(crate) fn arrives(&mut self, number: u64, qos: QoS, by_hand: bool) -> Verdict {
        let last = self.last[usize::from(qos.as_u8())];
        let letter = self.get(number)?;
        ensure!(letter.qos == qos && letter.written, "message {number} arrived with {qos:?}");
        ensure!(qos > QoS::AtMostOnce || letter.arrived == 0, "message {number} arrived again");
        ensure!(
            qos < QoS::ExactlyOnce || letter.taken == 0 || letter.again,
            "message {number} arrived again after it was accepted"
        );
        ensure!(letter.end.is_none(), "message {number} arrived after {:?}", letter.end);
        letter.arrived += 1;
        if letter.arrived == 1 {
            ensure!(last < number, "message {number} arrived after {last}");
            self.last[usize::from(qos.as_u8())] = number;
        }
        if by_hand && qos > QoS::AtMostOnce {
            Ok(())
        } else {
            self.takes(number, ReasonCode::SUCCESS)
        }
    }

    pub(crate) fn takes(&mut self, number: u64, code: ReasonCode) -> Verdict {
        let letter = self.get(number)?;
        if code.is_error() {
            letter.refused.push(code);
        } else {
            letter.taken += 1;
        }
        Ok(())
    }

    pub(crate) fn ends(&mut self, number: u64, end: End, now: Instant) -> Verdict {
        let letter = self.get(number)?;
        ensure!(letter.qos > QoS::AtMostOnce, "message {number} has ended: {end:?}");
        ensure!(letter.end.is_none(), "message {number} ended as {:?} and as {end:?}", letter.end);
        let once = letter.qos == QoS::AtLeastOnce;
        let right = match end {
            End::Acknowledged(code) if code.is_error() => {
                letter.refused.contains(&code) && (once || letter.taken == 0 || letter.again)
            }
            End::Acknowledged(_) => letter.taken > 0 || letter.unseen,
            End::Expired => !letter.written && letter.expires_at.is_some_and(|at| at <= now),
            End::NotAllowed => letter.large,
            End::Lost => letter.given_up,
        };
        ensure!(right && !letter.dropped, "message {number} ended as {end:?}: {letter:?}");
        letter.end = Some(end);
        Ok(())
    }

    /// Checks that all messages have arrived and ended as their QoS promises.
    pub(crate) fn check(&self) -> Verdict {
        for (number, letter) in (1..).zip(&self.all) {
            let Letter { end, taken, arrived, .. } = letter;
            let success = *end == Some(End::Acknowledged(ReasonCode::SUCCESS));
            let right = match letter.qos {
                QoS::AtMostOnce => end.is_none() && *arrived <= 1,
                _ if end.is_none() => letter.dropped,
                _ if *end == Some(End::Expired) => *arrived == 0,
                QoS::AtLeastOnce => !success || *taken > 0,
                QoS::ExactlyOnce => {
                    (*taken <= 1 || letter.again) && (!success || *taken > 0 || letter.unseen)
                }
            };
            ensure!(right, "message {number} at the end: {letter:?}");
        }
        Ok(())
    }
}
