//! How to connect, and the start of a client.

use crate::clock::Clock;
use crate::core::{Authenticator, AuthenticatorError, Parts, Subscribed};
use crate::driver::{Driver, Status};
use crate::error::{RequestError, StartError, UrlError};
use crate::messages::Messages;
use crate::queue::{Sender, queue};
use crate::redirection::{Redirection, ServerReference};
use crate::shared::Shared;
use crate::store::Store;
use crate::transport::{Endpoint, Kind, Transport};
use crate::{Client, ClientConfig};
use mqtt_sansio::client::Client as Machine;
use mqtt_sansio::codec::{
    Auth, Connect, ConnectProperties, EncodeError, OwnedPacket, Packet, QoS, Role, Rules,
    SubscribeProperties, Subscription, Text, Version,
};
use mqtt_sansio::session::Session;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How to connect to a server.
///
/// ```no_run
/// use mqtt_sansio_client::Options;
/// use mqtt_sansio_client::codec::{Connect, ConnectProperties, QoS, Version, Will};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// // The server keeps the session for a day. The next run of this program resumes it.
/// let properties = ConnectProperties {
///     session_expiry_interval: Some(24 * 60 * 60),
///     ..ConnectProperties::default()
/// };
/// let connect = Connect {
///     keep_alive: 30,
///     will: Some(Will::new("workers/4", b"gone")),
///     properties,
///     ..Connect::new(Version::V5_0, "worker-4")
/// };
/// let mut options = Options::new("mqtt://broker.example")?
///     .with(&connect)?
///     .store("worker-4.session")
///     .manual_acknowledgement(true);
/// // Subscribed before the connection, so that no message of the resumed session is missed.
/// let mut jobs = options.subscribe("jobs/#", QoS::ExactlyOnce)?;
/// let client = options.connect().await?;
/// while let Some(job) = jobs.recv().await {
///     println!("{}", job.topic());
///     job.acknowledge(mqtt_sansio_client::codec::ReasonCode::SUCCESS)?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Options {
    endpoint: Endpoint,
    connect: OwnedPacket,
    config: ClientConfig,
    backoff: Option<(Duration, Duration)>,
    connect_timeout: Duration,
    redirection: Option<Redirection>,
    buffer: usize,
    manual_acknowledgement: bool,
    store: Option<PathBuf>,
    authenticator: Option<Authenticator>,
    subscriptions: Vec<Subscribed>,
    others: Option<Sender>,
}

impl Options {
    /// Creates options for the server of a URL, with a session that ends with the client, and that
    /// survives 5 minutes without a connection.
    ///
    /// | URL | transport |
    /// |---|---|
    /// | `mqtt://[user[:password]@]host[:port]` | TCP, port 1883 |
    /// | `mqtts://…` | TLS, port 8883; needs [`tls`](Self::tls) |
    /// | `ws://…[/path]`, `wss://…[/path]` | WebSocket, port 80, or over TLS, port 443 |
    /// | `unix:/path` | Unix socket |
    ///
    /// The packet is a CONNECT of 5.0 with a random client identifier, Clean Start, a Keep Alive of
    /// 60 seconds, and the user name and password of the URL. [`with`](Self::with) replaces it.
    pub fn new(url: &str) -> Result<Self, UrlError> {
        let (endpoint, (user_name, password)) = Endpoint::parse(url)?;
        let identifier = format!("sansio-{:016x}", fastrand::u64(..));
        let properties = ConnectProperties {
            session_expiry_interval: Some(300),
            ..ConnectProperties::default()
        };
        let connect = Connect {
            clean_start: true,
            keep_alive: 60,
            user_name: user_name.as_deref().map(Text::from),
            password: password.as_deref(),
            properties,
            ..Connect::new(Version::V5_0, &identifier)
        };
        Ok(Self {
            endpoint,
            connect: owned(&connect)?,
            config: ClientConfig::new(),
            backoff: Some((Duration::from_millis(250), Duration::from_secs(60))),
            connect_timeout: Duration::from_secs(30),
            redirection: None,
            buffer: 1_000,
            manual_acknowledgement: false,
            store: None,
            authenticator: None,
            subscriptions: Vec::new(),
            others: None,
        })
    }

    /// Sets the CONNECT, with each of its fields. A CONNECT without user name and password gets
    /// those of the URL.
    ///
    /// - In 5.0, Clean Start is sent until the first CONNACK; afterwards the session is resumed.
    ///   With Clean Start, the session also ends with [`Client::disconnect`]. With a Session Expiry
    ///   Interval of 0, as in [`Connect::new`], no connection resumes the session.
    /// - Before 5.0, a session with Clean Session ends with each connection.
    /// - Without Clean Start and without a [store](Self::store), a session that the server has kept
    ///   is resumed, but a QoS 2 message of an earlier run can arrive twice.
    pub fn with(mut self, connect: &Connect<'_>) -> Result<Self, EncodeError> {
        let old = self.connect.decode();
        let Packet::Connect(Connect { user_name, password, .. }) = old else { return Ok(self) };
        let is_anonymous = connect.user_name.is_none() && connect.password.is_none();
        let connect = match is_anonymous {
            true => owned(&Connect { user_name, password, ..*connect }),
            false => owned(connect),
        };
        self.connect = connect?;
        Ok(self)
    }

    /// Sets the configuration of the machine: how much can wait to be sent, timeouts, topic
    /// aliases, tolerances. [`maximum_queued`](ClientConfig::maximum_queued) is the limit at which
    /// [`Client::publish`] waits.
    #[must_use]
    pub fn config(self, config: ClientConfig) -> Self {
        Self { config, ..self }
    }

    /// Sets whether each message of QoS 1 and 2 must be
    /// [acknowledged](crate::Message::acknowledge). The default is false: a message is acknowledged
    /// when it has entered the buffer of its stream.
    #[must_use]
    pub fn manual_acknowledgement(self, manual_acknowledgement: bool) -> Self {
        Self { manual_acknowledgement, ..self }
    }

    /// Sets how many messages each stream can hold, at least 1. The default is 1,000. In 5.0 it is
    /// also the Receive Maximum, if CONNECT has none.
    #[must_use]
    pub fn buffer(self, messages: usize) -> Self {
        Self { buffer: messages.max(1), ..self }
    }

    /// Sets the first and the longest delay before the next attempt to connect. The delay doubles
    /// with each attempt, and a random part, at most a half, is taken off. The default is 250
    /// milliseconds and a minute.
    #[must_use]
    pub fn backoff(self, first: Duration, longest: Duration) -> Self {
        Self { backoff: Some((first, longest.max(first))), ..self }
    }

    /// Makes the end of the first connection the end of the client.
    #[must_use]
    pub fn no_reconnect(self) -> Self {
        Self { backoff: None, ..self }
    }

    /// Sets how long opening a transport can take, with TLS and WebSocket. The default is 30
    /// seconds. [`ClientConfig::connect_timeout`] is the time for CONNACK.
    #[must_use]
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// Makes the client follow Server References of 5.0 to each server for which `allow` returns
    /// true. By default it follows none: a server, or an attacker on a connection without TLS,
    /// could send the client and its password anywhere. [5.0 §4.11]
    ///
    /// ```
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let options = mqtt_sansio_client::Options::new("mqtts://broker.example")?;
    /// let options = options.follow_server_reference(3, |server| {
    ///     server.host.ends_with(".broker.example") && server.port == 8883
    /// });
    /// # drop(options);
    /// # Ok(())
    /// # }
    /// # example().unwrap();
    /// ```
    ///
    /// - The scheme and the path of the URL stay, so a connection with TLS is followed by one with
    ///   TLS, whose certificate must name the other server. Unix sockets and
    ///   [transports](Self::transport) of a program are not redirected.
    /// - The servers of a list are tried in their order, without a delay, until one accepts the
    ///   client. After `most` attempts in a row, the client waits as after any lost connection, and
    ///   returns to the server of the URL. So servers that refer to each other make no endless
    ///   loop.
    /// - After "Use another server" (0x9C), the client returns to the server of the URL when the
    ///   connection to the other one ends. After "Server moved" (0x9D), the other server takes the
    ///   place of the URL, once it has accepted the client. A restarted program begins with its URL
    ///   again.
    /// - The client first tries to resume its session at the other server, because the nodes of a
    ///   cluster share sessions. If that server does not have it, the session is
    ///   [lost](crate::DeliveryError::SessionLost), and from then on each change of the server
    ///   begins with Clean Start. With a [store](Self::store), the servers must share sessions.
    ///
    /// [`Status::Redirected`] reports each step. This also works with
    /// [`no_reconnect`](Self::no_reconnect).
    #[must_use]
    pub fn follow_server_reference(
        self,
        most: u8,
        allow: impl FnMut(&ServerReference) -> bool + Send + 'static,
    ) -> Self {
        Self { redirection: Some(Redirection::new(most, Box::new(allow))), ..self }
    }

    /// Keeps the session in a file: the messages of QoS 1 and 2 that wait to be sent or are in
    /// flight, and the QoS 2 messages that were received. If the file exists, its session is
    /// resumed, and Clean Start is not sent. It belongs to one client identifier and one server.
    ///
    /// No packet is sent before the file has the state after it, and [`Client::publish`] returns
    /// when the file has the message. So with QoS 2 and manual acknowledgement, each message is
    /// sent and received exactly once over any crash.
    ///
    /// The file is a log: each group of changes is appended and synchronized. A QoS 1 message with
    /// 22 bytes of topic and payload costs 73 bytes, whether 1 message waits or 10,000.
    #[must_use]
    pub fn store(self, path: impl Into<PathBuf>) -> Self {
        Self { store: Some(path.into()), ..self }
    }

    /// Sets the configuration of TLS. It chooses the cryptographic provider, the authorities, and
    /// the certificate of this client.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, config: Arc<crate::rustls::ClientConfig>) -> Self {
        self.endpoint.tls = Some(config);
        self
    }

    /// Sets the function that opens the transport, in place of the one that the URL names.
    #[must_use]
    pub fn transport<F, T>(mut self, mut open: impl FnMut() -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: Transport + 'static,
    {
        self.endpoint.kind = Kind::User(Box::new(move || {
            let opening = open();
            Box::pin(async move { Ok(Box::new(opening.await?) as Box<dyn Transport>) })
        }));
        self
    }

    /// Sets the function that opens the connection to the host and port of the URL, below TLS and
    /// WebSocket: through a proxy, or from a certain address.
    #[must_use]
    pub fn dial<F, T>(mut self, mut dial: impl FnMut(String, u16) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: Transport + 'static,
    {
        self.endpoint.dial = Some(Box::new(move |host, port| {
            let dialing = dial(host, port);
            Box::pin(async move { Ok(Box::new(dialing.await?) as Box<dyn Transport>) })
        }));
        self
    }

    /// Sets the client's part of enhanced authentication, whose method is in CONNECT. With `None`,
    /// the function returns the data of a CONNECT, or of the AUTH that starts a re-authentication.
    /// With an AUTH of the server, it returns the data of the answer. An error ends the connection.
    /// [5.0 §4.12]
    #[must_use]
    pub fn authenticator(
        self,
        authenticator: impl FnMut(Option<&Auth<'_>>) -> Result<Vec<u8>, AuthenticatorError>
        + Send
        + 'static,
    ) -> Self {
        Self { authenticator: Some(Box::new(authenticator)), ..self }
    }

    /// Adds a subscription that is made with the first connection. Its stream has each message of a
    /// resumed session; that of [`Client::subscribe`] can miss the first ones.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<Messages, RequestError> {
        let subscription = Subscription::new(filter, qos);
        self.subscribe_with(&[subscription], SubscribeProperties::default())
    }

    /// Adds a subscription to several filters, with all options and properties.
    pub fn subscribe_with(
        &mut self,
        subscriptions: &[Subscription<'_>],
        properties: SubscribeProperties<'_>,
    ) -> Result<Messages, RequestError> {
        let (sender, receiver) = queue(self.buffer);
        let version = self.version();
        let (waiter, answer) = oneshot::channel();
        let subscribed = Subscribed::new(version, subscriptions, properties, sender, Some(waiter))?;
        self.subscriptions.push(subscribed);
        Ok(Messages::new(receiver, Vec::new(), Some(answer)))
    }

    /// Returns a stream of the messages that match no subscription of this client, such as those of
    /// subscriptions that the server has made for it. Without this stream, they are acknowledged
    /// and discarded.
    pub fn others(&mut self) -> Messages {
        let (sender, receiver) = queue(self.buffer);
        self.others = Some(sender);
        Messages::new(receiver, Vec::new(), None)
    }

    /// Starts the client, and waits until the server accepts the first connection. If the first
    /// attempt fails, with the servers that it is
    /// [referred](Self::follow_server_reference) to, the client ends.
    pub async fn connect(self) -> Result<Client, StartError> {
        let url = self.endpoint.name.clone();
        let client = self.start()?;
        let mut status = client.status();
        let decided = status
            .wait_for(|status| !matches!(status, Status::Connecting | Status::Redirected { .. }))
            .await
            .map(|it| it.clone());
        match decided {
            Ok(Status::Waiting { cause, .. } | Status::Closed(cause)) => {
                Err(StartError::Connect { url, cause })
            }
            _ => Ok(client),
        }
    }

    /// Starts the client, which connects in the background, and tries again until it succeeds.
    /// Messages can be published at once.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn start(mut self) -> Result<Client, StartError> {
        let clock = Clock::new();
        let store = self.store.take().map(Store::new);
        let loaded = match &store {
            Some(store) => store
                .load(clock.now())
                .map_err(|source| StartError::Store { path: store.path().to_owned(), source })?,
            None => None,
        };
        let mut connect = self.connect.decode();
        if let Packet::Connect(connect) = &mut connect {
            let receive_maximum = &mut connect.properties.receive_maximum;
            if connect.version == Version::V5_0 {
                let buffer = u16::try_from(self.buffer).unwrap_or(u16::MAX);
                receive_maximum.get_or_insert(buffer);
            }
            connect.clean_start &= loaded.is_none();
        }
        let is_clean = matches!(connect, Packet::Connect(Connect { clean_start: true, .. }));
        let config = self.config.manual_acknowledgement(self.manual_acknowledgement);
        let (session, next_key) = match loaded {
            Some(stored) => (stored.session, stored.last_key),
            None if is_clean => (Session::new(), 0),
            // Without its state, this client can still resume what the server has kept.
            None => (Session::established(), 0),
        };
        let mut machine = Machine::with_session(config, session);
        if store.is_some() {
            machine.record_changes();
        }
        let rules = self.connect.rules();
        // The packet differs from the checked one only in fields that cannot make it invalid.
        let connect = OwnedPacket::new(&connect, rules).unwrap_or_else(|_| self.connect.clone());
        let shared = Arc::new(Shared::new(Parts {
            machine,
            clock,
            connect,
            authenticator: self.authenticator,
            manual_acknowledgement: self.manual_acknowledgement,
            subscriptions: self.subscriptions,
            others: self.others,
            next_key,
            has_store: store.is_some(),
        }));
        let driver = Driver {
            shared: shared.clone(),
            endpoint: self.endpoint,
            backoff: self.backoff,
            connect_timeout: self.connect_timeout,
            redirection: self.redirection,
            store,
        };
        let has_store = driver.store.is_some();
        tokio::spawn(driver.run());
        Ok(Client::new(shared, self.buffer, has_store))
    }

    fn version(&self) -> Version {
        let Packet::Connect(connect) = self.connect.decode() else { return Version::V5_0 };
        connect.version
    }
}

fn owned(connect: &Connect<'_>) -> Result<OwnedPacket, EncodeError> {
    OwnedPacket::new(&(*connect).into(), Rules::new(connect.version).sent_by(Role::Client))
}

/// Does not show the password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("endpoint", &self.endpoint)
            .field("connect", &self.connect)
            .field("config", &self.config)
            .field("backoff", &self.backoff)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
