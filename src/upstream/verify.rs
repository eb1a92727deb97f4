//! Who is believed behind TLS where that is not decided by authorities.
//!
//! The other end always has to prove that it holds the key that it shows; whose key that
//! may be is the one question here.

use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use ring::digest::{SHA256, digest};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring::default_provider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use crate::server::Pin;

/// The key that was shown last.
pub(super) type Shown = Arc<Mutex<Option<Pin>>>;

/// A configuration that takes who has this key, or without one anybody, and notes whose key
/// that was.
pub(super) fn config(expected: Option<Pin>, shown: Shown) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(default_provider());
    let verifier = Verifier { expected, shown, provider: provider.clone() };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = builder.with_no_client_auth();
    // A session that is resumed shows no key.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The other end has another key than the one that is pinned.
#[derive(Debug)]
pub(super) struct OtherKey;

impl fmt::Display for OtherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another TLS key than the one that is pinned")
    }
}

impl Error for OtherKey {}

impl OtherKey {
    /// Whether this is what ended a handshake.
    pub(super) fn is(error: &rustls::Error) -> bool {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.0.is::<Self>(),
            _ => false,
        }
    }
}

struct Verifier {
    expected: Option<Pin>,
    shown: Shown,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({:?})", self.expected)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, &key).as_ref());
        let pin = Pin::from(bytes);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(pin);
        if self.expected.is_none_or(|it| it == pin) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::Other(rustls::OtherError(Arc::new(OtherKey))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
