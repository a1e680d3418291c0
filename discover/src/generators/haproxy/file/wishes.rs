//! Which ports the backends of one service ask for. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use model::{Backend, BackendId, Pool, Port};

use super::ports::{Share, Unlisted, tcp};

/// Who was behind a service port the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenancy {
    /// This share of these backends.
    Chosen(Arc<Pool>, Share),
    /// The servers that the file had.
    Recalled(BTreeSet<BackendId>),
}

impl Tenancy {
    /// Those of `backends` that were behind `port`, which is this tenancy's.
    pub fn among<'b>(&self, port: Port, backends: impl Iterator<Item = &'b Backend>) -> Vec<&'b Backend> {
        let mut backends = backends.peekable();
        if backends.peek().is_none() {
            return Vec::new();
        }
        match self {
            Self::Recalled(ids) => backends.filter(|b| ids.contains(&b.id)).collect(),
            Self::Chosen(pool, share) => {
                let had: HashSet<&BackendId> = tcp(pool).filter(|b| share.has(port, b)).map(|b| &b.id).collect();
                backends.filter(|b| had.contains(&b.id)).collect()
            }
        }
    }
}

/// A port that a service has.
#[derive(Debug, Clone, Copy)]
pub struct HadPort<'a> {
    pub port: Port,
    /// Who was behind it.
    pub tenancy: &'a Tenancy,
    /// Its section's name has the port in it.
    pub apart: bool,
    /// Its backends have gone.
    pub vacant: bool,
}

/// That backends of a service ask for a port.
#[derive(Debug)]
pub struct Wish<'a> {
    /// The oldest that does.
    pub oldest: &'a Backend,
    /// One of them names the port.
    pub named: bool,
    /// Those that name none.
    pub unnamed: BTreeSet<BackendId>,
}

/// Of two backends the lower one was first: its age, its id.
fn age(backend: &Backend) -> (u64, &BackendId) {
    (backend.created.unwrap_or(u64::MAX), &backend.id)
}

/// What the backends of a service ask for that `has` ports already; [`Wish::unnamed`] counts where there are several wishes.
///
/// A backend that names no port asks for the one where it serves: it lost its `port` key, which is no wish. Else for the one that the
/// service has, or for the one that the oldest other backend asks for.
///
/// # Errors
/// Why there is no wish.
pub fn wishes<'a>(pool: &'a Pool, has: &[HadPort<'_>]) -> Result<BTreeMap<Port, Wish<'a>>, Unlisted> {
    let homes = homes(pool, has);
    let first = first_port(has);
    let asks = |b: &Backend| b.service_port.or_else(|| homes.get(&b.id).copied()).or(first);
    let mut wishes: BTreeMap<Port, Wish<'a>> = BTreeMap::new();
    for backend in tcp(pool) {
        let Some(port) = asks(backend) else { continue };
        let named = backend.service_port.is_some();
        wishes
            .entry(port)
            .and_modify(|wish| {
                wish.named |= named;
                if age(backend) < age(wish.oldest) {
                    wish.oldest = backend;
                }
            })
            .or_insert_with(|| Wish { oldest: backend, named, unnamed: BTreeSet::new() });
    }
    let is_new = |port: &Port| !has.iter().any(|had| had.port == *port);
    let Some(first) = wishes.iter().min_by_key(|(port, wish)| (is_new(port), age(wish.oldest))).map(|(port, _)| *port)
    else {
        let udp = tcp(pool).next().is_none() && !pool.is_empty();
        return Err(if udp { Unlisted::UdpOnly } else { Unlisted::NoPort });
    };
    if wishes.len() > 1 {
        for backend in tcp(pool).filter(|b| b.service_port.is_none()) {
            if let Some(wish) = wishes.get_mut(&asks(backend).unwrap_or(first)) {
                wish.unnamed.insert(backend.id.clone());
            }
        }
    }
    Ok(wishes)
}

/// The port of a service that a newcomer without one is behind: a present one, and that which is called as the service.
pub(super) fn first_port(has: &[HadPort<'_>]) -> Option<Port> {
    has.iter().min_by_key(|had| (had.vacant, had.apart, had.port)).map(|had| had.port)
}

/// Where the backends without a port serve, of a service with several.
pub(super) fn homes<'a>(pool: &'a Pool, has: &[HadPort<'_>]) -> HashMap<&'a BackendId, Port> {
    if has.len() < 2 {
        return HashMap::new();
    }
    let unnamed = tcp(pool).filter(|b| b.service_port.is_none());
    let of_port = |had: &HadPort<'_>| {
        let port = had.port;
        had.tenancy.among(port, unnamed.clone()).into_iter().map(move |b| (&b.id, port))
    };
    has.iter().flat_map(of_port).collect()
}
