//! The backends of one or more services as the servers of one section. Pure.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashSet, HashSetExt as _};
use model::{Backend, Host, Pool, ServiceName, Status, Transport};

use super::ids::is_given_here;
use super::names::{server_name, server_name_in};
use super::server::{Own, Server};
use super::silence::Silence;
use super::synapse::Quarantined;
use crate::haproxy::api::version::Capabilities;
use crate::haproxy::words::options::{Place, parse};
use crate::haproxy::words::template::fill;
use crate::names::Resolved;

/// What stands on every server's line.
pub(super) fn params(check: &str, slow_start: Option<Duration>, silence: Silence, can: &Capabilities) -> Arc<str> {
    let mut params = check.to_owned();
    if let Some(slow_start) = slow_start {
        let _ = write!(params, " slowstart {}ms", slow_start.as_millis()); // a String takes everything
    }
    if can.needs_pool_settings {
        params.push_str(" pool-purge-delay 5s pool-max-conn 100");
    }
    params.push_str(&silence.words());
    params.trim().into()
}

/// A service, and those of its backends that are meant.
pub(super) type Member = (ServiceName, Arc<Pool>);

/// The backends of several services in one section, each with its server's name: its id, and with its service's name where an earlier
/// service has that id, too.
fn named(members: &[Member]) -> impl Iterator<Item = (&ServiceName, &Arc<Backend>, Arc<str>)> {
    let mut taken: HashSet<&str> = HashSet::new();
    members
        .iter()
        .enumerate()
        .flat_map(|(at, (service, pool))| {
            let tcp = pool.backends().iter().filter(|b| b.transport == Transport::Tcp);
            tcp.map(move |backend| (at, service, backend))
        })
        .map(move |(at, service, backend)| {
            let id = backend.id.as_str();
            let is_first = members.len() == 1 || taken.insert(id);
            let name = if at == 0 || is_first { server_name(id) } else { server_name_in(service, id) };
            (service, backend, name)
        })
}

/// The names of the servers that [`servers`] makes of these backends.
pub(super) fn server_names(members: &[Member]) -> impl Iterator<Item = Arc<str>> {
    named(members).map(|(_, _, name)| name)
}

/// The servers of one section, of the pools of one or more services, and the registrations that are left out.
pub(super) fn servers(
    members: &[Member],
    params: &Arc<str>,
    names: &Resolved,
    place: &Place<'_>,
) -> (Vec<Server>, Vec<Quarantined>) {
    // The last ones are not drained: a server that finishes its work still answers, an empty section does not.
    let any_up = named(members).any(|(_, backend, _)| backend.status == Status::Up);
    let (mut servers, mut quarantined) = (Vec::new(), Vec::new());
    let mut ids = HashSet::new();
    for (service, backend, name) in named(members) {
        match server(backend, name, any_up, params, names, place, &mut ids) {
            Ok(server) => servers.extend(server),
            Err(reason) => {
                let server = backend.id.to_string();
                quarantined.push(Quarantined { service: service.clone(), server, reason });
            }
        }
    }
    (servers, quarantined)
}

/// A backend as a server; `None` while its name has no address.
///
/// # Errors
/// What is wrong with the words that its registration asks for.
fn server(
    backend: &Backend,
    name: Arc<str>,
    any_up: bool,
    params: &Arc<str>,
    names: &Resolved,
    place: &Place<'_>,
    ids: &mut HashSet<u32>,
) -> Result<Option<Server>, String> {
    let ip = match &backend.host {
        Host::Ip(ip) => *ip,
        Host::Name(name) => match names.get(name) {
            Some(ip) => ip,
            None => return names.refused(name).map_or(Ok(None), |why| Err(why.to_owned())),
        },
    };
    let address = SocketAddr::new(ip, backend.port.get());
    let mut server = match &backend.haproxy_server_options {
        None => {
            let (params, own) = (params.clone(), Own::default());
            Server { name, address, id: None, params, weight: 1, maint: false, line: None, own }
        }
        Some(options) => {
            let own = fill(options, &backend.host.to_string(), &backend.port.to_string(), &name)
                .and_then(|words| parse(&words, place))
                .map_err(|why| format!("haproxy_server_options: {why}"))?;
            if let Some(id) = own.id().filter(|id| is_given_here(*id) || !ids.insert(*id)) {
                let whose = if is_given_here(id) {
                    "is one of those that discover gives"
                } else {
                    "belongs to another registration"
                };
                return Err(format!("haproxy_server_options: id {id} {whose}"));
            }
            let words = own.to_string();
            let line = format!("server {name} {address} {params} {words}").into();
            Server { line: None, ..Server::of_line(name, address, line) }.with_own(&words)
        }
    };
    if let Some(weight) = backend.weight {
        server.weight = weight.get();
    }
    if backend.status == Status::Draining && any_up {
        server.weight = 0;
    }
    server.maint |= backend.status == Status::Down;
    Ok(Some(server))
}
