//! `inspect --proxy LISTEN UPSTREAM`: explains the packets between a client and a server.

use crate::interrupted;
use anyhow::{Context as _, Result};
use jiff::Timestamp;
use mqtt_sansio_inspect::{Conversation, Side, Style};
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The room for one read.
const READ_SIZE: usize = 64 * 1024;

pub(crate) async fn run(listen: &str, upstream: &str, style: Style) -> Result<ExitCode> {
    let listens = || format!("cannot listen on {listen}");
    let listener = TcpListener::bind(listen).await.with_context(listens)?;
    eprintln!("listening on {}", listener.local_addr()?);
    let accepting = async {
        loop {
            let (near, peer) = listener.accept().await?;
            let upstream = upstream.to_owned();
            tokio::spawn(async move {
                let name = format!("{peer} {upstream}");
                if let Err(error) = forward(near, &upstream, name, style).await {
                    eprintln!("{peer}: {error:#}");
                }
            });
        }
    };
    tokio::select! {
        failed = accepting => failed,
        () = interrupted() => Ok(ExitCode::SUCCESS),
    }
}

async fn forward(near: TcpStream, upstream: &str, name: String, style: Style) -> Result<()> {
    let far = TcpStream::connect(upstream).await;
    let far = far.with_context(|| format!("cannot connect to {upstream}"))?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let conversation = Arc::new(Mutex::new(Conversation::new(Some(name), style)));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let to_server = copy(near_read, far_write, Side::Client, conversation.clone());
    let to_client = copy(far_read, near_write, Side::Server, conversation.clone());
    let (there, back) = tokio::join!(to_server, to_client);
    conversation.lock().unwrap_or_else(PoisonError::into_inner).end(&mut io::stdout())?;
    there.and(back)
}

/// Forwards bytes before they are explained, so that a slow terminal delays only the next ones.
async fn copy(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    side: Side,
    conversation: Arc<Mutex<Conversation>>,
) -> Result<()> {
    let mut buffer = vec![0; READ_SIZE];
    loop {
        let count = reader.read(&mut buffer).await?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(writer.shutdown().await?);
        }
        writer.write_all(bytes).await?;
        let now = Some(Timestamp::now());
        let mut conversation = conversation.lock().unwrap_or_else(PoisonError::into_inner);
        conversation.feed(side, bytes, now, &mut io::stdout())?;
    }
}
