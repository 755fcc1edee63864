//! Measures the broker program beside mosquitto and a plain forwarder, one after the other in each
//! cell, and writes tables in Markdown:
//!
//! ```sh
//! cargo build --release --bin broker
//! cargo run --release -p load
//! ```
//!
//! Only processor time counts in the first table, because the load takes one of the cores. It
//! shares no code with the broker.

mod forward;
mod play;

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use play::{Cell, Pace, Played, play};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

#[derive(Parser)]
struct Arguments {
    /// Runs of each cell; the table has their medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Milliseconds of each run, after a warm-up of a third.
    #[arg(long, default_value_t = 600)]
    milliseconds: u64,
    #[arg(long, default_value = "target/release/broker")]
    broker: PathBuf,
    #[arg(long, default_value = "/usr/sbin/mosquitto")]
    mosquitto: PathBuf,
    /// Only cells whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only this table.
    table: Option<Table>,
    /// Be the plain forwarder, on this port.
    #[arg(long, hide = true)]
    forward: Option<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Table {
    /// The broker beside mosquitto and a forwarder: processor time when saturated.
    Mosquitto,
    /// The broker beside mosquitto at low rates: latency, system calls, and processor time.
    Rates,
    /// One thread beside two.
    Threads,
    /// Records and transactions of a store.
    Store,
}

/// A program under test.
struct Server {
    name: &'static str,
    process: Child,
    port: u16,
    /// Whether the subscribers keep their sessions.
    is_stored: bool,
    /// Where the broker says what it has stored.
    metrics: Option<u16>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(
        name: &'static str,
        command: impl FnOnce(u16) -> anyhow::Result<Command>,
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = command(port)?;
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().with_context(|| format!("{command:?}"))?;
        let server = Self { name, process, port, is_stored: name == "stored", metrics: None };
        thread::sleep(Duration::from_millis(500));
        Ok(server)
    }

    /// Returns the processor time of each thread.
    fn cpu(&self) -> anyhow::Result<Vec<Cpu>> {
        let process = self.process.id().to_string();
        let mut threads = Vec::new();
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            let path = task?.path();
            let read = |name| fs::read_to_string(path.join(name));
            // The scheduler counts it in nanoseconds.
            let nanoseconds = read("schedstat")?;
            let nanoseconds = nanoseconds.split(' ').next().context("schedstat")?.parse()?;
            let stat = read("stat")?;
            // Behind the name, which can have spaces.
            let (_, stat) = stat.rsplit_once(") ").context("stat")?;
            let mut ticks = stat.split(' ').skip(11).map(str::parse);
            let (user, system) = (ticks.next().context("stat")??, ticks.next().context("stat")??);
            let serves = path.ends_with(&process) || read("comm")?.starts_with("connections-");
            threads.push(Cpu { nanoseconds, user, system, serves });
        }
        Ok(threads)
    }

    /// Returns the records that the broker has stored, and its transactions.
    fn stored(&self) -> anyhow::Result<[u64; 2]> {
        let Some(port) = self.metrics else { return Ok([0; 2]) };
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: load\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            anyhow::Ok(line.with_context(|| format!("no {name}"))?.parse()?)
        };
        Ok([value("mqtt_stored_records_total")?, value("mqtt_stored_batches_total")?])
    }

    fn play(&self, cell: &Cell, pace: Pace, time: Duration) -> anyhow::Result<(Played, Spent)> {
        let sample = || Ok((self.cpu()?, self.stored()?));
        let (played, before, after) = play(self.port, cell, pace, self.is_stored, time, sample)?;
        ensure!(played.delivered > 0, "{}: nothing was delivered", self.name);
        let mut spent = Spent::new(&before.0, &after.0, played.delivered);
        for (spent, (before, after)) in spent.stored.iter_mut().zip(before.1.iter().zip(after.1)) {
            *spent = (after - before) as f64 / played.delivered as f64;
        }
        Ok((played, spent))
    }
}

/// The processor time of a thread.
#[derive(Clone, Copy)]
struct Cpu {
    nanoseconds: u64,
    /// Clock ticks outside of the kernel, and in it.
    user: u64,
    system: u64,
    /// Whether the thread serves connections.
    serves: bool,
}

/// The processor time that a program has spent on a cell.
struct Spent {
    /// For each delivery.
    micros: f64,
    /// Clock ticks in the kernel, and all.
    ticks: [f64; 2],
    /// The least part of a thread that serves connections, of the time of these threads.
    least: f64,
    /// Records and transactions of the store, for each delivery.
    stored: [f64; 2],
}

impl Spent {
    fn new(before: &[Cpu], after: &[Cpu], delivered: usize) -> Self {
        let sum = |threads: &[Cpu], of: fn(&Cpu) -> u64| threads.iter().map(of).sum::<u64>();
        let spent = |of| sum(after, of).saturating_sub(sum(before, of)) as f64;
        let (user, system) = (spent(|cpu| cpu.user), spent(|cpu| cpu.system));
        // Threads that serve are there from the start, and keep their order.
        let serving = |threads: &[Cpu]| -> Vec<u64> {
            threads.iter().filter(|cpu| cpu.serves).map(|cpu| cpu.nanoseconds).collect()
        };
        let pairs = serving(after).into_iter().zip(serving(before));
        let serving: Vec<_> = pairs.map(|(after, before)| (after - before) as f64).collect();
        Self {
            micros: spent(|cpu| cpu.nanoseconds) / 1e3 / delivered as f64,
            ticks: [system, user + system],
            least: serving.iter().copied().fold(f64::INFINITY, f64::min)
                / serving.iter().sum::<f64>(),
            stored: [0.0; 2],
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(port) = arguments.forward {
        return forward::run(port);
    }
    let directory = env::temp_dir().join(format!("load-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let wants = |table| arguments.table.is_none_or(|one| one == table);
    if wants(Table::Mosquitto) || wants(Table::Rates) {
        let servers = start(&arguments, &directory)?;
        if wants(Table::Mosquitto) {
            saturate(&arguments, &servers)?;
        }
        if wants(Table::Rates) {
            trickle(&arguments, &servers)?;
        }
    }
    if wants(Table::Threads) {
        spread(&arguments)?;
    }
    if wants(Table::Store) {
        store(&arguments, &directory)?;
    }
    fs::remove_dir_all(&directory)?;
    Ok(())
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn broker(program: &std::path::Path, port: u16) -> Command {
    let mut command = Command::new(program);
    command.args(["--listen", &format!("tcp://127.0.0.1:{port}"), "--log-level", "error"]);
    command.args(["--sys-interval", "0", "--max-in-flight", "100"]);
    command
}

fn start(arguments: &Arguments, directory: &std::path::Path) -> anyhow::Result<[Server; 4]> {
    let broker = |port| broker(&arguments.broker, port);
    Ok([
        Server::start("broker", |port| Ok(broker(port)))?,
        Server::start("mosquitto", |port| {
            let file = directory.join("mosquitto.conf");
            let text = format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\nsys_interval 0\n\
                 max_inflight_messages 100\nlog_type error\n"
            );
            fs::write(&file, text)?;
            let mut command = Command::new(&arguments.mosquitto);
            command.arg("-c").arg(file);
            Ok(command)
        })?,
        Server::start("forwarder", |port| {
            let mut command = Command::new(env::current_exe()?);
            command.arg(format!("--forward={port}"));
            Ok(command)
        })?,
        Server::start("stored", |port| {
            let mut command = broker(port);
            command.arg("--data-dir").arg(directory.join("data"));
            Ok(command)
        })?,
    ])
}

/// Writes the table of processor time per delivery.
fn saturate(arguments: &Arguments, servers: &[Server; 4]) -> anyhow::Result<()> {
    let mut times: BTreeMap<(usize, usize), Vec<f64>> = BTreeMap::new();
    let cells: Vec<_> =
        Cell::all().into_iter().filter(|cell| cell.to_string().contains(&arguments.only)).collect();
    let time = Duration::from_millis(arguments.milliseconds);
    for round in 0..arguments.rounds {
        for (number, cell) in cells.iter().enumerate() {
            eprintln!("round {round}: {cell}");
            for (server, one) in servers.iter().enumerate() {
                // The store has nothing to do with QoS 0.
                if !one.is_stored || cell.qos > 0 {
                    match one.play(cell, Pace::Window, time) {
                        Ok((_, spent)) => {
                            times.entry((number, server)).or_default().push(spent.micros);
                        }
                        Err(error) => eprintln!("left out: {error:#}"),
                    }
                }
            }
        }
    }
    println!("| cell | broker | mosquitto | ratio | forwarder | above it | with a store | ratio |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut ratios = Vec::new();
    for (number, cell) in cells.iter().enumerate() {
        let mut of = |server| times.get_mut(&(number, server)).map(|times| median(times));
        let [broker, mosquitto, forwarder] = [0, 1, 2].map(|server| of(server).unwrap_or(f64::NAN));
        let stored = of(3).map_or("| |".to_owned(), |stored| {
            format!("| {stored:.2} | {:.2}", stored / mosquitto)
        });
        ratios.push(broker / mosquitto);
        println!(
            "| {cell} | {broker:.2} | {mosquitto:.2} | {:.2} | {forwarder:.2} | {:.1} {stored} |",
            broker / mosquitto,
            broker / forwarder
        );
    }
    println!("\nGeometric mean of the ratios: {:.2}.\n", mean(&ratios));
    Ok(())
}

/// Writes the table of one thread beside two.
fn spread(arguments: &Arguments) -> anyhow::Result<()> {
    let start = |name, program: &std::path::Path, threads| {
        Server::start(name, |port| {
            let mut command = broker(program, port);
            command.args(["--threads", threads]);
            Ok(command)
        })
    };
    let servers = [
        start("one thread", &arguments.broker, "1")?,
        start("two threads", &arguments.broker, "2")?,
    ];
    let cells = Cell::all().into_iter().filter(|cell| cell.size == 256);
    let cells: Vec<_> = cells.filter(|cell| cell.to_string().contains(&arguments.only)).collect();
    let time = Duration::from_millis(arguments.milliseconds);
    println!("| cell | one thread | in the kernel | two threads | ratio | the lesser share |");
    println!("|---|---|---|---|---|---|");
    let mut ratios = Vec::new();
    for cell in cells {
        let mut spent: [Vec<Spent>; 2] = Default::default();
        for round in 0..arguments.rounds {
            eprintln!("round {round}: {cell}");
            for (server, spent) in servers.iter().zip(&mut spent) {
                spent.push(server.play(&cell, Pace::Window, time)?.1);
            }
        }
        let of = |server: usize, value: fn(&Spent) -> f64| {
            median(&mut spent[server].iter().map(value).collect::<Vec<_>>())
        };
        let [one, two] = [0, 1].map(|server| of(server, |spent| spent.micros));
        ratios.push(two / one);
        // Of all rounds, because ticks are few.
        let [system, all] =
            [0, 1].map(|index| -> f64 { spent[0].iter().map(|spent| spent.ticks[index]).sum() });
        let (kernel, least) = (system / all, of(1, |spent| spent.least));
        println!("| {cell} | {one:.2} | {kernel:.2} | {two:.2} | {:.2} | {least:.2} |", two / one);
    }
    println!("\nGeometric mean of the ratios: {:.2}.\n", mean(&ratios));
    Ok(())
}

/// Writes the table of records and transactions.
fn store(arguments: &Arguments, directory: &std::path::Path) -> anyhow::Result<()> {
    let metrics = free_port()?;
    let mut server = Server::start("stored", |port| {
        let mut command = broker(&arguments.broker, port);
        command.args(["--metrics", &format!("127.0.0.1:{metrics}")]);
        command.args(["--max-queued-messages", "1000000"]);
        command.arg("--data-dir").arg(directory.join("stored"));
        Ok(command)
    })?;
    server.metrics = Some(metrics);
    let cells = Cell::all().into_iter().filter(|cell| cell.size >= 256 && cell.qos > 0);
    let cells = cells.flat_map(|cell| [cell, Cell { is_away: true, ..cell }]);
    let cells: Vec<_> = cells.filter(|cell| cell.to_string().contains(&arguments.only)).collect();
    let time = Duration::from_millis(arguments.milliseconds);
    println!("| under load | CPU µs | records | transactions | deliveries/s |");
    println!("|---|---|---|---|---|");
    for cell in cells {
        let mut columns: [Vec<f64>; 4] = Default::default();
        for round in 0..arguments.rounds {
            eprintln!("round {round}: {cell}");
            let (played, spent) = server.play(&cell, Pace::Window, time)?;
            let rate = played.delivered as f64 / time.as_secs_f64();
            let values = [spent.micros, spent.stored[0], spent.stored[1], rate];
            columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
        }
        let [micros, records, transactions, rate] = columns.map(|mut column| median(&mut column));
        println!("| {cell} | {micros:.1} | {records:.2} | {transactions:.4} | {rate:.0} |");
    }
    println!();
    Ok(())
}

/// Returns the geometric mean.
fn mean(ratios: &[f64]) -> f64 {
    (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp()
}

/// Writes the table of system calls and latency at low rates.
fn trickle(arguments: &Arguments, servers: &[Server; 4]) -> anyhow::Result<()> {
    println!("| at a low rate | p50 µs | | | p99 µs | | | system calls | | | CPU µs | | |");
    println!("|{}", "---|".repeat(13));
    println!("| |{}", " broker | store | mosquitto |".repeat(4));
    for (publishers, subscribers, rate) in [(1, 1, 2_000), (1, 100, 100)] {
        for qos in 0..=2 {
            let cell = Cell { publishers, subscribers, qos, size: 256, is_away: false };
            if !cell.to_string().contains(&arguments.only) {
                continue;
            }
            let [broker, mosquitto, _, stored] = servers;
            let servers = [broker, stored, mosquitto];
            // The store has nothing to do with QoS 0.
            let is_left_out = |server: &Server| server.is_stored && qos == 0;
            let mut values: [[Vec<f64>; 3]; 3] = Default::default();
            for _ in 0..arguments.rounds.max(5) {
                for (server, [p50, p99, cpu]) in servers.iter().zip(&mut values) {
                    if is_left_out(server) {
                        continue;
                    }
                    let (mut played, spent) =
                        server.play(&cell, Pace::Rate(rate), Duration::from_millis(1_000))?;
                    played.latencies.sort();
                    let at = |part: f64| {
                        let index = (played.latencies.len() as f64 * part) as usize;
                        played.latencies[index.min(played.latencies.len() - 1)].as_secs_f64() * 1e6
                    };
                    p50.push(at(0.5));
                    p99.push(at(0.99));
                    cpu.push(spent.micros);
                }
            }
            let mut columns: [Vec<String>; 4] = Default::default();
            for (server, [p50, p99, cpu]) in servers.iter().zip(&mut values) {
                if is_left_out(server) {
                    columns.iter_mut().for_each(|column| column.push(String::new()));
                    continue;
                }
                let calls = system_calls(server, &cell, rate)?;
                let all = [median(p50), median(p99), calls, median(cpu)];
                for (column, (value, digits)) in
                    columns.iter_mut().zip(all.into_iter().zip([0, 0, 2, 1]))
                {
                    column.push(format!("{value:.digits$}"));
                }
            }
            println!("| {cell}, {rate}/s | {} |", columns.concat().join(" | "));
        }
    }
    Ok(())
}

/// Returns the system calls for each delivery.
fn system_calls(server: &Server, cell: &Cell, rate: u32) -> anyhow::Result<f64> {
    let id = server.process.id().to_string();
    let strace = Command::new("strace")
        .args(["-c", "-f", "-p", &id])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(strace) = strace else { return Ok(f64::NAN) };
    thread::sleep(Duration::from_millis(300));
    let (played, _) = server.play(cell, Pace::Rate(rate), Duration::from_secs(2))?;
    Command::new("kill").args(["-INT", &strace.id().to_string()]).status()?;
    let text = String::from_utf8(strace.wait_with_output()?.stderr)?;
    let total = text.lines().find(|line| line.ends_with(" total")).unwrap_or_default();
    let calls = total.split_whitespace().nth(3).unwrap_or_default();
    // The warm-up is counted as well.
    Ok(calls.parse::<f64>().unwrap_or(f64::NAN) / played.delivered_in_all as f64)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
