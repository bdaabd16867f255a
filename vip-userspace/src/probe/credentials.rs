//! The credentials that an API server is shown: a bearer token or a client
//! certificate, from files that rotate. Nothing here prints a secret.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::HeaderValue;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Where credentials are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Credentials {
    /// A bearer token, alone in a file.
    Token(PathBuf),
    /// A client certificate, with those between it and its CA, and its key; in PEM format.
    Certificate {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// The files were read, or what is wrong with them, in one line for people.
pub type News = Result<(), String>;

/// Longest token, in bytes. Those of service accounts have some 1,000.
const LONGEST_TOKEN: usize = 16 << 10;

/// Credentials as they were read.
#[derive(Clone)]
pub(super) enum Secret {
    /// The value of the header `Authorization`.
    Token(HeaderValue),
    /// The certificate and what proves that it is this program's.
    Certificate(Arc<CertifiedKey>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Credentials {
    /// Whether they can be read, for `vip check`.
    ///
    /// # Errors
    /// What is wrong with which file, in one line.
    pub fn check(&self) -> Result<(), String> {
        self.read().map(drop)
    }

    /// All their files.
    #[must_use]
    pub fn files(&self) -> Vec<&Path> {
        match self {
            Self::Token(path) => vec![path],
            Self::Certificate { certificate, key } => vec![certificate, key],
        }
    }

    fn read(&self) -> Result<Secret, String> {
        match self {
            Self::Token(path) => {
                let wrong =
                    |why: &dyn fmt::Display| format!("token file {}: {why}", path.display());
                let text = fs::read(path).map_err(|error| wrong(&error))?;
                let token = text.trim_ascii();
                if token.is_empty() {
                    return Err(wrong(&"is empty"));
                }
                if token.len() > LONGEST_TOKEN || !token.iter().all(u8::is_ascii_graphic) {
                    return Err(wrong(
                        &"is no token: must be one word of printable characters",
                    ));
                }
                let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat())
                    .map_err(|_| wrong(&"is no token"))?;
                value.set_sensitive(true);
                Ok(Secret::Token(value))
            }
            Self::Certificate { certificate, key } => {
                let wrong = |why: &dyn fmt::Display| {
                    format!("client certificate {}: {why}", certificate.display())
                };
                let wrong_key =
                    |why: &dyn fmt::Display| format!("client key {}: {why}", key.display());
                let pem = fs::read(certificate).map_err(|error| wrong(&error))?;
                let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
                    .collect::<Result<_, _>>()
                    .map_err(|_| wrong(&"is not in PEM format"))?;
                if chain.is_empty() {
                    return Err(wrong(&"has no certificate in PEM format"));
                }
                let pem = fs::read(key).map_err(|error| wrong_key(&error))?;
                // What a parser says of a key may quote it.
                let key = PrivateKeyDer::from_pem_slice(&pem)
                    .map_err(|_| wrong_key(&"has no private key in PEM format"))?;
                let pair = CertifiedKey::from_der(chain, key, &ring::default_provider())
                    .map_err(|_| wrong_key(&"does not fit the client certificate"))?;
                Ok(Secret::Certificate(Arc::new(pair)))
            }
        }
    }

    /// How a server was asked, for its refusal.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Token(path) => format!("with the token in {}", path.display()),
            Self::Certificate { certificate, .. } => {
                format!("with the certificate in {}", certificate.display())
            }
        }
    }
}

/// Tells one version of a file from the next.
type Stamp = (u64, u64, i64, i64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some((
        file.dev(),
        file.ino(),
        file.mtime(),
        file.mtime_nsec(),
        file.len(),
    ))
}

/// Credentials that follow their files. What could be read last is used until a newer version can
/// be read.
#[derive(Debug)]
pub(super) struct Store {
    credentials: Credentials,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The files as they were when they were last looked at; `None` before that.
    seen: Option<Vec<Option<Stamp>>>,
    secret: Option<Secret>,
    /// Counts the secrets, so that what is made of one is made once.
    version: u64,
    news: Option<News>,
}

impl Store {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            state: Mutex::default(),
        }
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// What to show now, if there is something, and its version.
    pub(super) fn secret(&self) -> (Option<Secret>, u64) {
        // A thread that panicked left a whole value.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let files = self.credentials.files().into_iter().map(stamp).collect();
        if state.seen.as_ref() != Some(&files) {
            state.seen = Some(files);
            match self.credentials.read() {
                Ok(secret) => {
                    state.secret = Some(secret);
                    state.version += 1;
                    state.news = Some(Ok(()));
                }
                Err(trouble) => {
                    let instead = match state.secret {
                        Some(_) => "those read before are used",
                        None => "servers are asked without",
                    };
                    state.news = Some(Err(format!("{trouble}; {instead}")));
                }
            }
        }
        (state.secret.clone(), state.version)
    }

    /// What the files' last change brought, once.
    pub(super) fn news(&self) -> Option<News> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.news.take()
    }
}
