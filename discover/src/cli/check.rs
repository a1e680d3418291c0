//! `discover check`: what `run` makes of the flags and the config, and with HAProxy at hand what HAProxy makes of the rendered file.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use agent::say;
use agent::telemetry::Chain;
use model::ServiceMap;
use tokio::time::Instant;

use super::Failure;
use super::args::RunArgs;
use super::description::{Description, named};
use super::offline::{Native, OfflineEdge, without_loops};
use crate::generators::haproxy::file::checking::Checking;
use crate::generators::haproxy::file::edge::frontend::Frame;
use crate::generators::haproxy::file::layout::Layout;
use crate::generators::haproxy::file::synapse::SynapseComposer;
use crate::haproxy::api::version::{Capabilities, Version};
use crate::haproxy::process::check as haproxy_check;
use crate::reconcile::Policies;
use crate::synapse::LoadedConfig;

/// Judges flags and config as `run` does; then has HAProxy itself judge a rendered example.
///
/// # Errors
/// [`Failure::Usage`] with everything that is wrong.
pub async fn check(args: &RunArgs) -> Result<(), Failure> {
    let loaded = named(args)?;
    for note in loaded.iter().flat_map(|loaded| &loaded.warnings) {
        say!("warning: {note}");
    }
    for note in loaded.iter().flat_map(|loaded| &loaded.notices) {
        say!("notice: {note}");
    }
    Description { args, config: loaded.as_ref().map(|loaded| &loaded.config) }.judge()?;
    let dir = std::env::temp_dir().join(format!("discover-check-{}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(Failure::runtime)?;
    let outcome = try_in(&dir, args, loaded.as_ref()).await;
    let _ = std::fs::remove_dir_all(&dir); // it is in the temporary directory
    outcome
}

/// Tries a rendered example, with its files in `dir`.
async fn try_in(dir: &Path, args: &RunArgs, loaded: Option<&LoadedConfig>) -> Result<(), Failure> {
    let file = dir.join("haproxy.cfg");
    let version = haproxy_check::version(&args.process.haproxy_bin).await;
    let (what, composed) = match loaded {
        None => {
            let mut native = Native::new(&args.haproxy, args.edge.settings()?, &file)?;
            let layout = native.example()?;
            ("flags and templates", Some((layout, native.edge)))
        }
        Some(loaded) => ("the config", example(loaded, args, &file, version.as_ref().ok())?),
    };
    let Some((layout, edge)) = composed else {
        say!("{what}: good");
        return Ok(());
    };
    let description = Description { args, config: loaded.map(|loaded| &loaded.config) };
    // Ours is where the example is.
    let header =
        layout.header.replace(&*dir.join("haproxy.sock").to_string_lossy(), &args.process.socket().to_string_lossy());
    description.advice(&header).iter().for_each(|why| say!("warning: {why}"));
    if let Some(edge) = edge {
        edge.write(&layout)?.iter().for_each(|why| say!("warning: {why}"));
    }
    match version {
        Err(e) => say!("{what}: good; not tried with HAProxy: {}", Chain(&e)),
        Ok(version) => {
            std::fs::write(&file, layout.render()).map_err(Failure::runtime)?;
            haproxy_check::check(&args.process.haproxy_bin, &file, args.process.check_timeout)
                .await
                .map_err(|e| Failure::usage(&e))?;
            say!("{what}: good; HAProxy {version} takes the file");
        }
    }
    Ok(())
}

/// haproxy.cfg, and the edge beside it.
type Composed = (Layout, Option<OfflineEdge>);

/// haproxy.cfg of a config with its default servers, as this version of HAProxy wants it.
fn example(
    loaded: &LoadedConfig,
    args: &RunArgs,
    file: &Path,
    version: Option<&Version>,
) -> Result<Option<Composed>, Failure> {
    let Some(mut composer) = SynapseComposer::new(&loaded.config, None) else { return Ok(None) };
    version.into_iter().for_each(|version| composer.suit(&Capabilities::of(version)));
    composer.warnings().for_each(|w| say!("warning: {w}"));
    let mut policies = Policies::new(&loaded.config);
    let services = policies.apply(&ServiceMap::new(), Instant::now());
    let mut layout = composer.compose(services, None, 0);
    let edge = args.edge.settings()?.or_else(|| loaded.config.edge.clone());
    let mut edge =
        edge.map(|edge| OfflineEdge::new(&edge, Frame::default(), Checking::beside_synapse(), file)).transpose()?;
    if let Some(edge) = &mut edge {
        edge.add_to(&mut layout, services);
    }
    without_loops(&mut layout);
    Ok(Some((layout, edge)))
}
