//! register: watches Docker and publishes what runs there, for as long as it runs.
//!
//! | module | what it holds | may do I/O |
//! |---|---|---|
//! | [`cli`] | flags and environment | no |
//! | [`commands`] | what each command does | yes |
//! | [`address`] | this host's address, given or worked out, and what becomes of it | by its caller |
//! | [`agent`] | the loop that judges everything again whenever something happens | no |
//! | [`nerve`] | services without Docker: Nerve's config, its services and reporters | yes |
//! | [`publish`] | what is written to the registry, and the lease it hangs on | store |
//! | [`own`] | one registration with a lease of its own | store |
//! | [`privileges`] | from root to nobody | yes |
//! | [`status`], [`metrics`] | what is shown | no |
//! | [`mod@history`] | what has changed, beside containers | no |
//!
//! When a candidate is ready and which containers drain is `common`'s part ([`containers`]).
//! The rule: what is written follows from what is known alone, so a restart writes nothing.

pub mod address;
pub mod agent;
pub mod cli;
pub mod commands;
pub mod history;
pub mod metrics;
pub mod nerve;
pub mod own;
pub mod privileges;
pub mod publish;
pub mod status;

/// The package's version, with the commit and its date.
pub const VERSION: &str = env!("BUILD_VERSION");
