//! Subscriptions, and the SUBSCRIBE and UNSUBSCRIBE packets that are not answered.

use super::{Core, RequestResult};
use crate::error::RequestError;
use crate::queue::Sender;
use mqtt_sansio::codec::{
    EncodeError, Filter, OwnedPacket, Packet, PacketIdentifier, ReasonCode, Sequence, Suback,
    Subscribe, SubscribeProperties, Subscription, SubscriptionIdentifier, Text, Unsubscribe,
    UnsubscribeProperties, Version,
};
use mqtt_sansio::session;
use tokio::sync::oneshot;
use tracing::{debug, warn};

/// A subscription that the client keeps.
pub(crate) struct Subscribed {
    /// The SUBSCRIBE, with any packet identifier.
    packet: OwnedPacket,
    /// The filters that are not unsubscribed, with the identifiers that the server has for them.
    pub(super) filters: Vec<(Filter, Option<SubscriptionIdentifier>)>,
    /// The filters of the SUBSCRIBE that is not answered.
    asked: Vec<Filter>,
    pub(super) sender: Sender,
    pub(super) progress: Progress,
    waiter: Option<oneshot::Sender<RequestResult>>,
}

pub(super) struct Unsubscribing {
    packet: OwnedPacket,
    progress: Progress,
    pub(super) waiter: oneshot::Sender<RequestResult>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The packet must be sent.
    Due,
    /// The packet was sent, with this key.
    Sent(u64),
    /// The server has the subscription.
    Active,
}

impl Core {
    pub(crate) fn subscribe(
        &mut self,
        subscriptions: &[Subscription<'_>],
        properties: SubscribeProperties<'_>,
        sender: Sender,
    ) -> Result<oneshot::Receiver<RequestResult>, RequestError> {
        self.check_open()?;
        let (waiter, answer) = oneshot::channel();
        let version = self.version();
        let subscribed = Subscribed::new(version, subscriptions, properties, sender, Some(waiter))?;
        // Without this, each stream that was dropped would stay in the list.
        self.subscriptions.retain(|subscribed| !subscribed.sender.is_closed());
        self.subscriptions.push(subscribed);
        self.send_requests();
        Ok(answer)
    }

    pub(crate) fn unsubscribe(
        &mut self,
        filters: &[Text<'_>],
        properties: UnsubscribeProperties<'_>,
    ) -> Result<oneshot::Receiver<RequestResult>, RequestError> {
        self.check_open()?;
        let packet_identifier = PacketIdentifier::new(1).ok_or(RequestError::Closed)?;
        let packet = Unsubscribe { properties, ..Unsubscribe::new(packet_identifier, filters) };
        let packet = OwnedPacket::new(&packet.into(), self.version())?;
        for subscribed in &mut self.subscriptions {
            subscribed.filters.retain(|(filter, _)| !filters.contains(&filter.as_text()));
        }
        self.subscriptions.retain(|subscribed| !subscribed.filters.is_empty());
        // A call that is dropped and repeated while there is no connection leaves one UNSUBSCRIBE.
        self.unsubscriptions.retain(|one| {
            one.progress != Progress::Due || !one.waiter.is_closed() || one.packet != packet
        });
        let (waiter, answer) = oneshot::channel();
        self.unsubscriptions.push(Unsubscribing { packet, progress: Progress::Due, waiter });
        self.send_requests();
        Ok(answer)
    }

    /// Sends each SUBSCRIBE and UNSUBSCRIBE that is due.
    pub(super) fn send_requests(&mut self) {
        if !self.machine.is_connected() {
            return;
        }
        let is_due = |progress| progress == Progress::Due;
        for index in 0..self.subscriptions.len() {
            if self.subscriptions.get(index).is_some_and(|one| is_due(one.progress)) {
                self.send_subscribe(index);
            }
        }
        self.subscriptions.retain(|subscribed| !subscribed.filters.is_empty());
        let now = self.clock.now();
        for request in &mut self.unsubscriptions {
            let Packet::Unsubscribe(packet) = request.packet.decode() else { continue };
            if is_due(request.progress) {
                self.next_key += 1;
                let key = self.next_key;
                let filters: Vec<_> = packet.topic_filters.iter().collect();
                let out = &mut self.out;
                match self.machine.unsubscribe(key, &filters, packet.properties, now, out) {
                    Ok(()) => request.progress = Progress::Sent(key),
                    Err(error) => debug!("UNSUBSCRIBE is not sent yet: {error}"),
                }
            }
        }
    }

    fn send_subscribe(&mut self, index: usize) {
        let key = self.new_key();
        let version = self.version();
        let Some(subscribed) = self.subscriptions.get_mut(index) else { return };
        let packet = subscribed.packet.clone();
        let Packet::Subscribe(packet) = packet.decode() else { return };
        // The program can have unsubscribed from some of them since.
        subscribed.asked = subscribed.filters.iter().map(|(filter, _)| filter.clone()).collect();
        let is_asked = |one: &Subscription<'_>| {
            subscribed.asked.iter().any(|filter| filter.as_text() == one.topic_filter)
        };
        let list: Vec<_> = packet.subscriptions.iter().filter(is_asked).collect();
        let mut properties = packet.properties;
        if properties.subscription_identifier.is_none() && version == Version::V5_0 {
            // An identifier has 28 bits, so they repeat after 268 million requests.
            let number = u32::try_from(key % 0x0FFF_FFFF).unwrap_or(0) + 1;
            properties.subscription_identifier = SubscriptionIdentifier::new(number);
        }
        let now = self.clock.now();
        let mut sent = self.machine.subscribe(key, &list, properties, now, &mut self.out);
        let unavailable = ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED;
        if sent == Err(session::RequestError::NotSupported(unavailable)) {
            properties.subscription_identifier = packet.properties.subscription_identifier;
            sent = self.machine.subscribe(key, &list, properties, now, &mut self.out);
        }
        match sent {
            Ok(()) => {
                subscribed.progress = Progress::Sent(key);
                self.name_filters(&list, properties.subscription_identifier);
            }
            Err(session::RequestError::NoPacketIdentifier) => {}
            Err(error) => subscribed.fail(error),
        }
    }

    /// Records the subscription identifier that messages of these filters have from now on. A
    /// server keeps only the last subscription to a filter.
    fn name_filters(
        &mut self,
        list: &[Subscription<'_>],
        identifier: Option<SubscriptionIdentifier>,
    ) {
        let all = self.subscriptions.iter_mut().flat_map(|one| &mut one.filters);
        all.filter(|(filter, _)| list.iter().any(|one| one.topic_filter == filter.as_text()))
            .for_each(|(_, own)| *own = identifier);
    }

    pub(super) fn on_subscribed(&mut self, key: u64, suback: &Suback<'_>) {
        let sent = |subscribed: &&mut Subscribed| subscribed.progress == Progress::Sent(key);
        let Some(subscribed) = self.subscriptions.iter_mut().find(sent) else { return };
        subscribed.progress = Progress::Active;
        let codes: Vec<_> = suback.reason_codes.iter().collect();
        let answered = std::mem::take(&mut subscribed.asked).into_iter().zip(&codes);
        for (refused, code) in answered.filter(|(_, code)| code.is_error()) {
            warn!("the server refused the subscription to {refused}: {code}");
            subscribed.filters.retain(|(filter, _)| *filter != refused);
        }
        let first = codes.first().copied().unwrap_or_default();
        let result = if subscribed.filters.is_empty() {
            Err(RequestError::Refused(first))
        } else {
            Ok(codes)
        };
        if let Some(waiter) = subscribed.waiter.take() {
            let _ = waiter.send(result);
        }
        self.subscriptions.retain(|subscribed| !subscribed.filters.is_empty());
    }

    pub(super) fn on_unsubscribed(&mut self, key: u64, unsuback: &Suback<'_>) {
        let sent = |one: &Unsubscribing| one.progress == Progress::Sent(key);
        let Some(index) = self.unsubscriptions.iter().position(sent) else { return };
        let codes = unsuback.reason_codes.iter().collect();
        let _ = self.unsubscriptions.swap_remove(index).waiter.send(Ok(codes));
    }

    pub(super) fn on_request_lost(&mut self, key: u64) {
        let subscriptions = self.subscriptions.iter_mut().map(|one| &mut one.progress);
        let unsubscriptions = self.unsubscriptions.iter_mut().map(|one| &mut one.progress);
        subscriptions
            .chain(unsubscriptions)
            .filter(|progress| **progress == Progress::Sent(key))
            .for_each(|progress| *progress = Progress::Due);
    }
}

impl Subscribed {
    pub(crate) fn new(
        version: Version,
        subscriptions: &[Subscription<'_>],
        properties: SubscribeProperties<'_>,
        sender: Sender,
        waiter: Option<oneshot::Sender<RequestResult>>,
    ) -> Result<Self, RequestError> {
        let packet_identifier = PacketIdentifier::new(1).ok_or(RequestError::Closed)?;
        let packet = Subscribe { properties, ..Subscribe::new(packet_identifier, subscriptions) };
        let packet = OwnedPacket::new(&packet.into(), version)?;
        let filters = subscriptions.iter();
        let filters = filters.map(|one| Ok((Filter::new(one.topic_filter, version)?, None)));
        let filters = filters.collect::<Result<_, EncodeError>>()?;
        let asked = Vec::new();
        Ok(Self { packet, filters, asked, sender, progress: Progress::Due, waiter })
    }

    /// Ends the subscription, because its SUBSCRIBE cannot be sent.
    fn fail(&mut self, error: session::RequestError) {
        self.filters.clear();
        match self.waiter.take() {
            Some(waiter) => drop(waiter.send(Err(error.into()))),
            None => warn!("cannot subscribe again: {error}"),
        }
    }

    /// Whether the message is for this stream. A server can send a message once for each
    /// subscription that matches. The subscription identifiers then show which one it is for.
    pub(super) fn takes(
        &self,
        topic: Text<'_>,
        identifiers: Option<Sequence<'_, SubscriptionIdentifier>>,
    ) -> bool {
        let is_named = |own: Option<_>| match (identifiers, own) {
            (Some(identifiers), Some(own)) => identifiers.iter().any(|one| one == own),
            _ => true,
        };
        let mut filters = self.filters.iter();
        filters.any(|(filter, own)| is_named(*own) && filter.as_topic_filter().matches(topic))
    }
}
