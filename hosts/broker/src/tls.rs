//! Certificates and keys.

use crate::config::Arguments;
use anyhow::Context as _;
use log::{info, warn};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, ServerConnection};

/// The certificates, as the files had them when they were last read.
pub(crate) struct Certificates {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    acceptor: TlsAcceptor,
}

impl Certificates {
    /// Reads the files, if there are any.
    pub(crate) fn read(arguments: &Arguments) -> anyhow::Result<Option<Self>> {
        let (Some(cert), Some(key)) = (arguments.cert.clone(), arguments.key.clone()) else {
            return Ok(None);
        };
        let client_ca = arguments.client_ca.clone();
        let acceptor = read(&cert, &key, client_ca.as_deref())?;
        Ok(Some(Self { cert, key, client_ca, acceptor }))
    }

    /// Reads the files again. If one is bad, all stay as they were.
    pub(crate) fn reload(&mut self) {
        match read(&self.cert, &self.key, self.client_ca.as_deref()) {
            Ok(acceptor) => {
                self.acceptor = acceptor;
                info!("reloaded the certificates");
            }
            Err(error) => warn!("the certificates stay as they were: {error:#}"),
        }
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}

/// Reads the certificate chain and the key of the server, and the certificate of the authority that
/// clients must have a certificate from.
fn read(cert: &Path, key: &Path, client_ca: Option<&Path>) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .context("TLS")?;
    let config = match client_ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).with_context(|| path.display().to_string())?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .with_context(|| path.display().to_string())?;
            config.with_client_cert_verifier(verifier)
        }
        None => config.with_no_client_auth(),
    };
    let chain = certificates(cert)?;
    let name = || key.display().to_string();
    let key = PrivateKeyDer::from_pem_file(key).with_context(name)?;
    let config = config
        .with_single_cert(chain, key)
        .with_context(|| format!("{} and {}", cert.display(), name()))?;
    Ok(Arc::new(config).into())
}

/// Returns the common name in the certificate of a client.
pub(crate) fn common_name(connection: &ServerConnection) -> anyhow::Result<Box<str>> {
    let chain = connection.peer_certificates().unwrap_or_default();
    let certificate = chain.first().context("the client has no certificate")?;
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate)?;
    let name = certificate.subject().iter_common_name().next();
    let name = name.context("the certificate of the client has no common name")?;
    Ok(name.as_str().context("common name of the client")?.into())
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || {
        let certificates: Vec<_> =
            CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
        anyhow::ensure!(!certificates.is_empty(), "expected a certificate in PEM, found none");
        Ok(certificates)
    };
    read().with_context(|| path.display().to_string())
}
