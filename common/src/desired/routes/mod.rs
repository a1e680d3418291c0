//! Under which hosts and paths a container wants to be reached through the HTTP edge, in whoever's words it says so.
//!
//! For each of its ports the first of these that says anything counts, and the others are named as not used: our labels
//! ([`own`]), Traefik's ([`traefik`]), caddy-docker-proxy's ([`caddy`]), nginx-proxy's variables ([`nginx`]). What cannot be imported as
//! it was meant is refused with its reason, never guessed, and that one route alone is left out.

mod caddy;
mod nginx;
mod own;
mod rule;
#[cfg(test)]
mod tests;
mod traefik;
mod traefik_labels;

use std::collections::{BTreeMap, BTreeSet};

use super::container::Container;
use super::labels::Vocabulary;
use super::naming::excerpt;
use crate::model::{Mode, Port, Route, Routes};

/// The most refusals told of one container.
const MOST_TOLD: usize = 32;
/// The most bytes of a list or a rule.
const MOST_BYTES: usize = 4096;

/// Something that a label or variable says about the edge.
struct Proposal {
    /// For which port; `None` where that cannot be told.
    port: Option<Port>,
    /// The label or variable.
    origin: String,
    /// A route, or why it is none.
    route: Result<Route, String>,
}

impl Proposal {
    fn refused(port: Option<Port>, origin: impl Into<String>, why: impl Into<String>) -> Self {
        Self { port, origin: origin.into(), route: Err(why.into()) }
    }
}

/// What is asked for one port.
#[derive(Debug, Clone, Default)]
pub struct PortRoutes {
    /// The routes.
    pub routes: Routes,
    /// Where each of them comes from.
    pub trail: Vec<String>,
    /// What was left out, and why.
    pub refused: Vec<String>,
}

impl PortRoutes {
    /// Takes all routes back where the owner says that it is no HTTP.
    pub fn without_http(self, mode: Option<Mode>) -> Self {
        if mode != Some(Mode::Tcp) || self.routes.is_empty() {
            return self;
        }
        let told = self.routes.iter().map(|route| format!("{route} is left out: the mode tcp was asked for"));
        Self {
            routes: Routes::default(),
            trail: Vec::new(),
            refused: self.refused.iter().cloned().chain(told).collect(),
        }
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
        own::read(vocabulary, tcp),
        traefik::read(&container.labels, tcp),
        caddy::read(&container.labels, tcp),
        nginx::read(vocabulary, tcp),
    ];
    let mut asked = Asked::default();
    let mut counting: BTreeMap<Port, usize> = BTreeMap::new();
    let mut given: BTreeMap<Port, Vec<(Route, String)>> = BTreeMap::new();
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
            Ok(route) => given.entry(port).or_default().push((route, origin)),
            Err(why) => found.refused.push(format!("{origin}: {why}")),
        }
    }
    for (port, given) in given {
        let found = asked.ports.entry(port).or_default();
        let (routes, surplus) = Routes::new(given.iter().map(|(route, _)| route.clone()));
        let origin = |route: &Route| given.iter().find(|(g, _)| g == route).map_or("", |(_, origin)| origin);
        found.trail = routes.iter().map(|route| format!("route: {route}, by {}", origin(route))).collect();
        found.refused.extend(surplus.iter().map(ToString::to_string));
        found.routes = routes;
    }
    asked.ports.values_mut().map(|port| &mut port.refused).for_each(shorten);
    shorten(&mut asked.warnings);
    asked
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
