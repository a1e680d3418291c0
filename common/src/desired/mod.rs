//! Containers × settings → what is to be registered, each decision with its reason. Pure: no I/O, no clock, no tokio.

mod check_spec;
mod container;
mod decision;
mod settings;
mod template;

pub use check_spec::{CheckKind, CheckSpec, HttpCheck, Secret, StatusSet};
pub use container::{
    Binding, Container, ContainerId, ContainerIdError, ContainerPort, Health, Network, State, parse_signal,
};
pub use decision::{Candidate, Decision, Drain, Outcome, Skip};
pub use settings::{Family, Filter, HealthPolicy, ServiceFrom, SettingError, Settings};
pub use template::{NameTemplate, TemplateError};
