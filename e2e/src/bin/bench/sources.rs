//! From a change at a source to the file on disk: discover with Synapse's config and file_output alone.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::agents::Agent;
use e2e::figures::{Figure, Times};
use e2e::scene::PATIENCE;
use e2e::terminal::Terminal;
use e2e::{Context, Etcd, Lab, LabError, Result};
use serde_json::{Map, Value, json};
use testing::aws::AwsApi;
use testing::dns::DnsServer;
use testing::docker_api::{DockerApi, event, running};
use testing::marathon::{Marathon, task};

/// How often a push source is changed.
const PUSHES: usize = 200;
/// How often one is changed that is only looked at; each change takes up to the interval.
const POLLS: usize = 8;
/// Between two looks, seconds.
const INTERVAL: u64 = 1;

/// One kind of source.
#[derive(Debug, Clone, Copy)]
enum Source {
    File,
    Multi,
    Docker,
    Etcd,
    Marathon,
    Dns,
    Ec2Tag,
}

const SOURCES: [Source; 7] =
    [Source::File, Source::Multi, Source::Docker, Source::Etcd, Source::Marathon, Source::Dns, Source::Ec2Tag];

/// What is changed.
struct World {
    dir: PathBuf,
    out: PathBuf,
    docker: DockerApi,
    etcd: Etcd,
    operator: etcd_client::Client,
    marathon: Marathon,
    names: DnsServer,
    ec2: AwsApi,
}

/// One figure for each source. ZooKeeper's stand in its own row.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let etcd = Etcd::start();
    let operator = etcd.operator().await;
    let (marathon, ec2) = (Marathon::start().await, AwsApi::start().await);
    marathon.set("/group/web", Vec::new(), true);
    let mut world = World {
        dir: lab.subdir("sources")?,
        out: lab.subdir("sources-out")?,
        docker: DockerApi::start(),
        etcd,
        operator,
        marathon,
        names: DnsServer::start().await,
        ec2,
    };
    for file in ["file.json", "left.json", "right.json"] {
        replace(&world.dir.join(file), &json!([]))?;
    }
    let services: Map<String, Value> =
        SOURCES.iter().map(|source| (source.name().to_owned(), source.service(&world))).collect();
    let config = json!({"file_output": {"output_directory": world.out}, "services": services});
    let path = world.dir.join("synapse.json");
    std::fs::write(&path, config.to_string()).during("writing the config")?;
    let mut agent = Agent::of_config(lab, "sources", &path)?;
    agent.ready().await?;

    let measuring = async {
        let mut figures = Vec::new();
        for source in SOURCES {
            let mut times = Times::default();
            for n in 1..=source.changes() {
                times.push(source.shown(&mut world, n).await?);
            }
            figures.push(source.figure(&times));
        }
        Ok(figures)
    };
    let what = format!("{PUSHES} changes of each push source, {POLLS} of each that is looked at");
    terminal.while_waiting(&what, measuring).await
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Multi => "multi",
            Self::Docker => "docker",
            Self::Etcd => "etcd",
            Self::Marathon => "marathon",
            Self::Dns => "dns",
            Self::Ec2Tag => "ec2tag",
        }
    }

    fn is_looked_at(self) -> bool {
        matches!(self, Self::Dns | Self::Ec2Tag)
    }

    fn changes(self) -> usize {
        if self.is_looked_at() { POLLS } else { PUSHES }
    }

    fn service(self, world: &World) -> Value {
        let file = |name: &str| json!({"method": "file", "path": world.dir.join(name)});
        let discovery = match self {
            Self::File => file("file.json"),
            Self::Multi => json!({"method": "multi", "resolver": {"method": "union"}, "watchers": {
                "left": file("left.json"), "right": file("right.json"),
            }}),
            Self::Docker => json!({
                "method": "docker", "image_name": "example/web", "container_port": 80, "servers": [{"host": world.docker.host()}],
            }),
            Self::Etcd => json!({"method": "etcd", "hosts": [world.etcd.endpoint().authority()], "path": "/nerve/web"}),
            Self::Marathon => {
                json!({"method": "marathon", "marathon_api_url": world.marathon.url(), "application_name": "/group/web"})
            }
            Self::Dns => json!({
                "method": "dns", "nameserver": world.names.address(), "check_interval": INTERVAL,
                "servers": [{"host": "web.example", "port": 80}],
            }),
            Self::Ec2Tag => json!({
                "method": "ec2tag", "tag_name": "role", "tag_value": "web", "aws_region": "eu-west-1",
                "check_interval": INTERVAL, "aws_endpoint_url": world.ec2.url(),
                "aws_access_key_id": "test", "aws_secret_access_key": "test",
            }),
        };
        json!({"discovery": discovery, "backend_port_override": if matches!(self, Self::Ec2Tag) { json!(80) } else { Value::Null }})
    }

    /// Changes it the `n`th time, and gives what is to be seen of that.
    async fn change(self, world: &mut World, n: usize) -> Result<String> {
        let host = format!("10.0.{}.{}", n / 250, n % 250 + 1);
        let one = json!([format!("{host}:80")]);
        match self {
            Self::File => replace(&world.dir.join("file.json"), &one)?,
            Self::Multi => replace(&world.dir.join(["left.json", "right.json"][n % 2]), &one)?,
            Self::Docker => {
                world.docker.remove(n - 1);
                world.docker.put(running(n, "example/web:1"));
                world.docker.emit(&[event(n - 1, "die"), event(n, "start")]);
                return Ok(format!("\"{}\"", 10_000 + n));
            }
            Self::Etcd => {
                let value = json!({"host": host, "port": 80}).to_string();
                world.operator.put("/nerve/web/i-1/1", value, None).await.during("putting a key")?;
            }
            Self::Marathon => world.marathon.set("/group/web", vec![task("one", &host, 80)], false),
            Self::Dns => {
                let address: IpAddr = host.parse().during("making an address")?;
                world.names.set("web.example", &[address]);
            }
            Self::Ec2Tag => world.ec2.run(std::slice::from_ref(&host)),
        }
        Ok(format!("\"{host}\""))
    }

    /// From the change until it is in the service's file.
    async fn shown(self, world: &mut World, n: usize) -> Result<Duration> {
        let file = world.out.join(format!("{}.json", self.name()));
        let began = Instant::now();
        let text = self.change(world, n).await?;
        // In a thread of its own: a timer of the runtime has a millisecond.
        let looking = tokio::task::spawn_blocking(move || look(&file, &text, began));
        looking.await.during("looking at a file")?
    }

    fn figure(self, times: &Times) -> Figure {
        let name = match self {
            Self::File => "file, by renaming",
            Self::Multi => "multi (union of two files)",
            Self::Docker => "docker (scripted API)",
            Self::Marathon => "marathon (its event stream)",
            other => other.name(),
        };
        let (goal, how) = if self.is_looked_at() {
            (format!("≤ {INTERVAL} s and a tenth"), format!("; looked at every {INTERVAL} s (check_interval)"))
        } else {
            ("p50 ≤ 5 ms".to_owned(), String::new())
        };
        Figure {
            what: format!("{name}: change at the source → file on disk"),
            value: times.to_string(),
            goal,
            conditions: format!("{} times, one after the other; file_output{how}", self.changes()),
        }
    }
}

fn look(file: &Path, text: &str, began: Instant) -> Result<Duration> {
    while began.elapsed() < PATIENCE {
        if std::fs::read_to_string(file).is_ok_and(|now| now.contains(text)) {
            return Ok(began.elapsed());
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Err(LabError::new(format!("{text} does not come into {}", file.display())))
}

fn replace(path: &Path, backends: &Value) -> Result<()> {
    let replaced = agent::files::replace(path, backends.to_string().as_bytes(), Default::default());
    replaced.during(format!("replacing {}", path.display()))
}
