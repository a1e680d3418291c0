//! register: watches Docker and publishes what runs there, for as long as it runs.

pub mod publish;

pub use common::{checks, drain, readiness};
