//! Predefined topics, as flags give them.

use mqtt_sansio::codec::Topic;
use mqtt_sansio::sn::GatewayConfig;
use mqtt_sansio::sn::v1_2::TopicId;
use std::str::FromStr;

/// A predefined topic, as in `7=room/4`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PredefinedTopic {
    id: TopicId,
    name: Topic,
}

impl PredefinedTopic {
    /// Adds topics to the configuration of a gateway.
    #[must_use]
    pub fn add_all(topics: &[Self], config: GatewayConfig) -> GatewayConfig {
        topics.iter().fold(config, |config, Self { id, name }| {
            // The name was checked, so the configuration accepts it.
            let with_topic = config.clone().predefined_topic(*id, name.as_text().to_str());
            with_topic.unwrap_or(config)
        })
    }
}

impl FromStr for PredefinedTopic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, name) = text.split_once('=').ok_or("expected ID=TOPIC")?;
        let id = id.parse().ok().and_then(TopicId::new);
        let id = id.ok_or("expected a topic id from 1 to 65534")?;
        let name = Topic::new(name).map_err(|_| format!("{name:?} is not a topic name"))?;
        Ok(Self { id, name })
    }
}
