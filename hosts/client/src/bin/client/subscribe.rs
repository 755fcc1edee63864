//! `sub`: prints messages to stdout.

use crate::format::Printer;
use crate::options::SubOptions;
use crate::properties::Properties;
use crate::{TIMED_OUT, elapsed, interrupted};
use anyhow::{Context as _, Result, bail};
use futures_util::future::OptionFuture;
use mqtt_sansio_client::codec::{Filter, Publish, QoS, ReasonCode, Subscription, Text};
use mqtt_sansio_client::{Client, ClientConfig, Message, Messages};
use std::process::ExitCode;

pub(crate) async fn run(options: SubOptions) -> Result<ExitCode> {
    let connect = &options.connect;
    let printer = Printer::new(&options.print, connect.protocol_version)?;
    // A message is acknowledged when it is printed.
    let mut client = connect.options(ClientConfig::new())?.manual_acknowledgement(true);
    let topics = connect.topics(&options.topic)?;
    let properties = connect.properties_of(&["subscribe", "unsubscribe"])?;
    let mut messages = None;
    if !topics.is_empty() {
        let subscriptions: Vec<_> =
            topics.iter().map(|topic| Subscription::new(topic, connect.qos)).collect();
        let user = properties.user("subscribe");
        let subscribed = client.subscribe_with(&subscriptions, properties.subscribe(&user)?);
        messages = Some(subscribed.context("cannot subscribe")?);
    }
    // A session that is resumed can have other filters.
    let streams = Streams { messages, others: client.others() };
    let client = client.connect().await?;
    let code = tokio::select! {
        code = receive(&options, &client, printer, streams) => code,
        () = elapsed(options.print.seconds) => {
            connect.report("Timed out");
            Ok(TIMED_OUT)
        }
        () = interrupted() => Ok(0),
        ended = client.closed() => Err(ended.into()),
    };
    connect.disconnect(&client).await?;
    Ok(ExitCode::from(code?))
}

struct Streams {
    messages: Option<Messages>,
    others: Messages,
}

impl Streams {
    async fn recv(&mut self) -> Option<Message> {
        let Some(messages) = &mut self.messages else { return self.others.recv().await };
        tokio::select! {
            message = messages.recv() => message,
            message = self.others.recv() => message,
        }
    }
}

async fn receive(
    options: &SubOptions,
    client: &Client,
    printer: Printer,
    mut streams: Streams,
) -> Result<u8> {
    let connect = &options.connect;
    let filter_out: Result<Vec<Filter>, _> =
        options.filter_out.iter().map(|filter| filter.parse()).collect();
    let filter_out = filter_out.context("cannot use -T")?;
    let mut subscriber = Subscriber { options, client, printer, filter_out, count: 0 };
    let properties = connect.properties()?;
    if !options.unsubscribe.is_empty() {
        let filters: Vec<_> = options.unsubscribe.iter().map(Text::from).collect();
        let user = properties.user("unsubscribe");
        let codes = client.unsubscribe_with(&filters, Properties::unsubscribe(&user)).await?;
        for (filter, code) in filters.iter().zip(codes).filter(|(_, code)| code.is_error()) {
            connect.report(&format!("Error: the server did not unsubscribe from {filter}: {code}"));
        }
    }
    let mut answer = streams.messages.as_mut().map(|messages| Box::pin(messages.answer()));
    loop {
        let message = tokio::select! {
            biased;
            answered = OptionFuture::from(answer.as_mut()), if answer.is_some() => {
                answer = None;
                // The library reports each filter that is refused.
                answered.transpose().context("cannot subscribe")?;
                if options.exit_after_suback {
                    return Ok(0);
                }
                continue;
            }
            message = streams.recv() => message,
        };
        let Some(message) = message else { bail!("the server ended the subscription") };
        if let Some(code) = subscriber.on_message(&message).await? {
            return Ok(code);
        }
    }
}

struct Subscriber<'a> {
    options: &'a SubOptions,
    client: &'a Client,
    printer: Printer,
    filter_out: Vec<Filter>,
    count: u64,
}

impl Subscriber<'_> {
    /// Returns the exit code after the last message.
    async fn on_message(&mut self, message: &Message) -> Result<Option<u8>> {
        let options = self.options;
        if options.retained_only && !message.retain() {
            return Ok(Some(0));
        }
        let mut filters = self.filter_out.iter();
        let is_hidden = options.print.no_retained && message.retain()
            || filters.any(|filter| filter.as_topic_filter().matches(message.topic()));
        let is_printed = !is_hidden;
        if is_printed && options.remove_retained && message.retain() {
            let remove = Publish { retain: true, ..Publish::new(message.topic(), b"") };
            let remove = Publish { qos: QoS::AtLeastOnce, ..remove };
            self.client.publish(remove).await?.await?;
        }
        if is_printed && !self.printer.print(message)? {
            // The reader has stopped, as `head` does.
            return Ok(Some(0));
        }
        if let Err(error) = message.acknowledge(ReasonCode::SUCCESS) {
            tracing::debug!("{error}");
        }
        self.count += u64::from(is_printed);
        Ok((Some(self.count) == options.print.count).then_some(0))
    }
}
