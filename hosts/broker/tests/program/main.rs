//! The program as its users run it: started with flags, used through sockets. If a program of
//! mosquitto is not installed, its tests print SKIPPED and pass; in CI they fail. `THREADS=2` in
//! the environment gives each broker two threads.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod bridge;
mod browser;
mod client;
mod clients;
mod configuration;
mod connections;
mod listeners;
mod operation;
mod power;
mod readme;
mod security;
mod sn;
mod soak;
mod store;

use std::io::{BufRead as _, BufReader, Write as _, stderr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// A broker that is killed at the end of the test.
struct Broker {
    process: Child,
    log: Arc<Mutex<String>>,
}

impl Broker {
    /// Starts a broker, and waits until it listens.
    fn start(flags: &[&str]) -> Self {
        let mut broker = Self::start_without_waiting(flags);
        let count = flags.iter().filter(|flag| **flag == "--listen").count();
        broker.wait(|log| log.matches("listening on").count() == count);
        broker
    }

    fn start_without_waiting(flags: &[&str]) -> Self {
        Self::start_with(flags, &[])
    }

    fn start_with(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let threads = std::env::var("THREADS").map(|threads| format!("--threads={threads}"));
        let mut process = Command::new(env!("CARGO_BIN_EXE_broker"))
            // First, because a later flag takes precedence.
            .args(threads.ok())
            .args(flags)
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, copy) = (BufReader::new(process.stderr.take().unwrap()).lines(), log.clone());
        spawn(move || {
            for line in lines.map_while(Result::ok) {
                *copy.lock().unwrap() += &(line + "\n");
            }
        });
        Self { process, log }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log is as expected.
    fn wait(&mut self, expected: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !expected(&self.log()) {
            // A disk that others keep busy delays the syncs of a start.
            let is_late = start.elapsed() > Duration::from_secs(60);
            assert!(!is_late, "the log is not as expected: {}", self.log());
            sleep(Duration::from_millis(5));
        }
    }

    /// Returns the address after `scheme://` in the log.
    fn address(&self, scheme: &str) -> String {
        let log = self.log();
        let (_, rest) = log.split_once(&format!("listening on {scheme}://")).unwrap();
        rest.lines().next().unwrap().to_owned()
    }

    fn port(&self, scheme: &str) -> String {
        self.address(scheme).rsplit(':').next().unwrap().to_owned()
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Returns the resident memory of the program.
    fn resident_bytes(&self) -> usize {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.process.id())).unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
    }

    /// Waits for the end of the program. Returns whether it has succeeded.
    fn end(&mut self) -> bool {
        self.process.wait().unwrap().success()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A directory that is removed at the end of the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mqtt-sansio-broker-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file, and returns its path.
    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).unwrap();
        self.path(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether a program is installed. If CI is set, it must be.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain([Path::new("/usr/sbin").to_owned()])
        .any(|directory| directory.join(program).is_file());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{program} is not installed");
        skip(&format!("{program} is missing"));
    }
    found
}

/// Reports that a test is skipped. The message bypasses the capture of `cargo test`, so that its
/// user sees it.
#[expect(clippy::explicit_write, reason = "the test harness would capture `eprintln!`")]
fn skip(reason: &str) {
    writeln!(stderr(), "SKIPPED: a test of the broker program, because {reason}").unwrap();
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stderr(Stdio::null()).status();
    status.unwrap().success()
}
