//! The image of the lab's containers: whoami and the libraries it needs, and no distribution below them, so that a new
//! daemon has it within a moment.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::run;
use crate::agents::binary;
use crate::{Context, Lab, Result};

/// A tar file of whoami's file system, made once for a run.
///
/// # Errors
/// When whoami was not built, or a tool is missing.
pub fn whoami(lab: &Lab) -> Result<PathBuf> {
    let tar = lab.dir().join("whoami.tar");
    if tar.exists() {
        return Ok(tar);
    }
    let (program, root) = (binary("whoami")?, lab.subdir("whoami-root")?);
    // Debug information is most of its size, and every container of the plain storage driver is a copy.
    run("strip", ["-o".as_ref(), root.join("whoami").as_os_str(), program.as_os_str()])?;
    let libraries = run("ldd", [&program])?;
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(library), &root.join(library.trim_start_matches('/'))).during(format!("copying {library}"))?;
    }
    run("tar", ["-C".as_ref(), root.as_os_str(), "-cf".as_ref(), tar.as_os_str(), ".".as_ref()])?;
    Ok(tar)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    fs::copy(from, to).map(drop)
}
