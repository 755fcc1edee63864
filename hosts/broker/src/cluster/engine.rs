//! The engine that the nodes share: a log, and for each client the entries of its
//! session, where an append says which entry it expects to be the last.

use super::record::{Entry, Item, Logged, Mark, Member};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// The engine did not answer in time. It has possibly done what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Silent;

/// Why an entry was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another node has appended an entry.
    Stale,
    /// See [`Silent`].
    Silent,
}

/// An item for the log.
#[derive(Clone, Debug)]
pub(crate) struct Append {
    pub(crate) place: Place,
    pub(crate) bytes: Rc<[u8]>,
    /// An item with this token is stored once, within [`Engine::WINDOW`].
    pub(crate) token: Option<String>,
    /// The mark of a message.
    pub(crate) mark: Option<Mark>,
    /// Whether it is the end of a retained message or of a member, which need not be found for
    /// longer than the log keeps it.
    pub(crate) is_end: bool,
}

/// The subject of an item of the log.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// A message of a topic.
    Topic(Box<str>),
    /// A retained message of a topic.
    Retained(Box<str>),
    /// A member of a shared subscription. The last item is found again, as of a retained message.
    Member { share: Rc<str>, client: Rc<str> },
    /// A settled position. The last item is found again, too.
    Settled,
}

impl Append {
    pub(crate) fn new(item: &Item, token: Option<String>) -> Self {
        let place = match item {
            Item::Message(Logged { message, share, .. }) => {
                let topic_name = message.topic_name().to_str().into();
                if message.retain() && share.is_none() {
                    Place::Retained(topic_name)
                } else {
                    Place::Topic(topic_name)
                }
            }
            Item::Member(Member { share, client, .. }) => {
                Place::Member { share: share.clone(), client: client.clone() }
            }
            Item::Settled(_) => Place::Settled,
        };
        let is_end = match item {
            Item::Message(logged) => logged.message.payload().is_empty(),
            Item::Member(member) => member.is_connected.is_none(),
            Item::Settled(_) => false,
        };
        let is_end = is_end && !matches!(place, Place::Topic(_));
        let mark = match item {
            Item::Message(logged) => Some(logged.mark()),
            Item::Member(_) | Item::Settled(_) => None,
        };
        Self { place, bytes: item.to_bytes().into(), token, mark, is_end }
    }
}

/// The last entry of a session, without its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) client: String,
    pub(crate) sequence: u64,
    pub(crate) owner: u64,
    pub(crate) has_ended: bool,
}

/// The answer of another node to the request for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evicted {
    /// It has appended its last entry, or does not have the session.
    Done,
    /// It does not answer.
    Silent,
}

/// A notice of one node to the others, which can be lost.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) enum Notice {
    /// The node lives. `interest` counts the changes of its interest.
    Alive { name: String, interest: u64 },
    /// Filters that the node wants messages for, or wants them for no longer. `number` counts the
    /// changes up to this one.
    Interest { number: u64, filter: String, is_wanted: bool },
    /// All filters that the node wants messages for.
    Interests { number: u64, filters: Vec<String> },
    /// The node asks for all filters of another one.
    Ask { of: u64 },
    /// The node leaves, and has given up its sessions.
    Leaving,
}

/// The engine that the nodes share.
pub(crate) trait Engine: 'static {
    /// The time for which the engine remembers tokens.
    const WINDOW: Duration;

    /// Appends items to the log, all or none, and in their order. A repeat with the same token,
    /// which is the same for all, appends nothing within [`WINDOW`](Self::WINDOW).
    fn append(&self, all: &[Append], token: &str) -> impl Future<Output = Result<(), Silent>>;

    /// Returns which of these messages the log has already, behind a position, or behind the one
    /// that a message repeats. Others than messages count as missing.
    fn appended(
        &self,
        after: u64,
        all: &[Append],
    ) -> impl Future<Output = Result<Vec<bool>, Silent>>;

    /// Appends an entry to a session if the last one has this sequence, or if there is none and
    /// `expected` is 0. Returns its sequence.
    fn append_entry(
        &self,
        client: &str,
        expected: u64,
        entry: &Entry,
    ) -> impl Future<Output = Result<u64, Refusal>>;

    /// Reads the entries of a session, with their sequences.
    fn entries(&self, client: &str) -> impl Future<Output = Result<Vec<(u64, Entry)>, Silent>>;

    /// Reads the last entries of all sessions.
    fn heads(&self) -> impl Future<Output = Result<Vec<Head>, Silent>>;

    /// Reads the messages of the log behind a position and up to another one, at least those that
    /// match one of these filters.
    fn log(
        &self,
        after: u64,
        to: u64,
        filters: &[String],
    ) -> impl Future<Output = Result<Vec<(u64, Logged)>, Silent>>;

    /// Reads the items of the log behind a position and up to another one: all, or at least the
    /// members of shared subscriptions.
    fn items(
        &self,
        after: u64,
        to: u64,
        are_members: bool,
    ) -> impl Future<Output = Result<Vec<(u64, Item)>, Silent>>;

    /// Reads one message of the log. `None` if the log does not have it any more.
    fn message(&self, position: u64) -> impl Future<Output = Result<Option<Logged>, Silent>>;

    /// Returns the first position that the log still has, and the last one.
    fn bounds(&self) -> impl Future<Output = Result<(u64, u64), Silent>>;

    /// Asks another node for a session.
    fn evict(&self, node: u64, client: &str) -> impl Future<Output = Evicted>;

    /// Sends a message to one other node. It can be lost. Returns false if it is lost already,
    /// because too many wait.
    fn send(&self, node: u64, message: Vec<u8>) -> bool;

    /// Tells all other nodes something. It can be lost.
    fn tell(&self, notice: &Notice);
}
