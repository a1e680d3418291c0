//! The way from what the sources say to what ought to run.

use std::sync::{Arc, Mutex};

use agent::sync::lock;
use model::ServiceMap;
use tokio::time::Instant;
use tracing::warn;

use super::{Admission, Desired, Emptied, Guard, LeftOut, Limits, Memory, Merged, Near, Policies};

/// Makes the desired state: limits, then guard, admission, stand-ins for empty pools, the config's policies, and near backends first.
#[derive(Debug)]
pub struct Reconciler {
    limits: Limits,
    guard: Arc<Mutex<Guard>>,
    admission: Admission,
    emptied: Emptied,
    policies: Option<Policies>,
    near: Near,
    /// What the limits left out last.
    left_out: LeftOut,
    /// Pools that stand in for empty ones.
    kept: ServiceMap,
}

impl Reconciler {
    /// Without policies: pools count as they were discovered. The control socket has the `guard`, too.
    pub fn new(limits: Limits, guard: Arc<Mutex<Guard>>, admission: Admission, emptied: Emptied) -> Self {
        let (left_out, kept) = (LeftOut::new(), ServiceMap::new());
        Self { limits, guard, admission, emptied, policies: None, near: Near::default(), left_out, kept }
    }

    /// With what a config makes of discovered pools.
    #[must_use]
    pub fn with_policies(mut self, policies: Option<Policies>) -> Self {
        self.policies = policies;
        self
    }

    /// With near backends first.
    #[must_use]
    pub fn with_near(mut self, near: Near) -> Self {
        self.near = near;
        self
    }

    /// Where near backends come first; what HAProxy finds of them counts.
    pub fn near(&mut self) -> Option<&mut Near> {
        Some(&mut self.near).filter(|near| !near.is_off())
    }

    /// What ought to run.
    pub fn desired(&mut self, mut merged: Merged, now: Instant) -> Desired {
        self.cut(&mut merged.services, now);
        let mut desired = lock(&self.guard).judge(&merged, now);
        desired.barred = self.admission.admit(&mut desired.services).clone();
        self.emptied.fill(&mut desired);
        self.kept = self.emptied.kept(&desired);
        if let Some(policies) = &mut self.policies {
            policies.apply_to(&mut desired, &merged.generator_configs, now);
        }
        desired.near = self.near.weigh(&mut desired.services);
        if !self.left_out.is_empty() {
            Arc::make_mut(&mut desired.refused).extend(self.left_out.clone());
        }
        desired
    }

    fn cut(&mut self, services: &mut ServiceMap, now: Instant) {
        let cut = self.limits.cut(services, || lock(&self.guard).memory(now).told);
        if cut != self.left_out {
            cut.iter().for_each(|(service, why)| warn!(%service, %why, "The sources say more than is taken in."));
            self.left_out = cut;
        }
    }

    /// When the desired state changes by time alone.
    pub fn next_due(&self) -> Option<Instant> {
        lock(&self.guard).next_due()
    }

    /// Grows whenever [`memory`](Self::memory) changes otherwise than by its age.
    pub fn version(&self) -> u64 {
        lock(&self.guard).version()
    }

    /// What must outlive a restart.
    pub fn memory(&self, now: Instant) -> Memory {
        Memory { kept: self.kept.clone(), ..lock(&self.guard).memory(now) }
    }
}
