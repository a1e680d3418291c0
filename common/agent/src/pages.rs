//! What is made from the command line's own description: completion scripts and manual pages.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Command, Subcommand};
use clap_complete::Shell;

use crate::console;

/// The commands that print the command line's description.
#[derive(Debug, Subcommand)]
pub enum Pages {
    /// Print a completion script
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Write the manual pages, one for each command, into a directory
    Man {
        /// Where to write them: it is made if it is missing
        directory: PathBuf,
    },
}

/// A completion script or manual page that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {to}: {cause}")]
pub struct PagesError {
    to: String,
    cause: io::Error,
}

impl Pages {
    /// Does what the command asks for; a completion script goes to `out`.
    ///
    /// # Errors
    /// When `out` or the directory cannot be written.
    pub fn make(&self, mut program: Command, out: &mut impl Write) -> Result<(), PagesError> {
        match self {
            Self::Completions { shell } => {
                let name = program.get_name().to_owned();
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut program, name, &mut script);
                console::write(out, &String::from_utf8_lossy(&script))
                    .map_err(|cause| PagesError { to: "the completion script".to_owned(), cause })
            }
            Self::Man { directory } => manual(program, directory)
                .map_err(|cause| PagesError { to: format!("the manual pages to {}", directory.display()), cause }),
        }
    }
}

fn manual(program: Command, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(program, directory)
}
