//! Nerve's config, read whole: services without Docker, how they are checked, and where they are published.
//!
//! | module | what it holds |
//! |---|---|
//! | `keys` | the table of every key: kind, default, origin, meaning, test |
//! | `types` | the checked config |
//! | `load` | files → checked config, and which services are left out for what reason |
//! | `service` | one service's object → what is checked and published |
//! | `check` | one check's object → what is tried |
//! | `number` | numbers, also as digits in a text |
//!
//! The rule: a fault in one service leaves out that service; a fault of the file as a whole refuses the file. What runs
//! goes on either way.

mod check;
pub mod keys;
pub mod load;
mod number;
mod service;
pub mod types;

pub use load::{Loaded, load, load_with};
pub use types::{CheckConf, Config, Limit, Phases, Service};

#[cfg(test)]
mod tests;
