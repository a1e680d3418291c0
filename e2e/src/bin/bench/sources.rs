//! From a change at a source to the file on disk: discover with Synapse's config and file_output alone.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::testing::dns::DnsServer;
use common::testing::docker_api::{DockerApi, event, running};
use e2e::agents::Agent;
use e2e::figures::{Figure, Times};
use e2e::scene::PATIENCE;
use e2e::terminal::Terminal;
use e2e::{Context, Lab, LabError, Result};
use serde_json::{Value, json};

/// How often a push source is changed.
const PUSHES: usize = 200;
/// How often a name is changed; each takes up to its interval.
const POLLS: usize = 8;
/// Between two looks at the name, seconds.
const INTERVAL: u64 = 1;

/// One figure for each source.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let (dir, out) = (lab.subdir("sources")?, lab.subdir("sources-out")?);
    let (api, names) = (DockerApi::start(), DnsServer::start().await);
    let at = |name: &str| dir.join(name);
    for file in ["file.json", "left.json", "right.json"] {
        replace(&at(file), &json!([]))?;
    }
    let config = json!({
        "file_output": {"output_directory": out},
        "services": {
            "file": {"discovery": {"method": "file", "path": at("file.json")}},
            "multi": {"discovery": {"method": "multi", "resolver": {"method": "union"}, "watchers": {
                "left": {"method": "file", "path": at("left.json")}, "right": {"method": "file", "path": at("right.json")},
            }}},
            "docker": {"discovery": {
                "method": "docker", "image_name": "example/web", "container_port": 80, "servers": [{"host": api.host()}],
            }},
            "dns": {"discovery": {
                "method": "dns", "nameserver": names.address(), "check_interval": INTERVAL, "servers": [{"host": "web.example", "port": 80}],
            }},
        },
    });
    let path = at("synapse.json");
    std::fs::write(&path, config.to_string()).during("writing the config")?;
    let mut agent = Agent::of_config(lab, "sources", &path)?;
    agent.ready().await?;

    let measuring = async {
        let mut times: [Times; 4] = Default::default();
        for n in 1..=PUSHES {
            let address = format!("10.0.{}.{}:80", n / 250, n % 250 + 1);
            let one = json!([address]);
            times[0].push(shown(&out, "file", &address, || replace(&at("file.json"), &one)).await?);
            let side = if n % 2 == 0 { "left.json" } else { "right.json" };
            times[1].push(shown(&out, "multi", &address, || replace(&at(side), &one)).await?);
            let started = || {
                api.put(running(n, "example/web:1"));
                api.emit(&[event(n, "start")]);
                Ok(())
            };
            times[2].push(shown(&out, "docker", &format!("\"{}\"", 10_000 + n), started).await?);
            api.remove(n);
            api.emit(&[event(n, "die")]);
        }
        for n in 1..=POLLS {
            let address = IpAddr::from([10, 1, 0, u8::try_from(n).unwrap_or(u8::MAX)]);
            let told = || {
                names.set("web.example", &[address]);
                Ok(())
            };
            times[3].push(shown(&out, "dns", &format!("\"{address}\""), told).await?);
        }
        Ok(times)
    };
    let what = format!("{PUSHES} changes of each push source, {POLLS} of a name");
    let times: [Times; 4] = terminal.while_waiting(&what, measuring).await?;
    let names = ["file, by renaming", "multi (union of two files)", "docker (scripted API)", "dns"];
    let figures = names.into_iter().zip(&times).enumerate().map(|(n, (name, times))| Figure {
        what: format!("{name}: change at the source → file on disk"),
        value: times.to_string(),
        goal: if n < 3 { "p50 ≤ 5 ms".to_owned() } else { format!("≤ {INTERVAL} s and a tenth") },
        conditions: match n {
            3 => format!("{POLLS} times; check_interval {INTERVAL} s, TTL 60 s; file_output"),
            _ => format!("{PUSHES} times, one after the other; file_output"),
        },
    });
    Ok(figures.collect())
}

/// From `change` until `text` is in the service's file.
async fn shown(out: &Path, service: &str, text: &str, change: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let (file, text) = (out.join(format!("{service}.json")), quoted(text));
    let began = Instant::now();
    change()?;
    // In a thread of its own: a timer of the runtime has a millisecond.
    let looking = tokio::task::spawn_blocking(move || look(&file, &text, began));
    looking.await.during("looking at a file")?
}

/// An address as file_output writes it: host and port apart. What is quoted already stays.
fn quoted(text: &str) -> String {
    match text.split_once(':') {
        Some((host, _)) => format!("\"{host}\""),
        None => text.to_owned(),
    }
}

fn look(file: &PathBuf, text: &str, began: Instant) -> Result<Duration> {
    while began.elapsed() < PATIENCE {
        if std::fs::read_to_string(file).is_ok_and(|now| now.contains(text)) {
            return Ok(began.elapsed());
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Err(LabError::new(format!("{text} does not come into {}", file.display())))
}

fn replace(path: &Path, backends: &Value) -> Result<()> {
    let replaced = common::files::replace(path, backends.to_string().as_bytes(), Default::default());
    replaced.during(format!("replacing {}", path.display()))
}
