//! Finding the subscriptions of a topic: `SubscriptionIndex`, and the router of
//! `mqtt-topic-engine`.
//!
//! There are two kinds of filters, of which 70 % have no wildcards. Sparse: each filter has nodes
//! of its own, and a topic matches hardly more than one. Dense: many subscribers share a filter,
//! and a topic matches about 25. The topic names exist before the clock starts, in the form that
//! each crate wants: mqtt-topic-engine's are split into levels already.
//!
//! The memory is what the allocator holds for the filters: what was requested, rounded up to the
//! blocks of glibc with their header.

use crate::measure::{bytes_held, timed};
use mqtt_sansio::codec::{QoS, TopicFilter, TopicName, Version};
use mqtt_sansio::router::SubscriptionIndex;
use mqtt_topic_engine as engine;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

const TOPICS: usize = 10_000;
/// How often a contestant finds all topics before it is the turn of the other.
const PASSES: usize = 4;
const SEED: u128 = 0x1234_5678_9ABC_DEF0;

/// Which filters there are.
#[derive(Clone, Copy)]
enum Kind {
    Sparse,
    Dense,
}

/// Prints the table.
pub fn print(rounds: usize) {
    println!(
        "Finding the subscriptions of {TOPICS} topics, nanoseconds and allocations per topic, \
         medians of {rounds} rounds; memory in bytes per filter.\n"
    );
    println!(
        "| filters | matches | mqtt-sansio | mqtt-topic-engine | ratio | allocations | of the peer \
         | bytes | of the peer | longest insert | longest remove |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for (kind, name, count, rounds) in [
        (Kind::Sparse, "100,000 sparse", 100_000, rounds),
        (Kind::Dense, "100,000 dense", 100_000, rounds),
        (Kind::Sparse, "1,000,000 sparse", 1_000_000, rounds.div_ceil(3)),
    ] {
        println!("{}", row(kind, name, count, rounds));
    }
}

fn row(kind: Kind, name: &str, count: usize, rounds: usize) -> String {
    let (filters, names) = workload(kind, count);

    let [longest_insert, longest_remove] = longest(&filters);
    let before = bytes_held();
    let index = ours(&filters);
    let ours_bytes = (bytes_held() - before) / count as u64;
    let before = bytes_held();
    let router = theirs(&filters);
    let theirs_bytes = (bytes_held() - before) / count as u64;

    let topic_names: Vec<_> = names.iter().map(|name| TopicName::new(name).unwrap()).collect();
    let paths: Vec<_> =
        names.iter().map(|name| engine::TopicPath::new(name.as_str()).unwrap()).collect();
    check(&index, &router, &topic_names, &paths);

    let (mut ours_costs, mut theirs_costs, mut matches) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        ours_costs.push(timed(|| {
            (0..PASSES).for_each(|_| matches = find_ours(&index, &topic_names));
            (PASSES * names.len()) as u64
        }));
        theirs_costs.push(timed(|| {
            (0..PASSES).for_each(|_| assert_eq!(find_theirs(&router, &paths), matches));
            (PASSES * names.len()) as u64
        }));
    }
    let mut ratios: Vec<f64> = (ours_costs.iter().zip(&theirs_costs))
        .map(|(ours, theirs)| ours.nanoseconds() / theirs.nanoseconds())
        .collect();
    ratios.sort_by(f64::total_cmp);
    for costs in [&mut ours_costs, &mut theirs_costs] {
        costs.sort_by_key(|cost| cost.time);
    }
    let (ours, theirs) = (ours_costs[rounds / 2], theirs_costs[rounds / 2]);
    format!(
        "| {name} | {:.1} | {:.0} | {:.0} | {:.2} | {:.1} | {:.1} | {ours_bytes} | {theirs_bytes} \
         | {longest_insert:?} | {longest_remove:?} |",
        matches as f64 / names.len() as f64,
        ours.nanoseconds(),
        theirs.nanoseconds(),
        ratios[rounds / 2],
        ours.allocated(),
        theirs.allocated(),
    )
}

/// Counts the matches. It is not inlined, so that `callgrind --toggle-collect` can find it.
#[inline(never)]
fn find_ours(index: &SubscriptionIndex<u32, QoS>, names: &[TopicName<'_>]) -> usize {
    let mut matches = 0;
    for name in names {
        index.matches(name, |subscriber, qos| {
            black_box((subscriber, qos));
            matches += 1;
        });
    }
    matches
}

#[inline(never)]
fn find_theirs(router: &engine::TopicRouter<u32>, paths: &[engine::TopicPath]) -> usize {
    let mut matches = 0;
    for path in paths {
        for (_, (_, qos), subscriber) in router.get_subscribers(path) {
            black_box((subscriber, qos));
            matches += 1;
        }
    }
    matches
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text, Version::V5_0).unwrap()
}

fn ours(filters: &[String]) -> SubscriptionIndex<u32, QoS> {
    let mut index = SubscriptionIndex::with_seed(SEED);
    for (subscriber, text) in (0..).zip(filters) {
        index.insert(filter(text), subscriber, QoS::AtLeastOnce);
    }
    assert_eq!(index.len(), filters.len());
    index
}

/// Returns the longest time that the index took to insert a filter, and to remove one. Each is done
/// three times, and the shortest counts: the index does the same each time, and the machine does
/// not. glibc takes some milliseconds when it joins many free blocks and returns memory to the
/// system, as after the last filter; with `MALLOC_TRIM_THRESHOLD_=100000000000` it returns none.
fn longest(filters: &[String]) -> [Duration; 2] {
    let mut times = [vec![Duration::MAX; filters.len()], vec![Duration::MAX; filters.len()]];
    for _ in 0..3 {
        let mut index = SubscriptionIndex::with_seed(SEED);
        let mut time = |position: usize, step: usize, run: &mut dyn FnMut(TopicFilter<'_>)| {
            let filter = filter(&filters[position]);
            let start = Instant::now();
            run(filter);
            times[step][position] = times[step][position].min(start.elapsed());
        };
        for position in 0..filters.len() {
            time(position, 0, &mut |filter| {
                index.insert(filter, position as u32, QoS::AtLeastOnce);
            });
        }
        for position in 0..filters.len() {
            time(position, 1, &mut |filter| {
                index.remove(filter, &(position as u32));
            });
        }
        assert!(index.is_empty());
    }
    times.map(|times| times.into_iter().max().unwrap_or_default())
}

fn theirs(filters: &[String]) -> engine::TopicRouter<u32> {
    let mut router = engine::TopicRouter::new();
    for (subscriber, text) in (0..).zip(filters) {
        let pattern = engine::TopicPatternPath::new_from_string(
            text.as_str(),
            engine::CacheStrategy::NoCache,
        );
        router.add_subscription(pattern.unwrap(), engine::QoS::AtLeastOnce, subscriber);
    }
    router
}

/// Checks that both find the same.
fn check(
    index: &SubscriptionIndex<u32, QoS>,
    router: &engine::TopicRouter<u32>,
    names: &[TopicName<'_>],
    paths: &[engine::TopicPath],
) {
    for (name, path) in names.iter().zip(paths).take(1_000) {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        index.matches(name, |subscriber, _| one.push(*subscriber));
        other.extend(router.get_subscribers(path).into_iter().map(|(_, _, found)| *found));
        one.sort_unstable();
        other.sort_unstable();
        assert_eq!(one, other, "{name}");
    }
}

/// Returns filters, and names that match at least one of them.
fn workload(kind: Kind, count: usize) -> (Vec<String>, Vec<String>) {
    let mut random = Random(1);
    // The levels of a topic: a word, and how many of it there are.
    let levels: &[(&str, usize)] = match kind {
        Kind::Sparse => {
            &[("region", 10), ("site", count / 1_000), ("device", count / 10), ("sensor", 10)]
        }
        Kind::Dense => &[("region", 10), ("site", 20), ("line", 10), ("sensor", 10)],
    };
    let mut choose = |most: usize| random.below(most);
    let mut topics = Vec::with_capacity(count);
    let mut filters = Vec::with_capacity(count);
    for number in 0..count {
        let topic: Vec<String> =
            levels.iter().map(|(word, most)| format!("{word}-{}", choose(*most))).collect();
        let wild = if number % 10 < 7 { 0 } else { number % 3 + 1 };
        let mut filter = topic.clone();
        match wild {
            // A subtree of a device, or of a line.
            1 => {
                filter.truncate(topic.len() - 1);
                filter.push("#".into());
            }
            2 => filter[topic.len() - 1] = "+".into(),
            3 => {
                let level = choose(topic.len() - 1);
                filter[level] = "+".into();
            }
            _ => {}
        }
        filters.push(filter.join("/"));
        topics.push(topic);
    }
    let mut name = String::new();
    let names = (0..TOPICS).map(|_| {
        name.clear();
        for level in &topics[random.below(count)] {
            write!(name, "/{level}").unwrap();
        }
        name[1..].to_owned()
    });
    let names = names.collect();
    (filters, names)
}

struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }
}
