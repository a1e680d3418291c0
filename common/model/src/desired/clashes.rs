//! Who claims which id and which address of a service: of two that claim one, the container that was started first has it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::container::ContainerId;
use super::decide::settle_clashes;
use super::decider::Known;
use super::decision::Decision;
use crate::{BackendId, Host, Port, ServiceName, Transport};

/// What only one backend of a service can have.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Claim {
    Id(ServiceName, BackendId),
    Address(ServiceName, Host, Port, Transport),
}

/// One decision: the container, and its place among the container's decisions.
type Claimant = (ContainerId, usize);

/// All claims, and whose they are.
#[derive(Debug, Default)]
pub(super) struct Clashes(HashMap<Claim, Vec<Claimant>>);

/// What a decision claims.
fn claims(decision: &Decision) -> impl Iterator<Item = Claim> {
    let of = |c: &super::Candidate| {
        let (service, backend) = (&c.service, &c.backend);
        let address = Claim::Address(service.clone(), backend.host.clone(), backend.port, backend.transport);
        [Claim::Id(service.clone(), backend.id.clone()), address]
    };
    decision.candidate().map(of).into_iter().flatten()
}

impl Clashes {
    /// Takes in what `known` claims; adds that to `touched`.
    pub fn claim(&mut self, known: &Known, touched: &mut BTreeSet<Claim>) {
        for (place, decision) in known.alone.iter().enumerate() {
            for claim in claims(decision) {
                let claimants = self.0.entry(claim.clone()).or_insert_with(|| Vec::with_capacity(1));
                let claimant = (known.container.id.clone(), place);
                if !claimants.contains(&claimant) {
                    claimants.push(claimant);
                }
                touched.insert(claim);
            }
        }
    }

    /// Takes out what `known` claimed; adds that to `touched`.
    pub fn withdraw(&mut self, known: &Known, touched: &mut BTreeSet<Claim>) {
        self.withdraw_but(known, None, touched);
    }

    /// The same, but for what `newer`, the same container, claims in the same places.
    pub fn withdraw_but(&mut self, known: &Known, newer: Option<&Known>, touched: &mut BTreeSet<Claim>) {
        for (place, decision) in known.alone.iter().enumerate() {
            let still: Vec<Claim> =
                newer.and_then(|newer| newer.alone.get(place)).into_iter().flat_map(|d| claims(d)).collect();
            for claim in claims(decision) {
                if !still.contains(&claim)
                    && let Some(claimants) = self.0.get_mut(&claim)
                {
                    claimants.retain(|(id, at)| (id, *at) != (&known.container.id, place));
                    if claimants.is_empty() {
                        self.0.remove(&claim);
                    }
                }
                touched.insert(claim);
            }
        }
    }

    /// Decides anew who has what is `touched`, and whatever hangs on that. Returns the containers for which that changed.
    pub fn settle(&self, touched: BTreeSet<Claim>, known: &mut BTreeMap<ContainerId, Known>) -> BTreeSet<ContainerId> {
        let (mut waiting, mut seen) = (Vec::from_iter(touched.iter().cloned()), touched);
        let mut concerned: BTreeSet<Claimant> = BTreeSet::new();
        while let Some(claim) = waiting.pop() {
            for claimant in self.0.get(&claim).into_iter().flatten() {
                let decision = known.get(&claimant.0).and_then(|known| known.alone.get(claimant.1));
                if concerned.insert(claimant.clone()) {
                    let more = decision.into_iter().flat_map(|decision| claims(decision));
                    waiting.extend(more.filter(|claim| seen.insert(claim.clone())));
                }
            }
        }
        let started = |id: &ContainerId| known.get(id).map(|known| &known.container.started_at);
        let mut order: Vec<Claimant> = concerned.into_iter().collect();
        order.sort_by(|a, b| (started(&a.0), a).cmp(&(started(&b.0), b)));
        let alone = |(id, place): &Claimant| known.get(id)?.alone.get(*place).cloned();
        let mut decisions: Vec<Arc<Decision>> = order.iter().filter_map(alone).collect();
        settle_clashes(&mut decisions);
        let mut changed = BTreeSet::new();
        for ((id, place), decision) in order.into_iter().zip(decisions) {
            let settled = known.get_mut(&id).and_then(|known| known.settled.get_mut(place));
            if let Some(settled) = settled.filter(|settled| **settled != decision) {
                *settled = decision;
                changed.insert(id);
            }
        }
        changed
    }
}
