//! Events for which their reader had no room: none is lost, and together they take no more than the containers they are about.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::event::Event;
use model::desired::ContainerId;

/// The most events of one container that wait; of more the oldest goes, since a start or a signal overrides what was before.
const MOST: usize = 8;

/// Events that wait, by container, in their order.
#[derive(Debug, Default)]
pub(super) struct Backlog(BTreeMap<ContainerId, VecDeque<Event>>);

impl Backlog {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Passes `event` on, or keeps it behind those that wait.
    pub fn pass(&mut self, event: Event, out: &mpsc::Sender<Event>) {
        if !self.0.is_empty() {
            return self.keep(event);
        }
        match out.try_send(event) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(event)) => self.keep(event),
        }
    }

    /// Passes on as many as there is room for.
    pub fn flush(&mut self, out: &mpsc::Sender<Event>) {
        while let Some(mut entry) = self.0.first_entry() {
            while let Some(event) = entry.get_mut().pop_front() {
                if let Err(TrySendError::Full(event)) = out.try_send(event) {
                    return entry.get_mut().push_front(event);
                }
            }
            entry.remove();
        }
    }

    fn keep(&mut self, event: Event) {
        let waiting = self.0.entry(event.container.clone()).or_default();
        if waiting.back().is_some_and(|last| last.kind == event.kind) {
            return;
        }
        if waiting.len() >= MOST {
            waiting.pop_front();
        }
        waiting.push_back(event);
    }
}

/// Waits until events can be passed on. Cancel-safe.
pub(super) async fn room(out: Option<&mpsc::Sender<Event>>) {
    match out {
        Some(out) if out.reserve().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::EventKind;
    use super::*;

    #[test]
    fn ten_thousand_events_without_room_come_as_they_were_and_a_repeated_word_counts_once() {
        let (out, mut reader) = mpsc::channel(4);
        let mut backlog = Backlog::default();
        let id = |n: usize| format!("{n:064x}").parse::<ContainerId>().unwrap();
        let kill = EventKind::Kill { signal: Some(15) };
        let told = [kill, kill, EventKind::Die, EventKind::Start, kill];
        for kind in told {
            for container in (0..2000).map(id) {
                backlog.pass(Event { kind, container, time_nanos: 0 }, &out);
            }
        }
        let mut seen: BTreeMap<ContainerId, Vec<EventKind>> = BTreeMap::new();
        loop {
            while let Ok(event) = reader.try_recv() {
                seen.entry(event.container).or_default().push(event.kind);
            }
            if backlog.is_empty() {
                break;
            }
            backlog.flush(&out);
        }
        assert_eq!(seen.len(), 2000);
        let all = |first: &[EventKind]| [first, &[kill, EventKind::Die, EventKind::Start, kill]].concat();
        for (container, kinds) in seen {
            let at_once = container <= id(3);
            let first = if at_once { vec![kill] } else { Vec::new() };
            assert_eq!(kinds, all(&first), "{container:?}");
        }
        let event = Event { kind: kill, container: id(0), time_nanos: 0 };
        (0..100).for_each(|n| {
            backlog.keep(Event { kind: if n % 2 == 0 { kill } else { EventKind::Start }, ..event.clone() })
        });
        assert_eq!(backlog.0[&id(0)].len(), MOST);
    }
}
