//! Grants: the topics that a client may publish to, subscribe to, and receive.

use crate::codec::{Filter, TopicFilter, TopicName, levels};
use crate::sync::Arc;
use alloc::vec::Vec;

/// The ways in which a client uses topics.
#[expect(clippy::exhaustive_enums, reason = "a client of MQTT can do nothing else")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Publishing messages, the will among them.
    Publish,
    /// Subscribing to filters.
    Subscribe,
    /// Receiving messages of subscriptions, retained ones among them.
    Receive,
}

/// The topics that a client may publish to, subscribe to, and receive, as filters that allow or
/// deny.
///
/// A filter that denies wins over those that allow. Publishing and subscribing can be left to the
/// host where no filter covers the topic. Receiving never asks the host, so that the delivery of a
/// message does not wait.
///
/// A subscription is covered by a filter that matches each topic that the subscription matches. So
/// a subscription to `a/#` is not denied because `a/secret` is; its messages are, if
/// [receiving](Access::Receive) `a/secret` is denied.
///
/// Clones share their filters: clients with the same rights need no memory of their own for them.
///
/// ```
/// use mqtt_sansio::broker::{Access, Grants};
/// use mqtt_sansio::codec::{Filter, Version};
///
/// let filter = |text| Filter::new(text, Version::V5_0);
/// let sensor = Grants::none()
///     .allow(&[Access::Publish], &filter("sensor/4/#")?)
///     .deny(&[Access::Publish], &filter("sensor/4/config")?)
///     .allow(&[Access::Subscribe, Access::Receive], &filter("sensor/4/config")?);
/// # let _ = sensor;
/// # Ok::<_, mqtt_sansio::codec::EncodeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Option<Arc<Rules>>);

/// An access to the topics that a filter covers.
pub(super) type Grant = (Access, Filter);

/// The rules of a client with limited rights.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rules {
    denied: Vec<Grant>,
    allowed: Vec<Grant>,
    /// The verdict where no filter covers the topic.
    otherwise: Verdict,
}

/// The outcome of a look at the grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    Denied,
    /// The host decides.
    Asked,
}

impl Grants {
    /// Grants everything. This is the default.
    #[must_use]
    pub const fn all() -> Self {
        Self(None)
    }

    /// Grants nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::otherwise(Verdict::Denied)
    }

    /// Grants nothing, and asks the host about each message and subscription that no filter covers.
    #[must_use]
    pub fn asked() -> Self {
        Self::otherwise(Verdict::Asked)
    }

    fn otherwise(otherwise: Verdict) -> Self {
        Self(Some(Arc::new(Rules { denied: Vec::new(), allowed: Vec::new(), otherwise })))
    }

    /// Allows what the filter matches.
    #[must_use]
    pub fn allow(self, accesses: &[Access], filter: &Filter) -> Self {
        self.with(|rules| &mut rules.allowed, accesses, filter)
    }

    /// Denies what the filter matches, whatever else allows it.
    #[must_use]
    pub fn deny(self, accesses: &[Access], filter: &Filter) -> Self {
        self.with(|rules| &mut rules.denied, accesses, filter)
    }

    fn with(
        self,
        list: fn(&mut Rules) -> &mut Vec<Grant>,
        accesses: &[Access],
        filter: &Filter,
    ) -> Self {
        let mut rules = self.0.or_else(|| Self::otherwise(Verdict::Allowed).0);
        if let Some(rules) = &mut rules {
            let entries = accesses.iter().map(|access| (*access, filter.clone()));
            list(Arc::make_mut(rules)).extend(entries);
        }
        Self(rules)
    }

    /// Returns what is denied, what is allowed, and the verdict on everything else, unless
    /// everything is allowed.
    pub(super) fn parts(&self) -> Option<(&[Grant], &[Grant], Verdict)> {
        let rules = self.0.as_ref()?;
        Some((&rules.denied, &rules.allowed, rules.otherwise))
    }

    pub(super) fn from_parts(denied: Vec<Grant>, allowed: Vec<Grant>, otherwise: Verdict) -> Self {
        Self(Some(Arc::new(Rules { denied, allowed, otherwise })))
    }

    /// Looks at a topic name that is published or received.
    #[inline]
    pub(super) fn check(&self, access: Access, topic_name: &TopicName<'_>) -> Verdict {
        match &self.0 {
            None => Verdict::Allowed,
            Some(rules) => rules.check(access, |grant| grant.matches(topic_name)),
        }
    }

    /// Looks at a filter that a client subscribes to.
    pub(super) fn check_subscribe(&self, filter: &Filter) -> Verdict {
        let Some(rules) = &self.0 else { return Verdict::Allowed };
        rules.check(Access::Subscribe, |grant| covers(grant, filter.as_topic_filter()))
    }
}

impl Rules {
    fn check(&self, access: Access, covers: impl Fn(TopicFilter<'_>) -> bool) -> Verdict {
        let mut lists = [(&self.denied, Verdict::Denied), (&self.allowed, Verdict::Allowed)];
        let found = lists.iter_mut().find(|(list, _)| {
            list.iter().any(|(what, filter)| *what == access && covers(filter.as_topic_filter()))
        });
        match (found, access) {
            (Some((_, verdict)), _) => *verdict,
            // The host is not asked about what a client receives.
            (None, Access::Receive) if self.otherwise == Verdict::Asked => Verdict::Denied,
            (None, _) => self.otherwise,
        }
    }
}

/// Whether `grant` matches each topic name that `filter` matches. [5.0 §4.7] [3.1.1 §4.7]
fn covers(grant: TopicFilter<'_>, filter: TopicFilter<'_>) -> bool {
    let (grant, filter) = (grant.filter(), filter.filter());
    // [5.0 MQTT-4.7.2-1] [3.1.1 MQTT-4.7.2-1]
    let is_wild = |text: &[u8]| matches!(text, [b'+' | b'#', ..]);
    if is_wild(grant.as_bytes()) && filter.as_bytes().first() == Some(&b'$') {
        return false;
    }
    // A `#` matches its parent as well, but no topic name is empty.
    if let (b"+/#", b"#") | (b"/+/#" | b"+/+/#", b"/#") = (grant.as_bytes(), filter.as_bytes()) {
        return true;
    }
    let mut levels_of_filter = levels(filter);
    for granted in levels(grant) {
        if granted == b"#" {
            return true;
        }
        match levels_of_filter.next() {
            Some(level) if level == granted || (granted == b"+" && level != b"#") => {}
            _ => return false,
        }
    }
    levels_of_filter.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Version;
    use alloc::string::String;
    use proptest::prelude::*;

    fn filter(text: &str) -> Filter {
        Filter::new(text, Version::V5_0).unwrap()
    }

    #[test]
    fn denial_wins_over_permission() {
        let name = |text| TopicName::new(text).unwrap();
        let grants = Grants::asked()
            .allow(&[Access::Publish], &filter("a/#"))
            .deny(&[Access::Publish], &filter("a/b"));
        assert_eq!(grants.check(Access::Publish, &name("a")), Verdict::Allowed);
        assert_eq!(grants.check(Access::Publish, &name("a/b")), Verdict::Denied);
        assert_eq!(grants.check(Access::Publish, &name("b")), Verdict::Asked);
        assert_eq!(grants.check(Access::Receive, &name("a")), Verdict::Denied);
        assert_eq!(grants.check_subscribe(&filter("a/b")), Verdict::Asked);
        assert_eq!(Grants::none().check(Access::Publish, &name("a")), Verdict::Denied);
        let but_one = Grants::all().deny(&[Access::Receive], &filter("a"));
        assert_eq!(but_one.check(Access::Receive, &name("a")), Verdict::Denied);
        assert_eq!(but_one.check(Access::Receive, &name("b")), Verdict::Allowed);
        assert_eq!(but_one.check_subscribe(&filter("$share/g/a")), Verdict::Allowed);
    }

    fn text(levels: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(levels), 1..4)
            .prop_map(|levels| levels.join("/"))
    }

    proptest! {
        /// [5.0 §4.7]
        #[test]
        fn covering_filter_matches_each_topic_of_the_covered_one(
            grant in text(&["a", "$b", "", "+", "#"]),
            other in text(&["a", "$b", "", "+", "#"]),
        ) {
            let parse = |text| Filter::new(text, Version::V5_0).ok();
            if let (Some(grant), Some(other)) = (parse(&*grant), parse(&*other)) {
                let (grant, other) = (grant.as_topic_filter(), other.as_topic_filter());
                // Topics of all levels that the filters name, and of one that they do not.
                let levels = ["a", "$b", "", "other"];
                let mut names: Vec<String> = levels.iter().map(|one| (*one).into()).collect();
                for _ in 0..3 {
                    let longer = names.iter().flat_map(|name| {
                        levels.iter().map(move |level| alloc::format!("{name}/{level}"))
                    });
                    names = names.iter().cloned().chain(longer).collect();
                    names.sort();
                    names.dedup();
                }
                let is_covered = names.iter().filter(|name| !name.is_empty())
                    .all(|name| !other.matches(name.as_str()) || grant.matches(name.as_str()));
                prop_assert_eq!(covers(grant, other), is_covered);
            }
        }
    }
}
