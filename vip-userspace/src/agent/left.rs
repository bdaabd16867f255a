//! An agent whose node has left the cluster. It has taken everything off the machine, and waits for its
//! end: the kubelet or systemd would start one that ended anew, which would join again.

use tokio::spawn;
use tokio::sync::mpsc;

use super::event_loop::Rest;
use super::requests::{hear, remove_socket};
use super::signals::Asked;
use super::traces::undo;
use crate::config::Config;

/// What is said to whoever asks.
const LEFT: &str = "this node has left the cluster: remove the static pod or disable the unit, or start \
                    the agent anew to join again";

/// Takes everything off the machine, and waits to be told to end.
pub(super) async fn rest(config: &Config, rest: Rest) {
    undo(config).await;
    tracing::info!("{LEFT}");
    let Rest {
        mut signals,
        socket,
    } = rest;
    let (requests, mut asked) = mpsc::channel(16);
    loop {
        tokio::select! {
            biased;
            asked = signals.next() => match asked {
                Asked::End => break,
                Asked::Reload | Asked::Nothing(_) => {}
            },
            Ok((stream, _)) = socket.accept() => {
                drop(spawn(hear(stream, requests.clone())));
            }
            Some((_, asker)) = asked.recv() => {
                drop(spawn(asker.refuse(LEFT.to_owned())));
            }
        }
    }
    remove_socket(&config.run_dir);
}
