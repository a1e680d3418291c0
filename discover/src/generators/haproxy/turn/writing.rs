//! When haproxy.cfg may be written: at once, but a large one at most ten times a second. Pure, with injected time.
//!
//! Runtime operations never wait for it: the file on disk is what runs or will run, and a large one is so after at most
//! 100 ms. Whatever happens in between (a kill, somebody else's reload) is found by the next look at what runs, and mended.

use std::time::Duration;

use tokio::time::Instant;

/// Files above this many bytes are large.
const LARGE: usize = 1_000_000;
/// From one write of a large file to the next.
const PACE: Duration = Duration::from_millis(100);

/// The last write.
#[derive(Debug, Default)]
pub struct WritePace(Option<(Instant, usize)>);

impl WritePace {
    /// When the next write may be, if not at once.
    pub fn wait(&self, now: Instant) -> Option<Instant> {
        let (at, bytes) = self.0?;
        Some(at + PACE).filter(|due| bytes > LARGE && *due > now)
    }

    /// So many bytes were written.
    pub fn wrote(&mut self, bytes: usize, now: Instant) {
        self.0 = Some((now, bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_large_file_waits() {
        let (mut pace, now) = (WritePace::default(), Instant::now());
        assert_eq!(pace.wait(now), None);
        pace.wrote(LARGE, now);
        assert_eq!(pace.wait(now), None);
        pace.wrote(LARGE + 1, now);
        assert_eq!(pace.wait(now), Some(now + PACE));
        assert_eq!(pace.wait(now + PACE), None);
    }
}
