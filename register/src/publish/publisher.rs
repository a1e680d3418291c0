//! The task that owns the lease: no lease → granted → published, and back to the start when the lease is lost.
//!
//! Three things go on side by side while a claim holds: the lease is renewed on its own beat, the registrar's key is
//! watched, and changes are written. The first that finds the claim void ends all three.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use registry::store::{Entry, Key, Store, StoreError};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::beats::beats;
use super::claim::{Claim, ClaimError, End};
use super::identity::Identity;
use super::metadata;
use super::plan::{Form, Registrations};
use super::pulse::Pulse;
use super::registrar::Registrar;
use super::report::{Phase, Publication, PublishMetrics, Reporter};
use super::slots::Slots;
use super::writer::Writer;

/// How often another agent that has the claim is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Why the publisher gave up.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The host's key belongs to somebody else.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The store took the lease back too late or not at all.
    #[error("revoking the lease at the end")]
    Revoke(#[source] StoreError),
}

/// How to publish.
#[derive(Debug, Clone)]
pub struct PublisherSettings {
    /// How keys and values look.
    pub form: Form,
    /// Who publishes.
    pub identity: Identity,
    /// How long everything outlives this agent (`--ttl`).
    pub ttl: Duration,
    /// How often what was written is read back (`--resync`).
    pub audit: Duration,
    /// How often the host's metadata is written, if at all (`--metadata-interval`).
    pub metadata: Option<Duration>,
}

/// Brings the registry to what is desired, and keeps it there.
#[derive(Debug)]
pub struct Publisher<S> {
    store: S,
    form: Form,
    audit: Duration,
    metadata: Option<Duration>,
    registrar: Registrar<S>,
    desired: watch::Receiver<Option<Arc<Registrations>>>,
    slots: watch::Receiver<Arc<Slots>>,
    report: Arc<Reporter>,
    /// Where the lease is renewed, and by what; `None`: beside all the rest.
    pulse: Option<(Pulse, S)>,
}

impl<S: Store> Publisher<S> {
    /// Publishes what `desired` holds (`None`: not known yet, nothing is written) and tells on `out` how that goes.
    pub fn new(
        store: S,
        settings: PublisherSettings,
        desired: watch::Receiver<Option<Arc<Registrations>>>,
        out: watch::Sender<Publication>,
        metrics: PublishMetrics,
    ) -> Self {
        let PublisherSettings { form, identity, ttl, audit, metadata } = settings;
        let registrar = Registrar::new(store.clone(), identity, form.prefix.clone(), ttl);
        let report = Arc::new(Reporter::new(out, metrics, ttl / 3));
        let slots = watch::channel(Arc::default()).1;
        Self { store, form, audit, metadata, registrar, desired, slots, report, pulse: None }
    }

    /// The same, whose lease is renewed on a thread of its own by `store`, which nobody else uses.
    #[must_use]
    pub fn with_pulse(mut self, pulse: Pulse, store: S) -> Self {
        self.pulse = Some((pulse, store));
        self
    }

    /// The same, which also publishes `slots`: services without Docker.
    #[must_use]
    pub fn with_slots(mut self, slots: watch::Receiver<Arc<Slots>>) -> Self {
        self.slots = slots;
        self
    }

    /// Runs until `stop`. The lease stays and keeps everything alive for its time, unless `revoke` is cancelled, too:
    /// then everything goes at once.
    ///
    /// # Errors
    /// [`PublishError`] where the host's key belongs to somebody else, or at the start the store can never serve.
    pub async fn run(mut self, stop: CancellationToken, revoke: CancellationToken) -> Result<(), PublishError> {
        let mut former = None;
        loop {
            let claim = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                claim = self.claim() => claim?,
            };
            let lease = claim.lease;
            // Whoever noticed it first: its keys go with a lease, and a deletion by hand looks the same.
            if former.replace(lease).is_some_and(|former| former != lease) {
                self.report.metrics.lost.inc();
            }
            let end = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                end = self.hold(claim) => Some(end),
            };
            match end {
                None if revoke.is_cancelled() => {
                    return self.store.revoke(lease).await.map_err(PublishError::Revoke);
                }
                None => return Ok(()),
                Some(End::Replaced(error)) => {
                    self.registrar.leave_mark().await;
                    return Err(error.into());
                }
                Some(End::Touched(why)) => warn!(%lease, why, "Claiming this host again."),
                Some(End::Lost(why)) => {
                    warn!(%lease, why, "Lease lost; publishing everything again under a new one.");
                    self.report.update(|p| (p.phase, p.lease) = (Phase::NoLease, None));
                }
            }
        }
    }

    async fn claim(&mut self) -> Result<Claim, ClaimError> {
        loop {
            match self.registrar.claim().await {
                Ok(claim) => {
                    self.report.back();
                    let (lease, ttl) = (claim.lease, claim.ttl);
                    let found: Arc<[Entry]> = claim.entries.clone().into();
                    self.report.update(|p| {
                        (p.phase, p.lease, p.ttl, p.beat) = (Phase::Granted, Some(lease), ttl, Some(SystemTime::now()));
                        p.found.get_or_insert(found);
                    });
                    self.report.alone();
                    return Ok(claim);
                }
                Err(rival @ ClaimError::Contested { .. }) => {
                    self.report.back();
                    self.report.wait_for(rival.to_string());
                    sleep(LOOK).await;
                }
                Err(ClaimError::Store { source, .. }) if self.registrar.held() || !source.is_fatal() => {
                    sleep(self.report.away(&source)).await;
                }
                Err(final_error) => {
                    if matches!(final_error, ClaimError::Replaced { .. }) {
                        self.registrar.leave_mark().await;
                    }
                    return Err(final_error);
                }
            }
        }
    }

    async fn hold(&mut self, claim: Claim) -> End {
        let Self { store, form, audit, metadata, registrar, desired, slots, report, pulse } = self;
        let (lease, about_host) = (claim.lease, Key::from(form.prefix.metadata(&form.node)));
        let metadata = async {
            match metadata {
                Some(every) => metadata::keep(store, lease, about_host, *every).await,
                None => std::future::pending().await,
            }
        };
        let (at, ttl) = (claim.at, claim.ttl);
        let renewal = async {
            match pulse {
                Some((pulse, store)) => pulse.beats(store.clone(), lease, ttl, Arc::clone(report)).await,
                None => beats(store, lease, ttl, report, || true).await,
            }
        };
        let writer = Writer::new(store, form, report, claim);
        tokio::select! {
            biased; // a claim that is found void ends before anything more is written
            end = registrar.guard(at, || report.newest.get(), |e| report.away(e)) => end,
            _ = renewal => End::Lost("the registry does not know it any more"),
            end = writer.run(desired, slots, *audit) => end,
            never = metadata => match never {},
        }
    }
}
