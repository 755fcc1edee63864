//! `inspect`: explains packets of captures, files, hex digits and live connections.

use crate::options::InspectOptions;
use crate::progress::{Progress, Reading};
use crate::proxy;
use anyhow::{Context as _, Result};
use mqtt_sansio_inspect::{Style, Verdict, inspect, inspect_hex};
use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::process::ExitCode;

/// Explains the input, and succeeds if no packet was broken.
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
    let verdict = if let Some(file) = &options.file {
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
        inspect(input, options.port, style, &mut io::stdout()).with_context(reads)
    } else {
        inspect_hex(&options.hex.concat(), style, &mut io::stdout())
    };
    let is_closed = |error: &anyhow::Error| {
        let error = error.root_cause().downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    match verdict {
        Ok(Verdict::Empty) => {
            eprintln!("no MQTT packet was found; --port names the port of the server in a capture");
            Ok(ExitCode::SUCCESS)
        }
        Ok(Verdict::Valid) => Ok(ExitCode::SUCCESS),
        Ok(Verdict::Broken) => Ok(ExitCode::FAILURE),
        // The reader has stopped, as `head` does.
        Err(error) if is_closed(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}
