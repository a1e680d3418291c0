//! A lease's beats.

use std::time::{Duration, SystemTime};

use registry::store::{KeepAlive, LeaseId, Store, StoreError};
use tokio::time::{Instant, sleep, sleep_until};

use super::report::Reporter;

/// Renews `lease`, for the first time after a third of `ttl`, then every third of what the store grants, whatever else is
/// going on. Returns once it is gone, with the store's word for that. A beat that `may_beat` refuses is tried again a second later.
pub async fn beats<S: Store>(
    store: &S,
    lease: LeaseId,
    mut ttl: Duration,
    report: &Reporter,
    mut may_beat: impl FnMut() -> bool,
) -> StoreError {
    let mut next = Instant::now() + ttl / 3;
    loop {
        let fault = match store.keep_alive(lease).await {
            Ok(mut keeper) => loop {
                sleep_until(next).await;
                if !may_beat() {
                    next = Instant::now() + Duration::from_secs(1);
                    continue;
                }
                next = Instant::now() + ttl / 3;
                match keeper.beat().await {
                    Ok(granted) => {
                        ttl = granted;
                        report.metrics.beats.inc();
                        report.back();
                        report.update_quietly(|p| p.beat = Some(SystemTime::now()));
                    }
                    Err(e) => break e,
                }
            },
            Err(e) => e,
        };
        if fault.is_lease_lost() {
            return fault;
        }
        sleep(report.away(&fault)).await;
        next = Instant::now();
    }
}
