//! A config file of Synapse's or Nerve's making, read whole: JSON, JSON with comments, or YAML; every problem found at
//! once, each with its key path.
//!
//! | module | what it holds |
//! |---|---|
//! | this one | what is said about a config: errors, warnings, notices |
//! | [`source`] | a file's text as a value: comments, YAML, ERB refused |
//! | [`mod@env`] | `${ENV}` and `${ENV:-default}` in texts |
//! | [`files`] | a file as an object, and those of service_conf_dir |
//! | [`table`] | what a program's table of keys consists of: name, kind, origin |
//! | [`check`] | a value held against a table: problems, and the value made regular |
//!
//! The rule: each program has a table of its own keys and types of its own; the way from a text to a regular value is
//! the same for both.

pub mod check;
pub mod env;
pub mod files;
pub mod source;
pub mod table;

use std::fmt;
use std::path::PathBuf;

/// Something about one place of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
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
