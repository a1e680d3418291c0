//! An agent that is restarted, killed, or doubled, and what a watcher of the registry sees of it.

use std::time::Duration;

use e2e::agents::Agent;
use e2e::figures::Figure;
use e2e::flock::{Flock, registered};
use e2e::terminal::Terminal;
use e2e::{Context, Etcd, Lab, LabError, Result, wait};
use etcd_client::{EventType, WatchOptions, WatchStream};

const CONTAINERS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than the lease lives without a renewal.
const QUIET: Duration = Duration::from_secs(12);

/// SIGTERM, SIGKILL, and a second agent that says it is another machine.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let etcd = Etcd::start();
    let flock = Flock::new(lab, CONTAINERS, &[]).await?;
    (0..CONTAINERS).for_each(|number| flock.start_silently(number));
    let mut agent = flock.agent(lab, &etcd, &[]).await?;
    let mut client = etcd.operator().await;
    let all = async || registered(&mut client).await.is_ok_and(|n| n == CONTAINERS);
    wait::until_true("200 containers in etcd", PATIENCE, all).await?;
    let mut stream =
        client.watch("/backends/", Some(WatchOptions::new().with_prefix())).await.during("watching the backends")?;

    let mut figures = Vec::new();
    for (how, term) in [("SIGTERM", true), ("kill -9, as a container that is recreated", false)] {
        let what = format!("restarting by {how}");
        terminal.while_waiting(&what, restart(&mut agent, term)).await?;
        let seen = terminal.while_waiting("watching", changes(&mut stream)).await?;
        figures.push(Figure {
            what: format!("agent restarted by {how}"),
            value: format!("{} deletions, {} puts", seen.deletions, seen.puts),
            goal: "0 deletions, 0 puts".to_owned(),
            conditions: format!(
                "{CONTAINERS} registrations, TTL 10 s; seen by a watcher until {} s after; the new process knows nothing \
                 of the old one but what etcd holds",
                QUIET.as_secs()
            ),
        });
    }
    figures.push(second(lab, &etcd, &mut stream).await?);
    Ok(figures)
}

async fn restart(agent: &mut Agent, term: bool) -> Result<()> {
    if term {
        agent.process().stop(PATIENCE).await?;
    }
    agent.crash_and_restart().await
}

/// An agent of another machine under the same name.
async fn second(lab: &Lab, etcd: &Etcd, stream: &mut WatchStream) -> Result<Figure> {
    let other = Flock::new(lab, 1, &[]).await?;
    other.api.be_machine("another");
    other.start_silently(0);
    let mut second = other.register("flock", &[]).spawn(lab, &etcd.endpoint().authority())?;
    let status = second.process().ended(PATIENCE).await?;
    let said = second.log().contains("belongs to another machine");
    let seen = changes(stream).await?;
    if !said {
        return Err(LabError::new(format!("the second agent did not say why it ended:\n{}", second.log())));
    }
    Ok(Figure {
        what: "second agent of one name, from another machine".to_owned(),
        value: format!(
            "refused with status {}; {} deletions, {} puts",
            status.code().unwrap_or(-1),
            seen.deletions,
            seen.puts
        ),
        goal: "refused at its start".to_owned(),
        conditions: "its message names the key, the machine and NODE_NAME".to_owned(),
    })
}

#[derive(Default)]
struct Seen {
    puts: usize,
    deletions: usize,
}

async fn changes(stream: &mut WatchStream) -> Result<Seen> {
    let mut seen = Seen::default();
    let end = tokio::time::Instant::now() + QUIET;
    while let Ok(message) = tokio::time::timeout_at(end, stream.message()).await {
        let message = message.during("watching")?.ok_or_else(|| LabError::new("the watch ended"))?;
        for event in message.events() {
            match event.event_type() {
                EventType::Put => seen.puts += 1,
                EventType::Delete => seen.deletions += 1,
            }
        }
    }
    Ok(seen)
}
