//! How many file descriptors a HAProxy may have. It reserves what it may need when it loads a file, and does not load one for which that is
//! too much; what is added at run time reserves nothing (docs/haproxy.md).

use std::fs::read_to_string;

/// The capability to go beyond one's limit. Source: linux/capability.h.
const CAP_SYS_RESOURCE: u32 = 24;

/// The most that a worker of HAProxy, this process, or another that its master starts, may have. Without a worker it is discover itself that
/// would start it. `None` where `/proc` does not tell.
pub fn limit(worker: Option<i32>) -> Option<u64> {
    let status = |process: &str| read_to_string(format!("/proc/{process}/status")).ok();
    let name = |status: &str| Some(field(status, "Name:")?.starts_with("haproxy"));
    let starter = match worker {
        None => "self".to_owned(),
        Some(worker) => {
            let own = status(&worker.to_string())?;
            name(&own)?.then_some(())?;
            let parent = field(&own, "PPid:")?.to_owned();
            // A worker without a master is started by somebody whom we do not know.
            let is_master = status(&parent).as_deref().and_then(name) == Some(true);
            if is_master { parent } else { worker.to_string() }
        }
    };
    let privileges = u64::from_str_radix(field(&status(&starter)?, "CapEff:")?, 16).ok()?;
    match privileges & (1 << CAP_SYS_RESOURCE) {
        0 => hard_limit(&read_to_string(format!("/proc/{starter}/limits")).ok()?),
        _ => read_to_string("/proc/sys/fs/nr_open").ok()?.trim().parse().ok(),
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Source: proc(5), `/proc/PID/limits`: the limit's name, soft, hard, unit.
fn hard_limit(limits: &str) -> Option<u64> {
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match files.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_as_the_kernel_shows_it() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\nMax processes             1                    2                    processes\nMax open files            1024                 524288               files\n";
        assert_eq!(hard_limit(limits), Some(524_288));
        assert_eq!(hard_limit(&limits.replace("524288", "unlimited")), Some(u64::MAX));
        assert_eq!(hard_limit("Max processes 1 2 processes\n"), None);
        assert_eq!(limit(Some(i32::MAX)), None);
        assert!(limit(None).is_some_and(|most| most > 2), "this process may have some");
    }
}
