//! What one key says, or why it could not be read.

use std::sync::Arc;

use crate::store::{LeaseId, Revision};
use model::{Backend, BackendId, Host, Port, ServiceName, Status};

/// A registration that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// What is wrong with it.
    pub reason: String,
    /// The version of the key that is bad.
    pub revision: Revision,
}

/// What one key says.
#[derive(Debug, Clone)]
pub(super) enum Said {
    Backend(Arc<Backend>),
    Portless(BackendId, Host),
    ServicePort(Port),
}

/// A key that could be read.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) service: ServiceName,
    pub(super) created: Revision,
    pub(super) modified: Revision,
    pub(super) lease: Option<LeaseId>,
    pub(super) said: Said,
}

impl Said {
    pub(super) fn id(&self) -> Option<&BackendId> {
        match self {
            Self::Backend(backend) => Some(&backend.id),
            Self::Portless(id, _) => Some(id),
            Self::ServicePort(_) => None,
        }
    }
}

impl Known {
    /// Whose registration it is.
    pub(super) fn place(&self) -> Option<(ServiceName, BackendId)> {
        Some((self.service.clone(), self.said.id()?.clone()))
    }

    /// It counts as a backend that takes new clients.
    pub(super) fn is_undrained(&self) -> bool {
        match &self.said {
            Said::Backend(backend) => backend.status == Status::Up,
            Said::Portless(..) => true,
            Said::ServicePort(_) => false,
        }
    }
}
