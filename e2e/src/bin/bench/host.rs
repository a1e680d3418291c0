//! A large host: bursts of starts, kills and ends on a scripted Docker API beside containers that live, and what an event costs.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use e2e::agents::{Agent, Register};
use e2e::figures::{Figure, megabytes, millis};
use e2e::flock::registered;
use e2e::lab::MARK;
use e2e::terminal::Terminal;
use e2e::{Context, Etcd, Lab, LabError, Result, wait};
use etcd_client::{Client, EventType, GetOptions, WatchOptions, WatchStream};
use serde_json::{Value, json};
use testing::docker_api::{DockerApi, event, id, running};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(180);
/// How many containers start, are killed and end one after the other.
const SINGLE: usize = 100;
/// Containers of one image.
const SERVICE: usize = 20;

/// What is measured at one size, and what is wished for there.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Containers that live all the while.
    living: usize,
    /// Containers that start at once, are killed at once, and end at once.
    burst: usize,
    /// All up, all draining, processor time of an event, memory.
    goals: [&'static str; 4],
}

/// What was measured at one size.
struct Measured {
    up: Duration,
    draining: Duration,
    gone: Duration,
    /// Processor time of an event that comes with others.
    together: Duration,
    /// Processor time of an event that comes alone.
    alone: Duration,
    memory: u64,
}

/// 2,000 containers, and 200.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let goals = ["≤ 500 ms", "≤ 300 ms", "≤ 0.3 ms", ""];
    at(lab, terminal, Size { living: 2000, burst: 1000, goals }).await
}

/// 10,000 containers, and 1,000.
pub async fn measure_large(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let goals = ["no lease and no event lost", "no lease and no event lost", "≤ 0.5 ms", "≤ 80 MB"];
    at(lab, terminal, Size { living: 10_000, burst: 2000, goals }).await
}

async fn at(lab: &Lab, terminal: Terminal, size: Size) -> Result<Vec<Figure>> {
    let Size { living, burst, goals } = size;
    let tenth = Size { living: living / 10, burst: burst / 10, goals };
    let small = terminal.while_waiting(&format!("{} containers", tenth.living), Box::pin(one(lab, tenth))).await?;
    let large = terminal.while_waiting(&format!("{living} containers"), Box::pin(one(lab, size))).await?;
    let figure = |what: String, of: fn(&Measured) -> String, goal: &str| Figure {
        what,
        value: format!("{}; at a tenth of all numbers {}", of(&large), of(&small)),
        goal: goal.to_owned(),
        conditions:
            "scripted Docker API, a listener that accepts, one etcd, 20 containers to a service; no list meanwhile"
                .to_owned(),
    };
    let beside = format!("at once beside {living} containers");
    Ok(vec![
        figure(format!("{burst} starts {beside}: the last event → all up"), |m| millis(m.up), goals[0]),
        figure(format!("{burst} kills {beside}: the last event → all draining"), |m| millis(m.draining), goals[1]),
        figure(format!("{burst} ends {beside}: the last event → all gone"), |m| millis(m.gone), ""),
        figure(
            format!("processor time of register for each of these {} events", 3 * burst),
            |m| millis(m.together),
            goals[2],
        ),
        figure(format!("the same for one that comes alone, beside {living} containers"), |m| millis(m.alone), goals[2]),
        figure(
            format!("resident memory of register with {} containers", living + burst),
            |m| megabytes(m.memory),
            goals[3],
        ),
    ])
}

/// A host with its agent.
struct Host {
    api: DockerApi,
    port: u16,
    mark: String,
    agent: Agent,
    watch: WatchStream,
}

async fn one(lab: &Lab, size: Size) -> Result<Measured> {
    let Size { living, burst, .. } = size;
    let etcd = Etcd::start();
    let (port, listener) = accepting().await?;
    let api = DockerApi::start();
    (0..living).for_each(|number| api.put(container(lab.mark(), number, port)));
    let register = Register::new(&format!("host-{living}")).args(&["--docker-host", &api.host(), "--resync", "10m"]);
    let agent = register.start(lab, &etcd).await?;
    let mut client = etcd.operator().await;
    let mut counter = client.clone();
    let all = async || registered(&mut counter).await.is_ok_and(|n| n == living);
    wait::until_true("all containers in etcd", PATIENCE, all).await?;
    let options = WatchOptions::new().with_prefix();
    let watch = client.watch("/backends/", Some(options)).await.during("watching the backends")?;
    let mut host = Host { api, port, mark: lab.mark().to_owned(), agent, watch };
    tokio::time::sleep(Duration::from_secs(2)).await; // what the start cost is not meant
    let before = lease(&mut client).await?;

    let began = host.agent.process().processor_time()?;
    let numbers = living..living + burst;
    let up = host.all(numbers.clone(), "start").await?;
    let memory = host.agent.resident_memory()?;
    let draining = host.all(numbers.clone(), "kill").await?;
    let gone = host.all(numbers, "die").await?;
    tokio::time::sleep(Duration::from_secs(1)).await; // what follows from the last events belongs to them
    let together = host.agent.process().processor_time()? - began;

    let began = host.agent.process().processor_time()?;
    for number in living + burst..living + burst + SINGLE {
        for action in ["start", "kill", "die"] {
            host.all(number..number + 1, action).await?;
        }
    }
    let alone = host.agent.process().processor_time()? - began;
    if lease(&mut client).await? != before {
        return Err(LabError::new(format!("the lease was lost beside {living} containers")));
    }
    listener.abort();
    let each = |time: Duration, events: usize| time / u32::try_from(events).unwrap_or(u32::MAX);
    Ok(Measured { up, draining, gone, together: each(together, 3 * burst), alone: each(alone, 3 * SINGLE), memory })
}

impl Host {
    /// This happens to these containers; how long after the last event the registry has it all.
    async fn all(&mut self, numbers: Range<usize>, action: &str) -> Result<Duration> {
        for number in numbers.clone() {
            match action {
                "start" => self.api.put(container(&self.mark, number, self.port)),
                "die" => self.api.remove(number),
                _ => {}
            }
        }
        for number in numbers.clone() {
            self.api.emit(&[event(number, action)]);
        }
        let told = Instant::now();
        let word = match action {
            "start" => r#""status":"up""#,
            "kill" => r#""status":"draining""#,
            _ => "",
        };
        let mut missing: BTreeSet<String> = numbers.map(|number| id(number)[..12].to_owned()).collect();
        let seen = async {
            while !missing.is_empty() {
                let message = self.watch.message().await.during("watching")?;
                let message = message.ok_or_else(|| LabError::new("the watch ended"))?;
                for event in message.events() {
                    let Some(entry) = event.kv() else { continue };
                    let so = match event.event_type() {
                        EventType::Put => !word.is_empty() && entry.value_str().is_ok_and(|value| value.contains(word)),
                        EventType::Delete => word.is_empty(),
                    };
                    let key = entry.key_str().unwrap_or_default();
                    if let (true, Some((_, id))) = (so, key.rsplit_once('/')) {
                        missing.remove(id);
                    }
                }
            }
            Ok::<_, LabError>(told.elapsed())
        };
        tokio::time::timeout(PATIENCE, seen).await.during(format!("waiting for each {action}"))?
    }
}

/// A container whose port accepts, at an address of its own on loopback.
fn container(mark: &str, number: usize, port: u16) -> Value {
    let mut container = running(number, &format!("crowd{}", number / SERVICE));
    let name = format!("{port}/tcp");
    let address = format!("127.{}.{}.{}", 1 + number / 65_536, number / 256 % 256, number % 256);
    container["Config"]["Labels"][MARK] = mark.into();
    container["Config"]["ExposedPorts"] = json!({ name.as_str(): {} });
    container["NetworkSettings"] = json!({
        "Ports": { name.as_str(): [{"HostIp": "0.0.0.0", "HostPort": (10_000 + number).to_string()}] },
        "Networks": {"bridge": {"IPAddress": address, "GlobalIPv6Address": ""}},
    });
    container
}

/// A port that accepts on every address.
async fn accepting() -> Result<(u16, JoinHandle<()>)> {
    let listener = TcpListener::bind("0.0.0.0:0").await.during("listening")?;
    let port = listener.local_addr().during("listening")?.port();
    Ok((port, tokio::spawn(async move { while listener.accept().await.is_ok() {} })))
}

/// The lease on which the host's registrations hang.
async fn lease(client: &mut Client) -> Result<i64> {
    let options = GetOptions::new().with_prefix();
    let reply = client.get("/registrars/", Some(options)).await.during("asking for the registrar")?;
    Ok(reply.kvs().first().during("there is no registrar")?.lease())
}
