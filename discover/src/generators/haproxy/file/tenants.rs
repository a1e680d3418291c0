//! Who has which port: what the file said at the start, then what was chosen. Pure, with injected time.
//!
//! A service has a port until none of its backends asks for it any more. A port whose backends have gone altogether waits for them a
//! while longer: the last container may only be restarting, and nobody is to take the port meanwhile.

use std::collections::btree_map::Iter;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::iter::Peekable;
use std::sync::Arc;
use std::time::Duration;

use model::{Backend, InOrder, Pool, Port, ServiceMap, ServiceName};
use tokio::time::Instant;

use super::layout::Layout;
use super::names::{id_of, owner_of, port_section_name};
use super::ports::{PortPool, ServicePort, Share, tcp};
use super::wishes::{HadPort, Tenancy, first_port, homes};
use crate::haproxy::process::ports::tcp_binds;

/// The longest that a port whose backends have gone waits for them.
pub(super) const WAITS_FOR: Duration = Duration::from_secs(10);

/// The services that have ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tenants {
    of: BTreeMap<ServicePort, Tenancy>,
    /// Service ports whose section has the port in its name, for as long as HAProxy has such a section.
    apart: BTreeSet<ServicePort>,
    /// Ports whose backends have gone, and until when they wait.
    vacant: BTreeMap<Port, (ServiceName, Instant)>,
}

/// Finds the ports of services that are asked for in the order of their names.
#[derive(Debug)]
pub struct TenantsInOrder<'a> {
    tenants: &'a Tenants,
    rest: Peekable<Iter<'a, ServicePort, Tenancy>>,
}

impl<'a> TenantsInOrder<'a> {
    /// The ports that `service` has, which must not come before one that was asked for already.
    pub fn find(&mut self, service: &ServiceName) -> Vec<HadPort<'a>> {
        while self.rest.next_if(|(at, _)| at.service < *service).is_some() {}
        let mut found = Vec::new();
        while let Some((at, tenancy)) = self.rest.next_if(|(at, _)| at.service == *service) {
            found.push(self.tenants.had(at, tenancy));
        }
        found
    }
}

impl Tenants {
    /// Takes over who had which port from the text of a file of ours, edited or not. What is known already counts more.
    pub fn recall(&mut self, file: &str) {
        let mut taken: BTreeSet<Port> = self.of.keys().map(|at| at.port).collect();
        let known: BTreeSet<ServiceName> = self.of.keys().map(|at| at.service.clone()).collect();
        for section in file.split("\n# service ").skip(1) {
            let Some((name, text)) = section.split_once('\n') else { continue };
            let text = text.split("\n# end of services\n").next().unwrap_or_default();
            let bind = tcp_binds(text).into_iter().find_map(|bind| Port::new(bind.port()));
            let (Some((service, own)), Some(bind)) = (owner_of(name), bind) else { continue };
            let at = ServicePort { service, port: own.unwrap_or(bind) };
            if known.contains(&at.service) || !taken.insert(at.port) {
                continue;
            }
            if own.is_some() {
                self.apart.insert(at.clone());
            }
            let servers = text.lines().filter_map(|line| line.trim_start().strip_prefix("server "));
            let ids = servers.filter_map(|line| id_of(line.split_ascii_whitespace().next()?)).collect();
            self.of.insert(at, Tenancy::Recalled(ids));
        }
    }

    fn had<'a>(&self, at: &ServicePort, tenancy: &'a Tenancy) -> HadPort<'a> {
        let vacant = self.vacant.contains_key(&at.port);
        HadPort { port: at.port, tenancy, apart: self.is_apart(at), vacant }
    }

    /// To ask for the ports of services in the order of their names.
    pub fn in_order(&self) -> TenantsInOrder<'_> {
        TenantsInOrder { tenants: self, rest: self.of.iter().peekable() }
    }

    pub fn ports_of(&self, service: &ServiceName) -> impl Iterator<Item = (Port, &Tenancy)> {
        self.of.range(ServicePort::all_of(service)).map(|(at, tenancy)| (at.port, tenancy))
    }

    pub fn has(&self, at: &ServicePort) -> bool {
        self.of.contains_key(at)
    }

    /// Whether the section of a service port has the port in its name.
    pub fn is_apart(&self, at: &ServicePort) -> bool {
        self.apart.contains(at)
    }

    /// All ports that somebody has.
    pub fn ports(&self) -> BTreeSet<Port> {
        self.of.keys().map(|at| at.port).collect()
    }

    /// Whose backends have gone and are waited for at this port.
    pub fn awaited(&self, port: Port) -> Option<&ServiceName> {
        self.vacant.get(&port).map(|(service, _)| service)
    }

    /// Sees which ports wait for their backends, and lets go of those that have waited long enough.
    pub fn review(&mut self, services: &ServiceMap, wait: Duration, now: Instant) {
        let (mut services, mut gone) = (InOrder::of(services), BTreeSet::new());
        let mut all = self.of.iter().peekable();
        while let Some((first, _)) = all.peek() {
            let (service, mut has) = (first.service.clone(), Vec::new());
            while let Some((at, tenancy)) = all.next_if(|(at, _)| at.service == service) {
                has.push(self.had(at, tenancy));
            }
            let pool = services.find(&service);
            let asked = has.iter().filter(|had| pool.is_none_or(|pool| !still_there(pool, had, &has)));
            gone.extend(asked.map(|had| ServicePort { service: service.clone(), port: had.port }));
        }
        self.vacant.retain(|port, (service, _)| gone.iter().any(|at| at.port == *port && at.service == *service));
        for at in gone {
            let (_, until) = self.vacant.entry(at.port).or_insert_with(|| (at.service.clone(), now + wait));
            if *until <= now {
                self.vacant.remove(&at.port);
                self.of.remove(&at);
            }
        }
    }

    /// Whether a port waits for its backends.
    pub fn any_waits(&self) -> bool {
        !self.vacant.is_empty()
    }

    /// Another pool is behind a port that its service has alone.
    pub fn follow(&mut self, at: ServicePort, pool: Arc<Pool>) {
        self.of.insert(at, Tenancy::Chosen(pool, Share::Whole));
    }

    /// Notes who listens where from now on. Ports that wait for their backends go on waiting where nobody has them.
    pub fn take(&mut self, listed: &BTreeMap<ServicePort, PortPool>) {
        let before = std::mem::take(&mut self.of);
        let tenancy = |pool: &PortPool| Tenancy::Chosen(pool.all.clone(), pool.share.clone());
        self.of = listed.iter().map(|(at, pool)| (at.clone(), tenancy(pool))).collect();
        self.apart.extend(listed.iter().filter(|(_, pool)| pool.apart).map(|(at, _)| at.clone()));
        if !self.vacant.is_empty() {
            let taken: HashSet<Port> = listed.keys().map(|at| at.port).collect();
            self.vacant.retain(|port, _| !taken.contains(port));
            let waits = |at: &ServicePort| self.vacant.get(&at.port).is_some_and(|(service, _)| *service == at.service);
            let waiting: Vec<_> = before.into_iter().filter(|(at, _)| waits(at)).collect();
            self.of.extend(waiting);
        }
    }

    /// HAProxy has loaded this: names of sections that it has not, and nobody's, are free.
    pub fn loaded(&mut self, layout: &Layout) {
        let of = &self.of;
        self.apart.retain(|at| {
            let name = port_section_name(&at.service, at.port);
            of.contains_key(at) || layout.sections.iter().any(|section| section.name == name)
        });
    }

    /// When a port waits no longer for its backends, if another service wants it.
    pub fn next_end(&self, wanted: impl Fn(Port) -> bool) -> Option<Instant> {
        self.vacant.iter().filter(|(port, _)| wanted(**port)).map(|(_, (_, until))| *until).min()
    }
}

/// Whether a backend of its service asks for a port, or was behind it and asks for another now: then it is not waited for.
fn still_there(pool: &Arc<Pool>, had: &HadPort<'_>, all: &[HadPort<'_>]) -> bool {
    if let Tenancy::Chosen(before, _) = had.tenancy
        && Arc::ptr_eq(before, pool)
        && !had.vacant
    {
        return true;
    }
    let homes = homes(pool, all);
    let asks = |b: &Backend| b.service_port.or_else(|| homes.get(&b.id).copied()).or_else(|| first_port(all));
    tcp(pool).any(|b| asks(b) == Some(had.port)) || !had.tenancy.among(had.port, tcp(pool)).is_empty()
}
