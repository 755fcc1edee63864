//! Rights, in the format of mosquitto's ACL file.
//!
//! | line | effect |
//! |---|---|
//! | `topic [read\|write\|readwrite\|deny] FILTER` | for the user above; before the first user, for clients without a user name |
//! | `user NAME` | begins the lines of a user |
//! | `pattern [read\|write\|readwrite\|deny] FILTER` | for each client; `%u` is its user name, `%c` its client identifier |
//! | `# text` | comment |
//!
//! As in mosquitto, each SUBSCRIBE is accepted, and messages that a client cannot read are not
//! delivered. Only filters that begin with `$` need a line that lets the client read there.

use crate::lines;
use anyhow::{Context as _, bail, ensure};
use mqtt_sansio::broker::{Access, Grants};
use mqtt_sansio::codec::{Filter, Version};
use std::collections::HashMap;
use std::path::Path;

/// The rights of all clients.
#[derive(Debug, Default)]
pub(crate) struct Acl {
    anonymous: Vec<Rule>,
    users: HashMap<String, Vec<Rule>>,
    patterns: Vec<Rule>,
}

/// A line with rights.
#[derive(Debug)]
struct Rule {
    kind: Kind,
    filter: String,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Allow(&'static [Access]),
    Deny,
}

impl Acl {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        lines::read(path, Self::parse)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut acl = Self::default();
        let mut user = None;
        lines::for_each(text, |line| acl.add(line, &mut user))?;
        Ok(acl)
    }

    fn add(&mut self, line: &str, user: &mut Option<String>) -> anyhow::Result<()> {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim_start();
        let rules = match (word, &user) {
            ("user", _) => {
                ensure!(!rest.is_empty(), "expected a user name");
                self.users.entry(rest.to_owned()).or_default();
                *user = Some(rest.to_owned());
                return Ok(());
            }
            ("topic", Some(user)) => self.users.entry(user.clone()).or_default(),
            ("topic", None) => &mut self.anonymous,
            ("pattern", _) => &mut self.patterns,
            _ => bail!("expected user, topic or pattern, found {word:?}"),
        };
        let (access, filter) = match rest.split_once(char::is_whitespace) {
            Some((access, filter)) => (access, filter.trim_start()),
            None => ("readwrite", rest),
        };
        let kind = match access {
            "read" => Kind::Allow(&[Access::Receive]),
            "write" => Kind::Allow(&[Access::Publish]),
            "readwrite" => Kind::Allow(&[Access::Receive, Access::Publish]),
            "deny" => Kind::Deny,
            _ => bail!("expected read, write, readwrite or deny, found {access:?}"),
        };
        parse_filter(filter).with_context(|| format!("topic filter {filter:?}"))?;
        rules.push(Rule { kind, filter: filter.to_owned() });
        Ok(())
    }

    /// Whether the rights of a client depend on its user name.
    pub(crate) fn names_users(&self) -> bool {
        !self.users.is_empty() || self.patterns.iter().any(|rule| rule.filter.contains("%u"))
    }

    /// Returns the rights of a client. Its client identifier is empty if the broker assigns one.
    pub(crate) fn grants(&self, user: Option<&str>, client: &str) -> Grants {
        let topics = match user {
            Some(user) => self.users.get(user),
            None => Some(&self.anonymous),
        };
        let mut grants = Grants::none();
        for filter in ["#", "$SYS/#"].map(parse_filter).into_iter().flatten() {
            grants = grants.allow(&[Access::Subscribe], &filter);
        }
        let topics = topics.into_iter().flatten();
        let topics = topics.map(|rule| (rule.kind, rule.filter.clone()));
        // A name with a wildcard would match other clients' topics.
        let is_plain = |name: &str| !name.contains(['+', '#']);
        let has_patterns = is_plain(user.unwrap_or_default()) && is_plain(client);
        let patterns = self.patterns.iter().filter(|_| has_patterns);
        let patterns =
            patterns.filter_map(|rule| Some((rule.kind, substitute(&rule.filter, user, client)?)));
        for (kind, text) in topics.chain(patterns) {
            // Only a filter that a long name has made too long.
            let Ok(filter) = parse_filter(&text) else { return Grants::none() };
            grants = match kind {
                Kind::Deny => grants.deny(&[Access::Publish, Access::Receive], &filter),
                Kind::Allow(accesses) => {
                    let first = text.split('/').next().unwrap_or_default();
                    if first.starts_with('$') && accesses.contains(&Access::Receive) {
                        if let Ok(all) = parse_filter(&format!("{first}/#")) {
                            grants = grants.allow(&[Access::Subscribe], &all);
                        }
                    }
                    grants.allow(accesses, &filter)
                }
            };
        }
        grants
    }
}

fn parse_filter(text: &str) -> anyhow::Result<Filter> {
    Ok(Filter::new(text, Version::V5_0)?)
}

/// Returns the filter of a pattern for a client, if the client has the names that it asks for.
fn substitute(pattern: &str, user: Option<&str>, client: &str) -> Option<String> {
    let mut filter = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('%') {
        filter += before;
        rest = if let Some(after) = after.strip_prefix('u') {
            filter += user?;
            after
        } else if let Some(after) = after.strip_prefix('c') {
            filter += Some(client).filter(|client| !client.is_empty())?;
            after
        } else {
            filter.push('%');
            after
        };
    }
    Some(filter + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_becomes_grants() {
        let acl = Acl::parse(
            "# of everybody\ntopic read news/#\n\nuser joe smith\ntopic house/#\n\
             topic deny house/safe\ntopic write  a b\npattern write from/%u/%c/%d\n",
        )
        .unwrap();
        let filter = |text| parse_filter(text).unwrap();
        let all = Grants::none()
            .allow(&[Access::Subscribe], &filter("#"))
            .allow(&[Access::Subscribe], &filter("$SYS/#"));
        assert_eq!(acl.grants(None, "c"), all.clone().allow(&[Access::Receive], &filter("news/#")));
        assert_eq!(
            acl.grants(Some("joe smith"), "c"),
            all.clone()
                .allow(&[Access::Receive, Access::Publish], &filter("house/#"))
                .deny(&[Access::Publish, Access::Receive], &filter("house/safe"))
                .allow(&[Access::Publish], &filter("a b"))
                .allow(&[Access::Publish], &filter("from/joe smith/c/%d"))
        );
        assert_eq!(acl.grants(Some("+"), "c"), all);
        assert_eq!(acl.grants(Some("x"), ""), all);
        assert!(acl.names_users());
    }

    #[test]
    fn bad_line_is_refused_with_its_number_and_reason() {
        for (text, expected) in [
            ("topic read a\nfoo", "line 2: expected user, topic or pattern, found \"foo\""),
            ("user", "line 1: expected a user name"),
            ("topic all a", "line 1: expected read, write, readwrite or deny, found \"all\""),
            ("topic a/#/b", "line 1: topic filter \"a/#/b\""),
            ("topic", "line 1: topic filter \"\""),
        ] {
            let error = format!("{:#}", Acl::parse(text).unwrap_err());
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }
}
