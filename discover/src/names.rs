//! Host names of backends as addresses. HAProxy never resolves the name of a server added at run time, and one name
//! without an address fails the whole file; so names are resolved here first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use common::model::{Host, ServiceMap};
use tokio::time::{Instant, timeout};
use tracing::warn;

/// How long an answer is used before the name is asked again.
const FRESH: Duration = Duration::from_secs(30);
/// How long a failure is remembered.
const FAILED: Duration = Duration::from_secs(5);
/// How long one look-up may take.
const DEADLINE: Duration = Duration::from_secs(2);

/// Names with their addresses. An address once known stays until another takes its place.
#[derive(Debug, Default)]
pub struct Resolved {
    known: BTreeMap<Arc<str>, Known>,
    generation: u64,
}

#[derive(Debug)]
struct Known {
    address: Option<IpAddr>,
    ask_again: Instant,
}

impl Resolved {
    /// The address of `name`, if it is known.
    pub fn get(&self, name: &str) -> Option<IpAddr> {
        self.known.get(name).and_then(|k| k.address)
    }

    /// Changes whenever an address does.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Names that have no address: their backends are left out.
    pub fn unresolved(&self) -> impl Iterator<Item = &str> {
        self.known.iter().filter(|(_, k)| k.address.is_none()).map(|(name, _)| &**name)
    }

    /// Asks for the names in `services` that are new or due, all at once, and forgets those that are gone.
    pub async fn refresh(&mut self, services: &ServiceMap) {
        let backends = services.values().flat_map(|pool| pool.backends());
        let wanted: BTreeSet<Arc<str>> =
            backends.filter_map(|b| if let Host::Name(name) = &b.host { Some(name.clone()) } else { None }).collect();
        if wanted.is_empty() && self.known.is_empty() {
            return;
        }
        self.known.retain(|name, _| wanted.contains(name));
        let now = Instant::now();
        let due = wanted.into_iter().filter(|name| self.known.get(name).is_none_or(|k| k.ask_again <= now));
        let answers = futures_util::future::join_all(due.map(|name| async {
            let address = look_up(&name).await;
            (name, address)
        }));
        for (name, answer) in answers.await {
            let was = self.get(&name);
            let ask_again = Instant::now() + if answer.is_some() { FRESH } else { FAILED };
            if answer.is_none() && !self.known.contains_key(&name) {
                warn!(%name, "Host name has no address; its backends are left out.");
            }
            let address = answer.or(was);
            self.generation += u64::from(address != was);
            self.known.insert(name, Known { address, ask_again });
        }
    }

    /// When the next name is due, if there are any.
    pub fn next_due(&self) -> Option<Instant> {
        self.known.values().map(|k| k.ask_again).min()
    }
}

/// The lowest address: resolvers rotate their answers, and a rotation is no change.
async fn look_up(name: &str) -> Option<IpAddr> {
    let found = timeout(DEADLINE, tokio::net::lookup_host((name, 0))).await;
    found.ok()?.ok()?.map(|a| a.ip()).min()
}
