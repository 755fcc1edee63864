//! `pub`: publishes messages from the command line, files and stdin.

use crate::interrupted;
use crate::options::{ConnectOptions, PayloadOptions, PubOptions};
use crate::progress::{Progress, of};
use anyhow::{Context as _, Result};
use mqtt_sansio_client::codec::Publish;
use mqtt_sansio_client::{Client, ClientConfig, Delivery};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// The most messages whose outcome was not awaited yet.
const MOST_OPEN: usize = 1_000;

/// The size of all messages from which the progress is shown in bytes, not in messages.
const LARGE: u64 = 1024 * 1024;

pub(crate) async fn run(options: PubOptions) -> Result<ExitCode> {
    let connect = &options.connect;
    let fixed = if options.payload.stdin_line { None } else { Some(payload(&options.payload)?) };
    let topic = connect.topic(options.topic.as_ref())?;
    let properties = connect.properties_of(&["publish"])?;
    let user = properties.user("publish");
    let publish = Publish {
        qos: connect.qos,
        retain: options.retain,
        properties: properties.publish(&user)?,
        ..Publish::new(&topic, b"")
    };
    let client = connect.options(ClientConfig::new())?.connect().await?;
    let settled = Cell::new(0);
    let mut publisher = Publisher {
        client: &client,
        options: connect,
        publish,
        open: VecDeque::new(),
        count: 0,
        failed: false,
        settled: &settled,
    };
    let total = fixed.as_ref().map(|payload| payload.len() as u64 * options.repeat);
    let text = || match total {
        Some(total) if total >= LARGE => format!("{} sent", of(client.bytes_written(), total)),
        _ => format!("{} messages completed", settled.get()),
    };
    let mut progress = Progress::new(connect.shows_progress());
    let published = async {
        match &fixed {
            Some(payload) => {
                for number in 0..options.repeat {
                    if number > 0 && options.repeat_delay > 0.0 {
                        tokio::time::sleep(Duration::from_secs_f64(options.repeat_delay)).await;
                    }
                    publisher.send(payload).await?;
                }
            }
            None => {
                let mut lines = BufReader::new(tokio::io::stdin());
                let mut line = Vec::new();
                while lines.read_until(b'\n', &mut line).await.context("cannot read stdin")? > 0 {
                    let payload = line.strip_suffix(b"\n").unwrap_or(&line);
                    if !payload.is_empty() {
                        publisher.send(payload).await?;
                    }
                    line.clear();
                }
            }
        }
        publisher.finish().await;
        anyhow::Ok(publisher.failed)
    };
    let failed = tokio::select! {
        failed = published => failed,
        () = interrupted() => {
            connect.report("Error: interrupted");
            Ok(true)
        }
        ended = client.closed() => Err(ended.into()),
        () = progress.repeat(text) => Ok(false),
    };
    drop(progress);
    connect.disconnect(&client).await?;
    Ok(if failed? { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Returns the payload of the flags.
pub(crate) fn payload(options: &PayloadOptions) -> Result<Vec<u8>> {
    if let Some(file) = &options.file {
        return std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    }
    let mut payload = options.message.clone().unwrap_or_default().into_bytes();
    if options.stdin_file {
        io::stdin().read_to_end(&mut payload).context("cannot read stdin")?;
    }
    Ok(payload)
}

struct Publisher<'a> {
    client: &'a Client,
    options: &'a ConnectOptions,
    publish: Publish<'a>,
    /// The messages whose outcome is not known, in their order, with their numbers.
    open: VecDeque<(u64, Delivery)>,
    count: u64,
    failed: bool,
    /// The number of the last message whose outcome is known.
    settled: &'a Cell<u64>,
}

impl Publisher<'_> {
    async fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.count += 1;
        let delivery = self.client.publish(Publish { payload, ..self.publish }).await;
        let delivery =
            delivery.with_context(|| format!("cannot publish message {}", self.count))?;
        self.open.push_back((self.count, delivery));
        if self.open.len() >= MOST_OPEN {
            self.settle_first().await;
        }
        Ok(())
    }

    /// Waits for the outcome of the first open message.
    async fn settle_first(&mut self) {
        let Some((number, delivery)) = self.open.pop_front() else { return };
        match delivery.await {
            Ok(answer) => tracing::debug!("message {number}: {answer}"),
            Err(error) => {
                self.failed = true;
                self.options.report(&format!("Error: message {number} was not published: {error}"));
            }
        }
        self.settled.set(number);
    }

    async fn finish(&mut self) {
        while !self.open.is_empty() {
            self.settle_first().await;
        }
        // QoS 0 has no outcome.
        self.client.flush().await;
    }
}
