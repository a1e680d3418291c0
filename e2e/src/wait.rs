//! Waiting for what can be seen, never for a guessed time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{LabError, Result};

/// Between two looks.
const POLL: Duration = Duration::from_millis(10);

/// Looks again and again until `probe` gives something, at most for `within`.
///
/// # Errors
/// When it does not, naming `what` was waited for.
pub async fn until<T>(what: &str, within: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = probe().await {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(LabError::new(format!("waited {within:?} in vain for: {what}")));
        }
        sleep(POLL).await;
    }
}

/// [`until`] for a yes.
///
/// # Errors
/// As [`until`].
pub async fn until_true(what: &str, within: Duration, mut probe: impl AsyncFnMut() -> bool) -> Result<()> {
    until(what, within, async || probe().await.then_some(())).await
}

/// The opposite: watches that `holds` stays true for the whole of `during`.
///
/// # Errors
/// As soon as it does not, naming `what` should have held.
pub async fn holds(what: &str, during: Duration, mut holds: impl AsyncFnMut() -> bool) -> Result<()> {
    let end = Instant::now() + during;
    while Instant::now() < end {
        if !holds().await {
            return Err(LabError::new(format!("did not hold for {during:?}: {what}")));
        }
        sleep(POLL).await;
    }
    Ok(())
}
