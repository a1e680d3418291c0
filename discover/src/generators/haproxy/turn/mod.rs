//! What runs, and the way from there to what is desired.
//!
//! | module | what it holds | I/O |
//! |---|---|---|
//! | [`generator`] | a turn's preparation and plan | asks only |
//! | `choosing` | a turn's choice of ports | asks only |
//! | [`mod@plan`], [`changes`] | from what runs to what is desired | no |
//! | [`reason`] | why only a reload will do | no |
//! | [`slices`] | how much of it one turn does | no |
//! | [`churn`] | how often a service may cause a reload | no |
//! | [`prove`] | registrants' words, judged before they go live | yes |
//! | [`applying`] | a plan carried out | yes |
//! | `loading` | a reload or a start | yes |
//! | `looking` | finding out what runs | asks only |
//! | [`state`] | how much is known of what runs: the states of the generator | no |
//! | `refusals` | what HAProxy would not take | no |
//! | `due` | when the next turn is due | no |
//! | `collecting` | retired servers deleted | yes |
//! | [`files`] | haproxy.cfg and what lies beside it | yes |
//! | [`disk`] | which of that is known to be what runs | yes |
//! | [`connection`] | the running HAProxy: asked, changed, loaded | yes |
//! | [`process`] | HAProxy's processes, found and started | yes |
//! | [`steps`] | runtime operations, carried out and judged | yes |
//! | [`readback`] | what runs, from HAProxy's words and its file | no |
//! | `health` | what a reload must take care of: checks' results, workers that hang | yes |
//! | `workers` | old workers counted, reloads that wait for them | asks only |
//! | `by_command` | a reload by an operator's command | yes |
//! | [`demands`] | checks and descriptors that a file asks for | looks only |
//! | [`errors`] | what can go wrong | no |
//! | `telling` | what a turn tells an operator | logs only |
//! | [`metrics`] | the generator's metrics | no |
//! | [`status`] | what an operator wants to know | no |

pub mod applying;
mod by_command;
pub mod changes;
mod choosing;
pub mod churn;
mod collecting;
pub mod connection;
pub mod demands;
pub mod disk;
mod due;
pub mod errors;
pub mod files;
pub mod generator;
mod health;
mod loading;
mod looking;
pub mod metrics;
pub mod plan;
pub mod process;
pub mod prove;
pub mod readback;
pub mod reason;
mod refusals;
pub mod slices;
pub mod state;
pub mod status;
pub mod steps;
mod telling;
mod workers;
