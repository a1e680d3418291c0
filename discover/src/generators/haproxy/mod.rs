//! HAProxy: haproxy.cfg on disk and the process that runs it, kept at the desired state.
//!
//! | module | what it holds | I/O |
//! |---|---|---|
//! | [`settings`] | what the operator decides | no |
//! | [`ports`] | which service listens on which port | no |
//! | [`tenants`] | who has which port, over restarts too | no |
//! | [`published`] | the ports that containers of this host publish | no |
//! | [`binds`] | which of those ports can be opened | test-binds only |
//! | `choosing` | a turn's choice of ports | asks only |
//! | [`composing`] | in whose way the file is composed | no |
//! | [`compose`] | services as sections | no |
//! | [`synapse`] | services as sections, in Synapse's way | no |
//! | [`edge`] | the HTTP edge: its frontend, sections and rules | no |
//! | [`layout`], [`server`] | haproxy.cfg as a value, written and read back | no |
//! | [`mod@plan`], [`changes`] | from what runs to what is desired | no |
//! | [`readback`] | what runs, from HAProxy's words and its file | no |
//! | [`reload`] | when a reload may happen | time only |
//! | [`files`] | haproxy.cfg and what lies beside it | yes |
//! | [`connection`] | the running HAProxy: asked, changed, loaded | yes |
//! | `health` | what a reload must take care of: checks' results, workers that hang | yes |
//! | [`steps`] | runtime operations, carried out and judged | yes |
//! | [`refused`] | servers that HAProxy refuses for their registrations' words | no |
//! | [`lingering`] | sections that outlive their service for a while | no |
//! | [`writing`] | when the file may be written | no |
//! | [`generator`] | a turn's preparation and plan | asks only |
//! | [`applying`] | a plan carried out | yes |
//! | [`status`] | what an operator wants to know | no |

pub mod applying;
pub mod binds;
pub mod changes;
mod choosing;
pub mod compose;
pub mod composing;
pub mod connection;
pub mod edge;
pub mod files;
pub mod generator;
mod health;
pub mod layout;
pub mod lingering;
pub mod plan;
pub mod ports;
pub mod published;
pub mod readback;
pub mod refused;
pub mod reload;
pub mod server;
pub mod settings;
pub mod status;
pub mod steps;
pub mod synapse;
pub mod tenants;
pub mod writing;

pub use generator::Haproxy;
