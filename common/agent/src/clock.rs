//! The wall clock, as time since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time now.
pub fn now() -> Duration {
    since_1970(SystemTime::now())
}

/// `at` as time since 1970; zero where it is before that.
pub fn since_1970(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Whole milliseconds, for JSON.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `at` in whole milliseconds since 1970, as statuses have it.
pub fn unix_ms(at: SystemTime) -> u64 {
    millis(since_1970(at))
}
