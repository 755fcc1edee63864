//! Topic names as subjects of NATS.
//!
//! A level of a topic is a token of a subject. Bytes that a token cannot have, or that have a
//! meaning there, become `%` and two hexadecimal digits; an empty level is `%` alone:
//!
//! | topic | subject |
//! |---|---|
//! | `a/b` | `a.b` |
//! | `a//b/` | `a.%.b.%` |
//! | `v1.2/x y` | `v1%2E2.x%20y` |
//! | `100%/*/>` | `100%25.%2A.%3E` |
//! | `$app/é` | `%24app.é` |
//!
//! The encoding is reversible. A subject that would be longer than [`LONGEST`] is `%%` and a hash
//! of the topic name instead, because NATS limits the line that has it; the message itself has its
//! topic name.

use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// The bytes of a subject without its prefix, at most. A line of NATS has 4,096 bytes by default,
/// with the prefix, the inbox for the acknowledgement and two lengths.
pub(crate) const LONGEST: usize = 3_072;

/// The first token of the subject of a topic that is too long to be encoded; a hash follows. No
/// level has this encoding.
const LONG: &str = "%%";

/// The first token of the subject of a member of a shared subscription; that and the client follow.
/// No level has this encoding.
pub(crate) const MEMBER: &str = "%%%";

/// The subject of settled positions. No level has this encoding.
pub(crate) const SETTLED: &str = "%%%%";

/// Writes a text as one token.
pub(crate) fn token(text: &str) -> String {
    let mut token = String::with_capacity(text.len());
    if text.is_empty() {
        token.push('%');
    }
    for character in text.chars() {
        match character {
            '.' | '*' | '>' | '%' | '$' | '\u{0}'..=' ' | '\u{7F}' => {
                let _ = write!(token, "%{:02X}", u32::from(character));
            }
            other => token.push(other),
        }
    }
    token
}

/// Returns the subject of a topic name, without a prefix.
pub(crate) fn of_topic(topic_name: &str) -> String {
    let subject = topic_name.split('/').map(token).collect::<Vec<_>>().join(".");
    if subject.len() <= LONGEST {
        return subject;
    }
    let hash = Sha256::digest(topic_name);
    hash.iter().take(16).fold(format!("{LONG}."), |subject, byte| subject + &format!("{byte:02x}"))
}

/// Returns the subject of a member of a shared subscription, without a prefix.
pub(crate) fn of_member(share: &str, client: &str) -> String {
    let subject = format!("{MEMBER}.{}.{}", token(share), token(client));
    if subject.len() <= LONGEST {
        return subject;
    }
    let hash = Sha256::digest(subject);
    hash.iter()
        .take(16)
        .fold(format!("{MEMBER}."), |subject, byte| subject + &format!("{byte:02x}"))
}

/// Returns the text of a token. `None` if it is none that [`token`] writes.
pub(crate) fn text(token: &str) -> Option<String> {
    if token == "%" {
        return Some(String::new());
    }
    let mut parts = token.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        text.push(char::from(u8::from_str_radix(digits, 16).ok()?));
        text.push_str(rest);
    }
    (self::token(&text) == token).then_some(text)
}

/// Returns the subjects that a topic filter matches, and that of long topics. `+` is `*`; `#` needs
/// one subject for the level before it, and one for those below.
pub(crate) fn of_filter(filter: &str) -> Vec<String> {
    let encode = token;
    let token = |level: &str| if level == "+" { "*".to_owned() } else { encode(level) };
    let levels = |filter: &str| filter.split('/').map(token).collect::<Vec<_>>().join(".");
    let mut subjects = match (filter, filter.strip_suffix("/#")) {
        ("#", _) => vec![">".to_owned()],
        (_, Some(before)) => vec![levels(before), format!("{}.>", levels(before))],
        (_, None) => vec![levels(filter)],
    };
    subjects.retain(|subject| subject.len() <= LONGEST);
    if subjects.iter().all(|subject| subject != ">") {
        subjects.push(format!("{LONG}.*"));
    }
    subjects
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt_sansio::codec::{TopicFilter, TopicName, Version};

    /// Returns texts of characters that matter, from a seed.
    fn texts(count: usize) -> impl Iterator<Item = String> {
        let characters =
            ['/', '.', '*', '>', ' ', '%', '$', 'a', '2', 'E', 'é', '\t', '\u{10FFFF}'];
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut draw = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        (0..count).map(move |_| {
            let length = 1 + draw(8);
            (0..length).map(|_| characters[draw(characters.len())]).collect()
        })
    }

    /// Whether NATS would deliver a subject to a subscription.
    fn matches(pattern: &str, subject: &str) -> bool {
        let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
        loop {
            match (pattern.next(), subject.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some(one), Some(other)) if one == "*" || one == other => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn topics_become_subjects_and_back() {
        for topic in texts(100_000) {
            let subject = of_topic(&topic);
            let is_plain = |token: &str| {
                !token.is_empty() && !token.contains(|c: char| " \t*>".contains(c) || c < ' ')
            };
            assert!(subject.split('.').all(is_plain), "{topic:?}: {subject:?}");
            let levels: Option<Vec<_>> = subject.split('.').map(text).collect();
            assert_eq!(levels.unwrap().join("/"), topic, "{subject:?}");
        }
        for other in ["%%", "%2", "%zz", "%61", "a.b", "", "%2e"] {
            assert_eq!(text(other), None, "{other:?}");
        }
    }

    #[test]
    fn filters_match_the_subjects_of_their_topics() {
        let topics: Vec<_> = texts(300).collect();
        let filters = texts(600).map(|filter| filter.replace('2', "+").replace('E', "#"));
        let (mut matching, mut checked) = (0, 0);
        for filter in filters.chain(["#", "+", "+/+", "a/#", "/+", "+/#"].map(Into::into)) {
            let Ok(plain) = TopicFilter::new(filter.as_str(), Version::V5_0) else { continue };
            checked += 1;
            for topic in &topics {
                let Ok(topic_name) = TopicName::new(topic.as_str()) else { continue };
                let found = of_filter(&filter).iter().any(|one| matches(one, &of_topic(topic)));
                // Topics that begin with `$` are passed over by the broker itself.
                let is_wanted = plain.matches(&topic_name);
                matching += usize::from(is_wanted);
                assert!(found || !is_wanted, "{filter:?} {topic:?}");
                assert!(is_wanted || !found || topic.starts_with('$'), "{filter:?} {topic:?}");
            }
        }
        assert!(matching > 500 && checked > 100, "{matching} {checked}");
    }

    #[test]
    fn long_topics_have_a_subject_of_their_own() {
        let topic = "é/".repeat(LONGEST);
        assert!(of_topic(&topic).starts_with("%%."), "{}", of_topic(&topic));
        assert_ne!(of_topic(&topic), of_topic(&format!("{topic}x")));
        assert!(of_filter("é/#").iter().any(|one| matches(one, &of_topic(&topic))));
        assert!(of_filter("#").iter().any(|one| matches(one, &of_topic(&topic))));
        assert_eq!(of_filter(&topic), ["%%.*"]);
    }
}
