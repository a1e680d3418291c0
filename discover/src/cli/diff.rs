//! `discover diff`: what the next turn would change. Reads only.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::admin::control;
use agent::say;
use agent::telemetry::Chain;
use serde_json::json;
use tokio::time::Instant;

use super::Failure;
use super::args::RunArgs;
use super::assembly::{reconciler, remembered};
use super::description::Description;
use super::first::{Answers, ask};
use super::serve::STATE_ASKED;
use crate::generators::Generator;
use crate::generators::haproxy::file::edge::map::RuleChange;
use crate::generators::haproxy::turn::changes::ServerChange;
use crate::generators::haproxy::turn::metrics::HaproxyMetrics;
use crate::generators::haproxy::turn::plan::{Live, Plan};
use crate::reconcile::{Desired, Held, Memory, Merged};
use crate::state::StateFile;

/// How long the registry may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Compares the registry with what runs, and prints the difference.
///
/// # Errors
/// [`Failure`] when the registry does not answer.
pub async fn diff(args: RunArgs) -> Result<(), Failure> {
    let (config, answers) = ask(&args.source, args.config.as_deref(), PATIENCE).await?;
    let description = Description { args: &args, config: config.as_ref() };
    let (memory, unknown) = memory(description).await;
    let (guard, routed) = remembered(description, memory);
    let mut reconciler = reconciler(description, Arc::new(Mutex::new(guard)), &routed, &routed);
    let Answers { services, generator_configs, .. } = answers;
    let desired = reconciler.desired(Merged { services, generator_configs, ..Merged::default() }, Instant::now());
    let Some(mut haproxy) = description.haproxy(HaproxyMetrics::default())? else {
        say!("nothing to do: the config has no haproxy section, or do_writes is false");
        return Ok(());
    };
    if let Some(why) = unknown {
        say!("{why}");
    }
    print_held(&desired);
    haproxy.recall();
    haproxy.prepare(&desired).await;
    let plan = haproxy.plan(&desired, Instant::now()).plan;
    let unproved = haproxy.unproved();
    if unproved > 0 {
        say!("servers with words that HAProxy has yet to judge, not shown here: {unproved}");
    }
    match plan {
        Plan::Unchanged => say!("nothing to do: HAProxy runs what the registry says"),
        Plan::Live(live) => {
            say!("no reload; over the runtime API:");
            print_steps(&live);
        }
        Plan::Reload { interim, reasons, .. } => {
            let words: Vec<&str> = reasons.iter().map(|r| r.as_str()).collect();
            say!("a reload, because: {}", words.join(", "));
            if let Some(live) = interim {
                say!("before it, over the runtime API:");
                print_steps(&live);
            }
        }
    }
    Ok(())
}

/// What the agent remembers, and what of that could not be asked: where none runs, what the last one wrote counts, as it would
/// for the next one.
async fn memory(description: Description<'_>) -> (Memory, Option<String>) {
    let socket = &description.args.control;
    let load = |path: PathBuf| StateFile::new(path).load();
    match control::call(socket, &json!({ STATE_ASKED: true })).await {
        Ok(answer) => match answer[STATE_ASKED].as_str() {
            Some(path) => (load(path.into()), None),
            None => (Memory::default(), Some("the agent writes no state file: what it holds is not known".to_owned())),
        },
        Err(e) => {
            let file = description.state_file();
            let from =
                file.as_ref().map_or_else(|| "unknown".to_owned(), |file| format!("taken from {}", file.display()));
            let why = format!("no agent could be asked ({}): what it holds is {from}", Chain(&e));
            (file.map(load).unwrap_or_default(), Some(why))
        }
    }
}

/// What is kept although it is not registered.
fn print_held(desired: &Desired) {
    for (service, held) in &desired.held {
        for (id, Held { until, .. }) in held {
            let left = until.saturating_duration_since(Instant::now()).as_secs();
            say!("held, not registered any more: {service}: {id}, for {left} s more (discover release {service})");
        }
    }
    for service in &desired.kept {
        say!("kept, as --on-empty asks: {service}, of which nothing is registered any more");
    }
}

fn print_steps(live: &Live) {
    if live.is_idle() {
        say!("  nothing: only the order of the file changes");
    }
    for section in &live.sections.come {
        say!("  + section {} from {}", section.name, section.defaults);
    }
    for section in &live.sections.go {
        say!("  - section {section}, which is empty");
    }
    for step in live.steps() {
        let section = &step.section;
        match &step.change {
            ServerChange::Add(now) => say!("  + {section}: {now}"),
            ServerChange::Revive { now, .. } => say!("  + {section}: {now} (out of maintenance)"),
            ServerChange::Alter { was, now } | ServerChange::Replace { was, now } => {
                say!("  - {section}: {was}");
                say!("  + {section}: {now}");
            }
            ServerChange::Retire(was) => say!("  - {section}: {was}"),
        }
    }
    match &live.rules {
        None => {}
        Some(RuleChange::Swap(all)) => say!("  all {} rules of the edge anew", all.len()),
        Some(RuleChange::Keys(keys)) => keys.iter().for_each(|(key, value, new)| match value {
            None => say!("  - edge: {key}"),
            Some(value) => say!("  {} edge: {key} {value}", if *new { '+' } else { '~' }),
        }),
    }
}
