//! Containers × settings → what is to be registered, each decision with its reason. Pure: no I/O, no clock, no tokio.
//!
//! [`decide`] applies the rules; each has a file: names (`naming`), the vocabulary of labels and variables (`labels`,
//! `values`), which ports (`ports`, `flood`), which address (`address`, `reachable`), checks (`checks`), the HTTP edge (`routes`), the rest (`build`).

use std::sync::Arc;

use crate::SharedMap;

mod address;
mod build;
mod check_spec;
mod checks;
mod clashes;
mod container;
mod decide;
mod decider;
mod decision;
mod explain;
mod flood;
mod labels;
mod naming;
mod neighbours;
mod ports;
mod reachable;
mod routes;
mod settings;
mod template;
#[cfg(test)]
mod tests;
mod values;

pub use check_spec::{CheckKind, CheckSpec, HttpCheck, PeerTls, Secret, StatusSet};
pub use container::{
    Binding, Container, ContainerId, ContainerIdError, ContainerPort, Health, Network, State, parse_signal,
};
pub use decide::decide;
pub use decider::Decider;
pub use decision::{Candidate, Decision, Drain, Outcome, Skip};
pub use labels::KEYS as LABEL_KEYS;
pub use naming::base_name;
pub use settings::{Family, Filter, HealthPolicy, MaxPorts, NetworkChoice, ServiceFrom, SettingError, Settings};
pub use template::{NameTemplate, TemplateError};

/// Containers by id, shared rather than copied.
pub type ContainerMap = SharedMap<ContainerId, Arc<Container>>;
