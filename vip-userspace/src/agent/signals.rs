//! The signals that an operator, a supervisor or a terminal sends. None ends the agent without a
//! handover, as the default of all of them would.

use std::pin::Pin;

use anyhow::Context as _;
use futures_util::stream::{SelectAll, Stream};
use futures_util::{StreamExt as _, stream};
use tokio::signal::unix::{SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// To hand the VIP over and end.
    End,
    /// To read the configuration again. It also comes from a terminal that is closed.
    Reload,
    /// Nothing that the agent can do; the signal's name.
    Nothing(&'static str),
}

/// Those that were caught, as they come.
pub(super) struct Signals(SelectAll<Pin<Box<dyn Stream<Item = Asked>>>>);

impl Signals {
    /// Catches them from now on. SIGPIPE is ignored by Rust's runtime already.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn catch() -> anyhow::Result<Self> {
        let mut all = SelectAll::new();
        for (kind, name, asked) in [
            (SignalKind::terminate(), "SIGTERM", Asked::End),
            (SignalKind::interrupt(), "SIGINT", Asked::End),
            (SignalKind::quit(), "SIGQUIT", Asked::End),
            (SignalKind::hangup(), "SIGHUP", Asked::Reload),
            (
                SignalKind::user_defined1(),
                "SIGUSR1",
                Asked::Nothing("SIGUSR1"),
            ),
            (
                SignalKind::user_defined2(),
                "SIGUSR2",
                Asked::Nothing("SIGUSR2"),
            ),
        ] {
            let mut caught = signal(kind).with_context(|| format!("cannot catch {name}"))?;
            let comes = stream::poll_fn(move |context| {
                caught.poll_recv(context).map(|come| come.map(|()| asked))
            });
            all.push(comes.boxed_local());
        }
        Ok(Self(all))
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Asked {
        match self.0.next().await {
            Some(asked) => asked,
            // They come for as long as the process lives.
            None => std::future::pending().await,
        }
    }
}
