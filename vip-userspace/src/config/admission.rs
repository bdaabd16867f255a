//! Who may be a member of the cluster: what the configuration says of it, and in which words.

use serde::{Deserialize, Serialize};

use super::Config;
use crate::probe::Trust;

/// Who may be a member of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// The nodes of a list.
    List,
    /// Whoever has the key.
    Key,
    /// Whose API server shows a certificate of the cluster's.
    Certificate,
    /// Anybody.
    Anybody,
}

impl Admission {
    /// What a configuration says.
    #[must_use]
    pub const fn of(config: &Config) -> Self {
        match (&config.key_file, &config.health.tls) {
            _ if !config.nodes.is_empty() => Self::List,
            (Some(_), _) => Self::Key,
            (None, Trust::Insecure) => Self::Anybody,
            (None, Trust::WellKnownCa | Trust::Ca(_)) => Self::Certificate,
        }
    }

    /// Whether a hello that is believed is all that its sender needs.
    #[must_use]
    pub const fn is_by_hello(self) -> bool {
        matches!(self, Self::Key | Self::Anybody)
    }

    /// For people, in a few words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::List => "the nodes of the list",
            Self::Key => "whoever has the key",
            Self::Certificate => "whose API server has a certificate of the cluster",
            Self::Anybody => "anybody on the segment (`insecure`)",
        }
    }

    /// For people, as a sentence without its full stop. `api`: see [`Config::api_name`].
    #[must_use]
    pub fn sentence(self, api: &str) -> String {
        match self {
            Self::List => "the nodes of the list are the members".to_owned(),
            Self::Key => "a host that has the key may become a member".to_owned(),
            Self::Certificate => format!(
                "a host may become a member if its API server shows a certificate of the cluster's CA \
                 that names the host's own address and {api}"
            ),
            Self::Anybody => {
                "any host on the segment that runs an agent may become a member: there is no \
                              key, and certificates are not checked (`insecure`)"
                    .to_owned()
            }
        }
    }
}
