//! The cluster's own certification authority and the nodes' certificates.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use crate::SimError;
use crate::world::fingerprint;

/// A certification authority that lives as long as the server.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, for clients to trust.
    pub pem: String,
}

/// A node's identity.
pub(crate) struct Identity {
    pub acceptor: TlsAcceptor,
    pub pem: String,
    /// SHA-256 of the certificate, in PVE's spelling.
    pub fingerprint: String,
}

impl Authority {
    pub fn new(cluster: &str) -> Result<Self, SimError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Proxmox Virtual Environment");
        params.distinguished_name.push(DnType::OrganizationalUnitName, cluster);
        params.distinguished_name.push(DnType::OrganizationName, "PVE Cluster Manager CA");
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Issues a node's certificate for its name, `localhost`, loopback and the address that it listens on.
    pub fn issue(&self, node: &str, address: IpAddr) -> Result<Identity, SimError> {
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        names.extend([node.to_owned(), address.to_string()]);
        names.sort_unstable();
        names.dedup();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::OrganizationalUnitName, "PVE Cluster Node");
        params.distinguished_name.push(DnType::OrganizationName, "Proxmox Virtual Environment");
        params.distinguished_name.push(DnType::CommonName, node);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| SimError::Key)?;
        // The provider is named rather than installed: the process may have another default.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)?;
        Ok(Identity {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            pem: certificate.pem(),
            fingerprint: fingerprint(certificate.der()),
        })
    }
}
