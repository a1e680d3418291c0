//! A command's output. That its reader has gone (`| head`) is no failure.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::process::exit;

/// Prints a line, as `println!` does: [`line`](fn@line) with a format.
#[macro_export]
macro_rules! say {
    ($($format:tt)*) => { $crate::console::line(format_args!($($format)*)) };
}

/// Writes `text` whole. That nobody reads it is no failure.
///
/// # Errors
/// Any other answer of the system.
pub fn write(out: &mut impl Write, text: &str) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e),
        _ => Ok(()),
    }
}

/// Prints a line. The program ends with 1 where it cannot be written.
pub fn line(text: Arguments<'_>) {
    if let Err(e) = write(&mut io::stdout().lock(), &format!("{text}\n")) {
        eprintln!("writing to standard output: {e}");
        exit(1);
    }
}
