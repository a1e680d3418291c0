//! `discover check`: the config held against the table of keys, and with HAProxy at hand the rendered file too.

use std::path::{Path, PathBuf};

use clap::Args;
use common::model::ServiceMap;
use common::telemetry::Chain;
use tokio::time::Instant;

use super::Failure;
use super::render::rendered;
use super::settings::HaproxyArgs;
use crate::config::load;
use crate::generators::haproxy::synapse::SynapseComposer;
use crate::haproxy::check as haproxy_check;
use crate::haproxy::version::{Capabilities, Version};
use crate::reconcile::Policies;
use crate::watchers::configured;

/// Flags of `discover check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    haproxy: HaproxyArgs,
    /// Synapse's config, JSON or YAML
    #[arg(short, long, env = "SYNAPSE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// HAProxy's program
    #[arg(long, env = "DISCOVER_HAPROXY_BIN", value_name = "FILE", default_value = "haproxy")]
    haproxy_bin: PathBuf,
}

/// Checks the config, or the flags and templates; then a rendered example with HAProxy itself.
///
/// # Errors
/// [`Failure::Usage`] with everything that is wrong.
pub async fn check(args: &CheckArgs) -> Result<(), Failure> {
    let version = haproxy_check::version(&args.haproxy_bin).await;
    let (what, text) = match &args.config {
        None => ("flags and templates", Some(rendered(&args.haproxy, &ServiceMap::new())?)),
        Some(path) => ("the config", config(path, version.as_ref().ok())?),
    };
    let Some(text) = text else {
        println!("{what}: good");
        return Ok(());
    };
    match version {
        Err(e) => println!("{what}: good; not tried with HAProxy: {}", Chain(&e)),
        Ok(version) => {
            let file = std::env::temp_dir().join(format!("discover-check-{}.cfg", std::process::id()));
            std::fs::write(&file, text).map_err(Failure::runtime)?;
            let outcome = haproxy_check::check(&args.haproxy_bin, &file).await;
            let _ = std::fs::remove_file(&file); // it is in the temporary directory
            outcome.map_err(|e| Failure::usage(&e))?;
            println!("{what}: good; HAProxy {version} takes the file");
        }
    }
    Ok(())
}

/// Everything there is to say about a config; gives haproxy.cfg with the default servers, as this version of HAProxy wants it.
fn config(path: &Path, version: Option<&Version>) -> Result<Option<String>, Failure> {
    let loaded = load(path).map_err(|e| Failure::Usage(format!("the config is wrong\n{e}")))?;
    for note in &loaded.warnings {
        println!("warning: {note}");
    }
    if let Err(unknown) = configured(&loaded.config) {
        unknown.0.iter().for_each(|why| println!("warning: {}: {why}", path.display()));
    }
    for note in &loaded.notices {
        println!("notice: {note}");
    }
    for (name, template) in &loaded.config.templates {
        crate::generators::template::Template::new(name, template).map_err(|e| Failure::usage(&e))?;
    }
    let Some(mut composer) = SynapseComposer::new(&loaded.config, None) else { return Ok(None) };
    version.into_iter().for_each(|version| composer.suit(&Capabilities::of(version)));
    composer.warnings().for_each(|w| println!("warning: {w}"));
    let mut policies = Policies::new(&loaded.config);
    let services = policies.apply(&ServiceMap::new(), Instant::now());
    Ok(Some(composer.compose(services, None, 0).render()))
}
