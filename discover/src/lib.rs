//! `discover`: watches the registry and keeps HAProxy at its state.
//!
//! | module | what it holds |
//! |---|---|
//! | [`addresses`] | which addresses backends may have (pure) |
//! | [`api`] | what is routed, for programs: `/services`, Prometheus' `http_sd` |
//! | [`cli`] | the command line |
//! | [`synapse`] | Synapse's config, read whole and checked |
//! | [`agent`], [`turns`] | the running agent: what it observes, and the turns of its generators |
//! | [`watchers`] | sources of pools |
//! | [`reconcile`] | observations → merge → guard → desired (pure) |
//! | [`edge`] | the HTTP edge's decisions: which host and path go to which service (pure) |
//! | [`generators`] | desired → files and running state, one folder for each |
//! | [`haproxy`] | talking to HAProxy and running it |
//! | [`supervise`] | `discover supervise`: owns HAProxy's processes, as PID 1 |
//! | [`certificates`] | certificates for HTTPS at the edge |
//! | [`state`] | what must outlive a restart, on disk |
//! | [`metrics`], [`status`] | what discover tells about itself |
//! | [`names`] | host names as addresses |
//! | [`seniority`] | which of several claims to one thing counts (pure) |
//!
//! A turn: observe → merge → guard → plan → apply → read the outcome → record. It is level-triggered: a trigger carries
//! no data, every turn reads the whole state again, and costs what changed.

pub mod addresses;
pub mod agent;
pub mod api;
pub mod certificates;
pub mod cli;
pub mod client;
pub mod debounce;
pub mod edge;
pub mod generators;
pub mod haproxy;
pub mod metrics;
pub mod names;
pub mod reconcile;
pub mod seniority;
pub mod state;
pub mod status;
pub mod supervise;
pub mod synapse;
pub mod turns;
pub mod watchers;

/// The package's version, with the commit and its date.
pub const VERSION: &str = env!("BUILD_VERSION");
