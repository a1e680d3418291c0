//! The version that both programs print: the package's, the commit, and the day of SOURCE_DATE_EPOCH or else of the commit, so that one commit
//! gives the same bytes everywhere.
//!
//! BUILD_COMMIT, the checkout or an archive that git made of it (`deploy/commit`) names the commit. A debug build asks none but the first, and so is
//! not compiled anew after each commit.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Where `git archive` leaves the commit and its time, as `.gitattributes` asks.
const ARCHIVED: &str = "../deploy/commit";

fn main() {
    for variable in ["SOURCE_DATE_EPOCH", "BUILD_COMMIT"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rerun-if-changed=../build.rs");
    let given = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let is_debug = env::var("PROFILE").is_ok_and(|profile| profile == "debug");
    let found = if is_debug { None } else { of_checkout().or_else(of_archive) };
    let (commit, time) = found.unzip();
    let commit = given("BUILD_COMMIT").or(commit).map(|commit| commit.chars().take(12).collect::<String>());
    let day = given("SOURCE_DATE_EPOCH").or(time).and_then(|seconds| seconds.trim().parse().ok()).map(day);
    let built = match (commit, day) {
        (Some(commit), Some(day)) => format!("{commit} {day}"),
        (Some(commit), None) => commit,
        (None, _) if is_debug => "debug build".to_owned(),
        (None, Some(day)) => format!("commit unknown, {day}"),
        (None, None) => "commit unknown".to_owned(),
    };
    println!("cargo:rustc-env=BUILD_VERSION={} ({built})", env::var("CARGO_PKG_VERSION").unwrap_or_default());
}

/// The commit that is checked out, and its time.
fn of_checkout() -> Option<(String, String)> {
    git(&["ls-files", "--error-unmatch", "../build.rs"])?; // else the checkout around this folder is of something else
    // Each commit and each switch of branches changes one of these. A missing one would have cargo run this at each build.
    let branch = git(&["rev-parse", "--symbolic-full-name", "HEAD"]).unwrap_or_default();
    for name in ["HEAD", "logs/HEAD", &branch, "packed-refs"] {
        let path = git(&["rev-parse", "--path-format=absolute", "--git-path", name]);
        if let Some(path) = path.filter(|path| Path::new(path).is_file()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    Some((git(&["rev-parse", "HEAD"])?, git(&["log", "-1", "--format=%ct"])?))
}

fn of_archive() -> Option<(String, String)> {
    println!("cargo:rerun-if-changed={ARCHIVED}");
    let text = fs::read_to_string(ARCHIVED).ok().filter(|text| !text.starts_with('$'))?;
    text.trim().split_once(' ').map(|(commit, time)| (commit.to_owned(), time.to_owned()))
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The day of that second since 1970, in UTC.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn day(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400) + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
