//! The wall clock, as others read it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since 1970; zero on a clock that is set before that.
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `at` in milliseconds since 1970, as statuses and values have it.
pub fn unix_ms(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
