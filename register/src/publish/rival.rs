//! Another agent of the same name and machine: whether it lives. No I/O.

use std::time::Duration;

/// An agent that holds the key that this one wants.
#[derive(Debug)]
pub(super) struct Rival {
    token: String,
    /// The most that was seen to be left of its lease.
    most: Duration,
}

impl Rival {
    /// `left` of its lease was seen, of the agent with this token. `before` is what was known of a rival until now.
    pub fn seen(before: Option<Self>, token: &str, left: Duration) -> Self {
        let most = before.filter(|rival| rival.token == token).map_or(left, |rival| rival.most.max(left));
        Self { token: token.to_owned(), most }
    }

    /// Whether it renews its lease no more: an agent does so each third of the lease's time, and two of them passed.
    pub fn is_gone(&self, left: Duration) -> bool {
        left <= self.most / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rival after it was seen with these seconds left.
    fn gone(seen: &[(&str, u64)]) -> bool {
        let left = |&(token, left): &(&str, u64)| (token.to_owned(), Duration::from_secs(left));
        let (rival, last) = seen
            .iter()
            .map(left)
            .fold((None, Duration::ZERO), |(before, _), (token, left)| (Some(Rival::seen(before, &token, left)), left));
        rival.is_some_and(|rival| rival.is_gone(last))
    }

    #[test]
    fn who_renews_is_there_and_who_let_two_beats_pass_is_not() {
        for seen in [&[("a", 30), ("a", 21), ("a", 30), ("a", 20)][..], &[("a", 20), ("a", 30), ("a", 11)], &[("a", 1)]]
        {
            assert!(!gone(seen), "{seen:?}");
        }
        assert!(gone(&[("a", 30), ("a", 20), ("a", 10)]) && gone(&[("a", 2), ("a", 0)]));
        assert!(!gone(&[("a", 30), ("b", 10)]), "another one has come, and may have a shorter lease");
    }
}
