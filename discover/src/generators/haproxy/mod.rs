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
//! | [`names`] | names of sections and servers, made from the registry's | no |
//! | [`mod@plan`], [`changes`] | from what runs to what is desired | no |
//! | [`slices`] | how much of it one turn does | no |
//! | [`readback`] | what runs, from HAProxy's words and its file | no |
//! | [`reload`] | when a reload may happen | time only |
//! | [`churn`] | how often a service may cause one | no |
//! | `workers` | old workers counted, reloads that wait for them | asks only |
//! | [`stats`] | where the stats page listens, and who may read it | yes |
//! | [`files`] | haproxy.cfg and what lies beside it | yes |
//! | `by_command` | a reload by an operator's command | yes |
//! | [`connection`] | the running HAProxy: asked, changed, loaded | yes |
//! | `health` | what a reload must take care of: checks' results, workers that hang | yes |
//! | [`steps`] | runtime operations, carried out and judged | yes |
//! | [`ids`] | numbers of servers that are added at run time | no |
//! | [`loops`] | servers that would be HAProxy itself | own addresses only |
//! | [`proofs`] | the ledger of registrants' words: nothing of them goes live unproved | no |
//! | [`trial`] | a file with suspects, and without some of them | no |
//! | [`proving`] | registrants' words judged beside the turns | yes |
//! | [`checker`] | who judges a file | yes |
//! | [`lingering`] | sections that outlive their service for a while | no |
//! | [`writing`] | when the file may be written | no |
//! | [`generator`] | a turn's preparation and plan | asks only |
//! | [`applying`] | a plan carried out | yes |
//! | `telling` | what a turn tells an operator | no |
//! | [`status`] | what an operator wants to know | no |

pub mod applying;
pub mod binds;
mod by_command;
pub mod changes;
pub mod checker;
mod choosing;
pub mod churn;
pub mod compose;
pub mod composing;
pub mod connection;
pub mod edge;
pub mod files;
pub mod generator;
mod health;
pub mod ids;
pub mod layout;
pub mod lingering;
pub mod loops;
pub mod names;
pub mod plan;
pub mod ports;
pub mod proofs;
pub mod proving;
pub mod published;
pub mod readback;
pub mod reload;
pub mod server;
pub mod settings;
pub mod slices;
pub mod stats;
pub mod status;
pub mod steps;
pub mod synapse;
mod telling;
pub mod tenants;
pub mod trial;
mod workers;
pub mod writing;

pub use generator::Haproxy;
