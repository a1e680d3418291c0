//! `show proc` of the master CLI.

use crate::haproxy::api::version::Version;

/// The processes of one HAProxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Procs {
    pub master: Proc,
    /// Reloads that failed since the last one that worked.
    pub failed_reloads: u32,
    /// Workers of the current config.
    pub workers: Vec<Proc>,
    /// Workers that finish their sessions; but see [`Procs::current_worker`].
    pub old_workers: Vec<Proc>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proc {
    /// Its id, in HAProxy's own namespace.
    pub pid: i32,
    /// Reloads it has lived through.
    pub reloads: u32,
    /// Its version; `None` where HAProxy shows none.
    pub version: Option<Version>,
}

/// The text is no `show proc`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no `show proc` of a master: {0:?}")]
pub struct ProcsError(String);

impl Procs {
    /// Reads `show proc`.
    ///
    /// # Errors
    /// [`ProcsError`] when it has no master or a line makes no sense.
    pub fn parse(text: &str) -> Result<Self, ProcsError> {
        let bad = |line: &str| ProcsError(line.chars().take(200).collect());
        let (mut master, mut workers, mut old_workers) = (None, Vec::new(), Vec::new());
        let mut old = false;
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
            if let Some(title) = line.strip_prefix("# ") {
                old = title.starts_with("old ");
                continue;
            }
            if line.starts_with('#') {
                continue; // the header
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let (Some(pid), Some(kind)) = (words.first().and_then(|w| w.parse().ok()), words.get(1)) else {
                return Err(bad(line));
            };
            let reloads = words.get(2).and_then(|w| w.parse().ok()).unwrap_or(0);
            // The version is the last column, behind the uptime; 1.9 had none.
            let version = words.last().and_then(|w| w.parse().ok());
            let found = Proc { pid, reloads, version };
            match *kind {
                "master" => {
                    let failed = line.split_once("[failed: ").and_then(|(_, rest)| rest.split_once(']'));
                    let failed = failed.map_or(Ok(0), |(n, _)| n.trim().parse().map_err(|_| bad(line)))?;
                    master = Some((found, failed));
                }
                "worker" if old => old_workers.push(found),
                "worker" => workers.push(found),
                _ => {} // programs, and whatever comes to be
            }
        }
        let (master, failed_reloads) = master.ok_or_else(|| bad(text))?;
        Ok(Self { master, failed_reloads, workers, old_workers })
    }

    /// The worker that serves.
    ///
    /// After a failed reload 3.2 and 3.4 list the live worker under "old workers" and none under "workers", although it serves and `@1` reaches
    /// it; so with no worker of the current config it is the old one that has lived through the fewest reloads.
    pub fn current_worker(&self) -> Option<i32> {
        let youngest = |procs: &[Proc]| procs.iter().min_by_key(|p| p.reloads).map(|p| p.pid);
        youngest(&self.workers).or_else(|| youngest(&self.old_workers))
    }

    /// How many workers finish their sessions.
    pub fn retiring(&self) -> usize {
        let current = self.current_worker();
        self.old_workers.iter().filter(|p| Some(p.pid) != current).count()
    }

    /// Whether this process is one of HAProxy's workers, old or new.
    pub fn has_worker(&self, pid: i32) -> bool {
        self.workers.iter().chain(&self.old_workers).any(|p| p.pid == pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn procs(body: &str) -> Procs {
        Procs::parse(&format!(
            "#<PID>          <type>          <reloads>       <uptime>        <version>      \n{body}\n# programs\n\n"
        ))
        .unwrap()
    }

    #[test]
    fn after_a_good_reload_of_2_6() {
        let p = procs(
            "12042           master          3 [failed: 0]   0d00h02m44s     2.6.12-1+deb12u4\n# workers\n16971           worker          0               0d00h00m00s     2.6.12-1+deb12u4\n# old workers\n12091           worker          2               0d00h02m43s     2.6.12-1+deb12u4",
        );
        assert_eq!((p.master.pid, p.master.reloads, p.failed_reloads), (12042, 3, 0));
        assert_eq!((p.current_worker(), p.old_workers.len()), (Some(16971), 1));
        assert_eq!(p.master.version.as_ref().map(Version::branch), Some((2, 6)));
        assert!(p.has_worker(12091) && !p.has_worker(12042));
    }

    #[test]
    fn after_a_failed_reload_of_3_0() {
        let p = procs(
            "26892           master          3 [failed: 1]   0d00h00m04s     3.0.11-1+deb13u5\n# workers\n27009           worker          1               0d00h00m02s     3.0.11-1+deb13u5",
        );
        assert_eq!((p.failed_reloads, p.current_worker()), (1, Some(27009)));
    }

    /// Measured: after a failed reload 3.2 and 3.4 show the live worker as an old one.
    #[test]
    fn a_live_worker_listed_as_old_after_a_failed_reload_is_still_the_current_one() {
        let p = procs(
            "100             master          4 [failed: 1]   0d00h00m04s     3.2.0\n# workers\n# old workers\n104             worker          1               0d00h00m02s     3.2.0\n101             worker          4               0d00h00m09s     3.2.0",
        );
        assert!(p.workers.is_empty());
        assert_eq!((p.current_worker(), p.retiring()), (Some(104), 1));
    }

    #[test]
    fn what_is_no_show_proc_is_an_error() {
        for text in ["", "Unknown command: 'show proc'", "# workers\n12 worker 0 0d 2.6.12\n", "nonsense master"] {
            assert!(Procs::parse(text).is_err(), "{text:?}");
        }
    }
}
