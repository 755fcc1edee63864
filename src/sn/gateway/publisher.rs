//! Messages with QoS −1, which need no connection of the client. [SN §6.8] [SN §7.1]

use super::config::GatewayConfig;
use super::output::Context;
use super::uplink::Uplink;
use super::{Event, PUBLISHER};
use crate::client::{Action, ClientConfig};
use crate::codec::{Connect, Publish as MqttPublish, Topic, Version};
use crate::sn::v1_2::{Publish, TopicRef};
use crate::time::Instant;
use core::time::Duration;

/// The time between a connection that has failed and the next attempt.
const PAUSE: Duration = Duration::from_secs(10);

/// The connection to the server that carries the messages with QoS −1 of all clients. It is opened
/// by the first message.
pub(super) struct Publisher {
    pub(super) uplink: Uplink,
    paused_until: Instant,
    pub(super) timer: Option<Instant>,
}

impl Publisher {
    pub(super) fn new(config: &GatewayConfig) -> Self {
        let (messages, bytes) = config.maximum_buffered;
        let client = ClientConfig::new().maximum_queued(messages, bytes);
        Self { uplink: Uplink::new(client), paused_until: Instant::default(), timer: None }
    }

    /// Publishes a message with QoS 0. While there is no connection, it waits for one.
    pub(super) fn publish<P>(&mut self, publish: &Publish<'_>, context: &mut Context<'_, P>) {
        let Some(client_id) = &context.config.qos_minus_one else {
            context.stats.ignored += 1;
            return;
        };
        let name = match publish.topic {
            TopicRef::Predefined(id) => context.config.predefined.get(&id).map(Topic::as_text),
            TopicRef::Normal(_) | TopicRef::Short(_) => publish.topic.short_name().map(Into::into),
        };
        let now = context.now;
        let is_open = self.uplink.is_open();
        let has_room = !self.uplink.client.is_connected() || self.uplink.is_ready();
        let is_sent = name.filter(|_| has_room).is_some_and(|name| {
            let message =
                MqttPublish { retain: publish.retain, ..MqttPublish::new(name, publish.data) };
            let Uplink { client, out, .. } = &mut self.uplink;
            client.publish(0, &message, now, out).is_ok()
        });
        if is_sent {
            context.stats.published += 1;
        } else {
            context.stats.dropped += 1;
        }
        if is_sent && !is_open && self.uplink.link().is_none() && self.paused_until <= now {
            let connect = Connect {
                clean_start: true,
                keep_alive: context.config.server_keep_alive,
                user_name: context.config.user_name.as_deref().map(Into::into),
                password: context.config.password.as_deref(),
                ..Connect::new(Version::V3_1_1, &**client_id)
            };
            if let Ok(link) = self.uplink.connect(PUBLISHER, &connect, now) {
                context.output.events.push_back(Event::Open(link));
            }
        }
    }

    /// Consumes packets of the server.
    pub(super) fn handle_input<P>(&mut self, input: &mut &[u8], context: &mut Context<'_, P>) {
        loop {
            let Uplink { client, out, .. } = &mut self.uplink;
            match client.handle_input(input, context.now, out) {
                None => return,
                Some(Action::Closed(_)) => self.end(context),
                Some(_) => {}
            }
        }
    }

    pub(super) fn handle_timeout<P>(&mut self, context: &mut Context<'_, P>) {
        let Uplink { client, out, .. } = &mut self.uplink;
        if let Some(Action::Closed(_)) = client.handle_timeout(context.now, out) {
            self.end(context);
        }
    }

    /// Ends the connection because the gateway stops.
    pub(super) fn shut_down<P>(&mut self, context: &mut Context<'_, P>) {
        self.uplink.disconnect(context.now);
        self.end(context);
    }

    /// Handles the end of the transport, which the host has closed.
    pub(super) fn on_closed<P>(&mut self, context: &mut Context<'_, P>) {
        self.end(context);
        self.uplink.set_closed();
    }

    fn end<P>(&mut self, context: &mut Context<'_, P>) {
        while self.uplink.next_ending().is_some() {}
        if let Some(link) = self.uplink.set_closing() {
            self.paused_until = context.now + PAUSE;
            context.output.events.push_back(Event::Close(link));
        }
    }
}
