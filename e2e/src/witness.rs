//! What HAProxy routes, seen all the time from beside: against what it should route.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use discover::haproxy::api::runtime::Runtime;
use discover::haproxy::api::tables::{OperState, ServerState};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

/// Between two looks: no time told is more exact.
const LOOK: Duration = Duration::from_millis(20);

/// Looks at HAProxy until its last copy is dropped. Backends are told apart by their port.
#[derive(Debug, Clone)]
pub struct Witness {
    seen: Arc<Mutex<Seen>>,
    _looking: Arc<AbortOnDropHandle<()>>,
}

/// The worst that was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sight {
    /// The longest time that a live backend was not routed to.
    pub missing: Duration,
    /// The longest time that a newcomer was not routed to yet.
    pub late: Duration,
    /// The longest time that a dead backend was routed to.
    pub stale: Duration,
}

#[derive(Debug, Default)]
struct Seen {
    living: BTreeSet<u16>,
    routed: BTreeSet<u16>,
    /// Since when each backend is routed wrongly.
    wrong: BTreeMap<u16, Instant>,
    /// Those that were routed to at any time.
    known: BTreeSet<u16>,
    /// Living ones that need not be routed any more: they are draining.
    excused: BTreeSet<u16>,
    worst: Sight,
}

impl Seen {
    /// Judges what is known now.
    fn judge(&mut self, now: Instant) {
        let Self { living, routed, known, wrong, excused, worst } = self;
        // A port that was let go may be another server's later, which is a newcomer.
        known.retain(|port| living.contains(port));
        known.extend(routed.intersection(living));
        let unrouted = living.difference(routed).filter(|port| !excused.contains(port));
        let (missing, late): (BTreeSet<u16>, BTreeSet<u16>) = unrouted.partition(|port| known.contains(port));
        let stale: BTreeSet<u16> = routed.difference(living).copied().collect();
        wrong.retain(|port, _| [&missing, &late, &stale].iter().any(|ports| ports.contains(port)));
        let kinds = [(missing, &mut worst.missing), (late, &mut worst.late), (stale, &mut worst.stale)];
        for (ports, longest) in kinds {
            for port in ports {
                // What is wrong at one look only may be a change that came while HAProxy was asked.
                let since = *wrong.entry(port).or_insert(now);
                let lasts = if now > since { now - since + LOOK } else { Duration::ZERO };
                *longest = (*longest).max(lasts);
            }
        }
    }
}

impl Witness {
    /// Looks at the HAProxy whose runtime API this is, from when that is there.
    pub fn start(runtime: Runtime) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let looking = tokio::spawn(look(runtime, Arc::clone(&seen)));
        Self { seen, _looking: Arc::new(AbortOnDropHandle::new(looking)) }
    }

    /// From now on these live, and nobody else.
    pub fn expect(&self, living: BTreeSet<u16>) {
        let mut seen = self.lock();
        seen.excused.retain(|port| living.contains(port));
        seen.living = living;
    }

    /// This one drains: it need not be routed to any more.
    pub fn excuse(&self, port: Option<u16>) {
        self.lock().excused.extend(port);
    }

    /// Whether HAProxy routes to this one.
    pub fn routes(&self, port: u16) -> bool {
        self.lock().routed.contains(&port)
    }

    /// Whether HAProxy routes to the living and nobody else.
    pub fn is_right(&self) -> bool {
        let seen = self.lock();
        seen.living == seen.routed
    }

    /// What lives and what is routed now, for a person.
    pub fn now(&self) -> impl fmt::Display {
        let seen = self.lock();
        format!("{:?} live, {:?} are routed", seen.living, seen.routed)
    }

    /// Forgets the past.
    pub fn begin(&self) {
        let mut seen = self.lock();
        (seen.worst, seen.wrong) = (Sight::default(), BTreeMap::new());
    }

    /// The worst since [`Self::begin`].
    pub fn sight(&self) -> Sight {
        self.lock().worst
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether new requests go there.
fn takes_requests(server: &ServerState) -> bool {
    !server.admin.in_maintenance() && !server.admin.draining() && server.weight > 0 && server.oper != OperState::Stopped
}

async fn look(mut runtime: Runtime, seen: Arc<Mutex<Seen>>) {
    loop {
        runtime.reopen(); // a session stays with its worker, and a reload brings another
        // An error means no HAProxy yet, or a reload: the load tells whether requests fail.
        if let Ok(servers) = runtime.servers_state(None).await {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.routed = servers.iter().filter(|s| takes_requests(s)).map(|server| server.port).collect();
            seen.judge(Instant::now());
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wrong_time_of_each_kind_counts() {
        let (begun, ms) = (Instant::now(), Duration::from_millis);
        let mut seen = Seen { living: [1, 2].into(), routed: [1, 2].into(), ..Seen::default() };
        seen.judge(begun);
        assert_eq!(seen.worst, Sight::default());
        seen.routed = [1, 3].into();
        seen.judge(begun);
        seen.judge(begun + ms(100));
        seen.routed = [1, 2, 3].into();
        seen.judge(begun + ms(500));
        assert_eq!(seen.worst, Sight { missing: ms(100) + LOOK, late: ms(0), stale: ms(500) + LOOK });
        seen.living = [1, 2, 4].into();
        seen.judge(begun + ms(600));
        seen.judge(begun + ms(700));
        assert_eq!(seen.worst.late, ms(100) + LOOK, "it was never routed to");
        seen.excused = [1].into();
        seen.routed = [2, 4].into();
        seen.judge(begun + ms(9000));
        assert_eq!(seen.worst.missing, ms(100) + LOOK, "who drains is not missed");
        assert!(seen.wrong.is_empty());
    }
}
