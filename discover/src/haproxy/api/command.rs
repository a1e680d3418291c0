//! A command line for HAProxy's CLI that cannot be broken out of.
//!
//! On the CLI `;` and newline begin another command, `\` escapes, white space separates words, a last word `<<` begins a payload, and a
//! first word `@1` chooses a process. So a command is made of [words](Command::new) that contain none of that: parse, never escape.

use std::fmt;

/// The longest command, in bytes, with its payload: HAProxy resets the connection when one does not fit its buffer (`tune.bufsize`, 16,384
/// bytes unless configured; measured on 2.6.12).
pub const MAX_COMMAND: usize = 8192;

/// Why something is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No word at all, or one that is empty.
    #[error("an empty word in the command {command:?}")]
    EmptyWord { command: String },
    /// The word would end the command, begin another, or be read as something else than a value.
    #[error("{word:?} cannot be sent to HAProxy's socket")]
    UnsafeWord { word: String },
    /// Longer than [`MAX_COMMAND`].
    #[error("a command of {bytes} bytes, of at most {MAX_COMMAND}: {start:?}…")]
    TooLong { bytes: usize, start: String },
}

/// One validated command.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    line: String,
    /// Payload lines, each ended by a newline; empty when the command has none.
    payload: String,
}

/// Whether `word` is one word to HAProxy and nothing more: printable ASCII without separators, escapes and quotes.
pub fn is_safe_word(word: &str) -> bool {
    !word.is_empty()
        && !word.starts_with("<<")
        && word.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b';' | b'\\' | b'"' | b'\'' | b'`'))
}

impl Command {
    /// A command of these words.
    ///
    /// # Errors
    /// [`CommandError`] when a word is not [safe](is_safe_word), the first one is no plain verb, or all is too long.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, CommandError> {
        let mut line = String::new();
        for word in words {
            // The verb must be one: a leading `@1` or `#` is not a command but an instruction about the next ones.
            let verb = !line.is_empty() || word.bytes().all(|b| b.is_ascii_lowercase());
            if word.is_empty() {
                return Err(CommandError::EmptyWord { command: line });
            }
            if !verb || !is_safe_word(word) {
                return Err(CommandError::UnsafeWord { word: word.to_owned() });
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        if line.is_empty() {
            return Err(CommandError::EmptyWord { command: line });
        }
        Self { line, payload: String::new() }.measured()
    }

    /// Adds a payload of lines, each made of words: `add map @1 FILE <<`.
    ///
    /// # Errors
    /// [`CommandError`] as for [`new`](Self::new); an empty line would end the payload early and is refused.
    pub fn with_payload<'a, L: AsRef<[&'a str]>>(
        mut self,
        lines: impl IntoIterator<Item = L>,
    ) -> Result<Self, CommandError> {
        for line in lines {
            let words = line.as_ref();
            if words.is_empty() {
                return Err(CommandError::EmptyWord { command: self.line });
            }
            if let Some(bad) = words.iter().find(|w| !is_safe_word(w)) {
                return Err(CommandError::UnsafeWord { word: (*bad).to_owned() });
            }
            self.payload.push_str(&words.join(" "));
            self.payload.push('\n');
        }
        self.measured()
    }

    fn measured(self) -> Result<Self, CommandError> {
        let bytes = self.wire("").len();
        if bytes > MAX_COMMAND {
            return Err(CommandError::TooLong { bytes, start: self.line.chars().take(60).collect() });
        }
        Ok(self)
    }

    /// Whether a payload follows the command line.
    pub fn has_payload(&self) -> bool {
        !self.payload.is_empty()
    }

    /// What goes over the wire, with `prefix` (such as `@1 `, or nothing) before it.
    pub(crate) fn wire(&self, prefix: &str) -> String {
        if self.payload.is_empty() {
            format!("{prefix}{}\n", self.line)
        } else {
            format!("{prefix}{} <<\n{}\n", self.line, self.payload)
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)?;
        if self.has_payload() { write!(f, " << ({} lines)", self.payload.lines().count()) } else { Ok(()) }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_break_out_is_refused() {
        let bad = ["a;b", "a b", "a\nb", "a\\", "\"a\"", "it's", "<<", "<<EOF", "", "a\tb", "a\0", "é", "`a`", "a\r"];
        for word in bad {
            assert!(Command::new(["add", "server", word]).is_err(), "{word:?}");
            let payload = Command::new(["add", "map", "/m"]).unwrap().with_payload([["k", word]]);
            assert!(payload.is_err(), "{word:?} in a payload");
        }
        for verb in ["@1", "#", "Show", "show;", "@!1234"] {
            assert!(Command::new([verb, "info"]).is_err(), "{verb:?}");
        }
        assert!(Command::new([]).is_err());
        assert!(Command::new(["add", "map", "/m"]).unwrap().with_payload([[""; 0]]).is_err());
    }

    #[test]
    fn a_command_that_would_not_fit_haproxys_buffer_is_refused() {
        let long = "x".repeat(MAX_COMMAND);
        assert!(matches!(Command::new(["show", &long]), Err(CommandError::TooLong { .. })));
    }

    #[test]
    fn a_payload_ends_with_an_empty_line() {
        let c = Command::new(["add", "map", "@1", "/m"]).unwrap().with_payload([["k", "v"], ["l", "w"]]).unwrap();
        assert_eq!(c.wire("@1 "), "@1 add map @1 /m <<\nk v\nl w\n\n");
    }

    proptest! {
        #[test]
        fn one_command_is_always_one_line_of_as_many_words(words in proptest::collection::vec(".{0,12}", 1..6)) {
            let all: Vec<&str> = std::iter::once("show").chain(words.iter().map(String::as_str)).collect();
            if let Ok(command) = Command::new(all.iter().copied()) {
                let wire = command.wire("");
                prop_assert_eq!(wire.matches('\n').count(), 1);
                prop_assert!(!wire.contains(';') && !wire.contains('\\'));
                prop_assert_eq!(wire.split_whitespace().collect::<Vec<_>>(), all);
            }
        }
    }
}
