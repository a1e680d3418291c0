//! `discover render`: offline, what the generators make of given backends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::clock;
use agent::console;
use agent::say;
use clap::{Args, ValueEnum};
use model::{BackendId, Decoded, Pool, ServiceMap, ServiceName, decode};
use registry::GeneratorConfigs;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::Failure;
use super::edge::EdgeArgs;
use super::offline::{Native, OfflineEdge, shown, without_loops};
use super::settings::HaproxyArgs;
use crate::edge::EdgeSettings;
use crate::generators::file_output::{self, FileOutput};
use crate::generators::haproxy::file::checking::Checking;
use crate::generators::haproxy::file::edge::frontend::Frame;
use crate::generators::haproxy::file::synapse::SynapseComposer;
use crate::generators::haproxy::file::synapse::state::State;
use crate::generators::nginx::Nginx;
use crate::generators::prometheus::Prometheus;
use crate::generators::template;
use crate::generators::{Generator, output};
use crate::reconcile::{Desired, Policies};
use crate::synapse::types::Service;
use crate::synapse::{Config, LoadedConfig, load, registration};

/// Flags of `discover render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    #[command(flatten)]
    haproxy: HaproxyArgs,
    #[command(flatten)]
    edge: EdgeArgs,
    /// Synapse's config, JSON or YAML; without it the services are rendered in docker-discover's way
    #[arg(short, long, env = "SYNAPSE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// JSON: an object of service → list of backends; an array of such objects are successive rounds, the last is shown
    #[arg(long, value_name = "FILE")]
    backends: PathBuf,
    /// A state file of Synapse's to begin with
    #[arg(long, value_name = "FILE", requires = "config")]
    state: Option<PathBuf>,
    /// Which generator's output is shown
    #[arg(long, value_name = "NAME", value_enum, default_value = "haproxy")]
    generator: GeneratorName,
    /// Shows what this Tera template gives
    #[arg(long, value_name = "FILE", requires = "config", conflicts_with = "generator")]
    template: Option<PathBuf>,
    /// Files of the generators go to this directory, whatever the config says
    #[arg(long, value_name = "DIR", requires = "config")]
    out: Option<PathBuf>,
}

/// A generator, by its name in the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum GeneratorName {
    Haproxy,
    FileOutput,
    Nginx,
    Template,
    Prometheus,
}

/// Prints what a generator makes of the given backends.
///
/// # Errors
/// [`Failure::Usage`] naming the file and the key path of what is wrong.
pub async fn render(args: &RenderArgs) -> Result<(), Failure> {
    let rounds = read_rounds(&args.backends)?;
    let file = args.backends.display().to_string();
    let Some(path) = &args.config else {
        let mut native = Native::new(&args.haproxy, args.edge.settings()?, "haproxy.cfg".as_ref())?;
        let mut text = String::new();
        for round in &rounds {
            let services = services(round).map_err(|e| Failure::Usage(format!("{file}: {e}")))?;
            text = shown(&native.layout(&services)?, native.edge.as_ref());
        }
        console::text(&text);
        return Ok(());
    };
    let loaded = loaded(path)?;
    let edge = args.edge.settings()?.or_else(|| loaded.config.edge.clone());
    let mut offline = Offline::new(&loaded.config, args.state.as_deref(), edge)?;
    for round in &rounds {
        offline.round(round).map_err(|e| Failure::Usage(format!("{file}: {e}")))?;
    }
    offline.show(args).await
}

/// Reads a config and tells what it says about it on standard error.
///
/// # Errors
/// [`Failure::Usage`] with every problem.
pub(super) fn loaded(path: &Path) -> Result<LoadedConfig, Failure> {
    let loaded = load(path).map_err(|e| Failure::Usage(format!("the config is wrong\n{e}")))?;
    for note in &loaded.warnings {
        eprintln!("discover: warning: {note}");
    }
    Ok(loaded)
}

fn read_rounds(path: &Path) -> Result<Vec<Value>, Failure> {
    let fail = |e: &dyn std::fmt::Display| Failure::Usage(format!("{}: {e}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| fail(&format!("reading it: {e}")))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| fail(&e))?;
    Ok(match json {
        Value::Array(rounds) => rounds,
        one => vec![one],
    })
}

/// Successive rounds of one process, without a process.
struct Offline<'a> {
    config: &'a Config,
    policies: Policies,
    composer: Option<SynapseComposer>,
    edge: Option<OfflineEdge>,
    answers: ServiceMap,
    desired: Desired,
    shown: String,
    now: u64,
}

impl<'a> Offline<'a> {
    fn new(config: &'a Config, state: Option<&Path>, edge: Option<Arc<EdgeSettings>>) -> Result<Self, Failure> {
        let now = clock::now().as_secs();
        let top = config.haproxy.as_deref();
        let path = state.or_else(|| top?.state_file_path.as_deref());
        let state = top.zip(path).map(|(top, path)| {
            let text = state.and_then(|_| std::fs::read_to_string(path).ok()).unwrap_or_default();
            State::parse(&text, None, top.state_file_ttl, now)
        });
        let composer = SynapseComposer::new(config, state);
        if let Some(composer) = &composer {
            composer.warnings().for_each(|w| eprintln!("discover: warning: {w}"));
        }
        let file = top.and_then(|top| top.config_file_path.as_deref()).unwrap_or("haproxy.cfg".as_ref());
        let edge =
            edge.map(|edge| OfflineEdge::new(&edge, Frame::default(), Checking::beside_synapse(), file)).transpose()?;
        let (answers, desired) = (ServiceMap::new(), Desired::default());
        let policies = Policies::new(config);
        Ok(Self { config, policies, composer, edge, answers, desired, shown: String::new(), now })
    }

    fn round(&mut self, round: &Value) -> Result<(), String> {
        let object = round.as_object().ok_or("not an object of service → backends")?;
        let mut configs = GeneratorConfigs::new();
        for (name, value) in object {
            let Some(service) = self.config.services.iter().find(|s| s.name.as_str() == name) else {
                eprintln!("discover: warning: service {name} is not in the config");
                continue;
            };
            let (list, sections) = match value {
                Value::Object(answer) => (answer.get("backends"), answer.get("config_for_generator")),
                list => (Some(list), None),
            };
            if let Some(sections) = sections.and_then(Value::as_object) {
                configs.insert(service.name.clone(), Arc::new(sections.clone()));
            }
            let Some(list) = list.filter(|l| !l.is_null()) else { continue };
            let list = list.as_array().ok_or_else(|| format!("{name}: not a list of backends"))?;
            let pool = Arc::new(pool(service, list));
            self.answers.insert(service.name.clone(), pool);
        }
        self.desired = Desired { services: self.answers.clone(), ..Desired::default() };
        self.policies.apply_to(&mut self.desired, &configs, Instant::now());
        for (service, why) in self.desired.refused.iter().filter(|(service, _)| configs.contains_key(*service)) {
            eprintln!("discover: warning: service {service}: {why}");
        }
        if let Some(composer) = &mut self.composer {
            composer.take(&self.desired.configured);
            let mut layout = composer.compose(&self.desired.services, None, self.now);
            if let Some(edge) = &mut self.edge {
                edge.add_to(&mut layout, &self.desired.services);
            }
            without_loops(&mut layout);
            self.shown = shown(&layout, self.edge.as_ref());
        }
        Ok(())
    }

    async fn show(self, args: &RenderArgs) -> Result<(), Failure> {
        if let Some(composer) = &self.composer {
            for q in composer.quarantined() {
                eprintln!("discover: warning: service {}: {} is left out: {}", q.service, q.server, q.reason);
            }
        }
        if let Some(path) = &args.template {
            console::text(&template::render_once(path, &self.desired).map_err(|e| Failure::usage(&e))?);
            return Ok(());
        }
        let missing = |what: &str| Failure::Usage(format!("the config has no {what} section"));
        let mut files: BTreeMap<PathBuf, String> = BTreeMap::new();
        let named = |path: &Path| PathBuf::from(path.file_name().unwrap_or(path.as_os_str()));
        match args.generator {
            GeneratorName::Haproxy => {
                self.composer.as_ref().ok_or_else(|| missing("haproxy"))?;
                console::text(&self.shown);
                self.write_output_directory(args).await?;
                return Ok(());
            }
            GeneratorName::FileOutput => {
                let generator = FileOutput::new(self.config).ok_or_else(|| missing("file_output"))?;
                if args.out.is_some() {
                    return self.write_output_directory(args).await;
                }
                let all = generator.plan(&self.desired, Instant::now()).writes.into_iter();
                files = all.map(|(s, pool)| (format!("{s}.json").into(), file_output::text(&pool))).collect();
            }
            GeneratorName::Nginx => {
                let nginx = Nginx::new(self.config).ok_or_else(|| missing("nginx"))?;
                files.insert("nginx.conf".into(), nginx.text(&self.desired));
            }
            GeneratorName::Prometheus => {
                let prometheus = Prometheus::new(self.config).ok_or_else(|| missing("prometheus"))?;
                let path = self.config.prometheus.as_ref().map(|p| named(&p.file)).unwrap_or_default();
                files.insert(path, prometheus.text(&self.desired));
            }
            GeneratorName::Template => {
                for (_, t) in &self.config.templates {
                    let text = template::render_once(&t.source, &self.desired);
                    files.insert(named(&t.destination), text.map_err(|e| Failure::usage(&e))?);
                }
            }
        }
        match &args.out {
            Some(dir) => write_files(dir, &files),
            None if files.len() == 1 => {
                files.values().for_each(|text| console::text(text));
                Ok(())
            }
            None => {
                let all: Map<String, Value> =
                    files.into_iter().map(|(path, text)| (path.display().to_string(), json!(text))).collect();
                say!("{:#}", Value::Object(all));
                Ok(())
            }
        }
    }

    /// file_output's files, where a directory for them is given.
    async fn write_output_directory(&self, args: &RenderArgs) -> Result<(), Failure> {
        let (Some(dir), Some(generator)) = (&args.out, FileOutput::new(self.config)) else { return Ok(()) };
        let mut generator = generator.with_directory(dir);
        // What else lies there is not ours to delete: nobody runs here.
        let plan = file_output::Plan { clean: None, ..generator.plan(&self.desired, Instant::now()) };
        std::fs::create_dir_all(dir).map_err(Failure::runtime)?;
        generator.apply(plan).await.map(|_| ()).map_err(Failure::runtime)
    }
}

fn write_files(dir: &Path, files: &BTreeMap<PathBuf, String>) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(Failure::runtime)?;
    for (name, text) in files {
        let how = agent::files::Replace::default();
        agent::files::replace(&dir.join(name), text.as_bytes(), how)
            .map_err(|e| Failure::runtime(output::OutputError::Write(e)))?;
    }
    Ok(())
}

/// One service's answer; what is no registration is left out and told.
fn pool(service: &Service, list: &[Value]) -> Pool {
    let zookeeper = service.discovery.method.starts_with("zookeeper");
    let read = |(n, value): (usize, &Value)| {
        let object = value.as_object().ok_or_else(|| "not an object".to_owned());
        let backend = object.and_then(|map| match zookeeper {
            true => registration::read(&registration::of_zookeeper(map, n), service.backend_port_override),
            false => registration::read(map, service.backend_port_override),
        });
        match backend {
            Ok(backend) => Some(Arc::new(backend)),
            Err(why) => {
                eprintln!("discover: warning: {}[{n}] is left out: {why}", service.name);
                None
            }
        }
    };
    list.iter().enumerate().filter_map(read).collect()
}

/// Reads one round; every fault is named by its key path.
fn services(round: &Value) -> Result<ServiceMap, String> {
    let object = round.as_object().ok_or("not an object of service → backends")?;
    let mut services = BTreeMap::new();
    for (name, backends) in object {
        let service: ServiceName = name.parse().map_err(|e| format!("{name}: {e}"))?;
        let list = backends.get("backends").unwrap_or(backends);
        let list = list.as_array().ok_or_else(|| format!("{name}: not a list of backends"))?;
        let pool: Result<Pool, String> = list.iter().enumerate().map(|(n, b)| backend(name, n, b)).collect();
        services.insert(service, Arc::new(pool?));
    }
    Ok(services)
}

fn backend(service: &str, n: usize, value: &Value) -> Result<Arc<model::Backend>, String> {
    let at = |why: String| format!("{service}[{n}]: {why}");
    let id = match &value["id"] {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => format!("{}:{}", value["host"].as_str().unwrap_or("backend"), value["port"].to_string().trim_matches('"')),
    };
    let id: BackendId = id.parse().map_err(|e| at(format!("{e}")))?;
    match decode(&id, value.to_string().as_bytes()).map_err(|e| at(e.to_string()))? {
        Decoded::Backend(backend) => Ok(Arc::new(*backend)),
        Decoded::Portless(_) => Err(at("port is missing".into())),
    }
}
