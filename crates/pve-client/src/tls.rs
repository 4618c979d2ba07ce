//! Whom to trust: the system's roots, a CA file, a pinned certificate, or anybody.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

/// How a server proves that it is the right one.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The operating system's root certificates.
    System,
    /// One's own CA, for a PVE cluster `/etc/pve/pve-root-ca.pem`; the system's roots are not asked.
    CaFile(CaSource),
    /// Exactly these server certificates, whatever name and dates they carry. Every node has its own
    /// certificate, so several endpoints need several fingerprints.
    Fingerprint(Vec<Sha256Fingerprint>),
    /// Anybody. The credentials can be stolen by whoever sits in between; a warning is logged.
    Insecure,
}

/// Where the CA's certificates are.
#[derive(Debug, Clone)]
pub enum CaSource {
    /// A PEM file, read once.
    Path(PathBuf),
    /// PEM text.
    Pem(Vec<u8>),
}

/// The SHA-256 of a certificate's DER, written `AA:BB:…` as PVE shows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256Fingerprint([u8; 32]);

/// A text that is not a SHA-256 fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a SHA-256 fingerprint: 32 hexadecimal bytes separated by colons are expected (AA:BB:…), as \
     `pvenode cert info` or the certificate page of the web interface show"
)]
pub struct FingerprintParseError;

impl Sha256Fingerprint {
    /// The fingerprint of a certificate in DER.
    #[must_use]
    pub fn of(certificate_der: &[u8]) -> Self {
        Self(Sha256::digest(certificate_der).into())
    }
}

impl FromStr for Sha256Fingerprint {
    type Err = FingerprintParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        let mut parts = text.trim().split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or(FingerprintParseError)?;
            // `from_str_radix` alone would also take "+A".
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(FingerprintParseError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| FingerprintParseError)?;
        }
        if parts.next().is_some() {
            return Err(FingerprintParseError);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Sha256Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(":")?;
            }
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Sha256Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256Fingerprint({self})")
    }
}

/// The refusal of a certificate, carried through the TLS library to whoever words the error.
#[derive(Debug)]
pub(crate) enum CertificateRefused {
    /// It is none of the pinned ones.
    Mismatch { expected: Vec<Sha256Fingerprint>, presented: Sha256Fingerprint },
    /// The usual verification failed.
    Untrusted { cause: rustls::Error, presented: Sha256Fingerprint },
}

impl CertificateRefused {
    pub(crate) fn presented(&self) -> Sha256Fingerprint {
        match self {
            Self::Mismatch { presented, .. } | Self::Untrusted { presented, .. } => *presented,
        }
    }

    pub(crate) fn cause(&self) -> Option<&rustls::Error> {
        match self {
            Self::Mismatch { .. } => None,
            Self::Untrusted { cause, .. } => Some(cause),
        }
    }
}

impl fmt::Display for CertificateRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch { expected, presented } => {
                f.write_str("the server's certificate is not the pinned one: expected")?;
                for fingerprint in expected {
                    write!(f, " {fingerprint}")?;
                }
                write!(
                    f,
                    ", presented {presented}; if the certificate was renewed on purpose, pin the new one, \
                     else somebody is in between"
                )
            }
            Self::Untrusted { cause, presented } => {
                let mend = match cause {
                    rustls::Error::InvalidCertificate(
                        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                    ) => {
                        "it is for other names than the endpoint's: use a name or address that it carries, or pin it"
                    }
                    rustls::Error::InvalidCertificate(
                        CertificateError::Expired
                        | CertificateError::ExpiredContext { .. }
                        | CertificateError::NotValidYet
                        | CertificateError::NotValidYetContext { .. },
                    ) => {
                        "it is out of its dates: renew it (`pvecm updatecerts -f`), check this machine's clock, or pin it"
                    }
                    _ => {
                        "it is not signed by a trusted CA: set ca_file to the cluster's /etc/pve/pve-root-ca.pem, \
                         or fingerprint to the presented one after comparing it with the node's own (`pvenode cert info`)"
                    }
                };
                write!(f, "the server's certificate is not trusted; presented {presented}; {mend}")
            }
        }
    }
}

impl std::error::Error for CertificateRefused {}

/// Builds the TLS configuration.
///
/// # Errors
/// Says what is wrong with the CA file, or that the system has no root certificates.
pub(crate) fn client_config(trust: &Trust) -> Result<rustls::ClientConfig, String> {
    // Named here rather than taken from the process: a second provider somewhere in the program makes the
    // process default ambiguous, and rustls panics.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let check = match trust {
        Trust::System => Check::Roots(Arc::new(
            rustls_platform_verifier::Verifier::new(Arc::clone(&provider)).map_err(|error| {
                format!("the system's root certificates cannot be used: {error}; set ca_file or fingerprint")
            })?,
        )),
        Trust::CaFile(source) => Check::Roots(
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots(source)?), Arc::clone(&provider))
                .build()
                .map_err(|error| format!("the CA's certificates cannot be used: {error}"))?,
        ),
        Trust::Fingerprint(pins) if pins.is_empty() => return Err("no fingerprint is given".to_owned()),
        Trust::Fingerprint(pins) => Check::Pins(pins.clone()),
        Trust::Insecure => Check::Nothing,
    };
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { check, provider }))
        .with_no_client_auth();
    Ok(config)
}

fn roots(source: &CaSource) -> Result<RootCertStore, String> {
    let (pem, name) = match source {
        CaSource::Pem(pem) => (pem.clone(), "the CA text".to_owned()),
        CaSource::Path(path) => {
            let name = format!("CA file {}", path.display());
            let pem = std::fs::read(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
            (pem, name)
        }
    };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("{name} is not valid PEM: {error}"))?;
        store
            .add(certificate)
            .map_err(|error| format!("{name} holds a certificate that cannot be used: {error}"))?;
    }
    if store.is_empty() {
        return Err(format!("{name} holds no certificate; PEM is expected (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(store)
}

#[derive(Debug)]
enum Check {
    Roots(Arc<dyn ServerCertVerifier>),
    Pins(Vec<Sha256Fingerprint>),
    Nothing,
}

/// Checks the certificate as told, and in every case that the server holds its key.
#[derive(Debug)]
struct Verifier {
    check: Check,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = match &self.check {
            Check::Nothing => return Ok(ServerCertVerified::assertion()),
            Check::Pins(pins) => {
                let presented = Sha256Fingerprint::of(end_entity);
                if pins.contains(&presented) {
                    return Ok(ServerCertVerified::assertion());
                }
                CertificateRefused::Mismatch { expected: pins.clone(), presented }
            }
            Check::Roots(verifier) => {
                match verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                {
                    Ok(verified) => return Ok(verified),
                    Err(cause) => {
                        CertificateRefused::Untrusted { cause, presented: Sha256Fingerprint::of(end_entity) }
                    }
                }
            }
        };
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_in_either_case_and_written_in_upper_case() {
        let upper = Sha256Fingerprint::of(b"certificate").to_string();
        assert_eq!(upper.len(), 95);
        let lower: Sha256Fingerprint = upper.to_lowercase().parse().unwrap();
        assert_eq!(lower.to_string(), upper);
    }

    #[test]
    fn what_is_no_fingerprint_is_refused() {
        let good = Sha256Fingerprint::of(b"x").to_string();
        let sha1 = &good[..59];
        let long = format!("{good}:00");
        let signed = good.replacen(&good[..2], "+A", 1);
        for bad in ["", "AA", sha1, &long, &signed, &good.replace(':', ""), &good.replace(':', " ")] {
            assert_eq!(bad.parse::<Sha256Fingerprint>(), Err(FingerprintParseError), "{bad}");
        }
    }

    #[test]
    fn a_bad_ca_is_named() {
        let missing = Trust::CaFile(CaSource::Path("/nonexistent/ca.pem".into()));
        assert!(client_config(&missing).unwrap_err().contains("/nonexistent/ca.pem"));
        let empty = Trust::CaFile(CaSource::Pem(b"not PEM".to_vec()));
        assert!(client_config(&empty).unwrap_err().contains("holds no certificate"));
        let junk = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
        assert!(client_config(&Trust::CaFile(CaSource::Pem(junk))).unwrap_err().contains("cannot be used"));
        assert!(client_config(&Trust::Fingerprint(Vec::new())).is_err());
    }
}
