//! What HAProxy answered: the state of each server, and the counters of each section. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use model::{Backend, Pool, ServiceName, Status, Transport};

use crate::generators::haproxy::file::places::{EdgePlaces, Places};
use crate::haproxy::api::stats::{Counts, StatKind, StatRow};

/// What may become of a request to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendState {
    /// It is not there, or its check or agent says that it does not work.
    Down,
    /// In maintenance, by an operator's or an agent's word.
    Maint,
    /// It finishes what it has: drained by discover, by its agent or by hand.
    Draining,
    /// It can take one.
    Up,
}

impl BackendState {
    /// All, in the order of the status.
    pub const ALL: [Self; 4] = [Self::Up, Self::Down, Self::Draining, Self::Maint];

    /// Its name in the status and the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Maint => "maint",
        }
    }

    /// What its registration says.
    pub fn of_registration(backend: &Backend) -> Self {
        match backend.status {
            Status::Up => Self::Up,
            Status::Draining => Self::Draining,
            Status::Down => Self::Down,
        }
    }

    /// What HAProxy says of a server.
    ///
    /// Source: HAProxy 3.0, `stats_fill_sv_stats`: `UP`, `UP 1/3`, `DOWN`, `DOWN 1/2`, `DOWN (agent)`, `NOLB`, `DRAIN`, `DRAIN (agent)`, `no check`, `MAINT`,
    /// `MAINT (via SECTION/SERVER)`, `MAINT (resolution)`.
    fn of_server(row: &StatRow) -> Self {
        match row.status.split([' ', '(']).next().unwrap_or_default() {
            "MAINT" => Self::Maint,
            "NOLB" | "DRAIN" => Self::Draining,
            "UP" | "no" if row.weight == Some(0) => Self::Draining,
            "UP" | "no" => Self::Up,
            _ => Self::Down,
        }
    }
}

/// HAProxy's answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen(HashMap<String, SeenSection>);

#[derive(Debug, Default, PartialEq, Eq)]
struct SeenSection {
    counts: Counts,
    servers: HashMap<String, Arc<SeenServer>>,
}

/// One server, as HAProxy has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenServer {
    /// What may become of a request to it.
    pub state: BackendState,
    /// HAProxy's own word for that: `UP 1/3`, `no check`.
    pub status: Box<str>,
    /// The last check's result, `L4CON`; empty without checks.
    pub check: Box<str>,
    /// What that check said, for people.
    pub said: Box<str>,
    /// For how long it has been in this state.
    pub since: Option<Duration>,
    /// Its share of the traffic.
    pub weight: Option<u64>,
    pub counts: Counts,
}

impl SeenServer {
    fn of(row: &StatRow) -> Self {
        Self {
            state: BackendState::of_server(row),
            status: (*row.status).into(),
            check: (*row.check_status).into(),
            said: (*row.last_check).into(),
            since: row.lastchg,
            weight: row.weight,
            counts: row.counts,
        }
    }
}

/// One service as it is seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceTraffic {
    /// The state of each backend, in the pool's order.
    pub states: Vec<BackendState>,
    /// What was counted; `None` where nobody counts.
    pub counts: Option<Counts>,
}

impl ServiceTraffic {
    /// As the registrations say, where no HAProxy serves the service.
    pub fn of_registrations(pool: &Pool) -> Self {
        Self { states: pool.backends().iter().map(|b| BackendState::of_registration(b)).collect(), counts: None }
    }

    /// How many backends are in this state.
    pub fn count(&self, state: BackendState) -> usize {
        self.states.iter().filter(|is| **is == state).count()
    }
}

impl Seen {
    /// Of the rows of sections and servers.
    pub fn of(rows: impl IntoIterator<Item = StatRow>) -> Self {
        let mut sections: HashMap<String, SeenSection> = HashMap::new();
        for row in rows {
            let server = (row.kind == StatKind::Server).then(|| SeenServer::of(&row));
            let section = row.section;
            match (row.kind, server) {
                (StatKind::Section, _) => sections.entry(section).or_default().counts = row.counts,
                (_, Some(server)) => {
                    _ = sections.entry(section).or_default().servers.insert(row.name, Arc::new(server))
                }
                _ => {}
            }
        }
        Self(sections)
    }

    /// A service with these backends. `None` where it is in no section, and asks for none.
    pub fn service(
        &self,
        service: &ServiceName,
        pool: &Pool,
        places: &Places,
        edge: &EdgePlaces<'_>,
    ) -> Option<ServiceTraffic> {
        let of_pool = |section: &&SeenSection| {
            pool.backends().iter().any(|backend| section.servers.contains_key(&*places.server(backend)))
        };
        let asked_for = places.is_asked_for(service, pool);
        let own = places.sections(service, Some(pool)).into_iter().filter_map(|own| self.0.get(&*own));
        let own: Vec<&SeenSection> = own.filter(|section| asked_for || of_pool(section)).collect();
        if own.is_empty() && !asked_for && edge.sections(service).next().is_none() {
            return None;
        }
        let edge: Vec<&SeenSection> = edge.sections(service).filter_map(|section| self.0.get(section)).collect();
        let state = |backend: &Backend| {
            if backend.transport == Transport::Udp {
                return BackendState::of_registration(backend); // HAProxy has nothing to do with it
            }
            // A request reaches it by either way.
            match servers(service, backend, places, &own, &edge).map(|server| server.state).max() {
                Some(BackendState::Maint) if backend.status == Status::Down => BackendState::Down,
                Some(state) => state,
                None => BackendState::Down,
            }
        };
        let states = pool.backends().iter().map(|backend| state(backend)).collect();
        let counts = own.iter().chain(&edge).map(|section| section.counts);
        Some(ServiceTraffic { states, counts: Some(counts.fold(Counts::default(), Counts::and)) })
    }

    /// The servers of one backend, wherever its service has a section: of several the best comes first.
    pub fn servers(
        &self,
        service: &ServiceName,
        pool: &Pool,
        backend: &Backend,
        places: &Places,
        edge: &EdgePlaces<'_>,
    ) -> Vec<Arc<SeenServer>> {
        let own =
            places.sections(service, Some(pool)).into_iter().filter_map(|own| self.0.get(&*own)).collect::<Vec<_>>();
        let edge: Vec<_> = edge.sections(service).filter_map(|section| self.0.get(section)).collect();
        let mut all: Vec<_> = servers(service, backend, places, &own, &edge).cloned().collect();
        all.sort_by_key(|server| std::cmp::Reverse(server.state));
        all
    }
}

/// The servers of one backend in its service's own sections and in those of the edge.
fn servers<'a>(
    service: &ServiceName,
    backend: &Backend,
    places: &Places,
    own: &[&'a SeenSection],
    edge: &[&'a SeenSection],
) -> impl Iterator<Item = &'a Arc<SeenServer>> {
    let name = places.server(backend);
    let names = Places::servers_at_the_edge(service, backend);
    let at_own = own.iter().filter_map(move |section| section.servers.get(&*name));
    at_own.chain(edge.iter().filter_map(move |section| names.iter().find_map(|name| section.servers.get(&**name))))
}

#[cfg(test)]
#[path = "seen_tests.rs"]
mod tests;
