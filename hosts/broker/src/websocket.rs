//! MQTT over WebSocket. [5.0 §6] [3.1.1 §6]

use mqtt_sansio_websocket::WebSocket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// The largest WebSocket message that is accepted. A packet can be spread over several.
/// [5.0 MQTT-6.0.0-2]
const LARGEST_MESSAGE: usize = 1024 * 1024;

/// Accepts a WebSocket connection with any path. [5.0 MQTT-6.0.0-4]
pub(crate) async fn accept<S>(stream: S) -> Result<WebSocket<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE));
    let stream = accept_hdr_async_with_config(stream, choose_protocol, Some(config)).await?;
    Ok(WebSocket::new(stream))
}

/// Chooses the subprotocol `mqtt`, or `mqttv3.1`, which clients of 3.1 ask for. [5.0 MQTT-6.0.0-3]
#[expect(clippy::result_large_err, reason = "the signature is the library's")]
fn choose_protocol(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offers = request.headers().get_all("Sec-WebSocket-Protocol");
    let offers = offers.iter().filter_map(|offer| offer.to_str().ok());
    let offers: Vec<_> = offers.flat_map(|offer| offer.split(',')).map(str::trim).collect();
    let chosen = ["mqtt", "mqttv3.1"].into_iter().find(|name| offers.contains(name));
    if let Some(chosen) = chosen {
        response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(chosen));
    } else if !offers.is_empty() {
        let mut refusal = ErrorResponse::new(Some("expected the subprotocol mqtt\n".to_owned()));
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return Err(refusal);
    }
    Ok(response)
}
