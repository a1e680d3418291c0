//! In whose way haproxy.cfg is composed: docker-discover's or Synapse's. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use model::ServiceName;

use super::compose::{Composer, TemplateError};
use super::known::Given;
use super::layout::{Layout, Section};
use super::places::Places;
use super::synapse::{Quarantined, SynapseComposer};
use crate::haproxy::api::version::Capabilities;
use crate::reconcile::Desired;

/// In whose way the file is composed.
pub enum Composing {
    /// docker-discover's: one `listen` for each service.
    Native(Box<Composer>),
    /// Synapse's, from its config.
    Synapse(Box<SynapseComposer>),
}

impl Composing {
    /// The layout of what is desired, and the services whose section could not be rendered.
    pub fn compose(&mut self, desired: &Desired, given: &Given<'_>) -> (Layout, BTreeMap<ServiceName, TemplateError>) {
        let services = &desired.services;
        match self {
            Self::Native(composer) => composer.compose(services, given),
            Self::Synapse(composer) => {
                composer.suit(&given.can);
                composer.take(&desired.configured);
                (composer.compose(services, Some(given.names), given.unix_now), BTreeMap::new())
            }
        }
    }

    /// What stands before the services' sections.
    pub fn header(&self) -> &str {
        match self {
            Self::Native(composer) => composer.header(),
            Self::Synapse(composer) => composer.header(),
        }
    }

    /// Under which names HAProxy has the services.
    pub fn places(&self) -> Places {
        match self {
            Self::Native(_) => Places::Native,
            Self::Synapse(composer) => Places::Synapse(Arc::new(composer.sections())),
        }
    }

    /// Sections rendered anew since the start.
    pub fn renders(&self) -> u64 {
        match self {
            Self::Native(composer) => composer.renders(),
            Self::Synapse(composer) => composer.renders(),
        }
    }

    /// The registrations that the last turn left out.
    pub fn quarantined(&self) -> BTreeSet<Quarantined> {
        match self {
            Self::Native(composer) => composer.quarantined().cloned().collect(),
            Self::Synapse(composer) => composer.quarantined().cloned().collect(),
        }
    }

    /// A section of nobody's, as every service's is made, that is in no layout: `None` where each service's text is the operator's.
    pub fn sample(&self, layout: &Layout, can: &Capabilities) -> Option<Arc<Section>> {
        match self {
            Self::Native(composer) => composer.sample(layout, can),
            Self::Synapse(_) => None,
        }
    }

    /// Takes over what a file from before a restart says, so that the restart changes nothing.
    pub fn remember(&mut self, layout: &Layout) {
        match self {
            Self::Native(composer) => composer.remember(layout),
            Self::Synapse(composer) => composer.remember_ids(layout),
        }
    }

    /// The state file's path and text, if what is remembered has changed.
    pub fn changed_state(&mut self, unix_now: u64) -> Option<(PathBuf, String)> {
        match self {
            Self::Native(_) => None,
            Self::Synapse(composer) => composer.changed_state(unix_now),
        }
    }
}
