//! The named `defaults` section that HAProxy 3.4 makes plain sections from at run time. Pure.
//!
//! A section that is made at run time has all that it says from a named `defaults` section. So that it is one of the edge's like
//! any other, that section says what the file's own `defaults` say, and after it what a whole section says.

use std::sync::Arc;

use crate::edge::sections::PLAIN;

/// What a word at the beginning of a line would do to every section: what plain sections cannot be without, or may not have.
const NOT_FOR_PLAIN: [&str; 3] = ["cookie", "dynamic-cookie-key", "persist"];

/// A header, and the same with [`PLAIN`]: made once for each header.
#[derive(Debug, Default)]
pub struct PlainDefaults {
    last: Option<(Arc<str>, Option<Arc<str>>)>,
}

impl PlainDefaults {
    /// `header` with [`PLAIN`] made of `lines`; `None` where the header leaves no room for it. The very same for the same header.
    pub fn in_header(&mut self, header: &Arc<str>, lines: &str) -> Option<Arc<str>> {
        match &self.last {
            Some((of, with)) if Arc::ptr_eq(of, header) => with.clone(),
            _ => {
                let with: Option<Arc<str>> = with_plain(header, lines).map(Into::into);
                self.last = Some((header.clone(), with.clone()));
                with
            }
        }
    }
}

/// Puts [`PLAIN`] in front of the last `defaults` of `header`, which go on to count for every section that names none.
///
/// `None` without such `defaults`, as every later section would then be made from ours; where they are made from others, or lead
/// requests by cookies; and where HAProxy is told to forget `defaults` once it runs.
fn with_plain(header: &str, lines: &str) -> Option<String> {
    let is_head = |line: &str| line.split_whitespace().next() == Some("defaults");
    let starts = header.split_inclusive('\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, line))
    });
    let (at, head) = starts.filter(|(_, line)| is_head(line)).last()?;
    let has = |text: &str, word: &str| text.lines().any(|line| line.split_whitespace().next() == Some(word));
    if head.split_whitespace().any(|word| word == "from") || has(header, "tune.defaults.purge") {
        return None;
    }
    // Whatever is not indented begins the next section.
    let body =
        header[at + head.len()..].lines().take_while(|line| line.is_empty() || line.starts_with([' ', '\t', '#']));
    // `default-server` counts for no server of the edge's: each says all of its own line.
    let of_servers = |line: &&str| line.split_whitespace().next() != Some("default-server");
    let body: Vec<&str> = body.filter(|line| !line.trim().is_empty()).filter(of_servers).collect();
    if NOT_FOR_PLAIN.iter().any(|word| has(&body.join("\n"), word)) {
        return None;
    }
    let body: String = body.into_iter().flat_map(|line| [line, "\n"]).collect();
    Some(format!("{}defaults {PLAIN}\n{body}{lines}\n{}", &header[..at], &header[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "\tmode http\n";

    #[test]
    fn they_say_what_the_files_defaults_say_and_stand_where_they_count_for_nobody_else() {
        let header = "global\n\tmaxconn 9\n\ndefaults\n\tlog global\n\n\tdefault-server check\n\ttimeout queue 1s\n\nfrontend stats\n\tbind :1\n";
        let expected = "global\n\tmaxconn 9\n\ndefaults edge-plain\n\tlog global\n\ttimeout queue 1s\n\tmode http\n\ndefaults\n\tlog global\n\n\tdefault-server check\n\ttimeout queue 1s\n\nfrontend stats\n\tbind :1\n";
        assert_eq!(with_plain(header, LINES).as_deref(), Some(expected));
        let two = "defaults a\n\tmode tcp\nlisten x from a\n\tbind :1\ndefaults b\n\tmode http\n";
        let with = with_plain(two, LINES).unwrap();
        assert!(with.contains("\tbind :1\ndefaults edge-plain\n\tmode http\n\tmode http\n\ndefaults b\n"), "{with}");
    }

    #[test]
    fn some_headers_leave_no_room_for_them() {
        for header in [
            "",
            "global\n\tmaxconn 9\n",
            "defaults a\n\tmode tcp\ndefaults b from a\n",
            "defaults\n\tcookie X insert\n",
            "global\n\ttune.defaults.purge\ndefaults\n\tmode tcp\n",
        ] {
            assert_eq!(with_plain(header, LINES), None, "{header}");
        }
    }

    #[test]
    fn the_same_header_gives_the_very_same() {
        let (mut plain, header): (_, Arc<str>) = (PlainDefaults::default(), "defaults\n".into());
        let once = plain.in_header(&header, LINES).unwrap();
        assert!(Arc::ptr_eq(&once, &plain.in_header(&header, LINES).unwrap()));
    }
}
