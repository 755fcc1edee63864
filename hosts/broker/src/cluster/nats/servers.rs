//! The servers that a node needs, and the streams there.

use super::{LOG, Nats, RETAINED, SESSIONS, WINDOW};
use anyhow::{Context as _, bail, ensure};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Source, StorageType};
use async_nats::{ConnectOptions, ServerAddr, jetstream};
use percent_encoding::percent_decode_str;
use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// Attempts to create a stream, and to read the log for the first time.
pub(in crate::cluster) const START: u32 = 20;
/// The smallest `max_payload` of the servers. An entry has all records of a session.
const PAYLOAD: usize = 8 * 1024 * 1024;

/// How to reach the servers, and how they store.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ClusterArguments {
    /// Share the clients with other brokers over these servers of NATS: `nats://HOST:PORT`, or
    /// `tls://` with TLS; `USER:PASSWORD@` or `TOKEN@` can precede the host. Can be repeated.
    /// `cluster.md` says how to set them.
    #[arg(long, value_name = "URL", conflicts_with = "data_dir", help_heading = "Cluster")]
    pub(crate) cluster: Vec<ServerAddr>,
    /// The name of this node in logs, figures and `$SYS` [default: the name of the host].
    #[arg(long, value_name = "NAME", requires = "cluster", help_heading = "Cluster")]
    pub(crate) cluster_node: Option<String>,
    /// A file with credentials for NATS, as `nsc` writes it.
    #[arg(long, value_name = "FILE", requires = "cluster", help_heading = "Cluster")]
    cluster_credentials: Option<PathBuf>,
    /// The authority of the servers' certificates, in PEM.
    #[arg(long, value_name = "FILE", requires = "cluster", help_heading = "Cluster")]
    cluster_ca: Option<PathBuf>,
    /// The certificate of this node for NATS, in PEM.
    #[arg(long, value_name = "FILE", requires = "cluster_key", help_heading = "Cluster")]
    cluster_cert: Option<PathBuf>,
    /// The key of that certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "cluster_cert", help_heading = "Cluster")]
    cluster_key: Option<PathBuf>,
    /// The servers that have each message. With fewer than 3, an acknowledged message can be lost.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        value_parser = clap::value_parser!(u8).range(1..=5),
        requires = "cluster",
        help_heading = "Cluster"
    )]
    cluster_replicas: u8,
    /// Hours that the log keeps messages for clients that are away.
    #[arg(
        long,
        value_name = "HOURS",
        default_value_t = 168,
        requires = "cluster",
        help_heading = "Cluster"
    )]
    cluster_log_hours: u64,
    /// Bytes that the log can have; then the oldest messages are removed.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 10_737_418_240,
        requires = "cluster",
        help_heading = "Cluster"
    )]
    cluster_log_bytes: i64,
}
impl Nats {
    /// Connects, and checks the servers and the streams. Creates streams that are missing.
    pub(crate) async fn connect(
        arguments: &ClusterArguments,
        name: &str,
        instance: u64,
    ) -> anyhow::Result<Self> {
        let mut options = ConnectOptions::new()
            .name(format!("mqtt {name}"))
            .ping_interval(Duration::from_secs(2))
            .connection_timeout(Duration::from_secs(2))
            .reconnect_delay_callback(|attempts| {
                Duration::from_millis(100 * u64::try_from(attempts.min(10)).unwrap_or(10))
            })
            .subscription_capacity(1 << 20)
            .no_echo();
        // The crate ignores the part of an address that names the user.
        let mut users = arguments.cluster.iter().map(|url| (url.username(), url.password()));
        let user = users.next();
        ensure!(
            users.all(|other| Some(other) == user),
            "expected the same user in all addresses of --cluster"
        );
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        match user {
            Some((Some(user), Some(password))) => {
                options = options.user_and_password(decode(user), decode(password));
            }
            Some((Some(token), None)) => options = options.token(decode(token)),
            _ => {}
        }
        if let Some(path) = &arguments.cluster_credentials {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            options = options.credentials(&text)?;
        }
        if let Some(path) = &arguments.cluster_ca {
            options = options.add_root_certificates(path.clone());
        }
        if let (Some(cert), Some(key)) = (&arguments.cluster_cert, &arguments.cluster_key) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        let client = async_nats::connect_with_options(&arguments.cluster[..], options).await;
        let client = client.context("cannot connect to NATS")?;
        let context = jetstream::new(client.clone());
        let (outbox, mut rest) = mpsc::unbounded_channel::<(String, Vec<u8>)>();
        let (sender, waiting) = (client.clone(), Rc::new(Cell::new(0_usize)));
        let left = waiting.clone();
        spawn_local(async move {
            while let Some((subject, payload)) = rest.recv().await {
                left.set(left.get() - payload.len());
                if let Err(error) = sender.publish(subject, payload.into()).await {
                    debug!(%error, "a message for other nodes is lost");
                }
            }
        });
        let hours = arguments.cluster_log_hours;
        let log_time = (hours > 0).then(|| format!("{hours}h"));
        let nats = Self { client, context, instance, outbox, waiting, log_time };
        nats.check(arguments).await?;
        Ok(nats)
    }

    /// Checks what the guarantees need.
    async fn check(&self, arguments: &ClusterArguments) -> anyhow::Result<()> {
        let server = self.client.server_info();
        let is_new = self.client.is_server_compatible(2, 12, 0);
        ensure!(is_new, "expected NATS 2.12 or later, found {}", server.version);
        ensure!(
            server.max_payload >= PAYLOAD,
            "expected `max_payload: 8MB` in the configuration of NATS, found {}",
            server.max_payload
        );
        let replicas = usize::from(arguments.cluster_replicas);
        if replicas < 3 {
            warn!(replicas, "fewer than 3 replicas: acknowledged messages can be lost");
        }
        let common = |name: &str| Config {
            name: name.into(),
            num_replicas: replicas,
            storage: StorageType::File,
            allow_direct: true,
            ..Config::default()
        };
        let log = Config {
            subjects: vec!["mqtt.log.>".into(), "mqtt.retained.>".into()],
            max_age: Duration::from_secs(arguments.cluster_log_hours * 3_600),
            max_bytes: arguments.cluster_log_bytes,
            discard: DiscardPolicy::Old,
            allow_atomic_publish: true,
            allow_message_ttl: true,
            duplicate_window: WINDOW,
            ..common(LOG)
        };
        let source = Source {
            name: LOG.into(),
            filter_subject: Some("mqtt.retained.>".into()),
            ..Source::default()
        };
        let retained = Config {
            max_messages_per_subject: 1,
            sources: Some(vec![source]),
            allow_message_ttl: true,
            ..common(RETAINED)
        };
        let sessions = Config {
            subjects: vec!["mqtt.session.>".into()],
            allow_rollup: true,
            allow_message_ttl: true,
            ..common(SESSIONS)
        };
        for wanted in [log, retained, sessions] {
            let name = wanted.name.clone();
            let mut attempts = 0;
            let stream = loop {
                match self.context.get_or_create_stream(wanted.clone()).await {
                    Ok(stream) => break stream,
                    // The servers elect a leader, or another node creates the stream.
                    Err(error) if attempts < START => {
                        if attempts == 0 {
                            info!(stream = name, "waiting for NATS to have the stream");
                        }
                        debug!(%error, attempts, "the stream is not there yet");
                        attempts += 1;
                        sleep(Duration::from_secs(1)).await;
                    }
                    Err(error) => {
                        return Err(error).with_context(|| format!("cannot create stream {name}"));
                    }
                }
            };
            let found = &stream.cached_info().config;
            if found.num_replicas != wanted.num_replicas {
                bail!(
                    "expected {} replicas of stream {name}, found {}: use --cluster-replicas, or \
                     change the stream with `nats stream edit`",
                    wanted.num_replicas,
                    found.num_replicas
                );
            }
            let has_features = found.storage == StorageType::File
                && (!wanted.allow_atomic_publish || found.allow_atomic_publish)
                && (!wanted.allow_rollup || found.allow_rollup)
                && (!wanted.allow_message_ttl || found.allow_message_ttl)
                && found.duplicate_window >= wanted.duplicate_window;
            ensure!(has_features, "stream {name} was not created by this program: remove it");
            let are_limits_equal =
                (found.max_age, found.max_bytes) == (wanted.max_age, wanted.max_bytes);
            if name == LOG && !are_limits_equal {
                warn!(
                    stream = name,
                    seconds = found.max_age.as_secs(),
                    bytes = found.max_bytes,
                    "the limits of the stream differ from the flags, and stay as they are"
                );
            }
        }
        warn!(
            "NATS does not say how it syncs: without `sync_interval: always` at each server, \
             acknowledged messages can be lost when servers lose their power together"
        );
        Ok(())
    }
}
