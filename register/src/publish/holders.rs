//! Who holds a key that this agent may not write, for people.

use std::collections::BTreeMap;

use model::{BackendId, Prefix, ServiceName};
use registry::store::{LeaseId, Store};

/// A registration that is not published, since its key belongs to somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The registration, if it is of a container.
    pub registration: Option<(ServiceName, BackendId)>,
    /// The lease that the key hangs on, if any.
    pub lease: Option<LeaseId>,
    /// Whom the key belongs to, as a sentence's end.
    pub holder: String,
}

/// Registrars by their leases; `None` where they are not known.
#[derive(Debug, Default)]
pub struct Holders(Option<BTreeMap<LeaseId, String>>);

impl Holders {
    /// The registrars that live now. None where they cannot be read: names are for people only.
    pub async fn read<S: Store>(store: &S, prefix: &Prefix) -> Self {
        let registrars = prefix.registrars();
        let Ok(listing) = store.list(&registrars).await else { return Self::default() };
        let node = |key: &str| key.strip_prefix(registrars.as_str()).unwrap_or(key).to_owned();
        Self(Some(listing.entries.iter().filter_map(|e| Some((e.lease?, node(&e.key)))).collect()))
    }

    /// Whom a key on `lease` belongs to: "belongs to …".
    pub fn describe(&self, lease: Option<LeaseId>) -> String {
        match lease {
            Some(lease) => format!("belongs to {}", self.of(lease)),
            None => "was put by hand, without a lease: it stays until somebody deletes it".to_owned(),
        }
    }

    /// Who changed a key that now hangs on `lease`.
    pub fn writer(&self, lease: Option<LeaseId>) -> String {
        lease.map_or_else(|| "a hand: no lease is on it".to_owned(), |lease| self.of(lease))
    }

    fn of(&self, lease: LeaseId) -> String {
        let known = self.0.as_ref().map(|registrars| registrars.get(&lease));
        match known {
            Some(Some(node)) => format!("lease {lease} of registrar {node}"),
            Some(None) => format!("lease {lease}, which is no registrar's (a `register put`, or another program)"),
            None => format!("lease {lease}"),
        }
    }
}
