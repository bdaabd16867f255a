//! A certificate authority for one run, and a certificate for each API server.
//!
//! Every server has its own: so a client knows from the TLS handshake which server it has
//! reached through the VIP, also if that is a real kube-apiserver.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A folder with `ca.crt`, and `NAME.crt` and `NAME.key` for each server. All keys are ECDSA
/// on P-256.
#[derive(Debug, Clone)]
pub struct Pki {
    directory: PathBuf,
}

impl Pki {
    /// A folder made earlier.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Makes the files. Each server's certificate holds for the VIPs and for its own addresses.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn create(
        directory: &Path,
        vips: &[IpAddr],
        servers: &[(&str, Vec<IpAddr>)],
    ) -> Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("create {}", directory.display()))?;
        let pki = Self::at(directory);
        let ca_key = KeyPair::generate().context("make the authority's key")?;
        let mut ca = CertificateParams::default();
        ca.distinguished_name
            .push(DnType::CommonName, "vip test authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = ca
            .self_signed(&ca_key)
            .context("sign the authority's certificate")?;
        write(&pki.ca(), &certificate.pem())?;
        let issuer = Issuer::new(ca, ca_key);
        for (name, addresses) in servers {
            let key = KeyPair::generate().context("make a server's key")?;
            let mut names: Vec<String> = vips.iter().map(ToString::to_string).collect();
            names.extend(addresses.iter().map(ToString::to_string));
            names.push("localhost".to_owned());
            let mut params = CertificateParams::new(names).context("name a server")?;
            params.distinguished_name.push(DnType::CommonName, *name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let certificate = params
                .signed_by(&key, &issuer)
                .context("sign a server's certificate")?;
            write(&pki.certificate(name), &certificate.pem())?;
            write(&pki.key(name), &key.serialize_pem())?;
        }
        // Signs the tokens of service accounts of a real API server.
        let key = KeyPair::generate().context("make the service accounts' key")?;
        write(&pki.key("service-accounts"), &key.serialize_pem())?;
        write(
            &directory.join("service-accounts.pub"),
            &key.public_key_pem(),
        )?;
        Ok(pki)
    }

    /// The folder.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Path of the authority's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// Path of a server's certificate.
    #[must_use]
    pub fn certificate(&self, server: &str) -> PathBuf {
        self.directory.join(format!("{server}.crt"))
    }

    /// Path of a server's key.
    #[must_use]
    pub fn key(&self, server: &str) -> PathBuf {
        self.directory.join(format!("{server}.key"))
    }

    /// TLS for a server.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn server_config(&self, server: &str) -> Result<ServerConfig> {
        let path = self.key(server);
        let key = PrivateKeyDer::from_pem_file(&path)
            .with_context(|| format!("read {}", path.display()))?;
        let chain = vec![read_certificate(&self.certificate(server))?];
        ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .context("the server's key does not fit its certificate")
    }

    /// TLS for a client. No session is resumed: each connection is a whole handshake, and
    /// shows the server's certificate.
    ///
    /// # Errors
    /// The authority's certificate cannot be read.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots
            .add(read_certificate(&self.ca())?)
            .context("use the authority's certificate")?;
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// Which certificate belongs to which server.
    ///
    /// # Errors
    /// The folder or a file in it cannot be read.
    pub fn servers(&self) -> Result<HashMap<Vec<u8>, String>> {
        let mut servers = HashMap::new();
        let entries = std::fs::read_dir(&self.directory)
            .with_context(|| format!("read {}", self.directory.display()))?;
        for entry in entries {
            let path = entry.context("read the folder of certificates")?.path();
            let is_server = path.extension().is_some_and(|e| e == "crt") && path != self.ca();
            if let (true, Some(name)) = (is_server, path.file_stem()) {
                servers.insert(
                    read_certificate(&path)?.to_vec(),
                    name.to_string_lossy().into_owned(),
                );
            }
        }
        Ok(servers)
    }
}

fn read_certificate(path: &Path) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(path).with_context(|| format!("read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
