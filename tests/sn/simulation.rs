//! Clients and a gateway over a bad network: `testkit/src/sn/simulation.rs`.

use std::thread::{available_parallelism, scope};
use testkit::sn::simulation::{Fault, Tally, run};

/// `SEEDS=1000000 cargo test --release --test sn qos` runs more. [SN §6.6] [SN §6.13] [SN §6.14]
#[test]
fn qos_1_arrives_at_least_once_and_qos_2_exactly_once() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let seeds: u64 = seeds.unwrap_or(10_000);
    let threads = available_parallelism().map_or(1, usize::from);
    let run_from = |first| {
        let mut tally = Tally::default();
        for seed in (first..seeds).step_by(threads) {
            run(seed, Fault::None, &mut tally)
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        tally
    };
    let tallies: Vec<_> = scope(|scope| {
        let started: Vec<_> =
            (0..threads as u64).map(|first| scope.spawn(move || run_from(first))).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for tally in tallies {
        println!("{tally:?}");
        let Tally { published, received, repeated, dropped, copied, restarts, cuts, .. } = tally;
        let Tally { sleeps, wakes, buffered, resent, .. } = tally;
        let events = [published, received, dropped, copied, restarts, cuts, sleeps, wakes, resent];
        assert!(events.iter().all(|count| *count > seeds / threads as u64), "{tally:?}");
        assert!(repeated > 0 && buffered >= 6, "{tally:?}");
    }
}

/// The simulation would be worth nothing if it noticed nothing.
#[test]
fn simulation_notices_missing_resends_and_repeated_messages() {
    for fault in [Fault::NoResend, Fault::NoMemory] {
        let mut tally = Tally::default();
        let failed = (0..20).filter(|seed| run(*seed, fault, &mut tally).is_err()).count();
        assert!(failed > 10, "{fault:?}: {failed}");
    }
}
