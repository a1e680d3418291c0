//! What processes hold, looked at again and again, and whether it grows.

use std::fs;

use crate::agents::Agent;
use crate::figures::megabytes;
use crate::process::resident_memory;
use crate::{Context, Lab, LabError, Result};

/// One thing that one program holds, over time.
#[derive(Debug, Clone)]
pub struct Holding {
    /// The program.
    pub program: &'static str,
    /// What it holds.
    pub what: &'static str,
    /// Every look.
    pub seen: Vec<u64>,
}

/// Everything that is looked at.
#[derive(Debug, Default)]
pub struct Holdings(Vec<Holding>);

/// What is noise: a share of the first third's median in percent, and a number on top.
fn noise(what: &str) -> (u64, u64) {
    match what {
        "memory" => (15, 4_000_000),
        "descriptors" => (25, 30),
        "threads" => (0, 4),
        _ => (25, 25), // tasks: a connection, a check or a call is one
    }
}

impl Holdings {
    /// Looks once.
    ///
    /// # Errors
    /// When a process has ended.
    pub async fn look(&mut self, lab: &Lab, register: &Agent, discover: &Agent) -> Result<()> {
        for (program, agent) in [("register", register), ("discover", discover)] {
            self.look_at(program, &[agent.pid()])?;
            // One that is frozen, or just busy, is asked the next time.
            if let Ok(tasks) = agent.metric(&format!("{program}_tasks")).await {
                self.add(program, "tasks", tasks as u64);
            }
        }
        // All of its workers: one that a reload replaced may have clients to the end.
        // A worker, or a check of a file, that ends under the look is looked at no more: the next look counts.
        let living: Vec<i32> =
            lab.processes("haproxy").into_iter().filter(|pid| resident_memory(*pid).is_ok()).collect();
        let _ = self.look_at("HAProxy", &living);
        Ok(())
    }

    fn look_at(&mut self, program: &'static str, pids: &[i32]) -> Result<()> {
        let entries = |pid: &i32, of: &str| {
            let path = format!("/proc/{pid}/{of}");
            fs::read_dir(&path).map(|all| all.count() as u64).during(format!("reading {path}"))
        };
        let (mut memory, mut descriptors, mut threads) = (0, 0, 0);
        for pid in pids {
            memory += resident_memory(*pid)?;
            descriptors += entries(pid, "fd")?;
            threads += entries(pid, "task")?;
        }
        self.add(program, "memory", memory);
        self.add(program, "descriptors", descriptors);
        self.add(program, "threads", threads);
        Ok(())
    }

    fn add(&mut self, program: &'static str, what: &'static str, value: u64) {
        match self.0.iter_mut().find(|h| h.program == program && h.what == what) {
            Some(holding) => holding.seen.push(value),
            None => self.0.push(Holding { program, what, seen: vec![value] }),
        }
    }

    /// # Errors
    /// When something grew beyond noise: the last third's median over the first's.
    pub fn must_not_grow(&self) -> Result<()> {
        let grown: Vec<String> = self.0.iter().filter(|h| h.grew()).map(Holding::row).collect();
        if grown.is_empty() { Ok(()) } else { Err(LabError::new(format!("what grew:\n{}", grown.join("\n")))) }
    }
}

impl Holding {
    fn thirds(&self) -> (u64, u64) {
        let third = self.seen.len().div_ceil(3);
        let median = |part: &[u64]| {
            let mut sorted = part.to_vec();
            sorted.sort_unstable();
            sorted.get(sorted.len() / 2).copied().unwrap_or_default()
        };
        (median(&self.seen[..third]), median(&self.seen[self.seen.len() - third..]))
    }

    fn grew(&self) -> bool {
        let ((first, last), (percent, more)) = (self.thirds(), noise(self.what));
        last > first + first * percent / 100 + more
    }

    fn row(&self) -> String {
        let (first, last) = self.thirds();
        let most = self.seen.iter().copied().max().unwrap_or_default();
        let shown = |n: u64| if self.what == "memory" { megabytes(n) } else { n.to_string() };
        format!("| {} | {} | {} | {} | {} |", self.program, self.what, shown(first), shown(last), shown(most))
    }
}

/// All of it as a markdown table.
pub fn table(holdings: &Holdings) -> String {
    let rows: Vec<String> = holdings.0.iter().map(Holding::row).collect();
    let head = "| program | what | first third's median | last third's | most |\n|---|---|---|---|---|";
    format!("{head}\n{}\n", rows.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_told_from_noise() {
        let grew = |seen: Vec<u64>| Holding { program: "register", what: "tasks", seen }.grew();
        assert!(!grew(vec![30, 35, 31, 90, 33, 34, 32, 36, 31]), "one moment is no growth");
        assert!(grew((0..90).map(|n| 30 + n).collect()));
        let mut holdings = Holdings::default();
        (0..9).for_each(|n| holdings.add("discover", "memory", 10_000_000 * (n + 1)));
        assert!(
            holdings.must_not_grow().unwrap_err().to_string().contains("| discover | memory | 20.0 MB | 80.0 MB |")
        );
    }
}
