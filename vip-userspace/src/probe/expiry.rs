//! When the servers' certificates expire.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The last certificate of each server. A server shows the same one for months, so it is parsed once.
#[derive(Debug, Default)]
pub(super) struct Expiries(Mutex<HashMap<IpAddr, Shown>>);

#[derive(Debug)]
struct Shown {
    certificate: CertificateDer<'static>,
    not_after: Option<i64>,
}

impl Expiries {
    /// A server has shown this certificate.
    pub(super) fn note(&self, address: IpAddr, certificate: &CertificateDer<'_>) {
        let mut all = self.all();
        let is_known = |shown: &Shown| shown.certificate.as_ref() == certificate.as_ref();
        if !all.get(&address).is_some_and(is_known) {
            let shown = Shown {
                not_after: not_after(certificate),
                certificate: certificate.clone().into_owned(),
            };
            all.insert(address, shown);
        }
    }

    /// Until when the last certificate of a server is valid, in seconds since 1970; `None` while it
    /// has shown none that can be read.
    pub(super) fn of(&self, address: IpAddr) -> Option<i64> {
        self.all().get(&address)?.not_after
    }

    /// A thread that panicked left a whole value.
    fn all(&self) -> MutexGuard<'_, HashMap<IpAddr, Shown>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}
