//! HAProxy's processes: how they start, reload and stop, and what they say about a config.
//!
//! | module | what it holds |
//! |---|---|
//! | [`launch`] | starts, adopts and stops HAProxy |
//! | `log` | the end of its log |
//! | [`output`] | what it says, as events of our log |
//! | [`procs`] | `show proc` |
//! | [`master`] | the master CLI: reload with a known outcome |
//! | [`pace`] | when a reload may happen; no I/O |
//! | [`check`] | `haproxy -c` and `-v` |
//! | [`blame`] | who is to blame for a config that HAProxy does not take |
//! | [`tries`] | the same over files that HAProxy is asked about |
//! | [`program`] | its file: replaced under a running discover |
//! | [`ports`] | would HAProxy be able to bind this? |
//! | [`shortage`] | errors that say nothing about HAProxy: the machine is short of something |

pub mod blame;
pub mod check;
pub mod descriptors;
pub mod launch;
mod log;
pub mod master;
pub mod output;
pub mod pace;
pub mod ports;
pub mod procs;
pub mod program;
pub mod shortage;
pub mod tries;
