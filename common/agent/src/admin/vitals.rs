//! What Prometheus expects of any program: `process_*` under the names of its own client libraries, and which build this is.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Ticks in a second in `/proc`: the kernel's `USER_HZ`, 100 on every architecture that Linux has for us.
const TICKS: f64 = 100.0;

/// Of this process, at this moment; `version` is `1.2.3 (commit day)` or its first half. What the kernel does not tell is left out.
pub(super) fn vitals(program: &str, version: &str) -> Registry {
    let mut registry = read(Path::new("/proc"));
    let built = Family::<[(&'static str, String); 2], Gauge>::default();
    let (version, build) = version.split_once(' ').unwrap_or((version, ""));
    let build = build.trim_matches(['(', ')']).to_owned();
    built.get_or_create(&[("version", version.to_owned()), ("build", build)]).set(1);
    registry.register(format!("{program}_build_info"), "1, with what was built", built);
    registry
}

/// Source: `proc_pid_stat(5)`, `proc_pid_status(5)`, `proc_stat(5)`.
fn read(proc: &Path) -> Registry {
    let mut registry = Registry::default();
    let text = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
    let (stat, status, limits) = (text("self/stat"), text("self/status"), text("self/limits"));
    // The name of the program, in brackets, may hold blanks.
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.trim().parse::<f64>().ok());
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok().map(|kb| kb * 1024.0)
    };
    let booted = text("stat").lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    let most = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let most = most.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    let open =
        fs::read_dir(proc.join("self/fd")).ok().map(|all| f64::from(u32::try_from(all.count()).unwrap_or(u32::MAX)));
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        let seconds = Counter::<f64, AtomicU64>::default();
        seconds.inc_by((user + system) / TICKS);
        registry.register("process_cpu_seconds", "Processor time, user and system", seconds);
    }
    let started = booted.zip(field(22)).map(|(booted, ticks)| booted + ticks / TICKS);
    for (name, help, value) in [
        ("process_start_time_seconds", "When the process began, Unix time", started),
        ("process_resident_memory_bytes", "Memory in use", kilobytes("VmRSS:")),
        ("process_virtual_memory_bytes", "Address space in use", kilobytes("VmSize:")),
        ("process_open_fds", "Open file descriptors", open),
        ("process_max_fds", "The most open file descriptors that are allowed", most),
        ("process_threads", "Threads", field(20)),
    ] {
        if let Some(value) = value {
            let gauge = Gauge::<f64, AtomicU64>::default();
            gauge.set(value);
            registry.register(name, help, gauge);
        }
    }
    registry
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn the_numbers_of_this_process_are_told_under_prometheus_names() {
        let shown = text(&vitals("x", "1.2.3 (abc 2026-11-29)"));
        assert!(shown.contains("x_build_info{version=\"1.2.3\",build=\"abc 2026-11-29\"} 1\n"), "{shown}");
        for name in
            ["process_cpu_seconds_total ", "process_resident_memory_bytes ", "process_open_fds ", "process_max_fds "]
        {
            let value =
                shown.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {shown}"));
            assert!(value.parse::<f64>().unwrap() > 0.0 || name.contains("cpu"), "{name}{value}");
        }
    }

    #[test]
    fn blanks_in_the_programs_name_move_no_field_and_what_is_missing_is_left_out() {
        let proc = tempfile::tempdir().unwrap();
        assert_eq!(text(&read(proc.path())), "# EOF\n");
        fs::create_dir(proc.path().join("self")).unwrap();
        let fields: Vec<String> = (4..=52).map(|n| (n * 10).to_string()).collect();
        fs::write(proc.path().join("self/stat"), format!("7 (a ) b) S {}\n", fields.join(" "))).unwrap();
        fs::write(proc.path().join("stat"), "cpu 1\nbtime 1000\n").unwrap();
        let shown = text(&read(proc.path()));
        assert!(shown.contains("\nprocess_cpu_seconds_total 2.9\n"), "{shown}");
        assert!(shown.contains("\nprocess_start_time_seconds 1002.2\n"), "{shown}");
        assert!(shown.contains("\nprocess_threads 200"), "{shown}");
    }
}
