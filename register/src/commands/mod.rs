//! What each command does. Each returns an error that `main` prints, with the exit code it asks for.

pub mod check;
pub mod exec;
pub mod host;
pub mod look;
pub mod ls;
pub mod operate;
pub mod put;
pub mod run;
pub mod stop;
mod waiting;

use std::error::Error;
use std::fmt;
use std::io;

use agent::lifecycle::Exit;

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// With which code the program ends.
    pub exit: Exit,
    /// What happened.
    pub error: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// A failure of the command line or the settings.
    pub fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { exit: Exit::Usage, error: error.into() }
    }

    /// A failure while running.
    pub fn runtime(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { exit: Exit::Runtime, error: error.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        agent::telemetry::Chain(&*self.error).fmt(f)
    }
}

/// Prints a command's result. A reader that went away (`register ls | head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    agent::console::write(&mut io::stdout().lock(), text).map_err(Failure::runtime)
}
