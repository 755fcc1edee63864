//! The kinds of subscriptions that a server offers.

use crate::codec::{
    ConnackProperties, ReasonCode, SubscribeProperties, Subscription, TopicFilter, Version,
};

/// The kinds of subscriptions that a CONNACK says are available. [5.0 §3.2.2.3.11 to §3.2.2.3.13]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Available {
    pub(crate) wildcard_subscription: bool,
    pub(crate) subscription_identifier: bool,
    pub(crate) shared_subscription: bool,
}

impl Available {
    /// The default if CONNACK omits the properties.
    pub(crate) const ALL: Self = Self {
        wildcard_subscription: true,
        subscription_identifier: true,
        shared_subscription: true,
    };

    /// Returns what a CONNACK states.
    pub(crate) fn of_connack(properties: &ConnackProperties<'_>) -> Self {
        Self {
            wildcard_subscription: properties.wildcard_subscription_available.unwrap_or(true),
            subscription_identifier: properties.subscription_identifier_available.unwrap_or(true),
            shared_subscription: properties.shared_subscription_available.unwrap_or(true),
        }
    }

    /// Refuses a subscription whose kind is not available.
    pub(crate) fn check(
        self,
        subscription: &Subscription<'_>,
        properties: &SubscribeProperties<'_>,
        version: Version,
    ) -> Result<(), ReasonCode> {
        if properties.subscription_identifier.is_some() && !self.subscription_identifier {
            return Err(ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED);
        }
        let filter = TopicFilter::new(subscription.topic_filter, version)
            .map_err(|_| ReasonCode::TOPIC_FILTER_INVALID)?;
        if filter.share_name().is_some() && !self.shared_subscription {
            return Err(ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
        }
        if filter.has_wildcard() && !self.wildcard_subscription {
            return Err(ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED);
        }
        Ok(())
    }
}
