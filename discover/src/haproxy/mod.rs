//! Talking to HAProxy and running it: everything here is I/O or the reading of HAProxy's own words.
//!
//! | module | what it holds |
//! |---|---|
//! | [`version`] | which HAProxy this is and what it can do: the one capability table |
//! | [`command`] | a command line that cannot be broken out of |
//! | [`endpoint`] | where a socket is |
//! | [`socket`] | the runtime API: a session with one parsed reply for each command, and one-shot commands |
//! | [`ops`] | the runtime operations: the command of each, and which replies mean that it worked |
//! | [`tables`] | `show servers state`, `show stat`, `show info`, `show map` read by their own headers |
//! | [`runtime`] | typed operations over a socket |
//! | [`procs`] | `show proc` |
//! | [`master`] | the master CLI: reload with a known outcome |
//! | [`check`] | `haproxy -c` and `-v` |
//! | [`blame`] | who is to blame for a config that HAProxy does not take |
//! | [`process`] | starting, adopting and stopping HAProxy |
//! | [`words`] | what a registration may say on a line of haproxy.cfg; no I/O |
//! | [`ports`] | would HAProxy be able to bind this? |
//!
//! The rules: every wait has a deadline; a reply that is not known to mean success is an error that carries it; and nothing here decides
//! what ought to run, which is the generator's work.

pub mod blame;
pub mod check;
pub mod command;
pub mod endpoint;
pub mod master;
pub mod ops;
pub mod ports;
pub mod process;
pub mod procs;
pub mod runtime;
pub mod shortage;
pub mod socket;
pub mod tables;
pub mod version;
pub mod words;
