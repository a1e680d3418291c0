//! Tells the log each change of a port's standing: one line, with its reason, once the registry has it so.
//!
//! The form is documented in docs/operations.md. The only I/O is the log; time is given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use agent::history::Change;
use model::desired::ContainerId;
use tokio::time::Instant;
use tracing::info;

use super::alarms::Alarms;
use super::reason::Reason;
use super::row::Row;
use super::verdict::RowState;

/// A new container that waits for its readiness is named only when it waits for longer than this: most do not.
const PATIENCE: Duration = Duration::from_secs(1);
/// What ends again and again is named once in so long.
const MEMORY: Duration = Duration::from_secs(300);

/// What was said of one port of a container.
#[derive(Debug, Clone)]
struct Said {
    /// A container may have several rows without a port.
    number: usize,
    row: Arc<Row>,
    /// It is not so yet, or not for long enough: to be said later.
    since: Option<Instant>,
    /// The port is not there, since then.
    gone: Option<Instant>,
}

impl Said {
    /// Whether it is about this port.
    fn is_of(&self, row: &Row, number: usize) -> bool {
        (&self.row.port, self.number) == (&row.port, number)
    }

    /// When something is to be done although nothing changes.
    fn due(&self) -> Option<Instant> {
        let forget = self.gone.filter(|_| self.row.cause == Reason::CrashLoop).map(|gone| gone + MEMORY);
        self.since.map(|since| since + PATIENCE).or(forget)
    }
}

/// What was said of all ports.
#[derive(Debug, Default)]
pub struct Standings {
    said: BTreeMap<ContainerId, Vec<Said>>,
    clock: Alarms,
}

/// What the registry has, for [`Standings`].
pub trait RegistryView {
    /// Whether the registry has it as this row says.
    fn is_so(&self, row: &Row) -> bool;
    /// Whether another container has the place of this row by now.
    fn is_taken_over(&self, row: &Row) -> bool;
}

/// What one line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Registered,
    RegisteredDown,
    Resumed,
    Draining,
    Withdrawn,
    LeftOut,
    Waiting,
}

impl Word {
    fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "Registered.",
            Self::RegisteredDown => "Registered as down.",
            Self::Resumed => "Takes clients again.",
            Self::Draining => "Draining.",
            Self::Withdrawn => "Withdrawn.",
            Self::LeftOut => "Left out.",
            Self::Waiting => "Waiting.",
        }
    }
}

impl Standings {
    /// When [`Self::tell`] has something to say although nothing has changed.
    pub fn due(&self) -> Option<Instant> {
        self.clock.next()
    }

    /// Says what is new about containers: their rows changed, or what the registry has of them. `rows` gives those of one
    /// container. Gives the changes for the history.
    pub fn tell<'a>(
        &mut self,
        mut changed: BTreeSet<ContainerId>,
        rows: impl Fn(&ContainerId) -> &'a [Arc<Row>],
        now: Instant,
        registry: &impl RegistryView,
    ) -> Vec<Change> {
        changed.extend(self.clock.take_due(now));
        let mut told = Vec::new();
        for container in changed {
            for (word, row) in self.changes(&container, rows(&container), now, registry) {
                say(word, &row);
                told.push(change(word, &row));
            }
        }
        told
    }

    fn changes(
        &mut self,
        container: &ContainerId,
        rows: &[Arc<Row>],
        now: Instant,
        registry: &impl RegistryView,
    ) -> Vec<(Word, Arc<Row>)> {
        let mut said = self.said.remove(container).unwrap_or_default();
        let (mut changes, mut present) = (Vec::new(), Vec::new());
        for row in rows {
            let number = present.iter().filter(|(port, _)| *port == &row.port).count();
            present.push((&row.port, number));
            // The publisher warns of a key that is somebody else's, and knows whose.
            let word = look(&mut said, row, number, now, registry).filter(|_| row.state != RowState::Refused);
            changes.extend(word.map(|word| (word, Arc::clone(row))));
        }
        said.retain_mut(|said| {
            if present.contains(&(&said.row.port, said.number)) {
                return true;
            }
            if said.row.cause == Reason::CrashLoop && now < *said.gone.get_or_insert(now) + MEMORY {
                return true; // it will be back
            }
            let reason = "its container does not run any more".to_owned();
            let ended = Row { state: RowState::Skipped, cause: Reason::Ended, reason, ..(*said.row).clone() };
            let registered = is_registered(said.row.state);
            if registered && !registry.is_so(&ended) && !registry.is_taken_over(&ended) {
                return true;
            }
            changes.extend(registered.then_some((Word::Withdrawn, Arc::new(ended))));
            false
        });
        self.clock.set(container, said.iter().filter_map(Said::due).min());
        if !said.is_empty() {
            self.said.insert(container.clone(), said);
        }
        changes
    }
}

/// What is to be said of `row`, if anything is.
fn look(
    all: &mut Vec<Said>,
    row: &Arc<Row>,
    number: usize,
    now: Instant,
    registry: &impl RegistryView,
) -> Option<Word> {
    let place = all.iter().position(|said| said.is_of(row, number));
    let before = place.and_then(|place| all.get(place));
    let waits_since = before.and_then(|said| said.since);
    let was = before.filter(|said| said.since.is_none()).map(|said| Arc::clone(&said.row));
    if was.as_ref().is_some_and(|was| is_same(was, row)) {
        if let Some(said) = place.and_then(|place| all.get_mut(place)) {
            said.gone = None;
        }
        return None;
    }
    let was_registered = was.as_ref().is_some_and(|was| is_registered(was.state));
    if (was_registered || is_registered(row.state)) && !registry.is_so(row) {
        if let (Some(place), Some(_)) = (place, waits_since) {
            all.swap_remove(place);
        }
        return None;
    }
    let word = match row.state {
        RowState::Up if was.as_ref().is_some_and(|was| was.state == RowState::Draining) => Word::Resumed,
        RowState::Up => Word::Registered,
        RowState::Down => Word::RegisteredDown,
        RowState::Draining => Word::Draining,
        _ if was_registered => Word::Withdrawn,
        RowState::Skipped => Word::LeftOut,
        RowState::Waiting | RowState::Failing | RowState::Refused => Word::Waiting,
    };
    let is_new = was.is_none() && row.state == RowState::Waiting;
    let since = waits_since.unwrap_or(now);
    let since = (is_new && now < since + PATIENCE).then_some(since);
    let said = Said { number, row: Arc::clone(row), since, gone: None };
    match place.and_then(|place| all.get_mut(place)) {
        Some(old) => *old = said,
        None => all.push(said),
    }
    since.is_none().then_some(word)
}

fn is_registered(state: RowState) -> bool {
    matches!(state, RowState::Up | RowState::Draining | RowState::Down)
}

/// Why one is up may change without a word: it was found registered, and its checks pass.
fn is_same(was: &Row, is: &Row) -> bool {
    was.state == is.state && (is.state == RowState::Up || was.cause == is.cause) && place(was) == place(is)
}

/// Where it is registered, if it is.
fn place(row: &Row) -> Option<(&str, &str)> {
    Some((row.service.as_deref()?, row.id.as_deref()?))
}

/// The same for the history: `what` is the state, or how it was left.
fn change(word: Word, row: &Row) -> Change {
    let what = match word {
        Word::Registered => "registered",
        Word::RegisteredDown => "down",
        Word::Resumed => "resumed",
        Word::Draining => "draining",
        Word::Withdrawn => "withdrawn",
        Word::LeftOut => "left_out",
        Word::Waiting => "waiting",
    };
    let change = Change::new(what).with("service", row.service.as_deref()).with("backend", row.id.as_deref());
    let change = change.with("name", &*row.container).with("address", row.address.as_deref());
    change.with("port", row.port.as_deref()).with("reason", row.cause.as_str()).with("why", &*row.reason)
}

fn say(word: Word, row: &Row) {
    let Row { container, container_id, port, service, id, state, cause, reason, .. } = row;
    info!(
        %container,
        container_id,
        port = port.as_deref(),
        service = service.as_deref(),
        id = id.as_deref(),
        state = state.as_str(),
        reason = cause.as_str(),
        why = reason,
        "{}",
        word.as_str()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: RowState, cause: Reason) -> Row {
        Row {
            container: "web-1".into(),
            container_id: "0123456789ab".into(),
            port: Some("80/tcp".into()),
            service: Some("web".into()),
            id: Some("0123456789ab".into()),
            address: None,
            state,
            cause,
            reason: "for people".into(),
            checks: Vec::new(),
        }
    }

    /// Whether the registry has all so.
    struct All(bool);

    impl RegistryView for All {
        fn is_so(&self, _: &Row) -> bool {
            self.0
        }
        fn is_taken_over(&self, _: &Row) -> bool {
            false
        }
    }

    fn container(n: u8) -> ContainerId {
        format!("{n:02x}").repeat(32).parse().unwrap()
    }

    impl Standings {
        fn of_one(&mut self, rows: &[Row], now: Instant, so: bool) -> Vec<(Word, Arc<Row>)> {
            let rows: Vec<_> = rows.iter().cloned().map(Arc::new).collect();
            self.changes(&container(1), &rows, now, &All(so))
        }
    }

    /// What is said as a port goes through these standings, the registry following at once.
    fn said(steps: &[Option<(RowState, Reason)>]) -> Vec<String> {
        let (mut standings, mut said, mut now) = (Standings::default(), Vec::new(), Instant::now());
        for step in steps {
            let rows: Vec<Row> = step.map(|(state, cause)| row(state, cause)).into_iter().collect();
            for again in [true, false] {
                let changes = standings.of_one(&rows, now, true);
                assert!(again || changes.is_empty(), "said twice: {changes:?}");
                said.extend(changes.into_iter().map(|(word, row)| format!("{} {}", word.as_str(), row.cause)));
            }
            now += PATIENCE / 4;
        }
        said
    }

    #[test]
    fn each_change_of_standing_is_said_once_with_its_reason() {
        let up = Some((RowState::Up, Reason::Accepted));
        let waiting = Some((RowState::Waiting, Reason::NotReady));
        let draining = |cause| Some((RowState::Draining, cause));
        let failing = Some((RowState::Failing, Reason::CheckFails));
        let skipped = |word| Some((RowState::Skipped, Reason::LeftOut(word)));
        for (steps, expected) in [
            (&[waiting, up, up, None][..], &["Registered. accepted", "Withdrawn. ended"][..]),
            (&[waiting; 6], &["Waiting. not_ready"]),
            (&[waiting, waiting, None], &[]),
            (&[up, draining(Reason::Stop), None], &["Registered. accepted", "Draining. stop", "Withdrawn. ended"]),
            (
                &[up, draining(Reason::Operator), up],
                &["Registered. accepted", "Draining. operator", "Takes clients again. accepted"],
            ),
            (&[up, failing, up], &["Registered. accepted", "Withdrawn. check_fails", "Registered. accepted"]),
            (&[Some((RowState::Up, Reason::FoundRegistered)), up], &["Registered. found_registered"]),
            (&[Some((RowState::Down, Reason::CheckFails))], &["Registered as down. check_fails"]),
            (&[skipped("bad_label"), skipped("bad_label"), None], &["Left out. bad_label"]),
            (
                &[skipped("health_starting"), up, skipped("unhealthy"), up],
                &["Left out. health_starting", "Registered. accepted", "Withdrawn. unhealthy", "Registered. accepted"],
            ),
            (&[Some((RowState::Waiting, Reason::CrashLoop)); 6], &["Waiting. crash_loop"]),
            (&[Some((RowState::Refused, Reason::KeyTaken)), up], &["Registered. accepted"]),
            (
                &[up, Some((RowState::Waiting, Reason::CrashLoop)), up],
                &["Registered. accepted", "Withdrawn. crash_loop", "Registered. accepted"],
            ),
        ] {
            assert_eq!(said(steps), expected, "{steps:?}");
        }
    }

    #[test]
    fn nothing_is_said_before_the_registry_has_it_so() {
        let (mut standings, now) = (Standings::default(), Instant::now());
        let up = [row(RowState::Up, Reason::Accepted)];
        let waiting = [row(RowState::Waiting, Reason::NotReady)];
        assert_eq!(standings.of_one(&waiting, now, false), []);
        assert_eq!(standings.due(), Some(now + PATIENCE));
        assert_eq!(standings.of_one(&up, now, false), []);
        assert_eq!(standings.due(), None, "the registry wakes it, no clock");
        assert_eq!(standings.of_one(&up, now, true).len(), 1);
        assert_eq!(standings.of_one(&[], now, false), []);
        assert_eq!(standings.of_one(&[], now, true)[0].0, Word::Withdrawn);
        assert_eq!(standings.of_one(&[], now, true), []);
        assert!(standings.said.is_empty());
    }

    #[test]
    fn a_crash_loop_is_said_once_although_its_container_comes_and_goes() {
        let (mut standings, mut now, mut lines) = (Standings::default(), Instant::now(), 0);
        let held_back = [row(RowState::Waiting, Reason::CrashLoop)];
        for _ in 0..10 {
            for rows in [&held_back[..], &held_back, &[]] {
                lines += standings.of_one(rows, now, true).len();
                now += PATIENCE;
            }
        }
        assert_eq!(lines, 1);
        let forgotten = standings.due().unwrap();
        assert!(forgotten <= now + MEMORY);
        standings.tell(BTreeSet::new(), |_| &[], forgotten, &All(true));
        assert!(standings.said.is_empty());
    }

    #[test]
    fn a_place_that_another_container_took_over_is_said_of_both() {
        struct Other;
        impl RegistryView for Other {
            fn is_so(&self, row: &Row) -> bool {
                row.state == RowState::Up
            }
            fn is_taken_over(&self, _: &Row) -> bool {
                true
            }
        }
        let (mut standings, now) = (Standings::default(), Instant::now());
        let old = row(RowState::Up, Reason::Accepted);
        let new = Arc::new(Row { container_id: "ba9876543210".into(), ..old.clone() });
        standings.of_one(&[old], now, true);
        let words = [
            standings.changes(&container(2), &[new], now, &Other)[0].0,
            standings.changes(&container(1), &[], now, &Other)[0].0,
        ];
        assert_eq!(words, [Word::Registered, Word::Withdrawn]);
    }
}
