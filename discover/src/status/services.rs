//! Each service with the states of its backends.
//!
//! Where HAProxy is asked, it decides: a backend is `up` that can take a request, whatever its registration says. A service that asks for no place in HAProxy (no port
//! and no route, UDP only) goes by its registrations, and so does everything where no HAProxy is asked: in files mode, with a config without a socket, and with the
//! other generators alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use agent::sync::lock;
use model::{Backend, Pool, ServiceName};

use crate::generators::haproxy::file::places::{EdgePlaces, Places};
use crate::generators::haproxy::traffic::asking::{Answer, Traffic};
use crate::generators::haproxy::traffic::seen::{BackendState, Seen, SeenServer, ServiceTraffic};
use crate::generators::haproxy::turn::status::{EdgeStatus, HaproxyStatus};

/// HAProxy's part of it.
#[derive(Debug, Clone)]
pub struct HaproxyPart {
    /// What its generator did and knows.
    pub status: Arc<Mutex<HaproxyStatus>>,
    /// What HAProxy itself says.
    pub traffic: Traffic,
}

impl HaproxyPart {
    /// Requests and errors of a service in the last minutes, the oldest first; see [`samples`](crate::generators::haproxy::traffic::samples).
    pub fn samples(&self, service: &ServiceName, pool: &Pool, seconds: u64) -> Vec<[u64; 2]> {
        let status = lock(&self.status);
        let edge = status.edge.as_ref().map(EdgeStatus::places).unwrap_or_default();
        let own = self.traffic.places().sections(service, Some(pool));
        self.traffic.samples().of(own.iter().map(|own| &**own).chain(edge.sections(service)), seconds)
    }
}

/// What is known of all backends at one moment.
#[derive(Debug, Clone)]
pub struct View {
    answer: Answer,
    places: Places,
    /// The edge's sections: of each way by service.
    edge: Vec<BTreeMap<ServiceName, BTreeSet<String>>>,
}

impl View {
    /// Of what HAProxy said last, if there is one.
    pub fn of(haproxy: Option<&HaproxyPart>) -> Self {
        let Some(HaproxyPart { status, traffic }) = haproxy else {
            return Self { answer: Answer::NotAsked, places: Places::Native, edge: Vec::new() };
        };
        let answer = traffic.answer();
        let edge = match (&answer, &lock(status).edge) {
            (Answer::NotAsked, _) | (_, None) => Vec::new(),
            (_, Some(edge)) => edge.places().0.into_iter().cloned().collect(),
        };
        Self { answer, places: traffic.places().clone(), edge }
    }

    /// Whether HAProxy's own answer is known.
    pub fn is_seen(&self) -> bool {
        matches!(self.answer, Answer::Seen(_))
    }

    /// Who says what state a backend is in, for a person.
    pub fn seen_by(&self) -> String {
        match &self.answer {
            Answer::NotAsked => "the registrations: no HAProxy is asked".to_owned(),
            Answer::Silent(why) => format!("nobody: HAProxy does not answer ({why})"),
            Answer::Seen(_) => "HAProxy".to_owned(),
        }
    }

    /// HAProxy's server for a backend, where it has one: of several the best.
    pub fn server(&self, service: &ServiceName, pool: &Pool, backend: &Backend) -> Option<Arc<SeenServer>> {
        let Answer::Seen(seen) = &self.answer else { return None };
        let edge = EdgePlaces(self.edge.iter().collect());
        seen.servers(service, pool, backend, &self.places, &edge).into_iter().next()
    }

    /// A service with this pool. With a HAProxy that does not answer, none of its backends is known to be up.
    pub fn service(&self, service: &ServiceName, pool: &Arc<Pool>) -> ServiceTraffic {
        let edge = EdgePlaces(self.edge.iter().collect());
        let by_registrations = || ServiceTraffic::of_registrations(pool);
        match &self.answer {
            Answer::NotAsked => by_registrations(),
            Answer::Seen(seen) => seen.service(service, pool, &self.places, &edge).unwrap_or_else(by_registrations),
            Answer::Silent(_) => {
                let nothing = Seen::default().service(service, pool, &self.places, &edge);
                let told = by_registrations();
                let down = |state: BackendState| if state == BackendState::Up { BackendState::Down } else { state };
                match nothing {
                    None => told,
                    Some(_) => ServiceTraffic { states: told.states.into_iter().map(down).collect(), counts: None },
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;
