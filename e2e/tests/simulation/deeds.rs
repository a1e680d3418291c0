//! What happens in a history: ordinary life, faults, and their ends.

use containers::docker::EventKind;
use e2e::random::Random;
use registry::store::{Fault, Op, Operation, Store as _};
use testing::fake::Cut;
use tokio::time::{Duration, Instant};

use super::host::Unit;
use super::world::{World, service};

/// Most containers at a time.
const MOST: usize = 12;

#[derive(Debug, Clone, Copy)]
pub enum Deed {
    Launch { host: usize, service: usize },
    Stop { unit: usize, within_ms: u64 },
    Crash(usize),
    Pause { unit: usize, paused: bool },
    Sicken { unit: usize, sick: bool },
    Drain { unit: usize, drained: bool },
    Unreadable { unit: usize, unreadable: bool },
    CutHost { host: usize, how: Option<Cut> },
    CutClient { client: usize, how: Option<Cut> },
    CutAll(Option<Cut>),
    KillRegister(usize),
    StartRegister(usize),
    FreezeRegister { host: usize, frozen: bool },
    UpgradeRegister(usize),
    KillDiscover(usize),
    StartDiscover(usize),
    FreezeDiscover { client: usize, frozen: bool },
    Docker { host: usize, away: bool },
    Compact,
    Wipe,
    Save,
    Restore { other_cluster: bool },
    Revoke(usize),
    CancelWatches { client: usize },
    Fail { host: usize, operation: Operation },
    LoseAnswer { host: usize, operation: Operation },
    Rubbish(usize),
    Release { client: usize, service: usize },
    Nothing,
}

const OPERATIONS: [Operation; 7] = [
    Operation::List,
    Operation::Get,
    Operation::Watch,
    Operation::Txn,
    Operation::Grant,
    Operation::KeepAlive,
    Operation::Revoke,
];

impl Deed {
    /// Something that makes sense at present.
    pub fn any(world: &World, random: &mut Random) -> Self {
        Self::try_any(world, random).unwrap_or(Self::Nothing)
    }

    fn try_any(world: &World, random: &mut Random) -> Option<Self> {
        let (host, client) = (random.below(world.hosts.len()), random.below(world.clients.len()));
        let (h, c) = (&world.hosts[host], &world.clients[client]);
        let alive = |filter: fn(&Unit) -> bool| -> Vec<usize> {
            world.units.iter().enumerate().filter(|(_, u)| u.alive && filter(u)).map(|(n, _)| n).collect()
        };
        let how = if random.percent(50) { Cut::Refused } else { Cut::Silent };
        let operation = *random.pick(&OPERATIONS)?;
        let well = |u: &Unit| u.wants_clients();
        Some(match random.below(34) {
            0..=3 if alive(|_| true).len() < MOST => Self::Launch { host, service: random.below(world.services) },
            4..=5 => {
                Self::Stop { unit: *random.pick(&alive(well))?, within_ms: u64::try_from(random.below(14_000)).ok()? }
            }
            6..=7 => Self::Crash(*random.pick(&alive(|_| true))?),
            8 => match random.pick(&alive(|u| u.paused)) {
                Some(unit) => Self::Pause { unit: *unit, paused: false },
                None => Self::Pause { unit: *random.pick(&alive(well))?, paused: true },
            },
            9 => match random.pick(&alive(|u| u.sick)) {
                Some(unit) => Self::Sicken { unit: *unit, sick: false },
                None => Self::Sicken { unit: *random.pick(&alive(well))?, sick: true },
            },
            // An operator's word reaches an agent that runs, about a container that it knows.
            10 if h.well.is_some() => {
                let of_host: Vec<usize> =
                    alive(|u| u.published).into_iter().filter(|n| world.units[*n].host == host).collect();
                let unit = *random.pick(&of_host)?;
                Self::Drain { unit, drained: !world.units[unit].drained }
            }
            11 => match random.pick(&alive(|u| u.unreadable)) {
                Some(unit) => Self::Unreadable { unit: *unit, unreadable: false },
                None => Self::Unreadable { unit: *random.pick(&alive(well))?, unreadable: true },
            },
            12..=14 => Self::CutHost { host, how: (!h.cut).then_some(how) },
            15..=16 => Self::CutClient { client, how: (!c.cut).then_some(how) },
            17 => Self::CutAll((!world.hosts.iter().all(|h| h.cut)).then_some(how)),
            18..=19 if h.register.is_some() => Self::KillRegister(host),
            18..=19 => Self::StartRegister(host),
            20 if h.register.is_some() => Self::FreezeRegister { host, frozen: !h.frozen },
            21 if h.register.is_some() && !h.frozen && h.former.is_empty() => Self::UpgradeRegister(host),
            22..=23 if c.is_running() => Self::KillDiscover(client),
            22..=23 => Self::StartDiscover(client),
            24 if c.is_running() => Self::FreezeDiscover { client, frozen: !c.frozen },
            25 => Self::Docker { host, away: !h.docker_away },
            26 => Self::Compact,
            27 if random.percent(30) => Self::Wipe,
            27 => Self::Save,
            // Who does not see revisions go back cannot tell a restored history from its own, but for the cluster's id.
            28 if world.saved.is_some() => {
                let sees = world.clients.iter().all(|c| !c.cut && !c.frozen)
                    && world.hosts.iter().all(|h| !h.cut && !h.frozen);
                Self::Restore { other_cluster: !sees || random.percent(50) }
            }
            29 => Self::Revoke(random.below(8)),
            30 => Self::CancelWatches { client },
            31 => Self::Fail { host, operation },
            32 => Self::LoseAnswer { host, operation },
            33 if random.percent(50) => Self::Rubbish(random.below(99)),
            33 => Self::Release { client, service: random.below(world.services) },
            _ => Self::Nothing,
        })
    }

    /// Makes it so.
    pub async fn happen(self, world: &mut World) {
        match self {
            Self::Launch { host, service } => {
                let unit = world.launch(host, service);
                world.hosts[host].event(EventKind::Start, &world.units[unit]);
                world.hosts[host].tell(&world.units);
            }
            Self::Stop { unit, within_ms } => {
                let unit_now = &world.units[unit];
                world.hosts[unit_now.host].event(EventKind::Kill { signal: Some(15) }, unit_now);
                let at = Instant::now() + Duration::from_millis(within_ms);
                world.change(unit, |u| u.stopping = Some(at));
            }
            Self::Crash(unit) => world.end(unit),
            Self::Pause { unit, paused } => world.change(unit, |u| u.paused = paused),
            Self::Sicken { unit, sick } => world.change(unit, |u| u.sick = sick),
            Self::Drain { unit, drained } => {
                world.hosts[world.units[unit].host].ask(drained, &world.units[unit]);
                world.change(unit, |u| u.drained = drained);
            }
            Self::Unreadable { unit, unreadable } => world.change(unit, |u| u.unreadable = unreadable),
            Self::CutHost { host, how } => world.hosts[host].cut(how),
            Self::CutClient { client, how } => world.clients[client].cut(how),
            Self::CutAll(how) => {
                world.hosts.iter_mut().for_each(|h| h.cut(how));
                world.clients.iter_mut().for_each(|c| c.cut(how));
            }
            Self::KillRegister(host) => world.hosts[host].kill(),
            Self::StartRegister(host) => world.hosts[host].start(&world.units),
            Self::FreezeRegister { host, frozen } => world.hosts[host].freeze(frozen),
            Self::UpgradeRegister(host) => world.hosts[host].upgrade(&world.units),
            Self::KillDiscover(client) => world.clients[client].kill(),
            Self::StartDiscover(client) => world.clients[client].start(),
            Self::FreezeDiscover { client, frozen } => world.clients[client].freeze(frozen),
            Self::Docker { host, away } => {
                world.hosts[host].docker_away = away;
                world.hosts[host].tell(&world.units);
            }
            Self::Release { client, service: n } => {
                let of_service = |number: &u32| world.units[*number as usize].service == n;
                world.clients[client].seen.retain(|n, _| !of_service(n));
                world.clients[client].release(&service(n));
            }
            Self::Fail { host, operation } => {
                let fault = Fault::Unavailable { endpoint: "fake".into(), why: "no leader".into() };
                world.hosts[host].way.fail_next(operation, fault);
            }
            Self::LoseAnswer { host, operation } => world.hosts[host].way.lose_next_answer(operation),
            Self::CancelWatches { client } => {
                world.clients[client].way.cancel_watches(Fault::Ended("canceled".into()));
            }
            Self::Rubbish(n) => {
                world.store.put(format!("/backends/s0/junk{n}"), b"{\"host\":\"a b\",\"port\":-1}".to_vec());
            }
            Self::Nothing => {}
            Self::Compact | Self::Wipe | Self::Save | Self::Restore { .. } | Self::Revoke(_) => {
                self.tamper(world).await
            }
        }
    }

    /// What befalls the registry itself.
    async fn tamper(self, world: &mut World) {
        let store = &world.store;
        match self {
            Self::Compact => {
                let newest = store.position("").await.unwrap().revision;
                store.compact(newest);
                return; // it changes nothing that anybody could see
            }
            Self::Save => {
                world.saved = Some(store.snapshot());
                return;
            }
            Self::Wipe => {
                let ops = store.entries("").into_iter().map(|e| Op::delete(e.key)).collect();
                store.put_all(ops).await.unwrap();
            }
            Self::Restore { other_cluster } => {
                if let Some(saved) = world.saved.clone() {
                    store.restore(saved, other_cluster);
                }
            }
            Self::Revoke(nth) => {
                let leases = store.leases();
                if let Some(lease) = leases.get(nth % leases.len().max(1)) {
                    store.expire(*lease);
                }
            }
            _ => {}
        }
        world.tampered = Instant::now();
    }
}
