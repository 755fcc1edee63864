//! The same bytes through mqtt-sansio and other crates, in one run: through the codecs, and through
//! the session machines.
//!
//! `cargo run --release` checks each contestant in each case, times those that are correct, and
//! prints the tables of `benches/README.md`. `--table codecs`, `--table machines` or `--table
//! router` prints one of the three. `ROUNDS=101` changes the number of rounds. `--instructions`
//! also counts the instructions of this crate and of the fastest peer with valgrind, which takes
//! long. To look at one contestant in one case, run `valgrind --tool=callgrind
//! --toggle-collect='*decode_all*' peers --only mqttrs --case 'decode: v4 PUBACK' --iterations
//! 100000` (`*encode_all*` for encoding, `*exchange_all*` for machines). The names are those of the
//! table, or parts of them.
//!
//! How it is measured:
//! - In each round, each contestant runs each case in turn with some thousand packets. The table
//!   shows the median of the rounds.
//! - A codec that decodes a case to wrong values, or encodes it to another packet, is not timed and
//!   gets a dash. A machine that reports or answers something else, with the bytes in one piece or
//!   one by one, is not timed either. A dash also means that the crate has no such function; all
//!   other gaps are listed below the tables, with the reason.
//! - Decoding covers the work of a user for one packet after another: finding the packet, parsing
//!   it, and dropping it. The buffer holds many copies of the packet and is filled before the clock
//!   starts; in the mixed streams, filling it in chunks of 4 KiB is timed, too. A crate that needs
//!   whole packets, or does not report how much it consumed, gets packets from
//!   [`codec::Unread::whole`], which costs about 2 ns.
//! - Encoding writes into one buffer that is cleared for each packet, if the crate writes to a
//!   buffer. If it consumes packets, they are cloned before the clock starts.
//! - Making is timed together with encoding in separate cases, for the crates that are among the
//!   fastest to encode. The strings and bytes of an application become a packet of the crate, which
//!   is encoded and dropped. A crate that can share a static payload does.
//! - The floor is not a codec: see `peers/floor.rs`.
//! - A machine gets bytes as a transport reads them and returns the bytes to write, so the code
//!   that it needs around itself is timed, too; `machines/` describes it. Each message is alone:
//!   its packets are read one by one, and their answers are written at once. From a client to a
//!   server, messages are sent in bursts of 16.
//! - Machines that take the time as an argument get it; their hosts read the clock once per wakeup.
//!   Machines that read the clock themselves do so while they are timed.

mod callgrind;
mod cases;
mod codec;
mod jobs;
mod machine;
mod machines;
mod measure;
mod peers;
mod routing;
#[path = "../../samples/mod.rs"]
#[allow(dead_code, reason = "the cases have packets of their own")]
mod samples;
mod strictness;

use cases::Task;
use measure::{Bench, Cost};
use peers::Column;
use std::env;
use std::time::Duration;

const PACKETS_A_ROUND: u64 = 4096;
const ROUNDS: usize = 61;

/// A contestant that takes longer for the packets of a round gets fewer of them afterwards.
const LONGEST: Duration = Duration::from_millis(20);

/// Checks a contestant in a case and returns its bench; `None` if the crate has no such function.
type Entry = Option<Box<dyn Fn() -> Result<Bench, String>>>;

/// The contestants, and the cases with an entry for each of them.
struct Table {
    names: Vec<&'static str>,
    /// The number of columns at the start that are not peers.
    no_peers: usize,
    rows: Vec<(String, Vec<Entry>)>,
    cells: Vec<Vec<Option<Cell>>>,
}

/// One contestant in one case.
struct Cell {
    bench: Result<Bench, String>,
    packets: u64,
    costs: Vec<Cost>,
}

fn main() {
    let (columns, machine_columns) = (peers::columns(), machines::columns());
    let mut tables = [of_codecs(&columns), of_machines(&machine_columns)];
    let arguments: Vec<String> = env::args().skip(1).collect();
    let value = |name: &str| {
        arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1))
    };
    if let Some(only) = value("--only") {
        let iterations = value("--iterations")
            .map_or(PACKETS_A_ROUND, |number| number.parse().expect("a number"));
        return run_one(&tables, only, value("--case").expect("--case"), iterations);
    }
    let rounds =
        env::var("ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("ROUNDS is a number"));
    match value("--table").map(String::as_str) {
        Some("codecs") => tables[1].rows.clear(),
        Some("machines") => tables[0].rows.clear(),
        Some("router") => return routing::print(rounds),
        Some(_) => panic!("--table codecs, --table machines, or --table router"),
        None => routing::print(rounds),
    }
    // The tables report a contestant that panics.
    std::panic::set_hook(Box::new(|_| ()));
    run(&mut tables, rounds);
    let [codecs, machines] = &tables;
    if arguments.iter().any(|argument| argument == "--instructions") {
        println!("Instructions per packet or message, by callgrind.\n");
        tables.iter().for_each(Table::print_instructions);
    }
    if !codecs.rows.is_empty() {
        println!("Nanoseconds per packet, medians of {rounds} rounds.\n");
        codecs.print(Cost::nanoseconds);
        println!("\nHeap allocations per packet.\n");
        codecs.print(Cost::allocated);
        println!(
            "\nWire vectors of `spec-vectors/`: invalid packets that are refused, \
             valid ones that are accepted.\n"
        );
        strictness::print(&columns);
        codecs.print_left_out();
    }
    if !machines.rows.is_empty() {
        println!("\nNanoseconds per message, medians of {rounds} rounds.\n");
        machines.print(Cost::nanoseconds);
        println!("\nHeap allocations per message.\n");
        machines.print(Cost::allocated);
        println!("\nBytes of these allocations per message.\n");
        machines.print(Cost::bytes);
        println!("\nThousands of messages a second from a client to a server in one thread:\n");
        machines.print_throughput();
        println!("\nDeliver a message with QoS 2 again that comes again before it is released:\n");
        machine_columns
            .iter()
            .filter(|column| column.delivers_twice())
            .for_each(|column| println!("- {}", column.name));
        machines.print_left_out();
    }
}

fn of_codecs(columns: &[Column]) -> Table {
    let rows = cases::all().leak().iter().map(|case| {
        let form = if let Task::Decode(form) = case.task { form } else { None };
        let entry = |column: &Column| -> Entry {
            if column.only_encodes && !matches!(case.task, Task::Encode) {
                return None;
            }
            let codec = column.codec(case.sample.version, form)?;
            Some(Box::new(move || codec.bench(case)))
        };
        (case.name.clone(), columns.iter().map(entry).collect())
    });
    Table {
        names: columns.iter().map(|column| column.name).collect(),
        no_peers: 3,
        rows: rows.collect(),
        cells: Vec::new(),
    }
}

fn of_machines(columns: &[machines::Column]) -> Table {
    let rows = jobs::all().leak().iter().map(|case| {
        let entry = |column: &machines::Column| -> Entry {
            let contestant = column.side(case.version, case.side)?;
            Some(Box::new(move || contestant.bench(case)))
        };
        (case.name.clone(), columns.iter().map(entry).collect())
    });
    Table {
        names: columns.iter().map(|column| column.name).collect(),
        no_peers: 1,
        rows: rows.collect(),
        cells: Vec::new(),
    }
}

fn run(tables: &mut [Table], rounds: usize) {
    let cell = |entry: &Entry| {
        entry.as_ref().map(|make| Cell {
            bench: make(),
            packets: PACKETS_A_ROUND,
            costs: Vec::new(),
        })
    };
    for table in &mut *tables {
        table.cells =
            table.rows.iter().map(|(_, entries)| entries.iter().map(cell).collect()).collect();
    }
    for round in 0..rounds {
        eprint!("\rround {} of {rounds}", round + 1);
        for cell in tables.iter_mut().flat_map(|table| &mut table.cells).flatten().flatten() {
            if let Ok(bench) = &mut cell.bench {
                let cost = bench(cell.packets);
                if cost.time > LONGEST {
                    cell.packets = (cell.packets / 2).max(1);
                }
                cell.costs.push(cost);
            }
        }
    }
    eprintln!();
}

fn run_one(tables: &[Table], only: &str, case: &str, iterations: u64) {
    let find = |same: &dyn Fn(&str) -> bool| {
        tables
            .iter()
            .find_map(|table| Some((table, table.rows.iter().find(|(name, _)| same(name))?)))
    };
    let (table, (name, entries)) = find(&|name| name == case)
        .or_else(|| find(&|name| name.contains(case)))
        .expect("no such case");
    let column = table.names.iter().position(|name| name.starts_with(only)).expect("no such crate");
    let make = entries[column].as_ref().expect("the crate has nothing for the case");
    let cost = make().expect("it is wrong in the case")(iterations);
    println!(
        "{}, {name}: {} times, {:.1} ns each",
        table.names[column],
        cost.packets,
        cost.nanoseconds()
    );
}

impl Cell {
    fn median(&self, of: fn(Cost) -> f64) -> Option<f64> {
        let mut values: Vec<f64> = self.costs.iter().copied().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }
}

impl Table {
    /// Returns the fastest peer in a case.
    fn best(&self, cells: &[Option<Cell>], of: fn(Cost) -> f64) -> Option<(f64, &'static str)> {
        let peers = cells.iter().zip(&self.names).skip(self.no_peers);
        let values = peers.filter_map(|(cell, name)| Some((cell.as_ref()?.median(of)?, *name)));
        values.min_by(|a, b| a.0.total_cmp(&b.0))
    }

    fn print_instructions(&self) {
        let columns = &self.names[..self.no_peers];
        println!("| case | {} | best peer |", columns.join(" | "));
        println!("|---|{}", "---|".repeat(columns.len() + 1));
        for ((case, _), cells) in self.rows.iter().zip(&self.cells) {
            let count = |name: &str, cell: &Option<Cell>| {
                let count = cell.as_ref().filter(|cell| cell.bench.is_ok());
                let count = count.and_then(|_| callgrind::instructions(name, case));
                count.map_or_else(|| "–".to_owned(), |count| format!("{count:.0}"))
            };
            let counts: String =
                columns.iter().zip(cells).map(|(name, cell)| count(name, cell) + " | ").collect();
            let best = self.best(cells, Cost::nanoseconds).map(|(_, name)| name);
            let best = best.and_then(|best| {
                let (_, cell) = self.names.iter().zip(cells).find(|(name, _)| **name == best)?;
                Some(format!("{} ({best})", count(best, cell)))
            });
            println!("| {case} | {counts}{} |", best.unwrap_or_else(|| "–".into()));
        }
    }

    fn print(&self, of: fn(Cost) -> f64) {
        // This crate comes first, and is not a peer.
        let (first, peers) = self.names.split_at(self.no_peers);
        let names =
            |names: &[&str]| names.iter().map(|name| format!(" {name} |")).collect::<String>();
        println!("| case |{} best peer |{}", names(first), names(peers));
        println!("|---|{}", "---|".repeat(self.names.len() + 1));
        for ((case, _), cells) in self.rows.iter().zip(&self.cells) {
            let values: Vec<Option<f64>> =
                cells.iter().map(|cell| cell.as_ref()?.median(of)).collect();
            let text = |value: &Option<f64>| {
                value.map_or_else(|| " – |".to_owned(), |value| format!(" {value:.1} |"))
            };
            let best = self
                .best(cells, of)
                .map_or_else(|| "–".into(), |(value, name)| format!("{value:.1} ({name})"));
            let texts = |values: &[Option<f64>]| values.iter().map(text).collect::<String>();
            println!(
                "| {case} |{} {best} |{}",
                texts(&values[..self.no_peers]),
                texts(&values[self.no_peers..])
            );
        }
    }

    fn print_throughput(&self) {
        for ((case, _), cells) in
            self.rows.iter().zip(&self.cells).filter(|((case, _), _)| case.starts_with(jobs::PAIR))
        {
            for (name, cell) in self.names.iter().zip(cells) {
                if let Some(thousands) =
                    cell.as_ref().and_then(|cell| cell.median(Cost::thousands_a_second))
                {
                    println!("- {case}: {name} {thousands:.0}");
                }
            }
        }
    }

    fn print_left_out(&self) {
        println!("\nLeft out:\n");
        for ((case, _), cells) in self.rows.iter().zip(&self.cells) {
            // Not listed: the floor, which is not a codec, and the tasks that most crates do not
            // have, which are handing on a payload and making packets.
            for (name, cell) in self
                .names
                .iter()
                .zip(cells)
                .filter(|(name, _)| **name != peers::FLOOR && !case.contains(cases::HAND_ON))
            {
                if let Some(Cell { bench: Err(reason), .. }) = cell
                    && reason != measure::NOT_MADE
                {
                    println!("- {case}: {name} {}", reason.chars().take(300).collect::<String>());
                }
            }
        }
    }
}
