//! Keeps watches of a real API server busy: writes an object twice a second, to whichever
//! server answers on its own address.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use hyper::{Method, StatusCode};

use crate::http::{Failure, Progress, Target, TargetArgs};

/// Arguments of `testbed background-writes`.
#[derive(Args, Debug)]
pub struct BackgroundWritesArgs {
    /// The servers' own addresses, not the VIP
    #[arg(long, value_delimiter = ',')]
    pub servers: Vec<SocketAddr>,
    /// Folder with the certificates
    #[arg(long)]
    pub pki: PathBuf,
    /// Bearer token to send
    #[arg(long)]
    pub token: Option<String>,
}

const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";
const OBJECT: &str = "/api/v1/namespaces/default/configmaps/background-writes";

async fn write(target: &Target, number: u64) -> Result<(), Failure> {
    let mut connection = target.connect(None, &mut Progress::default()).await?;
    let object = serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "background-writes" },
        "data": { "number": number.to_string() },
    })
    .to_string();
    let status = connection
        .send(Method::PUT, OBJECT, object.clone())
        .await?
        .status();
    if status.is_success() {
        return Ok(());
    }
    if status != StatusCode::NOT_FOUND {
        return Err(Failure::status(status));
    }
    let mut connection = target.connect(None, &mut Progress::default()).await?;
    let status = connection
        .send(Method::POST, COLLECTION, object)
        .await?
        .status();
    if status.is_success() {
        Ok(())
    } else {
        Err(Failure::status(status))
    }
}

/// Runs until the process is ended.
///
/// # Errors
/// The certificates cannot be read.
pub async fn run(args: BackgroundWritesArgs) -> Result<()> {
    let mut targets = Vec::new();
    for server in args.servers {
        targets.push(Target::new(&TargetArgs {
            target: server,
            pki: args.pki.clone(),
            token: args.token.clone(),
        })?);
    }
    let mut interval = tokio::time::interval(Duration::from_millis(500));
    for number in 0.. {
        interval.tick().await;
        for target in &targets {
            match tokio::time::timeout(Duration::from_secs(1), write(target, number)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => eprintln!("write {number}: {error}"),
                Err(_) => eprintln!("write {number}: no answer"),
            }
        }
    }
    Ok(())
}
