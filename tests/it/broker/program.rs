//! Scenarios over sockets: with `SCENARIO_BROKER` set, each scenario is played with a program that
//! is started for it, in place of the core. `.ci/scenarios` does this for several programs.
//!
//! The value is a command of the shell in which `{port}` stands for a free TCP port. A scenario
//! ends where it needs the core itself, and counts as not played.

use core::ops::{Deref, DerefMut};
use core::time::Duration;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::{panicking, sleep};
use std::time::Instant;
use testkit::port::free_ports;

/// The most time that the program has for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time after which a program is taken to have nothing to say, where nothing shows it.
pub const QUIET: Duration = Duration::from_millis(60);

/// Returns the command that starts the program, if scenarios are to be played with one.
pub fn command() -> Option<String> {
    std::env::var("SCENARIO_BROKER").ok()
}

/// A value that only a scenario with the core in this process has.
pub struct CoreOnly<T> {
    value: T,
    is_program: bool,
}

/// The payload of the unwinding that ends a scenario which a program cannot play.
pub struct NotPlayed;

impl<T> CoreOnly<T> {
    pub const fn new(value: T, is_program: bool) -> Self {
        Self { value, is_program }
    }

    fn check(&self) {
        if self.is_program {
            not_played();
        }
    }
}

impl<T> Deref for CoreOnly<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.check();
        &self.value
    }
}

impl<T> DerefMut for CoreOnly<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.check();
        &mut self.value
    }
}

/// Ends the scenario without a message.
pub fn not_played() -> ! {
    std::panic::resume_unwind(Box::new(NotPlayed))
}

/// A running program, and all that it has started.
pub struct Program {
    child: Child,
    port: u16,
    /// What the program says, which is shown when its scenario fails.
    errors: File,
}

impl Program {
    pub fn start(command: &str) -> Self {
        let port = free_ports(1);
        let command = command.replace("{port}", &port.to_string());
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).stdin(Stdio::null()).stdout(Stdio::null());
        let errors = unnamed_file(port);
        shell.stderr(errors.try_clone().unwrap());
        let child = shell.process_group(0).spawn().unwrap();
        let program = Self { child, port, errors };
        drop(program.connect());
        program
    }

    /// Connects, once the program listens.
    pub fn connect(&self) -> TcpStream {
        let end = Instant::now() + PATIENCE;
        loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => {
                    stream.set_nodelay(true).unwrap();
                    return stream;
                }
                Err(error) => assert!(Instant::now() < end, "the program does not listen: {error}"),
            }
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if panicking() {
            let (ended, mut said) = (self.child.try_wait(), String::new());
            let read = self.errors.rewind().and_then(|()| self.errors.read_to_string(&mut said));
            eprintln!("port {}; ended: {ended:?}; read: {read:?}; said:\n{said}", self.port);
        }
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-9", "--", &group]).status();
        let _ = self.child.wait();
    }
}

fn unnamed_file(port: u16) -> File {
    let path = std::env::temp_dir().join(format!("scenario-{}-{port}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

/// A client's end of a connection to the program.
pub struct Socket {
    stream: TcpStream,
    pub is_closed: bool,
}

impl Socket {
    pub const fn new(stream: TcpStream) -> Self {
        Self { stream, is_closed: false }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        // A program that has closed the connection is noticed by the next read.
        let _ = self.stream.write_all(bytes);
    }

    /// Reads what comes within a time. Returns whether anything has come, also the end.
    pub fn read(&mut self, within: Duration, into: &mut impl Extend<u8>) -> bool {
        if self.is_closed {
            return false;
        }
        self.stream.set_read_timeout(Some(within.max(Duration::from_millis(1)))).unwrap();
        let mut buffer = vec![0; 256 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.is_closed = true,
            Ok(count) => into.extend(buffer[..count].iter().copied()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            // A read with a time limit is interrupted when this process is frozen meanwhile.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                eprintln!("a connection has ended: {error}");
                self.is_closed = true;
            }
        }
        true
    }

    /// Reads until `is_done` or the connection ends.
    pub fn read_until<B: Extend<u8>>(
        &mut self,
        into: &mut B,
        mut is_done: impl FnMut(&mut B) -> bool,
    ) {
        let end = Instant::now() + PATIENCE;
        while !is_done(into) && !self.is_closed {
            self.read(QUIET, into);
            assert!(Instant::now() < end, "the program does not answer");
        }
    }

    /// Reads until nothing comes for a while.
    pub fn read_rest(&mut self, into: &mut impl Extend<u8>) {
        while self.read(QUIET, into) && !self.is_closed {}
    }
}
