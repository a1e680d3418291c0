//! When something that HAProxy refused is tried again. Pure, with injected time.

use std::time::Duration;

use tokio::time::Instant;

/// From a refusal to the next try of the same words or section: at first, and at most. What made them wrong may be elsewhere.
pub const REFUSED_FOR: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(3600)];
/// What nobody uses is remembered up to this number.
pub const KEPT: usize = 4096;

/// When something is tried again, and after which pause.
#[derive(Debug, Clone, Copy)]
pub struct Again {
    due: Instant,
    pause: Duration,
}

impl Again {
    /// At once; it was not tried yet.
    pub fn now(now: Instant) -> Self {
        Self { due: now, pause: Duration::ZERO }
    }

    /// After a pause that doubles each time: at first `first`, and `most` at most.
    #[must_use]
    pub fn later(self, now: Instant, [first, most]: [Duration; 2]) -> Self {
        let pause = (self.pause * 2).clamp(first, most);
        Self { due: now + pause, pause }
    }

    /// Now, whatever pause there was.
    pub fn hurry(&mut self, now: Instant) {
        self.due = now;
    }

    /// Whether it is time.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// Whether it was tried before.
    pub fn was_tried(&self) -> bool {
        !self.pause.is_zero()
    }
}
