//! TLS as every connection uses it: 1.3 only, both ends with certificates of the cluster's authority, nothing remembered.
//!
//! The crypto provider is named explicitly, so that another one in the dependency tree changes nothing. There is no 0-RTT
//! (a replayed submission would run twice) and no session resumption (every connection shows its certificate again).

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use crate::authority::{AuthorityHash, hash_of};
use crate::identity::Identity;
use crate::plane::Plane;

/// AES-128-GCM first: the fastest of the three with the instructions processors have for it.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = vec![
        rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        rustls::crypto::ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        rustls::crypto::ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

fn roots(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(|error| error.to_string())?;
    Ok(Arc::new(roots))
}

/// For accepting connections on `planes`. A certificate is demanded, except that the join plane has nodes without one; the
/// endpoint refuses them on every other plane.
pub(crate) fn server(identity: &Identity, planes: &[Plane]) -> Result<Arc<QuicServerConfig>, String> {
    let provider = provider();
    let mut verifier = WebPkiClientVerifier::builder_with_provider(roots(identity.authority())?, Arc::clone(&provider));
    if planes.contains(&Plane::Join) {
        verifier = verifier.allow_unauthenticated();
    }
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain(), PrivateKeyDer::from(identity.key()))
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = planes.iter().map(|plane| plane.protocol().as_bytes().to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(QuicServerConfig::try_from(config).map_err(|error| error.to_string())?))
}

/// For connecting on `plane` with a certificate.
pub(crate) fn client(identity: &Identity, plane: Plane) -> Result<Arc<QuicClientConfig>, String> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(identity.authority())?)
        .with_client_auth_cert(identity.chain(), PrivateKeyDer::from(identity.key()))
        .map_err(|error| error.to_string())?;
    finish_client(config, plane)
}

/// For joining: no certificate to show, and the authority is known only by the hash in the token.
pub(crate) fn joining(authority: AuthorityHash) -> Result<Arc<QuicClientConfig>, String> {
    let provider = provider();
    let verifier = PinnedAuthority { authority, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    finish_client(config, Plane::Join)
}

fn finish_client(mut config: ClientConfig, plane: Plane) -> Result<Arc<QuicClientConfig>, String> {
    config.alpn_protocols = vec![plane.protocol().as_bytes().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(QuicClientConfig::try_from(config).map_err(|error| error.to_string())?))
}

/// Accepts a server whose chain contains the authority with the right hash and is signed by it. Everything after the search
/// for that certificate is the ordinary verification.
#[derive(Debug)]
struct PinnedAuthority {
    authority: AuthorityHash,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = intermediates.iter().find(|certificate| hash_of(certificate) == self.authority).ok_or_else(unknown)?;
        let roots = roots(&authority.clone().into_owned()).map_err(|_| unknown())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A client that trusts the authority and shows nothing: what a stranger with a copy of the certificate could run.
#[cfg(test)]
pub(crate) fn test_client_without_certificate(authority: &crate::Authority, plane: Plane) -> Arc<QuicClientConfig> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots(authority.certificate()).unwrap())
        .with_no_client_auth();
    finish_client(config, plane).unwrap()
}
