//! A command's output. A reader that has gone (`| head`) ends the program quietly, as it ends any filter.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write as _};
use std::process::exit;

/// Prints a line, as `println!` does: [`line`](fn@line) with a format.
#[macro_export]
macro_rules! say {
    ($($format:tt)*) => { $crate::console::line(format_args!($($format)*)) };
}

/// Prints a line. The program ends where nobody reads it, with 0, and with 1 where it cannot be written.
pub fn line(text: Arguments<'_>) {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::BrokenPipe => exit(0),
        Err(e) => {
            eprintln!("writing to standard output: {e}");
            exit(1);
        }
    }
}
