//! The task of a transport to the server.

use crate::{LAST_OUTPUT, Transport};
use mqtt_sansio::sn::Link;
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The bytes that are read at once.
const CHUNK: usize = 16 * 1024;

/// A command of the host for the task.
pub(crate) enum Command {
    Write(Vec<u8>),
    /// The gateway has consumed what was read.
    Read,
    Close,
}

/// A report of the task to the host.
pub(crate) enum Progress {
    /// The transport is open, or has taken the last output.
    Written,
    Read(Vec<u8>),
    Ended(io::Result<()>),
}

/// Opens a transport, and carries bytes until either side closes it.
pub(crate) async fn run<T: Transport>(
    link: Link,
    opening: impl Future<Output = io::Result<T>>,
    commands: mpsc::UnboundedReceiver<Command>,
    progress: mpsc::Sender<(Link, Progress)>,
) {
    let result = match opening.await {
        Ok(transport) => carry(link, transport, commands, &progress).await,
        Err(error) => Err(error),
    };
    // Without a host there is nothing to report to.
    let _ = progress.send((link, Progress::Ended(result))).await;
}

async fn carry<T: Transport>(
    link: Link,
    mut transport: T,
    mut commands: mpsc::UnboundedReceiver<Command>,
    progress: &mpsc::Sender<(Link, Progress)>,
) -> io::Result<()> {
    let _ = progress.send((link, Progress::Written)).await;
    let mut is_reading = true;
    let mut chunk = Vec::new();
    loop {
        chunk.reserve(CHUNK);
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Write(bytes)) => {
                    transport.write_all(&bytes).await?;
                    transport.flush().await?;
                    let _ = progress.send((link, Progress::Written)).await;
                }
                Some(Command::Read) => is_reading = true,
                Some(Command::Close) | None => {
                    // The server reads all before the end.
                    return timeout(LAST_OUTPUT, transport.shutdown()).await.unwrap_or(Ok(()));
                }
            },
            read = transport.read_buf(&mut chunk), if is_reading => {
                if read? == 0 {
                    return Ok(());
                }
                is_reading = false;
                let _ = progress.send((link, Progress::Read(std::mem::take(&mut chunk)))).await;
            }
        }
    }
}
