//! HAProxy's runtime API.
//!
//! | module | what it holds |
//! |---|---|
//! | [`version`] | which HAProxy this is and what it can do: the one capability table |
//! | [`command`] | a command line that cannot be broken out of |
//! | [`endpoint`] | where a socket is |
//! | [`socket`] | a session with one parsed reply for each command, and one-shot commands |
//! | [`ops`] | the runtime operations: the command of each, and which replies mean that it worked |
//! | [`tables`] | `show servers state`, `show info`, `show map`, read by their own headers |
//! | [`stats`] | `show stat`, the same |
//! | [`runtime`], `maps` | typed operations over a socket |

pub mod command;
pub mod endpoint;
mod maps;
pub mod ops;
pub mod runtime;
pub mod socket;
pub mod stats;
pub mod tables;
pub mod version;
