//! The figures of a broker as retained messages below `$SYS/broker/`.

use super::Broker;
use super::flow::publish;
use super::timers::Timer;
use crate::codec::Publish;
use crate::session::Message;
use crate::time::Instant;
use alloc::format;
use alloc::string::String;
use alloc::vec;

/// Publishes the figures, and arms the timer for the next time. The topic names are those of
/// mosquitto where they mean the same.
pub(super) fn publish(broker: &mut Broker, now: Instant) {
    let Some(interval) = broker.config.sys_interval else { return };
    broker.timers.arm(Timer::Sys, now + interval);
    let stats = broker.stats();
    let uptime = now.as_millis().saturating_sub(broker.created_at.as_millis()) / 1_000;
    let sum = |counters: [u64; 3]| counters.iter().sum::<u64>();
    let figures = vec![
        ("version", String::from(concat!("mqtt-sansio ", env!("CARGO_PKG_VERSION")))),
        ("uptime", format!("{uptime} seconds")),
        ("clients/total", format!("{}", stats.sessions)),
        ("clients/connected", format!("{}", stats.connected)),
        ("clients/disconnected", format!("{}", stats.sessions - stats.connected)),
        ("subscriptions/count", format!("{}", stats.subscriptions)),
        ("retained messages/count", format!("{}", stats.retained)),
        ("store/messages/bytes", format!("{}", stats.retained_bytes)),
        ("bytes/received", format!("{}", stats.bytes_received)),
        ("bytes/sent", format!("{}", stats.bytes_sent)),
        ("publish/messages/received", format!("{}", sum(stats.messages_received))),
        ("publish/messages/sent", format!("{}", sum(stats.messages_queued))),
        ("publish/messages/dropped", format!("{}", stats.dropped.total())),
    ];
    for (name, value) in figures {
        let topic_name = format!("$SYS/broker/{name}");
        let packet = Publish { retain: true, ..Publish::new(&*topic_name, value.as_bytes()) };
        if let Ok(message) = Message::new(&packet) {
            publish::publish_own(broker, message, now);
        }
    }
}
