//! `show stat`, read by its own header: columns move and are added between versions.

use std::time::Duration;

use super::tables::{TableError, header_and_rows};

/// One row of `show stat`: a frontend, a section as a whole, a server or a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatRow {
    /// The section or frontend.
    pub section: String,
    /// The server's name, or `FRONTEND` or `BACKEND`.
    pub name: String,
    pub kind: StatKind,
    /// HAProxy's word: `UP`, `UP 1/3`, `DOWN`, `MAINT`, `DRAIN`, `no check`, `OPEN`, …
    pub status: String,
    /// The sum of active weights, or the server's own.
    pub weight: Option<u64>,
    /// Of a section: its servers that can take a request, those for emergencies among them.
    pub usable: u64,
    /// The last check's result (`L4OK`, `L4CON`, …); empty without checks.
    pub check_status: String,
    /// What the last check said, for people: `Connection refused`, `HTTP status 503`.
    pub last_check: String,
    /// Since the last change of status, where there is one.
    pub lastchg: Option<Duration>,
    /// Idle connections kept to the server.
    pub idle_connections: u64,
    /// The server's `address:port`, where shown.
    pub addr: String,
    pub counts: Counts,
}

/// What HAProxy has counted since its worker began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Sessions now.
    pub sessions: u64,
    /// Requests queued now.
    pub queued: u64,
    pub all_sessions: u64,
    /// Requests in all; of TCP its sessions.
    pub requests: u64,
    /// Failed connections to servers (none that works is one, too), and answers that broke off.
    pub errors: u64,
    /// Answers with a code of 500 or above, HAProxy's own among them. None for TCP.
    pub responses_5xx: u64,
}

impl Counts {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            sessions: self.sessions + other.sessions,
            queued: self.queued + other.queued,
            all_sessions: self.all_sessions + other.all_sessions,
            requests: self.requests + other.requests,
            errors: self.errors + other.errors,
            responses_5xx: self.responses_5xx + other.responses_5xx,
        }
    }
}

/// Source: HAProxy's `type` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatKind {
    /// 0.
    Frontend,
    /// 1: the whole section.
    Section,
    /// 2.
    Server,
    /// 3.
    Listener,
}

/// The columns that are read, of about a hundred. Source: HAProxy's management guide, 9.1 "CSV format".
const COLUMNS: [&str; 19] = [
    "pxname",
    "svname",
    "type",
    "status",
    "weight",
    "act",
    "bck",
    "check_status",
    "last_chk",
    "lastchg",
    "srv_icur",
    "addr",
    "scur",
    "qcur",
    "stot",
    "req_tot",
    "econ",
    "eresp",
    "hrsp_5xx",
];

/// Reads `show stat`.
///
/// # Errors
/// [`TableError`] when the header is missing or a row does not fit it.
pub fn stat(text: &str) -> Result<Vec<StatRow>, TableError> {
    let (header, rows) = header_and_rows(text, "# pxname,")?;
    let header: Vec<&str> = header.trim_start_matches("# ").split(',').collect();
    // Which of the columns stands at each place: a thousand rows a second have a hundred places each.
    let columns: Vec<Option<usize>> = header.iter().map(|name| COLUMNS.iter().position(|c| c == name)).collect();
    rows.map(|line| {
        let quoted;
        let mut cells = [""; COLUMNS.len()];
        match line.contains('"') {
            false => put(&mut cells, &columns, line.split(',')),
            true => {
                quoted = fields(line);
                put(&mut cells, &columns, quoted.iter().map(String::as_str));
            }
        }
        let bad = |what| TableError::new(what, line);
        let number = |cell: &str| match cell {
            "" => Ok(None),
            digits => digits.parse::<u64>().map(Some).map_err(|_| bad("not a number")),
        };
        let count = |cell: &str| number(cell).map(Option::unwrap_or_default);
        let [section, name, kind, status, weight, act, bck, check_status, last_check, lastchg, idle, addr, rest @ ..] =
            cells;
        let [sessions, queued, all_sessions, requests, econ, eresp, responses_5xx] = rest;
        if section.is_empty() || name.is_empty() {
            return Err(bad("a row without pxname and svname"));
        }
        let all_sessions = count(all_sessions)?;
        Ok(StatRow {
            section: section.to_owned(),
            name: name.to_owned(),
            kind: match number(kind)? {
                Some(0) => StatKind::Frontend,
                Some(1) => StatKind::Section,
                Some(2) => StatKind::Server,
                Some(3) => StatKind::Listener,
                _ => return Err(bad("an unknown type")),
            },
            status: status.to_owned(),
            weight: number(weight)?,
            usable: count(act)? + count(bck)?,
            check_status: check_status.to_owned(),
            last_check: last_check.to_owned(),
            lastchg: number(lastchg)?.map(Duration::from_secs),
            idle_connections: count(idle)?,
            addr: addr.to_owned(),
            counts: Counts {
                sessions: count(sessions)?,
                queued: count(queued)?,
                all_sessions,
                requests: number(requests)?.unwrap_or(all_sessions),
                errors: count(econ)? + count(eresp)?,
                responses_5xx: count(responses_5xx)?,
            },
        })
    })
    .collect()
}

/// Puts each field that is read into its cell.
fn put<'a>(cells: &mut [&'a str], columns: &[Option<usize>], fields: impl Iterator<Item = &'a str>) {
    for (at, field) in columns.iter().zip(fields) {
        if let Some(cell) = at.and_then(|at| cells.get_mut(at)) {
            *cell = field;
        }
    }
}

/// The fields of a line with quotes; a field in double quotes may hold commas, and two quotes stand for one.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_quoted_commas_together() {
        let text = "# pxname,svname,qcur,scur,stot,status,weight,lastchg,type,check_status,last_chk,srv_icur,addr,\nb0,s1,1,2,3,UP 1/3,9,4,2,L7OK,\"a, \"\"b\"\"\",5,127.0.0.1:80,\nf,FRONTEND,,0,0,OPEN,,,0,,,,,\n";
        let rows = stat(text).unwrap();
        let server = &rows[0];
        let counts = Counts { sessions: 2, queued: 1, all_sessions: 3, requests: 3, ..Counts::default() };
        assert_eq!((server.counts, server.idle_connections), (counts, 5));
        assert_eq!((&*server.check_status, &*server.last_check), ("L7OK", "a, \"b\""));
        assert_eq!(
            (server.status.as_str(), server.addr.as_str(), server.kind),
            ("UP 1/3", "127.0.0.1:80", StatKind::Server)
        );
        assert_eq!((rows[1].kind, rows[1].weight, rows[1].lastchg), (StatKind::Frontend, None, None));
    }

    #[test]
    fn a_section_has_its_usable_servers_and_what_was_counted() {
        let text = "# pxname,svname,scur,stot,econ,eresp,status,weight,act,bck,type,hrsp_5xx,req_tot,new,\na,BACKEND,4,9,2,1,UP,1,3,1,1,7,30,x,\ntcp,BACKEND,4,9,2,1,DOWN,0,0,0,1,,,x,\n";
        let [http, tcp] = <[StatRow; 2]>::try_from(stat(text).unwrap()).unwrap();
        let counts = Counts { sessions: 4, queued: 0, all_sessions: 9, requests: 30, errors: 3, responses_5xx: 7 };
        assert_eq!((http.usable, http.counts), (4, counts));
        assert_eq!((tcp.usable, tcp.counts.requests, tcp.counts.responses_5xx), (0, 9, 0), "TCP has no requests");
        assert_eq!(http.counts.and(tcp.counts).requests, 39);
    }

    #[test]
    fn what_is_no_table_is_an_error() {
        for text in ["", "Unknown command.\n", "# pxname,svname,type\n,s,2\n", "# pxname,svname,type\na,s,9\n"] {
            assert!(stat(text).is_err(), "{text:?}");
        }
    }
}
