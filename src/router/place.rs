//! A way through the levels of a topic name, down and back up.

use super::levels::Key;
use super::pool::NONE;

/// A level of a topic name or filter.
#[derive(Clone, Copy)]
pub(super) struct Level {
    pub(super) hash: u64,
    /// The number of the name, once a node was found with it. [`NONE`] before.
    pub(super) number: u32,
    /// The number of levels before this one.
    depth: u32,
    /// The start and the end of its name.
    start: u32,
    end: u32,
}

impl Level {
    /// Returns the name of a level of a topic.
    pub(super) fn name<'t>(&self, topic: &'t [u8]) -> &'t [u8] {
        topic.get(self.start as usize..self.end as usize).unwrap_or(&[])
    }
}

/// A place in a topic name: before one of its levels, or at the end.
pub(super) struct Place<'t> {
    topic_name: &'t [u8],
    /// The number of levels before the place.
    depth: u32,
    /// The position behind them and their separators. It is behind the name if no level is left.
    start: u32,
    /// The levels that were seen last, each at its depth modulo the length of the array.
    ///
    /// A level is read again if the way comes back after another one took its place here. By then
    /// the way has passed all depths in between, so that the cost is shared by that many steps.
    levels: [Level; LEVELS],
}

const LEVELS: usize = 16;

#[expect(clippy::indexing_slicing, reason = "each index is less than the constant length")]
impl<'t> Place<'t> {
    pub(super) const fn new(topic_name: &'t [u8]) -> Self {
        let none = Level { hash: 0, number: NONE, depth: NONE, start: 0, end: 0 };
        Self { topic_name, depth: 0, start: 0, levels: [none; LEVELS] }
    }

    pub(super) const fn is_end(&self) -> bool {
        self.start as usize > self.topic_name.len()
    }

    /// Returns the level after the place, and the topic name to which it belongs.
    #[inline]
    pub(super) fn level(&mut self, key: Key) -> (&mut Level, &'t [u8]) {
        if self.last_seen().depth != self.depth {
            let (depth, start, end) = (self.depth, self.start, self.end());
            let mut level = Level { hash: 0, number: NONE, depth, start, end };
            level.hash = key.name(level.name(self.topic_name));
            self.levels[depth as usize % LEVELS] = level;
        }
        let level = &mut self.levels[self.depth as usize % LEVELS];
        (level, self.topic_name)
    }

    /// Goes behind the level after the place.
    #[inline]
    pub(super) fn descend(&mut self) {
        let level = self.last_seen();
        let end = if level.depth == self.depth { level.end } else { self.end() };
        self.start = end + 1;
        self.depth += 1;
    }

    /// Goes back before the last level.
    #[inline]
    pub(super) fn ascend(&mut self) {
        self.depth -= 1;
        let level = self.last_seen();
        self.start = if level.depth == self.depth {
            level.start
        } else {
            let before = self.topic_name.get(..self.start as usize - 1).unwrap_or(&[]);
            let slash = before.iter().rposition(|&byte| byte == b'/');
            slash.map_or(0, |slash| position(slash + 1))
        };
    }

    /// Returns what was last seen at the depth of the place, or at another one.
    fn last_seen(&self) -> &Level {
        &self.levels[self.depth as usize % LEVELS]
    }

    /// Returns the end of the level after the place.
    fn end(&self) -> u32 {
        let rest = self.topic_name.get(self.start as usize..).unwrap_or(&[]);
        self.start + position(rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len()))
    }
}

/// Returns a position in a topic name, which has at most 65,535 bytes.
fn position(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}
