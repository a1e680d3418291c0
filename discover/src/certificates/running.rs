//! What HAProxy has of our certificates, what it should have, and the commands that lead from one to the other. Pure.
//!
//! Source: HAProxy's management guide 2.6 and 3.0, `new|set|commit|del|show ssl cert`, `add|del|show ssl crt-list`.

use std::collections::{BTreeMap, BTreeSet};

use super::Certificate;
use crate::haproxy::api::command::{Command, CommandError};

/// What HAProxy has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// Serial numbers of loaded certificates by path; empty: a place without a certificate yet.
    pub loaded: BTreeMap<String, String>,
    /// The paths in the crt-list.
    pub listed: BTreeSet<String>,
}

/// One command, with what its reply must say.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is sent.
    pub command: Command,
    /// The reply of success has one of these.
    pub success: &'static [&'static str],
    /// The certificate's path.
    pub path: String,
}

/// The commands for each certificate that differs, in their order; nothing where nothing does. `path` tells where our copy is.
///
/// # Errors
/// [`CommandError`] for what does not fit a command: a chain with its key above 8 kB.
pub fn plan(
    running: &Running,
    wanted: &[Certificate],
    list: &str,
    path: impl Fn(&Certificate) -> String,
) -> Vec<Result<Vec<Step>, (String, CommandError)>> {
    let mut plan = Vec::new();
    let mut kept = BTreeSet::new();
    for certificate in wanted {
        let path = path(certificate);
        kept.insert(path.clone());
        let steps = bring(running, certificate, list, &path).map_err(|e| (path, e));
        if !matches!(&steps, Ok(steps) if steps.is_empty()) {
            plan.push(steps);
        }
    }
    for path in running.loaded.keys().chain(&running.listed).collect::<BTreeSet<_>>() {
        if !kept.contains(path) {
            plan.push(drop_one(running, list, path).map_err(|e| (path.clone(), e)));
        }
    }
    plan
}

fn bring(running: &Running, certificate: &Certificate, list: &str, path: &str) -> Result<Vec<Step>, CommandError> {
    let mut steps = Vec::new();
    let step = |command, success| Step { command, success, path: path.to_owned() };
    let loaded = running.loaded.get(path);
    if loaded.is_none() {
        steps.push(step(Command::new(["new", "ssl", "cert", path])?, &["New empty certificate store"][..]));
    }
    if loaded.is_none_or(|serial| *serial != certificate.facts.serial) {
        let lines = certificate.pem.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let set = Command::new(["set", "ssl", "cert", path])?.with_payload(lines)?;
        steps.push(step(set, &["Transaction created", "Transaction updated"]));
        steps.push(step(Command::new(["commit", "ssl", "cert", path])?, &["Success!"]));
    }
    if !running.listed.contains(path) {
        steps.push(step(Command::new(["add", "ssl", "crt-list", list, path])?, &["Success!"]));
    }
    Ok(steps)
}

fn drop_one(running: &Running, list: &str, path: &str) -> Result<Vec<Step>, CommandError> {
    let step = |command, success| Step { command, success, path: path.to_owned() };
    let mut steps = Vec::new();
    if running.listed.contains(path) {
        steps.push(step(Command::new(["del", "ssl", "crt-list", list, path])?, &["deleted"][..]));
    }
    if running.loaded.contains_key(path) {
        steps.push(step(Command::new(["del", "ssl", "cert", path])?, &["deleted"]));
    }
    Ok(steps)
}

/// The paths in the answer to `show ssl cert`, those of transactions (`*path`) left out.
pub fn paths(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '*']))
}

/// The paths in the answer to `show ssl crt-list LIST`: each line's first word, and its line number left out.
pub fn listed(text: &str) -> impl Iterator<Item = &str> {
    paths(text).filter_map(|line| line.split_whitespace().next()).map(|word| {
        let number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        word.rsplit_once(':').filter(|(_, digits)| number(digits)).map_or(word, |(path, _)| path)
    })
}

/// The serial number in the answer to `show ssl cert PATH`; empty where there is none.
pub fn serial(text: &str) -> String {
    let serial = text.lines().find_map(|line| line.trim().strip_prefix("Serial:")).unwrap_or_default().trim();
    serial.trim_start_matches('0').to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::x509::Facts;
    use std::time::SystemTime;

    fn certificate(file: &str, serial: &str) -> Certificate {
        let (not_before, not_after) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        let facts = Facts { serial: serial.into(), not_before, not_after, names: vec!["a.example".into()] };
        Certificate {
            source: file.into(),
            file: file.into(),
            facts,
            pem: "-----BEGIN X-----\nAA==\n-----END X-----\n".into(),
        }
    }

    fn commands(running: &Running, wanted: &[Certificate]) -> Vec<String> {
        let plan = plan(running, wanted, "/d/list", |c| format!("/d/{}", c.file));
        plan.into_iter().flat_map(|steps| steps.unwrap()).map(|step| step.command.to_string()).collect()
    }

    fn having(loaded: &[(&str, &str)], listed: &[&str]) -> Running {
        Running {
            loaded: loaded.iter().map(|(path, serial)| ((*path).to_owned(), (*serial).to_owned())).collect(),
            listed: listed.iter().map(|path| (*path).to_owned()).collect(),
        }
    }

    #[test]
    fn a_plan_has_the_commands_for_what_differs_and_no_others() {
        let wanted = [certificate("a", "1F")];
        assert_eq!(
            commands(&Running::default(), &wanted),
            [
                "new ssl cert /d/a",
                "set ssl cert /d/a << (3 lines)",
                "commit ssl cert /d/a",
                "add ssl crt-list /d/list /d/a"
            ]
        );
        assert_eq!(
            commands(&having(&[("/d/a", "1E")], &["/d/a"]), &wanted),
            ["set ssl cert /d/a << (3 lines)", "commit ssl cert /d/a"]
        );
        assert!(commands(&having(&[("/d/a", "1F")], &["/d/a"]), &wanted).is_empty());
        assert_eq!(
            commands(&having(&[("/d/a", "1F"), ("/d/b", "2")], &["/d/a", "/d/b"]), &wanted),
            ["del ssl crt-list /d/list /d/b", "del ssl cert /d/b"]
        );
        let large = Certificate { pem: "A\n".repeat(5000).into(), ..certificate("a", "1") };
        let refused = plan(&Running::default(), &[large], "/d/list", |_| "/d/a".into());
        assert!(matches!(&refused[..], [Err((path, CommandError::TooLong { .. }))] if path == "/d/a"));
    }

    #[test]
    fn haproxys_answers_are_read() {
        let shown = "# transaction\n*/d/t.pem\n# filename\n/d/a.pem\n/d/b.pem\n\n";
        assert_eq!(paths(shown).collect::<Vec<_>>(), ["/d/a.pem", "/d/b.pem"]);
        let shown = "# /d/list\n/d/a.pem:1\n/d/b.pem [alpn h2] a.example\n";
        assert_eq!(listed(shown).collect::<Vec<_>>(), ["/d/a.pem", "/d/b.pem"]);
        assert_eq!(serial("Filename: /d/a.pem\nStatus: Used\nSerial: 0abc\n"), "ABC");
        assert_eq!(serial("Filename: /d/a.pem\nStatus: Empty\n"), "");
    }
}
