//! Under which hosts and paths, and names of TLS, a container wants to be reached through the edge, in whoever's words it says so.
//!
//! For each of its ports the first of these that says anything counts, and the others are named as not used: our labels
//! ([`own`]), Traefik's ([`traefik`]), caddy-docker-proxy's ([`caddy`]), nginx-proxy's variables ([`nginx`]). What cannot be imported as
//! it was meant is refused with its reason, never guessed, and that one route alone is left out; what restricts access and cannot be
//! kept closes its places to the container's other routes as well ([`guard`]). Each label and variable of these vocabularies is used,
//! refused, or named with what became of it. No message shows the value of another program's label.

#[cfg(test)]
mod access_tests;
mod caddy;
mod guard;
mod nginx;
mod own;
mod rule;
mod sni;
#[cfg(test)]
mod sni_tests;
#[cfg(test)]
mod tests;
mod traefik;
mod traefik_labels;
mod traefik_tcp;

use std::collections::{BTreeMap, BTreeSet};

use self::guard::Guard;
use self::traefik_labels::Labels;
use super::container::Container;
use super::decision::Skip;
use super::labels::Vocabulary;
use super::naming::excerpt;
use crate::{HostPattern, Mode, Port, Route, Routes, SniNames, Transport};

/// Begins a route's line of the trail.
const ROUTE: &str = "route: ";
/// Which of the vocabularies is whose.
const OWN: usize = 0;
const TRAEFIK: usize = 1;
const CADDY: usize = 2;
/// The most refusals told of one container.
const MOST_TOLD: usize = 32;
/// The most bytes of a list or a rule.
const MOST_BYTES: usize = 4096;

/// Something that a label or variable says about the edge.
struct Proposal<T = Route> {
    /// For which port; `None` where that cannot be told.
    port: Option<Port>,
    /// The label or variable.
    origin: String,
    /// A route, or why it is none.
    route: Result<T, String>,
}

impl<T> Proposal<T> {
    fn refused(port: Option<Port>, origin: impl Into<String>, why: impl Into<String>) -> Self {
        Self { port, origin: origin.into(), route: Err(why.into()) }
    }

    fn map<U>(self, what: impl FnOnce(T) -> U) -> Proposal<U> {
        Proposal { port: self.port, origin: self.origin, route: self.route.map(what) }
    }
}

/// What one vocabulary says.
#[derive(Default)]
struct Reading {
    routes: Vec<Proposal>,
    sni: Vec<Proposal<HostPattern>>,
    /// Restrictions that the edge cannot keep.
    guards: Vec<Guard>,
    /// What became of labels that no route and no refusal names.
    notes: Vec<String>,
    /// What has no effect although somebody may rely on it.
    unused: Vec<String>,
}

/// What a port can ask for.
enum Wish {
    /// Requests of a host and path.
    Route(Route),
    /// TLS of a name, as it comes.
    Sni(HostPattern),
}

/// What is asked for one port.
#[derive(Debug, Clone, Default)]
pub struct PortRoutes {
    /// The routes.
    pub routes: Routes,
    /// The names of TLS that is passed through.
    pub sni: SniNames,
    /// Another proxy's labels say that the program speaks HTTP/2 without TLS; by this one.
    pub h2: Option<String>,
    /// Where each of them comes from.
    pub trail: Vec<String>,
    /// What was left out, and why.
    pub refused: Vec<String>,
}

impl PortRoutes {
    /// Takes back what does not fit the mode: routes where the owner says that it is no HTTP, names of TLS where it is.
    pub fn fitting(mut self, mode: Option<Mode>) -> Self {
        match mode {
            Some(Mode::Tcp) => {
                let told = self.routes.iter().map(|route| format!("{route} is left out: the mode tcp was asked for"));
                self.refused.extend(told);
                self.routes = Routes::default();
                self.trail.retain(|line| !line.starts_with(ROUTE));
            }
            Some(Mode::Http) => {
                let told = self.sni.iter().map(|name| format!("TLS of {name} is left out: the mode is http"));
                self.refused.extend(told);
                self.sni = SniNames::default();
                self.trail.retain(|line| line.starts_with(ROUTE));
            }
            None => {}
        }
        self
    }
}

/// What a container asks for.
#[derive(Debug, Default)]
pub struct Asked {
    ports: BTreeMap<Port, PortRoutes>,
    /// What is about none of its ports.
    pub warnings: Vec<String>,
    /// What became of labels that are no routes by themselves.
    pub notes: Vec<String>,
}

impl Asked {
    /// For one of its TCP ports.
    pub fn at(&self, port: Port) -> PortRoutes {
        self.ports.get(&port).cloned().unwrap_or_default()
    }
}

/// What restricts the container as a whole, and cannot be kept.
pub fn restricted(vocabulary: &Vocabulary<'_>) -> Option<Skip> {
    nginx::restricted(vocabulary)
}

/// Reads what a container with these registered TCP ports asks for.
pub fn read(container: &Container, vocabulary: &Vocabulary<'_>, tcp: &BTreeSet<Port>) -> Asked {
    const WORDS: [&str; 4] = ["register's own", "Traefik's", "caddy-docker-proxy's", "nginx-proxy's"];
    let own = Reading { routes: own::read(vocabulary, tcp), sni: sni::read(vocabulary, tcp), ..Reading::default() };
    let said = [
        own,
        of_traefik(&container.labels, tcp),
        caddy::read(&container.labels, tcp),
        nginx::read(container, vocabulary, tcp),
    ];
    let mut asked = Asked::default();
    let mut guards = Vec::new();
    let mut counting: BTreeMap<Port, usize> = BTreeMap::new();
    let mut given: BTreeMap<Port, Vec<(Route, String)>> = BTreeMap::new();
    let mut names: BTreeMap<Port, Vec<(HostPattern, String)>> = BTreeMap::new();
    for (rank, reading) in said.into_iter().enumerate() {
        asked.notes.extend(reading.notes);
        asked.warnings.extend(reading.unused);
        guards.extend(reading.guards);
        for Proposal { port, origin, route } in wishes(reading.routes, reading.sni) {
            let Some(port) = port else {
                asked.warnings.extend(route.err().map(|why| format!("{origin}: {why}")));
                continue;
            };
            let found = asked.ports.entry(port).or_default();
            let first = *counting.entry(port).or_insert(rank);
            match route {
                _ if first != rank => {
                    found.refused.push(format!("{origin} is not used: {} labels count", WORDS[first]))
                }
                Ok(Wish::Route(route)) => given.entry(port).or_default().push((route, origin)),
                Ok(Wish::Sni(name)) => names.entry(port).or_default().push((name, origin)),
                Err(why) => found.refused.push(format!("{origin}: {why}")),
            }
        }
    }
    let h2 = traefik::h2(&container.labels, tcp).into_iter().map(|said| (TRAEFIK, said));
    for (rank, (port, origin)) in h2.chain(caddy::h2(&container.labels).map(|said| (CADDY, said))) {
        if counting.get(&port) == Some(&rank) {
            asked.ports.entry(port).or_default().h2 = Some(origin);
        }
    }
    // Who writes our own labels knows this edge.
    let is_own = |port: &Port| counting.get(port) == Some(&OWN);
    for (port, given) in given {
        let found = asked.ports.entry(port).or_default();
        let view = vocabulary.at(port, Transport::Tcp);
        let admit = |route: Route| match guards.iter().find_map(|guard| guard.closes(port, &route)) {
            _ if is_own(&port) => Ok(route),
            Some(why) => Err(format!("{route} {why}")),
            None => own::Options::read(&view)?.apply(route),
        };
        let given = admitted(given, admit, &mut found.refused);
        let (routes, surplus) = Routes::new(given.iter().map(|(route, _)| route.clone()));
        found.trail = routes.iter().map(|route| format!("{ROUTE}{route}, by {}", origin_of(&given, route))).collect();
        found.refused.extend(surplus.iter().map(ToString::to_string));
        found.routes = routes;
    }
    for (port, given) in names {
        let found = asked.ports.entry(port).or_default();
        let admit = |name: HostPattern| match guards.iter().find_map(|guard| guard.closes_name(port, &name)) {
            Some(why) if !is_own(&port) => Err(format!("TLS of {name} {why}")),
            _ => Ok(name),
        };
        let given = admitted(given, admit, &mut found.refused);
        let (sni, surplus) = SniNames::new(given.iter().map(|(name, _)| name.clone()));
        let line = |name: &HostPattern| format!("TLS passed through: {name}, by {}", origin_of(&given, name));
        found.trail.extend(sni.iter().map(line));
        found.refused.extend(surplus.iter().map(ToString::to_string));
        found.sni = sni;
    }
    asked.warnings.extend(own::idle(vocabulary, &counting.keys().copied().collect()));
    asked.ports.values_mut().map(|port| &mut port.refused).for_each(shorten);
    shorten(&mut asked.warnings);
    shorten(&mut asked.notes);
    asked
}

fn of_traefik(labels: &BTreeMap<String, String>, tcp: &BTreeSet<Port>) -> Reading {
    let labels = Labels::read(labels);
    match labels.disabled {
        Some(Ok(why)) => return Reading { notes: vec![why], ..Reading::default() },
        Some(Err(why)) => return Reading { unused: vec![why], ..Reading::default() },
        None => {}
    }
    let mut reading = traefik::read(&labels, tcp);
    traefik_tcp::read(&labels, tcp, &mut reading);
    reading
}

/// What of the given things may be, each with its origin; why others may not is added to `refused`.
fn admitted<T>(
    given: Vec<(T, String)>,
    admit: impl Fn(T) -> Result<T, String>,
    refused: &mut Vec<String>,
) -> Vec<(T, String)> {
    let mut kept = Vec::with_capacity(given.len());
    for (one, origin) in given {
        match admit(one) {
            Ok(one) => kept.push((one, origin)),
            Err(why) => refused.push(format!("{origin}: {why}")),
        }
    }
    kept
}

fn wishes(routes: Vec<Proposal>, names: Vec<Proposal<HostPattern>>) -> Vec<Proposal<Wish>> {
    let routes = routes.into_iter().map(|proposal| proposal.map(Wish::Route));
    routes.chain(names.into_iter().map(|proposal| proposal.map(Wish::Sni))).collect()
}

/// The label or variable that something given comes from.
fn origin_of<'a, T: PartialEq>(given: &'a [(T, String)], wanted: &T) -> &'a str {
    given.iter().find(|(one, _)| one == wanted).map_or("", |(_, origin)| origin)
}

/// The ports on which other proxies' labels and variables say that the program listens.
pub fn named_ports(container: &Container, vocabulary: &Vocabulary<'_>) -> BTreeSet<Port> {
    let mut ports = traefik::ports(&container.labels);
    ports.extend(caddy::ports(&container.labels));
    ports.extend(nginx::port(container, vocabulary));
    ports
}

/// The port that is meant where none is named: the only one, or 80.
fn usual(tcp: &BTreeSet<Port>) -> Option<Port> {
    match tcp.first() {
        Some(only) if tcp.len() == 1 => Some(*only),
        _ => Port::new(80).filter(|port| tcp.contains(port)),
    }
}

/// A container can say more than anybody wants to read.
fn shorten(told: &mut Vec<String>) {
    told.dedup();
    if told.len() > MOST_TOLD {
        let more = told.split_off(MOST_TOLD).len();
        told.push(format!("and {more} more of the kind"));
    }
}

/// The text, unless nobody can have meant so much.
fn bounded(text: &str) -> Result<&str, String> {
    if text.len() <= MOST_BYTES { Ok(text) } else { Err(format!("{} bytes are more than {MOST_BYTES}", text.len())) }
}

/// How a label is named where something is said about it.
fn label(name: &str) -> String {
    format!("label {}", excerpt(name))
}
