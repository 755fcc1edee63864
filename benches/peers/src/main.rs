//! The same bytes through mqtt-sansio's codec and those of other crates, in one run.
//!
//! `cargo run --release` checks every codec in every case, times those that are right, and prints the tables of the README.
//! `ROUNDS=101` changes the number of rounds. For instruction counts,
//! `valgrind --tool=callgrind --toggle-collect='*decode_all*' peers --only mqttrs --case 'decode: v4 PUBACK' --iterations 100000`
//! (and `*encode_all*`) runs one codec in one case; the names are those of the table, or parts of them.
//!
//! How it is measured:
//! - In each round each codec does each case in turn, some thousand packets at a time; the median of the rounds is printed.
//! - A codec that decodes a case to wrong values, or encodes it to bytes that are another packet, is not timed: a dash.
//!   All tables have dashes where the crate has no such codec; what else is missing is listed below them, with the reason.
//! - Decoding is what a user has to do for one packet after another: finding the packet and parsing it, and dropping it. The
//!   buffer holds many copies of the packet and is filled before the clock starts; in the mixed streams filling it in
//!   chunks of 4 KiB is timed, too. Who wants whole packets, or does not say how much it has used, gets them from
//!   [`codec::Unread::whole`], which costs about 2 ns.
//! - Encoding is into one buffer that is emptied for each packet, as far as the crate writes to a buffer. Packets that are used
//!   up by it are cloned before the clock starts.
//! - The floor is no codec: see `peers/floor.rs`.

mod cases;
mod codec;
mod measure;
mod peers;
mod strictness;

use cases::{Case, Task};
use measure::{Bench, Cost};
use peers::Column;
use std::env;

const PACKETS_A_ROUND: u64 = 4096;
const ROUNDS: usize = 61;

/// One codec in one case.
struct Cell {
    bench: Result<Bench, String>,
    costs: Vec<Cost>,
}

fn main() {
    // A codec that panics is said to in the tables.
    std::panic::set_hook(Box::new(|_| ()));
    let columns = peers::columns();
    let cases: &'static [Case] = cases::all().leak();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    if let Some(only) = value("--only") {
        let iterations = value("--iterations").map_or(PACKETS_A_ROUND, |number| number.parse().expect("a number"));
        return run_one(&columns, cases, only, value("--case").expect("--case"), iterations);
    }
    let rounds = env::var("ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("ROUNDS is a number"));
    let table = run(&columns, cases, rounds);
    println!("Nanoseconds per packet, medians of {rounds} rounds.\n");
    print(&columns, cases, &table, Cost::nanoseconds);
    println!("\nHeap allocations per packet.\n");
    print(&columns, cases, &table, Cost::allocated);
    println!("\nWire vectors of `spec-vectors/`: invalid packets that are refused, valid ones that are accepted.\n");
    strictness::print(&columns);
    println!("\nLeft out:\n");
    for (case, row) in cases.iter().zip(&table) {
        for (column, cell) in columns.iter().zip(row) {
            // The floor is no codec, and that most crates have no way to hand on a payload goes without saying.
            if column.name == peers::FLOOR || case.task == Task::HandOn {
                continue;
            }
            if let Some(Cell { bench: Err(reason), .. }) = cell {
                println!("- {}: {} {}", case.name, column.name, reason.chars().take(300).collect::<String>());
            }
        }
    }
}

/// The cell of a codec in a case; `None` if the crate has no codec for it.
fn cell(column: &Column, case: &'static Case) -> Option<Cell> {
    let form = if let Task::Decode(form) = case.task { form } else { None };
    let codec = column.codec(case.sample.version, form)?;
    Some(Cell { bench: codec.bench(case), costs: Vec::new() })
}

fn run(columns: &[Column], cases: &'static [Case], rounds: usize) -> Vec<Vec<Option<Cell>>> {
    let row = |case| columns.iter().map(|column| cell(column, case)).collect();
    let mut table: Vec<Vec<Option<Cell>>> = cases.iter().map(row).collect();
    for round in 0..rounds {
        eprint!("\rround {} of {rounds}", round + 1);
        for cell in table.iter_mut().flatten().flatten() {
            if let Ok(bench) = &mut cell.bench {
                cell.costs.push(bench(PACKETS_A_ROUND));
            }
        }
    }
    eprintln!();
    table
}

fn run_one(columns: &[Column], cases: &'static [Case], only: &str, case: &str, iterations: u64) {
    let column = columns.iter().find(|column| column.name.starts_with(only)).expect("no such codec");
    let case = cases.iter().find(|one| one.name == case).or_else(|| cases.iter().find(|one| one.name.contains(case)));
    let case = case.expect("no such case");
    let mut bench = cell(column, case).expect("the crate has no such codec").bench.expect("the codec is wrong in the case");
    let cost = bench(iterations);
    println!("{}, {}: {} packets, {:.1} ns each", column.name, case.name, cost.packets, cost.nanoseconds());
}

fn median(cell: Option<&Cell>, of: fn(Cost) -> f64) -> Option<f64> {
    let mut values: Vec<f64> = cell?.costs.iter().copied().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn print(columns: &[Column], cases: &[Case], table: &[Vec<Option<Cell>>], of: fn(Cost) -> f64) {
    // Ours and the floor come first, and are no peers.
    let (first, peers) = columns.split_at(2);
    let names = |columns: &[Column]| columns.iter().map(|column| format!(" {} |", column.name)).collect::<String>();
    println!("| case |{} best peer |{}", names(first), names(peers));
    println!("|---|{}", "---|".repeat(columns.len() + 1));
    for (case, row) in cases.iter().zip(table) {
        let values: Vec<Option<f64>> = row.iter().map(|cell| median(cell.as_ref(), of)).collect();
        let text = |value: &Option<f64>| value.map_or_else(|| " – |".to_owned(), |value| format!(" {value:.1} |"));
        let best = values.iter().zip(columns).skip(2).filter_map(|(value, column)| Some(((*value)?, column.name)));
        let best = best.min_by(|a, b| a.0.total_cmp(&b.0));
        let best = best.map_or_else(|| "–".into(), |(value, name)| format!("{value:.1} ({name})"));
        let cells = |values: &[Option<f64>]| values.iter().map(text).collect::<String>();
        println!("| {} |{} {best} |{}", case.name, cells(&values[..2]), cells(&values[2..]));
    }
}
