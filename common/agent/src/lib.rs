//! What any agent needs, whatever it keeps. Nothing here knows a container or a registry.
//!
//! | module | what it holds | may do I/O |
//! |---|---|---|
//! | [`watch`] | the seam between a source and its reader: *pending → synced → stale* | no |
//! | [`admin`] | the admin server: metrics, health, status, events, and its client | yes |
//! | [`config`] | config files of Synapse's and Nerve's making, read whole | reads files |
//! | [`lifecycle`] | owned tasks, one cancellation root, signals | yes |
//! | [`telemetry`], [`trouble`] | logs, error chains, metrics; what was said of a fault that lasts | yes |
//! | [`backoff`] | when to try again | time only |
//! | [`environment`], [`program`] | the environment of child programs, their signals and status | yes |
//! | [`files`] | atomic replacement of a file | yes |
//! | [`history`] | the last changes, on disk too; `/history` and its command | yes |
//! | [`hostip`] | the address under which other hosts reach this one | yes |
//! | [`tls`] | the process's TLS implementation; keys and certificates in PEM | reads files |
//! | [`console`], [`pages`] | a command's output; completion scripts and manual pages | writes it |
//! | [`clock`], [`sync`] | the wall clock since 1970; a mutex without poison | the clock |

pub mod admin;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod console;
pub mod environment;
pub mod files;
pub mod history;
pub mod hostip;
pub mod lifecycle;
pub mod pages;
pub mod program;
pub mod sync;
pub mod telemetry;
pub mod tls;
pub mod trouble;
pub mod usage;
pub mod watch;
