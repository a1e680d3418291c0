//! The machine that measured.

use e2e::{Context, Result};

/// One line about it.
pub fn describe() -> Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).during(format!("reading {path}"));
    let cpus = std::thread::available_parallelism().during("counting processors")?;
    let info = read("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let memory: u64 = read("/proc/meminfo")?.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease")?;
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    Ok(format!(
        "Measured with {build} builds on {cpus} processors ({model}), {} GB of memory, Linux {}; all parts on this one machine, over loopback.",
        memory.div_ceil(1_000_000),
        kernel.trim()
    ))
}
