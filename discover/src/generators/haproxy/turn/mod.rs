//! What runs, and the way from there to what is desired.
//!
//! | module | what it holds | I/O |
//! |---|---|---|
//! | [`generator`] | a turn's preparation and plan | asks only |
//! | `choosing` | a turn's choice of ports | asks only |
//! | [`mod@plan`], [`changes`] | from what runs to what is desired | no |
//! | [`slices`] | how much of it one turn does | no |
//! | [`churn`] | how often a service may cause a reload | no |
//! | [`prove`] | registrants' words, judged before they go live | yes |
//! | [`applying`] | a plan carried out | yes |
//! | [`files`] | haproxy.cfg and what lies beside it | yes |
//! | [`writing`] | when the file may be written | no |
//! | [`connection`] | the running HAProxy: asked, changed, loaded | yes |
//! | [`steps`] | runtime operations, carried out and judged | yes |
//! | [`ids`] | numbers of servers that are added at run time | no |
//! | [`readback`] | what runs, from HAProxy's words and its file | no |
//! | `health` | what a reload must take care of: checks' results, workers that hang | yes |
//! | `workers` | old workers counted, reloads that wait for them | asks only |
//! | `by_command` | a reload by an operator's command | yes |
//! | `telling` | what a turn tells an operator | no |
//! | [`metrics`] | the generator's metrics | no |
//! | [`status`] | what an operator wants to know | no |

pub mod applying;
mod by_command;
pub mod changes;
mod choosing;
pub mod churn;
pub mod connection;
pub mod files;
pub mod generator;
mod health;
pub mod ids;
pub mod metrics;
pub mod plan;
pub mod prove;
pub mod readback;
pub mod slices;
pub mod status;
pub mod steps;
mod telling;
mod workers;
pub mod writing;
