//! What a person sees: steps with their outcome, in colour on a terminal only, and a line that moves while one waits.

use std::env;
use std::fmt::Display;
use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// Between two changes of the moving line.
const BEAT: Duration = Duration::from_millis(100);
const WHEEL: [char; 4] = ['|', '/', '-', '\\'];

/// Lines that stay where they are and change; where nothing can move, each is written when it has changed.
#[derive(Debug)]
pub struct Board {
    terminal: Terminal,
    shown: Vec<String>,
}

impl Board {
    /// An empty one.
    pub fn new(terminal: Terminal) -> Self {
        Self { terminal, shown: Vec::new() }
    }

    /// Shows these lines in place of the former ones. `key` tells what of a line is a change worth a line of its own where
    /// nothing can move.
    pub fn show(&mut self, lines: &[String], key: impl Fn(&str) -> String) {
        if self.terminal.moving {
            if !self.shown.is_empty() {
                let _ = write!(stdout(), "\x1b[{}A", self.shown.len());
            }
            // A table that has become shorter leaves nothing below it.
            let _ = writeln!(stdout(), "\x1b[J{}", lines.join("\n"));
            let _ = stdout().flush();
        } else {
            let known: Vec<String> = self.shown.iter().map(|line| key(line)).collect();
            lines.iter().filter(|line| !known.contains(&key(line))).for_each(|line| self.terminal.line(line));
        }
        self.shown = lines.to_vec();
    }
}

/// Standard output, for people.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    colour: bool,
    moving: bool,
}

impl Terminal {
    /// Colour and movement on a terminal only; no colour with NO_COLOR set (no-color.org) or on a dumb terminal.
    pub fn detect() -> Self {
        let moving = stdout().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb");
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: moving && !no_colour, moving }
    }

    fn paint(self, code: &str, text: impl Display) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// Emphasis.
    pub fn bold(self, text: impl Display) -> String {
        self.paint("1", text)
    }

    /// What went well.
    pub fn good(self, text: impl Display) -> String {
        self.paint("32", text)
    }

    /// What did not.
    pub fn bad(self, text: impl Display) -> String {
        self.paint("31", text)
    }

    /// What matters less.
    pub fn faint(self, text: impl Display) -> String {
        self.paint("2", text)
    }

    /// One line. Nothing is wrong with a reader that went away.
    pub fn line(self, text: impl Display) {
        let _ = writeln!(stdout(), "{text}");
    }

    /// A heading.
    pub fn heading(self, text: impl Display) {
        self.line(format_args!("\n{}", self.bold(text)));
    }

    /// A step that went well.
    pub fn done(self, text: impl Display) {
        self.line(format_args!("  {} {text}", self.good("ok")));
    }

    /// Shows `what` and the time it takes, until `work` is done.
    pub async fn while_waiting<T>(self, what: &str, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        if !self.moving {
            self.line(format_args!("  .. {what}"));
        }
        let mut work = std::pin::pin!(work);
        for wheel in WHEEL.into_iter().cycle() {
            if self.moving {
                let seconds = started.elapsed().as_secs_f64();
                let _ = write!(stdout(), "\r  {wheel}  {what} {} \x1b[K", self.faint(format_args!("{seconds:.1} s")));
                let _ = stdout().flush();
            }
            tokio::select! {
                biased;
                result = &mut work => {
                    if self.moving {
                        let _ = write!(stdout(), "\r\x1b[K");
                        let _ = stdout().flush();
                    }
                    return result;
                }
                () = sleep(BEAT) => {}
            }
        }
        work.await // the wheel never ends
    }
}
