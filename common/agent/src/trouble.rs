//! What was said of a fault that lasts: each reason once, and the end once.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// Reasons told of one trouble: a text that changes at each try (a port, a time) must not fill the log.
const MOST: usize = 8;

/// A fault that lasts, or none. Without I/O: its user does the logging.
#[derive(Debug, Default)]
pub struct Trouble {
    told: Option<Told>,
}

#[derive(Debug)]
struct Told {
    since: Instant,
    reasons: BTreeSet<String>,
}

/// What a failure is to a reader of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The trouble begins.
    Begins,
    /// It goes on, for a reason that was not told yet.
    OtherReason,
    /// Known.
    None,
}

impl Trouble {
    /// Takes in a failure.
    pub fn fail(&mut self, reason: &str) -> News {
        let Some(told) = &mut self.told else {
            self.told = Some(Told { since: Instant::now(), reasons: [reason.to_owned()].into() });
            return News::Begins;
        };
        match told.reasons.len() < MOST && told.reasons.insert(reason.to_owned()) {
            true => News::OtherReason,
            false => News::None,
        }
    }

    /// It works: how long the trouble lasted, if there was one.
    pub fn end(&mut self) -> Option<Duration> {
        self.told.take().map(|told| told.since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_news_once_until_the_end() {
        let mut trouble = Trouble::default();
        assert_eq!(trouble.end(), None);
        let heard: Vec<_> = ["a", "a", "b", "a", "b"].into_iter().map(|reason| trouble.fail(reason)).collect();
        assert_eq!(heard, [News::Begins, News::None, News::OtherReason, News::None, News::None]);
        assert!(trouble.end().is_some() && trouble.end().is_none());
        assert_eq!(trouble.fail("a"), News::Begins);
    }

    #[test]
    fn reasons_without_end_fill_no_log() {
        let mut trouble = Trouble::default();
        let news = (0..1000).filter(|n| trouble.fail(&format!("at {n}")) != News::None).count();
        assert_eq!(news, MOST);
    }
}
