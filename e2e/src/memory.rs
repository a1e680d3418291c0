//! A memory limit that the kernel enforces: a control group of the run's, of either version.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Context, Lab, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// A control group for memory. It goes with the run.
///
/// Source: the kernel's Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
#[derive(Debug)]
pub struct MemoryGroup {
    dir: PathBuf,
    files: &'static Files,
}

/// What the files of a version are called.
#[derive(Debug)]
struct Files {
    limit: &'static str,
    peak: &'static str,
    /// Has a line `oom_kill NUMBER`.
    events: &'static str,
}

const V1: Files =
    Files { limit: "memory.limit_in_bytes", peak: "memory.max_usage_in_bytes", events: "memory.oom_control" };
const V2: Files = Files { limit: "memory.max", peak: "memory.peak", events: "memory.events" };

impl MemoryGroup {
    /// A group without a limit and without a process.
    ///
    /// # Errors
    /// When this machine has no control groups for memory, or they may not be written to.
    pub fn new(lab: &Lab, name: &str) -> Result<Self> {
        let run = lab.cgroup();
        let run = run.trim_start_matches('/');
        let v1 = Path::new(ROOT).join("memory");
        let (top, files) = if v1.is_dir() { (v1, &V1) } else { (PathBuf::from(ROOT), &V2) };
        let dir = top.join(run).join(name);
        fs::create_dir_all(&dir).during(format!("making the control group {}", dir.display()))?;
        if files.limit == V2.limit {
            for above in [top.clone(), top.join(run)] {
                let subtree = above.join("cgroup.subtree_control");
                fs::write(&subtree, "+memory").during(format!("writing to {}", subtree.display()))?;
            }
        }
        let group = Self { dir, files };
        group.kills()?;
        group.peak()?;
        Ok(group)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// From now on its processes may have so many bytes together; who asks for more is killed.
    ///
    /// # Errors
    /// When the kernel does not take it: they have more already.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        let path = self.dir.join(self.files.limit);
        fs::write(&path, bytes.to_string()).during(format!("writing {bytes} to {}", path.display()))
    }

    /// The most bytes that they ever had together.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn peak(&self) -> Result<u64> {
        self.read(self.files.peak)?.trim().parse().during("reading a control group's peak")
    }

    /// How many of its processes the kernel has killed.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn kills(&self) -> Result<u64> {
        let text = self.read(self.files.events)?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).during("looking for oom_kill in a control group")
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.dir.join(name);
        fs::read_to_string(&path).during(format!("reading {}", path.display()))
    }
}
