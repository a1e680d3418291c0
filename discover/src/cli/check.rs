//! `discover check`: the config held against the table of keys, and with HAProxy at hand the rendered file too.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use agent::say;
use agent::telemetry::Chain;
use clap::Args;
use model::ServiceMap;
use tokio::time::Instant;

use super::Failure;
use super::edge::EdgeArgs;
use super::offline::{Native, OfflineEdge};
use super::settings::HaproxyArgs;
use crate::generators::haproxy::file::edge::frontend::Frame;
use crate::generators::haproxy::file::layout::Layout;
use crate::generators::haproxy::file::synapse::SynapseComposer;
use crate::haproxy::api::version::{Capabilities, Version};
use crate::haproxy::process::check as haproxy_check;
use crate::reconcile::Policies;
use crate::synapse::load;
use crate::watchers::configured;

/// Flags of `discover check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    haproxy: HaproxyArgs,
    #[command(flatten)]
    edge: EdgeArgs,
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
    let dir = std::env::temp_dir().join(format!("discover-check-{}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(Failure::runtime)?;
    let outcome = check_in(args, &dir).await;
    let _ = std::fs::remove_dir_all(&dir); // it is in the temporary directory
    outcome
}

async fn check_in(args: &CheckArgs, dir: &Path) -> Result<(), Failure> {
    let file = dir.join("haproxy.cfg");
    let version = haproxy_check::version(&args.haproxy_bin).await;
    let (what, composed) = match &args.config {
        None => {
            let mut native = Native::new(&args.haproxy, args.edge.settings()?, &file)?;
            let layout = native.layout(&ServiceMap::new())?;
            ("flags and templates", Some((layout, native.edge)))
        }
        Some(path) => ("the config", config(path, args, &file, version.as_ref().ok())?),
    };
    let Some((layout, edge)) = composed else {
        say!("{what}: good");
        return Ok(());
    };
    if let Some(edge) = edge {
        edge.write(&layout)?.iter().for_each(|why| say!("warning: {why}"));
    }
    match version {
        Err(e) => say!("{what}: good; not tried with HAProxy: {}", Chain(&e)),
        Ok(version) => {
            std::fs::write(&file, layout.render()).map_err(Failure::runtime)?;
            haproxy_check::check(&args.haproxy_bin, &file, haproxy_check::CHECK_TIMEOUT)
                .await
                .map_err(|e| Failure::usage(&e))?;
            say!("{what}: good; HAProxy {version} takes the file");
        }
    }
    Ok(())
}

/// haproxy.cfg, and the edge beside it.
type Composed = (Layout, Option<OfflineEdge>);

/// Everything there is to say about a config; gives haproxy.cfg with the default servers, as this version of HAProxy wants it.
fn config(path: &Path, args: &CheckArgs, file: &Path, version: Option<&Version>) -> Result<Option<Composed>, Failure> {
    let loaded = load(path).map_err(|e| Failure::Usage(format!("the config is wrong\n{e}")))?;
    for note in &loaded.warnings {
        say!("warning: {note}");
    }
    if let Err(unknown) = configured(&loaded.config) {
        unknown.0.iter().for_each(|why| say!("warning: {}: {why}", path.display()));
    }
    for note in &loaded.notices {
        say!("notice: {note}");
    }
    for (name, template) in &loaded.config.templates {
        crate::generators::template::Template::new(name, template).map_err(|e| Failure::usage(&e))?;
    }
    let Some(mut composer) = SynapseComposer::new(&loaded.config, None) else { return Ok(None) };
    version.into_iter().for_each(|version| composer.suit(&Capabilities::of(version)));
    composer.warnings().for_each(|w| say!("warning: {w}"));
    let mut policies = Policies::new(&loaded.config);
    let services = policies.apply(&ServiceMap::new(), Instant::now());
    let mut layout = composer.compose(services, None, 0);
    let edge = args.edge.settings()?.or_else(|| loaded.config.edge.clone());
    let mut edge = edge.map(|edge| OfflineEdge::new(&edge, Frame::default(), file)).transpose()?;
    if let Some(edge) = &mut edge {
        edge.add_to(&mut layout, services);
    }
    Ok(Some((layout, edge)))
}
