//! Both directions of a connection: packets, which packet answers which, and broken rules.

use crate::json;
use anyhow::Result;
use bytes::BytesMut;
use jiff::Timestamp;
use mqtt_sansio::codec::{DecodeError, Packet, Role, Rules, Version, decode, frame};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io;

/// How packets are printed.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Whether each packet is a JSON object in a line of its own.
    pub json: bool,
    /// Whether text has the colours of a terminal.
    pub colour: bool,
    /// The version before a CONNECT is seen.
    pub version: Version,
}

/// The sender of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The client.
    Client,
    /// The server.
    Server,
    /// The client or the server, in a file of bytes.
    Unknown,
}

/// The packets in an input. The greater of two verdicts is that of both inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// There is no packet, nor a part of one.
    Empty,
    /// No packet is broken. The last one of a direction can be incomplete.
    Valid,
    /// A packet is broken.
    Broken,
}

/// The bytes of a broken packet that are shown.
const SHOWN: usize = 64;

/// A connection, or bytes of one direction.
#[derive(Debug)]
pub struct Conversation {
    /// The addresses of client and server.
    name: Option<String>,
    style: Style,
    version: Version,
    directions: BTreeMap<Side, Direction>,
    /// The packets that await an answer, by their sender and packet identifier.
    open: HashMap<(Side, u16), Open>,
    verdict: Verdict,
}

#[derive(Debug, Default)]
struct Direction {
    received: BytesMut,
    /// Whether the start of the next packet is unknown, because of an error.
    is_lost: bool,
    topics: HashMap<u16, String>,
}

#[derive(Debug)]
struct Open {
    what: String,
    time: Option<Timestamp>,
}

impl Conversation {
    /// Creates a conversation without packets. The name has the addresses of client and server.
    pub fn new(name: Option<String>, style: Style) -> Self {
        Self {
            name,
            version: style.version,
            style,
            directions: BTreeMap::new(),
            open: HashMap::new(),
            verdict: Verdict::Empty,
        }
    }

    /// Explains each packet that is complete with these bytes.
    pub fn feed(
        &mut self,
        side: Side,
        bytes: &[u8],
        time: Option<Timestamp>,
        out: &mut dyn io::Write,
    ) -> Result<()> {
        let mut direction = self.directions.remove(&side).unwrap_or_default();
        if !direction.is_lost {
            direction.received.extend_from_slice(bytes);
        }
        let result = self.take_packets(side, &mut direction, time, out);
        self.directions.insert(side, direction);
        result
    }

    fn take_packets(
        &mut self,
        side: Side,
        direction: &mut Direction,
        time: Option<Timestamp>,
        out: &mut dyn io::Write,
    ) -> Result<()> {
        while !direction.is_lost {
            let frame = match frame(&direction.received, u32::MAX) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(()),
                Err(error) => {
                    direction.is_lost = true;
                    let rest = std::mem::take(&mut direction.received);
                    return self.broken(side, error, &rest, time, out);
                }
            };
            let size = frame.as_bytes().len();
            // A CONNECT names its own version.
            if let Ok(Packet::Connect(connect)) = decode(frame, Version::V5_0) {
                self.version = connect.version;
            }
            let rules = match side {
                Side::Client => Rules::new(self.version).sent_by(Role::Client),
                Side::Server => Rules::new(self.version).sent_by(Role::Server),
                Side::Unknown => Rules::new(self.version),
            };
            match decode(frame, rules) {
                Ok(packet) => {
                    let note = self.note(side, &mut direction.topics, &packet, time);
                    self.packet(side, &packet, size, &note, time, out)?;
                }
                Err(error) => {
                    let packet = frame.as_bytes();
                    self.broken(side, error, packet, time, out)?;
                }
            }
            let _ = direction.received.split_to(size);
        }
        Ok(())
    }

    /// Reports incomplete packets, and returns the verdict on all packets.
    pub fn end(&mut self, out: &mut dyn io::Write) -> Result<Verdict> {
        for (side, direction) in std::mem::take(&mut self.directions) {
            if !direction.received.is_empty() {
                let rest = &direction.received;
                let text = format!("{} bytes of an incomplete packet", rest.len());
                self.line(side, &text, "33", None, rest, out)?;
            }
        }
        Ok(self.verdict)
    }

    /// Whether there were bytes of a side.
    pub(crate) fn has_packets(&self) -> bool {
        !self.directions.is_empty()
    }

    /// Reports that bytes are missing in a capture.
    pub(crate) fn gap(
        &mut self,
        side: Side,
        time: Option<Timestamp>,
        out: &mut dyn io::Write,
    ) -> Result<()> {
        self.directions.entry(side).or_default().is_lost = true;
        self.line(side, "bytes are missing in the capture", "33", time, &[], out)
    }

    /// Returns which packet this one answers, and the topic of its alias.
    fn note(
        &mut self,
        side: Side,
        topics: &mut HashMap<u16, String>,
        packet: &Packet<'_>,
        time: Option<Timestamp>,
    ) -> String {
        let other = match side {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
            Side::Unknown => Side::Unknown,
        };
        let mut note = String::new();
        // There is at most one open packet for each packet identifier.
        match packet {
            Packet::Publish(publish) => {
                let topic = publish.topic_name.to_string();
                let topic = match publish.properties.topic_alias {
                    Some(alias) if topic.is_empty() => {
                        let known = topics.get(&alias).cloned().unwrap_or_default();
                        note = format!("topic alias {alias} is {known:?}");
                        known
                    }
                    Some(alias) => {
                        topics.insert(alias, topic.clone());
                        topic
                    }
                    None => topic,
                };
                if let Some(identifier) = publish.packet_identifier {
                    self.open.insert((side, identifier.get()), Open { what: topic, time });
                }
            }
            Packet::Subscribe(subscribe) => {
                let filters =
                    subscribe.subscriptions.iter().map(|one| one.topic_filter.to_string());
                let what = filters.collect::<Vec<_>>().join(", ");
                let identifier = subscribe.packet_identifier.get();
                self.open.insert((side, identifier), Open { what, time });
            }
            Packet::Unsubscribe(unsubscribe) => {
                let filters = unsubscribe.topic_filters.iter().map(|filter| filter.to_string());
                let what = filters.collect::<Vec<_>>().join(", ");
                let identifier = unsubscribe.packet_identifier.get();
                self.open.insert((side, identifier), Open { what, time });
            }
            Packet::Puback(ack) | Packet::Pubcomp(ack) => {
                note = self.answered(other, ack.packet_identifier.get(), time);
            }
            Packet::Suback(suback) | Packet::Unsuback(suback) => {
                note = self.answered(other, suback.packet_identifier.get(), time);
            }
            _ => {}
        }
        note
    }

    fn answered(&mut self, other: Side, identifier: u16, time: Option<Timestamp>) -> String {
        let Some(open) = self.open.remove(&(other, identifier)) else {
            return "answers no packet that was seen".to_owned();
        };
        let mut note = format!("for {}", open.what);
        if let (Some(time), Some(sent)) = (time, open.time) {
            let _ = write!(note, " after {:.1} ms", time.duration_since(sent).as_secs_f64() * 1e3);
        }
        note
    }

    fn packet(
        &mut self,
        side: Side,
        packet: &Packet<'_>,
        size: usize,
        note: &str,
        time: Option<Timestamp>,
        out: &mut dyn io::Write,
    ) -> Result<()> {
        self.verdict = self.verdict.max(Verdict::Valid);
        if self.style.json {
            let mut object = self.object(side, time, size);
            object.insert("packet".into(), packet.packet_type().to_string().into());
            object.insert("fields".into(), json::fields(packet));
            if !note.is_empty() {
                object.insert("note".into(), note.into());
            }
            return Ok(writeln!(out, "{}", json!(object))?);
        }
        let text = packet.to_string();
        let (name, fields) = text.split_once(' ').unwrap_or((&text, ""));
        let colour = match packet {
            Packet::Connect(_) | Packet::Connack(_) | Packet::Disconnect(_) | Packet::Auth(_) => {
                "35"
            }
            Packet::Publish(_) => "32",
            Packet::Pingreq | Packet::Pingresp => "90",
            _ => "36",
        };
        let mut line = self.start(side, time);
        let _ = write!(line, "{size:>6} B  {}", self.paint(colour, &format!("{name:<11}")));
        if !fields.is_empty() {
            let _ = write!(line, " {fields}");
        }
        if !note.is_empty() {
            let _ = write!(line, "  {}", self.paint("90", &format!("({note})")));
        }
        Ok(writeln!(out, "{}", line.trim_end())?)
    }

    /// Reports the rule that a packet breaks, with its place in the standard.
    fn broken(
        &mut self,
        side: Side,
        error: DecodeError,
        bytes: &[u8],
        time: Option<Timestamp>,
        out: &mut dyn io::Write,
    ) -> Result<()> {
        self.verdict = Verdict::Broken;
        let (version, code) = (self.version, error.reason_code());
        let citation = error.citation(version);
        if self.style.json {
            let mut object = self.object(side, time, bytes.len());
            object.insert("error".into(), error.to_string().into());
            object.insert("citation".into(), citation.into());
            object.insert("reason_code".into(), code.get().into());
            object.insert("bytes".into(), hex(bytes, usize::MAX, "").into());
            return Ok(writeln!(out, "{}", json!(object))?);
        }
        let text = format!("{error} [{version} {citation}], answered with {code:#04x} ({code})");
        self.line(side, &format!("broken: {text}"), "1;31", time, bytes, out)
    }

    fn line(
        &mut self,
        side: Side,
        text: &str,
        colour: &str,
        time: Option<Timestamp>,
        bytes: &[u8],
        out: &mut dyn io::Write,
    ) -> Result<()> {
        self.verdict = self.verdict.max(Verdict::Valid);
        if self.style.json {
            let mut object = self.object(side, time, bytes.len());
            object.insert("warning".into(), text.into());
            return Ok(writeln!(out, "{}", json!(object))?);
        }
        let mut line = self.start(side, time);
        let _ = write!(line, "{:>6} B  {}", bytes.len(), self.paint(colour, text));
        if !bytes.is_empty() {
            let _ = write!(line, "\n            {}", self.paint("90", &hex(bytes, SHOWN, " ")));
        }
        Ok(writeln!(out, "{line}")?)
    }

    /// Returns the start of a line: time, connection and direction.
    fn start(&self, side: Side, time: Option<Timestamp>) -> String {
        let mut start = String::new();
        if let Some(time) = time {
            let _ = write!(start, "{} ", time.strftime("%H:%M:%S.%3f"));
        }
        if let Some(name) = &self.name {
            let _ = write!(start, "{} ", self.paint("90", name));
        }
        start
            + match side {
                Side::Client => "→ ",
                Side::Server => "← ",
                Side::Unknown => "",
            }
    }

    fn object(
        &self,
        side: Side,
        time: Option<Timestamp>,
        size: usize,
    ) -> serde_json::Map<String, serde_json::Value> {
        let mut object = serde_json::Map::new();
        if let Some(time) = time {
            object.insert("time".into(), time.to_string().into());
        }
        if let Some(name) = &self.name {
            object.insert("connection".into(), name.as_str().into());
        }
        match side {
            Side::Client => object.insert("from".into(), "client".into()),
            Side::Server => object.insert("from".into(), "server".into()),
            Side::Unknown => None,
        };
        object.insert("version".into(), self.version.to_string().into());
        object.insert("size".into(), size.into());
        object
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.style.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn hex(bytes: &[u8], most: usize, between: &str) -> String {
    let shown = bytes.iter().take(most).map(|byte| format!("{byte:02x}"));
    let text = shown.collect::<Vec<_>>().join(between);
    if bytes.len() > most { text + "…" } else { text }
}
