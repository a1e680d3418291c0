//! One service: its present self, and the former one until that is replaced. No I/O; time is given.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use containers::readiness::CheckState;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::limit::Bucket;
use super::metrics::ServiceMetrics;
use super::outlets::Outlets;
use super::rounds::{Health, News};
use super::rows::{ReporterRow, ServiceRow, ServiceState};
use crate::nerve::config::Service;
use crate::nerve::reporters::{Frame, Placement, Want};

/// How long a changed service may take until its former self goes, and a new one until it counts as down.
///
/// Source: Nerve awaits a new watcher's first report for 30 s.
const DECIDE: Duration = Duration::from_secs(30);

/// One self of a service: what one config says of it.
pub(super) struct Instance {
    pub service: Arc<Service>,
    /// The config's instance_id.
    pub instance: Arc<str>,
    /// Tells its news from a former self's.
    pub number: u64,
    pub health: Health,
    pub checks: Vec<CheckState>,
    /// What was last reported: up or down; `None`: nothing yet.
    pub reported: Option<bool>,
    /// When a report that was held back is tried again.
    pub held_back: Option<Instant>,
    bucket: Bucket,
    began: Instant,
    /// Dropping it ends its checks.
    task: Option<AbortOnDropHandle<()>>,
}

impl Instance {
    pub fn new(service: Arc<Service>, instance: Arc<str>, number: u64, task: AbortOnDropHandle<()>) -> Self {
        let now = Instant::now();
        Self {
            bucket: Bucket::new(service.limit, now),
            service,
            instance,
            number,
            health: Health::Undecided,
            checks: Vec::new(),
            reported: None,
            held_back: None,
            began: now,
            task: Some(task),
        }
    }

    /// Where it is to be published.
    pub fn placements(&self) -> impl Iterator<Item = Placement> + '_ {
        self.service.targets.iter().map(|target| Placement {
            service: self.service.name.clone(),
            instance: self.instance.clone(),
            target: target.clone(),
        })
    }

    /// What is to become of each of its placements.
    fn wants(&self) -> impl Iterator<Item = (Placement, Want)> + '_ {
        let payload = self.service.payload.clone();
        let want = match self.reported {
            Some(true) => Want::Publish(payload),
            Some(false) => Want::Absent(payload),
            None => Want::Leave(payload),
        };
        let wanted = move |placement: Placement| (placement, want.clone());
        // What goes with its lease or session needs no order to be absent.
        self.placements()
            .map(wanted)
            .filter(|(placement, want)| !matches!(want, Want::Absent(_)) || placement.target.outlives_agent())
    }

    /// Reports what its checks say, as far as its limit lets it.
    fn report(&mut self, now: Instant, frame: &Frame, metrics: &ServiceMetrics) {
        let up = match &self.health {
            Health::Up => true,
            Health::Down(_) => false,
            Health::Undecided if now >= self.began + DECIDE => false,
            Health::Undecided => return,
        };
        if self.reported == Some(up) {
            self.held_back = None;
            return;
        }
        if self.held_back.is_some_and(|at| now < at) {
            return;
        }
        let name = &*self.service.name;
        if !self.bucket.take(now) {
            let shadow = self.service.limit.shadow;
            metrics.throttled.inc();
            let tags = [("service_name", name), ("shadow_mode", if shadow { "true" } else { "false" })];
            frame.statsd.increment("nerve.watcher.throttled", &tags);
            if self.held_back.is_none() {
                warn!(service = name, shadow, up, "Comes and goes more often than rate_limiting allows.");
            }
            if !shadow {
                self.held_back = Some(now + self.service.interval.max(Duration::from_millis(10)));
                return;
            }
        }
        self.held_back = None;
        match &self.health {
            Health::Up => info!(service = name, address = %self.service.address, "Up."),
            Health::Down(why) => warn!(service = name, address = %self.service.address, why, "Down."),
            Health::Undecided => warn!(service = name, address = %self.service.address, "Not up after 30 s: down."),
        }
        metrics.reports.inc();
        let status = if up { "up" } else { "down" };
        frame.statsd.increment("nerve.watcher.status.transition", &[("new_status", status), ("service_name", name)]);
        let told = [("report_result", "success"), ("service_name", name)];
        frame.statsd.increment("nerve.watcher.status.report.count", &told);
        self.reported = Some(up);
    }

    /// When something is to be done, whatever its checks say.
    fn deadline(&self) -> Option<Instant> {
        let undecided = (self.reported.is_none()).then(|| self.began + DECIDE);
        [undecided, self.held_back].into_iter().flatten().min()
    }
}

/// A service of the config.
pub(super) struct Entry {
    pub now: Instance,
    /// Its registrations stay until those of the present self are acknowledged.
    former: Option<Instance>,
    replaced_at: Option<Instant>,
}

impl Entry {
    pub fn new(now: Instance) -> Self {
        Self { now, former: None, replaced_at: None }
    }

    /// The config says something else of the service. `fresh`: it has to prove itself anew; otherwise what is known of it
    /// holds on.
    pub fn replace(&mut self, fresh: Option<Instance>, service: &Arc<Service>, instance: &Arc<str>) {
        let mut next = match fresh {
            Some(fresh) => fresh,
            None => Instance {
                health: self.now.health.clone(),
                checks: self.now.checks.clone(),
                reported: self.now.reported,
                task: self.now.task.take(),
                bucket: Bucket::new(service.limit, Instant::now()),
                service: Arc::clone(service),
                instance: Arc::clone(instance),
                ..Self::empty(&self.now)
            },
        };
        std::mem::swap(&mut next, &mut self.now);
        // A self that was never up has nothing that must be kept; one before it may have.
        if next.reported == Some(true) {
            self.former = Some(next);
        }
        self.replaced_at = Some(Instant::now());
    }

    fn empty(of: &Instance) -> Instance {
        Instance {
            service: of.service.clone(),
            instance: of.instance.clone(),
            number: of.number,
            health: Health::Undecided,
            checks: Vec::new(),
            reported: None,
            held_back: None,
            bucket: Bucket::new(of.service.limit, Instant::now()),
            began: Instant::now(),
            task: None,
        }
    }

    /// Takes what its checks say.
    pub fn take(&mut self, news: News) {
        let self_of = if news.number == self.now.number { Some(&mut self.now) } else { self.former.as_mut() };
        if let Some(instance) = self_of.filter(|i| i.number == news.number) {
            (instance.health, instance.checks) = (news.health, news.checks);
        }
    }

    /// Reports, and lets the former self go once it is replaced.
    pub fn settle(&mut self, now: Instant, frame: &Frame, outlets: &Outlets, metrics: &ServiceMetrics) {
        self.now.report(now, frame, metrics);
        let Some(former) = &self.former else { return };
        let acknowledged = |placement: &Placement| outlets.holds(placement, &self.now.service.payload, frame);
        let replaced = match self.now.reported {
            None => false,
            Some(false) => true, // its new checks decide about the service as a whole
            Some(true) => self.now.placements().all(|placement| acknowledged(&placement)),
        };
        let failed = matches!(former.health, Health::Down(_)) && former.task.is_some();
        if replaced || failed || self.replaced_at.is_some_and(|at| now >= at + DECIDE) {
            frame.statsd.increment("nerve.watcher.reap", &[("service_name", &former.service.name)]);
            self.former = None;
        }
    }

    /// What is to become of each of its placements.
    pub fn wants(&self) -> BTreeMap<Placement, Want> {
        let mut wants: BTreeMap<Placement, Want> = self.former.iter().flat_map(Instance::wants).collect();
        for (placement, want) in self.now.wants() {
            match (&want, wants.get(&placement)) {
                (Want::Leave(_), Some(_)) => {} // the former self's stands until the present one is known to work
                _ => drop(wants.insert(placement, want)),
            }
        }
        wants
    }

    /// When something is to be done, whatever its checks say.
    pub fn deadline(&self) -> Option<Instant> {
        let former = self.former.as_ref().and(self.replaced_at).map(|at| at + DECIDE);
        [self.now.deadline(), former].into_iter().flatten().min()
    }

    /// Its row in the status.
    pub fn row(&self, frame: &Frame, outlets: &Outlets) -> ServiceRow {
        let now = &self.now;
        let (state, reason) = match &now.health {
            _ if now.held_back.is_some() => (ServiceState::Throttled, "rate_limiting holds its report back".to_owned()),
            Health::Up if now.service.checks.is_empty() => (ServiceState::Up, "it has no check".to_owned()),
            Health::Up => (ServiceState::Up, "its checks pass".to_owned()),
            Health::Down(why) => (ServiceState::Failing, why.clone()),
            Health::Undecided => (ServiceState::Waiting, "its checks have not decided yet".to_owned()),
        };
        let up = now.reported == Some(true);
        let reporter = |placement: Placement| {
            let holds = outlets.holds(&placement, &now.service.payload, frame);
            let hindrance = outlets.hindrance(&placement, frame);
            let (state, reason) = match (up, holds, hindrance) {
                (_, _, Some((state, why))) => (state, Some(why)),
                (true, true, None) => ("published", None),
                (false, false, None) => ("withdrawn", None),
                _ => ("pending", None),
            };
            let at = placement.target.destination(frame);
            let path = placement.target.path().to_owned();
            ReporterRow { kind: placement.target.kind(), at, path, state, reason }
        };
        ServiceRow {
            service: now.service.name.clone(),
            address: now.service.address.clone(),
            state,
            reason,
            checks: now.checks.clone(),
            reporters: now.placements().map(reporter).collect(),
            refused: None,
        }
    }
}
