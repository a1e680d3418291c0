//! When each container changes by itself. No I/O; time is given.

use std::collections::{BTreeMap, BTreeSet};

use model::desired::ContainerId;
use tokio::time::Instant;

/// At most one moment for each container.
#[derive(Debug, Default)]
pub struct Alarms {
    at: BTreeMap<ContainerId, Instant>,
    order: BTreeSet<(Instant, ContainerId)>,
}

impl Alarms {
    /// This container is to be looked at then, whatever was said before; `None`: not at all.
    pub fn set(&mut self, container: &ContainerId, at: Option<Instant>) {
        if let Some(old) = self.at.remove(container) {
            self.order.remove(&(old, container.clone()));
        }
        if let Some(at) = at {
            self.at.insert(container.clone(), at);
            self.order.insert((at, container.clone()));
        }
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Those that are due; their moments are over.
    pub fn take_due(&mut self, now: Instant) -> Vec<ContainerId> {
        let mut due = Vec::new();
        while self.order.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, container)) = self.order.pop_first()
        {
            self.at.remove(&container);
            due.push(container);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_is_due_once_at_its_latest_word() {
        let (mut alarms, now) = (Alarms::default(), Instant::now());
        let id = |n: u8| format!("{n:02x}").repeat(32).parse::<ContainerId>().unwrap();
        let after = |n: u64| Some(now + Duration::from_secs(n));
        for (n, seconds) in [(1, Some(5)), (2, Some(3)), (3, Some(1)), (1, Some(2)), (3, None)] {
            alarms.set(&id(n), seconds.and_then(after));
        }
        assert_eq!(alarms.next(), after(2));
        assert_eq!(alarms.take_due(now + Duration::from_secs(2)), [id(1)]);
        assert_eq!(alarms.take_due(now + Duration::from_secs(9)), [id(2)]);
        assert!(alarms.next().is_none() && alarms.at.is_empty());
    }
}
