//! What the publisher tells the rest of the agent: a latest-value channel.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use common::backoff::Backoff;
use common::store::{Entry, LeaseId, Revision, StoreError};
use common::telemetry::Chain;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Registrations;
use crate::reporters::{Payload, Slot, Standing};

/// How far the publisher is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Without a lease: nothing of ours is in the registry, or it goes soon.
    #[default]
    NoLease,
    /// With a lease; not all that is desired is written.
    Granted,
    /// All that is desired is in the registry.
    Published,
}

impl Phase {
    /// The word used in status and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoLease => "no-lease",
            Self::Granted => "granted",
            Self::Published => "published",
        }
    }
}

/// Where the publisher stands.
#[derive(Debug, Clone, Default)]
pub struct Publication {
    /// How far it is.
    pub phase: Phase,
    /// The lease that it holds.
    pub lease: Option<LeaseId>,
    /// How long that lives after each beat.
    pub ttl: Duration,
    /// What the first claim found on the adopted lease; `None` until there was a claim.
    pub found: Option<Arc<[Entry]>>,
    /// What was last written in full.
    pub published: Option<Arc<Registrations>>,
    /// What was last written of services without Docker.
    pub slots: Arc<BTreeMap<Slot, Payload>>,
    /// Why the store does not serve at present, and since when.
    pub away: Option<(String, Instant)>,
    /// When the lease was last renewed.
    pub beat: Option<SystemTime>,
}

impl Publication {
    /// The same, as reporters say it.
    pub fn standing(&self) -> Standing {
        Standing {
            published: if self.lease.is_some() { BTreeMap::clone(&self.slots) } else { BTreeMap::new() },
            refused: BTreeMap::new(),
            session: self.lease.map(|lease| format!("lease {lease}")),
            away: self.away.clone(),
        }
    }
}

/// What the publisher counts.
#[derive(Debug, Clone, Default)]
pub struct PublishMetrics {
    /// Keys written.
    pub puts: Counter,
    /// Keys deleted.
    pub deletes: Counter,
    /// Calls of the store that failed.
    pub store_errors: Counter,
    /// Renewals of the lease.
    pub beats: Counter,
    /// Leases lost.
    pub lost: Counter,
    /// Keys found changed by somebody else, and written again.
    pub repairs: Counter,
    /// Keys that should be in the registry.
    pub keys: Gauge,
}

impl PublishMetrics {
    /// Under these names, with the prefix that `registry` gives.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("store_puts", "Keys written", self.puts.clone());
        registry.register("store_deletes", "Keys deleted", self.deletes.clone());
        registry.register("store_errors", "Calls of the registry that failed", self.store_errors.clone());
        registry.register("lease_beats", "Renewals of the lease", self.beats.clone());
        registry.register("leases_lost", "Leases that were lost", self.lost.clone());
        registry.register("store_repairs", "Keys changed by somebody else and written again", self.repairs.clone());
        registry.register("keys", "Keys that stand for the registrations", self.keys.clone());
    }
}

/// The publisher's end of the channel; its parts share it.
#[derive(Debug)]
pub(super) struct Reporter {
    out: watch::Sender<Publication>,
    backoff: Mutex<Backoff>,
    pub(super) metrics: PublishMetrics,
    pub(super) newest: Newest,
}

/// The newest revision that this agent knows of: new numbers lie above it, and a store that is below it was set back.
#[derive(Debug, Default)]
pub(super) struct Newest(AtomicI64);

impl Newest {
    pub(super) fn get(&self) -> Revision {
        Revision(self.0.load(Ordering::Relaxed))
    }

    /// A claim begins at this revision, which may lie below those before it.
    pub(super) fn set(&self, revision: Revision) {
        self.0.store(revision.0, Ordering::Relaxed);
    }

    /// Something was written at this revision.
    pub(super) fn raise(&self, revision: Revision) {
        self.0.fetch_max(revision.0, Ordering::Relaxed);
    }
}

impl Reporter {
    /// `longest` caps the wait between two tries while the store is away.
    pub(super) fn new(out: watch::Sender<Publication>, metrics: PublishMetrics, longest: Duration) -> Self {
        let backoff = Mutex::new(Backoff::new(Duration::from_millis(50), longest));
        Self { out, backoff, metrics, newest: Newest::default() }
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Publication)) {
        self.out.send_modify(change);
    }

    /// A change that nobody needs to be woken for.
    pub(super) fn update_quietly(&self, change: impl FnOnce(&mut Publication)) {
        self.out.send_if_modified(|publication| {
            change(publication);
            false
        });
    }

    /// A call failed: said once while it lasts. Returns how long to wait before the next.
    pub(super) fn away(&self, error: &StoreError) -> Duration {
        self.metrics.store_errors.inc();
        let chain = Chain(error).to_string();
        self.out.send_if_modified(|publication| {
            let news = publication.away.is_none();
            if news {
                warn!(error = %chain, "The registry does not serve; keeping everything and trying again.");
                publication.away = Some((chain, Instant::now()));
            }
            news
        });
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner).next_delay()
    }

    /// A call succeeded.
    pub(super) fn back(&self) {
        self.out.send_if_modified(|publication| match publication.away.take() {
            Some((_, since)) => {
                let away_s = since.elapsed().as_secs();
                info!(away_s, "The registry serves again.");
                self.backoff.lock().unwrap_or_else(PoisonError::into_inner).succeeded();
                true
            }
            None => false,
        });
    }
}
