//! Who is routed, host by host.

use std::time::{Duration, Instant};

use e2e::hosts::Fleet;
use e2e::terminal::{Board, Terminal};
use e2e::traffic::Report;
use e2e::{LabError, Result};
use tokio::time::sleep;

/// Between two looks.
const BEAT: Duration = Duration::from_millis(200);

/// One container.
#[derive(Debug, Clone)]
pub struct Row {
    host: String,
    /// What it answers.
    pub name: String,
    address: String,
    /// HAProxy's word for its server; none where it has no server.
    state: Option<String>,
    answers: u64,
}

impl Row {
    /// Whether requests go there.
    pub fn is_routed(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.starts_with("UP") || state == "no check")
    }

    /// Whether it is out of the pool: its server may wait for the end of its last connection.
    pub fn is_gone(&self) -> bool {
        self.state.is_none() || self.is_leaving()
    }

    fn is_leaving(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.starts_with("MAINT"))
    }

    fn line(&self, terminal: Terminal) -> String {
        // HAProxy counts its checks in these words, too ("UP 1/2").
        let state = match self.state.as_deref() {
            None => "not routed",
            Some(_) if self.is_routed() => "up",
            Some(_) if self.is_leaving() => "leaving",
            Some(_) => "found dead",
        };
        let state = format!("{state:<10}");
        let state = if self.is_routed() { terminal.good(state) } else { terminal.bad(state) };
        format!("     {:<4} {:<20} {:<13} {state} {:>6} answers", self.host, self.address, self.name, self.answers)
    }
}

/// All containers of the fleet, with what `report` says of their answers.
pub async fn rows(fleet: &mut Fleet, report: &Report) -> Result<Vec<Row>> {
    let servers = fleet.servers().await?;
    let mut rows = Vec::new();
    for backend in &fleet.backends {
        rows.extend(backend.containers.iter().map(|placed| Row {
            host: backend.host.name().to_owned(),
            name: placed.name.clone(),
            address: placed.address.to_string(),
            state: servers.get(&placed.address).cloned(),
            answers: report.answered_by(&placed.name),
        }));
    }
    Ok(rows)
}

/// Shows the table until `done`, at most for `within`; tells how long that took.
pub async fn until(
    what: &str,
    within: Duration,
    terminal: Terminal,
    fleet: &mut Fleet,
    report: impl Fn() -> Report,
    done: impl Fn(&[Row], &Report) -> bool,
) -> Result<Duration> {
    let (started, mut board) = (Instant::now(), Board::new(terminal));
    loop {
        let report = report();
        let rows = rows(fleet, &report).await?;
        let mut lines: Vec<_> = rows.iter().map(|row| row.line(terminal)).collect();
        let seconds = started.elapsed().as_secs_f64();
        lines.push(terminal.faint(format_args!("     {what} {seconds:.1} s; {}", report.summary())));
        board.show(&lines, constant);
        if done(&rows, &report) {
            return Ok(started.elapsed());
        }
        if started.elapsed() > within {
            return Err(LabError::new(format!("waited {within:?} in vain for: {what}")));
        }
        sleep(BEAT).await;
    }
}

/// A line without what changes all the time: the number of answers, and the time.
fn constant(line: &str) -> String {
    match line.strip_suffix(" answers") {
        Some(row) => row.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end().to_owned(),
        None => "time".to_owned(),
    }
}

/// Shows the table once.
pub async fn once(terminal: Terminal, fleet: &mut Fleet, report: &Report) -> Result<()> {
    for row in rows(fleet, report).await? {
        terminal.line(row.line(terminal));
    }
    Ok(())
}
