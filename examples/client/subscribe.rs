//! `sub`: prints messages to stdout.

use crate::connection::{FAREWELL_TIMEOUT, Link, Task, sleep_until_some};
use crate::options::SubOptions;
use anyhow::{Context as _, Result, anyhow};
use bytes::{Buf as _, BytesMut};
use mqtt_sansio::client::Action;
use mqtt_sansio::codec::{
    ReasonCode, Suback, SubscribeProperties, Subscription, UnsubscribeProperties,
};
use mqtt_sansio::session::{AckToken, Received};
use std::future;
use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout};

/// Bytes that can wait for stdout, or for a server that does not read its acknowledgements. Above
/// this, the program does not read the socket.
const PRINT_LIMIT: usize = 1024 * 1024;
/// The exit code of `mosquitto_sub` when the time of `-W` is over.
const EXIT_TIMED_OUT: u8 = 27;

pub(crate) struct Subscriber<'a> {
    options: &'a SubOptions,
    stdout: tokio::io::Stdout,
    /// Bytes to print.
    printing: BytesMut,
    /// Whether some bytes have not reached stdout yet.
    is_dirty: bool,
    /// Tokens of messages to acknowledge after they are printed.
    tokens: Vec<AckToken>,
    count: u64,
    expires_at: Option<Instant>,
    /// The exit code of the program, once no more messages are to be printed.
    exit: Option<u8>,
}

impl<'a> Subscriber<'a> {
    pub(crate) fn new(options: &'a SubOptions) -> Self {
        let (stdout, printing, tokens) = (tokio::io::stdout(), BytesMut::new(), Vec::new());
        Self {
            options,
            stdout,
            printing,
            is_dirty: false,
            tokens,
            count: 0,
            expires_at: None,
            exit: None,
        }
    }

    pub(crate) fn subscribe(&mut self, link: &mut Link) -> Result<()> {
        let SubOptions { connect, topic, unsubscribe, seconds, .. } = self.options;
        self.expires_at =
            seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
        let now = link.clock.now();
        if !topic.is_empty() {
            let subscriptions: Vec<_> =
                topic.iter().map(|filter| Subscription::new(filter, connect.qos)).collect();
            let properties = SubscribeProperties::default();
            link.client
                .subscribe(0, &subscriptions, properties, now, &mut link.out)
                .context("cannot subscribe")?;
        }
        if !unsubscribe.is_empty() {
            let filters: Vec<_> = unsubscribe.iter().map(|filter| filter.as_str().into()).collect();
            let properties = UnsubscribeProperties::default();
            link.client
                .unsubscribe(0, &filters, properties, now, &mut link.out)
                .context("cannot unsubscribe")?;
        }
        Ok(())
    }

    pub(crate) fn on_subscribed(&self, suback: &Suback<'_>) -> Result<()> {
        let refused = report_refused("subscription to", &self.options.topic, suback);
        if refused == self.options.topic.len() {
            Err(anyhow!("the server refused all subscriptions"))
        } else {
            Ok(())
        }
    }

    pub(crate) fn on_message(&mut self, message: &Received<'_>) {
        if self.exit.is_some() {
            // Not acknowledged: the server redelivers it if it keeps the session.
            return;
        }
        if self.options.retained_only && !message.retain {
            self.exit = Some(0);
            return;
        }
        self.tokens.extend(message.token);
        if self.options.no_retained && message.retain {
            return;
        }
        self.print(message);
        self.count += 1;
        if Some(self.count) == self.options.count {
            self.exit = Some(0);
        }
    }

    pub(crate) fn print(&mut self, message: &Received<'_>) {
        if self.options.verbose {
            self.printing.extend_from_slice(message.topic_name.as_text().as_bytes());
            self.printing.extend_from_slice(b" ");
        }
        self.printing.extend_from_slice(message.payload);
        if !self.options.no_newline {
            self.printing.extend_from_slice(b"\n");
        }
        self.is_dirty = true;
    }

    /// Writes the bytes to print. A dropped call is continued by the next one.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        let result = async {
            while self.printing.has_remaining() {
                self.stdout.write_buf(&mut self.printing).await?;
            }
            self.stdout.flush().await
        };
        match result.await {
            // The reader has stopped, as `head` does.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.printing.clear();
                self.tokens.clear();
                self.exit = Some(0);
            }
            result => result.context("cannot write to stdout")?,
        }
        self.is_dirty = false;
        Ok(())
    }
}

impl Task for Subscriber<'_> {
    fn on_action(&mut self, action: Action<'_>, link: &mut Link) -> Result<()> {
        match action {
            Action::Message(message) => {
                log::debug!(
                    "{} bytes to {} with {:?}",
                    message.payload.len(),
                    message.topic_name,
                    message.qos
                );
                self.on_message(&message);
            }
            Action::Connected(connack) => {
                log::debug!("{connack:?}");
                self.subscribe(link)?;
            }
            Action::Subscribed(_, suback) => self.on_subscribed(&suback)?,
            Action::Unsubscribed(_, unsuback) => {
                report_refused("unsubscription from", &self.options.unsubscribe, &unsuback);
            }
            other => log::debug!("{other:?}"),
        }
        Ok(())
    }

    fn proceed(&mut self, link: &mut Link) -> Result<()> {
        if !self.is_dirty {
            for token in self.tokens.drain(..) {
                link.client.acknowledge(
                    token,
                    ReasonCode::SUCCESS,
                    link.clock.now(),
                    &mut link.out,
                )?;
            }
        }
        match self.exit {
            Some(EXIT_TIMED_OUT) => link.disconnect(),
            Some(_) if !self.is_dirty => link.disconnect(),
            _ => Ok(()),
        }
    }

    fn is_busy(&self, link: &Link) -> bool {
        self.printing.len() >= PRINT_LIMIT || link.out.len() >= PRINT_LIMIT
    }

    async fn wait(&mut self) -> Result<()> {
        let expires_at = self.expires_at;
        tokio::select! {
            result = self.flush(), if self.is_dirty => result,
            () = sleep_until_some(expires_at), if self.exit.is_none() => {
                eprintln!("Timed out");
                self.exit = Some(EXIT_TIMED_OUT);
                Ok(())
            }
            else => future::pending().await,
        }
    }

    fn interrupt(&mut self) {
        self.exit = Some(0);
    }

    async fn finish(&mut self) -> Result<ExitCode> {
        // Messages received before the connection was lost are printed, however long that takes.
        // After a signal, or at a limit, printing has a time limit.
        let limit = if self.exit.is_some() { FAREWELL_TIMEOUT } else { Duration::MAX };
        timeout(limit, self.flush()).await.unwrap_or(Ok(()))?;
        Ok(ExitCode::from(self.exit.unwrap_or_default()))
    }
}

/// Reports the refused filters and returns their number.
pub(crate) fn report_refused(what: &str, filters: &[String], suback: &Suback<'_>) -> usize {
    let refused = filters
        .iter()
        .zip(suback.reason_codes.iter())
        .filter(|(_, reason_code)| reason_code.is_error());
    refused
        .inspect(|(filter, reason_code)| {
            eprintln!("Error: the server refused the {what} {filter}: {reason_code}");
        })
        .count()
}
