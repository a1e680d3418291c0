//! The publisher against the registry in memory, on a paused clock.

mod own_keys;
mod services;
mod successors;

use std::sync::Arc;
use std::time::Duration;

use model::{Backend, Layout, Port, Prefix, Status, ValueFormat};
use registry::store::{Op, Store as _};
use testing::fake::{Cut, FakeStore};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::publisher::{PublishError, Publisher, PublisherSettings};
use super::report::{Phase, Publication, PublishMetrics};
use super::slots::{Slot, Slots, Want};
use super::{ClaimError, Form, Identity, Registrations};

const TTL: Duration = Duration::from_secs(9);

fn registrations(ports: impl IntoIterator<Item = u16>) -> Registrations {
    let one = |port: u16| {
        let id: model::BackendId = format!("c{port}").parse().unwrap();
        let backend = Backend::new(id.clone(), "10.0.0.1".parse().unwrap(), Port::new(port).unwrap());
        (("web".parse().unwrap(), id), backend)
    };
    ports.into_iter().map(one).collect()
}

/// One agent's publisher over `store`.
struct Agent {
    desired: watch::Sender<Option<Arc<Registrations>>>,
    services: watch::Sender<Arc<Slots>>,
    state: watch::Receiver<Publication>,
    stop: CancellationToken,
    revoke: CancellationToken,
    task: JoinHandle<Result<(), PublishError>>,
}

impl Agent {
    fn start(store: &FakeStore, machine: &str) -> Self {
        Self::start_as(store, machine, |_| {})
    }

    fn start_as(store: &FakeStore, machine: &str, change: impl FnOnce(&mut PublisherSettings)) -> Self {
        Self::start_with(store, machine, change, Slots::new())
    }

    fn start_with(
        store: &FakeStore,
        machine: &str,
        change: impl FnOnce(&mut PublisherSettings),
        started_with: Slots,
    ) -> Self {
        let node: model::NodeName = "n1".parse().unwrap();
        let form = Form {
            prefix: Prefix::default(),
            layout: Layout::Service,
            node: node.clone(),
            values: ValueFormat::Json,
            service_ports: false,
        };
        let identity = Identity::new(node, machine.to_owned());
        let audit = Duration::from_secs(30);
        let mut settings = PublisherSettings { form, identity, ttl: TTL, audit, metadata: None };
        change(&mut settings);
        let (desired, wanted) = watch::channel(None);
        let (services, slots) = watch::channel(Arc::new(started_with));
        let (out, state) = watch::channel(Publication::default());
        let (stop, revoke) = (CancellationToken::new(), CancellationToken::new());
        let publisher = Publisher::new(store.clone(), settings, wanted, out, PublishMetrics::default());
        let task = tokio::spawn(publisher.with_slots(slots).run(stop.clone(), revoke.clone()));
        Self { desired, services, state, stop, revoke, task }
    }

    fn want(&self, registrations: Registrations) -> Arc<Registrations> {
        let wanted = Arc::new(registrations);
        self.desired.send_replace(Some(wanted.clone()));
        wanted
    }

    async fn published(&mut self, wanted: &Arc<Registrations>) {
        let done = |p: &Publication| {
            p.phase == Phase::Published && p.published.as_ref().is_some_and(|done| Arc::ptr_eq(done, wanted))
        };
        timeout(Duration::from_secs(60), self.state.wait_for(done)).await.unwrap().unwrap();
    }

    async fn publish(&mut self, registrations: Registrations) {
        let wanted = self.want(registrations);
        self.published(&wanted).await;
    }

    /// As `kill -9` ends it.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    async fn error(self) -> PublishError {
        timeout(Duration::from_secs(60), self.task).await.unwrap().unwrap().unwrap_err()
    }
}

fn ids(store: &FakeStore) -> Vec<String> {
    let mut keys: Vec<_> = store.entries("/backends/").iter().map(|e| e.key.to_string()).collect();
    keys.sort();
    keys.iter().map(|k| k.rsplit('/').next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_change_goes_out_at_once_under_one_lease_and_idleness_writes_nothing() {
    let store = FakeStore::new();
    let way = store.peer();
    let mut agent = Agent::start(&way, "m1");
    agent.publish(registrations([1, 2])).await;
    agent.publish(registrations([2, 3])).await;
    assert_eq!(ids(&store), ["c2", "c3"]);
    assert_eq!(store.leases().len(), 1);
    let before = way.counts();
    sleep(Duration::from_secs(90)).await;
    let after = way.counts();
    assert_eq!((after.writes(), after.grants), (before.writes(), before.grants));
    assert!((28..=31).contains(&(after.beats - before.beats)), "a beat every 3 s: {before:?} {after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_replaced_and_everything_is_put_again_in_batches() {
    let store = FakeStore::new();
    let way = store.peer();
    let mut agent = Agent::start(&way, "m1");
    agent.publish(registrations(1..=300)).await;
    let lost = store.leases()[0];
    let before = way.counts();
    store.expire(lost);
    let renewed = |p: &Publication| p.phase == Phase::Published && p.lease != Some(lost);
    timeout(Duration::from_secs(60), agent.state.wait_for(renewed)).await.unwrap().unwrap();
    assert_eq!(ids(&store).len(), 300);
    assert_eq!(way.counts().txns - before.txns, 4, "one for the registrar, three of at most 128");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_loses_nothing() {
    for how in [Cut::Refused, Cut::Silent] {
        let store = FakeStore::new();
        let way = store.peer();
        let mut agent = Agent::start(&way, "m1");
        agent.publish(registrations([1, 2])).await;
        way.cut(how);
        let wanted = agent.want(registrations([2, 3]));
        sleep(Duration::from_secs(5)).await; // less than the lease has left
        assert!(agent.state.borrow().away.is_some());
        way.heal();
        agent.published(&wanted).await;
        assert_eq!(ids(&store), ["c2", "c3"]);
        way.cut(how);
        sleep(Duration::from_secs(60)).await; // the lease dies meanwhile
        assert_eq!(ids(&store), [""; 0]);
        way.heal();
        timeout(Duration::from_secs(30), async {
            while ids(&store) != ["c2", "c3"] {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
        agent.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_store_keeps_the_living_lets_the_dead_go_and_is_said_once_to_be_full() {
    let store = FakeStore::new();
    let way = store.peer();
    let mut agent = Agent::start(&way, "m1");
    agent.publish(registrations([1, 2])).await;
    let lease = store.leases();
    store.fill(true);
    let mut states = agent.state.clone();
    let times = tokio::spawn(async move {
        let mut seen = vec![false];
        while states.changed().await.is_ok() {
            let full = states.borrow_and_update().full.is_some();
            if seen.last() != Some(&full) {
                seen.push(full);
            }
        }
        seen
    });
    // Puts and deletions in one plan; then deletions alone; then nothing at all that waits.
    agent.want(registrations([2, 3]));
    sleep(TTL * 3).await;
    assert_eq!((ids(&store), store.leases()), (vec!["c2".to_owned()], lease));
    assert!(agent.state.borrow().full.as_ref().is_some_and(|(why, _)| why.contains("NOSPACE")));
    assert!(agent.state.borrow().away.is_none(), "it serves in all other ways");
    agent.publish(registrations([])).await;
    sleep(TTL * 3).await;
    assert_eq!((ids(&store), agent.state.borrow().full.is_some()), (vec![], true), "an empty registry may be full");
    let wanted = agent.want(registrations([4]));
    sleep(TTL * 3).await;
    let writes = way.counts().writes();
    store.fill(false);
    agent.published(&wanted).await;
    sleep(TTL).await;
    assert_eq!(
        (ids(&store), way.counts().writes() - writes),
        (vec!["c4".to_owned()], 1),
        "looking for room writes nothing"
    );
    agent.kill().await;
    assert_eq!(times.await.unwrap(), [false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_while_the_store_is_full_keeps_the_former_lease_alive() {
    let store = FakeStore::new();
    let mut former = Agent::start(&store, "m1");
    former.publish(registrations([1])).await;
    let before = store.entries("/backends/");
    former.kill().await;
    store.fill(true);
    let mut agent = Agent::start(&store, "m1");
    let wanted = agent.want(registrations([1]));
    sleep(TTL * 4).await;
    assert_eq!(store.entries("/backends/"), before);
    store.fill(false);
    agent.published(&wanted).await;
    assert_eq!(store.entries("/backends/"), before);
    sleep(TTL).await;
    assert!(agent.state.borrow().full.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_others_delete_or_overwrite_is_written_again() {
    let store = FakeStore::new();
    let mut agent = Agent::start(&store, "m1");
    agent.publish(registrations([1, 2, 3])).await;
    let before = store.entries("/backends/web/c3");
    store.delete("/backends/web/c1");
    store.put("/backends/web/c2", *b"nonsense");
    timeout(Duration::from_secs(1), async {
        let intact = |e: &registry::store::Entry| e.lease.is_some();
        while store.entries("/backends/").iter().filter(|e| intact(e)).count() < 3 {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(store.entries("/backends/web/c3"), before, "the third is not touched");
}

#[tokio::test(start_paused = true)]
async fn a_restored_registry_is_brought_up_to_date() {
    for other_cluster in [false, true] {
        let store = FakeStore::new();
        let mut agent = Agent::start(&store, "m1");
        agent.publish(registrations([1])).await;
        let snapshot = store.snapshot();
        agent.publish(registrations([2])).await;
        agent.publish(registrations([3])).await;
        store.restore(snapshot, other_cluster);
        timeout(Duration::from_secs(60), async {
            while ids(&store) != ["c3"] {
                sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .unwrap();
        agent.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_keeps_the_keys_and_revoking_takes_them() {
    for revoke in [false, true] {
        let store = FakeStore::new();
        let mut agent = Agent::start(&store, "m1");
        let mut wanted = registrations([1]);
        wanted.values_mut().for_each(|b| b.status = Status::Draining);
        agent.publish(wanted).await;
        if revoke {
            agent.revoke.cancel();
        }
        agent.stop.cancel();
        agent.task.await.unwrap().unwrap();
        assert_eq!(ids(&store).len(), usize::from(!revoke));
        sleep(TTL + Duration::from_secs(1)).await;
        assert_eq!(ids(&store), [""; 0], "nobody keeps it alive");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shared_port_key_that_went_with_another_agents_lease_is_back_within_seconds() {
    let store = FakeStore::new();
    let mut agent = Agent::start_as(&store, "m1", |settings| settings.form.service_ports = true);
    let mut wanted = registrations([1]);
    wanted.values_mut().for_each(|backend| backend.service_port = Port::new(80));
    agent.publish(wanted).await;
    assert_eq!(ids(&store), ["c1", "port"]);
    // Another host's agent wrote it last, and died.
    store.txn(Vec::new(), vec![Op::delete("/backends/web/port")]).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(ids(&store), ["c1", "port"]);
}

#[tokio::test(start_paused = true)]
async fn metadata_is_written_only_when_asked_for_and_no_more_often() {
    for (every, most) in [(None, 0), (Some(Duration::from_secs(10)), 7)] {
        let store = FakeStore::new();
        let way = store.peer();
        let mut agent = Agent::start_as(&way, "m1", |settings| settings.metadata = every);
        agent.publish(registrations([1])).await;
        let before = way.counts().writes();
        sleep(Duration::from_secs(60)).await;
        let written = way.counts().writes() - before;
        assert!(written <= most, "{written} writes in a minute");
        let entries = store.entries("/metadata/");
        assert_eq!(entries.len(), usize::from(every.is_some()));
        assert!(entries.iter().all(|e| e.lease.is_some() && *e.key == *"/metadata/n1"), "{entries:?}");
    }
}
