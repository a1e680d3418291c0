//! A large host: what a burst costs is counted, not timed. Containers are those of a scripted Docker API; the registry is in memory.

use agent::watch::Watcher;
use containers::docker::{Docker, DockerSource, Endpoint, Options};
use testing::docker_api::{DockerApi, event, running};
use testing::fake::Counts;

use super::*;

const LIVING: usize = 2000;
const BURST: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(120);

/// A host with its agent.
struct Host {
    api: DockerApi,
    lab: Lab,
    metrics: Metrics,
    cancel: CancellationToken,
}

/// What was done between two moments.
struct Cost {
    turns: u64,
    inspections: usize,
    store: Counts,
}

impl Host {
    async fn start(store: &FakeStore) -> Self {
        let api = DockerApi::start();
        (0..LIVING).for_each(|number| api.put(running(number, "web")));
        let host_ip = Some("10.0.0.1".parse().unwrap());
        let settings = AgentSettings {
            settings: Settings { host_ip, ..Settings::default() },
            ready: ReadyMode::None,
            check_target: CheckTarget::Own,
            docker: None,
            prefix: Prefix::default(),
            drain_at_exit: None,
        };
        let (metrics, cancel) = (Metrics::default(), CancellationToken::new());
        let (containers, inlet) = channel();
        let lab = Lab::of(store, settings, metrics.clone(), inlet, channel().0, host_ip);
        let docker = Docker::new(&Endpoint::Unix(api.socket())).unwrap();
        let options = Options { resync: Duration::from_secs(3600), ..Options::default() };
        let source = DockerSource::new(docker, options).with_events(lab.events.clone());
        tokio::spawn(source.run(containers, cancel.clone()));
        let host = Self { api, lab, metrics, cancel };
        host.until(LIVING, 0).await;
        host
    }

    /// Waits until the registry holds so many containers, so many of them draining.
    async fn until(&self, all: usize, draining: usize) {
        let reached = timeout(PATIENCE, async {
            loop {
                let entries = self.lab.store.entries("/backends/");
                let says = |e: &&registry::store::Entry| String::from_utf8_lossy(&e.value).contains("draining");
                if entries.len() == all && entries.iter().filter(says).count() == draining {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(reached.await.is_ok(), "not {all} with {draining} draining");
    }

    fn tell(&self, action: &str) {
        let events: Vec<_> = (LIVING..LIVING + BURST).map(|number| event(number, action)).collect();
        self.api.emit(&events);
    }

    async fn cost(&self, act: impl AsyncFnOnce(&Self)) -> Cost {
        let count = || (self.metrics.turns.get(), self.api.requests("/json"), self.lab.store.counts());
        let (turns, inspections, store) = count();
        act(self).await;
        let (more_turns, more_inspections, now) = count();
        let txns = now.txns - store.txns;
        let store = Counts { txns, puts: now.puts - store.puts, deletes: now.deletes - store.deletes, ..now };
        Cost { turns: more_turns - turns, inspections: more_inspections - inspections, store }
    }
}

#[tokio::test]
async fn a_burst_of_a_thousand_beside_two_thousand_costs_what_it_changes() {
    let host = Host::start(&FakeStore::new()).await;
    let starts = host
        .cost(async |host| {
            (LIVING..LIVING + BURST).for_each(|number| host.api.put(running(number, "web")));
            host.tell("start");
            host.until(LIVING + BURST, 0).await;
        })
        .await;
    assert_eq!((starts.inspections, starts.store.puts, starts.store.deletes), (BURST, BURST as u64, 0));
    assert!(starts.turns <= 400 && starts.store.txns <= 200, "{} turns, {:?}", starts.turns, starts.store);

    let kills = host
        .cost(async |host| {
            host.tell("kill");
            host.until(LIVING + BURST, BURST).await;
        })
        .await;
    assert_eq!((kills.inspections, kills.store.puts, kills.store.deletes), (0, BURST as u64, 0));
    assert!(kills.turns <= 100 && kills.store.txns <= 50, "{} turns, {:?}", kills.turns, kills.store);

    let ends = host
        .cost(async |host| {
            (LIVING..LIVING + BURST).for_each(|number| host.api.remove(number));
            host.tell("die");
            host.until(LIVING, 0).await;
        })
        .await;
    assert_eq!((ends.store.puts, ends.store.deletes), (0, BURST as u64));
    assert!(ends.turns <= 400 && ends.store.txns <= 50, "{} turns, {:?}", ends.turns, ends.store);
    for (what, Cost { turns, inspections, store }) in [("starts", starts), ("kills", kills), ("ends", ends)] {
        println!(
            "{BURST} {what} beside {LIVING}: {turns} turns, {inspections} inspections, {} transactions",
            store.txns
        );
    }
    assert_eq!(host.lab.store.counts().grants, 1);
    host.cancel.cancel();
}
