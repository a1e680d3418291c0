//! What this agent's former self left in the registry.

use std::collections::{BTreeMap, BTreeSet};

use common::model::{BackendId, Decoded, ParsedKey, Prefix, ServiceName, Status, decode};
use common::store::Entry;

use super::turn::DRAIN_BY;
use common::drain::Cause;

/// Registrations of the former self: the living among them need not prove themselves again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// All that were published as working.
    pub registered: BTreeSet<(ServiceName, BackendId)>,
    /// Those that were draining, and why.
    pub draining: BTreeMap<(ServiceName, BackendId), Cause>,
}

impl Found {
    /// Reads `entries`. What cannot be read tells nothing: it is judged afresh.
    pub fn read(prefix: &Prefix, entries: &[Entry]) -> Self {
        let mut found = Self::default();
        for entry in entries {
            let Ok(ParsedKey::Backend { service, id, .. }) = prefix.parse(&entry.key) else { continue };
            let Ok(Decoded::Backend(backend)) = decode(&id, &entry.value) else { continue };
            let key = (service, id);
            match backend.status {
                Status::Down => continue,
                Status::Up => {}
                Status::Draining => {
                    let operator = backend.labels.get(DRAIN_BY).is_some_and(|by| by == Cause::Operator.as_str());
                    let cause = if operator { Cause::Operator } else { Cause::Stop };
                    found.draining.insert(key.clone(), cause);
                }
            }
            found.registered.insert(key);
        }
        found
    }
}
