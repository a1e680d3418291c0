//! register: watches Docker and publishes what runs there, for as long as it runs.

pub mod checks;
pub mod drain;
pub mod publish;
pub mod readiness;
