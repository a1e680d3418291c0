//! What HAProxy takes and will not do well with. Pure, but for this process' own limits.

use std::path::Path;

/// File descriptors beside those of connections: listeners, checks, epoll, the master's pipes.
const BESIDE: u64 = 100;

/// What is wrong with the runtime socket that discover is to use, in this text of haproxy.cfg.
pub(super) fn of_socket(text: &str, socket: &Path, has_master: bool) -> Option<String> {
    let path = socket.to_string_lossy();
    let line = text.lines().map(str::split_ascii_whitespace).find_map(|mut words| {
        let is_socket = words.next() == Some("stats") && words.next() == Some("socket");
        let at = words.next().filter(|_| is_socket)?;
        (at.trim_start_matches("unix@") == path).then(|| words.collect::<Vec<_>>())
    });
    let so = if has_master {
        "so discover goes through HAProxy's master, which is slower"
    } else {
        "so every change is a reload"
    };
    match line {
        None => Some(format!("no line `stats socket {path} level admin` in haproxy's global section, {so}: add it")),
        Some(words) if words.windows(2).any(|pair| pair == ["level", "admin"]) => None,
        Some(_) => Some(format!("`stats socket {path}` allows no changes, {so}: add `level admin` to that line")),
    }
}

/// What is wrong with `maxconn` in this text, as far as this process' limit tells: HAProxy does not start with fewer descriptors than it needs.
pub(super) fn of_descriptors(text: &str) -> Option<String> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    // "Max open files  SOFT  HARD  files"; HAProxy raises its own to the hard one. Source: proc_pid_limits(5).
    let hard = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_ascii_whitespace().nth(1)?;
    too_few(text, hard.parse().ok()?)
}

fn too_few(text: &str, limit: u64) -> Option<String> {
    let mut in_global = false;
    let maxconn = text.lines().find_map(|line| {
        if !line.starts_with(char::is_whitespace) && !line.trim().is_empty() {
            in_global = line.trim() == "global";
        }
        line.trim().strip_prefix("maxconn ").filter(|_| in_global)?.trim().parse::<u64>().ok()
    })?;
    // Each connection has one to its client and one to its server.
    let needed = maxconn.saturating_mul(2).saturating_add(BESIDE);
    (needed > limit).then(|| {
        format!("maxconn {maxconn} takes about {needed} file descriptors, and the limit here is {limit}: HAProxy would not start")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_must_be_there_with_level_admin() {
        let of = |text: &str| of_socket(text, Path::new("/run/h.sock"), false);
        for good in [
            "global\n\tstats socket /run/h.sock mode 600 level admin\n",
            "global\n    stats socket unix@/run/h.sock level admin expose-fd listeners\n",
            "\tstats socket /other\n\tstats  socket /run/h.sock user a level admin",
        ] {
            assert_eq!(of(good), None, "{good}");
        }
        for (bad, why) in [
            ("global\n\tdaemon\n", "no line"),
            ("global\n\tstats socket /run/other.sock level admin\n", "no line"),
            ("global\n\tstats socket /run/h.sock\n", "every change is a reload: add `level admin`"),
            ("global\n\tstats socket /run/h.sock level operator\n", "allows no changes"),
        ] {
            assert!(of(bad).unwrap().contains(why), "{bad}");
        }
        assert!(of_socket("", Path::new("/run/h.sock"), true).unwrap().contains("through HAProxy's master"));
    }

    #[test]
    fn maxconn_must_fit_the_limit() {
        let text = "global\n\tmaxconn 1000\ndefaults\n\tmaxconn 900000\n";
        assert_eq!(too_few(text, 2100), None);
        assert!(too_few(text, 2099).unwrap().starts_with("maxconn 1000 takes about 2100 file descriptors"));
        assert_eq!(too_few("defaults\n\tmaxconn 900000\n", 10), None, "HAProxy fits its own to the limit");
    }
}
