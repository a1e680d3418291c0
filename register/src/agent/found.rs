//! What this agent's former self left in the registry.

use std::collections::{BTreeMap, BTreeSet};

use containers::life::drain::Cause;
use containers::life::verdict::DRAIN_BY;
use model::{BackendId, Decoded, ParsedKey, Prefix, ServiceName, Status, decode};
use registry::store::Entry;

use crate::publish::Registrations;

/// Registrations of the former self: the living among them need not prove themselves again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// All that were published as working.
    pub registered: BTreeSet<(ServiceName, BackendId)>,
    /// Those that were draining, and why.
    pub draining: BTreeMap<(ServiceName, BackendId), Cause>,
    /// All of them, as they were published.
    pub left: Registrations,
}

impl Found {
    /// Reads `entries`. What cannot be read tells nothing: it is judged afresh.
    pub fn read(prefix: &Prefix, entries: &[Entry]) -> Self {
        let mut found = Self::default();
        for entry in entries {
            let Ok(ParsedKey::Backend { service, id, .. }) = prefix.parse(&entry.key) else { continue };
            let Ok(Decoded::Backend(backend)) = decode(&id, &entry.value) else { continue };
            let key = (service, id);
            found.left.insert(key.clone(), (*backend).clone());
            match backend.status {
                Status::Down => continue,
                Status::Up => {}
                Status::Draining => {
                    let by = backend.labels.get(DRAIN_BY).map_or("", String::as_str);
                    let told = [Cause::Operator, Cause::Replaced].into_iter().find(|cause| cause.as_str() == by);
                    let cause = told.unwrap_or(Cause::Stop);
                    found.draining.insert(key.clone(), cause);
                }
            }
            found.registered.insert(key);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use registry::store::{LeaseId, Revision};

    use super::*;

    fn entry(key: &str, value: &str) -> Entry {
        let lease = Some(LeaseId(1));
        let value = value.as_bytes().into();
        Entry { key: key.into(), value, lease, created: Revision(1), modified: Revision(1) }
    }

    #[test]
    fn the_living_and_the_draining_are_told_apart_and_rubbish_tells_nothing() {
        let operator = r#"{"host":"h","port":4,"status":"draining","labels":{"register.drain.by":"operator"}}"#;
        let found = Found::read(
            &Prefix::default(),
            &[
                entry("/backends/web/plain", "h:1"),
                entry("/backends/@n1/web/up", r#"{"host":"h","port":2,"status":"up"}"#),
                entry("/backends/web/stopping", r#"{"host":"h","port":3,"status":"draining"}"#),
                entry("/backends/web/operated", operator),
                entry("/backends/web/down", r#"{"host":"h","port":5,"status":"down"}"#),
                entry("/backends/web/rubbish", "{"),
                entry("/backends/web/port", "80"),
            ],
        );
        let ids = |keys: Vec<&(ServiceName, BackendId)>| keys.iter().map(|k| k.1.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(found.registered.iter().collect()), ["operated", "plain", "stopping", "up"]);
        let draining: Vec<_> = found.draining.iter().map(|(k, cause)| (k.1.as_str(), *cause)).collect();
        assert_eq!(draining, [("operated", Cause::Operator), ("stopping", Cause::Stop)]);
    }
}
