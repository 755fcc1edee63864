//! Topic aliases. [5.0 §3.3.2.3.4]

use crate::codec::{Text, Topic};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// The aliases of a connection. Most have none, so they stand in a box.
#[derive(Debug, Default)]
pub(super) struct AliasTables {
    /// The peer sets these. [5.0 MQTT-3.3.2-7]
    pub(super) peer: Aliases,
    /// The host sets these.
    pub(super) own: Aliases,
    /// The machine sets these.
    pub(super) automatic: AutomaticAliases,
}

/// The topic of each alias, in one direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Aliases(Vec<Option<Topic>>);

impl Aliases {
    pub(super) fn get(&self, alias: u16) -> Option<&Topic> {
        self.0.get(usize::from(alias).checked_sub(1)?)?.as_ref()
    }

    /// Gives an alias, which is at most the Topic Alias Maximum, its topic.
    pub(super) fn set(&mut self, alias: u16, topic: Topic) {
        let index = usize::from(alias).saturating_sub(1);
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        if let Some(entry) = self.0.get_mut(index) {
            *entry = Some(topic);
        }
    }

    /// Removes the topic of an alias.
    pub(super) fn clear(&mut self, alias: u16) {
        let index = usize::from(alias).checked_sub(1);
        if let Some(entry) = index.and_then(|index| self.0.get_mut(index)) {
            *entry = None;
        }
    }
}

/// The topics to which the machine has given an alias.
///
/// The first topics get the aliases and keep them: with many topics, to reassign an alias costs
/// more bytes than it saves.
#[derive(Debug, Default)]
pub(super) struct AutomaticAliases(BTreeMap<Topic, u16>);

impl AutomaticAliases {
    pub(super) fn get(&self, topic_name: Text<'_>) -> Option<u16> {
        self.0.get(topic_name.as_bytes()).copied()
    }

    /// Returns the alias for another topic, unless all are taken.
    pub(super) fn next(&self, maximum: u16) -> Option<u16> {
        let next = u16::try_from(self.0.len()).ok()?.checked_add(1)?;
        Some(next).filter(|next| *next <= maximum)
    }

    pub(super) fn insert(&mut self, topic: Topic, alias: u16) {
        self.0.insert(topic, alias);
    }
}
