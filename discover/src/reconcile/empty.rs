//! What becomes of a pool that is empty although nobody holds it. Pure.

use std::str::FromStr;
use std::sync::Arc;

use model::{Backend, Host, Pool, Port, ServiceMap, ServiceName, Status};

use super::Desired;
use crate::addresses::literal;

/// What becomes of a service without backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OnEmpty {
    /// It is empty: clients get an answer at once that there is no backend.
    #[default]
    Empty,
    /// Its last backends stay until others come, however they went away (Synapse's use_previous_backends).
    Keep,
    /// Its default servers stand in until others come (Synapse's default_servers); without any it is empty.
    Defaults,
}

/// A server that stands in for a service without backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultServer {
    pub service: ServiceName,
    host: Host,
    port: Port,
}

/// A text that names no default server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not SERVICE=HOST:PORT")]
pub struct DefaultServerError(String);

impl FromStr for DefaultServer {
    type Err = DefaultServerError;
    fn from_str(text: &str) -> Result<Self, DefaultServerError> {
        let read = || {
            let (service, place) = text.split_once('=')?;
            let (host, port) = place.rsplit_once(':')?;
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            Some(Self { service: service.parse().ok()?, host: literal(host.parse().ok()?), port: port.parse().ok()? })
        };
        read().ok_or_else(|| DefaultServerError(text.to_owned()))
    }
}

/// Remembers the last backends of each service, where they are to be kept.
#[derive(Debug, Default)]
pub struct Emptied {
    policy: OnEmpty,
    /// The last backends of each service that had any.
    last: ServiceMap,
    defaults: Vec<DefaultServer>,
    /// Default servers as pools, of the services whose port and mode are known.
    standing_in: ServiceMap,
}

impl Emptied {
    /// Begins with the pools that were routed before a restart.
    pub fn new(policy: OnEmpty, last: ServiceMap) -> Self {
        let last = if policy == OnEmpty::Empty { ServiceMap::new() } else { last };
        Self { policy, last, defaults: Vec::new(), standing_in: ServiceMap::new() }
    }

    #[must_use]
    pub fn with_defaults(mut self, defaults: Vec<DefaultServer>) -> Self {
        self.defaults = defaults;
        let last = std::mem::take(&mut self.last);
        last.into_iter().for_each(|(service, pool)| self.remember(&service, &pool));
        self
    }

    fn remember(&mut self, service: &ServiceName, pool: &Arc<Pool>) {
        self.last.insert(service.clone(), pool.clone());
        let known = pool.backends().iter().find(|b| b.service_port.is_some());
        let defaults = self.defaults.iter().filter(|d| d.service == *service).enumerate();
        let stand_in = |(nth, d): (usize, &DefaultServer)| {
            let mut backend = Backend::new(format!("default-{nth}").parse().ok()?, d.host.clone(), d.port);
            backend.service_port = known.and_then(|b| b.service_port);
            backend.mode = known.and_then(|b| b.mode);
            Some(Arc::new(backend))
        };
        let stand_in: Pool = defaults.filter_map(stand_in).collect();
        // The same pool as long as it says the same: nothing is rendered anew.
        if !stand_in.is_empty() && self.standing_in.get(service).is_none_or(|old| **old != stand_in) {
            self.standing_in.insert(service.clone(), Arc::new(stand_in));
        }
    }

    /// What takes the place of empty pools.
    fn in_their_place(&self) -> &ServiceMap {
        match self.policy {
            OnEmpty::Defaults => &self.standing_in,
            OnEmpty::Empty | OnEmpty::Keep => &self.last,
        }
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
                self.remember(service, pool);
            }
        }
        for (service, pool) in self.in_their_place() {
            if desired.services.get(service).is_none_or(|p| p.is_empty()) {
                desired.services.insert(service.clone(), pool.clone());
                desired.kept.insert(service.clone());
            }
        }
    }

    /// The pools that stand in for empty ones now, to be remembered.
    pub fn kept(&self, desired: &Desired) -> ServiceMap {
        desired.kept.iter().filter_map(|s| Some((s.clone(), self.in_their_place().get(s)?.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
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
    fn default_servers_stand_in_where_the_services_own_are_gone_also_after_a_restart() {
        use Status::Up;
        let web: ServiceName = "web".parse().unwrap();
        let defaults = || vec!["web=10.9.9.9:81".parse().unwrap(), "other=[::1]:80".parse().unwrap()];
        let mut first = Emptied::new(OnEmpty::Defaults, ServiceMap::new()).with_defaults(defaults());
        assert!(seen(&mut first, &[]).is_empty(), "on which port clients expect it is not known");
        let port = Port::new(8080);
        let mut full = desired(&[Up]);
        let mut backend = (*full.services[&web].backends()[0]).clone();
        backend.service_port = port;
        full.services.insert(web.clone(), Arc::new(Pool::new([Arc::new(backend)])));
        first.fill(&mut full);
        assert!(full.kept.is_empty());
        let places = |emptied: &mut Emptied| {
            let mut now = Desired::default();
            emptied.fill(&mut now);
            let pool = now.services[&web].clone();
            let places: Vec<_> = pool.backends().iter().map(|b| (b.address(), b.service_port)).collect();
            assert_eq!(places, [("10.9.9.9:81".to_owned(), port)]);
            (pool, emptied.kept(&now))
        };
        let (pool, kept) = places(&mut first);
        assert!(Arc::ptr_eq(&pool, &places(&mut first).0), "nothing is made anew");
        places(&mut Emptied::new(OnEmpty::Defaults, kept).with_defaults(defaults()));
    }

    #[test]
    fn a_default_server_on_this_host_needs_no_resolver() {
        let local: DefaultServer = "web=localhost:81".parse().unwrap();
        assert_eq!(local, "web=127.0.0.1:81".parse().unwrap());
    }

    #[test]
    fn what_is_no_default_server_is_refused() {
        for bad in ["", "web", "web=10.0.0.1", "web=10.0.0.1:0", "=10.0.0.1:80", "web=a b:80", "web=::1"] {
            assert!(bad.parse::<DefaultServer>().is_err(), "{bad}");
        }
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
