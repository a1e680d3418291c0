//! `discover diff`: what the next turn would change. Reads only.

use std::time::Duration;

use agent::say;
use tokio::time::Instant;

use super::Failure;
use super::args::RunArgs;
use super::description::Description;
use super::first::ask;
use crate::generators::Generator;
use crate::generators::haproxy::file::edge::map::RuleChange;
use crate::generators::haproxy::turn::changes::ServerChange;
use crate::generators::haproxy::turn::metrics::HaproxyMetrics;
use crate::generators::haproxy::turn::plan::{Live, Plan};
use crate::reconcile::{Admission, Desired};

/// How long the registry may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Compares the registry with what runs, and prints the difference.
///
/// # Errors
/// [`Failure`] when the registry does not answer.
pub async fn diff(args: RunArgs) -> Result<(), Failure> {
    let (config, answers) = ask(&args.source, args.config.as_deref(), PATIENCE).await?;
    let mut desired = Desired { services: answers.services, ..Desired::default() };
    let description = Description { args: &args, config: config.as_ref() };
    Admission::new(description.addresses()).admit(&mut desired.services);
    let Some(mut haproxy) = description.haproxy(HaproxyMetrics::default())? else {
        say!("nothing to do: the config has no haproxy section, or do_writes is false");
        return Ok(());
    };
    if let Some(mut policies) = description.policies() {
        policies.apply_to(&mut desired, &answers.generator_configs, Instant::now());
    }
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
