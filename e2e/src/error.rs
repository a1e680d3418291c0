//! One error for the whole lab: what was tried, and why it failed. Nothing here decides by kinds of errors.

use std::error::Error;
use std::fmt;

/// What could not be done, and why.
pub struct LabError {
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The lab's result.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

impl LabError {
    /// A failure that has no deeper cause.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None }
    }
}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// The whole chain, since this is what a failed test prints.
impl fmt::Debug for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl Error for LabError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

/// Says what was being done when something failed.
pub trait Context<T> {
    /// `what` is the operation and its subject, such as "starting container x".
    ///
    /// # Errors
    /// The failure, with `what` in front.
    fn during(self, what: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn during(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|error| LabError { what: what.into(), source: Some(error.into()) })
    }
}

impl<T> Context<T> for Option<T> {
    fn during(self, what: impl Into<String>) -> Result<T> {
        self.ok_or_else(|| LabError::new(what))
    }
}
