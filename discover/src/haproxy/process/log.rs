//! The end of what HAProxy wrote to its log.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// As much of a log as an error carries, in bytes: its end.
pub(super) const LOG_TAIL: u64 = 8192;

/// What was written to a log since `from`, at most its last 8 KiB; nothing when it cannot be read, for it only explains another error.
pub(super) fn log_since(log: &Path, from: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        // A log that became shorter was rotated.
        let from = if from > end { 0 } else { from };
        file.seek(SeekFrom::Start(from.max(end.saturating_sub(LOG_TAIL))))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_default()
}

/// What matters of what HAProxy said before it ended, in one line: its alerts, if there are any.
pub(super) fn essence(said: &str) -> String {
    let alerts: Vec<&str> = said.lines().filter(|line| line.starts_with("[ALERT]")).collect();
    let lines = match alerts.is_empty() {
        true if said.trim().is_empty() => vec!["it said nothing"],
        true => said.lines().collect(),
        false => alerts,
    };
    with_hint(lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join("; "))
}

/// The same, with the remedy for what HAProxy cannot name one for.
pub(super) fn with_hint(said: String) -> String {
    match said.contains("FD limit") {
        true => format!(
            "{said} (lower --maxconn, or raise the limit of open files: `ulimit -n`, LimitNOFILE, --ulimit nofile)"
        ),
        false => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_open_files_comes_with_its_remedy() {
        let limit = "[ALERT] (1) : [haproxy.main()] Cannot raise FD limit to 200038, limit is 1024.";
        assert!(with_hint(limit.to_owned()).contains("--maxconn"));
        assert_eq!(with_hint("[ALERT] other".to_owned()), "[ALERT] other");
        let whole = format!("[NOTICE]   (1) : haproxy version is 3.0.11\n{limit}\n[ALERT] (1) : another");
        let told = essence(&whole);
        assert!(told.starts_with(limit) && told.contains("; [ALERT] (1) : another (lower --maxconn"), "{told}");
        assert_eq!(essence("exec: no such file\nbye"), "exec: no such file; bye");
        assert_eq!(essence("\n"), "it said nothing");
    }
}
