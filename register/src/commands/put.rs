//! `register put`: one registration, with a lease of its own, for as long as the command runs.

use std::convert::Infallible;
use std::time::Duration;

use common::backoff::Backoff;
use common::lifecycle::Lifecycle;
use common::model::{Backend, BackendId, Host, NodeName, Port, encode};
use common::store::etcd::EtcdStore;
use common::store::{KeepAlive, LeaseId, Op, Store, StoreError};
use common::telemetry::Chain;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{Failure, print};
use crate::cli::PutArgs;

/// What is registered.
struct Registration {
    key: String,
    value: String,
    ttl: Duration,
}

/// Registers until a signal comes, then deletes.
///
/// # Errors
/// Wrong arguments; at the end a registry that does not answer.
pub async fn put(args: &PutArgs) -> Result<(), Failure> {
    let registration = registration(args)?;
    let config = args.etcd.config_for_lease(args.form.ttl).map_err(Failure::usage)?;
    let store = EtcdStore::new(config);
    let mut lifecycle = Lifecycle::new();
    lifecycle.listen().map_err(Failure::runtime)?;
    let cancel = lifecycle.token();
    let (lease, held) = watch::channel(None);
    let hold = cancel.run_until_cancelled(Box::pin(hold(&store, &registration, lease)));
    if let Some(Err(e)) = hold.await {
        return Err(Failure::runtime(e));
    }
    let lease = *held.borrow();
    match lease {
        Some(lease) => store.revoke(lease).await.map_err(Failure::runtime),
        None => Ok(()),
    }
}

fn registration(args: &PutArgs) -> Result<Registration, Failure> {
    let wrong = |why: String| Failure::usage(format!("{:?} is not HOST:PORT: {why}", args.address));
    let (host, port) = args.address.rsplit_once(':').ok_or_else(|| wrong("the port is missing".into()))?;
    let host: Host = host.parse().map_err(|e: common::model::HostError| wrong(e.to_string()))?;
    let port: Port = port.parse().map_err(|_| wrong(format!("port {port:?} is not between 1 and 65535")))?;
    let id = args.id.clone().unwrap_or_else(|| format!("{host}:{port}"));
    let id: BackendId = id.parse().map_err(Failure::usage)?;
    let node = match &args.node_name {
        Some(node) => node.clone(),
        None => "-".parse::<NodeName>().map_err(Failure::usage)?, // the service layout has no place for it
    };
    let key = args.etcd.etcd_prefix.backend(args.form.layout.into(), &node, &args.service, &id);
    let value = encode(&Backend::new(id, host, port), args.form.value.into());
    Ok(Registration { key, value, ttl: args.form.ttl })
}

/// Grants, puts and renews; starts over when the lease is lost. Ends only where trying again is of no use.
async fn hold<S: Store>(
    store: &S,
    registration: &Registration,
    held: watch::Sender<Option<LeaseId>>,
) -> Result<Infallible, StoreError> {
    let mut backoff = Backoff::new(Duration::from_millis(100), registration.ttl / 3);
    let mut served = false;
    loop {
        let error = match once(store, registration, &held, &mut served).await {
            Ok(never) => match never {},
            Err(e) => e,
        };
        if !served && (error.is_fatal() || !error.is_retryable()) {
            return Err(error);
        }
        warn!(error = %Chain(&error), "The registration may be lost; registering again.");
        sleep(backoff.next_delay()).await;
    }
}

async fn once<S: Store>(
    store: &S,
    registration: &Registration,
    held: &watch::Sender<Option<LeaseId>>,
    served: &mut bool,
) -> Result<Infallible, StoreError> {
    // A fault may have left the lease alive: it is used again.
    let known = *held.borrow();
    let lease = match known {
        Some(lease) => lease,
        None => store.grant(registration.ttl).await?.id,
    };
    held.send_replace(Some(lease));
    let kept = keep(store, registration, lease, served).await;
    if kept.as_ref().is_err_and(StoreError::is_lease_lost) {
        held.send_replace(None);
    }
    kept
}

async fn keep<S: Store>(
    store: &S,
    registration: &Registration,
    lease: LeaseId,
    served: &mut bool,
) -> Result<Infallible, StoreError> {
    let Registration { key, value, .. } = registration;
    store.txn(Vec::new(), vec![Op::put(key.as_str(), value.as_bytes(), Some(lease))]).await?;
    info!(%key, %value, %lease, "Registered.");
    if !std::mem::replace(served, true) && print(&format!("{key} {value}\n")).is_err() {
        warn!("Standard output is closed.");
    }
    let mut keeper = store.keep_alive(lease).await?;
    loop {
        let ttl = keeper.beat().await?;
        sleep(ttl / 3).await;
    }
}

#[cfg(test)]
mod tests {
    use common::store::fake::FakeStore;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lost_lease_is_replaced() {
        let store = FakeStore::new();
        let (held, lease) = watch::channel(None);
        let task = tokio::spawn({
            let store = store.clone();
            let registration =
                Registration { key: "/backends/web/a".into(), value: "h:1".into(), ttl: Duration::from_secs(6) };
            async move { hold(&store, &registration, held).await.map(|never| match never {}) }
        });
        let present = || !store.entries("/backends/").is_empty();
        for _ in 0..3 {
            timeout(Duration::from_secs(60), async {
                while !present() {
                    sleep(Duration::from_millis(50)).await;
                }
            })
            .await
            .unwrap();
            sleep(Duration::from_secs(60)).await;
            assert!(present(), "kept alive");
            store.expire(lease.borrow().unwrap());
            assert!(!present());
        }
        task.abort();
    }
}
