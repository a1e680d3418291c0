//! How much of what the sources say is taken in: a registry's writers are untrusted, and must not use up the memory of discover and
//! HAProxy. What is beyond a limit is left out and reported; what was served before stays. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Pool, ServiceMap, ServiceName, Transport};

/// The most that is taken in of all sources together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct Limits {
    /// The most services that are taken in; those beyond are left out and shown, and those that are served stay. Services of UDP alone, which HAProxy does not serve, have as many places of their own
    #[arg(long, env = "DISCOVER_MAX_SERVICES", value_name = "NUMBER", default_value_t = Self::default().max_services)]
    pub max_services: usize,
    /// The most backends of one service
    #[arg(long, env = "DISCOVER_MAX_BACKENDS", value_name = "NUMBER", default_value_t = Self::default().max_backends)]
    pub max_backends: usize,
    /// The most backends of all services
    #[arg(long, env = "DISCOVER_MAX_ALL_BACKENDS", value_name = "NUMBER", default_value_t = Self::default().max_all_backends)]
    pub max_all_backends: usize,
}

impl Default for Limits {
    /// What a HAProxy can be asked to carry, and more than anybody was seen to run.
    fn default() -> Self {
        Self { max_services: 10_000, max_backends: 10_000, max_all_backends: 100_000 }
    }
}

/// What shares a limit. HAProxy balances no UDP: however much of it is registered, it takes no place of what is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Served,
    UdpAlone,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Served, Self::UdpAlone];

    fn of(pool: &Pool) -> Self {
        let mut backends = pool.backends().iter();
        let udp = !pool.is_empty() && backends.all(|backend| backend.transport == Transport::Udp);
        if udp { Self::UdpAlone } else { Self::Served }
    }
}

/// What is left out of a service, in words.
pub type LeftOut = BTreeMap<ServiceName, String>;

impl Limits {
    /// Cuts `services` down to the limits. Of a service the first backends stay, in the order of its source, and what
    /// `served` had of it comes before all that is new. `served` is asked for only where something is beyond a limit.
    pub fn cut(&self, services: &mut ServiceMap, served: impl FnOnce() -> ServiceMap) -> LeftOut {
        let beyond = |kind: Kind| {
            let pools = || services.values().filter(move |pool| Kind::of(pool) == kind);
            pools().count() > self.max_services || pools().map(|p| p.len()).sum::<usize>() > self.max_all_backends
        };
        let one = services.values().any(|pool| pool.len() > self.max_backends);
        if !Kind::ALL.into_iter().any(beyond) && !one {
            return LeftOut::new();
        }
        let served = served();
        let mut taken = BTreeMap::new();
        for kind in Kind::ALL {
            taken.append(&mut self.share_out(services, &served, kind));
        }
        let mut left_out = LeftOut::new();
        for (name, pool) in services.iter_mut() {
            let (there, taken) = (pool.len(), taken.get(name).copied());
            match taken {
                Some(taken) if taken == there => continue,
                Some(taken) => *pool = Arc::new(pool.backends().iter().take(taken).cloned().collect()),
                None => {}
            }
            let why = if there > self.max_backends { "--max-backends" } else { "--max-all-backends, --max-services" };
            let what = format!("{} of {there} backends are left out: too many ({why})", there - taken.unwrap_or(0));
            left_out.insert(name.clone(), what);
        }
        services.retain(|name, _| taken.contains_key(name));
        left_out
    }

    /// How many backends each service of one kind may have; a service that is not in it is left out.
    fn share_out(&self, services: &ServiceMap, served: &ServiceMap, kind: Kind) -> BTreeMap<ServiceName, usize> {
        let mut taken = BTreeMap::new();
        let mut room = self.max_all_backends;
        let of_kind = || services.iter().filter(move |(_, pool)| Kind::of(pool) == kind);
        for (name, pool) in of_kind() {
            if let Some(before) = served.get(name).filter(|_| taken.len() < self.max_services) {
                let kept = pool.len().min(before.len()).min(self.max_backends).min(room);
                room -= kept;
                taken.insert(name.clone(), kept);
            }
        }
        for (name, pool) in of_kind() {
            let (wanted, services) = (pool.len().min(self.max_backends), taken.len());
            match taken.get_mut(name) {
                Some(kept) => {
                    let more = (wanted - *kept).min(room);
                    *kept += more;
                    room -= more;
                }
                // One that would be empty for want of room is no answer of its source.
                None if services < self.max_services && (room > 0 || wanted == 0) => {
                    let begun = wanted.min(room);
                    room -= begun;
                    taken.insert(name.clone(), begun);
                }
                None => {}
            }
        }
        taken
    }
}
