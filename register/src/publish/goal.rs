//! What the registry is to hold, and which of it may not be there yet: a turn costs what changed. No I/O, no clock.

use std::collections::BTreeSet;
use std::sync::Arc;

use registry::store::Key;

use super::keys::Keys;
use super::plan::{Form, Registrations};

/// The keys of containers as they are wanted.
#[derive(Debug, Default)]
pub(super) struct Goal {
    wanted: Option<Arc<Registrations>>,
    keys: Keys,
    /// Keys that are not known to be as they should be.
    open: BTreeSet<Key>,
    /// Only these are open; else any key may be.
    only: bool,
}

impl Goal {
    /// What is wanted now; `None`: that is not known yet.
    pub fn want(&mut self, form: &Form, wanted: Option<&Arc<Registrations>>) {
        let (none, Some(wanted)) = (Registrations::new(), wanted) else { return };
        let changes = form.changes(self.wanted.as_deref().unwrap_or(&none), wanted);
        for (key, value) in changes {
            self.open.insert(key.clone());
            match value {
                Some(value) => drop(self.keys.insert(key, value)),
                None => drop(self.keys.remove(&key)),
            }
        }
        self.wanted = Some(Arc::clone(wanted));
    }

    /// All keys that are wanted; `None`: that is not known yet.
    pub fn keys(&self) -> Option<&Keys> {
        self.wanted.as_ref().map(|_| &self.keys)
    }

    /// The keys that may not be as they should be; `None`: any may.
    pub fn open(&self) -> Option<&BTreeSet<Key>> {
        Some(&self.open).filter(|_| self.only)
    }

    /// Something may have happened to `key`.
    pub fn doubt(&mut self, key: &Key) {
        self.open.insert(key.clone());
    }

    /// Something may have happened to any key.
    pub fn doubt_all(&mut self) {
        self.only = false;
    }

    /// All is as it should be, but for `rest`.
    pub fn reached(&mut self, rest: impl IntoIterator<Item = Key>) {
        self.open = rest.into_iter().collect();
        self.only = self.wanted.is_some();
    }
}
