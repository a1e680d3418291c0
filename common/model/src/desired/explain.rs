//! Decisions as text for people (`register explain`).

use std::fmt;

use super::decision::{Decision, Outcome};

impl fmt::Display for Decision {
    /// A line for the outcome, then the rules behind it and the warnings, indented. Control characters from names are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.container, plain(&self.name))?;
        if let Some((port, transport)) = self.port {
            write!(f, " {port}/{transport}")?;
        }
        match &self.outcome {
            Outcome::Register(candidate) => {
                let backend = &candidate.backend;
                write!(f, ": {}/{} at {} ({})", candidate.service, backend.id, backend.address(), backend.status)?;
            }
            Outcome::Skip(skip) => write!(f, ": left out: {skip}")?,
        }
        for line in &self.trail {
            write!(f, "\n    {}", plain(line))?;
        }
        for line in &self.warnings {
            write!(f, "\n    warning: {}", plain(line))?;
        }
        Ok(())
    }
}

/// A text without control characters: names and labels come from strangers, and this goes to a terminal.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { plain.extend(c.escape_default()) } else { plain.push(c) }
    }
    plain
}
