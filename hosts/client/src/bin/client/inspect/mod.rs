//! `inspect`: explains packets of captures, files, hex digits and live connections.

mod capture;
mod conversation;
mod json;
mod proxy;

pub(crate) use json::publish_properties;

use crate::options::InspectOptions;
use anyhow::{Context as _, Result, ensure};
use conversation::{Conversation, Side, Style};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read};
use std::process::ExitCode;

/// The room for one read.
const READ_SIZE: usize = 64 * 1024;

/// Explains the input, and succeeds if each packet was valid.
pub(crate) async fn run(options: InspectOptions) -> Result<ExitCode> {
    let colour = match options.color.as_str() {
        "always" => true,
        "never" => false,
        _ => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    };
    let style = Style { json: options.json, colour, version: options.protocol_version };
    if let [listen, upstream] = options.proxy.as_slice() {
        return proxy::run(listen, upstream, style).await;
    }
    let valid = if let Some(file) = &options.file {
        let reads = || format!("cannot read {}", file.display());
        let input: Box<dyn Read + Send> = match file.as_os_str() == "-" {
            true => Box::new(io::stdin()),
            false => Box::new(File::open(file).with_context(reads)?),
        };
        inspect(input, options.port, style).with_context(reads)
    } else {
        let bytes = parse_hex(&options.hex.concat())?;
        let mut conversation = Conversation::new(None, style);
        conversation.feed(Side::Unknown, &bytes, None)?;
        conversation.end()
    };
    let is_closed = |error: &anyhow::Error| {
        let error = error.root_cause().downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    match valid {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        // The reader has stopped, as `head` does.
        Err(error) if is_closed(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

/// Explains a capture, bytes, or hex digits, whichever the input looks like.
fn inspect(input: impl Read + Send, port: u16, style: Style) -> Result<bool> {
    let mut input = BufReader::with_capacity(READ_SIZE, input);
    let start = input.fill_buf()?;
    if capture::is_capture(start) {
        return capture::inspect(input, port, style);
    }
    let mut conversation = Conversation::new(None, style);
    if looks_like_hex(start) {
        let mut text = String::new();
        input.read_to_string(&mut text)?;
        conversation.feed(Side::Unknown, &parse_hex(&text)?, None)?;
        return conversation.end();
    }
    loop {
        let bytes = input.fill_buf()?;
        if bytes.is_empty() {
            return conversation.end();
        }
        conversation.feed(Side::Unknown, bytes, None)?;
        let count = bytes.len();
        input.consume(count);
    }
}

fn looks_like_hex(start: &[u8]) -> bool {
    let is_hex = |byte: &u8| byte.is_ascii_hexdigit() || b" \t\r\n:,x".contains(byte);
    // No packet begins with two digits of ASCII that announce so long a rest.
    start.len() >= 4 && start.iter().all(is_hex)
}

/// Reads hex digits, with or without spaces, colons, commas and `0x`.
fn parse_hex(text: &str) -> Result<Vec<u8>> {
    let text = text.replace("0x", "");
    let digits: Vec<_> = text.chars().filter(|letter| !" \t\r\n:,".contains(*letter)).collect();
    ensure!(digits.len() % 2 == 0, "expected two hex digits for each byte, got {}", digits.len());
    let value = |digit: char| digit.to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut bytes = Vec::new();
    for pair in digits.chunks(2) {
        let [high, low] = pair else { continue };
        let byte = value(*high).zip(value(*low)).map(|(high, low)| high << 4 | low);
        bytes.push(byte.with_context(|| format!("expected hex digits, got {high}{low}"))?);
    }
    Ok(bytes)
}
