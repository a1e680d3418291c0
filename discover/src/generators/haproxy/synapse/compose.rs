//! Services as sections in Synapse's way. Pure, and cached: a service whose inputs did not change costs a look-up.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use common::model::{Backend, Host, Pool, ServiceMap, ServiceName, Status, Transport};
use serde_json::Value;

use super::ids::{Ids, Wish};
use super::options;
use super::order::shuffle;
use super::prepare::{self, Order, Prepared, prepare};
use super::server::{Parts, name, server};
use super::state::{Remembered, State};
use crate::config::types::{Config, Haproxy, Service, ServiceHaproxy};
use crate::generators::haproxy::layout::{Layout, Section};
use crate::names::Resolved;

/// A registration that is left out of haproxy.cfg, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quarantined {
    /// The service.
    pub service: ServiceName,
    /// The server's name.
    pub server: String,
    /// Why.
    pub reason: String,
}

/// Composes the file from a config of Synapse's.
#[derive(Debug)]
pub struct SynapseComposer {
    top: Arc<Haproxy>,
    seed: i64,
    services: Vec<Entry>,
    header: Arc<str>,
    footer: Arc<str>,
    /// What is remembered, where that is wanted.
    state: Option<State>,
    state_changed: bool,
    renders: u64,
}

#[derive(Debug)]
struct Entry {
    service: Arc<Service>,
    prepared: Prepared,
    ids: Ids,
    cached: Option<Cached>,
}

#[derive(Debug)]
struct Cached {
    pool: Option<Arc<Pool>>,
    generation: u64,
    /// Until when nothing that is remembered is forgotten, in seconds since 1970.
    until: u64,
    section: Arc<Section>,
    quarantined: Vec<Quarantined>,
}

/// One server to be.
struct Candidate {
    name: Arc<str>,
    backend: Arc<Backend>,
    host: String,
    port: String,
    address: SocketAddr,
    /// Its own options, filled in.
    options: Option<String>,
    options_have_id: bool,
    explicit: Option<u32>,
    remembered: Option<u32>,
    backup: bool,
    live: bool,
    seen: Option<u64>,
}

impl SynapseComposer {
    /// A composer for this config; `None` where it has no haproxy section. `state` is what a state file remembers.
    pub fn new(config: &Config, state: Option<State>) -> Option<Self> {
        let top = config.haproxy.clone()?;
        let seed = top.server_order_seed.unwrap_or_else(seed_of_this_host);
        let header: Arc<str> = prepare::header(&top).into();
        let services = config.services.iter().map(|service| {
            let prepared = prepare(service, &service.haproxy, &top, &header, seed);
            Entry { service: service.clone(), prepared, ids: Ids::default(), cached: None }
        });
        let services = services.collect();
        let mut composer =
            Self { top, seed, services, header, footer: "".into(), state, state_changed: false, renders: 0 };
        composer.footer = composer.make_footer();
        Some(composer)
    }

    fn make_footer(&self) -> Arc<str> {
        let enabled = self.services.iter().filter(|e| !e.prepared.haproxy.disabled);
        prepare::footer(&self.top, enabled.map(|e| &e.prepared)).into()
    }

    /// What the config has that is left out or only HAProxy can judge.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.services.iter().flat_map(|e| &e.prepared.warnings).map(String::as_str)
    }

    /// Sections rendered anew since the start.
    pub fn renders(&self) -> u64 {
        self.renders
    }

    /// Takes a service's haproxy section from the registry in place of the config's own.
    pub fn replace_section(&mut self, service: &ServiceName, section: &Arc<ServiceHaproxy>) {
        let Some(entry) = self.services.iter_mut().find(|e| e.service.name == *service) else { return };
        if entry.prepared.haproxy != *section {
            entry.prepared = prepare(&entry.service, section, &self.top, &self.header, self.seed);
            entry.cached = None;
            self.footer = self.make_footer();
        }
    }

    /// Takes another config, as after SIGHUP; ids and what is remembered go on.
    pub fn reconfigure(&mut self, config: &Config) -> bool {
        let state = self.state.take();
        let mut ids: HashMap<ServiceName, Ids> =
            self.services.drain(..).map(|e| (e.service.name.clone(), e.ids)).collect();
        let Some(mut new) = Self::new(config, state) else { return false };
        for entry in &mut new.services {
            entry.ids = ids.remove(&entry.service.name).unwrap_or_default();
        }
        new.renders = self.renders;
        *self = new;
        true
    }

    /// The layout of these services at `now`, in seconds since 1970. `names` gives the addresses of host names; without it
    /// they are taken as they are.
    pub fn compose(&mut self, services: &ServiceMap, names: Option<&Resolved>, now: u64) -> Layout {
        let generation = names.map_or(0, Resolved::generation);
        let mut sections = Vec::with_capacity(self.services.len());
        for entry in self.services.iter_mut().filter(|e| !e.prepared.haproxy.disabled) {
            let pool = services.get(&entry.service.name);
            let same = |c: &&Cached| {
                let same_pool = match (&c.pool, pool) {
                    (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                    (None, None) => true,
                    _ => false,
                };
                same_pool && c.generation == generation && now < c.until
            };
            if let Some(cached) = entry.cached.as_ref().filter(same) {
                sections.push(cached.section.clone());
                continue;
            }
            self.renders += 1;
            let mut turn = Turn { top: &self.top, names, now, state: self.state.as_mut(), quarantined: Vec::new() };
            let section = turn.section(entry, pool.map(|p| &**p));
            let quarantined = turn.quarantined;
            let section = match entry.cached.take() {
                Some(old) if *old.section == section => old.section,
                _ => {
                    self.state_changed = true;
                    Arc::new(section)
                }
            };
            let until = self.state.as_ref().and_then(|s| s.next_end(&entry.service.name)).unwrap_or(u64::MAX);
            entry.cached =
                Some(Cached { pool: pool.cloned(), generation, until, section: section.clone(), quarantined });
            sections.push(section);
        }
        Layout { header: self.header.clone(), sections, footer: self.footer.clone() }
    }

    /// Takes over the ids of a file that was written before a restart, so that the restart changes nothing.
    pub fn remember_ids(&mut self, layout: &Layout) {
        let sections: HashMap<&str, &Section> = layout.sections.iter().map(|s| (&*s.name, &**s)).collect();
        for entry in &mut self.services {
            let Some(section) = sections.get(&*entry.prepared.section) else { continue };
            entry.ids.remember(section.servers.iter().filter_map(|s| {
                let id = options::id(&s.params)??;
                Some((s.name.clone(), id))
            }));
        }
    }

    /// What the last turn left out.
    pub fn quarantined(&self) -> impl Iterator<Item = &Quarantined> {
        self.services.iter().filter_map(|e| e.cached.as_ref()).flat_map(|c| &c.quarantined)
    }

    /// The state file's path and text, if what is remembered has changed since the last time.
    pub fn changed_state(&mut self, now: u64) -> Option<(std::path::PathBuf, String)> {
        let changed = std::mem::take(&mut self.state_changed);
        let path = self.state.as_ref()?.path.clone().filter(|_| changed)?;
        Some((path, self.state_text(now)?))
    }

    /// The state file's text.
    pub fn state_text(&self, now: u64) -> Option<String> {
        let order: Vec<ServiceName> = self.services.iter().map(|e| e.service.name.clone()).collect();
        let raw = |service: &ServiceName| {
            let entry = self.services.iter().find(|e| e.service.name == *service);
            entry.map_or(Value::Null, |e| e.service.raw["haproxy"].clone())
        };
        Some(self.state.as_ref()?.render(&order, &raw, now))
    }
}

/// The same at every start of this host, another one on the next: so a fleet's clients do not all begin with one server.
fn seed_of_this_host() -> i64 {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let sum = crate::generators::haproxy::server::checksum(name.as_encoded_bytes());
    i64::try_from(sum % 2000).unwrap_or_default()
}

/// What composing one section needs beside its entry.
struct Turn<'a> {
    top: &'a Haproxy,
    names: Option<&'a Resolved>,
    now: u64,
    state: Option<&'a mut State>,
    quarantined: Vec<Quarantined>,
}

impl Turn<'_> {
    fn section(&mut self, entry: &mut Entry, pool: Option<&Pool>) -> Section {
        let service = entry.service.name.clone();
        let mut candidates = self.candidates(&service, &entry.prepared, pool);
        let wishes: Vec<Wish> = candidates
            .iter()
            .map(|c| Wish { name: c.name.clone(), explicit: c.explicit, remembered: c.remembered })
            .collect();
        let ids = entry.ids.assign(&wishes, self.top.max_server_id);
        if let Some(state) = &mut self.state {
            let remembered = candidates.iter().zip(&ids).filter(|(c, _)| !c.backup).map(|(c, id)| Remembered {
                name: c.name.clone(),
                backend: c.backend.clone(),
                id: *id,
                seen: if c.live { None } else { Some(c.seen.unwrap_or(self.now)) },
            });
            state.set(&service, remembered.collect());
        }
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        match entry.prepared.order {
            Order::Discovery => {}
            Order::Asc => order.sort_by(|a, b| candidates[*a].name.cmp(&candidates[*b].name)),
            Order::Desc => order.sort_by(|a, b| candidates[*b].name.cmp(&candidates[*a].name)),
            Order::Shuffle(seed) => shuffle(&mut order, seed),
        }
        let any_up = candidates.iter().any(|c| c.live && c.backend.status == Status::Up);
        let servers = order.into_iter().map(|n| {
            let c = &mut candidates[n];
            let parts = Parts {
                name: &c.name,
                host: &c.host,
                port: &c.port,
                address: c.address,
                id: ids[n].filter(|_| !c.options_have_id),
                server_options: entry.prepared.haproxy.server_options.as_deref(),
                own_options: c.options.as_deref(),
                weight: c.backend.weight.filter(|_| self.top.use_nerve_weights).map(|w| w.get()),
                backup: c.backup,
                disabled: !c.live || c.backend.status == Status::Down,
                draining: c.backend.status == Status::Draining && any_up,
            };
            server(&parts, &entry.prepared).with_inherited_weight(&entry.prepared.inherited)
        });
        let servers = servers.collect();
        Section {
            name: entry.prepared.section.clone(),
            skeleton: entry.prepared.skeleton.clone(),
            servers,
            inherited: entry.prepared.inherited.clone(),
            text: Default::default(),
        }
    }

    /// Remembered servers first, then discovered ones; a discovered one takes the remembered one's place.
    fn candidates(&mut self, service: &ServiceName, prepared: &Prepared, pool: Option<&Pool>) -> Vec<Candidate> {
        let mut out: Vec<Candidate> = Vec::with_capacity(pool.map_or(0, Pool::len));
        let mut index: HashMap<Arc<str>, usize> = HashMap::with_capacity(out.capacity());
        let mut bad: Vec<(String, String)> = Vec::new();
        let remembered: Vec<Remembered> =
            self.state.as_ref().map(|s| s.of(service, self.now).cloned().collect()).unwrap_or_default();
        for r in remembered {
            let Some(mut c) = self.candidate(&r.backend, None, &mut bad) else { continue };
            (c.live, c.seen, c.remembered, c.explicit) = (false, r.seen, r.id, None);
            index.insert(c.name.clone(), out.len());
            out.push(c);
        }
        bad.clear(); // what is remembered and cannot be used any more is simply forgotten
        let live = pool.map(Pool::backends).unwrap_or_default();
        for backend in live.iter().filter(|b| b.transport == Transport::Tcp) {
            let copies = [None, prepared.haproxy.server_backup_port];
            for backup in copies.into_iter().take(1 + usize::from(copies[1].is_some())) {
                let Some(c) = self.candidate(backend, backup, &mut bad) else { continue };
                match index.get(&c.name) {
                    Some(at) if !out[*at].live => {
                        out[*at] = Candidate { remembered: out[*at].remembered, ..c };
                    }
                    Some(_) => bad.push((c.name.to_string(), "another registration has this server name".to_owned())),
                    None => {
                        index.insert(c.name.clone(), out.len());
                        out.push(c);
                    }
                }
            }
        }
        self.drop_impossible(&mut out, &index, &mut bad);
        let reasons = bad.into_iter().map(|(server, reason)| Quarantined { service: service.clone(), server, reason });
        self.quarantined.extend(reasons);
        out
    }

    /// Options are judged when all servers are known (`track`), explicit ids against each other: the first one has it.
    fn drop_impossible(
        &self,
        out: &mut Vec<Candidate>,
        index: &HashMap<Arc<str>, usize>,
        bad: &mut Vec<(String, String)>,
    ) {
        let mut taken: HashSet<u32> = HashSet::new();
        let allowed = &self.top.allow_registry_options;
        out.retain(|c| {
            let judged =
                c.options.as_deref().map_or(Ok(()), |o| options::check(o, allowed, &|s| index.contains_key(s)));
            let judged = judged.and_then(|()| match c.explicit {
                Some(id) if c.live && !taken.insert(id) => Err(format!("id {id} belongs to another registration")),
                _ => Ok(()),
            });
            match judged {
                Ok(()) => true,
                Err(reason) => {
                    if c.live {
                        bad.push((c.name.to_string(), reason));
                    }
                    false
                }
            }
        });
    }

    /// A registration as a server, or why not.
    fn candidate(
        &self,
        backend: &Arc<Backend>,
        backup: Option<u16>,
        bad: &mut Vec<(String, String)>,
    ) -> Option<Candidate> {
        let host = backend.host.to_string();
        let number = backup.unwrap_or(backend.port.get());
        let port = number.to_string();
        let server_name: Arc<str> = name(backend.name.as_deref(), &host, &port).into();
        let mut refuse = |reason: String| {
            bad.push((server_name.to_string(), reason));
            None
        };
        if server_name.bytes().any(|b| !(b.is_ascii_alphanumeric() || b"_.:-".contains(&b))) {
            return refuse("HAProxy takes only A-Z a-z 0-9 _ . : - in a server's name".to_owned());
        }
        let ip = match (&backend.host, self.names) {
            (Host::Ip(ip), _) => *ip,
            (Host::Name(name), Some(names)) => match names.get(name) {
                Some(ip) => ip,
                None => return refuse("its host name has no address".to_owned()),
            },
            (Host::Name(_), None) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        // An empty text counts as none, but leaves its blank in the line.
        let empty = || backend.raw.as_deref().filter(|raw| raw.contains("\"haproxy_server_options\":\"\"")).map(|_| "");
        let options = match backend
            .haproxy_server_options
            .as_deref()
            .or_else(empty)
            .map(|o| options::fill(o, &host, &port, &server_name))
        {
            None => None,
            Some(Ok(options)) => Some(options),
            Some(Err(why)) => return refuse(format!("haproxy_server_options: {why}")),
        };
        let in_options = options.as_deref().and_then(options::id);
        let explicit = match in_options {
            Some(Some(id)) if id > 0 => Some(id),
            Some(_) => return refuse("haproxy_server_options: id without a number from 1".to_owned()),
            None => backend.haproxy_server_id,
        };
        // Its backup copy cannot have the same one.
        let explicit = explicit.filter(|_| backup.is_none());
        if backup.is_some() && in_options.is_some() {
            return refuse("haproxy_server_options has an id, which its backup copy cannot share".to_owned());
        }
        Some(Candidate {
            name: server_name.clone(),
            backend: backend.clone(),
            host,
            port,
            address: SocketAddr::new(ip, number),
            options,
            options_have_id: in_options.is_some(),
            explicit,
            remembered: None,
            backup: backup.is_some(),
            live: true,
            seen: None,
        })
    }
}
