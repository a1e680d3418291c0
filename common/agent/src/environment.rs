//! The environment of the programs that an agent starts: made for them, not the agent's own.
//!
//! An agent's environment holds secrets (`ETCD_PASSWORD`), and what a program knows, its config may send away: HAProxy's `env()` and `"$NAME"` read
//! it. So [`made`] begins with nothing and takes over a short list, and what the operator names (`--pass-env`). A program that runs in the
//! user's stead ([`inherited`]: `register exec`, `discover exec`, a check by command) has the user's environment, less the agent's secrets.
//!
//! Every program is started by one of the two; a test holds the source to it.

use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;

use tokio::process::Command;

/// What every program may know: where programs and files are, who it is, its language and time zone, and what the dynamic loader does.
/// The loader's variables are passed on: who sets them for an agent already decides what the agent itself executes.
const KEPT: &[&str] =
    &["HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LD_PRELOAD", "LOGNAME", "PATH", "TMPDIR", "TZ", "TZDIR", "USER"];

/// Beginnings of such names: the language once more, and libfaketime's settings, by which tests move the clock.
const KEPT_BEGINNINGS: &[&str] = &["LC_", "FAKETIME"];

/// The secrets that agents take from their environment.
const SECRETS: &[&str] = &["ADMIN_TOKEN", "DISCOVER_EDGE_COOKIE_KEY", "ETCD_PASSWORD"];

static NAMED: OnceLock<Vec<String>> = OnceLock::new();

/// Names what the operator passes on to programs, too. Once, at the start: later calls change nothing.
pub fn pass_on(names: &[String]) {
    let _ = NAMED.set(names.to_vec()); // the first one counts
}

/// A program with an environment made for it.
pub fn made(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(chosen(std::env::vars_os(), NAMED.get().map_or(&[], Vec::as_slice)));
    command
}

/// A program of the user's own: it has our environment, but for our secrets.
pub fn inherited(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    SECRETS.iter().for_each(|name| _ = command.env_remove(name));
    command
}

/// Ourselves once more: everything is passed on.
pub fn ours(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some(named) = NAMED.get() {
        command.env("DISCOVER_PASS_ENV", named.join(","));
    }
    command
}

fn chosen(
    all: impl Iterator<Item = (OsString, OsString)>,
    named: &[String],
) -> impl Iterator<Item = (OsString, OsString)> {
    all.filter(|(name, _)| {
        let Some(name) = name.to_str() else { return false };
        KEPT.contains(&name)
            || KEPT_BEGINNINGS.iter().any(|start| name.starts_with(start))
            || named.iter().any(|n| n == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_knows_a_short_list_and_what_the_operator_names() {
        let all = [
            "PATH",
            "ETCD_PASSWORD",
            "LC_ALL",
            "AWS_SECRET_ACCESS_KEY",
            "SITE",
            "LD_PRELOAD",
            "NOTIFY_SOCKET",
            "HOMEX",
        ];
        let all = all.into_iter().map(|name| (OsString::from(name), OsString::from("x")));
        let names: Vec<OsString> = chosen(all, &["SITE".to_owned()]).map(|(name, _)| name).collect();
        assert_eq!(names, ["PATH", "LC_ALL", "SITE", "LD_PRELOAD"]);
    }

    #[test]
    fn a_users_own_program_has_no_secret_of_ours() {
        let command = inherited("x");
        let removed: Vec<&OsStr> =
            command.as_std().get_envs().filter(|(_, v)| v.is_none()).map(|(name, _)| name).collect();
        assert_eq!(removed, SECRETS);
    }
}
