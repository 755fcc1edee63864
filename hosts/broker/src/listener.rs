//! The sockets on which the broker listens.

use crate::connection::{Transport, serve};
use crate::host::{Errand, Host, Link, Shared};
use crate::limits::{Address, Place};
use crate::settings::Settings;
use crate::tls::ClientCertificate;
use crate::{proxy, websocket};
use anyhow::Context as _;
use mqtt_sansio::codec::ReasonCode;
use std::fmt;
use std::io;
use std::net::{self, ToSocketAddrs as _};
use std::os::unix;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Tcp(Layers, String),
    Unix(PathBuf),
}

/// The layers between TCP and MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layers {
    tls: bool,
    websocket: bool,
    /// Whether a balancer says first who its client is.
    proxy: bool,
}

impl Layers {
    const NONE: Self = Self { tls: false, websocket: false, proxy: false };
    const SCHEMES: [(&str, Self); 4] = [
        ("tcp", Self::NONE),
        ("tls", Self { tls: true, websocket: false, proxy: false }),
        ("ws", Self { tls: false, websocket: true, proxy: false }),
        ("wss", Self { tls: true, websocket: true, proxy: false }),
    ];
}

impl Endpoint {
    /// Whether clients need TLS.
    pub(crate) const fn has_tls(&self) -> bool {
        matches!(self, Self::Tcp(Layers { tls: true, .. }, _))
    }

    /// Returns whether only programs of this machine reach the address.
    pub(crate) fn is_local(&self) -> anyhow::Result<bool> {
        match self {
            Self::Tcp(_, address) => {
                let addresses = address.to_socket_addrs().with_context(|| self.to_string());
                Ok(addresses?.all(|address| address.ip().is_loopback()))
            }
            Self::Unix(_) => Ok(true),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let (scheme, address) = text.split_once("://").unwrap_or(("tcp", text));
        let (address, proxy) = match address.strip_suffix("?proxy") {
            Some(address) => (address, true),
            None => (address, false),
        };
        let layers = Layers::SCHEMES.into_iter().find(|(name, _)| *name == scheme);
        let layers = layers.map(|(name, layers)| (name, Layers { proxy, ..layers }));
        match (layers, address.rsplit_once(':')) {
            (Some((_, layers)), Some((_, port))) if port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(layers, address.to_owned()))
            }
            _ => Err("expected tcp://ADDR:PORT, tls://, ws:// or wss://, or unix:PATH".into()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(layers, address) => {
                let plain = Layers { proxy: false, ..*layers };
                let scheme = Layers::SCHEMES.into_iter().find(|(_, one)| *one == plain);
                let end = if layers.proxy { "?proxy" } else { "" };
                write!(f, "{}://{address}{end}", scheme.map_or("", |(name, _)| name))
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that accepts connections.
pub(crate) struct Listener {
    endpoint: Endpoint,
    settings: Arc<Settings>,
    socket: Socket,
}

enum Socket {
    Tcp(TcpListener, Layers),
    Unix(UnixListener),
}

/// A stream that no thread waits for.
enum Stream {
    Tcp(net::TcpStream, Layers),
    Unix(unix::net::UnixStream),
}

impl Listener {
    pub(crate) async fn bind(endpoint: &Endpoint, settings: Arc<Settings>) -> anyhow::Result<Self> {
        Ok(match endpoint {
            Endpoint::Tcp(layers, address) => {
                let socket = TcpListener::bind(address).await?;
                let endpoint = Endpoint::Tcp(*layers, socket.local_addr()?.to_string());
                Self { endpoint, settings, socket: Socket::Tcp(socket, *layers) }
            }
            Endpoint::Unix(path) => {
                remove_left_over(path).await?;
                let socket = UnixListener::bind(path)?;
                Self { endpoint: endpoint.clone(), settings, socket: Socket::Unix(socket) }
            }
        })
    }

    /// Returns the endpoint, with the port that the system has chosen if it was 0.
    pub(crate) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Accepts connections for ever, and hands each over to a thread.
    pub(crate) async fn run(self, shared: Arc<Shared>) {
        loop {
            match self.accept().await {
                Ok((stream, address)) => match shared.places.take(address) {
                    Some(place) => {
                        let (settings, thread) = (self.settings.clone(), place.thread);
                        let accepted = Accepted { settings, place, stream };
                        shared.ask(thread, Errand::Serve(accepted));
                    }
                    None => shared.counters.lock().closed_unanswered += 1,
                },
                Err(error) => {
                    // Most likely too many files are open. Some can be closed in a moment.
                    warn!(listener = %self.endpoint, %error, "cannot accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<(Stream, Address)> {
        Ok(match (&self.socket, &self.endpoint) {
            (Socket::Tcp(socket, layers), _) => {
                let (stream, address) = socket.accept().await?;
                (Stream::Tcp(stream.into_std()?, *layers), Address::Ip(address))
            }
            (Socket::Unix(socket), endpoint) => {
                let (stream, _) = socket.accept().await?;
                (Stream::Unix(stream.into_std()?), Address::Unix(endpoint.to_string().into()))
            }
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Endpoint::Unix(path) = &self.endpoint {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes a socket that a program has left behind.
pub(crate) async fn remove_left_over(path: &Path) -> io::Result<()> {
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if UnixStream::connect(path).await.is_err_and(refused) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// A transport that was accepted, on its way to the thread that serves it.
pub(crate) struct Accepted {
    settings: Arc<Settings>,
    place: Place,
    stream: Stream,
}

/// Serves a transport on this thread.
pub(crate) fn serve_accepted(host: Rc<Host>, accepted: Accepted) {
    let Accepted { settings, place, stream } = accepted;
    let address = place.address.clone();
    let arrival = Arrival { host, settings, place, certificate: None };
    if let Err(error) = arrival.spawn(stream) {
        warn!(%address, %error, "cannot serve a connection");
    }
}

/// A transport on the thread that serves it.
struct Arrival {
    host: Rc<Host>,
    settings: Arc<Settings>,
    place: Place,
    certificate: Option<Box<ClientCertificate>>,
}

impl Arrival {
    /// Opens the transport and serves the client, in a task.
    fn spawn(self, stream: Stream) -> io::Result<()> {
        match stream {
            Stream::Tcp(stream, layers) => {
                let stream = TcpStream::from_std(stream)?;
                let _ = stream.set_nodelay(true);
                match layers {
                    Layers::NONE => self.serve(stream),
                    layers => drop(spawn_local(self.open_layers(stream, layers))),
                }
            }
            Stream::Unix(stream) => self.serve(UnixStream::from_std(stream)?),
        }
        Ok(())
    }

    fn serve<T: Transport + 'static>(mut self, transport: T) {
        if let Some(refusal) = self.count() {
            let (host, link) = self.into_link(refusal);
            spawn_local(serve(host, link, transport));
        }
    }

    fn into_link(self, refusal: Option<ReasonCode>) -> (Rc<Host>, Box<Link>) {
        let Self { host, settings, place, certificate } = self;
        (host, Box::new(Link::new(place, certificate, settings, refusal)))
    }

    /// Counts the transport towards the limits. Returns whether the client must be refused, or
    /// `None` if the transport must be closed at once.
    fn count(&mut self) -> Option<Option<ReasonCode>> {
        let Self { host, settings, place, .. } = self;
        let own = Some(&settings.limit).filter(|own| !Arc::ptr_eq(own, &host.shared.limit));
        let refusal = place.count([Some(&host.shared.limit), own]).err();
        if refusal.is_some() && !place.keep_to_refuse() {
            host.shared.counters.lock().closed_unanswered += 1;
            return None;
        }
        Some(refusal)
    }

    async fn open_layers(mut self, stream: TcpStream, layers: Layers) {
        let deadline = Instant::now() + self.settings.connect_timeout;
        // In boxes, because each takes much memory, and only for a while.
        let opening = Box::pin(timeout_at(deadline, self.add_layers(stream, layers, deadline)));
        let problem = match opening.await {
            Ok(Ok(Some((refusal, stream)))) => {
                let (host, link) = self.into_link(refusal);
                return Box::pin(serve(host, link, stream)).await;
            }
            Ok(Ok(None)) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "not completed in time".to_owned(),
        };
        self.host.shared.counters.lock().handshakes_failed += 1;
        info!(address = %self.place.address, cause = problem, "handshake failed");
    }

    /// Returns the transport, and whether its client must be refused. Returns `None` if the
    /// transport must be closed at once.
    async fn add_layers(
        &mut self,
        mut stream: TcpStream,
        layers: Layers,
        deadline: Instant,
    ) -> anyhow::Result<Option<(Option<ReasonCode>, Box<dyn Transport>)>> {
        if layers.proxy {
            let address = proxy::read(&mut stream).await.context("PROXY protocol")?;
            if let Some(address) = address {
                self.place.address = Address::Ip(address);
            }
        }
        let Some(refusal) = self.count() else { return Ok(None) };
        let mut stream: Box<dyn Transport> = match layers.tls {
            true => Box::new(self.add_tls(stream, deadline).await.context("TLS")?),
            false => Box::new(stream),
        };
        if layers.websocket {
            stream = Box::new(websocket::accept(stream).await.context("WebSocket")?);
        }
        Ok(Some((refusal, stream)))
    }

    async fn add_tls(
        &mut self,
        stream: TcpStream,
        deadline: Instant,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let acceptor = self.settings.acceptor().context("there is no certificate")?;
        let handshake = timeout_at(deadline, acceptor.accept(stream));
        let stream =
            self.host.shared.helpers.spawn(handshake).await??.map_err(anyhow::Error::from)?;
        if let Some(chain) = stream.get_ref().1.peer_certificates() {
            let certificate = ClientCertificate::new(chain, self.settings.certificate_user)?;
            self.certificate = Some(Box::new(certificate));
        }
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_displayed_as_they_are_parsed() {
        for text in ["tcp://a:1", "tls://[::1]:2", "ws://1.2.3.4:0", "wss://a:3?proxy", "unix:/a/b"]
        {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("a:1".parse::<Endpoint>().unwrap().to_string(), "tcp://a:1");
        for text in ["", "a", "http://a:1", "tcp://a", "tcp://a:b", "unix:"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }
}
