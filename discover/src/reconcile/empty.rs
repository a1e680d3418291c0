//! What becomes of a pool that is empty although nobody holds it. Pure.

use std::sync::Arc;

use common::model::{Pool, ServiceMap, Status};

use super::Desired;

/// What becomes of a service without backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OnEmpty {
    /// It is empty: clients are told at once that nobody is there.
    #[default]
    Empty,
    /// Its last backends stay until others come, whoever took them away (Synapse's use_previous_backends).
    Keep,
}

/// Remembers the last backends of each service, where they are to be kept.
#[derive(Debug, Default)]
pub struct Emptied {
    policy: OnEmpty,
    last: ServiceMap,
}

impl Emptied {
    /// Begins with the pools that were routed before a restart.
    pub fn new(policy: OnEmpty, last: ServiceMap) -> Self {
        Self { policy, last: if policy == OnEmpty::Keep { last } else { ServiceMap::new() } }
    }

    /// Puts kept pools in the place of empty ones.
    pub fn fill(&mut self, desired: &mut Desired) {
        if self.policy == OnEmpty::Empty {
            return;
        }
        let up = |pool: &Arc<Pool>| pool.backends().iter().any(|b| b.status == Status::Up);
        for (service, pool) in &desired.services {
            // A pool that is about to end, its last ones draining, is remembered as it was before.
            if (up(pool) || (!pool.is_empty() && !self.last.contains_key(service)))
                && self.last.get(service).is_none_or(|last| !Arc::ptr_eq(last, pool))
            {
                self.last.insert(service.clone(), pool.clone());
            }
        }
        for (service, pool) in &self.last {
            if desired.services.get(service).is_none_or(|p| p.is_empty()) {
                desired.services.insert(service.clone(), pool.clone());
                desired.kept.insert(service.clone());
            }
        }
    }

    /// The pools that stand in for empty ones now, to be remembered.
    pub fn kept(&self, desired: &Desired) -> ServiceMap {
        desired.kept.iter().filter_map(|s| Some((s.clone(), self.last.get(s)?.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use common::model::{Backend, ServiceName};

    use super::*;

    fn desired(status: &[Status]) -> Desired {
        let backend = |(n, status): (usize, &Status)| {
            let mut b =
                Backend::new(format!("b{n}").parse().unwrap(), "10.0.0.1".parse().unwrap(), 80.try_into().unwrap());
            b.status = *status;
            Arc::new(b)
        };
        let mut desired = Desired::default();
        if !status.is_empty() {
            let pool = Pool::new(status.iter().enumerate().map(backend));
            desired.services.insert("web".parse().unwrap(), Arc::new(pool));
        }
        desired
    }

    fn seen(emptied: &mut Emptied, status: &[Status]) -> Vec<Status> {
        let mut desired = desired(status);
        emptied.fill(&mut desired);
        let web: ServiceName = "web".parse().unwrap();
        assert_eq!(desired.kept.contains(&web), status.is_empty() && desired.services.contains_key(&web));
        desired.services.get(&web).map(|p| p.backends().iter().map(|b| b.status).collect()).unwrap_or_default()
    }

    #[test]
    fn kept_backends_are_those_from_before_the_end_and_go_when_others_come() {
        use Status::{Draining, Up};
        let mut keep = Emptied::new(OnEmpty::Keep, ServiceMap::new());
        assert!(seen(&mut keep, &[]).is_empty(), "nothing was known");
        assert_eq!(seen(&mut keep, &[Up, Up]), [Up, Up]);
        assert_eq!(seen(&mut keep, &[Draining]), [Draining]);
        assert_eq!(seen(&mut keep, &[]), [Up, Up]);
        assert_eq!(seen(&mut keep, &[Up]), [Up]);
        assert_eq!(seen(&mut keep, &[]), [Up]);
    }

    #[test]
    fn an_empty_pool_is_empty_unless_told_otherwise() {
        let mut empty = Emptied::default();
        assert_eq!(seen(&mut empty, &[Status::Up]), [Status::Up]);
        assert!(seen(&mut empty, &[]).is_empty());
    }

    #[test]
    fn a_restart_forgets_no_kept_pool() {
        let before = desired(&[Status::Up]).services;
        let mut keep = Emptied::new(OnEmpty::Keep, before.clone());
        let mut now = Desired::default();
        keep.fill(&mut now);
        assert_eq!((&now.services, keep.kept(&now)), (&before, before.clone()));
    }
}
