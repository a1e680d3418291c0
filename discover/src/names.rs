//! Host names of backends as addresses. HAProxy never resolves the name of a server added at run time, and one name
//! without an address fails the whole file; so names are resolved here first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use common::model::{Host, ServiceMap};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

/// How long an answer is used before the name is asked again.
const FRESH: Duration = Duration::from_secs(30);
/// How long a failure is remembered.
const FAILED: Duration = Duration::from_secs(5);
/// How long one look-up may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long a turn waits for names that it sees for the first time: a slow name server must not hold up everybody.
const PATIENCE: Duration = Duration::from_millis(50);
/// How soon a turn looks for answers that were not there in time.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Names with their addresses. An address once known stays until another takes its place.
#[derive(Debug)]
pub struct Resolved {
    known: BTreeMap<Arc<str>, Known>,
    generation: u64,
    answered: mpsc::UnboundedSender<Answer>,
    answers: mpsc::UnboundedReceiver<Answer>,
}

type Answer = (Arc<str>, Option<IpAddr>);

#[derive(Debug)]
struct Known {
    address: Option<IpAddr>,
    /// `None` while the name is being asked.
    ask_again: Option<Instant>,
}

impl Default for Resolved {
    fn default() -> Self {
        // Bounded by the number of names: each is asked once at a time.
        let (answered, answers) = mpsc::unbounded_channel();
        Self { known: BTreeMap::new(), generation: 0, answered, answers }
    }
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

    /// Asks for the names in `services` that are new or due, all at once, and forgets those that are gone. Waits a
    /// moment for new ones only.
    pub async fn refresh(&mut self, services: &ServiceMap) {
        let backends = services.values().flat_map(|pool| pool.backends());
        let wanted: BTreeSet<Arc<str>> =
            backends.filter_map(|b| if let Host::Name(name) = &b.host { Some(name.clone()) } else { None }).collect();
        self.known.retain(|name, _| wanted.contains(name));
        while let Ok(answer) = self.answers.try_recv() {
            self.note(answer);
        }
        let now = Instant::now();
        let mut new = 0;
        for name in wanted {
            let known = self.known.get(&name);
            if known.is_some_and(|k| k.ask_again.is_none_or(|at| at > now)) {
                continue;
            }
            new += usize::from(known.is_none());
            let known = self.known.entry(name.clone()).or_insert(Known { address: None, ask_again: None });
            known.ask_again = None;
            let answered = self.answered.clone();
            tokio::spawn(async move {
                let address = look_up(&name).await;
                let _ = answered.send((name, address)); // the generator may have ended meanwhile
            });
        }
        let patience = now + PATIENCE;
        while new > 0
            && let Ok(Some(answer)) = timeout_at(patience, self.answers.recv()).await
        {
            self.note(answer);
            new -= 1;
        }
    }

    fn note(&mut self, (name, answer): Answer) {
        let Some(known) = self.known.get_mut(&name) else { return };
        known.ask_again = Some(Instant::now() + if answer.is_some() { FRESH } else { FAILED });
        match answer {
            Some(_) if answer != known.address => {
                known.address = answer;
                self.generation += 1;
            }
            Some(_) => {}
            None if known.address.is_none() => warn!(%name, "Host name has no address; its backends are left out."),
            None => {}
        }
    }

    /// When the next name is due, or an answer is looked for, if there are any.
    pub fn next_due(&self) -> Option<Instant> {
        let soon = Instant::now() + LOOK_AGAIN;
        self.known.values().map(|k| k.ask_again.unwrap_or(soon)).min()
    }
}

/// The lowest address: resolvers rotate their answers, and a rotation is no change.
async fn look_up(name: &str) -> Option<IpAddr> {
    let found = timeout(DEADLINE, tokio::net::lookup_host((name, 0))).await;
    found.ok()?.ok()?.map(|a| a.ip()).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::model::{Backend, Pool, Port};

    #[tokio::test]
    async fn a_name_is_resolved_without_holding_up_the_turn_and_forgotten_with_its_backend() {
        let backend =
            |id: &str, host: &str| Arc::new(Backend::new(id.parse().unwrap(), host.parse().unwrap(), Port::MIN));
        let pool: Pool = [backend("a", "localhost"), backend("b", "127.0.0.1")].into_iter().collect();
        let services = ServiceMap::from([("web".parse().unwrap(), Arc::new(pool))]);
        let mut names = Resolved::default();
        let deadline = Instant::now() + Duration::from_secs(20);
        while names.get("localhost").is_none() && Instant::now() < deadline {
            names.refresh(&services).await;
            tokio::time::sleep(Duration::from_millis(5)).await; // until the deadline
        }
        assert!(names.get("localhost").is_some_and(|ip| ip.is_loopback()));
        assert_eq!((names.generation(), names.unresolved().count()), (1, 0));
        names.refresh(&ServiceMap::new()).await;
        assert_eq!(names.next_due(), None);
    }
}
