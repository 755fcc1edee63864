//! The store of `--data-dir`: the durable records of the broker in an embedded engine.

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use mqtt_sansio::Instant;
use mqtt_sansio::broker::{Broker, BrokerConfig, Restore};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// A record and its new value, or its end.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// The longest key that the engine takes. A longer one, with a long topic, is stored as `LONG` and
/// a hash, and stands before the value.
const LONGEST_KEY: usize = u16::MAX as usize;
const LONG: u8 = b'L';

/// The number of unreadable parts at which reading ends.
const UNREADABLE: usize = 1_000;

/// The records on disk.
pub(crate) struct Store {
    directory: PathBuf,
    /// `None` after a failure: then it is opened again.
    engine: Option<Engine>,
}

struct Engine {
    database: Database,
    records: Keyspace,
}

impl Engine {
    fn open(directory: &Path) -> fjall::Result<Self> {
        let database = Database::builder(directory)
            .worker_threads(1)
            .cache_size(8 * 1024 * 1024)
            .max_journaling_size(64 * 1024 * 1024)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(16 * 1024 * 1024);
        let records = database.keyspace("records", options)?;
        Ok(Self { database, records })
    }

    /// Stores changes as one transaction. They survive a loss of power when this returns.
    fn commit(&self, changes: &[Change]) -> fjall::Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in changes {
            let is_long = key.len() > LONGEST_KEY;
            let short = if is_long { shorten(key) } else { key.clone() };
            match value {
                Some(value) if is_long => {
                    let length = u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes();
                    batch.insert(&self.records, short, [&length, &**key, value].concat());
                }
                Some(value) => batch.insert(&self.records, short, value.as_slice()),
                None => batch.remove(&self.records, short),
            }
        }
        batch.commit()
    }
}

fn shorten(key: &[u8]) -> Vec<u8> {
    [&[LONG], &*Sha256::digest(key)].concat()
}

/// Returns the record that is stored under a short key.
fn lengthen(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = value.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

impl Store {
    /// Opens a store, or creates it.
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        let engine = match Engine::open(directory) {
            Err(fjall::Error::Locked) => bail!("another program uses this store"),
            engine => engine.map_err(plain)?,
        };
        Ok(Self { directory: directory.to_owned(), engine: Some(engine) })
    }

    /// Stores changes as one transaction. After an error it can be tried again.
    pub(crate) fn commit(&mut self, changes: &[Change]) -> anyhow::Result<()> {
        let engine = match self.engine.take() {
            Some(engine) => engine,
            None => Engine::open(&self.directory).map_err(plain)?,
        };
        engine.commit(changes).map_err(plain)?;
        self.engine = Some(engine);
        Ok(())
    }

    /// Calls `each` with each record. Passes over what the engine cannot read, as far as it goes on
    /// after that, and returns the first such error.
    pub(crate) fn read(&self, mut each: impl FnMut(&[u8], &[u8])) -> anyhow::Result<()> {
        let Some(engine) = &self.engine else { bail!("the store is not open") };
        let (mut first_error, mut left) = (Ok(()), UNREADABLE);
        for record in engine.records.iter() {
            let (key, value) = match record.into_inner() {
                Ok(record) => record,
                Err(error) => {
                    first_error = first_error.and(Err(plain(error)));
                    left -= 1;
                    match left {
                        0 => break,
                        _ => continue,
                    }
                }
            };
            match lengthen(&value).filter(|_| key.first() == Some(&LONG)) {
                Some((key, value)) => each(key, value),
                None => each(&key, &value),
            }
        }
        first_error
    }

    /// Restores a broker. Reports what is damaged or of no use, and leaves it out.
    pub(crate) fn restore(
        &self,
        config: BrokerConfig,
        seed: u128,
        now: Instant,
        mut report: impl FnMut(&[u8], &dyn std::error::Error),
    ) -> anyhow::Result<Broker> {
        let mut restore = Restore::new(config, seed, now);
        let read = self.read(|key, value| {
            if let Err(error) = restore.record(key, value) {
                report(key, &error);
            }
        });
        if let Err(error) = read {
            report(b"", &*error);
        }
        Ok(restore.finish(|key, error| report(key, &error))?)
    }
}

/// Returns what is wrong, in words.
fn plain(error: fjall::Error) -> anyhow::Error {
    match error {
        fjall::Error::Io(error) => error.into(),
        fjall::Error::Storage(fjall::LsmError::Io(error)) => error.into(),
        fjall::Error::Poisoned => anyhow::anyhow!("an earlier write has failed"),
        error => anyhow::anyhow!("{error:?}"),
    }
}

/// Restores the broker of a store, and logs how it went.
pub(crate) fn restore(
    store: &Store,
    config: BrokerConfig,
    seed: u128,
    now: Instant,
) -> anyhow::Result<Broker> {
    let broker = store.restore(config, seed, now, |key, error| {
        warn!(key = %key.escape_ascii(), %error, "stored record left out");
    })?;
    let stats = broker.stats();
    info!(sessions = stats.sessions, retained = stats.retained, "restored");
    Ok(broker)
}

/// The flags of `broker store`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    command: Command,
    /// The `--data-dir` of a broker that is not running.
    directory: PathBuf,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// Count the records, and report those that are damaged.
    Check,
    /// Write all records to the output, as lines of JSON with base64.
    Export,
    /// Read records as `export` writes them into a new store.
    Import,
}

/// A record in an export.
#[derive(serde::Deserialize, serde::Serialize)]
struct Line {
    key: String,
    value: String,
}

/// Does what `broker store` is asked for.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { command, directory } = arguments;
    let exists = *command == Command::Import || directory.is_dir();
    ensure!(exists, "{}: there is no store", directory.display());
    let mut store = Store::open(directory).with_context(|| directory.display().to_string())?;
    match command {
        Command::Check => check(&store),
        Command::Export => export(&store, &mut std::io::stdout().lock()),
        Command::Import => import(&mut store, std::io::stdin().lock()),
    }
}

fn check(store: &Store) -> anyhow::Result<()> {
    let (mut count, mut damaged) = (0_u64, 0_u64);
    store.read(|_, _| count += 1)?;
    let config = BrokerConfig::default();
    let broker = store.restore(config, 0, Instant::default(), |key, error| {
        println!("{}: {error}", key.escape_ascii());
        damaged += 1;
    })?;
    let stats = broker.stats();
    println!("{count} records: {} sessions, {} retained messages", stats.sessions, stats.retained);
    ensure!(damaged == 0, "{damaged} records are damaged");
    Ok(())
}

fn export(store: &Store, output: &mut impl std::io::Write) -> anyhow::Result<()> {
    let mut written = Ok(());
    store.read(|key, value| {
        let line = Line { key: STANDARD.encode(key), value: STANDARD.encode(value) };
        if written.is_ok() {
            written = serde_json::to_writer(&mut *output, &line)
                .map_err(Into::into)
                .and_then(|()| output.write_all(b"\n"));
        }
    })?;
    Ok(written?)
}

fn import(store: &mut Store, input: impl std::io::BufRead) -> anyhow::Result<()> {
    let mut is_empty = true;
    store.read(|_, _| is_empty = false)?;
    ensure!(is_empty, "expected a new directory, found a store with records");
    let mut changes = Vec::new();
    for (number, line) in (1_u64..).zip(input.lines()) {
        let parse = || {
            let line: Line = serde_json::from_str(&line?)?;
            anyhow::Ok((STANDARD.decode(line.key)?, Some(STANDARD.decode(line.value)?)))
        };
        changes.push(parse().with_context(|| format!("line {number}"))?);
        if changes.len() == 10_000 {
            store.commit(&changes)?;
            changes.clear();
        }
    }
    store.commit(&changes)?;
    check(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_stored_and_read() {
        let directory = std::env::temp_dir().join(format!("mqtt-store-{}", std::process::id()));
        let keys = [b"r".to_vec(), vec![b'r'; LONGEST_KEY], vec![b'r'; LONGEST_KEY + 1]];
        let mut store = Store::open(&directory).unwrap();
        let put = |key: &Vec<u8>| (key.clone(), Some(b"value".to_vec()));
        store.commit(&keys.iter().map(put).collect::<Vec<_>>()).unwrap();
        drop(store);
        let mut store = Store::open(&directory).unwrap();
        let read = |store: &Store| {
            let mut found = Vec::new();
            store.read(|key, value| found.push((key.to_vec(), value.to_vec()))).unwrap();
            found.sort();
            found
        };
        assert_eq!(read(&store), keys.clone().map(|key| (key, b"value".to_vec())));
        store.commit(&keys.map(|key| (key, None))).unwrap();
        assert_eq!(read(&store), []);
        drop(store);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
