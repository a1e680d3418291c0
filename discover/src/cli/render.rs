//! `discover render` and `discover check`: offline, what a generator would make.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use common::model::{BackendId, Decoded, Pool, ServiceMap, ServiceName, decode};
use common::telemetry::Chain;
use serde_json::Value;

use super::Failure;
use super::settings::HaproxyArgs;
use crate::generators::haproxy::compose::Composer;
use crate::generators::haproxy::ports::assign;
use crate::haproxy::check as haproxy_check;
use crate::haproxy::version::{Capabilities, Version};
use crate::names::Resolved;

/// Flags of `discover render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    #[command(flatten)]
    haproxy: HaproxyArgs,
    /// JSON: an object of service → list of backends; an array of such objects are successive rounds, the last is shown
    #[arg(long, value_name = "FILE")]
    backends: PathBuf,
}

/// Flags of `discover check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    haproxy: HaproxyArgs,
    /// HAProxy's program
    #[arg(long, env = "DISCOVER_HAPROXY_BIN", value_name = "FILE", default_value = "haproxy")]
    haproxy_bin: PathBuf,
}

/// Prints haproxy.cfg for the given backends.
///
/// # Errors
/// [`Failure::Usage`] naming the file and the key path of what is wrong.
pub fn render(args: &RenderArgs) -> Result<(), Failure> {
    let text = std::fs::read_to_string(&args.backends)
        .map_err(|e| Failure::Usage(format!("reading {}: {e}", args.backends.display())))?;
    let file = args.backends.display().to_string();
    let json: Value = serde_json::from_str(&text).map_err(|e| Failure::Usage(format!("{file}: {e}")))?;
    let rounds = match json {
        Value::Array(rounds) => rounds,
        one => vec![one],
    };
    let mut shown = String::new();
    for round in &rounds {
        let services = services(round).map_err(|e| Failure::Usage(format!("{file}: {e}")))?;
        shown = rendered(&args.haproxy, &services)?;
    }
    print!("{shown}");
    Ok(())
}

/// Checks the flags and templates, and a rendered example with HAProxy itself.
///
/// # Errors
/// [`Failure::Usage`] with what is wrong.
pub async fn check(args: &CheckArgs) -> Result<(), Failure> {
    let example = ServiceMap::new();
    let text = rendered(&args.haproxy, &example)?;
    match haproxy_check::version(&args.haproxy_bin).await {
        Err(e) => println!("flags and templates are good; not tried with HAProxy: {}", Chain(&e)),
        Ok(version) => {
            let file = std::env::temp_dir().join(format!("discover-check-{}.cfg", std::process::id()));
            std::fs::write(&file, text).map_err(Failure::runtime)?;
            let outcome = haproxy_check::check(&args.haproxy_bin, &file).await;
            let _ = std::fs::remove_file(&file); // it is in the temporary directory
            outcome.map_err(|e| Failure::usage(&e))?;
            println!("flags and templates are good; HAProxy {version} takes the file");
        }
    }
    Ok(())
}

fn rendered(args: &HaproxyArgs, services: &ServiceMap) -> Result<String, Failure> {
    let settings = args.settings("haproxy.cfg".as_ref(), "haproxy.sock".as_ref(), [])?;
    let ports = assign(services, &settings, &Default::default());
    let mut composer = Composer::new(Arc::new(settings)).map_err(|e| Failure::usage(&e))?;
    let can = Capabilities::of(&Version::OLDEST);
    let (layout, failed) = composer.compose(services, &ports, &Resolved::default(), &can);
    for (service, reason) in &ports.unlisted {
        eprintln!("discover: service {service}: {reason}");
    }
    match failed.into_iter().next() {
        Some((service, error)) => Err(Failure::Usage(format!("service {service}: {}", Chain(&error)))),
        None => Ok(layout.render()),
    }
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

fn backend(service: &str, n: usize, value: &Value) -> Result<Arc<common::model::Backend>, String> {
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
