//! Server redirection: whether the client connects to a server that another one names. [5.0 §4.11]

use crate::error::Ended;
use crate::transport::Endpoint;
use mqtt_sansio::codec::ReasonCode;
use std::collections::VecDeque;
use std::fmt;

/// A server that another server has named in a Server Reference. [5.0 §4.11]
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerReference {
    /// The name or the address. An IPv6 address is without brackets.
    pub host: String,
    /// The port: that of the URL's scheme, such as 8883 for `mqtts`, if the reference has none.
    pub port: u16,
    /// Whether the referring server has moved to this one for good (0x9D). If not, the client must
    /// use this server for a time (0x9C).
    pub is_permanent: bool,
}

impl ServerReference {
    /// Reads one reference of the list: `name`, `name:port` or `[name]:port`.
    fn parse(text: &str, default_port: u16, is_permanent: bool) -> Option<Self> {
        // A user name before the host would be misread as the host.
        let server: http::uri::Authority = text.parse().ok().filter(|_| !text.contains('@'))?;
        let name = server.host();
        let port = match text.get(name.len()..)?.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0)?,
            None => default_port,
        };
        let host = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self { host, port, is_permanent }).filter(|server| !server.host.is_empty())
    }
}

/// Writes `host:port`, with brackets around an IPv6 address.
impl fmt::Display for ServerReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Decides which servers the client follows.
pub(crate) type Allow = Box<dyn FnMut(&ServerReference) -> bool + Send>;

/// The policy of a client that follows Server References, and the servers that they have led to.
pub(crate) struct Redirection {
    /// The most references that are followed before a delay.
    most: u8,
    allow: Allow,
    /// The number of references that were followed since the last delay or stable connection.
    followed: u8,
    /// The other allowed servers of the last list.
    rest: VecDeque<ServerReference>,
    /// The server of the current attempt, if a reference led to it.
    current: Option<ServerReference>,
    /// Whether each reference that led to that server was permanent.
    is_move: bool,
    /// The server that the client returns to.
    home: Option<(String, u16)>,
}

impl Redirection {
    pub(crate) const fn new(most: u8, allow: Allow) -> Self {
        let rest = VecDeque::new();
        Self { most, allow, followed: 0, rest, current: None, is_move: false, home: None }
    }

    /// Sets the server of the next attempt after the last one has ended. Returns the server if a
    /// reference leads to it, so that the attempt can begin without a delay.
    pub(crate) fn next(
        &mut self,
        endpoint: &mut Endpoint,
        cause: &Ended,
        was_accepted: bool,
        is_stable: bool,
    ) -> Option<ServerReference> {
        let (host, port, default_port) = endpoint.server()?;
        let last = (host.to_owned(), port);
        let was_referred = self.current.take().is_some();
        // A permanent move takes effect when the new server has accepted the client.
        if self.home.is_none() || was_accepted && was_referred && self.is_move {
            self.home = Some(last);
        }
        if is_stable {
            self.followed = 0;
        }
        if was_accepted {
            self.rest.clear();
        }
        let is_permanent = cause.reason_code() == Some(ReasonCode::SERVER_MOVED);
        if let Some(list) = cause.server_reference() {
            let servers = list.split(' ');
            let servers =
                servers.filter_map(|one| ServerReference::parse(one, default_port, is_permanent));
            let allowed = servers.filter(|server| (self.allow)(server));
            self.rest = allowed.take(self.most.into()).collect();
        }
        if self.followed < self.most {
            self.current = self.rest.pop_front();
        }
        if let Some(server) = &self.current {
            self.followed += 1;
            self.is_move = server.is_permanent && (self.is_move || !was_referred);
            endpoint.set_server(&server.host, server.port);
        } else {
            self.followed = 0;
            self.rest.clear();
            let (host, port) = self.home.as_ref()?;
            endpoint.set_server(host, *port);
        }
        self.current.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    /// [5.0 §4.11]
    #[test]
    fn reference_is_a_name_with_or_without_port() {
        let parse = |text| ServerReference::parse(text, 1883, false);
        for (text, host, port, shown) in [
            ("myserver.xyz.org", "myserver.xyz.org", 1883, "myserver.xyz.org:1883"),
            ("myserver.xyz.org:8883", "myserver.xyz.org", 8883, "myserver.xyz.org:8883"),
            ("10.10.151.22:8883", "10.10.151.22", 8883, "10.10.151.22:8883"),
            ("[fe80::9610:3eff:fe1c]:1884", "fe80::9610:3eff:fe1c", 1884, ""),
            ("[::1]", "::1", 1883, "[::1]:1883"),
        ] {
            let server = parse(text).unwrap();
            assert_eq!((&*server.host, server.port), (host, port));
            assert!(shown.is_empty() || server.to_string() == shown);
        }
        for text in
            ["", ":1", "a:", "a:b", "a:0", "a:65536", "::1", "u@a", "a/b", "a?b", "[]", "mqtt://a"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
