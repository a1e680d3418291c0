//! What register's history has beside the standings of containers' ports: the registry that comes and goes, and services without Docker.
//!
//! | `what` | it means |
//! |---|---|
//! | `registered`, `down`, `draining`, `resumed`, `withdrawn`, `left_out`, `waiting` | a port of a container, with the reason of the log |
//! | `docker_away`, `docker_back` | whether Docker answers |
//! | `registry_away`, `registry_back`, `registry_full` | whether the registry serves |
//! | `lease` | the agent writes under this lease from now on |
//! | `service_up`, `service_waiting`, `service_failing`, `service_throttled`, `service_left-out`, `service_gone` | a service of a config |

use std::collections::BTreeMap;
use std::sync::Arc;

use agent::history::{Change, History};
use registry::store::LeaseId;
use tokio::sync::watch;

use crate::nerve::services::{ServiceRow, ServiceState};
use crate::publish::Publication;

/// Notes how the registry serves, as long as there is a publisher.
pub async fn follow_registry(mut publication: watch::Receiver<Publication>, history: History) {
    let (mut away, mut full, mut lease) = (false, false, None::<LeaseId>);
    loop {
        {
            let now = publication.borrow_and_update();
            if now.away.is_some() != std::mem::replace(&mut away, now.away.is_some()) {
                let what = if away { "registry_away" } else { "registry_back" };
                history.note(Change::new(what).with("why", now.away.as_ref().map(|(why, _)| &**why)));
            }
            if now.full.is_some() != std::mem::replace(&mut full, now.full.is_some()) && full {
                history.note(Change::new("registry_full").with("why", now.full.as_ref().map(|(why, _)| &**why)));
            }
            if let Some(new) = now.lease.filter(|new| lease != Some(*new)) {
                lease = Some(new);
                history.note(Change::new("lease").with("why", new.to_string()));
            }
        }
        if publication.changed().await.is_err() {
            return;
        }
    }
}

/// Notes each change of a service without Docker.
pub async fn follow_services(mut rows: watch::Receiver<Arc<[ServiceRow]>>, history: History) {
    let mut known = BTreeMap::new();
    loop {
        let now = rows.borrow_and_update().clone();
        changes(&mut known, &now).into_iter().for_each(|change| history.note(change));
        if rows.changed().await.is_err() {
            return;
        }
    }
}

/// What of the services is otherwise than known.
fn changes(known: &mut BTreeMap<Arc<str>, ServiceState>, rows: &[ServiceRow]) -> Vec<Change> {
    let mut changes = Vec::new();
    for row in rows {
        if known.insert(row.service.clone(), row.state) != Some(row.state) {
            let what = match row.state {
                ServiceState::Up => "service_up",
                ServiceState::Waiting => "service_waiting",
                ServiceState::Failing => "service_failing",
                ServiceState::Throttled => "service_throttled",
                ServiceState::LeftOut => "service_left-out",
            };
            let change = Change::new(what).with("service", &*row.service).with("address", &*row.address);
            changes.push(change.with("why", &*row.reason));
        }
    }
    let gone: Vec<Arc<str>> =
        known.keys().filter(|name| !rows.iter().any(|row| row.service == **name)).cloned().collect();
    for name in gone {
        known.remove(&name);
        changes.push(Change::new("service_gone").with("service", &*name));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_noted_when_its_state_changes_and_when_it_goes() {
        let row = |state, reason: &str| ServiceRow {
            service: "web".into(),
            address: "10.0.0.1:80".into(),
            state,
            reason: reason.into(),
            checks: Vec::new(),
            reporters: Vec::new(),
            refused: None,
        };
        let mut known = BTreeMap::new();
        let mut noted = |rows: &[ServiceRow]| changes(&mut known, rows).len();
        assert_eq!(noted(&[row(ServiceState::Waiting, "a")]), 1);
        assert_eq!(noted(&[row(ServiceState::Waiting, "b")]), 0, "why alone is no change");
        assert_eq!(noted(&[row(ServiceState::Up, "c")]), 1);
        assert_eq!((noted(&[]), noted(&[])), (1, 0));
    }

    #[tokio::test]
    async fn the_registry_is_noted_when_it_goes_and_comes_back() {
        let (out, publication) = watch::channel(Publication::default());
        let history = History::default();
        let following = tokio::spawn(follow_registry(publication, history.clone()));
        let steps: [fn(&mut Publication); 4] = [
            |now| now.lease = Some(LeaseId(7)),
            |now| now.away = Some(("refused".into(), tokio::time::Instant::now())),
            |now| now.away = None,
            |_| {},
        ];
        for (n, step) in steps.into_iter().enumerate() {
            out.send_modify(step);
            while history.count() < n.min(2) as u64 + 1 {
                tokio::task::yield_now().await;
            }
        }
        drop(out);
        following.await.unwrap();
        let noted = history.read(&agent::history::Query::default());
        let what: Vec<&str> = noted.iter().rev().map(|change| change["what"].as_str().unwrap()).collect();
        assert_eq!(what, ["lease", "registry_away", "registry_back"]);
    }
}
