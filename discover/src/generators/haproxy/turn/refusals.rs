//! What HAProxy would not take: operations, sections, registrants' words.

use super::plan::Live;
use super::prove::prover::Prover;
use crate::generators::haproxy::file::layout::Layout;
use crate::haproxy::api::version::{Capabilities, Version};

/// What HAProxy has refused.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Operations, not tried again before the reload that does them.
    pub(super) operations: Option<Live>,
    /// The version that refused to make a section: the file has them all, as for older versions.
    pub(super) sections_by: Option<Version>,
    /// Registrants' words.
    pub(super) words: Prover,
    /// The last file that could not be loaded.
    pub(super) file: Option<Layout>,
    /// What was said of the operator's own text.
    pub(super) of_operator: Option<String>,
    /// It was said that the runtime socket allows no changes.
    pub(super) denied: bool,
}

impl Refusals {
    /// Another program judges from now on: what was refused is tried again.
    pub fn forget(&mut self) {
        (self.operations, self.sections_by, self.file) = (None, None, None);
        self.words.proofs.forget();
    }

    /// Whether `live` is what was refused.
    pub fn has(&self, live: &Live) -> bool {
        self.operations.as_ref().is_some_and(|refused| refused.same_work(live))
    }

    /// Whether a file of this structure is the last one that could not be loaded.
    pub fn had_structure(&self, layout: &Layout) -> bool {
        self.file.as_ref().is_some_and(|refused| refused.same_structure(layout))
    }

    /// What is left of what a version `can` do.
    pub fn limit(&self, can: Capabilities, version: Option<&Version>) -> Capabilities {
        let refused = self.sections_by.is_some() && self.sections_by.as_ref() == version;
        Capabilities { add_backend: can.add_backend && !refused, ..can }
    }
}
