//! The client library beside rumqttc: `cargo run --release`.
//!
//! Each measurement is a process of its own, with a runtime of one thread, so its CPU time is that
//! of the client alone. The server is a thread of this process. Both clients take turns; the table
//! has the median of each, and the ratio of the CPU times.

#[cfg(test)]
mod guide;
mod load;
mod program;
mod server;

use std::process::Command;

/// The cases: the direction, the QoS and the number of messages of a process.
const CASES: [(&str, u8, u32); 6] = [
    ("send", 0, 1_000_000),
    ("send", 1, 300_000),
    ("send", 2, 200_000),
    ("receive", 0, 1_000_000),
    ("receive", 1, 500_000),
    ("receive", 2, 300_000),
];
const ROUNDS: usize = 5;
const IDLE: u32 = 1_000;
const CLIENTS: [&str; 2] = ["ours", "rumqttc"];

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["program", "ours", port] => program::ours::run(port.parse().unwrap()),
        ["program", _, port] => program::rumqttc::run(port.parse().unwrap()),
        ["load", client, case, qos, count, port] => {
            let (qos, count, port) = (qos.parse().unwrap(), count.parse().unwrap(), port);
            load::run(client, case, qos, count, port.parse().unwrap());
        }
        // For a profiler: `perf record client-bench load ours receive 0 1000000 PORT`.
        ["server"] => {
            println!("{}", server::start());
            std::thread::park();
        }
        _ => compare(arguments.first().copied()),
    }
}

/// Prints the tables. Only the cases whose name contains the filter are measured.
fn compare(filter: Option<&str>) {
    let port = server::start().to_string();
    println!("| the same program | mqtt-sansio-client | rumqttc |");
    println!("|---|---|---|");
    let [ours, theirs] = program::SOURCES.map(lines);
    for client in CLIENTS {
        assert_eq!(child(&["program", client, &port]), "acknowledged 10, received 10");
    }
    println!("| lines | {ours} | {theirs} |");
    let idle = CLIENTS.map(|client| {
        let bytes = child(&["load", client, "idle", "0", &IDLE.to_string(), &port]);
        bytes.parse::<f64>().unwrap() / f64::from(IDLE) / 1024.0
    });
    println!("| memory of an idle client, KiB | {:.1} | {:.1} |", idle[0], idle[1]);
    println!();
    println!(
        "| µs of CPU per message (messages per second) | mqtt-sansio-client | rumqttc | ratio |"
    );
    println!("|---|---|---|---|");
    for (case, qos, count) in CASES {
        let name = format!("{case}, QoS {qos}");
        if filter.is_some_and(|filter| !name.contains(filter)) {
            continue;
        }
        let mut all = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (client, measured) in CLIENTS.iter().zip(&mut all) {
                let output =
                    child(&["load", client, case, &qos.to_string(), &count.to_string(), &port]);
                let (cpu, wall) = output.split_once(' ').unwrap();
                let (cpu, wall): (f64, f64) = (cpu.parse().unwrap(), wall.parse().unwrap());
                measured.push((cpu / f64::from(count) / 1e3, f64::from(count) * 1e9 / wall));
            }
        }
        let medians = all.map(|mut measured| {
            measured.sort_by(|a, b| a.0.total_cmp(&b.0));
            measured[ROUNDS / 2]
        });
        let cells = medians.map(|(cpu, rate)| format!("{cpu:.2} ({:.0} k)", rate / 1e3));
        let ratio = medians[0].0 / medians[1].0;
        println!("| {name} | {} | {} | {ratio:.2} |", cells[0], cells[1]);
    }
}

/// Runs this program as another process, and returns what it prints.
fn child(arguments: &[&str]) -> String {
    let output = Command::new(std::env::current_exe().unwrap()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Counts the lines of a program, without comments and empty lines.
fn lines(source: &str) -> usize {
    let lines = source.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}
