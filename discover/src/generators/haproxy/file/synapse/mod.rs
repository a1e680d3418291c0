//! haproxy.cfg composed as Synapse does, so that an operator's installation moves by changing the name of the binary.
//!
//! | module | what it holds |
//! |---|---|
//! | [`compose`] | services as sections, cached by their inputs |
//! | [`section`] | one service's section |
//! | [`prepare`] | what a section is like before it has servers |
//! | [`server`] | one server's line |
//! | [`lines`] | which lines belong into a frontend, which into a backend |
//! | [`ids`], [`order`] | numeric ids; Ruby's seeded shuffle |
//! | [`state`] | the state file |

pub mod compose;
pub mod ids;
pub mod lines;
pub mod order;
pub mod prepare;
pub mod section;
pub mod server;
pub mod state;

pub use compose::SynapseComposer;
pub use section::Quarantined;
