//! What runs, from HAProxy's own words and the file that it loaded. Pure.

use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::plan::Applied;
use super::state::HaproxyState;
use crate::generators::haproxy::file::ids::given;
use crate::generators::haproxy::file::layout::{Layout, Retired, Section};
use crate::generators::haproxy::file::server::Server;
use crate::haproxy::api::tables::ServerState;

/// A section and a server of it.
pub type Place = (Arc<str>, Arc<str>);

/// Corrects what the file says by what HAProxy says: the file knows parameters and structure, HAProxy knows which
/// servers there are, where they point, their weights and whether they are in maintenance.
///
/// What HAProxy's checks and agents own is theirs: the checks' state, and of a server whose agent is asked its weight, and its drain or maintenance. It is never read
/// as a difference, so it is never repaired.
///
/// Servers in a section of ours that the file does not list are ours too (a change was interrupted), unless the
/// section's own text has them. Of `retired` ones the parameters are known.
pub fn applied(file: Layout, state: HaproxyState, retired: &Retired, running: &[ServerState]) -> Applied {
    let mut by_section: HashMap<&str, Vec<&ServerState>> = HashMap::default();
    // HAProxy lists a section's servers one behind the other.
    for states in running.chunk_by(|a, b| a.section == b.section) {
        by_section.entry(&states[0].section).or_default().extend(states);
    }
    let mut lingering = Retired::new();
    let mut layout = file;
    for section in &mut layout.sections {
        let states = by_section.remove(&*section.name).unwrap_or_default();
        if are_as_known(&section.servers, &states) {
            continue;
        }
        let known: HashMap<&str, &Server> = section.servers.iter().map(|s| (&*s.name, s)).collect();
        let fixed = servers_in_text(&section.skeleton);
        let mut found: HashMap<&str, Server> = HashMap::default();
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
    Applied { layout, lingering, state }
}

/// Whether HAProxy has just these servers, as they are known: nearly always, and seen without making any of them anew.
fn are_as_known(known: &[Server], states: &[&ServerState]) -> bool {
    if known.len() != states.len() {
        return false;
    }
    let in_order = || known.iter().zip(states).all(|(known, state)| *known.name == *state.name);
    let agree = |known: &Server, state: &ServerState| as_server(state, Some(known)) == *known;
    if in_order() {
        return known.iter().zip(states).all(|(known, state)| agree(known, state));
    }
    let by_name: HashMap<&str, &ServerState> = states.iter().map(|state| (state.name.as_str(), *state)).collect();
    by_name.len() == known.len() && known.iter().all(|known| by_name.get(&*known.name).is_some_and(|s| agree(known, s)))
}

fn as_server(state: &ServerState, known: Option<&Server>) -> Server {
    // Where discover itself took it out of service, it has the agent asked no more: a server that serves all the same is to be repaired.
    let agents = known.filter(|known| state.agent.enabled() && known.serves());
    let unknown_place = || known.map_or(SocketAddr::from(([0, 0, 0, 0], state.port)), |k| k.address);
    Server {
        name: known.map_or_else(|| state.name.as_str().into(), |k| k.name.clone()),
        address: state.addr.map_or_else(unknown_place, |ip| SocketAddr::new(ip, state.port)),
        id: given(state.id).or_else(|| known.and_then(|k| k.id)),
        // Parameters cannot be read back; an unlisted server has none that could equal a wanted one's.
        params: known.map_or_else(|| "".into(), |k| k.params.clone()),
        weight: agents.map_or(state.weight, |known| known.weight),
        // Drained by hand is not served either, and ends by the same command; our own drains are weights of 0.
        maint: agents.is_none() && (state.admin.forced_maintenance() || state.admin.draining()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::haproxy::api::tables::servers_state;

    /// A server with an agent as HAProxy shows it: weight, administrative state, state of the agent's check.
    fn running(weight: u16, admin: u32, agent: u32) -> ServerState {
        let header = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_state srv_agent_state srv_fqdn srv_port";
        let row = format!("2 web 1 a 10.0.0.1 2 {admin} {weight} 1 0 6 {agent} - 80");
        servers_state(&format!("1\n{header}\n{row}\n")).unwrap().remove(0)
    }

    #[test]
    fn what_an_agent_owns_is_no_difference() {
        const ASKED: u32 = 22; // configured, enabled, an agent's
        const NOT_ASKED: u32 = 18;
        let own = crate::generators::haproxy::file::server::Own::default();
        let (name, address): (Arc<str>, _) = ("a".into(), SocketAddr::from(([10, 0, 0, 1], 80)));
        let params = "check agent-check agent-port 1".into();
        let wanted = Server { name, address, params, id: None, weight: 4, maint: false, line: None, own };
        let (drained, down) = (Server { weight: 0, ..wanted.clone() }, Server { maint: true, ..wanted.clone() });
        for (known, state, same, why) in [
            (&wanted, running(2, 0, ASKED), true, "the agent says 50%"),
            (&wanted, running(0, 0, ASKED), true, "the agent says 0%"),
            (&wanted, running(4, 0x08, ASKED), true, "the agent drains it"),
            (&wanted, running(4, 0x01, ASKED), true, "the agent puts it into maintenance"),
            (&wanted, running(2, 0, NOT_ASKED), false, "somebody else changed the weight"),
            (&wanted, running(4, 0x08, NOT_ASKED), false, "somebody drained it by hand"),
            (&drained, running(4, 0, ASKED), false, "discover drains it, whatever the agent says"),
            (&down, running(4, 0, ASKED), false, "it is down, whatever the agent says"),
            (&down, running(4, 0x01, NOT_ASKED), true, "discover's own maintenance"),
        ] {
            assert_eq!(as_server(&state, Some(known)) == *known, same, "{why}");
        }
    }
}
