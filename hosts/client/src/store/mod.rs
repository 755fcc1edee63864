//! The file that keeps a session over restarts of the program: a log of changes.
//!
//! The file is `MQC\x02` and frames. A frame is a length and a CRC-32 of 4 bytes each, big-endian,
//! and that many bytes of [records]. A frame is appended to the file, so a crash leaves the whole
//! frame or an incomplete one, which is dropped when the file is loaded. A file that has grown to
//! twice its size is replaced by one with the fewest records. So the cost of a message is a few
//! times its own size, however many others wait.

mod records;
#[cfg(test)]
mod tests;

pub(crate) use records::{Records, Stored};

use mqtt_sansio::Instant;
use records::State;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use tokio::task::JoinHandle;

const FORMAT: &[u8; 4] = b"MQC\x02";

/// A file is not replaced before it has grown by this many bytes.
const LEAST_GROWTH: u64 = 256 * 1024;

#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    /// The file, if it is open and no write is in progress.
    log: Option<Log>,
    /// Records that are not in the file.
    unwritten: Records,
    writing: Option<JoinHandle<Written>>,
}

/// The file, or the records that are not in it.
type Written = Result<Log, (io::Error, Records)>;

impl Store {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, log: None, unwritten: Records::default(), writing: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the stored session, if there is a file.
    pub(crate) fn load(&self, now: Instant) -> io::Result<Option<Stored>> {
        let Some(state) = read(&self.path)? else { return Ok(None) };
        state.to_stored(now).map(Some).ok_or_else(damaged)
    }

    /// Appends records to the file. After an error, the next call writes them again. If the call is
    /// dropped, the next one waits for the write that has begun.
    pub(crate) async fn save(&mut self, records: Records) -> io::Result<()> {
        self.unwritten.append(records);
        while self.writing.is_some() || !self.unwritten.is_empty() {
            let writing = self.writing.get_or_insert_with(|| {
                let (path, log) = (self.path.clone(), self.log.take());
                let batch = std::mem::take(&mut self.unwritten);
                tokio::task::spawn_blocking(move || {
                    write(&path, log, &batch).map_err(|error| (error, batch))
                })
            });
            let written = writing.await.map_err(io::Error::other);
            self.writing = None;
            match written? {
                Ok(log) => self.log = Some(log),
                Err((error, mut batch)) => {
                    batch.append(std::mem::take(&mut self.unwritten));
                    self.unwritten = batch;
                    let path = self.path.display();
                    let problem = format!("cannot store the session in {path}: {error}");
                    return Err(io::Error::new(error.kind(), problem));
                }
            }
        }
        Ok(())
    }
}

/// Writes one frame, and replaces the file if it has grown too much.
fn write(path: &Path, log: Option<Log>, batch: &Records) -> io::Result<Log> {
    let mut log = match log {
        Some(log) => log,
        None => Log::open(path)?,
    };
    log.append(batch)?;
    if log.length > log.length_at_start * 2 + LEAST_GROWTH {
        log = Log::open(path)?;
    }
    Ok(log)
}

/// An open file. It is dropped after an error, which can leave an incomplete frame.
#[derive(Debug)]
struct Log {
    file: File,
    length: u64,
    length_at_start: u64,
}

impl Log {
    /// Replaces the file by one with the fewest records, and opens it.
    fn open(path: &Path) -> io::Result<Self> {
        let state = read(path)?.unwrap_or_default();
        let mut bytes = FORMAT.to_vec();
        bytes.extend(frame(&state.to_records())?);
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        // The new name of the file must survive a loss of power, too.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(Self { file, length, length_at_start: length })
    }

    fn append(&mut self, records: &Records) -> io::Result<()> {
        let frame = frame(&records.bytes)?;
        self.file.write_all(&frame)?;
        if records.must_sync {
            self.file.sync_data()?;
        }
        self.length += u64::try_from(frame.len()).unwrap_or(u64::MAX);
        Ok(())
    }
}

fn frame(records: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(records.len()).map_err(io::Error::other)?;
    let crc = crc32fast::hash(records);
    Ok([&length.to_be_bytes()[..], &crc.to_be_bytes(), records].concat())
}

/// Returns the state in a file, if there is one.
fn read(path: &Path) -> io::Result<Option<State>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let (state, torn) = parse(&bytes).ok_or_else(damaged)?;
    if torn > 0 {
        tracing::warn!("{}: the last {torn} bytes are not complete", path.display());
    }
    Ok(Some(state))
}

/// Returns the state after all complete frames, and the number of bytes that follow them.
fn parse(bytes: &[u8]) -> Option<(State, usize)> {
    let mut rest = bytes.strip_prefix(FORMAT)?;
    let mut state = State::default();
    while let Some((records, after)) = split_frame(rest) {
        state.apply(records)?;
        rest = after;
    }
    Some((state, rest.len()))
}

/// Returns the records of the first frame and the bytes after it, if it is complete.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (records, rest) = rest.split_at_checked(length)?;
    (crc32fast::hash(records) == u32::from_be_bytes(*crc)).then_some((records, rest))
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "expected a stored session")
}
