//! The file that keeps a session over restarts of the program.
//!
//! It holds, with all numbers big-endian: `MQC\x01`, the time of writing in milliseconds of Unix
//! time (8 bytes), the last key (8 bytes), and the session in the format of
//! [`mqtt_sansio::session::stored`]. A new file replaces the old one at once, so a crash leaves one
//! of the two.

use mqtt_sansio::Instant;
use mqtt_sansio::session::Session;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const FORMAT: &[u8; 4] = b"MQC\x01";

#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    /// The session that is in the file.
    session: Vec<u8>,
}

impl Store {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, session: Vec::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the stored session and the last key, if there is a file.
    pub(crate) fn load(&self, now: Instant) -> io::Result<Option<(Session, u64)>> {
        let bytes = match std::fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "expected a stored session");
        let rest = bytes.strip_prefix(FORMAT).ok_or_else(damaged)?;
        let (written, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (next_key, session) = rest.split_first_chunk().ok_or_else(damaged)?;
        let written = Duration::from_millis(u64::from_be_bytes(*written));
        let ago = unix_time().saturating_sub(written);
        let session = Session::from_bytes(session, now, ago);
        let session = session.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some((session, u64::from_be_bytes(*next_key))))
    }

    /// Replaces the file, unless it has the session.
    pub(crate) async fn save(&mut self, session: Vec<u8>, next_key: u64) -> io::Result<()> {
        if session == self.session {
            return Ok(());
        }
        let path = self.path.clone();
        let written =
            tokio::task::spawn_blocking(move || match replace(&path, &session, next_key) {
                Ok(()) => Ok(session),
                Err(error) => {
                    let problem =
                        format!("cannot store the session in {}: {error}", path.display());
                    Err(io::Error::new(error.kind(), problem))
                }
            });
        self.session = written.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        Ok(())
    }
}

fn replace(path: &Path, session: &[u8], next_key: u64) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = File::create(&new)?;
    let milliseconds = u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX);
    file.write_all(FORMAT)?;
    file.write_all(&milliseconds.to_be_bytes())?;
    file.write_all(&next_key.to_be_bytes())?;
    file.write_all(session)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    // The name, too, must survive a loss of power.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
