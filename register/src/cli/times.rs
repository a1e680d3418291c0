//! Times as flags give them.

use std::time::Duration;

/// A time such as `10s` or `1m 30s`; a bare number counts seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    humantime::parse_duration(text).map_err(|e| format!("{e}; give a time such as 10s or 1m30s"))
}

pub(super) fn period(text: &str) -> Result<Duration, String> {
    let period = duration(text)?;
    if period >= Duration::from_secs(1) { Ok(period) } else { Err("below 1s".to_owned()) }
}

/// At most one write in five seconds: each wakes every watcher.
pub(super) fn rare(text: &str) -> Result<Duration, String> {
    let period = duration(text)?;
    if period >= Duration::from_secs(5) { Ok(period) } else { Err("below 5s".to_owned()) }
}

/// Below 2 s etcd itself gives more; above a day it is a mistake.
pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    let accepted = Duration::from_secs(2)..=Duration::from_secs(86_400);
    if accepted.contains(&ttl) { Ok(ttl) } else { Err("not between 2s and 24h".to_owned()) }
}
