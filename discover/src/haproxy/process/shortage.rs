//! Errors that tell about this process or this host, and nothing about what was asked.

use std::error::Error;
use std::io;
use std::iter::successors;

use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};

/// Whether something could not even be tried, as its causes tell: no file descriptor or no memory was left. A HAProxy that cannot be
/// asked for want of them still runs, a port that cannot be tried is not known to be taken, a file not known to be another.
pub fn is_shortage(error: &(dyn Error + 'static)) -> bool {
    let causes = successors(Some(error), |error| (*error).source());
    let mut codes = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    codes.any(|code| [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(&code))
}
