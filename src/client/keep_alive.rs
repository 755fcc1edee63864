//! When a client must send a PINGREQ, and how long it waits for the answer.

use crate::time::Instant;
use core::time::Duration;

/// The keep-alive state of a client. [5.0 §3.1.2.10] [3.1.1 §3.1.2.10]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeepAlive {
    /// Seconds; 0 turns keep alive off.
    pub(super) interval: u16,
    /// When the first PINGREQ was sent that is not answered.
    pub(super) ping_sent: Option<Instant>,
    /// When the host last reported progress of the transport.
    progress: Instant,
}

impl KeepAlive {
    /// Returns when a PINGREQ is due: one interval after the last packet was sent, because the
    /// server waits for packets [5.0 MQTT-3.1.2-20] [3.1.1 MQTT-3.1.2-23], and, unless a PINGREQ is
    /// unanswered, one interval after the last byte of the server. Otherwise a client that
    /// publishes all the time with QoS 0 would never notice that the server is gone.
    pub(super) fn ping_due(&self, last_sent: Instant, last_received: Instant) -> Option<Instant> {
        let since = match self.ping_sent {
            Some(_) => last_sent,
            None => last_sent.min(last_received.max(self.progress)),
        };
        (self.interval > 0).then(|| since.plus_seconds(self.interval.into()))
    }

    /// Returns when the server counts as silent: a timeout after the PINGREQ, the last byte of the
    /// server, or the last progress, whichever is the latest.
    pub(super) fn deadline(
        &self,
        last_received: Instant,
        timeout: Option<Duration>,
    ) -> Option<Instant> {
        let timeout = timeout.unwrap_or_else(|| Duration::from_secs(self.interval.into()));
        self.ping_sent.map(|sent| sent.max(last_received).max(self.progress) + timeout)
    }

    pub(super) fn note_progress(&mut self, now: Instant) {
        self.progress = self.progress.max(now);
    }
}
