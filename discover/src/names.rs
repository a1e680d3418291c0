//! Host names of backends as addresses. HAProxy never resolves the name of a server added at run time, and one name
//! without an address fails the whole file; so names are resolved here first. Each answer is held against the operator's policy: a
//! name that was harmless when it was registered may mean another address later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::trouble::{News, Trouble};
use model::{Host, Pool, ServiceMap};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use crate::addresses::AddressPolicy;

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

/// Names with their addresses. An address once known stays until an answer says another one.
#[derive(Debug)]
pub struct Resolved {
    policy: AddressPolicy,
    known: BTreeMap<Arc<str>, Known>,
    /// The names in each pool, in the order of the services: a pool that did not change is not read again.
    pools: Vec<(Arc<Pool>, Vec<Arc<str>>)>,
    generation: u64,
    answered: mpsc::UnboundedSender<Answer>,
    answers: mpsc::UnboundedReceiver<Answer>,
}

type Answer = (Arc<str>, Option<Vec<IpAddr>>);

#[derive(Debug, Default)]
struct Known {
    address: Option<IpAddr>,
    /// Why none of its addresses is taken.
    refused: Option<String>,
    /// `None` while the name is being asked.
    ask_again: Option<Instant>,
    /// What was said of it.
    trouble: Trouble,
}

impl Default for Resolved {
    fn default() -> Self {
        Self::new(AddressPolicy::default())
    }
}

impl Resolved {
    /// No name is known yet. Addresses that `policy` refuses are never given.
    pub fn new(policy: AddressPolicy) -> Self {
        // Bounded by the number of names: each is asked once at a time.
        let (answered, answers) = mpsc::unbounded_channel();
        Self { policy, known: BTreeMap::new(), pools: Vec::new(), generation: 0, answered, answers }
    }

    /// Why `name`, which resolves, has no address that may be used.
    pub fn refused(&self, name: &str) -> Option<&str> {
        self.known.get(name).and_then(|k| k.refused.as_deref())
    }

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
        let mut before = std::mem::take(&mut self.pools).into_iter();
        let read = |pool: &Arc<Pool>| match before.next() {
            Some(read) if Arc::ptr_eq(&read.0, pool) => read,
            _ => (pool.clone(), names_in(pool)),
        };
        self.pools = services.values().map(read).collect();
        let wanted: BTreeSet<Arc<str>> = self.pools.iter().flat_map(|(_, names)| names.iter().cloned()).collect();
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
            let known = self.known.entry(name.clone()).or_default();
            known.ask_again = None;
            let answered = self.answered.clone();
            tokio::spawn(async move {
                let addresses = look_up(&name).await;
                let _ = answered.send((name, addresses)); // the generator may have ended meanwhile
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
        let Some(addresses) = answer else {
            if known.address.is_none() && known.refused.is_none() && known.trouble.fail("no address") == News::Begins {
                warn!(%name, "Host name has no address; its backends are left out.");
            }
            return;
        };
        if let Some(lasted) = known.trouble.end() {
            info!(%name, after_s = lasted.as_secs(), "Host name has an address again.");
        }
        let address = addresses.iter().copied().find(|ip| self.policy.judge(*ip).is_ok());
        let refused = addresses.first().filter(|_| address.is_none()).and_then(|ip| {
            let why = self.policy.judge(*ip).err()?;
            Some(format!("{name} is {ip}: {why}"))
        });
        if (address, &refused) != (known.address, &known.refused) {
            (known.address, known.refused) = (address, refused);
            self.generation += 1;
        }
    }

    /// When the next name is due, or an answer is looked for, if there are any.
    pub fn next_due(&self) -> Option<Instant> {
        let soon = Instant::now() + LOOK_AGAIN;
        self.known.values().map(|k| k.ask_again.unwrap_or(soon)).min()
    }
}

fn names_in(pool: &Pool) -> Vec<Arc<str>> {
    let name = |host: &Host| if let Host::Name(name) = host { Some(name.clone()) } else { None };
    pool.backends().iter().filter_map(|backend| name(&backend.host)).collect()
}

/// All of its addresses, at least one, the lowest first: resolvers rotate their answers, and a rotation is no change.
async fn look_up(name: &str) -> Option<Vec<IpAddr>> {
    let found = timeout(DEADLINE, tokio::net::lookup_host((name, 0))).await;
    let mut addresses: Vec<IpAddr> = found.ok()?.ok()?.map(|a| a.ip()).collect();
    addresses.sort_unstable();
    Some(addresses).filter(|all| !all.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Backend, Pool, Port};

    #[tokio::test]
    async fn a_name_is_resolved_without_holding_up_the_turn_and_forgotten_with_its_backend() {
        let backend =
            |id: &str, host: &str| Arc::new(Backend::new(id.parse().unwrap(), host.parse().unwrap(), Port::MIN));
        let pool: Pool = [backend("a", "localhost"), backend("b", "127.0.0.1")].into_iter().collect();
        let services = ServiceMap::from([("web".parse().unwrap(), Arc::new(pool))]);
        let mut names = Resolved::new(AddressPolicy::new(Vec::new(), true, false));
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

    #[tokio::test]
    async fn that_a_name_has_no_address_is_said_once_until_it_has_one() {
        let mut names = Resolved::new(AddressPolicy::new(Vec::new(), true, false));
        let name: Arc<str> = "web".into();
        names.known.insert(name.clone(), Known::default());
        for _ in 0..2 {
            names.note((name.clone(), None));
            assert_eq!(names.known.get_mut("web").unwrap().trouble.fail("no address"), News::None);
        }
        names.note((name.clone(), Some(vec![IpAddr::from([127, 0, 0, 1])])));
        assert_eq!(names.known.get_mut("web").unwrap().trouble.end(), None);
    }

    #[tokio::test]
    async fn each_answer_is_judged_and_of_several_addresses_an_allowed_one_is_taken() {
        let mut names = Resolved::default();
        let name: Arc<str> = "web".into();
        names.known.insert(name.clone(), Known::default());
        let mut answer = |all: &[&str]| {
            names.note((name.clone(), Some(all.iter().map(|ip| ip.parse().unwrap()).collect())));
            (names.get("web").map(|ip| ip.to_string()), names.refused("web").map(str::to_owned), names.generation())
        };
        let good = |ip: &str, generation| (Some(ip.to_owned()), None, generation);
        assert_eq!(answer(&["10.0.0.1"]), good("10.0.0.1", 1));
        assert_eq!(answer(&["10.0.0.1", "10.0.0.2"]), good("10.0.0.1", 1), "an address more is no change");
        let (address, refused, generation) = answer(&["127.0.0.1", "169.254.169.254"]);
        assert_eq!((address, generation), (None, 2), "the name was rebound");
        assert!(refused.unwrap().starts_with("web is 127.0.0.1: a loopback address"));
        assert_eq!(answer(&["127.0.0.1", "10.0.0.3"]), good("10.0.0.3", 3));
        names.note((name.clone(), None));
        assert_eq!(names.get("web").unwrap().to_string(), "10.0.0.3", "no answer is no other answer");
    }
}
