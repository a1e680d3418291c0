//! Seeded simulation of register, the registry and several discovers, in memory and on a paused clock.
//!
//! | module | what it holds |
//! |---|---|
//! | `world` | hosts, clients, containers and the registry, and what is true of them |
//! | `host` | a host: a scripted Docker below the real agent and publisher of `register` |
//! | `client` | a client: the real watcher, merge, guard and turns of `discover`, above a generator that takes note |
//! | `deeds` | what may happen: ordinary life, faults and their ends |
//! | `promises` | what must hold after each step, and at the end |
//! | `ice` | what SIGSTOP does |
//!
//! A history is made of its seed alone: `SIM_SEED=7` replays that one and tells it step by step
//! (with the agents' own logs, where RUST_LOG asks for them); `SIM_FIRST` and `SIM_COUNT`
//! choose others than those of `make test`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod client;
mod deeds;
mod host;
mod ice;
mod promises;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant as Wall;

use e2e::random::Random;
use e2e::{Context, LabError, Result};
use tokio::time::{Duration, Instant};

use deeds::Deed;
use world::World;

/// How many histories are lived through.
const HISTORIES: u64 = 1500;
/// How many things happen in one, at most.
const STEPS: usize = 40;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn no_history_breaks_a_promise() -> Result<()> {
    if let Some(seed) = number("SIM_SEED") {
        agent::telemetry::init_logging(agent::telemetry::LogFormat::Text, "off").during("starting the log")?;
        return history(seed, true);
    }
    let (first, count) = (number("SIM_FIRST").unwrap_or(1), number("SIM_COUNT").unwrap_or(HISTORIES));
    let (next, began) = (AtomicU64::new(first), Wall::now());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let failures: Vec<LabError> = std::thread::scope(|scope| {
        let work = || {
            let mut failures = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count {
                    return failures;
                }
                let outcome = history(seed, false).during(format!("SIM_SEED={seed}"));
                failures.extend(outcome.err());
            }
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("a history panicked")).collect()
    });
    println!("{count} histories in {:.1?}, {} failed", began.elapsed(), failures.len());
    failures.iter().for_each(|failure| println!("{failure:?}"));
    failures.into_iter().next().map_or(Ok(()), Err)
}

/// Lives through one history.
fn history(seed: u64, aloud: bool) -> Result<()> {
    agent::backoff::seed_this_thread(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.during("starting tokio")?.block_on(async {
        let mut random = Random::new(seed);
        let mut world = World::new(&mut random);
        let began = Instant::now();
        let tell = |what: &str, world: &World| {
            if aloud {
                world.tell();
                println!("{:>9.3} s  {what}", began.elapsed().as_secs_f64());
            }
        };
        let before = Instant::now();
        world.pass(Duration::from_secs(10)).await;
        world.check(before)?;
        for _ in 0..random.below(STEPS) {
            let deed = Deed::any(&world, &mut random);
            tell(&format!("{deed:?}"), &world);
            let before = Instant::now();
            deed.happen(&mut world).await;
            world.note();
            let limit_ms = [50, 3_000, 15_000, 15_000, 60_000][random.below(5)];
            world.pass(Duration::from_millis(1 + u64::try_from(random.below(limit_ms)).unwrap_or(0))).await;
            world
                .check(before)
                .during(format!("after {deed:?}, {:.3} s after the start", began.elapsed().as_secs_f64()))?;
        }
        tell("every fault ends", &world);
        let outcome = world.converges().await;
        tell("the end", &world);
        outcome.during("after the end of every fault")
    })
}
