//! The commit that `--version` names: the build script itself, in a checkout, in an archive of one, and where there is neither.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const GIT: [(&str, &str); 6] = [
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
    ("GIT_AUTHOR_NAME", "t"),
    ("GIT_AUTHOR_EMAIL", "t@example.org"),
    ("GIT_COMMITTER_NAME", "t"),
    ("GIT_COMMITTER_EMAIL", "t@example.org"),
];

/// A copy of what the build script reads, and the script compiled.
struct Copy {
    dir: TempDir,
    script: PathBuf,
}

impl Copy {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (root, script) = (Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), dir.path().join("script"));
        for folder in ["tree/register", "tree/deploy", "archive", "elsewhere"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for file in ["build.rs", "deploy/commit", ".gitattributes"] {
            fs::copy(root.join(file), dir.path().join("tree").join(file)).unwrap();
        }
        fs::write(dir.path().join("tree/register/Cargo.toml"), "").unwrap();
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        let compiled =
            rustc.args(["--edition", "2024", "-o"]).arg(&script).arg(root.join("build.rs")).status().unwrap();
        assert!(compiled.success());
        Self { dir, script }
    }

    fn git(&self, date: &str, args: &[&str]) -> String {
        let mut git = Command::new("git");
        git.current_dir(self.dir.path().join("tree")).args(args).envs(GIT).env("GIT_COMMITTER_DATE", date);
        let output = git.output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What the script says in `tree/register`: the version, and the files that cargo is to look at.
    fn run(&self, tree: &str, profile: &str, variables: &[(&str, &str)]) -> (String, Vec<String>) {
        let mut script = Command::new(&self.script);
        script
            .current_dir(self.dir.path().join(tree).join("register"))
            .env_remove("SOURCE_DATE_EPOCH")
            .env_remove("BUILD_COMMIT");
        script.envs(GIT).env("GIT_CEILING_DIRECTORIES", self.dir.path());
        script.env("PROFILE", profile).env("CARGO_PKG_VERSION", "1.2.3").envs(variables.iter().copied());
        let output = script.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        let all =
            |word: &str| said.lines().filter_map(|line| line.strip_prefix(word)).map(str::to_owned).collect::<Vec<_>>();
        (all("cargo:rustc-env=BUILD_VERSION=").concat(), all("cargo:rerun-if-changed="))
    }

    fn version(&self, tree: &str, variables: &[(&str, &str)]) -> String {
        self.run(tree, "release", variables).0
    }
}

#[test]
fn a_version_names_the_commit_wherever_it_is_built_and_is_unknown_where_nothing_tells() {
    let copy = Copy::new();
    assert_eq!(copy.version("tree", &[]), "1.2.3 (commit unknown)");
    assert_eq!(copy.version("tree", &[("SOURCE_DATE_EPOCH", "86399")]), "1.2.3 (commit unknown, 1970-01-01)");
    assert_eq!(
        copy.version("tree", &[("BUILD_COMMIT", "0123456789abcdef"), ("SOURCE_DATE_EPOCH", "86400")]),
        "1.2.3 (0123456789ab 1970-01-02)"
    );
    assert_eq!(copy.version("tree", &[("PATH", "/nonexistent")]), "1.2.3 (commit unknown)", "no git");

    copy.git("", &["init", "-q", "-b", "main"]);
    assert_eq!(copy.version("tree", &[]), "1.2.3 (commit unknown)", "a checkout of something else");
    copy.git("", &["add", "."]);
    copy.git("2024-02-29T23:59:59Z", &["commit", "-q", "-m", "one"]);
    let commit = copy.git("", &["rev-parse", "--short=12", "HEAD"]);
    let built = format!("1.2.3 ({commit} 2024-02-29)");
    assert_eq!(copy.version("tree", &[]), built);
    assert_eq!(copy.version("tree", &[("SOURCE_DATE_EPOCH", "soon")]), format!("1.2.3 ({commit})"));
    assert_eq!(copy.version("tree", &[("BUILD_COMMIT", "")]), built, "an empty variable is none");

    let archive = copy.dir.path().join("archive.tar");
    copy.git("", &["archive", "-o", archive.to_str().unwrap(), "HEAD"]);
    let unpacked = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(copy.dir.path().join("archive")).status();
    assert!(unpacked.unwrap().success());
    assert_eq!(copy.version("archive", &[]), built);
    assert_eq!(copy.version("archive", &[("PATH", "/nonexistent")]), built);

    copy.git("2099-12-31T00:00:00Z", &["commit", "-q", "--allow-empty", "-m", "two"]);
    assert!(copy.version("tree", &[]).ends_with(" 2099-12-31)"));
}

/// A file that is not there would have cargo compile all at each build; one that is not looked at would keep an old commit.
#[test]
fn cargo_looks_at_what_a_commit_changes_and_a_debug_build_at_nothing_of_git() {
    let copy = Copy::new();
    copy.git("", &["init", "-q", "-b", "main"]);
    copy.git("", &["add", "."]);
    copy.git("2024-01-01T00:00:00Z", &["commit", "-q", "-m", "one"]);
    let (_, looked_at) = copy.run("tree", "release", &[]);
    let stamps = || -> Vec<_> {
        let bytes = |file: &String| {
            fs::read(copy.dir.path().join("tree/register").join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
        };
        looked_at.iter().map(bytes).collect()
    };
    let before = stamps();
    copy.git("2024-01-02T00:00:00Z", &["commit", "-q", "--allow-empty", "-m", "two"]);
    assert_ne!(stamps(), before);
    let (version, looked_at) = copy.run("tree", "debug", &[]);
    assert_eq!((&*version, looked_at), ("1.2.3 (debug build)", vec!["../build.rs".to_owned()]));
}
