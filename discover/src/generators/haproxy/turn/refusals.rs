//! What HAProxy would not take: operations, sections, registrants' words.

use super::plan::Live;
use super::prove::prover::Prover;
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
}

impl Refusals {
    /// Whether `live` is what was refused.
    pub fn has(&self, live: &Live) -> bool {
        self.operations.as_ref().is_some_and(|refused| refused.same_work(live))
    }

    /// What is left of what a version `can` do.
    pub fn limit(&self, can: Capabilities, version: Option<&Version>) -> Capabilities {
        let refused = self.sections_by.is_some() && self.sections_by.as_ref() == version;
        Capabilities { add_backend: can.add_backend && !refused, ..can }
    }
}
