//! Figures for Prometheus, over HTTP.

use crate::figures::to_text;
use crate::host::Host;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::warn;

/// The requests that are served at a time.
const AT_ONCE: usize = 8;
/// The time for a request and its answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Serves requests for ever.
pub(crate) async fn run(listener: TcpListener, host: Rc<Host>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    while let Ok(place) = places.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection for figures");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let host = host.clone();
        spawn_local(async move {
            let service = service_fn(|request| {
                let response = respond(&host, &request);
                async { Ok::<_, Infallible>(response) }
            });
            let mut http = http1::Builder::new();
            let connection = http.keep_alive(false).serve_connection(TokioIo::new(stream), service);
            let _ = timeout(TIMEOUT, connection).await;
            drop(place);
        });
    }
}

fn respond(host: &Host, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = match request.uri().path() {
        "/metrics" => (StatusCode::OK, to_text(&host.families())),
        "/healthz" if host.shared.counters.lock().store_fails => {
            (StatusCode::SERVICE_UNAVAILABLE, "cannot write to disk\n".to_owned())
        }
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "expected /metrics or /healthz\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
