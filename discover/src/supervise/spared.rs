//! A config with servers that HAProxy refuses: each is left out alone, and the rest is loaded. Pure.
//!
//! Who writes the file may not know this HAProxy's version (files mode, two containers), and a registration may have brought
//! words that it does not know. Whatever else is refused is a fault of the whole file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::generators::haproxy::refused::complaints;

/// The file without the servers that HAProxy's words about `file` name, and each of them with its section and the words.
/// They become comments, so that every line keeps its number. `None` when the words name anything else, or a section would
/// lose its last server: then it is not one registration that is wrong.
pub fn without_refused(text: &str, file: &Path, said: &str) -> Option<(String, BTreeMap<String, String>)> {
    let complaints: BTreeMap<usize, String> = complaints(file, said).into_iter().collect();
    let (mut section, mut serving) = ("", BTreeSet::new());
    let (mut out, mut hit) = (BTreeMap::new(), BTreeSet::new());
    let mut lines = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if !line.starts_with(char::is_whitespace) && !first.is_empty() && !first.starts_with('#') {
            section = words.next().unwrap_or(first);
        }
        match (complaints.get(&(n + 1)), first) {
            (None, "server") => drop(serving.insert(section)),
            (None, _) => {}
            (Some(why), "server") => {
                hit.insert(section);
                let name = line.split_whitespace().nth(1).unwrap_or_default();
                out.insert(format!("{section}/{name}"), why.clone());
                lines.push(format!("# left out: {}", line.trim()));
                continue;
            }
            (Some(_), _) => return None,
        }
        lines.push(line.to_owned());
    }
    (!out.is_empty() && hit.is_subset(&serving)).then(|| (lines.join("\n") + "\n", out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/d/copy.cfg.candidate";
    const TEXT: &str = "global\n\tmaxconn 9\nbackend web\n\tserver a h:1 check\n\tserver b h:2 what 7\nbackend api\n\tserver c h:3 odd\n";

    fn said(lines: &[usize]) -> String {
        let one = |n: &usize| format!("[ALERT]    (9) : config : parsing [{FILE}:{n}] : unknown keyword.\n");
        lines.iter().map(one).collect()
    }

    #[test]
    fn a_refused_server_is_left_out_alone_and_lines_keep_their_numbers() {
        let (text, out) = without_refused(TEXT, Path::new(FILE), &said(&[5])).unwrap();
        assert_eq!(text, TEXT.replace("\tserver b h:2 what 7", "# left out: server b h:2 what 7"));
        assert_eq!(out, BTreeMap::from([("web/b".to_owned(), "unknown keyword.".to_owned())]));
        let (again, out) =
            without_refused(&text, Path::new(FILE), &said(&[])).map_or((String::new(), 0), |(t, o)| (t, o.len()));
        assert_eq!((again.as_str(), out), ("", 0), "nothing is named: nothing to leave out");
    }

    #[test]
    fn what_is_no_single_servers_fault_is_the_files() {
        for lines in [&[2][..], &[5, 2], &[7], &[4, 5], &[99]] {
            assert_eq!(without_refused(TEXT, Path::new(FILE), &said(lines)), None, "{lines:?}");
        }
    }
}
