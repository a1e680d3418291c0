//! What HAProxy answered: the state of each server, and the counters of each section. Pure.

use std::collections::HashMap;

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
    servers: HashMap<String, BackendState>,
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
            let state = BackendState::of_server(&row);
            match row.kind {
                StatKind::Section => sections.entry(row.section).or_default().counts = row.counts,
                StatKind::Server => _ = sections.entry(row.section).or_default().servers.insert(row.name, state),
                StatKind::Frontend | StatKind::Listener => {}
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
            let at_own = own.iter().filter_map(|section| section.servers.get(&*places.server(backend)));
            let names = Places::servers_at_the_edge(service, backend);
            let at_edge = edge.iter().filter_map(|section| names.iter().find_map(|name| section.servers.get(&**name)));
            // A request reaches it by either way.
            match at_own.chain(at_edge).max() {
                Some(BackendState::Maint) if backend.status == Status::Down => BackendState::Down,
                Some(state) => *state,
                None => BackendState::Down,
            }
        };
        let states = pool.backends().iter().map(|backend| state(backend)).collect();
        let counts = own.iter().chain(&edge).map(|section| section.counts);
        Some(ServiceTraffic { states, counts: Some(counts.fold(Counts::default(), Counts::and)) })
    }
}

#[cfg(test)]
#[path = "seen_tests.rs"]
mod tests;
