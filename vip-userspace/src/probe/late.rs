//! Answers that come after the time-out: they say why a server is late, which its time-out does not.
//! `/readyz` of an API server that has lost its etcd answers after two seconds, say.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::spawn;
use tokio::time::{Instant, timeout_at};

use super::answer::{Answer, Failed};

/// How long an answer is waited for beyond the time-out.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a late answer is reported.
const FRESH: Duration = Duration::from_secs(30);

/// Late answers of all nodes. One probe of each is waited for at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Late(Arc<Mutex<HashMap<IpAddr, Entry>>>);

#[derive(Debug, Default)]
struct Entry {
    waiting: bool,
    /// The last late answer, in words, and when it came.
    last: Option<(String, Instant)>,
}

impl Late {
    /// What a server said too late, if that was a moment ago.
    pub(super) fn of(&self, address: IpAddr) -> Option<String> {
        let entries = self.entries();
        let (text, at) = entries.get(&address)?.last.as_ref()?;
        (at.elapsed() < FRESH).then(|| text.clone())
    }

    /// The server answers in time.
    pub(super) fn forget(&self, address: IpAddr) {
        if let Some(entry) = self.entries().get_mut(&address) {
            entry.last = None;
        }
    }

    /// Waits in the background for what comes of a probe that has timed out, unless an earlier one
    /// of this server is waited for.
    pub(super) fn wait(
        &self,
        address: IpAddr,
        start: Instant,
        timeout: Duration,
        asking: impl Future<Output = Result<Answer, Failed>> + Send + 'static,
    ) {
        let mut entries = self.entries();
        let entry = entries.entry(address).or_default();
        if std::mem::replace(&mut entry.waiting, true) {
            return;
        }
        drop(entries);
        let late = self.clone();
        let limit = timeout + PATIENCE;
        drop(spawn(async move {
            let answer = timeout_at(start + limit, asking).await;
            let took = start.elapsed().as_secs_f64();
            let text = match answer {
                Ok(Ok(Answer::Ready)) => format!("answered after {took:.1}s: ready"),
                Ok(Ok(Answer::Unknown(said)) | Err(Failed { text: said, .. })) => {
                    format!("answered after {took:.1}s: {said}")
                }
                Err(_) => format!("an earlier one had no answer within {limit:?}"),
            };
            let mut entries = late.entries();
            let entry = entries.entry(address).or_default();
            *entry = Entry {
                waiting: false,
                last: Some((text, Instant::now())),
            };
        }));
    }

    /// A thread that panicked left a whole value.
    fn entries(&self) -> MutexGuard<'_, HashMap<IpAddr, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
