//! Keys that somebody else goes on changing: written again at once a few times, then after growing pauses. No I/O; the
//! caller tells the time.

use std::collections::BTreeMap;
use std::time::Duration;

use registry::store::Key;
use tokio::time::Instant;

/// How often a key is written again without a pause.
const AT_ONCE: u32 = 5;
/// The first pause; each next one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// A key that was left alone for so long after its pause begins anew.
const QUIET: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Fight {
    rewrites: u32,
    until: Instant,
}

/// The fights that go on.
#[derive(Debug, Default)]
pub struct Fights(BTreeMap<Key, Fight>);

impl Fights {
    /// Somebody deleted or changed `key`. Returns how long to leave it so; zero is at once, and `None` says that it is left
    /// alone already.
    pub fn struck(&mut self, key: &Key, now: Instant) -> Option<Duration> {
        if self.until(key, now).is_some() {
            return None;
        }
        self.0.retain(|_, fight| fight.until + QUIET > now);
        let fight = self.0.entry(key.clone()).or_insert(Fight { rewrites: 0, until: now });
        fight.rewrites += 1;
        let pause = match fight.rewrites.checked_sub(AT_ONCE + 1) {
            None => Duration::ZERO,
            Some(doublings) => PAUSE.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST),
        };
        fight.until = now + pause;
        Some(pause)
    }

    /// When the first of those that are left as they are may be written again.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|fight| fight.until).filter(|until| *until > now).min()
    }

    /// Until when `key` is left as it is, if it is.
    pub fn until(&self, key: &Key, now: Instant) -> Option<Instant> {
        self.0.get(key).map(|fight| fight.until).filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_minute_and_a_quiet_minute_ends_them() {
        let (mut fights, key) = (Fights::default(), Key::from("/k"));
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..13 {
            let pause = fights.struck(&key, now).unwrap();
            assert_eq!(fights.until(&key, now), (!pause.is_zero()).then(|| now + pause));
            if !pause.is_zero() {
                assert_eq!(fights.struck(&key, now), None, "left alone already");
            }
            pauses.push(pause.as_secs());
            now += pause;
        }
        assert_eq!(pauses, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(fights.struck(&Key::from("/other"), now), Some(Duration::ZERO));
        assert_eq!(fights.struck(&key, now + QUIET), Some(Duration::ZERO));
    }
}
