//! The sockets on which the broker listens.

use crate::connection::{Peer, serve};
use crate::host::{Host, Place};
use crate::{proxy, tls, websocket};
use anyhow::Context as _;
use log::{info, warn};
use std::fmt;
use std::io;
use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout_at};

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
    socket: Socket,
}

enum Socket {
    Tcp(TcpListener, Layers),
    Unix(UnixListener),
}

enum Stream {
    Tcp(TcpStream, Layers),
    Unix(UnixStream),
}

impl Listener {
    pub(crate) async fn bind(endpoint: &Endpoint) -> anyhow::Result<Self> {
        Ok(match endpoint {
            Endpoint::Tcp(layers, address) => {
                let socket = TcpListener::bind(address).await?;
                let endpoint = Endpoint::Tcp(*layers, socket.local_addr()?.to_string());
                Self { endpoint, socket: Socket::Tcp(socket, *layers) }
            }
            Endpoint::Unix(path) => {
                remove_left_over(path).await?;
                let socket = UnixListener::bind(path)?;
                Self { endpoint: endpoint.clone(), socket: Socket::Unix(socket) }
            }
        })
    }

    /// Returns the endpoint, with the port that the system has chosen if it was 0.
    pub(crate) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Accepts connections for ever.
    pub(crate) async fn run(self, host: Rc<Host>) {
        loop {
            match self.accept().await {
                Ok((stream, peer)) => match host.take_place() {
                    Some(place) => drop(spawn_local(open(place, peer, stream))),
                    None => warn!("{}: refused, too many connections are open", peer.name),
                },
                Err(error) => {
                    // Most likely too many files are open. Some can be closed in a moment.
                    warn!("{}: cannot accept a connection: {error}", self.endpoint);
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match (&self.socket, &self.endpoint) {
            (Socket::Tcp(socket, layers), _) => {
                let (stream, address) = socket.accept().await?;
                let peer = Peer {
                    name: address.to_string().into(),
                    address: Some(address.ip()),
                    user: None,
                };
                Ok((Stream::Tcp(stream, *layers), peer))
            }
            (Socket::Unix(socket), endpoint) => {
                let (stream, _) = socket.accept().await?;
                let peer = Peer { name: endpoint.to_string().into(), address: None, user: None };
                Ok((Stream::Unix(stream), peer))
            }
        }
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
async fn remove_left_over(path: &Path) -> io::Result<()> {
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if UnixStream::connect(path).await.is_err_and(refused) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// Opens the transport of a client, and serves the client.
async fn open(mut place: Place, peer: Peer, stream: Stream) {
    match stream {
        Stream::Tcp(mut stream, layers) => {
            let _ = stream.set_nodelay(true);
            if layers != Layers::NONE {
                // In a box, because it takes much more memory than the other futures.
                return Box::pin(open_layers(place, peer, stream, layers)).await;
            }
            if has_room(&mut place, &peer) {
                let (reader, writer) = stream.split();
                serve(place.host().clone(), peer, reader, writer).await;
            }
        }
        Stream::Unix(mut stream) => {
            let (reader, writer) = stream.split();
            serve(place.host().clone(), peer, reader, writer).await;
        }
    }
}

fn has_room(place: &mut Place, peer: &Peer) -> bool {
    let has_room = place.count(peer.address);
    if !has_room {
        warn!("{}: refused, too many connections of this address are open", peer.name);
    }
    has_room
}

async fn open_layers(mut place: Place, mut peer: Peer, mut stream: TcpStream, layers: Layers) {
    let host = place.host().clone();
    let deadline = Instant::now() + host.connect_timeout;
    if layers.proxy {
        match timeout_at(deadline, proxy::read(&mut stream)).await {
            Ok(Ok(Some(address))) => {
                peer.name = address.to_string().into();
                peer.address = Some(address.ip());
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => return info!("{}: PROXY protocol failed: {error:#}", peer.name),
            Err(_) => return info!("{}: sent no header of the PROXY protocol in time", peer.name),
        }
    }
    if !has_room(&mut place, &peer) {
        return;
    }
    match timeout_at(deadline, add_layers(&host, layers, stream, &mut peer)).await {
        Ok(Ok(stream)) => {
            let (reader, writer) = split(stream);
            serve(host, peer, reader, writer).await;
        }
        Ok(Err(error)) => info!("{}: handshake failed: {error:#}", peer.name),
        Err(_) => info!("{}: handshake was not completed in time", peer.name),
    }
}

trait Transport: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Transport for T {}

async fn add_layers(
    host: &Host,
    layers: Layers,
    stream: TcpStream,
    peer: &mut Peer,
) -> anyhow::Result<Box<dyn Transport>> {
    let mut stream: Box<dyn Transport> = Box::new(stream);
    if layers.tls {
        let acceptor = host.tls().context("there is no certificate")?;
        let accepted = acceptor.accept(stream).await.context("TLS")?;
        if host.certificate_user {
            peer.user = Some(tls::common_name(accepted.get_ref().1)?);
        }
        stream = Box::new(accepted);
    }
    if layers.websocket {
        stream = Box::new(websocket::accept(stream).await.context("WebSocket")?);
    }
    Ok(stream)
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
