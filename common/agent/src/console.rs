//! A command's output. That its reader has gone (`| head`) is no failure; on a terminal it has colours.

use std::env::var_os;
use std::fmt::Arguments;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
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

/// Prints `text` as it stands. The program ends with 1 where it cannot be written.
pub fn text(text: &str) {
    if let Err(e) = write(&mut io::stdout().lock(), text) {
        eprintln!("writing to standard output: {e}");
        exit(1);
    }
}

/// Prints a line. The program ends with 1 where it cannot be written.
pub fn line(text: Arguments<'_>) {
    self::text(&format!("{text}\n"));
}

/// Clears the screen.
pub const CLEAR: &str = "\u{1b}[H\u{1b}[2J\u{1b}[3J";

const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// Words that have a colour where they are all of a cell.
const COLOURS: [(&str, &[&str]); 3] = [
    (GREEN, &["up", "synced"]),
    (YELLOW, &["draining", "maint", "held", "waiting", "pending"]),
    (RED, &["down", "stale", "refused"]),
];

/// Whether standard output is a terminal with colours, and the user wants them.
///
/// Source: <https://no-color.org>: NO_COLOR, when it is not empty, means none.
pub fn has_colours() -> bool {
    let wanted = var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    wanted && io::stdout().is_terminal() && var_os("TERM").is_some_and(|term| term != "dumb")
}

/// A text of headings, indented lines and tables, with colours: what is bad is red, what waits is yellow.
pub fn painted(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::with_capacity(text.len() * 2);
    for (n, line) in lines.iter().enumerate() {
        let is_heading = !line.starts_with(' ') && lines.get(n + 1).is_some_and(|next| next.starts_with(' '));
        let warns = line.trim_start().starts_with("warning: ") || line.contains(": left out: ");
        let painted = if warns {
            paint(line, YELLOW)
        } else if is_heading {
            paint(line, BOLD)
        } else {
            cells(line)
        };
        out.push_str(&painted);
        out.push('\n');
    }
    out
}

fn paint(text: &str, colour: &str) -> String {
    let inner = text.trim();
    if inner.is_empty() {
        return text.to_owned();
    }
    text.replacen(inner, &format!("\u{1b}[{colour}m{inner}\u{1b}[0m"), 1)
}

/// A line of a table; cells are at least two spaces apart.
fn cells(line: &str) -> String {
    let cells: Vec<&str> = line.split("  ").collect();
    let mut named = cells.iter().map(|cell| cell.trim()).filter(|cell| !cell.is_empty());
    let (name, value) = (named.next().unwrap_or_default(), named.next().unwrap_or_default());
    let is_bad = name.ends_with("error") && !matches!(value, "" | "-") || (name, value) == ("ready", "no");
    let colour = |cell: &str| match COLOURS.iter().find(|(_, words)| words.contains(&cell)) {
        Some((colour, _)) => Some(*colour),
        None => (is_bad && cell == value).then_some(RED),
    };
    let painted = cells.iter().map(|cell| colour(cell.trim()).map_or((*cell).to_owned(), |colour| paint(cell, colour)));
    painted.collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_change_no_character_and_no_place() {
        let text = "\
ready       no
last error  etcd is away

sources (2)
  NAME    STATE   SERVICES
  etcd    synced        12
  docker  stale          3

0abc web 80/tcp: web/0abc at 10.0.0.1:80 (up)
    warning: a label
0abd web 81/tcp: left out: no port
";
        let painted = painted(text);
        let mut plain = painted.clone();
        for code in ["0", BOLD, RED, GREEN, YELLOW] {
            plain = plain.replace(&format!("\u{1b}[{code}m"), "");
        }
        assert_eq!(plain, text);
        for (colour, words) in [
            (RED, "no"),
            (RED, "etcd is away"),
            (BOLD, "sources (2)"),
            (GREEN, "synced"),
            (RED, "stale"),
            (BOLD, "0abc web 80/tcp: web/0abc at 10.0.0.1:80 (up)"),
            (YELLOW, "warning: a label"),
            (YELLOW, "0abd web 81/tcp: left out: no port"),
        ] {
            assert!(painted.contains(&format!("\u{1b}[{colour}m{words}\u{1b}[0m")), "{words}: {painted:?}");
        }
        assert!(!painted.contains(&format!("{RED}m3")), "{painted:?}");
    }
}
