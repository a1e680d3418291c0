//! What runs, from HAProxy's own words and the file that it loaded. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::plan::{Applied, ReloadReason};
use crate::generators::haproxy::file::layout::{Layout, Section};
use crate::generators::haproxy::file::server::Server;
use crate::haproxy::api::tables::ServerState;

/// Servers that were taken out of the file and linger in HAProxy, by section and name.
pub type Retired = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Server>>;

/// A section and a server of it.
pub type Place = (Arc<str>, Arc<str>);

/// Corrects what the file says by what HAProxy says: the file knows parameters and structure, HAProxy knows which
/// servers there are, where they point, their weights and whether they are in maintenance.
///
/// Servers in a section of ours that the file does not list are ours too (a change was interrupted), unless the
/// section's own text has them. Of `retired` ones the parameters are known.
pub fn applied(file: Layout, unknown: Option<ReloadReason>, retired: &Retired, running: &[ServerState]) -> Applied {
    let mut by_section: HashMap<&str, Vec<&ServerState>> = HashMap::new();
    for state in running {
        by_section.entry(&state.section).or_default().push(state);
    }
    let mut lingering: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Server>> = BTreeMap::new();
    let mut layout = file;
    for section in &mut layout.sections {
        let states = by_section.remove(&*section.name).unwrap_or_default();
        let known: HashMap<&str, &Server> = section.servers.iter().map(|s| (&*s.name, s)).collect();
        let fixed = servers_in_text(&section.skeleton);
        let mut found: HashMap<&str, Server> = HashMap::new();
        for state in states.into_iter().filter(|s| !fixed.contains(&*s.name)) {
            let remembered = || retired.get(&section.name).and_then(|all| all.get(&*state.name));
            let server = as_server(state, known.get(&*state.name).copied().or_else(remembered));
            match known.contains_key(&*state.name) || !server.maint {
                true => _ = found.insert(&state.name, server),
                false => _ = lingering.entry(section.name.clone()).or_default().insert(server.name.clone(), server),
            }
        }
        // In the file's order, then what the file does not list.
        let mut servers: Vec<Server> = section.servers.iter().filter_map(|s| found.remove(&*s.name)).collect();
        let mut rest: Vec<Server> = found.into_values().collect();
        rest.sort_by(|a, b| a.name.cmp(&b.name));
        servers.extend(rest);
        if servers != section.servers {
            *section = Arc::new(Section { servers, ..(**section).clone() });
        }
    }
    Applied { layout, lingering, unknown }
}

fn as_server(state: &ServerState, known: Option<&Server>) -> Server {
    let unknown_place = || known.map_or(SocketAddr::from(([0, 0, 0, 0], state.port)), |k| k.address);
    Server {
        name: known.map_or_else(|| state.name.as_str().into(), |k| k.name.clone()),
        address: state.addr.map_or_else(unknown_place, |ip| SocketAddr::new(ip, state.port)),
        // Parameters cannot be read back; an unlisted server has none that could equal a wanted one's.
        params: known.map_or_else(|| "".into(), |k| k.params.clone()),
        weight: state.weight,
        // Drained by hand is not served either, and ends by the same command; our own drains are weights of 0.
        maint: state.admin.forced_maintenance() || state.admin.draining(),
        line: known.and_then(|k| k.line.clone()),
        own: known.map(|k| k.own.clone()).unwrap_or_default(),
    }
}

/// Names of `server` lines that the section's own text brings: those are not ours to touch.
fn servers_in_text(skeleton: &str) -> HashSet<&str> {
    skeleton
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("server "))
        .filter_map(|rest| rest.split_whitespace().next())
        .collect()
}
