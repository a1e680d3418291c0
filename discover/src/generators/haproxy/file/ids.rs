//! The ids of the servers in our own sections, in the file and at run time alike. Pure.
//!
//! HAProxy gives a server without an id the lowest one that is free. It looks for it from 1 on, and compares each with each when it loads a
//! file: a section of 10,000 then takes seconds to load, and adding its next server takes milliseconds (docs/haproxy.md). So each server has
//! an id here, made from its name. That is the same after a restart, after a reload and on every host, which consistent hashing (`hash-type
//! consistent`) is in need of: HAProxy places a server by its id.

use std::num::NonZeroU32;

use foldhash::{HashMap, HashMapExt as _};

use super::numbers::{COUNT, FIRST};
pub use super::numbers::{given, is_given_here};
use super::server::{Server, checksum};

/// The id of a server that nobody is in the way of.
fn first_choice(name: &str) -> u32 {
    let sum = checksum(name.as_bytes());
    FIRST + ((sum ^ (sum >> 32)) % u64::from(COUNT)) as u32
}

/// Gives each of a section's `servers` its id, but for one whose registration brought its own. `known` are the section's servers in HAProxy,
/// those that wait for their deletion among them: each keeps the id that it has there, and no other gets that.
pub fn give<'a>(servers: &mut [Server], known: impl Iterator<Item = &'a Server>) {
    let mut taken: HashMap<u32, &str> = HashMap::with_capacity(servers.len());
    let mut elsewhere: HashMap<&str, u32> = HashMap::new();
    for (name, id) in known.filter_map(|server| Some((&*server.name, server.id?.get()))) {
        taken.insert(id, name);
        if id != first_choice(name) {
            elsewhere.insert(name, id);
        }
    }
    let names: Vec<_> = servers.iter().map(|server| server.name.clone()).collect();
    for (server, name) in servers.iter_mut().zip(&names) {
        if server.brings_id() {
            continue;
        }
        let choice = elsewhere.get(&**name).copied().unwrap_or_else(|| first_choice(name));
        let next = |id: &u32| Some(FIRST + (id - FIRST + 1) % COUNT);
        let mut choices = std::iter::successors(Some(choice), next).take(COUNT as usize);
        let free = choices.find(|id| taken.get(id).is_none_or(|holder| **holder == **name));
        server.id = free.and_then(NonZeroU32::new);
        taken.extend(free.map(|id| (id, &**name)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn server(name: &str) -> Server {
        Server::parse(&format!("server {name} 127.0.0.1:80 check")).unwrap()
    }

    fn ids(servers: &[Server]) -> Vec<u32> {
        servers.iter().map(|s| s.id.unwrap().get()).collect()
    }

    /// Two names with one first choice.
    fn twins() -> (String, String) {
        let mut seen = HashMap::new();
        let names = (0..100_000).map(|n| format!("twin-{n}"));
        let mut twins = names.filter_map(|name| Some((seen.insert(first_choice(&name), name.clone())?, name)));
        twins.next().unwrap()
    }

    #[test]
    fn an_id_depends_on_the_name_alone() {
        let mut one = [server("a"), server("b")];
        let mut other = [server("b"), server("c"), server("a")];
        give(&mut one, [].iter());
        give(&mut other, [].iter());
        assert_eq!((one[0].id, one[1].id), (other[2].id, other[0].id));
        assert!(ids(&other).into_iter().all(is_given_here));
        let file = other.iter().map(|s| Server::parse(&s.to_string()));
        assert!(file.zip(&other).all(|(read, written)| read.as_ref() == Some(written)), "as the file says it");
    }

    #[test]
    fn who_was_there_first_keeps_it_also_while_it_waits_for_its_deletion() {
        let (a, b) = twins();
        let mut both = [server(&a), server(&b)];
        give(&mut both, [].iter());
        let [first, moved] = [both[0].id, both[1].id];
        assert_ne!(first, moved);
        let mut alone = [server(&b)];
        give(&mut alone, both.iter());
        assert_eq!(alone[0].id, moved, "it has that id in HAProxy");
        let mut later = [server(&a)];
        give(&mut later, alone.iter());
        assert_eq!(later[0].id, first, "the other has its own still");
        let mut newcomer = [server(&a)];
        let mut holder = [server(&b)];
        give(&mut holder, [].iter());
        give(&mut newcomer, holder.iter());
        assert_ne!(newcomer[0].id, holder[0].id);
        assert_eq!(newcomer[0].id, moved, "the next one");
    }

    #[test]
    fn what_a_registration_brings_stays() {
        let own = Server::parse("server a 127.0.0.1:80 check id 7").unwrap().with_own("id 7");
        let mut servers = [own.clone(), server("b")];
        give(&mut servers, [].iter());
        assert_eq!(servers[0], own);
        assert_eq!(own.runtime_params(""), "check id 7");
        let id = servers[1].id.unwrap();
        assert_eq!(servers[1].runtime_params(""), format!("id {id} check"));
    }

    proptest! {
        #[test]
        fn no_two_servers_have_one_id_and_nobody_changes_it(
            turns in prop::collection::vec(prop::collection::btree_set(0..60_u32, 0..40), 1..8),
        ) {
            // So many names of so few ids that most are in each other's way.
            let (a, b) = twins();
            let name = |n: &u32| match n % 3 { 0 => a.clone(), 1 => b.clone(), _ => format!("n{n}") };
            let mut running: Vec<Server> = Vec::new();
            for names in turns {
                let names: std::collections::BTreeSet<String> = names.iter().map(name).collect();
                let mut servers: Vec<Server> = names.iter().map(|n| server(n)).collect();
                give(&mut servers, running.iter());
                let mut unique = ids(&servers);
                unique.sort_unstable();
                unique.dedup();
                prop_assert_eq!(unique.len(), servers.len());
                for server in &servers {
                    let was = running.iter().find(|was| was.name == server.name);
                    prop_assert!(was.is_none_or(|was| was.id == server.id));
                }
                // Those that go wait for their deletion.
                running.retain(|was| !servers.iter().any(|s| s.name == was.name));
                running.extend(servers);
            }
        }
    }
}
