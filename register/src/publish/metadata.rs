//! The host's load and pressure, for clients that balance by them: written only when asked for (`--metadata-interval`), under a key
//! of its own that no watcher of backends sees.

use std::path::Path;
use std::time::Duration;

use agent::telemetry::Chain;
use registry::store::{Compare, Key, LeaseId, Op, Store, StoreError, Value};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

/// Load and pressure of the host at one moment. What the kernel does not tell is left out.
#[derive(Debug, Default, PartialEq, Serialize)]
struct HostMetadata {
    /// Average numbers of running and waiting tasks over 1, 5 and 15 minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<[f64; 3]>,
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_available_bytes: Option<u64>,
    /// The part of the last 10 s in which some task waited for a processor, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_pressure: Option<f64>,
    /// The same for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_pressure: Option<f64>,
}

impl HostMetadata {
    /// Reads the files of `proc`, which are the host's in a container, too.
    ///
    /// Source: proc_loadavg(5), proc_meminfo(5), Documentation/accounting/psi.rst.
    fn read(proc: &Path) -> Self {
        let text = |file: &str| std::fs::read_to_string(proc.join(file)).unwrap_or_default();
        let (load, memory) = (text("loadavg"), text("meminfo"));
        let mut averages = load.split_whitespace().map(|word| word.parse().ok());
        let mut average = || averages.next().flatten();
        let kilobytes = |name: &str| {
            let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
        };
        let pressure = |file: &str| {
            let text = text(file);
            let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
            some.split_whitespace().find_map(|word| word.strip_prefix("avg10=")?.parse().ok())
        };
        Self {
            load: (|| Some([average()?, average()?, average()?]))(),
            cpus: std::thread::available_parallelism().ok().map(usize::from),
            memory_total_bytes: kilobytes("MemTotal"),
            memory_available_bytes: kilobytes("MemAvailable"),
            cpu_pressure: pressure("pressure/cpu"),
            memory_pressure: pressure("pressure/memory"),
        }
    }
}

/// Writes the host's metadata to `key` under `lease` every `every`, and not when nothing changed. Never ends; a write
/// that fails is made up for by the next.
pub(super) async fn keep<S: Store>(store: &S, lease: LeaseId, key: Key, every: Duration) -> std::convert::Infallible {
    let mut times = interval(every);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut written = Vec::new();
    let mut failed = false;
    loop {
        times.tick().await;
        let json = serde_json::to_vec(&HostMetadata::read(Path::new("/proc"))).unwrap_or_default(); // plain numbers
        if json == written {
            continue;
        }
        match put(store, lease, &key, &json).await {
            Ok(true) => (written, failed) = (json, false),
            Ok(false) if !failed => {
                failed = true;
                warn!(key = %key, "The key of the host's metadata belongs to somebody else; it is not written.");
            }
            Ok(false) => {}
            Err(error) if !failed => {
                failed = true;
                warn!(key = %key, error = %Chain(&error), "Writing the host's metadata failed; the next time tries again.");
            }
            Err(_) => {}
        }
    }
}

/// Writes `key` if nobody has it, or we; returns whether that was so.
async fn put<S: Store>(store: &S, lease: LeaseId, key: &Key, value: &[u8]) -> Result<bool, StoreError> {
    for when in [Compare::LeaseIs(key.clone(), lease), Compare::Absent(key.clone())] {
        let op = Op::put(key.clone(), Value::from(value), Some(lease));
        if store.txn(vec![when], vec![op]).await?.succeeded {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read_and_what_is_missing_is_left_out() {
        let proc = tempfile::tempdir().unwrap();
        assert_eq!(HostMetadata { cpus: None, ..HostMetadata::read(proc.path()) }, HostMetadata::default());
        let write = |name: &str, text: &str| std::fs::write(proc.path().join(name), text).unwrap();
        write("loadavg", "0.52 0.58 1.59 1/467 12345\n");
        write("meminfo", "MemTotal:       1000 kB\nMemFree:  5 kB\nMemAvailable:   250 kB\n");
        std::fs::create_dir(proc.path().join("pressure")).unwrap();
        write("pressure/cpu", "some avg10=1.25 avg60=0.40 avg300=0.10 total=1\n");
        write("pressure/memory", "rubbish\n");
        let json = serde_json::to_value(HostMetadata { cpus: Some(2), ..HostMetadata::read(proc.path()) }).unwrap();
        assert_eq!(
            json.to_string(),
            r#"{"load":[0.52,0.58,1.59],"cpus":2,"memory_total_bytes":1024000,"memory_available_bytes":256000,"cpu_pressure":1.25}"#
        );
    }
}
