//! `--announce`: this discover tells the registry that it is there, for `discover fleet`. One key under a lease of its own; after the first write only the
//! lease is renewed.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use agent::telemetry::Chain;
use agent::trouble::{News, Trouble};
use model::{NodeName, Prefix};
use registry::store::etcd::EtcdStore;
use registry::store::{KeepAlive as _, Key, Op, Store, StoreError};
use serde_json::json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long the key stays after a crash.
const TTL: Duration = Duration::from_secs(30);

/// Keeps the key until `cancel`, and removes it then. What fails is tried again.
pub(super) async fn announce(
    store: EtcdStore,
    prefix: Prefix,
    node: NodeName,
    cancel: CancellationToken,
) -> Result<(), Infallible> {
    let key: Key = prefix.discoverer(&node).into();
    let started = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let value = json!({"version": env!("CARGO_PKG_VERSION"), "started": started}).to_string();
    let mut trouble = Trouble::default();
    // It is not cut off at the end: it takes the key away then.
    while let Err(error) = keep(&store, &key, &value, &cancel, &mut trouble).await {
        if cancel.is_cancelled() {
            break; // the lease runs out
        }
        if trouble.fail(&Chain(&error).to_string()) != News::None {
            warn!(%key, error = %Chain(&error), "This discover is not announced; the next try follows.");
        }
        cancel.run_until_cancelled(sleep(TTL / 3)).await;
    }
    Ok(())
}

/// Writes the key and renews its lease until that fails or `cancel` comes.
async fn keep(
    store: &EtcdStore,
    key: &Key,
    value: &str,
    cancel: &CancellationToken,
    trouble: &mut Trouble,
) -> Result<(), StoreError> {
    let lease = store.grant(TTL).await?;
    let put = Op::put(key.clone(), value.as_bytes(), Some(lease.id));
    store.txn(Vec::new(), vec![put]).await?;
    trouble.end();
    let mut keeper = store.keep_alive(lease.id).await?;
    while cancel.run_until_cancelled(sleep(TTL / 3)).await.is_some() {
        keeper.beat().await?;
    }
    store.revoke(lease.id).await
}
