//! The lab's hosts themselves: the demonstration, and that nothing is left behind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::hosts::missing;
use e2e::process::Process;
use e2e::{Lab, Result, in_lab, wait};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_mins(3);

/// `hosts demo` as a person starts it, but as no part of this run: it has a run of its own.
fn demonstration(lab: &Lab, log: &str) -> Result<Process> {
    Process::spawn(lab, log, Path::new(env!("CARGO_BIN_EXE_hosts")), ["demo"], &[])
}

/// What bears the mark of a run of that process: its directory and its control groups.
fn traces(of: i32) -> Vec<PathBuf> {
    let within = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let controllers = within("/sys/fs/cgroup".into()).chain([PathBuf::from("/sys/fs/cgroup"), std::env::temp_dir()]);
    let bears =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("e2e-{of}-")));
    controllers.flat_map(within).filter(bears).collect()
}

fn nothing() -> Vec<PathBuf> {
    Vec::new()
}

fn skipped() -> bool {
    missing().inspect(|why| testing::skipped(why)).is_some()
}

#[test]
fn the_demonstration_with_seven_hosts_passes_and_leaves_nothing() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    in_lab(async |lab| {
        let mut demo = demonstration(lab, "demo")?;
        let ended = demo.ended(PATIENCE).await?;
        let said = demo.log();
        assert!(ended.success(), "{said}");
        for act in ["requests failed", "its lease ran out", "the cut cost", "answers again after"] {
            assert!(said.contains(act), "{act}:\n{said}");
        }
        said.lines().filter(|line| line.contains(" ok ")).for_each(|line| println!("FIGURE{line}"));
        assert_eq!(traces(demo.pid()), nothing());
        Ok(())
    })
}

#[test]
fn hosts_are_gone_after_an_interrupt_and_after_a_kill() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    in_lab(async |lab| {
        let mut interrupted = demonstration(lab, "demo")?;
        let up = async |demo: &Process| {
            wait::until_true("hosts", PATIENCE, async || demo.log().contains("host b3 is")).await
        };
        up(&interrupted).await?;
        interrupted.signal(Signal::SIGINT)?;
        assert_eq!(interrupted.ended(PATIENCE).await?.code(), Some(130), "{}", interrupted.log());
        assert_eq!(traces(interrupted.pid()), nothing());

        let mut killed = demonstration(lab, "killed")?;
        up(&killed).await?;
        killed.kill();
        assert_ne!(traces(killed.pid()), nothing(), "nobody can have removed it");
        let sweeper = Lab::new()?;
        assert_eq!(traces(killed.pid()), nothing(), "the next run sweeps");
        drop(sweeper);
        Ok(())
    })
}
