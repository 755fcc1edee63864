//! `pub`: publishes messages from the command line, files and stdin.

use crate::connection::{Link, OUTPUT_LIMIT, READ_SIZE, Task, sleep_until_some};
use crate::options::{PayloadOptions, PubOptions};
use anyhow::{Context as _, Result};
use bytes::{Buf as _, BytesMut};
use mqtt_sansio::client::Action;
use mqtt_sansio::codec::{Publish, QoS};
use mqtt_sansio::session::{Outcome, PublishError, Published};
use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;
use std::time::Duration;
use std::{future, io, mem};
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

pub(crate) struct Publisher<'a> {
    options: &'a PubOptions,
    source: Source,
    /// The number of the last message, which is also its key.
    published: u64,
    in_flight: usize,
    failed: bool,
    progress: Progress,
}

impl<'a> Publisher<'a> {
    pub(crate) fn new(options: &'a PubOptions) -> Result<Self> {
        let (source, progress) = (Source::new(options)?, Progress::new());
        Ok(Self { options, source, published: 0, in_flight: 0, failed: false, progress })
    }

    /// Publishes as many messages as the limits allow, so that memory stays bounded. Output that
    /// waits for the socket limits QoS 0; for QoS 1 and 2 the queue of the client does, too.
    pub(crate) fn publish(&mut self, link: &mut Link) {
        let qos = self.options.connect.qos;
        while link.out.len() < OUTPUT_LIMIT {
            let Some(payload) = self.source.front() else { return };
            let publish = Publish {
                qos,
                retain: self.options.retain,
                ..Publish::new(&self.options.topic, payload)
            };
            let key = self.published + 1;
            match link.client.publish(key, &publish, link.clock.now(), &mut link.out) {
                Ok(()) => {
                    self.source.pop();
                    self.published = key;
                    self.in_flight += usize::from(qos > QoS::AtMostOnce);
                }
                // An acknowledgement makes room.
                Err(PublishError::QueueFull) => return,
                Err(error) => {
                    // Later messages would fail in the same way. Messages in flight still complete.
                    self.report(key, &error.to_string());
                    self.source = Source::Same { payload: Vec::new(), left: 0, total: 0 };
                }
            }
        }
    }

    pub(crate) fn on_published(&mut self, published: Published<'_>) {
        let Published { key, outcome, .. } = published;
        self.in_flight -= 1;
        match outcome {
            Outcome::Acknowledged { reason_code, properties } if reason_code.is_error() => {
                let reason = properties
                    .reason_string
                    .map(|reason| format!(" ({reason})"))
                    .unwrap_or_default();
                self.report(key, &format!("{reason_code}{reason}"));
            }
            Outcome::Acknowledged { reason_code, .. } => {
                log::debug!("message {key} completed: {reason_code}");
            }
            Outcome::Expired => self.report(key, "the message expired"),
            Outcome::NotAllowed(_) => {
                self.report(key, "the server does not accept its QoS, its RETAIN flag or its size");
            }
            other => self.report(key, &format!("{other:?}")),
        }
    }

    pub(crate) fn report(&mut self, key: u64, reason: &str) {
        self.failed = true;
        self.progress.clear();
        eprintln!("Error: message {key} was not published: {reason}");
    }
}

impl Task for Publisher<'_> {
    fn on_action(&mut self, action: Action<'_>, _: &mut Link) -> Result<()> {
        log::trace!("{action:?}");
        if let Action::Published(published) = action {
            self.on_published(published);
        }
        Ok(())
    }

    fn proceed(&mut self, link: &mut Link) -> Result<()> {
        if !link.client.is_connected() {
            return Ok(());
        }
        self.publish(link);
        self.progress.show(self.published - self.in_flight as u64, link.sent, self.source.total());
        if self.source.is_exhausted() && self.in_flight == 0 && link.is_flushed() {
            link.disconnect()?;
        }
        Ok(())
    }

    fn is_busy(&self, _: &Link) -> bool {
        false
    }

    async fn wait(&mut self) -> Result<()> {
        tokio::select! {
            result = self.source.read() => result.context("cannot read stdin"),
            () = sleep_until_some(self.progress.next) => Ok(()),
        }
    }

    fn interrupt(&mut self) {
        self.progress.clear();
        eprintln!("Error: interrupted");
        self.failed = true;
    }

    async fn finish(&mut self) -> Result<ExitCode> {
        self.progress.clear();
        Ok(if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// The source of the payloads.
pub(crate) enum Source {
    Same {
        payload: Vec<u8>,
        left: u64,
        /// The bytes of all payloads.
        total: u64,
    },
    Lines {
        stdin: tokio::io::Stdin,
        buffer: BytesMut,
        /// The position in the buffer of the end of the first line, or of the end of the search.
        scanned: usize,
        ended: bool,
    },
}

impl Source {
    pub(crate) fn new(options: &PubOptions) -> Result<Self> {
        let PayloadOptions { message, file, stdin_line, stdin_file, null_message: _ } =
            &options.payload;
        if *stdin_line {
            return Ok(Self::Lines {
                stdin: tokio::io::stdin(),
                buffer: BytesMut::new(),
                scanned: 0,
                ended: false,
            });
        }
        let mut payload = message.clone().unwrap_or_default().into_bytes();
        if let Some(file) = file {
            payload =
                std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        } else if *stdin_file {
            io::stdin().read_to_end(&mut payload).context("cannot read stdin")?;
        }
        let total = options.repeat.saturating_mul(payload.len() as u64);
        Ok(Self::Same { payload, left: options.repeat, total })
    }

    /// Returns the next payload, if there is one without waiting.
    pub(crate) fn front(&mut self) -> Option<&[u8]> {
        match self {
            Self::Same { payload, left, .. } => (*left > 0).then_some(payload),
            Self::Lines { buffer, scanned, ended, .. } => {
                while buffer.first() == Some(&b'\n') {
                    buffer.advance(1);
                }
                let rest = buffer.get(*scanned..)?;
                let newline = rest.iter().position(|&byte| byte == b'\n');
                *scanned += newline.unwrap_or(rest.len());
                let is_line = newline.is_some() || *ended && !buffer.is_empty();
                buffer.get(..*scanned).filter(|_| is_line)
            }
        }
    }

    /// Removes the payload that [`front`](Self::front) returned.
    pub(crate) fn pop(&mut self) {
        match self {
            Self::Same { left, .. } => *left -= 1,
            Self::Lines { buffer, scanned, .. } => buffer.advance(mem::take(scanned)),
        }
    }

    pub(crate) fn is_exhausted(&mut self) -> bool {
        self.front().is_none() && !matches!(self, Self::Lines { ended: false, .. })
    }

    pub(crate) fn total(&self) -> Option<u64> {
        if let Self::Same { total, .. } = self { Some(*total) } else { None }
    }

    /// Reads more when no complete line is left; not before, so that stdin waits for the server.
    pub(crate) async fn read(&mut self) -> io::Result<()> {
        let is_empty = self.front().is_none();
        match self {
            Self::Lines { stdin, buffer, ended, .. } if is_empty && !*ended => {
                buffer.reserve(READ_SIZE);
                *ended = stdin.read_buf(buffer).await? == 0;
                Ok(())
            }
            Self::Lines { .. } | Self::Same { .. } => future::pending().await,
        }
    }
}

/// A progress line on a terminal, for uploads of more than a second.
pub(crate) struct Progress {
    next: Option<Instant>,
    shown: bool,
}

impl Progress {
    const INTERVAL: Duration = Duration::from_millis(250);

    pub(crate) fn new() -> Self {
        Self {
            next: io::stderr().is_terminal().then(|| Instant::now() + 4 * Self::INTERVAL),
            shown: false,
        }
    }

    pub(crate) fn show(&mut self, completed: u64, sent: u64, total: Option<u64>) {
        let now = Instant::now();
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = Some(now + Self::INTERVAL);
        self.shown = true;
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let total = total.map(|total| format!(" of {:.1}", mebibytes(total))).unwrap_or_default();
        eprint!("\r{completed} messages completed, {:.1}{total} MiB sent\x1b[K", mebibytes(sent));
    }

    pub(crate) fn clear(&mut self) {
        if mem::take(&mut self.shown) {
            eprint!("\r\x1b[K");
        }
    }
}
