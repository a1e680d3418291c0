//! Which backends are let in: those whose address the operator's policy takes. Every source and every generator is behind this one
//! place, default servers and kept backends aside, which are the operator's own or were let in before. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Backend, Pool, ServiceMap, ServiceName};
use tracing::warn;

use crate::addresses::AddressPolicy;

/// How many refusals of one turn have a line of the log of their own.
const MOST_LINES: usize = 20;
/// How many are shown.
const MOST_SHOWN: usize = 1000;

/// Registrations that are left out, as `service/id`, and why.
pub type Barred = BTreeMap<String, String>;

/// Lets backends in, and remembers what it has judged: a pool that did not change is not judged again.
#[derive(Debug, Default)]
pub struct Admission {
    policy: AddressPolicy,
    /// In order of name.
    judged: Vec<Judged>,
    barred: Arc<Barred>,
}

#[derive(Debug)]
struct Judged {
    service: ServiceName,
    pool: Arc<Pool>,
    admitted: Arc<Pool>,
    barred: Barred,
}

impl Admission {
    /// Lets in what this policy takes.
    pub fn new(policy: AddressPolicy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Takes the backends that are refused out of `services`, and gives what was taken out. A pool of which nothing is refused stays the
    /// same one.
    pub fn admit(&mut self, services: &mut ServiceMap) -> &Arc<Barred> {
        let mut changed = false;
        let mut before = std::mem::take(&mut self.judged).into_iter().peekable();
        for (service, pool) in services.iter_mut() {
            while before.next_if(|judged| judged.service < *service).is_some() {
                changed = true;
            }
            let judged = match before.next_if(|judged| judged.service == *service) {
                Some(judged) if Arc::ptr_eq(&judged.pool, pool) => judged,
                before => {
                    changed = true;
                    self.judge(service, pool, before)
                }
            };
            *pool = judged.admitted.clone();
            self.judged.push(judged);
        }
        if changed || before.next().is_some() {
            let barred: Barred = self.judged.iter().flat_map(|judged| judged.barred.clone()).take(MOST_SHOWN).collect();
            if barred != *self.barred {
                self.tell(&barred);
                self.barred = Arc::new(barred);
            }
        }
        &self.barred
    }

    fn judge(&self, service: &ServiceName, pool: &Arc<Pool>, before: Option<Judged>) -> Judged {
        let why = |b: &Arc<Backend>| {
            let why = self.policy.judge_host(&b.host).err()?;
            Some((format!("{service}/{}", b.id), format!("{}: {why}", b.address())))
        };
        let barred: Barred = pool.backends().iter().filter_map(why).collect();
        let admitted = match barred.is_empty() {
            true => pool.clone(),
            false => {
                let good = pool.backends().iter().filter(|b| self.policy.judge_host(&b.host).is_ok());
                let good: Pool = good.cloned().collect();
                before.map(|b| b.admitted).filter(|same| **same == good).unwrap_or_else(|| Arc::new(good))
            }
        };
        Judged { service: service.clone(), pool: pool.clone(), admitted, barred }
    }

    fn tell(&self, barred: &Barred) {
        let mut new = barred.iter().filter(|(key, why)| self.barred.get(*key) != Some(*why));
        for (registration, why) in new.by_ref().take(MOST_LINES) {
            warn!(%registration, %why, "Registration is left out: its address is refused.");
        }
        let more = new.count();
        if more > 0 {
            warn!(more, "More registrations are left out for their addresses; `discover status` names them.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(hosts: &[&str]) -> Arc<Pool> {
        let backend = |(n, host): (usize, &&str)| {
            Arc::new(Backend::new(format!("b{n}").parse().unwrap(), host.parse().unwrap(), 80.try_into().unwrap()))
        };
        Arc::new(Pool::new(hosts.iter().enumerate().map(backend)))
    }

    #[test]
    fn what_is_refused_is_named_and_left_out_alone_and_costs_nothing_again() {
        let mut admission = Admission::new(AddressPolicy::default());
        let [good, mixed, bad] = [&["10.0.0.1"][..], &["localhost", "10.0.0.2"], &["::1"]].map(pool);
        let told = [("a", &good), ("b", &mixed), ("c", &bad)];
        let told = told.map(|(name, pool)| (name.parse().unwrap(), pool.clone()));
        let mut turn = |services: &[(ServiceName, Arc<Pool>)]| {
            let mut services: ServiceMap = services.iter().cloned().collect();
            let barred = admission.admit(&mut services).clone();
            (services, barred)
        };
        let (first, barred) = turn(&told);
        assert!(Arc::ptr_eq(&first["a".parse::<ServiceName>().unwrap().as_str()], &good));
        let left: Vec<usize> = first.values().map(|p| p.len()).collect();
        assert_eq!(left, [1, 1, 0], "a service of which all is refused is there, and empty");
        assert_eq!(barred.keys().map(String::as_str).collect::<Vec<_>>(), ["b/b0", "c/b0"]);
        assert_eq!(
            barred["c/b0"], "[::1]:80: a loopback address (--allow-loopback takes it)",
            "address, reason and remedy"
        );
        let (second, again) = turn(&told);
        assert!(Arc::ptr_eq(&barred, &again) && first.values().zip(second.values()).all(|(a, b)| Arc::ptr_eq(a, b)));
        assert_eq!(*turn(&told[..1]).1, Barred::new(), "what is gone is not named");
    }
}
