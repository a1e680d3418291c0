//! HAProxy: its runtime API, its processes, and the words of its config. The ground floor: nothing here decides what ought to run.
//!
//! | module | what it holds |
//! |---|---|
//! | [`api`] | the runtime API: sockets, commands, and replies as tables |
//! | [`process`] | HAProxy's processes: its master, `haproxy -c`, reloads, ports |
//! | [`words`] | what a registration may say on a line of haproxy.cfg; no I/O |
//!
//! Every wait has a deadline. A reply that is not known to mean success is an error that carries it.

pub mod api;
pub mod process;
pub mod words;
