//! The transports: TCP, TLS, WebSocket, Unix sockets, and those of the user.

use crate::error::UrlError;
use percent_encoding::percent_decode_str;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
#[cfg(feature = "tls")]
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection to a server: a stream of bytes in each direction.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

type Opening = Pin<Box<dyn Future<Output = io::Result<Box<dyn Transport>>> + Send>>;

/// Opens the transport of a user.
pub(crate) type Opener = Box<dyn FnMut() -> Opening + Send>;

/// Opens the connection to a host and port, below TLS and WebSocket.
pub(crate) type Dialer = Box<dyn FnMut(String, u16) -> Opening + Send>;

/// The server, and how to reach it.
pub(crate) struct Endpoint {
    /// The address as messages and logs show it.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Opens the connection in place of TCP.
    pub(crate) dial: Option<Dialer>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Arc<tokio_rustls::rustls::ClientConfig>>,
}

pub(crate) enum Kind {
    Network { host: String, port: u16, layers: Layers },
    Unix(PathBuf),
    User(Opener),
}

#[derive(Clone, Copy)]
pub(crate) struct Layers {
    tls: bool,
    websocket: bool,
}

impl Layers {
    const fn port(self) -> u16 {
        match (self.tls, self.websocket) {
            (false, false) => 1883,
            (true, false) => 8883,
            (false, true) => 80,
            (true, true) => 443,
        }
    }
}

/// Splits a URL without its scheme before the path.
fn split_path(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()))
}

/// The user name and the password of a URL.
pub(crate) type Credentials = (Option<String>, Option<Vec<u8>>);

impl Endpoint {
    /// Reads a URL.
    pub(crate) fn parse(url: &str) -> Result<(Self, Credentials), UrlError> {
        let syntax = || UrlError::Syntax(url.to_owned());
        let new = |name, kind| Self {
            name,
            kind,
            dial: None,
            #[cfg(feature = "tls")]
            tls: None,
        };
        if let Some(path) = url.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok((new(url.to_owned(), Kind::Unix(path.into())), (None, None)));
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(syntax)?;
        let layers = match scheme {
            "mqtt" | "tcp" => Layers { tls: false, websocket: false },
            #[cfg(feature = "tls")]
            "mqtts" | "tls" | "ssl" => Layers { tls: true, websocket: false },
            #[cfg(feature = "websocket")]
            "ws" => Layers { tls: false, websocket: true },
            #[cfg(all(feature = "websocket", feature = "tls"))]
            "wss" => Layers { tls: true, websocket: true },
            other => return Err(UrlError::Scheme(other.to_owned())),
        };
        let (authority, path) = split_path(rest);
        let (user, server) = authority.rsplit_once('@').unwrap_or(("", authority));
        let decode = |text| percent_decode_str(text).decode_utf8().map_err(|_| syntax());
        let (user, password) = user.split_once(':').map_or((user, None), |(user, password)| {
            (user, Some(percent_decode_str(password).collect()))
        });
        let user = if user.is_empty() { None } else { Some(decode(user)?.into_owned()) };
        let server: http::uri::Authority = server.parse().map_err(|_| syntax())?;
        let (host, given) = (server.host().to_owned(), server.port_u16());
        // A colon and a port follow the host, or nothing.
        let (_, after) = server.as_str().split_at(host.len());
        if host.is_empty() || !after.is_empty() && given.is_none() {
            return Err(syntax());
        }
        let name = format!("{scheme}://{server}{path}");
        let kind = Kind::Network { host, port: given.unwrap_or(layers.port()), layers };
        Ok((new(name, kind), (user, password)))
    }

    /// Returns the host, the port, and the default port of the scheme, if there is a URL.
    pub(crate) fn server(&self) -> Option<(&str, u16, u16)> {
        match &self.kind {
            Kind::Network { host, port, layers } => Some((host, *port, layers.port())),
            Kind::Unix(_) | Kind::User(_) => None,
        }
    }

    /// Replaces the host and the port of a URL. An IPv6 address can be without brackets.
    pub(crate) fn set_server(&mut self, name: &str, number: u16) {
        let Kind::Network { host, port, .. } = &mut self.kind else { return };
        let is_bare = name.contains(':') && !name.starts_with('[');
        *host = if is_bare { format!("[{name}]") } else { name.to_owned() };
        *port = number;
        if let Some((scheme, rest)) = self.name.split_once("://") {
            let (_, path) = split_path(rest);
            self.name = format!("{scheme}://{host}:{port}{path}");
        }
    }

    pub(crate) async fn open(&mut self) -> io::Result<Box<dyn Transport>> {
        match &mut self.kind {
            #[cfg(unix)]
            Kind::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
            #[cfg(not(unix))]
            Kind::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
            Kind::User(open) => open().await,
            Kind::Network { host, port, layers } => {
                // The name resolver knows IPv6 addresses without brackets.
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let socket: Box<dyn Transport> = match &mut self.dial {
                    Some(dial) => dial(host.to_owned(), *port).await?,
                    None => {
                        let socket = TcpStream::connect((host, *port)).await?;
                        // The packets of one step are written at once, so Nagle's algorithm would
                        // only delay them.
                        socket.set_nodelay(true)?;
                        Box::new(socket)
                    }
                };
                let stream: Box<dyn Transport> = match *layers {
                    #[cfg(feature = "tls")]
                    Layers { tls: true, .. } => {
                        Box::new(start_tls(self.tls.as_ref(), host, socket).await?)
                    }
                    _ => socket,
                };
                #[cfg(feature = "websocket")]
                if layers.websocket {
                    return Ok(Box::new(crate::websocket::open(&self.name, stream).await?));
                }
                Ok(stream)
            }
        }
    }
}

#[cfg(feature = "tls")]
async fn start_tls(
    config: Option<&Arc<tokio_rustls::rustls::ClientConfig>>,
    host: &str,
    socket: Box<dyn Transport>,
) -> io::Result<impl Transport + use<>> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "expected Options::tls for TLS");
    let connector = tokio_rustls::TlsConnector::from(config.ok_or_else(missing)?.clone());
    let name = tokio_rustls::rustls::pki_types::ServerName::try_from(host.to_owned());
    let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    connector.connect(name, socket).await
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.name).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    #[test]
    fn url_names_server_user_and_layers() {
        let parse = |url: &str| {
            let (endpoint, (user, password)) = Endpoint::parse(url).unwrap();
            let Kind::Network { host, port, layers } = endpoint.kind else { panic!() };
            let password = password.map(|password| String::from_utf8(password).unwrap());
            (endpoint.name, host, port, (layers.tls, layers.websocket), user, password)
        };
        let same = |url: &str, host: &str, port, layers| {
            assert_eq!(parse(url), (url.into(), host.into(), port, layers, None, None));
        };
        same("mqtt://localhost", "localhost", 1883, (false, false));
        same("mqtt://[::1]:1884", "[::1]", 1884, (false, false));
        same("mqtts://broker.example", "broker.example", 8883, (true, false));
        same("ws://broker.example/mqtt?x=1", "broker.example", 80, (false, true));
        same("wss://broker.example:8443/", "broker.example", 8443, (true, true));
        let (name, _, _, _, user, password) = parse("mqtt://al%40ice:p:%2F@broker.example/a");
        assert_eq!(name, "mqtt://broker.example/a");
        assert_eq!((user.as_deref(), password.as_deref()), (Some("al@ice"), Some("p:/")));
    }

    #[test]
    fn other_server_keeps_scheme_and_path_of_url() {
        let (mut endpoint, _) = Endpoint::parse("wss://joe@a.example/mqtt?x=1").unwrap();
        endpoint.set_server("fe80::1", 8443);
        assert_eq!(endpoint.name, "wss://[fe80::1]:8443/mqtt?x=1");
        assert_eq!(endpoint.server(), Some(("[fe80::1]", 8443, 443)));
        endpoint.set_server("b.example", 443);
        assert_eq!(endpoint.name, "wss://b.example:443/mqtt?x=1");
    }

    #[test]
    fn text_that_is_no_url_is_refused() {
        for url in
            ["", "localhost", "http://a", "mqtt://", "mqtt://a:x", "mqtt://a:70000", "mqtt:a"]
        {
            assert!(Endpoint::parse(url).is_err(), "{url}");
        }
    }
}
