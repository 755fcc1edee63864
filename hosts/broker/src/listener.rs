//! Where the broker listens.

use crate::connection::{Peer, serve};
use crate::host::Host;
use log::warn;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Tcp(String),
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        match scheme {
            "tcp" => Ok(Self::Tcp(rest.to_owned())),
            _ => Err(format!("expected tcp://ADDR:PORT, found {text:?}")),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// A socket that accepts connections.
pub(crate) struct Listener {
    endpoint: Endpoint,
    socket: TcpListener,
}

impl Listener {
    pub(crate) async fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        let Endpoint::Tcp(address) = endpoint;
        let socket = TcpListener::bind(address).await?;
        Ok(Self { endpoint: Endpoint::Tcp(socket.local_addr()?.to_string()), socket })
    }

    /// Returns the endpoint with the port that the system has chosen, if it was 0.
    pub(crate) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Accepts connections for ever.
    pub(crate) async fn run(self, host: Rc<Host>) {
        loop {
            match self.socket.accept().await {
                Ok((_, peer)) if host.connections() >= host.maximum_connections => {
                    warn!("{peer}: refused, {} connections are open", host.connections());
                }
                Ok((stream, address)) => {
                    let name = address.to_string().into();
                    let peer = Peer { name, address: Some(address.ip()) };
                    spawn_local(open(host.clone(), peer, stream));
                }
                Err(error) => {
                    // Most likely too many files are open. Some can be closed in a moment.
                    warn!("{}: cannot accept a connection: {error}", self.endpoint);
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Opens the transport of a client, and serves it.
async fn open(host: Rc<Host>, peer: Peer, mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.split();
    serve(host, peer, reader, writer).await;
}
