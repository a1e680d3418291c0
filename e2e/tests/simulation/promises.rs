//! What must hold whatever happens: the promises of the design, and what follows from them.

use std::collections::BTreeSet;

use e2e::{LabError, Result};
use model::Status;
use registry::store::{Revision, Store as _};
use tokio::time::{Duration, Instant};

use super::client::Routed;
use super::host::{Unit, by_backend};
use super::world::{HOLD, TTL, World, service};

/// After this time without any fault everything is as it should be: leases have run out, back-offs are over, silent
/// streams are found out, and what was written has been read back.
const SETTLED: Duration = Duration::from_secs(45);
/// How long a change may take while nothing is wrong: what is asked of a registry that answers at once.
const PROMPT: Duration = Duration::from_secs(1);

fn broken(what: String) -> Result<()> {
    Err(LabError::new(what))
}

impl World {
    /// Looks at everything, `before` being when it last was looked at.
    ///
    /// # Errors
    /// The first promise that is broken.
    pub fn check(&mut self, before: Instant) -> Result<()> {
        self.note();
        self.look_into_the_registry(before);
        self.registrations_stay()?;
        for client in 0..self.clients.len() {
            let routed = self.clients[client].routed();
            self.nobody_dead_is_routed(client, &routed)?;
            self.holds_are_bounded(client, &routed)?;
            self.nobody_alive_is_lost(client, &routed, before)?;
        }
        Ok(())
    }

    fn registered(&self) -> BTreeSet<String> {
        let id = |e: registry::store::Entry| e.key.rsplit('/').next().unwrap_or_default().to_owned();
        self.store.entries("/backends/").into_iter().map(id).filter(|id| !id.starts_with("junk")).collect()
    }

    fn look_into_the_registry(&mut self, before: Instant) {
        let registered = self.registered();
        for unit in &mut self.units {
            if registered.contains(unit.id.short()) {
                (unit.unregistered, unit.published) = (None, unit.published || unit.wants_clients());
                self.hosts[unit.host].published.insert(unit.number);
            } else if unit.unregistered.is_none() {
                unit.unregistered = Some(before);
            }
        }
    }

    /// Whether something has lasted for so long.
    fn lasts(since: Option<Instant>, time: Duration) -> bool {
        since.is_some_and(|at| at + time <= Instant::now())
    }

    /// Promise 3, on the hosts: an agent that runs and reaches the registry keeps what lives registered, whatever
    /// Docker does or says, once it was there.
    fn registrations_stay(&self) -> Result<()> {
        for unit in self.units.iter().filter(|u| u.wants_clients() && u.published && u.unregistered.is_some()) {
            let host = &self.hosts[unit.host];
            let linked = host.linked.filter(|_| host.published.contains(&unit.number));
            if Self::lasts(linked, SETTLED) && Self::lasts(Some(self.tampered.max(unit.changed)), SETTLED) {
                return broken(format!("unit {} lives and is registered no longer", unit.number));
            }
        }
        Ok(())
    }

    /// Since when everything between a unit and a client is well.
    fn well(&self, client: usize, unit: &Unit) -> Option<Instant> {
        let (host, client) = (self.hosts[unit.host].well?, self.clients[client].well?);
        Some(host.max(client).max(self.tampered))
    }

    /// Promise 1: what is known to be dead or leaving gets no client; and what begins to want clients gets them.
    fn nobody_dead_is_routed(&self, client: usize, routed: &Routed) -> Result<()> {
        let units = by_backend(&self.units);
        let mut up = BTreeSet::new();
        for (service, pool) in &routed.services {
            for backend in pool.backends() {
                let Some(unit) = units.get(backend.id.as_str()) else {
                    return broken(format!("client {client} routes {}, which never was", backend.id));
                };
                if backend.status != Status::Up {
                    continue;
                }
                up.insert(unit.number);
                let held = routed.held.contains(&(service.clone(), backend.id.clone()));
                let Some(well) = self.well(client, unit) else { continue };
                if unit.drained && well > unit.changed {
                    continue; // whoever wiped the registry may have wiped the operator's word with it
                }
                let seen = well + SETTLED <= unit.changed && Self::lasts(Some(unit.changed), PROMPT);
                let settled = Self::lasts(Some(well.max(unit.changed)), SETTLED);
                if !unit.wants_clients() && (seen || (settled && !held)) {
                    let how = if held { "held" } else { "up" };
                    return broken(format!(
                        "client {client} routes unit {} ({how}), which is known to be gone",
                        unit.number
                    ));
                }
                if unit.wants_clients() && held && settled {
                    return broken(format!("client {client} holds unit {}, which is registered", unit.number));
                }
            }
        }
        for unit in self.units.iter().filter(|u| u.wants_clients() && !up.contains(&u.number)) {
            let Some(well) = self.well(client, unit) else { continue };
            let seen = well + SETTLED <= unit.changed && Self::lasts(Some(unit.changed), PROMPT);
            if seen || Self::lasts(Some(well.max(unit.changed)), SETTLED) {
                return broken(format!("client {client} does not route unit {}, which serves", unit.number));
            }
        }
        Ok(())
    }

    /// The guard's holds end.
    fn holds_are_bounded(&mut self, client: usize, routed: &Routed) -> Result<()> {
        let (now, units) = (Instant::now(), by_backend(&self.units));
        let held: BTreeSet<u32> =
            routed.held.iter().filter_map(|(_, id)| units.get(id.as_str()).map(|u| u.number)).collect();
        let client_now = &mut self.clients[client];
        client_now.held.retain(|unit, _| held.contains(unit));
        for unit in held {
            let first = *client_now.held.entry(unit).or_insert(now);
            // A restored registry may bring registrations back, which run out once more.
            let first = first.max(self.tampered + TTL);
            if now > first + HOLD + PROMPT && Self::lasts(client_now.synced, PROMPT) {
                return broken(format!("client {client} holds unit {unit} since {:?}", now - first));
            }
        }
        Ok(())
    }

    /// Promise 3, at the clients: faults take no pool's last living backend, and never most of a pool at once, as long
    /// as the guard may hold.
    fn nobody_alive_is_lost(&mut self, client: usize, routed: &Routed, before: Instant) -> Result<()> {
        for n in 0..self.services {
            let pool = routed.services.get(&service(n)).cloned().unwrap_or_default();
            let of_service = || self.units.iter().filter(|u| u.service == n);
            let routes = |unit: &&Unit| pool.backends().iter().any(|b| b.id.as_str() == unit.id.short());
            let holds = |unit: &Unit| routed.held.iter().any(|(_, id)| id.as_str() == unit.id.short());
            let client_now = &mut self.clients[client];
            for unit in of_service() {
                if !unit.wants_clients() {
                    client_now.seen.remove(&unit.number);
                } else if routes(&unit) && !holds(unit) {
                    client_now.seen.insert(unit.number, Instant::now());
                }
            }
            // It may have seen it go right after that, and may let it go a moment before the hold's end.
            client_now.seen.retain(|_, at| *at + HOLD > Instant::now() + PROMPT);
            let alive: Vec<_> = of_service().filter(|u| client_now.seen.contains_key(&u.number)).collect();
            let missed: BTreeSet<u32> = alive.iter().filter(|u| !routes(u)).map(|u| u.number).collect();
            if pool.is_empty() && !alive.is_empty() {
                return broken(format!("client {client} has nobody for s{n}, although {missed:?} live"));
            }
            // Those that went in this step because somebody meant them to had been in the pool.
            let went = of_service().filter(|u| !u.wants_clients() && u.changed >= before).count();
            let newly = missed.iter().any(|unit| !client_now.missed.contains(unit));
            if newly && missed.len() > 1 && missed.len() > pool.len() + went {
                return broken(format!("client {client} lost {missed:?} of s{n}, which live; {} stayed", pool.len()));
            }
            client_now.missed.retain(|unit| self.units[*unit as usize].service != n);
            client_now.missed.extend(missed);
        }
        Ok(())
    }

    /// At the end, when every fault is over: all is well, all holds end, and nobody writes any more.
    ///
    /// # Errors
    /// What is not as it should be.
    pub async fn converges(&mut self) -> Result<()> {
        self.heal();
        self.note();
        for time in [SETTLED + TTL_AND_MORE, HOLD] {
            let before = Instant::now();
            self.pass(time).await;
            self.check(before)?;
        }
        let wanted: BTreeSet<String> =
            self.units.iter().filter(|u| u.is_registered()).map(|u| u.id.short().to_owned()).collect();
        if self.registered() != wanted {
            return broken(format!("the registry holds {:?}, not {wanted:?}", self.registered()));
        }
        let written = self.writes().await;
        self.pass(SETTLED).await;
        for (n, client) in self.clients.iter().enumerate() {
            if let Some(held) = client.routed().held.first() {
                return broken(format!("client {n} still holds {held:?}"));
            }
        }
        if self.writes().await != written {
            return broken("something was written although nothing changed".to_owned());
        }
        Ok(())
    }
}

impl World {
    /// The registry's revision, and how often each client's routes changed.
    async fn writes(&self) -> (Revision, Vec<u64>) {
        let newest = self.store.position("").await.unwrap().revision;
        (newest, self.clients.iter().map(|c| c.routed().changes).collect())
    }
}

/// Until a lease has run out, and a container that was stopping has ended.
const TTL_AND_MORE: Duration = Duration::from_secs(20);
