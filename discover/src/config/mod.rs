//! Synapse's config, read whole: JSON, JSON with comments, or YAML; every problem found at once, each with its key path.
//!
//! | module | what it holds |
//! |---|---|
//! | `source` | a file's text as a value: comments, YAML, ERB refused |
//! | `env` | `${ENV}` and `${ENV:-default}` in texts |
//! | `keys` | the table of every key: kind, default, origin, meaning, test |
//! | `check` | a value held against the table: problems, and the value made regular |
//! | `directives` | HAProxy directives that are no more, with their modern form |
//! | `types` | the checked config |
//! | `load` | files → one value |
//! | `reader` | the value → checked config, and sections that come from the registry |
//! | `schema` | the table as JSON Schema and as the reference in docs/configuration.md |
//! | `registration` | a registration as JSON, as default_servers and `discover render` have it |

pub mod check;
pub mod directives;
pub mod env;
pub mod keys;
pub mod load;
mod reader;
pub mod registration;
pub mod schema;
pub mod source;
pub mod types;

use std::fmt;
use std::path::PathBuf;

pub use load::{Loaded, load};
pub use reader::with_registry_sections;
pub use types::Config;

/// Something about one place of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The file.
    pub file: PathBuf,
    /// The key path, such as `services.api.haproxy.port`; empty for the file itself.
    pub path: String,
    /// What about it.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)
    }
}

/// Everything that is wrong with a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Note>);

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Errors, warnings and notices, gathered while a config is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The file that is being read.
    pub file: PathBuf,
    /// What makes the config unusable.
    pub errors: Vec<Note>,
    /// What is passed over, an unknown key above all.
    pub warnings: Vec<Note>,
    /// What is only old-fashioned, with its modern form.
    pub notices: Vec<Note>,
}

impl Report {
    fn note(&self, path: &str, text: impl Into<String>) -> Note {
        Note { file: self.file.clone(), path: path.to_owned(), text: text.into() }
    }

    /// Adds an error.
    pub fn error(&mut self, path: &str, text: impl Into<String>) {
        let note = self.note(path, text);
        self.errors.push(note);
    }

    /// Adds a warning.
    pub fn warn(&mut self, path: &str, text: impl Into<String>) {
        let note = self.note(path, text);
        self.warnings.push(note);
    }

    /// Adds a notice.
    pub fn notice(&mut self, path: &str, text: impl Into<String>) {
        let note = self.note(path, text);
        self.notices.push(note);
    }
}
