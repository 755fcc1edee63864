//! The topic ids of a client. [SN §6.5] [SN §7.3]

use super::config::GatewayConfig;
use crate::codec::Topic;
use crate::sn::v1_2::{TopicId, TopicRef};
use alloc::collections::{BTreeMap, BTreeSet};

/// The topic ids of one client, so that a wrong one cannot mean a topic of another client.
/// [SN §7.3]
#[derive(Default)]
pub(super) struct Topics {
    names: BTreeMap<TopicId, Entry>,
    ids: BTreeMap<Topic, TopicId>,
    /// The predefined topics that the client has subscribed to.
    predefined: BTreeSet<TopicId>,
    last: u16,
    assigned: u64,
}

struct Entry {
    name: Topic,
    /// Whether the client knows the id in its present connection.
    is_known: bool,
    /// Whether only the gateway has asked for the id, so that it can be replaced.
    is_own: bool,
    /// The order in which the ids were assigned.
    age: u64,
}

impl Topics {
    /// Returns the id of a name that the client registers or subscribes to, or `None` if there are
    /// too many.
    pub(super) fn assign(&mut self, name: &Topic, config: &GatewayConfig) -> Option<TopicId> {
        if let Some(id) = self.ids.get(name) {
            if let Some(entry) = self.names.get_mut(id) {
                entry.is_own = false;
            }
            return Some(*id);
        }
        self.insert(name, false, config)
    }

    /// Returns the id of a name that the gateway registers with the client.
    pub(super) fn assign_own(&mut self, name: &Topic, config: &GatewayConfig) -> Option<TopicId> {
        self.ids.get(name).copied().or_else(|| self.insert(name, true, config))
    }

    fn insert(&mut self, name: &Topic, is_own: bool, config: &GatewayConfig) -> Option<TopicId> {
        let maximum = config.maximum_topics.min(0xFFFE);
        if self.names.len() >= maximum {
            let own = self.names.iter().filter(|(_, entry)| entry.is_own);
            let (oldest, _) = own.min_by_key(|(_, entry)| entry.age)?;
            self.remove(*oldest);
        }
        // A number that was removed is used again as late as possible.
        let mut number = self.last;
        let id = loop {
            number = number.wrapping_add(1);
            match TopicId::new(number) {
                Some(id) if !self.names.contains_key(&id) => break id,
                _ => {}
            }
        };
        (self.last, self.assigned) = (number, self.assigned + 1);
        let age = self.assigned;
        self.ids.insert(name.clone(), id);
        self.names.insert(id, Entry { name: name.clone(), is_known: false, is_own, age });
        Some(id)
    }

    fn remove(&mut self, id: TopicId) {
        if let Some(entry) = self.names.remove(&id) {
            self.ids.remove(&entry.name);
        }
    }

    /// Returns the name of an id.
    pub(super) fn name(&self, id: TopicId) -> Option<&Topic> {
        self.names.get(&id).map(|entry| &entry.name)
    }

    /// Returns how a message of that topic is addressed to the client, or `None` if the client must
    /// learn an id first.
    pub(super) fn reference(&self, name: &Topic, config: &GatewayConfig) -> Option<TopicRef> {
        let is_name = |id: &&TopicId| config.predefined.get(*id) == Some(name);
        if let Some(id) = self.predefined.iter().find(is_name) {
            return Some(TopicRef::Predefined(*id));
        }
        if let Some(id) = self.ids.get(name) {
            if self.names.get(id).is_some_and(|entry| entry.is_known) {
                return Some(TopicRef::Normal(*id));
            }
        }
        let octets = name.as_text().as_bytes().try_into().ok()?;
        Some(TopicRef::Short(octets))
    }

    /// Notes whether the client knows an id.
    pub(super) fn set_known(&mut self, id: TopicId, is_known: bool) {
        if let Some(entry) = self.names.get_mut(&id) {
            entry.is_known = is_known;
        }
    }

    /// Notes that the client can have lost all ids: the gateway registers them again before it
    /// uses them. [SN §6.5]
    pub(super) fn forget_known(&mut self) {
        self.names.values_mut().for_each(|entry| entry.is_known = false);
    }

    pub(super) fn subscribe_predefined(&mut self, id: TopicId, is_subscribed: bool) {
        if is_subscribed {
            self.predefined.insert(id);
        } else {
            self.predefined.remove(&id);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
