//! What the publisher tells the rest of the agent: a latest-value channel.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use agent::backoff::Backoff;
use agent::sync::lock;
use agent::telemetry::Chain;
use agent::trouble::{News, Trouble};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use registry::store::{Entry, Key, LeaseId, Revision, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::slots::{Payload, Slot};
use super::{Refusal, Registrations};

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
    /// What was last written in full, without what is refused.
    pub published: Option<Arc<Registrations>>,
    /// Wanted keys that belong to somebody else; what stands for them is not published.
    pub refused: Arc<BTreeMap<Key, Refusal>>,
    /// What was last written of services without Docker.
    pub slots: Arc<BTreeMap<Slot, Payload>>,
    /// Why the store does not serve at present, and since when.
    pub away: Option<(String, Instant)>,
    /// What the store said when it had no room for a write, and since when. All else goes on.
    pub full: Option<(String, Instant)>,
    /// The other agent of this name that is waited for, as a sentence with its remedy, and since when.
    pub rival: Option<(String, Instant)>,
    /// When the lease was last renewed.
    pub beat: Option<SystemTime>,
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
    /// Wanted keys that belong to somebody else.
    pub refused: Gauge,
    /// Whether the registry has no room.
    pub full: Gauge,
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
        let full = "1 while the registry takes no writes for want of room (etcd's alarm NOSPACE)";
        registry.register("store_full", full, self.full.clone());
        let refused = "Registrations that are not published, since their key belongs to somebody else";
        registry.register("keys_refused", refused, self.refused.clone());
        registry.register("keys", "Keys that stand for the registrations", self.keys.clone());
    }
}

/// The publisher's end of the channel; its parts share it.
#[derive(Debug)]
pub(crate) struct Reporter {
    out: watch::Sender<Publication>,
    backoff: Mutex<Backoff>,
    trouble: Mutex<Trouble>,
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
    pub(crate) fn new(out: watch::Sender<Publication>, metrics: PublishMetrics, longest: Duration) -> Self {
        let backoff = Mutex::new(Backoff::new(Duration::from_millis(50), longest));
        Self { out, backoff, trouble: Mutex::default(), metrics, newest: Newest::default() }
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Publication)) {
        self.out.send_modify(change);
    }

    /// The same, and nobody is woken where it is no news.
    pub(crate) fn update_if(&self, is_news: impl Fn(&Publication) -> bool, change: impl FnOnce(&mut Publication)) {
        self.out.send_if_modified(|publication| {
            let news = is_news(publication);
            if news {
                change(publication);
            }
            news
        });
    }

    /// A change that nobody needs to be woken for.
    pub(crate) fn update_quietly(&self, change: impl FnOnce(&mut Publication)) {
        self.out.send_if_modified(|publication| {
            change(publication);
            false
        });
    }

    /// A call failed: each reason is said once while that lasts. Returns how long to wait before the next.
    pub(crate) fn away(&self, error: &StoreError) -> Duration {
        self.metrics.store_errors.inc();
        let chain = Chain(error).to_string();
        match error.is_no_space() {
            true => self.no_room(chain),
            false => self.no_answer(chain),
        }
        lock(&self.backoff).next_delay()
    }

    fn no_answer(&self, chain: String) {
        match lock(&self.trouble).fail(&chain) {
            News::Begins => warn!(error = %chain, "The registry does not serve; keeping everything and trying again."),
            News::OtherReason => warn!(error = %chain, "The registry still does not serve, for another reason."),
            News::None => {}
        }
        self.out.send_if_modified(|publication| {
            let news = publication.away.is_none();
            if news {
                publication.away = Some((chain, Instant::now()));
            }
            news
        });
    }

    /// A full store serves in all other ways: what succeeds there is no sign of room.
    fn no_room(&self, chain: String) {
        self.out.send_if_modified(|publication| {
            let news = publication.full.is_none();
            if news {
                warn!(error = %chain, "The registry is full (NOSPACE): what is in it lives on, what is new waits for room.");
                self.metrics.full.set(1);
                publication.full = Some((chain, Instant::now()));
            }
            news
        });
    }

    /// A call succeeded.
    pub(crate) fn back(&self) {
        if let Some(away) = lock(&self.trouble).end() {
            info!(away_s = away.as_secs(), "The registry serves again.");
        }
        self.out.send_if_modified(|publication| {
            let was_away = publication.away.take().is_some();
            if was_away {
                lock(&self.backoff).succeeded();
            }
            was_away
        });
    }

    /// Another agent has the claim: said once.
    pub(super) fn wait_for(&self, rival: String) {
        let is_news = |p: &Publication| p.rival.as_ref().is_none_or(|(said, _)| *said != rival);
        self.update_if(is_news, |p| {
            if p.rival.is_none() {
                warn!(reason = "second_agent", "Not publishing: {rival}.");
            }
            let since = p.rival.as_ref().map_or_else(Instant::now, |(_, since)| *since);
            p.rival = Some((rival.clone(), since));
        });
    }

    /// No other agent has the claim.
    pub(super) fn alone(&self) {
        self.update_if(
            |p| p.rival.is_some(),
            |p| {
                info!("The other agent of this name is gone; publishing.");
                p.rival = None;
            },
        );
    }

    /// Whether the store had no room the last time.
    pub(crate) fn is_full(&self) -> bool {
        self.out.borrow().full.is_some()
    }

    /// The store took a write.
    pub(crate) fn room(&self) {
        self.out.send_if_modified(|publication| match publication.full.take() {
            Some((_, since)) => {
                let full_s = since.elapsed().as_secs();
                info!(full_s, "The registry has room again: everything is written.");
                self.metrics.full.set(0);
                lock(&self.backoff).succeeded();
                true
            }
            None => false,
        });
    }
}
