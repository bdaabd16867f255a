//! The TLS settings of probes, which follow the CA file on disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};

use super::insecure::BelieveAll;

/// Where the CA of the API servers' certificates lies: kubeadm, k0s, RKE2, k3s.
const WELL_KNOWN: &[&str] = &[
    "/etc/kubernetes/pki/ca.crt",
    "/var/lib/k0s/pki/ca.crt",
    "/var/lib/rancher/rke2/server/tls/server-ca.crt",
    "/var/lib/rancher/k3s/server/tls/server-ca.crt",
];

/// How an API server shows that it is one of the cluster's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// By the cluster's CA, where kubeadm, k0s, RKE2 or k3s keep it: the first that is there.
    WellKnownCa,
    /// By the CA certificates in a PEM file.
    Ca(PathBuf),
    /// Not at all: any host that answers counts as an API server.
    Insecure,
}

/// Makes the TLS settings, and keeps them while the CA file does not change.
#[derive(Debug)]
pub(super) struct Verification {
    trust: Trust,
    cached: Mutex<Option<Cached>>,
}

#[derive(Debug)]
struct Cached {
    /// What they were made from; `None` if they trust everybody.
    source: Option<Source>,
    /// The version of the client certificate, if there is one.
    version: Option<u64>,
    config: Arc<ClientConfig>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Source {
    path: PathBuf,
    modified: SystemTime,
    length: u64,
}

impl Source {
    fn look(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            modified: metadata.modified()?,
            length: metadata.len(),
        })
    }
}

/// What is found where the CA is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authority {
    /// Certificates, in this file.
    Read(PathBuf),
    /// No file yet; which.
    Missing(String),
    /// A file that is of no use; why.
    Wrong(String),
}

impl Trust {
    /// Looks at the CA file, for `vip check`. `None` if none is needed.
    #[must_use]
    pub fn check(&self) -> Option<Authority> {
        let path = match (self, self.source()) {
            (_, Ok(None)) => return None,
            (_, Ok(Some(source))) => source.path,
            // What cannot be looked at is not missing.
            (Self::Ca(path), Err(_)) if path.symlink_metadata().is_ok() => path.clone(),
            (_, Err(why)) => return Some(Authority::Missing(why)),
        };
        Some(match read(&path) {
            Ok(_) => Authority::Read(path),
            Err(why) => Authority::Wrong(why),
        })
    }

    /// The CA file as it is now; `None` if there is nothing to check.
    fn source(&self) -> Result<Option<Source>, String> {
        match self {
            Self::Insecure => Ok(None),
            Self::Ca(path) => Source::look(path)
                .map(Some)
                .map_err(|error| format!("no CA file yet: {}: {error}", path.display())),
            Self::WellKnownCa => WELL_KNOWN
                .iter()
                .find_map(|path| Source::look(Path::new(path)).ok())
                .map(Some)
                .ok_or_else(|| format!("no CA file yet: none of {}", WELL_KNOWN.join(", "))),
        }
    }
}

impl Verification {
    pub(super) fn new(trust: Trust) -> Self {
        Self {
            trust,
            cached: Mutex::new(None),
        }
    }

    /// The TLS settings, from the CA file as it is now, and with a client certificate of that
    /// version. The error is one line for people.
    pub(super) fn config(
        &self,
        certificate: Option<(&Arc<CertifiedKey>, u64)>,
    ) -> Result<Arc<ClientConfig>, String> {
        let source = self.trust.source()?;
        let version = certificate.map(|(_, version)| version);
        // A thread that panicked left a whole value or none.
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = &*cached
            && cached.source == source
            && cached.version == version
        {
            return Ok(Arc::clone(&cached.config));
        }
        let roots = source.as_ref().map(|source| read(&source.path));
        let config = settings(roots.transpose()?, certificate.map(|(pair, _)| pair))?;
        *cached = Some(Cached {
            source,
            version,
            config: Arc::clone(&config),
        });
        Ok(config)
    }

    /// How certificates are checked, for error messages.
    pub(super) fn describe(&self) -> String {
        match self.trust.source() {
            Ok(Some(source)) => format!("CA {}", source.path.display()),
            Ok(None) => "certificates are not checked".to_owned(),
            Err(reason) => reason,
        }
    }
}

/// TLS settings that check nothing and show nothing: to see whether anybody answers.
pub(super) fn unverified() -> Result<Arc<ClientConfig>, String> {
    settings(None, None)
}

/// TLS settings; without roots they accept every certificate.
fn settings(
    roots: Option<RootCertStore>,
    certificate: Option<&Arc<CertifiedKey>>,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?;
    let builder = match roots {
        Some(roots) => builder.with_root_certificates(roots),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(BelieveAll(provider))),
    };
    let mut config = match certificate {
        Some(pair) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(pair))))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Each probe proves anew who answers.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn read(path: &Path) -> Result<RootCertStore, String> {
    let failed = |error: &dyn std::fmt::Display| format!("CA file {}: {error}", path.display());
    let pem = fs::read(path).map_err(|error| failed(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| failed(&error))?;
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    if roots.is_empty() {
        return Err(failed(&"has no certificate in PEM format"));
    }
    Ok(roots)
}
