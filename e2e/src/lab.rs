//! One run: its directory, its mark, and the sweeping.
//!
//! Every process that a run starts inherits its mark by the environment, HAProxy's processes too, which outlive the
//! agent that started them; every container bears it as a label. The mark names the process that owns the run, so that
//! a later run can tell what a dead one left behind, and touches nothing else. Its directory and the control groups of its
//! containers bear it in their names.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{fs, process};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::docker::Docker;
use crate::{Context, Result};

/// The variable and the label that carry the mark.
pub const MARK: &str = "e2e.run";
/// The mark in the environment of processes.
pub(crate) const MARK_ENV: &str = "E2E_RUN";
/// What the names of directories and control groups begin with.
const PREFIX: &str = "e2e-";
/// How long killed processes may take to be gone.
const ENDING: Duration = Duration::from_secs(5);
/// Lines of each log that a failure shows.
const TAIL: usize = 40;

static RUNS: AtomicU32 = AtomicU32::new(0);

/// One run. Dropping it ends every process and removes every file that bears its mark.
#[derive(Debug)]
pub struct Lab {
    mark: String,
    dir: TempDir,
}

impl Lab {
    /// A lab of its own; ends what processes dead runs left behind.
    ///
    /// # Errors
    /// When there can be no temporary directory.
    pub fn new() -> Result<Self> {
        let pid = process::id();
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{pid}-{}-{run}", started(pid).during("reading /proc/self/stat")?);
        end_all(|mark| !is_alive(mark));
        for (path, mark) in directories() {
            if !is_alive(&mark) {
                // Another run may be sweeping, too.
                let _ = fs::remove_dir_all(path);
                remove_cgroups(&mark);
            }
        }
        let prefix = format!("{PREFIX}{mark}-");
        let dir = TempDir::with_prefix(prefix).during("making a temporary directory")?;
        Ok(Self { mark, dir })
    }

    /// The mark's variable for the environment of a child, and the one by which discover passes it on to HAProxy.
    pub fn environment(&self) -> [(&'static str, &str); 2] {
        [(MARK_ENV, &self.mark), ("DISCOVER_PASS_ENV", MARK_ENV)]
    }

    /// What this run's containers are labelled with, under [`MARK`].
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// The run's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The control group above those of the containers that daemons of this run start.
    pub fn cgroup(&self) -> String {
        cgroup(&self.mark)
    }

    /// A new directory within.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).during(format!("making {}", path.display()))?;
        Ok(path)
    }

    /// Docker, for containers of this run.
    ///
    /// # Errors
    /// When no daemon answers, or the images are missing.
    pub async fn docker(&self) -> Result<Docker> {
        Docker::connect(&self.mark).await
    }

    /// The process ids of this run's processes whose name begins so (`haproxy` is also `haproxy-3.0`), ascending: two equal
    /// answers mean that none was replaced.
    pub fn processes(&self, name: &str) -> Vec<i32> {
        let named =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with(name));
        let mut found: Vec<_> =
            marked().into_iter().filter(|(_, mark)| *mark == self.mark).map(|(pid, _)| pid).filter(named).collect();
        found.sort_unstable();
        found
    }

    /// The end of every log of this run, for a person who wants to know why something failed.
    pub fn logs(&self) -> String {
        let mut out = String::new();
        let mut dirs = vec![self.dir.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(path);
                } else if path.extension().is_some_and(|e| e == "log" || e == "cfg") {
                    let text = fs::read(&path).unwrap_or_default();
                    let text = String::from_utf8_lossy(&text);
                    let skip = text.lines().count().saturating_sub(TAIL);
                    out += &format!("--- {}\n", path.strip_prefix(self.dir.path()).unwrap_or(&path).display());
                    text.lines().skip(skip).for_each(|line| out += &format!("{line}\n"));
                }
            }
        }
        out
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        end_all(|mark| mark == self.mark);
        remove_cgroups(&self.mark);
    }
}

/// Runs one test in a lab of its own; when it fails, the ends of all logs are shown.
///
/// # Errors
/// The test's.
pub fn in_lab(test: impl AsyncFnOnce(&Lab) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let lab = Lab::new()?;
    let outcome = runtime.during("starting tokio")?.block_on(test(&lab));
    if outcome.is_err() {
        eprintln!("{}", lab.logs());
    }
    outcome
}

/// The directories of all runs, with their marks.
fn directories() -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let of_run = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let (mark, _) = name.to_str()?.strip_prefix(PREFIX)?.rsplit_once('-')?;
        (mark.split('-').count() == 3).then(|| (entry.path(), mark.to_owned()))
    };
    entries.filter_map(of_run).collect()
}

fn cgroup(mark: &str) -> String {
    format!("/{PREFIX}{mark}")
}

/// Removes the control groups of a run whose processes have ended: the directories alone, as a control group's files go
/// with it. Whoever has none, or may not, has nothing to remove.
fn remove_cgroups(mark: &str) {
    let name = cgroup(mark);
    let name = name.trim_start_matches('/');
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for top in controllers.chain([root.to_owned()]).map(|path| path.join(name)).filter(|path| path.is_dir()) {
        let until = Instant::now() + ENDING;
        // A process that was killed leaves its group a moment later.
        while remove_tree(&top).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove_tree(&entry.path())?;
    }
    fs::remove_dir(dir)
}

/// Every process that bears a mark, with the mark. Those of other users cannot be read and are none of ours.
fn marked() -> Vec<(i32, String)> {
    let mark_of = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let prefix = format!("{MARK_ENV}=");
        let mark = environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(prefix.as_bytes()))?;
        Some((pid, String::from_utf8_lossy(mark).into_owned()))
    };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(mark_of).collect()
}

/// Whether the process that owns a run still lives: the same id may since have gone to another process.
pub(crate) fn is_alive(mark: &str) -> bool {
    let mut parts = mark.split('-').map(str::parse::<u64>);
    match (parts.next(), parts.next()) {
        (Some(Ok(pid)), Some(Ok(start))) => u32::try_from(pid).ok().and_then(started) == Some(start),
        _ => false,
    }
}

/// When a process was started, in clock ticks since boot (proc(5), the 22nd field of stat; the second may hold blanks).
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Kills all processes whose mark is such a one, until none is left: one that is just being started escapes the first look.
fn end_all(which: impl Fn(&str) -> bool) {
    let until = Instant::now() + ENDING;
    loop {
        let found: Vec<_> = marked().into_iter().filter(|(_, mark)| which(mark)).collect();
        if found.is_empty() || Instant::now() > until {
            return;
        }
        for (pid, _) in found {
            // It may have ended by itself in the meantime.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;

    #[tokio::test]
    async fn a_run_ends_what_bears_its_mark_and_nothing_else() {
        let (mine, other) = (Lab::new().unwrap(), Lab::new().unwrap());
        let [mut a, mut b] =
            [&mine, &other].map(|lab| Process::spawn(lab, "sleep", Path::new("sleep"), ["60"], &[]).unwrap());
        assert_eq!(mine.processes("sleep"), [a.pid()]);
        drop(mine);
        a.ended(std::time::Duration::from_secs(5)).await.unwrap();
        assert!(b.is_running());
    }

    #[test]
    fn a_mark_outlives_nobody() {
        let lab = Lab::new().unwrap();
        assert!(is_alive(lab.mark()));
        assert!(!is_alive(&format!("{}-1-0", process::id())), "same id, another start");
        assert!(!is_alive("rubbish"));
    }
}
