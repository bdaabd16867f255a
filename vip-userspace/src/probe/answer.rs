//! The answer of a server, and why there is none that counts.

/// What a server that serves has answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// It is ready.
    Ready,
    /// It does not say whether it is ready; in words.
    Unknown(String),
}

/// Why a probe failed: a code for metrics. The text of the [`Probe`](vip_node::health::Probe) has the
/// details.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The host answered with a TCP reset.
    Refused,
    /// There is no route to the host, or the host answered with an ICMP error.
    Unreachable,
    /// The TCP connection was not made in time.
    ConnectTimeout,
    /// The server took the connection, and sent no whole answer in time.
    AnswerTimeout,
    /// The CA file or the credentials could not be used: the server was not asked.
    Ca,
    /// The TLS handshake failed: the certificate, say.
    Tls,
    /// The connection ended before the answer, or the answer was not HTTP.
    Http,
    /// The answer had another status than 200, 401 or 403.
    Status,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Refused,
        Self::Unreachable,
        Self::ConnectTimeout,
        Self::AnswerTimeout,
        Self::Ca,
        Self::Tls,
        Self::Http,
        Self::Status,
    ];

    /// Name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::AnswerTimeout => "answer_timeout",
            Self::Ca => "ca",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Status => "status",
        }
    }

    /// The failure, with its details in one line for people.
    pub(super) fn because(self, text: impl Into<String>) -> Failed {
        Failed {
            why: self,
            text: text.into(),
        }
    }
}

/// A server is not ready.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) why: Failure,
    /// One line for people.
    pub(super) text: String,
}
