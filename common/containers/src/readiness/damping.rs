//! For how long what falls again and again must hold before it counts. No I/O; time is given.

use std::collections::VecDeque;
use std::time::Duration;

/// So many falls within [`WINDOW`] and it flaps.
const FLAPS: usize = 3;
/// For how long a fall is remembered.
pub const WINDOW: Duration = Duration::from_secs(300);
/// What flaps need not hold for longer than this.
const LONGEST: Duration = Duration::from_secs(60);

/// The falls of one thing within the window, each as the time since some beginning.
#[derive(Debug, Default)]
pub struct Damping(VecDeque<Duration>);

impl Damping {
    /// Forgets what is too long ago.
    pub fn forget(&mut self, at: Duration) {
        while self.0.front().is_some_and(|fall| at.saturating_sub(*fall) > WINDOW) {
            self.0.pop_front();
        }
    }

    pub fn fell(&mut self, at: Duration) {
        self.0.push_back(at);
    }

    /// How often it fell.
    pub fn falls(&self) -> usize {
        self.0.len()
    }

    /// For how long it must hold: no time unless it flaps, then twice as long with each fall, beginning with two `units`.
    pub fn hold(&self, unit: Duration) -> Duration {
        match self.0.len().checked_sub(FLAPS) {
            None => Duration::ZERO,
            Some(more) => {
                let times = 2_u32.saturating_pow(u32::try_from(more + 1).unwrap_or(u32::MAX));
                unit.saturating_mul(times).min(LONGEST)
            }
        }
    }
}
