//! What a person may ask of a test by the environment: more of it, for longer, or the same again.

use std::str::FromStr;
use std::time::Duration;

/// What a variable gives, unless it is missing or makes no sense.
pub fn or<T: FromStr>(variable: &str, usual: T) -> T {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// How long a fault lasts: E2E_FAULT says otherwise, in seconds.
pub fn fault_length(usual: Duration) -> Duration {
    Duration::from_secs(or("E2E_FAULT", usual.as_secs()))
}
