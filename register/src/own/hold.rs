//! Keeps a registration under a lease of its own.

use std::convert::Infallible;
use std::time::Duration;

use agent::telemetry::Chain;
use registry::store::{KeyWatch, LeaseId, Store, StoreError, WatchStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use super::Registration;
use super::place::Place;
use crate::publish::beats::beats;
use crate::publish::report::{PublishMetrics, Reporter};

/// Keeps the key of `own` at what `wanted` holds (`None`: not there) under a lease that `held` tells; starts over when the lease is
/// lost. `told` hears each value that the registry has taken. Ends only where trying again is of no use from the start.
///
/// # Errors
/// A store that can never serve, as long as it never has.
pub async fn hold<S: Store>(
    store: &S,
    own: &Registration,
    mut wanted: watch::Receiver<Option<String>>,
    held: &watch::Sender<Option<LeaseId>>,
    mut told: impl FnMut(Option<&str>),
) -> Result<Infallible, StoreError> {
    let report = Reporter::new(watch::Sender::default(), PublishMetrics::default(), own.ttl / 3);
    let mut served = false;
    loop {
        let error = match lease(store, own.ttl, held).await {
            Ok((lease, left)) => tokio::select! {
                biased;
                gone = beats(store, lease, left, &report, || true) => gone,
                error = write(store, own, &mut wanted, lease, (&report, &mut served), &mut told) => error,
            },
            Err(e) => e,
        };
        if error.is_lease_lost() {
            held.send_replace(None);
            warn!(key = own.key, error = %Chain(&error), "Lease lost; registering again under a new one.");
        } else if !served && is_hopeless(&error) {
            return Err(error);
        } else {
            sleep(report.away(&error)).await;
        }
    }
}

fn is_hopeless(error: &StoreError) -> bool {
    error.is_fatal() || !error.is_retryable()
}

/// The lease that is held, or a new one, and how long it is known to live.
async fn lease<S: Store>(
    store: &S,
    ttl: Duration,
    held: &watch::Sender<Option<LeaseId>>,
) -> Result<(LeaseId, Duration), StoreError> {
    // A fault may have left the lease alive: it is used again.
    let known = *held.borrow();
    if let Some(lease) = known {
        return Ok((lease, Duration::ZERO));
    }
    let granted = store.grant(ttl).await?;
    held.send_replace(Some(granted.id));
    Ok((granted.id, granted.ttl))
}

/// Writes what changes, until the lease is lost, or it turns out that the store can never serve.
async fn write<S: Store>(
    store: &S,
    own: &Registration,
    wanted: &mut watch::Receiver<Option<String>>,
    lease: LeaseId,
    (report, served): (&Reporter, &mut bool),
    mut told: impl FnMut(Option<&str>),
) -> StoreError {
    loop {
        let heard = |value: Option<&str>| {
            *served = true;
            report.back();
            report.room();
            told(value);
        };
        let Err(error) = keep(store, own, wanted, lease, heard).await;
        if error.is_lease_lost() || (!*served && is_hopeless(&error)) {
            return error;
        }
        sleep(report.away(&error)).await;
    }
}

async fn keep<S: Store>(
    store: &S,
    own: &Registration,
    wanted: &mut watch::Receiver<Option<String>>,
    lease: LeaseId,
    told: impl FnMut(Option<&str>),
) -> Result<Infallible, StoreError> {
    let mut place = Place::new(store, &own.key, lease, told);
    let mut port = own.port.as_ref().map(|(key, text)| (Place::new(store, key, lease, |_| {}), text.as_str()));
    place.recall().await?;
    if let Some((port, _)) = &mut port {
        port.recall().await?;
    }
    let mut ears = store.watch_keys();
    loop {
        let value = wanted.borrow_and_update().clone();
        place.bring_to(value.as_deref()).await?;
        let (mut unheard, mut rest) = (Vec::from_iter(place.unheard(&ears)), place.rest());
        if let Some((port, text)) = &mut port {
            port.bring_to(value.is_some().then_some(*text)).await?;
            unheard.extend(port.unheard(&ears));
            rest = rest.into_iter().chain(port.rest()).min();
        }
        if !unheard.is_empty() {
            ears.add(unheard).await?;
        }
        tokio::select! {
            Ok(()) = wanted.changed() => {}
            () = sleep_until(rest.unwrap_or_else(Instant::now)), if rest.is_some() => {}
            news = ears.next() => match news {
                Ok(batch) => {
                    place.hear(&batch);
                    port.iter_mut().for_each(|(port, _)| port.hear(&batch));
                }
                Err(_) => {
                    // What stands there is read back; that says what ails the store, too.
                    ears = store.watch_keys();
                    place.look().await?;
                    if let Some((port, _)) = &mut port {
                        port.look().await?;
                    }
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Backend, Port, ValueFormat};
    use registry::store::{Entry, Op};
    use testing::fake::FakeStore;
    use tokio::time::timeout;

    use super::*;

    fn registration(port: Option<(&str, &str)>) -> Registration {
        let backend = Backend::new("a".parse().unwrap(), "10.0.0.1".parse().unwrap(), Port::new(1).unwrap());
        let port = port.map(|(key, says)| (key.to_owned(), says.to_owned()));
        let (key, ttl) = ("/backends/web/a".to_owned(), Duration::from_secs(6));
        Registration { key, backend, format: ValueFormat::Plain, ttl, port }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_lease_is_replaced_and_what_is_wanted_is_followed() {
        let store = FakeStore::new();
        let (held, lease) = watch::channel(None);
        let (want, wanted) = watch::channel(Some("h:1".to_owned()));
        let task = tokio::spawn({
            let store = store.clone();
            let own = registration(Some(("/backends/web/port", "80")));
            async move { hold(&store, &own, wanted, &held, |_| {}).await.map(|never| match never {}) }
        });
        let value = || store.entries("/backends/web/a").first().map(|e| String::from_utf8_lossy(&e.value).into_owned());
        let until = async |expected: Option<&str>| {
            let changed = async {
                while value().as_deref() != expected {
                    sleep(Duration::from_millis(50)).await;
                }
            };
            timeout(Duration::from_secs(60), changed).await.unwrap();
        };
        for _ in 0..3 {
            until(Some("h:1")).await;
            sleep(Duration::from_secs(60)).await;
            assert!(value().is_some(), "kept alive");
            store.expire(lease.borrow().unwrap());
            assert!(value().is_none());
        }
        until(Some("h:1")).await;
        want.send_replace(Some("h:1 draining".to_owned()));
        until(Some("h:1 draining")).await;
        want.send_replace(None);
        until(None).await;
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_services_port_is_beside_the_registration_and_shared_with_others() {
        let store = FakeStore::new();
        let (held, _lease) = watch::channel(None);
        let (want, wanted) = watch::channel(Some("h:1".to_owned()));
        let other = store.grant(Duration::from_secs(6)).await.unwrap().id;
        store.put_under("/backends/web/port", *b"80", other);
        let task = tokio::spawn({
            let store = store.clone();
            let own = registration(Some(("/backends/web/port", "81")));
            async move { hold(&store, &own, wanted, &held, |_| {}).await.map(|never| match never {}) }
        });
        let there = || {
            let shown = |e: &Entry| String::from_utf8_lossy(&e.value).into_owned();
            let mut values: Vec<_> = store.entries("/backends/web/").iter().map(shown).collect();
            values.sort();
            values
        };
        let until = async |expected: &[&str]| {
            let changed = async {
                while there() != *expected {
                    sleep(Duration::from_millis(50)).await;
                }
            };
            timeout(Duration::from_secs(60), changed).await.unwrap_or_else(|_| panic!("{:?}", there()));
        };
        until(&["80", "h:1"]).await;
        sleep(Duration::from_secs(7)).await;
        until(&["81", "h:1"]).await; // the other one's lease ran out
        store.txn(Vec::new(), vec![Op::delete("/backends/web/port")]).await.unwrap();
        until(&["81", "h:1"]).await;
        want.send_replace(None);
        until(&[]).await;
        task.abort();
    }
}
