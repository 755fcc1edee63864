//! `rr`: publishes a request and prints the responses.

use crate::format::Printer;
use crate::options::RrOptions;
use crate::properties::Properties;
use crate::publish::payload;
use crate::{TIMED_OUT, elapsed, interrupted};
use anyhow::{Context as _, Result, bail};
use mqtt_sansio_client::codec::{Publish, PublishProperties, Version};
use mqtt_sansio_client::{Client, ClientConfig};
use std::process::ExitCode;

pub(crate) async fn run(options: RrOptions) -> Result<ExitCode> {
    let connect = &options.connect;
    let printer = Printer::new(&options.print, connect.protocol_version)?;
    let payload = payload(&options.payload)?;
    let properties = connect.properties_of(&["publish"])?;
    let client = connect.options(ClientConfig::new())?.connect().await?;
    let code = tokio::select! {
        code = request(&options, &client, &properties, printer, &payload) => code,
        () = elapsed(options.print.seconds) => {
            connect.report("Timed out");
            Ok(TIMED_OUT)
        }
        () = interrupted() => Ok(1),
        ended = client.closed() => Err(ended.into()),
    };
    connect.disconnect(&client).await?;
    Ok(ExitCode::from(code?))
}

async fn request(
    options: &RrOptions,
    client: &Client,
    properties: &Properties,
    mut printer: Printer,
    payload: &[u8],
) -> Result<u8> {
    let connect = &options.connect;
    let topic = connect.topic(options.topic.as_ref())?;
    let subscribing = client.subscribe(&options.response_topic, connect.qos);
    let mut responses = subscribing.await.context("cannot subscribe")?;
    let user = properties.user("publish");
    // Before 5.0, the responder must already know the response topic.
    let properties = match connect.protocol_version {
        Version::V5_0 => {
            let response_topic = Some(options.response_topic.as_str().into());
            PublishProperties { response_topic, ..properties.publish(&user)? }
        }
        _ => PublishProperties::default(),
    };
    let publish = Publish { qos: connect.qos, properties, ..Publish::new(&topic, payload) };
    client.publish(publish).await?.await?;
    for _ in 0..options.print.count.unwrap_or(1) {
        let Some(response) = responses.recv().await else { bail!("the subscription has ended") };
        let correlation_data = response.properties().correlation_data;
        let is_other = correlation_data != properties.correlation_data;
        if is_other && connect.protocol_version == Version::V5_0 {
            connect.report("Warning: the response has other correlation data");
        }
        if !printer.print(&response)? {
            break;
        }
    }
    Ok(0)
}
