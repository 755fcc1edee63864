//! A line on stderr with the progress of a long command, if stderr is a terminal.

use std::io::{self, IsTerminal as _, Read, Write as _};
use std::time::{Duration, Instant};

/// The time between two lines, and before the first one.
const PERIOD: Duration = Duration::from_millis(500);

/// The line, which is removed in the end.
pub(crate) struct Progress {
    is_on: bool,
    is_shown: bool,
}

impl Progress {
    pub(crate) fn new(is_on: bool) -> Self {
        Self { is_on: is_on && io::stderr().is_terminal(), is_shown: false }
    }

    fn show(&mut self, text: &str) {
        if self.is_on {
            self.is_shown = true;
            // Another program can have closed the terminal.
            let _ = write!(io::stderr(), "\r{text}\x1b[K");
        }
    }

    /// Shows a text again and again, until the call is dropped.
    pub(crate) async fn repeat(&mut self, text: impl Fn() -> String) {
        loop {
            tokio::time::sleep(PERIOD).await;
            self.show(&text());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// A file that shows how much of it was read.
pub(crate) struct Reading<R> {
    file: R,
    length: u64,
    read: u64,
    shown: Instant,
    progress: Progress,
}

impl<R> Reading<R> {
    pub(crate) fn new(file: R, length: u64, progress: Progress) -> Self {
        Self { file, length, read: 0, shown: Instant::now(), progress }
    }
}

impl<R: Read> Read for Reading<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        if self.shown.elapsed() > PERIOD {
            self.shown = Instant::now();
            self.progress.show(&of(self.read, self.length));
        }
        Ok(count)
    }
}

/// Returns a text such as "1.5 of 16.0 MiB".
pub(crate) fn of(part: u64, whole: u64) -> String {
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!("{:.1} of {:.1} MiB", mebibytes(part.min(whole)), mebibytes(whole))
}
