//! Tells the log and the rest of the agent what others do to its keys, and which keys are theirs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{BackendId, ServiceName};
use registry::store::{Key, LeaseId, Store};
use tracing::warn;

use super::holders::{Holders, Refusal};
use super::keys::{is_numbered, is_shared};
use super::ledger::Ledger;
use super::plan::{Form, Registrations};
use super::report::{Phase, Publication, Reporter};

/// How many keys of others are named in the log one by one; beyond that their number says it.
const NAMED: usize = 10;

/// What was said, and what is to be said.
#[derive(Debug, Default)]
pub(super) struct Teller {
    /// What others did to our keys since that was last said: the lease that each key then had, and how long it is left so.
    struck: BTreeMap<Key, (Option<LeaseId>, Duration)>,
    /// Keys of others that were said to be refused.
    told: BTreeMap<Key, Refusal>,
}

impl Teller {
    /// Somebody deleted or changed `key`, which now hangs on `lease`; it is left so for `pause`.
    pub fn struck(&mut self, key: &Key, lease: Option<LeaseId>, pause: Duration) {
        self.struck.insert(key.clone(), (lease, pause));
    }

    /// Says what is new. `written` is all that was wanted, where all of it that is not somebody else's is in the registry.
    pub async fn tell<S: Store>(
        &mut self,
        store: &S,
        form: &Form,
        report: &Reporter,
        ledger: &Ledger,
        written: Option<&Arc<Registrations>>,
    ) {
        let foreign = ledger.foreign();
        let mut refused = self.told.clone();
        refused.retain(|key, refusal| foreign.get(key).is_some_and(|foreign| foreign.lease == refusal.lease));
        let is_new = |key: &&Key| !is_shared(key) && !is_numbered(key) && !refused.contains_key(*key);
        let new: Vec<Key> = foreign.keys().filter(is_new).cloned().collect();
        let strangers = self.struck.values().any(|(lease, _)| lease.is_some_and(|lease| lease != ledger.lease()));
        let holders = match strangers || !new.is_empty() {
            true => Holders::read(store, &form.prefix).await,
            false => Holders::default(),
        };
        for (key, foreign) in new.iter().filter_map(|key| Some((key, foreign.get(key)?))) {
            let (lease, holder) = (foreign.lease, holders.describe(foreign.lease));
            refused.insert(key.clone(), Refusal { registration: None, lease, holder });
        }
        if let Some(written) = written
            && refused.values().any(|refusal| refusal.registration.is_none())
        {
            let ids = ids(form, written);
            refused.iter_mut().for_each(|(key, refusal)| refusal.registration = ids.get(key).cloned());
        }
        say_refusals(&new.iter().filter_map(|key| refused.get_key_value(key)).collect::<Vec<_>>());
        self.say_changes(&holders);
        report.metrics.refused.set(i64::try_from(refused.len()).unwrap_or(i64::MAX));
        show(report, &refused, written);
        self.told = refused;
    }

    fn say_changes(&mut self, holders: &Holders) {
        let (again, resting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.struck).into_iter().partition(|(_, (_, pause))| pause.is_zero());
        if let Some((key, (lease, _))) = again.first() {
            let by = holders.writer(*lease);
            warn!(key = %key, keys = again.len(), by, "Somebody else changed or deleted keys of this agent; they are written again.");
        }
        if let Some((key, (lease, pause))) = resting.first() {
            let by = holders.writer(*lease);
            warn!(key = %key, keys = resting.len(), by, pause_s = pause.as_secs(), "Somebody else goes on changing or deleting keys of this agent; leaving them so for a while.");
        }
    }
}

/// The keys of registrations.
fn ids(form: &Form, wanted: &Registrations) -> BTreeMap<Key, (ServiceName, BackendId)> {
    let key = |service, id| Key::from(form.prefix.backend(form.layout, &form.node, service, id));
    wanted.keys().map(|(service, id)| (key(service, id), (service.clone(), id.clone()))).collect()
}

fn say_refusals(refusals: &[(&Key, &Refusal)]) {
    if refusals.len() > NAMED {
        let example = refusals.first().map(|(key, refusal)| format!("{key} {}", refusal.holder)).unwrap_or_default();
        let keys = refusals.len();
        warn!(
            keys,
            example,
            reason = "key_taken",
            "Keys belong to others; these registrations are not published (see status)."
        );
        return;
    }
    for (key, Refusal { holder, .. }) in refusals {
        warn!(key = %key, reason = "key_taken", "Not published: the key {holder}. Give one of the two another id, or stop the other one.");
    }
}

/// What is refused is not published.
fn show(report: &Reporter, refused: &BTreeMap<Key, Refusal>, written: Option<&Arc<Registrations>>) {
    let there = |written: &Arc<Registrations>| match refused.is_empty() {
        true => Arc::clone(written),
        false => {
            let mut there = Registrations::clone(written);
            refused.values().filter_map(|r| r.registration.as_ref()).for_each(|place| drop(there.remove(place)));
            Arc::new(there)
        }
    };
    let published = written.map(there);
    let is_news = |p: &Publication| {
        let same = |published: &_| p.published.as_ref().is_some_and(|old| Arc::ptr_eq(old, published));
        *p.refused != *refused || published.as_ref().is_some_and(|now| p.phase != Phase::Published || !same(now))
    };
    report.update_if(is_news, |p| {
        p.refused = Arc::new(refused.clone());
        if let Some(published) = &published {
            (p.phase, p.published) = (Phase::Published, Some(Arc::clone(published)));
        }
    });
}
