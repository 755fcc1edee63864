//! `-v` and `-F`: how a message is printed.

use crate::options::PrintOptions;
use anyhow::{Context as _, Result, bail};
use jiff::Zoned;
use mqtt_sansio_client::Message;
use mqtt_sansio_client::codec::Version;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};

/// Prints messages to stdout.
pub(crate) struct Printer {
    parts: Vec<Part>,
    pretty: bool,
    version: Version,
    buffer: Vec<u8>,
}

/// A part of a format.
#[derive(Debug, PartialEq)]
enum Part {
    Text(Vec<u8>),
    /// The letter after `%`.
    Field(char),
    /// A field of `strftime`.
    Time(char),
}

/// The fields of a format.
const FIELDS: &str = "ACDEFIJPRSUXjlmpqrtx";

impl Printer {
    pub(crate) fn new(options: &PrintOptions, version: Version) -> Result<Self> {
        let format =
            options.format.as_deref().unwrap_or(if options.verbose { "%t %p" } else { "%p" });
        let mut parts = parse(format)?;
        if !options.no_newline {
            parts.push(Part::Text(b"\n".to_vec()));
        }
        Ok(Self { parts, pretty: options.pretty, version, buffer: Vec::new() })
    }

    /// Prints a message. Returns false if the reader of stdout has closed it.
    pub(crate) fn print(&mut self, message: &Message) -> Result<bool> {
        self.buffer.clear();
        let now = Zoned::now();
        for part in &self.parts {
            match part {
                Part::Text(text) => self.buffer.extend_from_slice(text),
                Part::Time(field) => {
                    let time = now.strftime(&format!("%{field}")).to_string();
                    self.buffer.extend_from_slice(time.as_bytes());
                }
                Part::Field('p') => self.buffer.extend_from_slice(message.payload()),
                Part::Field(field) => {
                    let text = self.field(*field, message, &now);
                    self.buffer.extend_from_slice(text.as_bytes());
                }
            }
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(&self.buffer).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            written => written.map(|()| true).context("cannot write to stdout"),
        }
    }

    fn field(&self, field: char, message: &Message, now: &Zoned) -> String {
        let properties = message.properties();
        match field {
            'C' => properties.content_type.map(|text| text.to_string()).unwrap_or_default(),
            'D' => {
                let data = properties.correlation_data.unwrap_or_default();
                String::from_utf8_lossy(data).into_owned()
            }
            'E' => optional(properties.message_expiry_interval),
            'F' => optional(properties.payload_format_indicator.map(u8::from)),
            'I' => now.strftime("%Y-%m-%dT%H:%M:%S%z").to_string(),
            'J' => self.json(message, parsed(message.payload()), now),
            'j' => {
                let text = String::from_utf8_lossy(message.payload());
                self.json(message, Value::from(text), now)
            }
            'l' => message.payload().len().to_string(),
            'P' => {
                let user = properties.user_properties.iter();
                let user: Vec<_> = user.map(|one| format!("{}:{}", one.name, one.value)).collect();
                user.join(" ")
            }
            'q' => message.qos().to_string(),
            'R' => properties.response_topic.map(|text| text.to_string()).unwrap_or_default(),
            'r' => u8::from(message.retain()).to_string(),
            't' => message.topic().to_owned(),
            'U' => {
                let time = now.timestamp();
                format!("{}.{:09}", time.as_second(), time.subsec_nanosecond())
            }
            'x' => hex(message.payload(), |byte, out| write!(out, "{byte:02x}")),
            'X' => hex(message.payload(), |byte, out| write!(out, "{byte:02X}")),
            // The library hides topic aliases, packet and subscription identifiers.
            _ => String::new(),
        }
    }

    fn json(&self, message: &Message, payload: Value, now: &Zoned) -> String {
        let properties = message.properties();
        let mut object = Map::new();
        object.insert("tst".into(), now.strftime("%Y-%m-%dT%H:%M:%S.%6f%z").to_string().into());
        object.insert("topic".into(), message.topic().into());
        object.insert("qos".into(), message.qos().as_u8().into());
        object.insert("retain".into(), u8::from(message.retain()).into());
        object.insert("payloadlen".into(), message.payload().len().into());
        if self.version == Version::V5_0 && !properties.is_empty() {
            object
                .insert("properties".into(), mqtt_sansio_inspect::publish_properties(&properties));
        }
        object.insert("payload".into(), payload);
        let object = json!(object);
        if self.pretty { format!("{object:#}") } else { object.to_string() }
    }
}

fn optional(number: Option<impl ToString>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

/// Returns the payload as a value if it is JSON, otherwise as text.
fn parsed(payload: &[u8]) -> Value {
    let text = || String::from_utf8_lossy(payload).into();
    serde_json::from_slice(payload).unwrap_or_else(|_| text())
}

fn hex(bytes: &[u8], write: impl Fn(u8, &mut String) -> std::fmt::Result) -> String {
    let mut out = String::new();
    for byte in bytes {
        let _ = write(*byte, &mut out);
    }
    out
}

/// Reads a format of `mosquitto_sub`.
fn parse(format: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut text = Vec::new();
    let mut letters = format.chars();
    let mut end_text = |text: &mut Vec<u8>, part| {
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(text)));
        }
        parts.extend(part);
    };
    while let Some(letter) = letters.next() {
        match (letter, letters.clone().next()) {
            ('%', Some('%')) => text.push(b'%'),
            ('%', Some('@')) => {
                letters.next();
                let Some(field) = letters.next() else { bail!("expected a letter after %@") };
                end_text(&mut text, Some(Part::Time(field)));
                continue;
            }
            ('%', Some(field)) if FIELDS.contains(field) => {
                end_text(&mut text, Some(Part::Field(field)));
            }
            ('%', None) => bail!("expected one of {FIELDS}, % or @ after the last %"),
            ('%', Some(other)) => {
                bail!("expected one of {FIELDS}, % or @ after %, got {other:?}")
            }
            ('\\', Some('n')) => text.push(b'\n'),
            ('\\', Some('t')) => text.push(b'\t'),
            ('\\', Some('r')) => text.push(b'\r'),
            ('\\', Some('a')) => text.push(7),
            ('\\', Some('e')) => text.push(27),
            ('\\', Some('0')) => text.push(0),
            ('\\', Some('v')) => text.push(11),
            ('\\', Some('\\')) => text.push(b'\\'),
            ('\\', None) => bail!("expected one of nrtaev0\\ after the last \\"),
            ('\\', Some(other)) => bail!("expected one of nrtaev0\\ after \\, got {other:?}"),
            (other, _) => {
                text.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
        }
        letters.next();
    }
    end_text(&mut text, None);
    Ok(parts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    #[test]
    fn format_is_text_fields_and_times() {
        let text = |text: &str| Part::Text(text.into());
        assert_eq!(
            parse("%t: %p\\n").unwrap(),
            [Part::Field('t'), text(": "), Part::Field('p'), text("\n")]
        );
        assert_eq!(parse("100 %%ü").unwrap(), [text("100 %ü")]);
        assert_eq!(parse("%@Y%x").unwrap(), [Part::Time('Y'), Part::Field('x')]);
        for format in ["%", "%k", "\\q", "%@"] {
            assert!(parse(format).is_err(), "{format}");
        }
    }
}
