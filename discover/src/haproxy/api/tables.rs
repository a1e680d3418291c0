//! What HAProxy shows, read by its own headers: columns move and are added between versions.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::version::Version;

/// The reply is not what this command answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} in {line:?}")]
pub struct TableError {
    what: &'static str,
    line: String,
}

impl TableError {
    pub(super) fn new(what: &'static str, line: &str) -> Self {
        Self { what, line: line.chars().take(200).collect() }
    }
}

/// One server of `show servers state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    pub section: String,
    pub name: String,
    /// HAProxy's number for it within the section; a deleted server's is used again.
    pub id: u32,
    /// Its address; `None` while a name has none.
    pub addr: Option<IpAddr>,
    pub port: u16,
    /// What the checks think of it.
    pub oper: OperState,
    /// Why it is in maintenance or drain; all false in ordinary life.
    pub admin: AdminState,
    /// Its weight now, 0 to 256.
    pub weight: u16,
    /// Since the last change of state.
    pub since: Duration,
    /// Whether it has checks, and whether they run.
    pub check: CheckState,
    /// The same of its agent check, which may change its weight, drain it, or put it into maintenance.
    pub agent: CheckState,
}

/// Source: HAProxy, `enum srv_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperState {
    /// Down.
    Stopped,
    /// Warming up (slowstart).
    Starting,
    /// Up.
    Running,
    /// Up, but going down softly.
    Stopping,
}

/// Bits of `srv_admin_state`. Source: HAProxy, `enum srv_admin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AdminState(pub u32);

impl AdminState {
    /// In maintenance for any reason: by command, by the config, inherited, or for want of an address.
    pub fn in_maintenance(self) -> bool {
        self.0 & (0x01 | 0x02 | 0x04 | 0x20 | 0x40) != 0
    }

    /// Put into maintenance by a command or the config, so that a command can end it.
    pub fn forced_maintenance(self) -> bool {
        self.0 & 0x01 != 0
    }

    /// In drain for any reason.
    pub fn draining(self) -> bool {
        self.0 & (0x08 | 0x10) != 0
    }
}

/// Bits of `srv_check_state`; 0x02: there is a check. Source: HAProxy, `CHK_ST_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckState(pub u32);

impl CheckState {
    /// Its check is switched on.
    pub fn enabled(self) -> bool {
        self.0 & 0x04 != 0
    }
}

/// The columns of `show servers state` that are read.
const STATE_COLUMNS: [&str; 11] = [
    "be_name",
    "srv_name",
    "srv_id",
    "srv_addr",
    "srv_port",
    "srv_op_state",
    "srv_admin_state",
    "srv_uweight",
    "srv_time_since_last_change",
    "srv_check_state",
    "srv_agent_state",
];

/// Reads `show servers state`.
///
/// # Errors
/// [`TableError`] when the header is missing or a row does not fit it.
pub fn servers_state(text: &str) -> Result<Vec<ServerState>, TableError> {
    let (header, rows) = header_and_rows(text, "# be_id ")?;
    // Tens of thousands of rows: each column is looked for once.
    let columns: HashMap<&str, usize> = header.trim_start_matches("# ").split_whitespace().zip(0..).collect();
    let at = STATE_COLUMNS.map(|column| columns.get(column).copied());
    let mut row: Vec<&str> = Vec::with_capacity(columns.len());
    rows.map(|line| {
        row.clear();
        row.extend(line.split_ascii_whitespace());
        let bad = |what| TableError::new(what, line);
        let cells = at.map(|at| row.get(at?).copied());
        let Some([section, name, id, addr, port, oper, admin, weight, since, check, agent]) = all_of(cells) else {
            return Err(bad("a server's state without a column that is needed"));
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| bad("not a number"));
        let small = |text: &str| number(text).and_then(|n| u16::try_from(n).map_err(|_| bad("a number too large")));
        let bits = |text: &str| number(text).and_then(|n| u32::try_from(n).map_err(|_| bad("a number too large")));
        Ok(ServerState {
            section: section.to_owned(),
            name: name.to_owned(),
            id: bits(id)?,
            addr: addr.parse().ok(),
            port: small(port)?,
            oper: match number(oper)? {
                0 => OperState::Stopped,
                1 => OperState::Starting,
                2 => OperState::Running,
                3 => OperState::Stopping,
                _ => return Err(bad("an unknown srv_op_state")),
            },
            admin: AdminState(bits(admin)?),
            weight: small(weight)?,
            since: Duration::from_secs(number(since)?),
            check: CheckState(bits(check)?),
            agent: CheckState(bits(agent)?),
        })
    })
    .collect()
}

fn all_of<const N: usize>(cells: [Option<&str>; N]) -> Option<[&str; N]> {
    let all = cells.iter().all(Option::is_some);
    all.then(|| cells.map(Option::unwrap_or_default))
}

/// What is used of `show info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The worker's version.
    pub version: Version,
    /// The worker's process id, in its own namespace.
    pub pid: i32,
    /// Connections it takes at most.
    pub maxconn: u64,
    /// This worker has been told to end: the session is with an old one.
    pub stopping: bool,
}

/// Reads `show info`.
///
/// # Errors
/// [`TableError`] when a line that is needed is missing or unreadable.
pub fn info(text: &str) -> Result<Info, TableError> {
    let fields: HashMap<&str, &str> = text.lines().filter_map(|l| l.split_once(": ")).collect();
    let get = |key| fields.get(key).copied().ok_or_else(|| TableError::new(key, text));
    let number = |key: &'static str| get(key)?.trim().parse::<u64>().map_err(|_| TableError::new(key, text));
    Ok(Info {
        version: get("Version")?.trim().parse().map_err(|_| TableError::new("Version", text))?,
        pid: get("Pid")?.trim().parse().map_err(|_| TableError::new("Pid", text))?,
        maxconn: number("Maxconn")?,
        stopping: number("Stopping")? != 0,
    })
}

/// Reads `show map FILE`: keys and values, in HAProxy's order.
///
/// # Errors
/// [`TableError`] when a line is not `0xREFERENCE KEY VALUE`.
pub fn map_entries(text: &str) -> Result<Vec<(String, String)>, TableError> {
    let lines = text.lines().filter(|l| !l.is_empty());
    lines
        .map(|line| {
            let mut parts = line.splitn(3, ' ');
            match (parts.next().filter(|r| r.starts_with("0x")), parts.next()) {
                (Some(_), Some(key)) => Ok((key.to_owned(), parts.next().unwrap_or_default().to_owned())),
                _ => Err(TableError::new("no map entry", line)),
            }
        })
        .collect()
}

pub(super) fn header_and_rows<'a>(
    text: &'a str,
    start: &str,
) -> Result<(&'a str, impl Iterator<Item = &'a str>), TableError> {
    let mut lines = text.lines().map(str::trim_end).filter(|l| !l.is_empty());
    let header = lines.by_ref().find(|l| l.starts_with(start)).ok_or_else(|| TableError::new("no header", text))?;
    Ok((header, lines))
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
