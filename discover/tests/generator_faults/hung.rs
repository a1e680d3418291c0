//! A HAProxy that is there and says nothing.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::one_service;
use super::support::traffic::HttpBackend;
use super::support::world::{World, backend, each};
use super::support::{eventually, get};

/// What a turn may take when nobody answers: all of its deadlines together, and some air.
const BOUND: Duration = Duration::from_secs(14);

/// Processes that are stopped until this is dropped: a stopped one would outlive the test.
struct Stopped(Vec<i32>);

impl Stopped {
    fn these(pids: &[i32]) -> Self {
        pids.iter().for_each(|pid| kill(Pid::from_raw(*pid), Signal::SIGSTOP).unwrap());
        Self(pids.to_vec())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
        }
    }
}

#[tokio::test]
async fn a_hung_worker_is_replaced_by_a_reload() {
    for program in each() {
        let (mut world, port, http) = one_service(World::new(&program)).await;
        let (master, worker) = world.processes().await;
        let other = HttpBackend::start("b1").await;
        let stopped = Stopped::these(&[worker]);
        world.want("web", vec![backend("b0", http.address, port), backend("b1", other.address, port)]);
        world.turns.clear();
        world.turns_until("another worker serves", async |w| w.reloads().len() == 2).await;
        eventually("both serve", async || get(port).await == "b1").await;
        let longest = world.turns.iter().max().unwrap();
        assert!(*longest < BOUND, "HAProxy {}: {longest:?}", world.version());
        drop(stopped);
        world.settle().await;
        assert_eq!(world.processes().await.0, master);
        world.assert_disk_is_what_runs().await;
    }
}

/// Nothing can be done but to wait, and to start no second HAProxy beside it.
#[tokio::test]
async fn a_haproxy_that_hangs_as_a_whole_is_waited_for() {
    let program = each().pop().unwrap();
    let (mut world, port, http) = one_service(World::new(&program)).await;
    let (master, worker) = world.processes().await;
    let other = HttpBackend::start("b1").await;
    let stopped = Stopped::these(&[master, worker]);
    world.want("web", vec![backend("b0", http.address, port), backend("b1", other.address, port)]);
    world.turns.clear();
    for _ in 0..2 {
        let _ = world.turn().await; // may fail, must end
    }
    let longest = world.turns.iter().max().unwrap();
    assert!(*longest < BOUND, "{longest:?}");
    drop(stopped);
    world.settle().await;
    assert_eq!(world.processes().await.0, master);
    assert_eq!(world.on_disk(), world.running().await);
    world.assert_disk_is_what_runs().await;
}
