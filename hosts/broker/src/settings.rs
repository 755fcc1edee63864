//! The settings of the listeners that share flags.

use crate::access::Access;
use crate::flags::Arguments;
use crate::limits::Limit;
use crate::lock::Lock;
use crate::tls::Certificates;
use mqtt_sansio::broker::Rates;
use mqtt_sansio::server::ServerConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

/// A kind of content that files have, and whether they were read again.
pub(crate) type Reloaded = (&'static str, anyhow::Result<()>);

/// The settings of one listener, or of all those that share the flags of the program.
pub(crate) struct Settings {
    pub(crate) access: Lock<Access>,
    pub(crate) certificates: Lock<Option<Certificates>>,
    pub(crate) limit: Arc<Limit>,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) rates: Rates,
    pub(crate) certificate_user: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) packet_timeout: Duration,
}

impl Settings {
    /// Reads the files that the flags name.
    pub(crate) fn read(arguments: &Arguments) -> anyhow::Result<Self> {
        let listener = &arguments.listener;
        Ok(Self {
            access: Lock::new(Access::read(listener)?),
            certificates: Lock::new(Certificates::read(listener)?),
            limit: Arc::new(Limit::new(listener)),
            // So that the broker need not copy it for each connection.
            server: Arc::new(arguments.server_config().manual_acknowledgement(true)),
            rates: arguments.rates(),
            certificate_user: listener.certificate_user.unwrap_or_default(),
            connect_timeout: Duration::from_secs(listener.connect_timeout),
            packet_timeout: Duration::from_secs(listener.packet_timeout),
        })
    }

    /// Returns the settings of the connections of bridges, which this program itself opens.
    pub(crate) fn of_bridges(arguments: &Arguments) -> anyhow::Result<Self> {
        let access = Lock::new(Access::all());
        let (certificates, rates) = (Lock::default(), Rates::default());
        Ok(Self { access, certificates, rates, ..Self::read(arguments)? })
    }

    /// Returns the acceptor of TLS connections, if there is a certificate.
    pub(crate) fn acceptor(&self) -> Option<TlsAcceptor> {
        self.certificates.lock().as_ref().map(Certificates::acceptor)
    }

    /// Reads the files again. Takes as long as the disk does.
    pub(crate) fn reload(&self) -> Vec<Reloaded> {
        let access = Access::reload(&self.access);
        access.into_iter().chain(Certificates::reload(&self.certificates)).collect()
    }
}
