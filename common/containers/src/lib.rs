//! Docker's containers: what runs, whether it works, and what is to be published of it.
//!
//! | module | what it holds | may do I/O |
//! |---|---|---|
//! | [`docker`] | Docker's API: containers and events | yes |
//! | [`checks`] | whether a backend works: one try | dials |
//! | [`readiness`] | when a candidate may be published | by way of `checks` |
//! | [`life`] | drains, handovers, warm-ups, what follows from all of it, and the keeper who knows it | no |
//!
//! The rule: nothing here knows a registry or how registrations are written.

pub mod checks;
pub mod docker;
pub mod life;
pub mod readiness;
