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
use clap::Parser;
use play::{Cell, Pace, Played, play};
use std::collections::BTreeMap;
use std::net::TcpListener;
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
    /// Be the plain forwarder, on this port.
    #[arg(long, hide = true)]
    forward: Option<u16>,
}

/// A program under test.
struct Server {
    name: &'static str,
    process: Child,
    port: u16,
    /// Whether the subscribers keep their sessions.
    is_stored: bool,
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
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = command(port)?;
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().with_context(|| format!("{command:?}"))?;
        let server = Self { name, process, port, is_stored: name == "stored" };
        thread::sleep(Duration::from_millis(500));
        Ok(server)
    }

    /// Returns the processor time of all threads. The scheduler counts it in nanoseconds.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            sum += text.split(' ').next().context("schedstat")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(sum))
    }

    fn play(&self, cell: &Cell, pace: Pace, time: Duration) -> anyhow::Result<(Played, f64)> {
        let (played, before, after) =
            play(self.port, cell, pace, self.is_stored, time, || self.cpu())?;
        ensure!(played.delivered > 0, "{}: nothing was delivered", self.name);
        let micros = (after - before).as_secs_f64() * 1e6 / played.delivered as f64;
        Ok((played, micros))
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(port) = arguments.forward {
        return forward::run(port);
    }
    let directory = env::temp_dir().join(format!("load-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let servers = start(&arguments, &directory)?;
    saturate(&arguments, &servers)?;
    trickle(&arguments, &servers)?;
    drop(servers);
    fs::remove_dir_all(&directory)?;
    Ok(())
}

fn start(arguments: &Arguments, directory: &std::path::Path) -> anyhow::Result<[Server; 4]> {
    let broker = |port: u16| {
        let mut command = Command::new(&arguments.broker);
        command.args(["--listen", &format!("tcp://127.0.0.1:{port}"), "--log-level", "error"]);
        command.args(["--sys-interval", "0", "--max-in-flight", "100"]);
        command
    };
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
                        Ok((_, micros)) => {
                            times.entry((number, server)).or_default().push(micros);
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
    let mean = ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64;
    println!("\nGeometric mean of the ratios: {:.2}.\n", mean.exp());
    Ok(())
}

/// Writes the table of system calls and latency at low rates.
fn trickle(arguments: &Arguments, servers: &[Server; 4]) -> anyhow::Result<()> {
    println!("| at a low rate | p50 µs | | p99 µs | | system calls | | CPU µs | |");
    println!("|---|---|---|---|---|---|---|---|---|");
    println!(
        "| | broker | mosquitto | broker | mosquitto | broker | mosquitto | broker | mosquitto |"
    );
    for (publishers, subscribers, rate) in [(1, 1, 2_000), (1, 100, 100)] {
        for qos in 0..=2 {
            let cell = Cell { publishers, subscribers, qos, size: 256 };
            if !cell.to_string().contains(&arguments.only) {
                continue;
            }
            let mut columns: [Vec<String>; 4] = Default::default();
            for server in servers.iter().take(2) {
                let (mut p50, mut p99, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
                for _ in 0..arguments.rounds.max(5) {
                    let (mut played, micros) =
                        server.play(&cell, Pace::Rate(rate), Duration::from_millis(1_000))?;
                    played.latencies.sort();
                    let at = |part: f64| {
                        let index = (played.latencies.len() as f64 * part) as usize;
                        played.latencies[index.min(played.latencies.len() - 1)].as_secs_f64() * 1e6
                    };
                    p50.push(at(0.5));
                    p99.push(at(0.99));
                    cpu.push(micros);
                }
                let calls = system_calls(server, &cell, rate)?;
                let all = [median(&mut p50), median(&mut p99), calls, median(&mut cpu)];
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
