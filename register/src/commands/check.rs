//! `register check`: Nerve's config held against the table of keys; every problem with its key path.

use super::{Failure, print};
use crate::cli::NerveArgs;
use crate::nerve::config;

/// Says all there is to say about the config.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(args: &NerveArgs) -> Result<(), Failure> {
    let Some(path) = &args.config else {
        return Err(Failure::usage("name the config: --config FILE (NERVE_CONFIG)"));
    };
    let wrong = |problems: &dyn std::fmt::Display| Failure::usage(format!("the config is wrong\n{problems}"));
    let loaded = config::load(path, args.instance_id.as_deref()).map_err(|e| wrong(&e))?;
    let said = loaded.warnings.iter().map(|note| format!("warning: {note}\n"));
    let said = said.chain(loaded.notices.iter().map(|note| format!("notice: {note}\n")));
    print(&said.collect::<String>())?;
    let problems: Vec<String> = loaded.wrong.values().flatten().map(ToString::to_string).collect();
    if !problems.is_empty() {
        return Err(wrong(&problems.join("\n")));
    }
    print(&format!("the config: good; {} services\n", loaded.config.services.len()))
}
