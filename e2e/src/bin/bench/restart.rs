//! An agent that is restarted, killed, or doubled, and what a watcher of the registry sees of it.

use std::net::SocketAddr;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig};
use e2e::agents::Agent;
use e2e::docker::{Container, Docker};
use e2e::figures::Figure;
use e2e::flock::{Flock, registered};
use e2e::http::Client;
use e2e::lab::MARK;
use e2e::terminal::Terminal;
use e2e::{Context, Etcd, Lab, LabError, Result, free_port, wait};
use etcd_client::{EventType, WatchOptions, WatchStream};

const CONTAINERS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than the lease lives without a renewal.
const QUIET: Duration = Duration::from_secs(12);

/// SIGTERM, SIGKILL, its container removed and made anew, and a second agent that says it is another machine.
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
    for (how, term) in [("SIGTERM", true), ("kill -9", false)] {
        let what = format!("restarting by {how}");
        terminal.while_waiting(&what, restart(&mut agent, term)).await?;
        let seen = terminal.while_waiting("watching", changes(&mut stream)).await?;
        figures.push(seen.figure(&format!("agent restarted by {how}")));
    }
    drop(agent);
    let _container =
        terminal.while_waiting("recreating its container", Box::pin(recreate(lab, &etcd, &flock, &mut stream))).await?;
    let seen = terminal.while_waiting("watching", changes(&mut stream)).await?;
    figures.push(seen.figure("agent's container removed by force and made anew"));
    figures.push(second(lab, &etcd, &mut stream).await?);
    Ok(figures)
}

/// Runs the agent from its image, then removes that container and makes another.
async fn recreate(lab: &Lab, etcd: &Etcd, flock: &Flock, stream: &mut WatchStream) -> Result<Container> {
    let docker = Docker::connect(lab.mark()).await?;
    let first = contained(&docker, lab, etcd, flock).await?;
    changes(stream).await?;
    first.remove().await?;
    contained(&docker, lab, etcd, flock).await
}

/// The agent in a container of its own, ready.
async fn contained(docker: &Docker, lab: &Lab, etcd: &Etcd, flock: &Flock) -> Result<Container> {
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command: Vec<_> = ["run", "--docker-host", "unix:///var/run/docker.sock"].map(str::to_owned).to_vec();
    command.extend(["--filter".to_owned(), format!("label={MARK}={}", lab.mark()), "--allow-loopback".to_owned()]);
    command.extend(["--admin".to_owned(), admin.to_string()]);
    let host = flock.api.host();
    let socket = host.strip_prefix("unix://").during("the scripted daemon listens on a unix socket")?;
    let etcd = format!("ETCD_HOST={}", etcd.endpoint().authority());
    // The scripted socket belongs to no group that the agent could take: it stays root.
    let environment = ["HOST_IP=127.0.0.1", "NODE_NAME=flock", "REGISTER_USER=root", &etcd].map(str::to_owned);
    let body = ContainerCreateBody {
        image: Some("docker-register".to_owned()),
        cmd: Some(command),
        env: Some(environment.to_vec()),
        labels: Some([(MARK.to_owned(), lab.mark().to_owned())].into()),
        host_config: Some(HostConfig {
            network_mode: Some("host".to_owned()),
            binds: Some(vec![
                format!("{socket}:/var/run/docker.sock"),
                "/etc/machine-id:/etc/machine-id:ro".to_owned(),
            ]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let container = docker.create_body(None, body).await?;
    container.start().await?;
    let ready = async || Client::new(admin, false, PATIENCE).get("/ready").await.is_ok_and(|reply| reply.status == 200);
    match wait::until_true("the agent in its container", PATIENCE, ready).await {
        Ok(()) => Ok(container),
        Err(error) => Err(error).during(format!("its log: {}", container.log().await?.join("\n"))),
    }
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

impl Seen {
    fn figure(&self, what: &str) -> Figure {
        Figure {
            what: what.to_owned(),
            value: format!("{} deletions, {} puts", self.deletions, self.puts),
            goal: "0 deletions, 0 puts".to_owned(),
            conditions: format!(
                "{CONTAINERS} registrations, TTL 10 s; seen by a watcher until {} s after; the new process knows nothing \
                 of the old one but what etcd holds",
                QUIET.as_secs()
            ),
        }
    }
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
