//! Connections from a certain address, and through a proxy.

use crate::options::ConnectOptions;
use anyhow::{Context as _, Result};
use mqtt_sansio_client::Options;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio_socks::tcp::Socks5Stream;

/// Sets the flags `-A` and `--proxy`.
pub(crate) fn set(options: Options, flags: &ConnectOptions) -> Result<Options> {
    if let Some(url) = &flags.proxy {
        let proxy = Proxy::parse(url)
            .with_context(|| format!("expected --proxy socks5h://HOST[:PORT], got {url:?}"))?;
        return Ok(options.dial(move |host, port| through(proxy.clone(), host, port)));
    }
    Ok(match flags.bind {
        Some(address) => options.dial(move |host, port| from(address, host, port)),
        None => options,
    })
}

async fn from(address: IpAddr, host: String, port: u16) -> io::Result<TcpStream> {
    let mut failure = None;
    for server in lookup_host((host.as_str(), port)).await? {
        if server.is_ipv4() != address.is_ipv4() {
            continue;
        }
        let socket = if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_nodelay(true)?;
        socket.bind(SocketAddr::new(address, 0))?;
        match socket.connect(server).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Some(error),
        }
    }
    let missing = || io::Error::other(format!("expected an address of {host} that fits -A"));
    Err(failure.unwrap_or_else(missing))
}

#[derive(Clone)]
struct Proxy {
    host: String,
    port: u16,
    credentials: Option<(String, String)>,
}

impl Proxy {
    fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("socks5h://")?.trim_end_matches('/');
        let (user, server) = match rest.rsplit_once('@') {
            Some((user, server)) => (Some(user), server),
            None => (None, rest),
        };
        let decode = |text| {
            let text = percent_encoding::percent_decode_str(text).decode_utf8().ok()?;
            Some(text.into_owned())
        };
        let credentials = match user {
            Some(user) => {
                let (user, password) = user.split_once(':')?;
                Some((decode(user)?, decode(password)?))
            }
            None => None,
        };
        let server: http::uri::Authority = server.parse().ok()?;
        let port = server.port_u16().unwrap_or(1080);
        Some(Self { host: server.host().to_owned(), port, credentials })
    }
}

async fn through(proxy: Proxy, host: String, port: u16) -> io::Result<Socks5Stream<TcpStream>> {
    let socket = TcpStream::connect((proxy.host.as_str(), proxy.port)).await?;
    socket.set_nodelay(true)?;
    let target = (host, port);
    let connected = match &proxy.credentials {
        Some((user, password)) => {
            Socks5Stream::connect_with_password_and_socket(socket, target, user, password).await
        }
        None => Socks5Stream::connect_with_socket(socket, target).await,
    };
    connected.map_err(|error| io::Error::other(format!("proxy: {error}")))
}
