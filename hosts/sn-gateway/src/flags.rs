//! The flags of a gateway, which the program `sn-gateway` and the broker share.

use crate::PredefinedTopic;
use clap::{ArgAction, Args};
use mqtt_sansio::sn::{GatewayConfig, Retry};
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

/// The settings of a gateway, as flags.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct GatewayArguments {
    /// The number of this gateway in its network.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = HEADING)]
    sn_gateway_id: u8,
    /// A predefined topic of MQTT-SN: `7=room/4`. Can be repeated.
    #[arg(long, value_name = "ID=TOPIC", action = ArgAction::Append, help_heading = HEADING)]
    sn_topic: Vec<PredefinedTopic>,
    /// The address that broadcasts are sent to, such as `255.255.255.255:1884` or a multicast
    /// group. Without it, SEARCHGW is answered to the client that asked.
    #[arg(long, value_name = "ADDR:PORT", help_heading = HEADING)]
    pub sn_broadcast: Option<SocketAddr>,
    /// Seconds between two ADVERTISE messages.
    #[arg(long, value_name = "SECONDS", requires = "sn_broadcast", help_heading = HEADING)]
    sn_advertise: Option<u16>,
    /// The client identifier of the connection for messages with QoS -1.
    #[arg(long, value_name = "ID", default_value = "mqtt-sn-gateway", help_heading = HEADING)]
    sn_client_id: String,
    /// Discard messages with QoS -1.
    #[arg(long, help_heading = HEADING)]
    sn_no_qos_minus_one: bool,
    /// Seconds until a message is sent again that a client has not answered.
    #[arg(long, value_name = "SECONDS", default_value = "10", help_heading = HEADING)]
    sn_retry_interval: NonZeroU32,
    /// How often it is sent again.
    #[arg(long, value_name = "N", default_value_t = 4, help_heading = HEADING)]
    sn_retries: u8,
    /// Seconds in which a message with the same content is a copy that the network has made.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, help_heading = HEADING)]
    sn_duplicate_window: u32,
    /// Seconds that a client is left alone after it has rejected a message because of congestion.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, help_heading = HEADING)]
    sn_wait: u32,
    /// Keep Alive in seconds of the connections to the broker; 0 for none.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = HEADING)]
    sn_keep_alive: u16,
    /// Clients, with those that are disconnected.
    #[arg(long, value_name = "N", default_value = "1000", help_heading = HEADING)]
    sn_max_clients: NonZeroUsize,
    /// Clients that are connected from one address (IPv6: from one /64 network).
    #[arg(long, value_name = "N", default_value = "1000", help_heading = HEADING)]
    sn_max_clients_per_address: NonZeroUsize,
    /// Clients that can be connecting at the same time.
    #[arg(long, value_name = "N", default_value = "100", help_heading = HEADING)]
    sn_max_connecting: NonZeroUsize,
    /// Clients from one address that can be connecting at the same time.
    #[arg(long, value_name = "N", default_value = "50", help_heading = HEADING)]
    sn_max_connecting_per_address: NonZeroUsize,
    /// Clients that can begin to connect in a second [default: no limit].
    #[arg(long, value_name = "N", help_heading = HEADING)]
    sn_max_connect_rate: Option<NonZeroU32>,
    /// Clients from one address that can begin to connect in a second [default: no limit].
    #[arg(long, value_name = "N", help_heading = HEADING)]
    sn_max_connect_rate_per_address: Option<NonZeroU32>,
    /// Topic ids of a client.
    #[arg(long, value_name = "N", default_value = "256", help_heading = HEADING)]
    sn_max_topics: NonZeroUsize,
    /// Messages that are buffered for a client.
    #[arg(long, value_name = "N", default_value = "100", help_heading = HEADING)]
    sn_max_buffered_messages: NonZeroUsize,
    /// Bytes of messages that are buffered for a client.
    #[arg(long, value_name = "BYTES", default_value = "65536", help_heading = HEADING)]
    sn_max_buffered_bytes: NonZeroUsize,
    /// Bytes of the largest datagram to a client. A longer message is dropped.
    #[arg(long, value_name = "BYTES", default_value = "1400", help_heading = HEADING)]
    sn_max_datagram: NonZeroUsize,
}

const HEADING: &str = "MQTT-SN";

impl GatewayArguments {
    /// Returns the configuration of the gateway.
    #[must_use]
    pub fn config(&self) -> GatewayConfig {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let interval = seconds(self.sn_retry_interval.get());
        let config = GatewayConfig::new(self.sn_gateway_id)
            .retry(Retry { interval, count: self.sn_retries })
            .duplicate_window(seconds(self.sn_duplicate_window))
            .wait(seconds(self.sn_wait))
            .advertise(self.sn_advertise.map(|interval| seconds(interval.into())))
            .qos_minus_one((!self.sn_no_qos_minus_one).then_some(&*self.sn_client_id))
            .server_keep_alive(self.sn_keep_alive)
            .maximum_clients(self.sn_max_clients.get())
            .maximum_per_source(self.sn_max_clients_per_address.get())
            .maximum_connecting(self.sn_max_connecting.get())
            .maximum_connecting_per_source(self.sn_max_connecting_per_address.get())
            .maximum_connect_rate(self.sn_max_connect_rate)
            .maximum_connect_rate_per_source(self.sn_max_connect_rate_per_address)
            .maximum_topics(self.sn_max_topics.get())
            .maximum_buffered(self.sn_max_buffered_messages.get(), self.sn_max_buffered_bytes.get())
            .maximum_datagram(self.sn_max_datagram.get());
        PredefinedTopic::add_all(&self.sn_topic, config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        gateway: GatewayArguments,
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        let arguments = Program::parse_from(["sn-gateway"]).gateway;
        let (flags, library) = (arguments.config(), GatewayConfig::new(1));
        assert_eq!(format!("{flags:?}"), format!("{library:?}"));
    }

    #[test]
    fn each_setting_of_the_library_has_its_flag() {
        let (calls, config) =
            (include_str!("flags.rs"), include_str!("../../../src/sn/gateway/config.rs"));
        for setter in config.split("    pub fn ").skip(1) {
            let (name, parameters) = setter.split_once('(').expect("a list of parameters");
            // `main.rs` sets the credentials, and `PredefinedTopic` the topics.
            let is_other = ["credentials", "predefined_topic"].contains(&name);
            let is_called = calls.contains(&format!(".{name}(")) || is_other;
            assert!(is_called || !parameters.contains("self, "), "{name} has no flag");
        }
    }
}
