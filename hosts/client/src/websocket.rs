//! MQTT over WebSocket. [5.0 §6] [3.1.1 §6]

use crate::transport::Transport;
use mqtt_sansio_websocket::{WebSocket, to_io};
use std::io;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// The largest WebSocket message that is accepted. A packet can be spread over several.
/// [5.0 MQTT-6.0.0-2]
const LARGEST_MESSAGE: usize = 16 * 1024 * 1024;

/// Opens a WebSocket connection with the subprotocol `mqtt`. [5.0 MQTT-6.0.0-3]
pub(crate) async fn open(
    url: &str,
    stream: Box<dyn Transport>,
) -> io::Result<impl Transport + use<>> {
    let mut request = url.into_client_request().map_err(to_io)?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(0)
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE));
    let (stream, _) =
        client_async_with_config(request, stream, Some(config)).await.map_err(to_io)?;
    Ok(WebSocket::new(stream))
}
