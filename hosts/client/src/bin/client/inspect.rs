//! `inspect`: explains packets of captures, files, hex digits and live connections.

use crate::options::InspectOptions;
use crate::progress::{Progress, Reading};
use crate::proxy;
use anyhow::{Context as _, Result};
use mqtt_sansio_inspect::{Style, inspect, inspect_hex};
use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::process::ExitCode;

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
            false => {
                let input = File::open(file).with_context(reads)?;
                let length = input.metadata().with_context(reads)?.len();
                // The packets themselves show the progress on a terminal.
                let progress = Progress::new(!io::stdout().is_terminal());
                Box::new(Reading::new(input, length, progress))
            }
        };
        let mut out = Counted { out: io::stdout(), count: 0 };
        let valid = inspect(input, options.port, style, &mut out).with_context(reads);
        if out.count == 0 && valid.is_ok() {
            eprintln!("no MQTT packet was found; --port names the port of the server in a capture");
        }
        valid
    } else {
        inspect_hex(&options.hex.concat(), style, &mut io::stdout())
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

/// An output that counts its bytes.
struct Counted<W> {
    out: W,
    count: usize,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.count += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
