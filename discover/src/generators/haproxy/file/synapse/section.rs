//! One service's section: its candidates, what is left out of them, their ids and their order.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt, HashSet};
use model::{Backend, Host, Pool, ServiceName, Status, Transport};

use super::ids::{Ids, Wish};
use super::order::Shuffle;
use super::prepare::{Order, Prepared};
use super::server::{Name, Parts, server};
use super::state::{Remembered, State};
use crate::generators::haproxy::file::layout::Section;
use crate::haproxy::words::options::{self, Options};
use crate::haproxy::words::template::fill;
use crate::names::Resolved;
use crate::synapse::types::Haproxy;

/// What a host name stands for where none is looked up, offline: an address of RFC 5737's TEST-NET-1, so nobody's, and no listener's.
const NOT_ASKED: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0));

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

/// One server to be.
struct Candidate {
    name: Name,
    backend: Arc<Backend>,
    address: SocketAddr,
    /// Its own options, read.
    options: Option<Options>,
    /// The config's, filled in.
    configs: Option<String>,
    explicit: Option<u32>,
    remembered: Option<u32>,
    backup: bool,
    live: bool,
    seen: Option<u64>,
}

impl Candidate {
    /// The id among its own options.
    fn own_id(&self) -> Option<u32> {
        self.options.as_ref().and_then(Options::id)
    }
}

/// What composing one section needs beside the service's own things.
pub struct Turn<'a> {
    top: &'a Haproxy,
    shuffle: &'a Shuffle,
    names: Option<&'a Resolved>,
    shared_names: bool,
    now: u64,
    state: Option<&'a mut State>,
    quarantined: Vec<Quarantined>,
    /// Where names and lines are written before they are kept.
    scratch: String,
}

impl<'a> Turn<'a> {
    /// A turn at `now`, in seconds since 1970; `shared_names` as [`Prepared::skeleton`] has it.
    pub fn new(
        top: &'a Haproxy,
        shuffle: &'a Shuffle,
        names: Option<&'a Resolved>,
        shared_names: bool,
        now: u64,
        state: Option<&'a mut State>,
    ) -> Self {
        Self {
            top,
            shuffle,
            names,
            shared_names,
            now,
            state,
            quarantined: Vec::new(),
            scratch: String::with_capacity(256),
        }
    }

    /// What was left out.
    pub fn quarantined(self) -> Vec<Quarantined> {
        self.quarantined
    }

    /// The section of a service with this pool.
    pub fn section(
        &mut self,
        service: &ServiceName,
        prepared: &Prepared,
        ids: &mut Ids,
        pool: Option<&Pool>,
    ) -> Section {
        let candidates = self.candidates(service, prepared, pool);
        let wishes =
            candidates.iter().map(|c| Wish { name: &c.name.text, explicit: c.explicit, remembered: c.remembered });
        let ids = ids.assign(&wishes.collect::<Vec<_>>(), self.top.max_server_id);
        if let Some(state) = &mut self.state {
            let remembered = candidates.iter().zip(&ids).filter(|(c, _)| !c.backup).map(|(c, id)| Remembered {
                name: c.name.text.clone(),
                backend: c.backend.clone(),
                id: *id,
                seen: if c.live { None } else { Some(c.seen.unwrap_or(self.now)) },
            });
            state.set(service, remembered.collect());
        }
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        let by_name = |a: &usize, b: &usize| candidates[*a].name.text.cmp(&candidates[*b].name.text);
        match prepared.order {
            Order::Discovery => {}
            Order::Asc => order.sort_by(by_name),
            Order::Desc => order.sort_by(|a, b| by_name(b, a)),
            Order::Shuffle => self.shuffle.apply(&mut order),
        }
        let any_up = candidates.iter().any(|c| c.live && c.backend.status == Status::Up);
        let servers = order.into_iter().map(|n| {
            let c = &candidates[n];
            let own_options = c.options.as_ref().map(Options::to_string);
            let parts = Parts {
                name: &c.name,
                address: c.address,
                id: ids[n].filter(|_| c.own_id().is_none()),
                server_options: c.configs.as_deref(),
                own_options: own_options.as_deref(),
                weight: c.backend.weight.filter(|_| self.top.use_nerve_weights).map(|w| w.get()),
                backup: c.backup,
                disabled: !c.live || c.backend.status == Status::Down,
                draining: c.backend.status == Status::Draining && any_up,
            };
            server(&parts, prepared, &mut self.scratch).with_inherited_weight(&prepared.inherited)
        });
        let servers = servers.collect();
        Section {
            name: prepared.section.clone(),
            skeleton: prepared.skeleton(self.shared_names).clone(),
            servers,
            inherited: prepared.inherited.clone(),
            text: Default::default(),
        }
    }

    /// Remembered servers first, then discovered ones; a discovered one takes the remembered one's place.
    fn candidates(&mut self, service: &ServiceName, prepared: &Prepared, pool: Option<&Pool>) -> Vec<Candidate> {
        let live = pool.map(Pool::backends).unwrap_or_default();
        let mut out: Vec<Candidate> = Vec::with_capacity(live.len());
        let mut index: HashMap<Arc<str>, usize> = HashMap::with_capacity(live.len());
        let mut bad: Vec<(String, String)> = Vec::new();
        let remembered: Vec<Remembered> =
            self.state.as_ref().map(|s| s.of(service, self.now).cloned().collect()).unwrap_or_default();
        for r in remembered {
            let Some(mut c) = self.candidate(&r.backend, None, prepared, &mut bad) else { continue };
            (c.live, c.seen, c.remembered, c.explicit) = (false, r.seen, r.id, c.own_id());
            index.insert(c.name.text.clone(), out.len());
            out.push(c);
        }
        bad.clear(); // what is remembered and cannot be used any more is simply forgotten
        for backend in live.iter().filter(|b| b.transport == Transport::Tcp) {
            let copies = [None, prepared.haproxy.server_backup_port];
            for backup in copies.into_iter().take(1 + usize::from(copies[1].is_some())) {
                let Some(c) = self.candidate(backend, backup, prepared, &mut bad) else { continue };
                match index.get(&c.name.text) {
                    Some(at) if !out[*at].live => {
                        out[*at] = Candidate { remembered: out[*at].remembered, ..c };
                    }
                    Some(at) => {
                        let first = &out[*at].backend.id;
                        bad.push((
                            c.name.text.to_string(),
                            format!("the registration {first} has this server name already"),
                        ));
                    }
                    None => {
                        index.insert(c.name.text.clone(), out.len());
                        out.push(c);
                    }
                }
            }
        }
        drop_impossible(&mut out, &mut bad);
        let reasons = bad.into_iter().map(|(server, reason)| Quarantined { service: service.clone(), server, reason });
        self.quarantined.extend(reasons);
        out
    }

    /// A registration as a server, or why not.
    fn candidate(
        &mut self,
        backend: &Arc<Backend>,
        backup: Option<u16>,
        prepared: &Prepared,
        bad: &mut Vec<(String, String)>,
    ) -> Option<Candidate> {
        let port = backup.unwrap_or(backend.port.get());
        let server_name = Name::of(backend, port, &mut self.scratch);
        let mut refuse = |reason: String| {
            bad.push((server_name.text.to_string(), reason));
            None
        };
        if server_name.text.bytes().any(|b| !(b.is_ascii_alphanumeric() || b"_.:-".contains(&b))) {
            return refuse("HAProxy takes only A-Z a-z 0-9 _ . : - in a server's name".to_owned());
        }
        let ip = match (&backend.host, self.names) {
            (Host::Ip(ip), _) => *ip,
            (Host::Name(name), Some(names)) => match names.get(name) {
                Some(ip) => ip,
                None => return refuse(names.refused(name).unwrap_or("its host name has no address").to_owned()),
            },
            (Host::Name(name), None) if **name == *"localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            (Host::Name(_), None) => NOT_ASKED,
        };
        // An empty text counts as none, but leaves its blank in the line.
        let empty = || backend.raw.as_deref().filter(|raw| raw.contains("\"haproxy_server_options\":\"\"")).map(|_| "");
        let text = backend.haproxy_server_options.as_deref().or_else(empty);
        // Which servers there are is not known yet.
        let place = options::Place {
            mode: prepared.mode,
            http_checks: prepared.http_checks,
            allowed: &self.top.allow_registry_options,
            tracked: &|_| true,
        };
        let filled = |o: &str| fill(o, server_name.host(), server_name.port(), &server_name.text);
        let read = text.map(|o| filled(o).and_then(|o| options::parse(&o, &place))).transpose();
        let options = match read {
            Ok(options) => options,
            Err(why) => return refuse(format!("haproxy_server_options: {why}")),
        };
        // The operator's own were tried when the config was read; those of a section from the registry are read as these are.
        let configs = prepared.haproxy.server_options.as_deref().map(|o| match prepared.haproxy.from_registry {
            true => filled(o).and_then(|o| options::parse(&o, &place)).map(|o| o.to_string()),
            false => Ok(filled(o).unwrap_or_default()),
        });
        let configs = match configs.transpose() {
            Ok(configs) => configs,
            Err(why) => return refuse(format!("server_options: {why}")),
        };
        let in_options = options.as_ref().and_then(Options::id);
        let explicit = in_options.or(backend.haproxy_server_id);
        // Its backup copy cannot have the same one.
        let explicit = explicit.filter(|_| backup.is_none());
        if backup.is_some() && in_options.is_some() {
            return refuse("haproxy_server_options has an id, which its backup copy cannot share".to_owned());
        }
        Some(Candidate {
            name: server_name,
            backend: backend.clone(),
            address: SocketAddr::new(ip, port),
            options,
            configs,
            explicit,
            remembered: None,
            backup: backup.is_some(),
            live: true,
            seen: None,
        })
    }
}

/// What is judged when all servers are known: explicit ids against each other, of which the first live one has it, and whom a server may
/// track.
fn drop_impossible(out: &mut Vec<Candidate>, bad: &mut Vec<(String, String)>) {
    let mut taken: HashMap<u32, Arc<str>> = HashMap::new();
    for live in [true, false] {
        for c in out.iter().filter(|c| c.live == live) {
            let Some(id) = c.explicit else { continue };
            taken.entry(id).or_insert_with(|| c.name.text.clone());
        }
    }
    let mut drop = |out: &mut Vec<Candidate>, why_not: &dyn Fn(&Candidate) -> Option<String>| {
        let before = out.len();
        out.retain(|c| {
            let why = why_not(c);
            bad.extend(why.iter().filter(|_| c.live).map(|why| (c.name.text.to_string(), why.clone())));
            why.is_none()
        });
        out.len() < before
    };
    drop(out, &|c| {
        let id = c.explicit.filter(|id| taken.get(id) != Some(&c.name.text))?;
        Some(format!("id {id} belongs to another registration"))
    });
    // Who tracks a server that is left out is left out, too.
    let tracks = |c: &Candidate| c.options.as_ref().is_some_and(|o| o.tracks().is_some());
    while out.iter().any(tracks) {
        let names: HashSet<Arc<str>> = out.iter().map(|c| c.name.text.clone()).collect();
        let dropped = drop(out, &|c| {
            let name = c.options.as_ref()?.tracks().filter(|name| !names.contains(*name))?;
            Some(format!("track {name}: no such server in this section"))
        });
        if !dropped {
            break;
        }
    }
}
