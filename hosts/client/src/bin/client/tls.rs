//! The TLS flags.

use crate::options::ConnectOptions;
use anyhow::{Context as _, Result, ensure};
use mqtt_sansio_client::rustls::client::WebPkiServerVerifier;
use mqtt_sansio_client::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use mqtt_sansio_client::rustls::pki_types::pem::PemObject as _;
use mqtt_sansio_client::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use mqtt_sansio_client::rustls::{
    ALL_VERSIONS, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, crypto::ring, version,
};
use std::path::Path;
use std::sync::Arc;

/// Returns the configuration of TLS, with the authorities of the system unless others are named.
pub(crate) fn config(options: &ConnectOptions) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    if let Some(file) = &options.cafile {
        for certificate in certificates(file)? {
            roots.add(certificate).with_context(|| format!("cannot use {}", file.display()))?;
        }
    }
    if let Some(folder) = &options.capath {
        let files = std::fs::read_dir(folder);
        for file in files.with_context(|| format!("cannot read {}", folder.display()))? {
            // The folder can have other files, as that of the system does.
            let found = certificates(&file?.path()).unwrap_or_default();
            roots.add_parsable_certificates(found);
        }
    }
    if options.tls_use_os_certs || options.cafile.is_none() && options.capath.is_none() {
        let found = rustls_native_certs::load_native_certs();
        found.errors.iter().for_each(|error| tracing::warn!("{error}"));
        roots.add_parsable_certificates(found.certs);
    }
    ensure!(!roots.is_empty(), "expected --cafile, because the system trusts no authority");
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let verifier: Arc<dyn ServerCertVerifier> =
        if options.insecure { Arc::new(AnyName(verifier)) } else { verifier };
    let (old, new) = ([&version::TLS12], [&version::TLS13]);
    let versions = match options.tls_version.as_deref() {
        Some("tlsv1.2") => &old[..],
        Some("tlsv1.3") => &new[..],
        _ => ALL_VERSIONS,
    };
    // A verifier of any kind has to be set in this way.
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let reads = || format!("cannot read {}", key.display());
            let private = PrivateKeyDer::from_pem_file(key).with_context(reads)?;
            config.with_client_auth_cert(certificates(cert)?, private)?
        }
        _ => config.with_no_client_auth(),
    };
    config.alpn_protocols = options.tls_alpn.iter().map(|name| name.clone().into_bytes()).collect();
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let reads = || format!("cannot read certificates from {}", file.display());
    let certificates = CertificateDer::pem_file_iter(file).with_context(reads)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().with_context(reads)?;
    ensure!(!certificates.is_empty(), "expected certificates in {}", file.display());
    Ok(certificates)
}

/// The verifier of `--insecure`: the certificate must be valid, for any name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is checked last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
