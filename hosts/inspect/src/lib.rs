//! Explains MQTT packets: fields, properties, sizes, which packet answers which, and for a broken
//! packet the rule with its place in the standard. The program `client inspect` and the page of
//! `hosts/web` show the same.
//!
//! Passwords and authentication data are never shown.

mod capture;
mod conversation;
mod json;

pub use conversation::{Conversation, Side, Style, Verdict};
pub use json::publish_properties;

use anyhow::{Context as _, Result, ensure};
use std::io::{BufRead as _, BufReader, Read, Write};

/// The room for one read.
const READ_SIZE: usize = 64 * 1024;

/// Explains a capture, bytes, or hex digits: the start of the input decides which. In a capture,
/// the port shows which side is the server.
pub fn inspect(
    input: impl Read + Send,
    port: u16,
    style: Style,
    out: &mut dyn Write,
) -> Result<Verdict> {
    let mut input = BufReader::with_capacity(READ_SIZE, input);
    let start = input.fill_buf()?;
    if capture::is_capture(start) {
        return capture::inspect(input, port, style, out);
    }
    if looks_like_hex(start) {
        let mut text = String::new();
        input.read_to_string(&mut text)?;
        return inspect_hex(&text, style, out);
    }
    let mut conversation = Conversation::new(None, style);
    loop {
        let bytes = input.fill_buf()?;
        if bytes.is_empty() {
            return conversation.end(out);
        }
        conversation.feed(Side::Unknown, bytes, None, out)?;
        let count = bytes.len();
        input.consume(count);
    }
}

/// Explains hex digits.
pub fn inspect_hex(text: &str, style: Style, out: &mut dyn Write) -> Result<Verdict> {
    let mut conversation = Conversation::new(None, style);
    conversation.feed(Side::Unknown, &parse_hex(text)?, None, out)?;
    conversation.end(out)
}

fn looks_like_hex(start: &[u8]) -> bool {
    let is_hex = |byte: &u8| byte.is_ascii_hexdigit() || b" \t\r\n:,x".contains(byte);
    // No packet has only such bytes: two digits are a topic length beyond the packet, and no reason
    // code is a digit.
    start.len() >= 4 && start.iter().all(is_hex)
}

/// Reads hex digits, with or without spaces, colons, commas and `0x`.
fn parse_hex(text: &str) -> Result<Vec<u8>> {
    let text = text.replace("0x", "");
    let digits: Vec<_> = text.chars().filter(|letter| !" \t\r\n:,".contains(*letter)).collect();
    let count = digits.len();
    ensure!(count % 2 == 0, "expected two hex digits for each byte, got {count} digits in all");
    let value = |digit: char| digit.to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut bytes = Vec::new();
    for pair in digits.chunks(2) {
        let [high, low] = pair else { continue };
        let byte = value(*high).zip(value(*low)).map(|(high, low)| high << 4 | low);
        bytes.push(byte.with_context(|| format!("expected hex digits, got {high}{low}"))?);
    }
    Ok(bytes)
}
