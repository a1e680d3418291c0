//! Synapse's config, read whole: JSON, JSON with comments, or YAML; every problem found at once, each with its key path.
//!
//! | module | what it holds |
//! |---|---|
//! | [`agent::config`] | the way from a text to a regular value, which register has in common |
//! | `keys` | the table of every key: kind, default, origin, meaning, test |
//! | `directives` | HAProxy directives that are no more, with their modern form |
//! | `types` | the checked config |
//! | `load` | files → one value |
//! | `reader` | the value → checked config, and sections that come from the registry |
//! | `registration` | a registration as JSON, as default_servers and `discover render` have it |

pub mod directives;
pub mod keys;
pub mod load;
mod reader;
pub mod registration;
pub mod types;

pub use agent::config::{ConfigError, Note, Report, check};
pub use load::{LoadedConfig, load};
pub(crate) use reader::spelled;
pub use reader::{edge, with_registry_sections};
pub use types::Config;
