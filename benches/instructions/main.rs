//! One operation, repeated: `instructions NAME COUNT` runs the named case COUNT times, and
//! `instructions --list` prints the names.
//!
//! `benches/instructions/count.py` runs each case under callgrind with two counts. The difference
//! is the exact number of instructions of the operations in between, without the preparation.

#![allow(missing_docs, unreachable_pub, reason = "a bench has no public face")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a bench may panic"
)]

mod broker;
mod codec;
mod machines;
mod router;
#[path = "../samples/mod.rs"]
mod samples;

/// A function that repeats one operation as often as it is told.
type Repeat = Box<dyn FnMut(usize)>;

/// The named cases, each with a function that prepares it.
#[derive(Default)]
struct Cases(Vec<(String, Box<dyn FnOnce() -> Repeat>)>);

impl Cases {
    fn add(&mut self, name: impl Into<String>, prepare: impl FnOnce() -> Repeat + 'static) {
        self.0.push((name.into(), Box::new(prepare)));
    }
}

/// The highest count that a case must support.
const MOST: usize = 4_000;

fn main() {
    let mut cases = Cases::default();
    codec::add(&mut cases);
    machines::add(&mut cases);
    broker::add(&mut cases);
    router::add(&mut cases);

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [name, count] => {
            let count = count.parse().unwrap();
            assert!(count <= MOST, "at most {MOST}");
            let (_, prepare) =
                cases.0.into_iter().find(|(other, _)| other == name).expect("the name of a case");
            prepare()(count);
        }
        [list] if list == "--list" => cases.0.iter().for_each(|(name, _)| println!("{name}")),
        // `cargo bench` and `cargo test` pass arguments of their own. Each case must work.
        _ => cases.0.into_iter().for_each(|(_, prepare)| prepare()(300)),
    }
}
