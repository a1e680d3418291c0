//! Servers that would be HAProxy itself. One request to such a server goes round until every connection is used up, and its check
//! passes, on HAProxy itself.
//!
//! The rule is about the finished layout, so that it holds whatever made the section, the name or the server: no server of a layout is
//! at an address and port that this layout binds, or that the running one does, or where discover's own admin server listens. A server
//! that becomes such a one because a listener begins there goes together with that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use agent::hostip::own_addresses;
use tokio::time::Instant;
use tracing::warn;

use super::layout::{Layout, Section};

/// How often this host's addresses are asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many servers of one turn have a line of the log of their own.
const MOST_LINES: usize = 20;

/// Finds them, and remembers what was found: a section that did not change is not looked at again.
#[derive(Debug, Default)]
pub struct Loops {
    listeners: Listeners,
    /// The texts that the listeners were read from.
    texts: Vec<Arc<str>>,
    looked: Option<Instant>,
    sections: Vec<Looked>,
    reasons: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Looked {
    before: Arc<Section>,
    after: Arc<Section>,
    reasons: Vec<(String, String)>,
}

impl Loops {
    /// Knows where discover's admin server listens, if it does.
    pub fn new(admin: Option<SocketAddr>) -> Self {
        Self { listeners: Listeners { admin, ..Listeners::default() }, ..Self::default() }
    }

    /// Asks which addresses this host has, now and then. Where HAProxy runs elsewhere (`here` is false) they say nothing about it.
    pub fn look(&mut self, here: bool, now: Instant) {
        if self.looked.is_some_and(|at| now < at + LOOK_EVERY) {
            return;
        }
        self.looked = Some(now);
        let own = if here { own_addresses() } else { Some(BTreeSet::new()) };
        if let Some(own) = own.filter(|own| *own != self.listeners.own) {
            self.listeners.own = own;
            self.sections.clear();
        }
    }

    /// Takes such servers out of `layout`, while `running` is what runs. Tells whether it found others than the last time.
    pub fn leave_out(&mut self, layout: &mut Layout, running: &Layout) -> bool {
        let texts = || texts(layout).chain(texts(running));
        let same = |(a, b): (&Arc<str>, &Arc<str>)| Arc::ptr_eq(a, b) || a == b;
        if self.texts.len() != texts().count() || !self.texts.iter().zip(texts()).all(same) {
            self.texts = texts().cloned().collect();
            if self.listeners.read(self.texts.iter().map(|text| &**text)) {
                self.sections.clear();
            }
        }
        let mut before = std::mem::take(&mut self.sections).into_iter();
        for section in &mut layout.sections {
            let looked = match before.next().filter(|looked| Arc::ptr_eq(&looked.before, section)) {
                Some(looked) => looked,
                None => self.listeners.look_at(section),
            };
            *section = looked.after.clone();
            self.sections.push(looked);
        }
        let reasons: BTreeMap<_, _> = self.sections.iter().flat_map(|looked| looked.reasons.iter().cloned()).collect();
        if reasons == self.reasons {
            return false;
        }
        let mut new = reasons.iter().filter(|(server, why)| self.reasons.get(*server) != Some(*why));
        for (server, why) in new.by_ref().take(MOST_LINES) {
            warn!(%server, %why, "Server is left out of haproxy.cfg: it would be a loop.");
        }
        let more = new.count();
        if more > 0 {
            warn!(more, "More servers are left out as loops; `discover status` names them.");
        }
        self.reasons = reasons;
        true
    }

    /// The servers that are left out: `section/server`, and why.
    pub fn reasons(&self) -> impl Iterator<Item = (String, String)> {
        self.reasons.iter().map(|(server, why)| (server.clone(), why.clone()))
    }
}

/// All that can say where a layout listens.
fn texts(layout: &Layout) -> impl Iterator<Item = &Arc<str>> {
    let sections = layout.sections.iter().map(|section| &section.skeleton);
    [&layout.header, &layout.footer].into_iter().chain(sections)
}

/// Where HAProxy and discover listen.
#[derive(Debug, Default)]
struct Listeners {
    ports: HashMap<u16, Vec<At>>,
    /// First and last port of ranges.
    ranges: Vec<(u16, u16, At)>,
    admin: Option<SocketAddr>,
    /// The addresses of this host, beside loopback.
    own: BTreeSet<IpAddr>,
}

/// At which of this host's addresses something listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    /// All of them; also a name, which only HAProxy can tell the address of.
    All,
    /// All of IPv4.
    AllV4,
    /// This one, IPv4 in its own form.
    One(IpAddr),
}

impl At {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Self::AllV4,
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Self::All,
            ip => Self::One(ip),
        }
    }
}

impl Listeners {
    /// Reads where HAProxy listens; tells whether that is elsewhere than before.
    fn read<'a>(&mut self, texts: impl Iterator<Item = &'a str>) -> bool {
        let (mut ports, mut ranges): (HashMap<u16, Vec<At>>, Vec<_>) = Default::default();
        for (low, high, at) in texts.flat_map(str::lines).flat_map(places).flat_map(places_of) {
            let known: &mut Vec<At> = match low == high {
                true => ports.entry(low).or_default(),
                false => {
                    ranges.push((low, high, at));
                    continue;
                }
            };
            if !known.contains(&at) {
                known.push(at);
            }
        }
        ports.values_mut().for_each(|known| known.sort_unstable());
        let changed = (&ports, &ranges) != (&self.ports, &self.ranges);
        (self.ports, self.ranges) = (ports, ranges);
        changed
    }

    /// Who listens at `address`, if it is HAProxy or discover.
    fn at(&self, address: SocketAddr) -> Option<&'static str> {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let covers = |at: &At| match at {
            At::All => self.is_own(ip),
            At::AllV4 => ip.is_ipv4() && self.is_own(ip),
            At::One(one) => *one == ip || ip.is_unspecified(),
        };
        let ranges = || self.ranges.iter().filter(|(low, high, _)| (*low..=*high).contains(&port));
        if self.ports.get(&port).is_some_and(|all| all.iter().any(covers)) || ranges().any(|(_, _, at)| covers(at)) {
            return Some("HAProxy itself");
        }
        self.admin.filter(|admin| admin.port() == port && covers(&At::of(admin.ip()))).map(|_| "discover itself")
    }

    /// Whether this host answers at `ip`.
    fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || ip.is_unspecified() || self.own.contains(&ip)
    }

    fn look_at(&self, section: &Arc<Section>) -> Looked {
        let mut reasons = Vec::new();
        for server in &section.servers {
            if let Some(who) = self.at(server.address) {
                let why = format!("{}: {who} listens there", server.address);
                reasons.push((format!("{}/{}", section.name, server.name), why));
            }
        }
        let after = match reasons.is_empty() {
            true => section.clone(),
            false => {
                let servers = section.servers.iter().filter(|s| self.at(s.address).is_none()).cloned().collect();
                let (name, skeleton, inherited) =
                    (section.name.clone(), section.skeleton.clone(), section.inherited.clone());
                Arc::new(Section { name, skeleton, servers, inherited, text: Default::default() })
            }
        };
        Looked { before: section.clone(), after, reasons }
    }
}

/// The word of a line of haproxy.cfg that says where HAProxy listens: `bind`, the runtime API over TCP (`stats socket`), and `peer`.
fn places(line: &str) -> Option<&str> {
    let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
    match words.next()? {
        "bind" => words.next(),
        "stats" if words.next() == Some("socket") => words.next(),
        "peer" => words.nth(1),
        _ => None,
    }
}

/// The TCP addresses of such a word, as first port, last port and address. Sockets of other kinds are left out.
fn places_of(word: &str) -> Vec<(u16, u16, At)> {
    word.split(',').flat_map(|text| place_of(text).unwrap_or_default()).collect()
}

fn place_of(text: &str) -> Option<Vec<(u16, u16, At)>> {
    let text = text.trim_matches(['"', '\'']);
    let (v6, text) = match text.split_once('@') {
        None => (false, text),
        Some(("ipv4" | "tcp" | "tcp4" | "mptcp" | "mptcp4", rest)) => (false, rest),
        Some(("ipv6" | "tcp6" | "mptcp6", rest)) => (true, rest),
        Some(_) => return None, // unix@, abns@, fd@, udp@, quic4@ …
    };
    let (host, ports) = text.rsplit_once(':').filter(|_| !text.contains('/'))?;
    let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
    let (low, high) = (low.parse().ok()?, high.parse().ok()?);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let at = match (host, host.parse()) {
        ("" | "*", _) if v6 => vec![At::All],
        ("" | "*", _) => vec![At::AllV4],
        // Synapse's own default; of which family it is the system says.
        ("localhost", _) => vec![At::of(Ipv4Addr::LOCALHOST.into()), At::of(Ipv6Addr::LOCALHOST.into())],
        (_, Ok(ip)) => vec![At::of(ip)],
        (_, Err(_)) => vec![At::All],
    };
    Some(at.into_iter().map(|at| (low, high, at)).collect())
}

#[cfg(test)]
#[path = "loops_tests.rs"]
mod tests;
