//! A WebSocket connection as the stream of bytes that MQTT needs, after the handshake of either
//! end. [5.0 §6] [3.1.1 §6]

use futures_util::{Sink, Stream, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

/// The largest message that is sent. A packet can be spread over several. [5.0 MQTT-6.0.0-2]
const LARGEST_SENT: usize = 64 * 1024;

/// A WebSocket connection as a stream of bytes.
#[derive(Debug)]
pub struct WebSocket<S> {
    stream: WebSocketStream<S>,
    /// The rest of the message that is being read.
    received: Bytes,
}

impl<S> WebSocket<S> {
    /// Wraps a connection whose handshake is done.
    pub fn new(stream: WebSocketStream<S>) -> Self {
        Self { stream, received: Bytes::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.received.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.received = bytes,
                // The library answers these.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                None | Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(())),
                // [5.0 MQTT-6.0.0-1]
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    let problem = "expected a binary WebSocket message, found text";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, problem)));
                }
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
            }
        }
        let length = self.received.len().min(buffer.remaining());
        buffer.put_slice(&self.received.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.stream).poll_ready(context)).map_err(to_io)?;
        let bytes = bytes.get(..LARGEST_SENT).unwrap_or(bytes);
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.stream).start_send(message).map_err(to_io)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context).map_err(to_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.stream).poll_close(context)) {
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            closed => Poll::Ready(closed.map_err(to_io)),
        }
    }
}

/// Returns an error of the WebSocket protocol as one of a stream.
pub fn to_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    }
}
