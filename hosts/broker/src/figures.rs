//! The figures of the broker and of the program, for `/metrics` and `broker ctl stats`.

use crate::bridge;
use mqtt_sansio::broker::{CloseCause, Dropped, Stats};
use mqtt_sansio::codec::ReasonCode;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

/// The counters of the program itself since its start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: u64,
    refused: BTreeMap<ReasonCode, u64>,
    ended: BTreeMap<&'static str, u64>,
    pub(crate) handshakes_failed: u64,
    pub(crate) closed_unanswered: u64,
    pub(crate) stored_records: u64,
    pub(crate) stored_batches: u64,
    /// Whether the last attempt to store records has failed.
    pub(crate) store_fails: bool,
}

impl Counters {
    pub(crate) fn refused(&mut self, reason_code: ReasonCode) {
        *self.refused.entry(reason_code).or_default() += 1;
    }

    pub(crate) fn ended(&mut self, cause: &CloseCause) {
        let name = match cause {
            CloseCause::Refused(_) => "refused",
            CloseCause::Ended(_) => "ended_by_broker",
            CloseCause::TakenOver => "taken_over",
            CloseCause::Disconnected { .. } => "disconnected",
            CloseCause::Violation(_) => "violation",
            CloseCause::ConnectTimeout => "connect_timeout",
            CloseCause::AnswerTimeout => "answer_timeout",
            CloseCause::KeepAliveTimeout => "keep_alive_timeout",
            CloseCause::ConnectionLost => "connection_lost",
            _ => "other",
        };
        *self.ended.entry(name).or_default() += 1;
    }
}

/// Returns the dropped messages by cause.
pub(crate) fn dropped(dropped: &Dropped) -> [(&'static str, u64); 6] {
    [
        ("queue_full", dropped.queue_full),
        ("retained_full", dropped.retained_full),
        ("not_authorized", dropped.not_authorized),
        ("reserved_topic", dropped.reserved_topic),
        ("no_member", dropped.no_member),
        ("not_forwarded", dropped.not_forwarded),
    ]
}

/// Figures of one kind.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    help: &'static str,
    /// The name of the label, if there is one.
    label: &'static str,
    pub(crate) samples: Vec<(String, f64)>,
}

/// Returns the figures of a node.
#[cfg(feature = "cluster")]
pub(crate) fn of_node(node: &crate::cluster::OwnNode) -> Vec<Family> {
    let figures = node.figures();
    let family = |name, help, label, samples: Vec<(&str, u64)>| {
        let samples = samples.into_iter().map(|(label, value)| (label.to_owned(), value as f64));
        Family { name, help, label, samples: samples.collect() }
    };
    let sessions = vec![
        ("resumed", figures.resumed),
        ("evicted", figures.evicted),
        ("fenced", figures.fenced),
        ("adopted", figures.adopted),
    ];
    let one = |value| vec![("", value)];
    vec![
        family("mqtt_node_info", "The name of this node.", "node", vec![(node.name(), 1)]),
        family("mqtt_node_others", "Other nodes.", "", one(figures.others as u64)),
        family("mqtt_node_sessions", "Sessions of this node.", "", one(figures.owned as u64)),
        family(
            "mqtt_node_cut_off",
            "Whether clients are refused, because nothing can be stored.",
            "",
            one(figures.is_cut_off.into()),
        ),
        family("mqtt_node_moved_total", "Sessions that came or went.", "how", sessions),
        family(
            "mqtt_node_behind_total",
            "Messages for sessions that the log did not have any more.",
            "",
            one(figures.behind),
        ),
        family(
            "mqtt_node_lost_total",
            "Messages with QoS 0 that were not sent to another node, because too many waited.",
            "",
            one(figures.lost),
        ),
        family(
            "mqtt_node_appended_total",
            "Messages that were appended to the log.",
            "",
            one(figures.appended),
        ),
        family(
            "mqtt_node_entries_total",
            "Entries of sessions that were appended.",
            "",
            one(figures.entries),
        ),
    ]
}

/// Returns all figures.
pub(crate) fn families(
    stats: &Stats,
    counters: &Counters,
    bridges: &[Rc<bridge::Figures>],
) -> Vec<Family> {
    let one = |name, help, value: f64| Family {
        name,
        help,
        label: "",
        samples: vec![(String::new(), value)],
    };
    let gauge = |name, help, value: usize| one(name, help, value as f64);
    let counter = |name, help, value: u64| one(name, help, value as f64);
    let by = |name, help, label, samples: Vec<(String, u64)>| Family {
        name,
        help,
        label,
        samples: samples.into_iter().map(|(label, value)| (label, value as f64)).collect(),
    };
    let qos = |counts: [u64; 3]| {
        (0..).zip(counts).map(|(qos, n): (u8, _)| (qos.to_string(), n)).collect()
    };
    let named = |name: &dyn ToString, count: &u64| (name.to_string(), *count);
    let of_bridges = |count: &dyn Fn(&bridge::Figures) -> u64| {
        bridges.iter().map(|bridge| (bridge.name.clone(), count(bridge))).collect()
    };
    vec![
        gauge("mqtt_connections", "Open connections.", stats.connections),
        gauge("mqtt_sessions", "Sessions, with those of absent clients.", stats.sessions),
        gauge("mqtt_sessions_connected", "Sessions of connected clients.", stats.connected),
        gauge("mqtt_subscriptions", "Subscriptions.", stats.subscriptions),
        gauge("mqtt_retained_messages", "Retained messages.", stats.retained),
        gauge("mqtt_retained_bytes", "Bytes of retained messages.", stats.retained_bytes),
        counter("mqtt_received_bytes_total", "Bytes from clients.", stats.bytes_received),
        counter("mqtt_sent_bytes_total", "Bytes for clients.", stats.bytes_sent),
        by(
            "mqtt_messages_received_total",
            "Messages that clients have published.",
            "qos",
            qos(stats.messages_received),
        ),
        by(
            "mqtt_messages_queued_total",
            "Copies of messages that were queued for clients.",
            "qos",
            qos(stats.messages_queued),
        ),
        by(
            "mqtt_messages_dropped_total",
            "Dropped messages.",
            "cause",
            dropped(&stats.dropped).iter().map(|(name, count)| named(name, count)).collect(),
        ),
        counter("mqtt_clients_accepted_total", "Accepted clients.", counters.accepted),
        by(
            "mqtt_clients_refused_total",
            "Refused clients, by the reason code of CONNACK.",
            "reason",
            counters.refused.iter().map(|(reason, count)| named(reason, count)).collect(),
        ),
        by(
            "mqtt_connections_ended_total",
            "Connections that have ended.",
            "cause",
            counters.ended.iter().map(|(cause, count)| named(cause, count)).collect(),
        ),
        counter(
            "mqtt_handshakes_failed_total",
            "Failed handshakes of TLS, WebSocket and the PROXY protocol.",
            counters.handshakes_failed,
        ),
        counter(
            "mqtt_connections_closed_unanswered_total",
            "Connections beyond the limits that were closed without an answer.",
            counters.closed_unanswered,
        ),
        counter("mqtt_stored_records_total", "Records written to disk.", counters.stored_records),
        counter("mqtt_stored_batches_total", "Transactions on disk.", counters.stored_batches),
        gauge(
            "mqtt_store_fails",
            "Whether the last write to disk has failed.",
            usize::from(counters.store_fails),
        ),
        by(
            "mqtt_bridge_connected",
            "Whether the bridge is connected to the remote broker.",
            "bridge",
            of_bridges(&|bridge| bridge.is_connected.get().into()),
        ),
        by(
            "mqtt_bridge_messages_out_total",
            "Messages that the bridge has published to the remote broker.",
            "bridge",
            of_bridges(&|bridge| bridge.stats.get()[1].sent),
        ),
        by(
            "mqtt_bridge_messages_in_total",
            "Messages that the bridge has published to this broker.",
            "bridge",
            of_bridges(&|bridge| bridge.stats.get()[0].sent),
        ),
        by(
            "mqtt_bridge_messages_dropped_total",
            "Messages that the bridge could not publish.",
            "bridge",
            of_bridges(&|bridge| bridge.stats.get().iter().map(|side| side.dropped).sum()),
        ),
        one("process_cpu_seconds_total", "Processor time of the program.", cpu_seconds()),
        one("process_resident_memory_bytes", "Resident memory of the program.", resident_bytes()),
    ]
}

/// Returns figures in the text format of Prometheus.
pub(crate) fn to_text(families: &[Family]) -> String {
    let mut text = String::new();
    for Family { name, help, label, samples } in families {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (value_of_label, value) in samples {
            let _ = match *label {
                "" => writeln!(text, "{name} {value}"),
                label => writeln!(text, "{name}{{{label}=\"{value_of_label}\"}} {value}"),
            };
        }
    }
    text
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Returns 0 on systems without `/proc`.
fn resident_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.unwrap_or_default() * rustix::param::page_size() as f64
}
