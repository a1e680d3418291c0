//! `discover run`: the agent as flags, or Synapse's config, describe it. With a config, SIGHUP or a change of the file reads it again:
//! a bad one is refused, and what runs goes on.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use agent::config::files::stamps;
use agent::lifecycle::Lifecycle;
use agent::telemetry::Chain;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::Failure;
use super::args::RunArgs;
use super::assembly::{AgentParts, AgentTasks, Assembly};
use super::description::{Description, named, read};
use super::lock::lock;
use super::serve::serve;
use crate::generators::haproxy::turn::connection::ProcessMode;
use crate::haproxy::process::output::HaproxyOutput;
use crate::synapse::{Config, LoadedConfig};

/// How often to look for changes of the config's files.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Runs the agent until a signal.
pub async fn run(args: RunArgs) -> Result<(), Failure> {
    let loaded = named(&args)?;
    let description = Description { args: &args, config: loaded.as_ref().map(|loaded| &loaded.config) };
    description.judge()?;
    if loaded.is_none() {
        args.process.make_directories()?;
    }
    let _lock = description.config_file().as_deref().map(lock).transpose()?;
    let mut lifecycle = Lifecycle::new();
    lifecycle.listen().map_err(Failure::runtime)?;
    let (cancel, reloads) = (lifecycle.token(), lifecycle.reloads());
    description.introduce();
    let mut registry = Registry::default();
    let assembly = Assembly::new(description, &mut registry);
    match loaded {
        None => {
            let parts = parts_of_flags(&assembly, description, &mut lifecycle).await?;
            serve(&assembly, registry, &mut lifecycle).await?;
            if let Some(log) = args.process.launch().log().filter(|_| args.process.mode() == ProcessMode::Spawn) {
                lifecycle.spawn("HAProxy's words", HaproxyOutput::new(log.to_owned()).follow(cancel.clone()));
            }
            own(assembly.tasks(description, parts, &cancel), args.source.name(), &mut lifecycle);
        }
        Some(loaded) => {
            serve(&assembly, registry, &mut lifecycle).await?;
            lifecycle.spawn("turns", assembly.follow(loaded, reloads, cancel));
        }
    }
    lifecycle.supervise().await.map_err(Failure::runtime)
}

async fn parts_of_flags(
    assembly: &Assembly,
    description: Description<'_>,
    lifecycle: &mut Lifecycle,
) -> Result<AgentParts, Failure> {
    let (args, metrics) = (&assembly.args, &assembly.metrics);
    let mut haproxy = description.haproxy(assembly.of_haproxy.clone())?;
    let published = args.docker_ports.watch(&args.source, assembly.wake.clone(), lifecycle).await?;
    if let (Some(haproxy), Some(published)) = (&mut haproxy, published) {
        haproxy.keep_off(published);
    }
    let certificates = description.certificates(metrics)?;
    Ok(AgentParts { sources: description.sources()?, certificates, haproxy, others: description.others()? })
}

/// Makes the tasks part of `lifecycle`: one that fails ends the run.
fn own(tasks: AgentTasks, source: &'static str, lifecycle: &mut Lifecycle) {
    for (_, watcher) in tasks.watchers {
        lifecycle.spawn(source, watcher);
    }
    let named = tasks.certificates.map(|task| ("certificates", task)).into_iter().chain([("turns", tasks.turns)]);
    for (name, task) in named {
        lifecycle.spawn(name, async move {
            task.await;
            Ok::<(), Infallible>(())
        });
    }
}

/// Runs the tasks by themselves: a watcher that gives up leaves its last answer.
fn side_by_side(tasks: AgentTasks) -> JoinSet<()> {
    let mut all = JoinSet::new();
    for (source, watcher) in tasks.watchers {
        all.spawn(async move {
            if let Err(e) = watcher.await {
                error!(%source, error = %Chain(&*e), "Watcher has given up; its last answer stays.");
            }
        });
    }
    tasks.certificates.into_iter().chain([tasks.turns]).for_each(|task| {
        all.spawn(task);
    });
    all
}

impl Assembly {
    /// Runs one config after the other until `cancel`.
    async fn follow(
        self,
        mut loaded: LoadedConfig,
        mut reloads: watch::Receiver<u64>,
        cancel: CancellationToken,
    ) -> Result<(), Infallible> {
        loop {
            let inner = cancel.child_token();
            let description = self.described_by(&loaded.config);
            let mut tasks = side_by_side(self.tasks(description, self.parts_of_config(description), &inner));
            let next = tokio::select! {
                biased; // shutdown wins over work
                () = cancel.cancelled() => None,
                next = self.next_config(&loaded, &mut reloads) => Some(next),
            };
            inner.cancel();
            // A turn is never cut in two.
            while tasks.join_next().await.is_some() {}
            match next {
                None => return Ok(()),
                Some(next) => loaded = next,
            }
        }
    }

    /// The next good config; a bad one is reported and passed over.
    async fn next_config(&self, now: &LoadedConfig, reloads: &mut watch::Receiver<u64>) -> LoadedConfig {
        let path = self.args.config.as_deref().unwrap_or(Path::new(""));
        let mut seen = stamps(&now.files);
        loop {
            tokio::select! {
                asked = reloads.changed() => if asked.is_err() { std::future::pending().await },
                () = tokio::time::sleep(LOOK_EVERY) => {
                    let is = stamps(&now.files);
                    if is == seen {
                        continue;
                    }
                    seen = is;
                }
            }
            match read(path)
                .and_then(|new| self.described_by(&new.config).judge().map(|()| new).map_err(|e| e.to_string()))
            {
                Ok(new) if new.config == now.config => info!("Config read again: nothing has changed."),
                Ok(new) => {
                    info!(services = new.config.services.len(), "Config read again.");
                    return new;
                }
                Err(problems) => error!(%problems, "The new config is refused; the running one goes on."),
            }
        }
    }

    fn described_by<'a>(&'a self, config: &'a Config) -> Description<'a> {
        Description { args: &self.args, config: Some(config) }
    }

    /// The parts of a config that was judged good: one that cannot be made all the same is reported and left out.
    fn parts_of_config(&self, description: Description<'_>) -> AgentParts {
        AgentParts {
            sources: or_none(description.sources(), "The sources of this config cannot be made."),
            certificates: or_none(description.certificates(&self.metrics), "The edge has no certificates."),
            haproxy: or_none(description.haproxy(self.of_haproxy.clone()), "HAProxy of this config cannot be made."),
            others: or_none(description.others(), "The generators of this config cannot be made."),
        }
    }
}

fn or_none<T: Default>(made: Result<T, Failure>, otherwise: &'static str) -> T {
    made.unwrap_or_else(|problem| {
        error!(problem = %Chain(&problem), "{otherwise}");
        T::default()
    })
}
