//! Tells the log each change of a port's standing: one line, with its reason, once the registry has it so.
//!
//! The form is documented in docs/operations.md. The only I/O is the log; time is given.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent::history::Change;
use tokio::time::Instant;
use tracing::info;

use super::reason::Reason;
use super::row::Row;
use super::verdict::RowState;

/// A new container that waits for its readiness is named only when it waits for longer than this: most do not.
const PATIENCE: Duration = Duration::from_secs(1);
/// What ends again and again is named once in so long.
const MEMORY: Duration = Duration::from_secs(300);

/// Which port of which container. A container may have several rows without a port.
type Port = (String, Option<String>, usize);

/// What was said of a port.
#[derive(Debug, Clone)]
struct Said {
    row: Row,
    /// It is not so yet, or not for long enough: to be said later.
    since: Option<Instant>,
    /// The port is not there, since then.
    gone: Option<Instant>,
}

/// What was said of all ports.
#[derive(Debug, Default)]
pub struct Standings {
    said: BTreeMap<Port, Said>,
    /// Something waits to be said.
    pending: bool,
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
    /// Whether [`Self::tell`] has something to say although nothing has changed.
    pub fn has_pending(&self) -> bool {
        self.pending
    }

    /// When that is due by itself.
    pub fn due(&self) -> Option<Instant> {
        self.said.values().filter_map(|said| said.since).map(|since| since + PATIENCE).min()
    }

    /// Says what is new, and gives it for the history. `is_so`: whether the registry has it as this row says.
    pub fn tell(&mut self, rows: &[Row], now: Instant, is_so: impl Fn(&Row) -> bool) -> Vec<Change> {
        let changes = self.changes(rows, now, is_so);
        changes.iter().for_each(|(word, row)| say(*word, row));
        changes.iter().map(|(word, row)| change(*word, row)).collect()
    }

    fn changes(&mut self, rows: &[Row], now: Instant, is_so: impl Fn(&Row) -> bool) -> Vec<(Word, Row)> {
        self.pending = false;
        let (mut changes, mut present) = (Vec::new(), BTreeSet::new());
        for row in rows {
            let mut port: Port = (row.container_id.clone(), row.port.clone(), 0);
            while !present.insert(port.clone()) {
                port.2 += 1;
            }
            // The publisher warns of a key that is somebody else's, and knows whose.
            let word = self.look(port, row, now, &is_so).filter(|_| row.state != RowState::Refused);
            changes.extend(word.map(|word| (word, row.clone())));
        }
        let places: BTreeSet<_> = rows.iter().filter_map(place).collect();
        let gone: Vec<Port> = self.said.keys().filter(|port| !present.contains(*port)).cloned().collect();
        for port in gone {
            let Some(Said { row, gone, .. }) = self.said.get_mut(&port) else { continue };
            if row.cause == Reason::CrashLoop && now < *gone.get_or_insert(now) + MEMORY {
                continue; // it will be back
            }
            let reason = "its container does not run any more".to_owned();
            let ended = Row { state: RowState::Skipped, cause: Reason::Ended, reason, ..row.clone() };
            let registered = is_registered(row.state);
            // Another container may have its place by now.
            if registered && !is_so(&ended) && !place(&ended).is_some_and(|place| places.contains(&place)) {
                self.pending = true;
                continue;
            }
            self.said.remove(&port);
            changes.extend(registered.then_some((Word::Withdrawn, ended)));
        }
        changes
    }

    /// What is to be said of `row`, if anything is.
    fn look(&mut self, port: Port, row: &Row, now: Instant, is_so: &impl Fn(&Row) -> bool) -> Option<Word> {
        let before = self.said.get(&port);
        let waits_since = before.and_then(|said| said.since);
        let was = before.filter(|said| said.since.is_none()).map(|said| &said.row);
        if was.is_some_and(|was| is_same(was, row)) {
            self.said.entry(port).and_modify(|said| said.gone = None);
            return None;
        }
        let was_registered = was.is_some_and(|was| is_registered(was.state));
        if (was_registered || is_registered(row.state)) && !is_so(row) {
            self.pending = true;
            if waits_since.is_some() {
                self.said.remove(&port);
            }
            return None;
        }
        let word = match row.state {
            RowState::Up if was.is_some_and(|was| was.state == RowState::Draining) => Word::Resumed,
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
        self.said.insert(port, Said { row: row.clone(), since, gone: None });
        since.is_none().then_some(word)
    }
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

    /// What is said as a port goes through these standings, the registry following at once.
    fn said(steps: &[Option<(RowState, Reason)>]) -> Vec<String> {
        let (mut standings, mut said, mut now) = (Standings::default(), Vec::new(), Instant::now());
        for step in steps {
            let rows: Vec<Row> = step.map(|(state, cause)| row(state, cause)).into_iter().collect();
            for again in [true, false] {
                let changes = standings.changes(&rows, now, |_| true);
                assert!(again || changes.is_empty(), "said twice: {changes:?}");
                said.extend(changes.into_iter().map(|(word, row)| format!("{} {}", word.as_str(), row.cause)));
            }
            assert!(!standings.has_pending());
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
        assert_eq!(standings.changes(&waiting, now, |_| false), []);
        assert_eq!(standings.due(), Some(now + PATIENCE));
        assert_eq!(standings.changes(&up, now, |_| false), []);
        assert_eq!((standings.has_pending(), standings.due()), (true, None), "the registry wakes it, no clock");
        assert_eq!(standings.changes(&up, now, |_| true).len(), 1);
        assert_eq!(standings.changes(&[], now, |_| false), []);
        assert!(standings.has_pending());
        assert_eq!(standings.changes(&[], now, |_| true)[0].0, Word::Withdrawn);
        assert_eq!(standings.changes(&[], now, |_| true), []);
    }

    #[test]
    fn a_crash_loop_is_said_once_although_its_container_comes_and_goes() {
        let (mut standings, mut now, mut lines) = (Standings::default(), Instant::now(), 0);
        let held_back = [row(RowState::Waiting, Reason::CrashLoop)];
        for _ in 0..10 {
            for rows in [&held_back[..], &held_back, &[]] {
                lines += standings.changes(rows, now, |_| true).len();
                now += PATIENCE;
            }
        }
        assert_eq!(lines, 1);
        standings.changes(&[], now + MEMORY, |_| true);
        assert!(standings.said.is_empty());
    }

    #[test]
    fn a_place_that_another_container_took_over_is_said_of_both() {
        let (mut standings, now) = (Standings::default(), Instant::now());
        let old = row(RowState::Up, Reason::Accepted);
        let new = Row { container_id: "ba9876543210".into(), ..old.clone() };
        standings.changes(&[old], now, |_| true);
        let words: Vec<Word> =
            standings.changes(&[new], now, |row| row.state == RowState::Up).iter().map(|c| c.0).collect();
        assert_eq!(words, [Word::Registered, Word::Withdrawn]);
        assert!(!standings.has_pending());
    }
}
