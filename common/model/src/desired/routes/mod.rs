//! Under which hosts and paths, and names of TLS, a container wants to be reached through the edge, in whoever's words it says so.
//!
//! For each of its ports the first of these that says anything counts, and the others are named as not used: our labels
//! ([`own`]), Traefik's ([`traefik`]), caddy-docker-proxy's ([`caddy`]), nginx-proxy's variables ([`nginx`]). What cannot be imported as
//! it was meant is refused with its reason, never guessed, and that one route alone is left out.

mod caddy;
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

use super::container::Container;
use super::labels::Vocabulary;
use super::naming::excerpt;
use crate::{HostPattern, Mode, Port, Route, Routes, SniNames};

/// Begins a route's line of the trail.
const ROUTE: &str = "route: ";
/// Which of the vocabularies is Traefik's.
const TRAEFIK: usize = 1;
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
}

impl Asked {
    /// For one of its TCP ports.
    pub fn at(&self, port: Port) -> PortRoutes {
        self.ports.get(&port).cloned().unwrap_or_default()
    }
}

/// Reads what a container with these registered TCP ports asks for.
pub fn read(container: &Container, vocabulary: &Vocabulary<'_>, tcp: &BTreeSet<Port>) -> Asked {
    const WORDS: [&str; 4] = ["register's own", "Traefik's", "caddy-docker-proxy's", "nginx-proxy's"];
    let said = [
        wishes(own::read(vocabulary, tcp), sni::read(vocabulary, tcp)),
        wishes(traefik::read(&container.labels, tcp), traefik_tcp::read(&container.labels, tcp)),
        wishes(caddy::read(&container.labels, tcp), Vec::new()),
        wishes(nginx::read(vocabulary, tcp), Vec::new()),
    ];
    let mut asked = Asked::default();
    let mut counting: BTreeMap<Port, usize> = BTreeMap::new();
    let mut given: BTreeMap<Port, Vec<(Route, String)>> = BTreeMap::new();
    let mut names: BTreeMap<Port, Vec<(HostPattern, String)>> = BTreeMap::new();
    for (rank, proposal) in said.into_iter().enumerate().flat_map(|(rank, all)| all.into_iter().map(move |p| (rank, p)))
    {
        let Proposal { port, origin, route } = proposal;
        let Some(port) = port else {
            asked.warnings.extend(route.err().map(|why| format!("{origin}: {why}")));
            continue;
        };
        let found = asked.ports.entry(port).or_default();
        let first = *counting.entry(port).or_insert(rank);
        match route {
            _ if first != rank => found.refused.push(format!("{origin} is not used: {} labels count", WORDS[first])),
            Ok(Wish::Route(route)) => given.entry(port).or_default().push((route, origin)),
            Ok(Wish::Sni(name)) => names.entry(port).or_default().push((name, origin)),
            Err(why) => found.refused.push(format!("{origin}: {why}")),
        }
    }
    for (port, origin) in traefik::h2(&container.labels, tcp) {
        if counting.get(&port) == Some(&TRAEFIK) {
            asked.ports.entry(port).or_default().h2 = Some(origin);
        }
    }
    for (port, given) in given {
        let found = asked.ports.entry(port).or_default();
        let (routes, surplus) = Routes::new(given.iter().map(|(route, _)| route.clone()));
        found.trail = routes.iter().map(|route| format!("{ROUTE}{route}, by {}", origin_of(&given, route))).collect();
        found.refused.extend(surplus.iter().map(ToString::to_string));
        found.routes = routes;
    }
    for (port, given) in names {
        let found = asked.ports.entry(port).or_default();
        let (sni, surplus) = SniNames::new(given.iter().map(|(name, _)| name.clone()));
        let line = |name: &HostPattern| format!("TLS passed through: {name}, by {}", origin_of(&given, name));
        found.trail.extend(sni.iter().map(line));
        found.refused.extend(surplus.iter().map(ToString::to_string));
        found.sni = sni;
    }
    asked.ports.values_mut().map(|port| &mut port.refused).for_each(shorten);
    shorten(&mut asked.warnings);
    asked
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
    ports.extend(nginx::port(vocabulary).and_then(Result::ok));
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
        told.push(format!("and {more} more about routes"));
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
