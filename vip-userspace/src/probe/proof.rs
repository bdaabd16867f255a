//! Whether a host may become a member, where the agents share no key: its API server shows a
//! certificate of the cluster's CA that names the host's own address, and what the cluster's API is
//! reached by.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::trust::{Trust, Verification};
use crate::config::Config;

/// Longest time for a proof. It is asked for again with the host's next hello.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a host is to prove.
#[derive(Debug)]
pub struct Wanted {
    server: SocketAddr,
    trust: Trust,
    /// The VIP, or the name that is configured instead.
    api: ServerName<'static>,
}

impl Wanted {
    /// What the host with this address is to prove.
    #[must_use]
    pub fn of(config: &Config, address: IpAddr) -> Self {
        let vip = config.vip();
        let port = vip.services.first().map_or(0, |service| service.target);
        let by_address = || ServerName::IpAddress(vip.address.into());
        let name = config.members.api_name.clone();
        let by_name = name.and_then(|name| ServerName::try_from(name).ok());
        Self {
            server: SocketAddr::new(address, port),
            trust: config.health.tls.clone(),
            api: by_name.unwrap_or_else(by_address),
        }
    }

    /// Asks the host's API server.
    ///
    /// # Errors
    /// What it has not proved, and why: one line for people.
    pub async fn ask(self) -> Result<(), String> {
        let asking = async {
            let own = ServerName::IpAddress(self.server.ip().into());
            self.shows(own).await?;
            self.shows(self.api.clone()).await
        };
        let asked = timeout(PATIENCE, asking).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
    }

    /// Whether it shows a certificate for this name.
    async fn shows(&self, name: ServerName<'static>) -> Result<(), String> {
        // As it is now: before `kubeadm join` there is none.
        let verification = Verification::new(self.trust.clone());
        let connector = TlsConnector::from(verification.config(None)?);
        let tcp = TcpStream::connect(self.server)
            .await
            .map_err(|error| error.to_string())?;
        let wanted = name.to_str().into_owned();
        match connector.connect(name, tcp).await {
            Ok(_) => Ok(()),
            Err(error) => Err(format!(
                "no certificate for {wanted}: {error} ({})",
                verification.describe()
            )),
        }
    }
}
