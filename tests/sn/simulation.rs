//! Clients and a gateway over a bad network: `testkit/src/sn/simulation.rs`.

use testkit::sn::simulation::{Fault, Tally, run};

fn run_seeds(seeds: core::ops::Range<u64>) {
    let mut tally = Tally::default();
    for seed in seeds.clone() {
        run(seed, Fault::None, &mut tally).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    println!("{tally:?}");
    let Tally { published, received, repeated, dropped, copied, restarts, cuts, .. } = tally;
    let Tally { sleeps, wakes, buffered, resent, .. } = tally;
    let events = [published, received, dropped, copied, restarts, cuts, sleeps, wakes, resent];
    assert!(events.iter().all(|count| *count > seeds.end - seeds.start), "{tally:?}");
    assert!(repeated > 0 && buffered >= 6, "{tally:?}");
}

/// [SN §6.6] [SN §6.13] [SN §6.14]
#[test]
fn qos_1_arrives_at_least_once_and_qos_2_exactly_once() {
    run_seeds(0..1_000);
}

/// `SEEDS=1000000 cargo test --release --test sn -- --ignored` runs more.
#[test]
#[ignore = "takes a minute"]
fn qos_holds_for_ten_thousand_seeds() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    run_seeds(0..seeds.unwrap_or(10_000));
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
