//! Certificates and keys.

use crate::flags::ListenerArguments;
use crate::lock::Lock;
use crate::settings::Reloaded;
use anyhow::{Context as _, ensure};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The certificates, as the files had them when they were last read.
pub(crate) struct Certificates {
    files: Arc<Files>,
    acceptor: TlsAcceptor,
    /// Checks the certificates of clients, if they must have one.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

struct Files {
    /// The certificate chain of the server.
    cert: PathBuf,
    /// The key of the server.
    key: PathBuf,
    /// The authority that clients must have a certificate from.
    client_ca: Option<PathBuf>,
    /// The certificates that the authority has revoked.
    client_crl: Option<PathBuf>,
}

impl Certificates {
    /// Reads the files, if there are any.
    pub(crate) fn read(arguments: &ListenerArguments) -> anyhow::Result<Option<Self>> {
        let (Some(cert), Some(key)) = (arguments.cert.clone(), arguments.key.clone()) else {
            return Ok(None);
        };
        let (client_ca, client_crl) = (arguments.client_ca.clone(), arguments.client_crl.clone());
        let files = Arc::new(Files { cert, key, client_ca, client_crl });
        let (acceptor, verifier) = files.read()?;
        Ok(Some(Self { files, acceptor, verifier }))
    }

    /// Reads the files again, if there are any, while others use what was read before. If one is
    /// bad, all stay as they were.
    pub(crate) fn reload(certificates: &Lock<Option<Self>>) -> Option<Reloaded> {
        let files = certificates.lock().as_ref()?.files.clone();
        let read = files.read().map(|(acceptor, verifier)| {
            *certificates.lock() = Some(Self { files, acceptor, verifier });
        });
        Some(("certificates", read))
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Whether a client whose certificate was accepted before would be accepted now.
    pub(crate) fn still_allow(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some(verifier) = &self.verifier else { return true };
        let Some((first, rest)) = chain.split_first() else { return false };
        verifier.verify_client_cert(first, rest, UnixTime::now()).is_ok()
    }
}

impl Files {
    fn read(&self) -> anyhow::Result<(TlsAcceptor, Option<Arc<dyn ClientCertVerifier>>)> {
        let Self { cert, key, client_ca, client_crl } = self;
        let provider = Arc::new(default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .context("TLS")?;
        let verifier = match client_ca {
            Some(path) => {
                let roots = read_roots(path)?;
                let crls = client_crl.as_deref().map(read_all).transpose()?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .with_crls(crls.unwrap_or_default())
                        .build()
                        .with_context(|| name(client_crl.as_ref().unwrap_or(path)))?;
                Some(verifier)
            }
            None => None,
        };
        let config = match &verifier {
            Some(verifier) => config.with_client_cert_verifier(verifier.clone()),
            None => config.with_no_client_auth(),
        };
        let chain = read_all(cert)?;
        let secret = PrivateKeyDer::from_pem_file(key).with_context(|| name(key))?;
        let config = config
            .with_single_cert(chain, secret)
            .with_context(|| format!("{} and {}", name(cert), name(key)))?;
        Ok((Arc::new(config).into(), verifier))
    }
}

/// Returns what connects to a server whose certificate is from the authority of the file `ca`, with
/// the files of the certificate and the key of this client, if it has them.
pub(crate) fn connector(
    ca: &Path,
    identity: Option<(&Path, &Path)>,
) -> anyhow::Result<TlsConnector> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_root_certificates(read_roots(ca)?);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some((cert, key)) => {
            let secret = PrivateKeyDer::from_pem_file(key).with_context(|| name(key))?;
            config
                .with_client_auth_cert(read_all(cert)?, secret)
                .with_context(|| format!("{} and {}", name(cert), name(key)))?
        }
    };
    Ok(Arc::new(config).into())
}

fn read_roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in read_all::<CertificateDer<'_>>(path)? {
        roots.add(certificate).with_context(|| name(path))?;
    }
    Ok(roots)
}

/// Reads all items of a kind from a file.
fn read_all<T: PemObject>(path: &Path) -> anyhow::Result<Vec<T>> {
    let read = || {
        let items: Vec<_> = T::pem_file_iter(path)?.collect::<Result<_, _>>()?;
        ensure!(!items.is_empty(), "expected certificates in PEM, found none");
        Ok(items)
    };
    read().with_context(|| name(path))
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

/// The certificate of a client, which was accepted.
pub(crate) struct ClientCertificate {
    /// With those of its issuers.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The common name, if it is the user name.
    pub(crate) user: Option<Box<str>>,
}

impl ClientCertificate {
    pub(crate) fn new(chain: &[CertificateDer<'_>], has_user: bool) -> anyhow::Result<Self> {
        let user = has_user.then(|| common_name(chain)).transpose()?;
        Ok(Self { chain: chain.iter().map(|one| one.clone().into_owned()).collect(), user })
    }
}

fn common_name(chain: &[CertificateDer<'_>]) -> anyhow::Result<Box<str>> {
    let certificate = chain.first().context("the client has no certificate")?;
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate)?;
    let name = certificate.subject().iter_common_name().next();
    let name = name.context("the certificate of the client has no common name")?;
    Ok(name.as_str().context("common name of the client")?.into())
}
