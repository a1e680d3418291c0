//! One registration with a lease of its own, for as long as a command runs: `put` and `exec`.

pub mod health;
pub mod replaced;

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use agent::telemetry::Chain;
use model::{
    Backend, BackendId, Host, Layout, Mode, NodeName, Port, Routes, ServiceName, SniNames, Status, ValueFormat, encode,
};
use registry::store::{
    Batch, Change, Compare, Entry, Key, KeyWatch, LeaseId, Op, Position, Revision, Store, StoreError, WatchStream,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use self::replaced::REPLACES;
use crate::cli::OwnArgs;
use crate::publish::beats::beats;
use crate::publish::fights::Fights;
use crate::publish::holders::Holders;
use crate::publish::ledger::{Finding, Ledger};
use crate::publish::report::{PublishMetrics, Reporter};

/// What is registered, and how.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Its key.
    pub key: String,
    /// What it says.
    pub backend: Backend,
    /// How it says it.
    pub format: ValueFormat,
    /// How long it outlives its holder.
    pub ttl: Duration,
}

impl Registration {
    /// The registration of `service` at `host` and `port` that the flags ask for.
    ///
    /// # Errors
    /// An id that cannot stand in a key; routes that cannot all be.
    pub fn new(
        service: &ServiceName,
        host: Host,
        port: Port,
        args: &OwnArgs,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let id = args.id.clone().unwrap_or_else(|| format!("{host}:{port}"));
        let id: BackendId = id.parse()?;
        let node = match &args.node_name {
            Some(node) => node.clone(),
            None => "-".parse::<NodeName>()?, // the service layout has no place for it
        };
        let key = args.etcd.etcd_prefix.backend(args.form.layout.into(), &node, service, &id);
        let (routes, left_out) = Routes::new(args.routes.routes());
        if let Some(why) = left_out.into_iter().next() {
            return Err(format!("--vhost: {why}").into());
        }
        if args.mode == Some(Mode::Tcp) && !routes.is_empty() {
            return Err("--vhost is for --mode http".into());
        }
        let (sni, left_out) = SniNames::new(args.routes.sni.iter().cloned());
        if let Some(why) = left_out.into_iter().next() {
            return Err(format!("--sni: {why}").into());
        }
        if args.mode == Some(Mode::Http) && !sni.is_empty() {
            return Err("--sni is for --mode tcp".into());
        }
        let asked = match (routes.is_empty(), sni.is_empty()) {
            (false, _) => Some(Mode::Http),
            (true, false) => Some(Mode::Tcp),
            (true, true) => None,
        };
        let backend = Backend {
            weight: args.weight,
            mode: args.mode.or(asked),
            routes,
            sni,
            service_port: args.service_port,
            labels: Arc::new(args.labels.iter().cloned().collect()),
            ..Backend::new(id, host, port)
        };
        Ok(Self { key, backend, format: args.form.value.into(), ttl: args.form.ttl })
    }

    /// The same registration, which takes the place of another one of its service.
    ///
    /// # Errors
    /// A form of value that has no room for it.
    pub fn replacing(mut self, id: &BackendId) -> Result<Self, &'static str> {
        if self.format == ValueFormat::Plain {
            return Err("--replaces needs --value json: a plain value has no room for it");
        }
        Arc::make_mut(&mut self.backend.labels).insert(REPLACES.to_owned(), id.to_string());
        Ok(self)
    }

    /// Below which keys the registrations of its service lie.
    pub fn siblings(&self, args: &OwnArgs) -> String {
        match (args.form.layout.into(), self.key.rsplit_once('/')) {
            (Layout::Service, Some((service, _))) => format!("{service}/"),
            _ => args.etcd.etcd_prefix.backends(),
        }
    }

    /// The value with this status; `None`: a form without room for it says it by having no key.
    pub fn value(&self, status: Status) -> Option<String> {
        if self.format == ValueFormat::Plain && status != Status::Up {
            return None;
        }
        Some(encode(&Backend { status, ..self.backend.clone() }, self.format))
    }
}

/// Keeps `key` at what `wanted` holds (`None`: not there) under a lease that `held` tells; starts over when the lease is
/// lost. `told` hears each value that the registry has taken. Ends only where trying again is of no use from the start.
///
/// # Errors
/// A store that can never serve, as long as it never has.
pub async fn hold<S: Store>(
    store: &S,
    (key, ttl): (&str, Duration),
    mut wanted: watch::Receiver<Option<String>>,
    held: &watch::Sender<Option<LeaseId>>,
    mut told: impl FnMut(Option<&str>),
) -> Result<Infallible, StoreError> {
    let report = Reporter::new(watch::Sender::default(), PublishMetrics::default(), ttl / 3);
    let mut served = false;
    loop {
        let error = match lease(store, ttl, held).await {
            Ok((lease, left)) => tokio::select! {
                biased;
                gone = beats(store, lease, left, &report) => gone,
                error = write(store, key, &mut wanted, lease, (&report, &mut served), &mut told) => error,
            },
            Err(e) => e,
        };
        if error.is_lease_lost() {
            held.send_replace(None);
            warn!(key, error = %Chain(&error), "Lease lost; registering again under a new one.");
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
    key: &str,
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
        let Err(error) = keep(store, key, wanted, lease, heard).await;
        if error.is_lease_lost() || (!*served && is_hopeless(&error)) {
            return error;
        }
        sleep(report.away(&error)).await;
    }
}

async fn keep<S: Store>(
    store: &S,
    key: &str,
    wanted: &mut watch::Receiver<Option<String>>,
    lease: LeaseId,
    told: impl FnMut(Option<&str>),
) -> Result<Infallible, StoreError> {
    let mut place = Place::new(store, key, lease, told);
    place.recall().await?;
    let mut ears = store.watch_keys();
    loop {
        let value = wanted.borrow_and_update().clone();
        place.bring_to(value.as_deref()).await?;
        if let Some(known) = place.listens(&ears) {
            ears.add(vec![known]).await?;
        }
        let rest = place.fights.until(&place.key, Instant::now());
        tokio::select! {
            Ok(()) = wanted.changed() => {}
            () = sleep_until(rest.unwrap_or_else(Instant::now)), if rest.is_some() => {}
            news = ears.next() => match news {
                Ok(batch) => place.hear(&batch),
                Err(_) => {
                    // What stands there is read back; that says what ails the store, too.
                    ears = store.watch_keys();
                    place.look().await?;
                }
            },
        }
    }
}

/// The key of one registration, as it is in the registry.
struct Place<'a, S, T> {
    store: &'a S,
    key: Key,
    lease: LeaseId,
    ledger: Ledger,
    cluster: u64,
    fights: Fights,
    /// What [`hold`]'s caller knows.
    said: Option<Option<String>>,
    told: T,
}

impl<'a, S: Store, T: FnMut(Option<&str>)> Place<'a, S, T> {
    fn new(store: &'a S, key: &str, lease: LeaseId, told: T) -> Self {
        let ledger = Ledger::new(lease, Vec::new(), Revision::default());
        Self { store, key: key.into(), lease, ledger, cluster: 0, fights: Fights::default(), said: None, told }
    }

    /// Writes or deletes the key where it is ours. A key of another holder is left alone until that one has gone.
    async fn bring_to(&mut self, value: Option<&str>) -> Result<(), StoreError> {
        self.ledger.want(|_| value.is_some());
        loop {
            if self.ledger.foreign().contains_key(&self.key) || self.fights.until(&self.key, Instant::now()).is_some() {
                return Ok(());
            }
            let there = self.ledger.published().remove(&self.key);
            let op = match (value, there) {
                (Some(value), Some(there)) if *there == *value.as_bytes() => break,
                (Some(value), _) => Op::put(self.key.clone(), value.as_bytes(), Some(self.lease)),
                (None, Some(_)) => Op::delete(self.key.clone()),
                (None, None) => break, // what was never there need not be deleted
            };
            let when = vec![self.ledger.guard(&op)];
            self.ledger.begin(&op);
            let outcome = self.store.txn(when, vec![op.clone()]).await?;
            self.cluster = outcome.at.cluster;
            if outcome.succeeded {
                self.ledger.done(&op, outcome.at.revision);
                match &value {
                    Some(value) => info!(key = %self.key, %value, lease = %self.lease, "Registered."),
                    None => info!(key = %self.key, reason = "check_fails", "Withdrawn."),
                }
            } else {
                self.see(outcome.found.first(), outcome.at.revision, false);
            }
        }
        if self.said.as_ref().map(Option::as_deref) != Some(value) {
            (self.told)(value);
            self.said = Some(value.map(str::to_owned));
        }
        Ok(())
    }

    fn see(&mut self, entry: Option<&Entry>, at: Revision, whole: bool) {
        let lease = entry.and_then(|entry| entry.lease);
        match self.ledger.saw(&self.key.clone(), entry, at, whole) {
            Finding::Same | Finding::Freed => {}
            Finding::Taken => {
                let holder = Holders::default().describe(lease);
                warn!(key = %self.key, "Not registered: the key {holder}. It is registered once that one leaves it; another --id avoids it.");
            }
            Finding::Deleted | Finding::Changed(_) => {
                let Some(pause) = self.fights.struck(&self.key, Instant::now()) else { return };
                let pause_s = pause.as_secs();
                let by = Holders::default().writer(lease);
                warn!(key = %self.key, by, pause_s, "Somebody else changed or deleted this key; it is written again.");
            }
        }
    }

    /// What is to be listened to, if that is not done yet.
    fn listens(&self, ears: &impl KeyWatch) -> Option<(Key, Position)> {
        let (key, revision) = self.ledger.watched().next().filter(|(key, _)| !ears.has(key))?;
        Some((key.clone(), Position { cluster: self.cluster, revision }))
    }

    fn hear(&mut self, batch: &Batch) {
        for change in &batch.changes {
            let entry = match change {
                Change::Put(entry) => Some(entry),
                Change::Delete { .. } => None,
            };
            self.see(entry, change.revision(), true);
        }
    }

    /// Finds what a fault before left under this lease.
    async fn recall(&mut self) -> Result<(), StoreError> {
        let outcome = self.store.txn(vec![Compare::Absent(self.key.clone())], Vec::new()).await?;
        if let Some(entry) = outcome.found.first().filter(|entry| entry.lease == Some(self.lease)) {
            self.see(Some(entry), outcome.at.revision, false);
        }
        Ok(())
    }

    /// Reads back what was written.
    async fn look(&mut self) -> Result<(), StoreError> {
        let outcome = self.store.txn(self.ledger.intact(), Vec::new()).await?;
        match (outcome.succeeded, self.ledger.intact().first()) {
            (true, Some(condition)) => self.ledger.confirm(condition, outcome.at.revision),
            (true, None) => {}
            (false, _) => self.see(outcome.found.first(), outcome.at.revision, false),
        }
        Ok(())
    }
}

/// Takes the registration back: it drains, it goes, and its lease ends. Nothing is touched that is not under `lease`.
///
/// Readers take keys that vanish with their lease for a holder that died.
///
/// # Errors
/// A store that does not answer.
pub async fn leave<S: Store>(store: &S, own: &Registration, lease: LeaseId) -> Result<(), StoreError> {
    let key = Key::from(own.key.as_str());
    let ours = || vec![Compare::LeaseIs(key.clone(), lease)];
    if let Some(goodbye) = own.value(Status::Draining) {
        store.txn(ours(), vec![Op::put(key.clone(), goodbye.as_bytes(), Some(lease))]).await?;
    }
    store.txn(ours(), vec![Op::delete(key.clone())]).await?;
    store.revoke(lease).await
}

#[cfg(test)]
mod tests {
    use testing::fake::FakeStore;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lost_lease_is_replaced_and_what_is_wanted_is_followed() {
        let store = FakeStore::new();
        let (held, lease) = watch::channel(None);
        let (want, wanted) = watch::channel(Some("h:1".to_owned()));
        let task = tokio::spawn({
            let store = store.clone();
            let place = ("/backends/web/a", Duration::from_secs(6));
            async move { hold(&store, place, wanted, &held, |_| {}).await.map(|never| match never {}) }
        });
        let value = || store.entries("/backends/").first().map(|e| String::from_utf8_lossy(&e.value).into_owned());
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
}
