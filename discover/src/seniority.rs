//! Which of several claims to one thing counts: one order, for ports and for places at the edge. Pure.

use model::{Backend, Mode, Pool, Transport};

/// How one claim stands against others. The lowest has the thing.
///
/// Who has it keeps it: a registration that is made anew, after its agent restarted, is no less a claim than before. Among those
/// that come anew the oldest counts; of equally old ones, or where ages are not known, the lowest name. Ranks, ids and layouts
/// of keys take no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seniority<'a> {
    /// It does not have the thing yet.
    pub newcomer: bool,
    /// The store's revision when the oldest registration that makes the claim was created; the highest where that is not known.
    pub created: u64,
    /// Whose claim it is.
    pub name: &'a str,
}

impl<'a> Seniority<'a> {
    /// The standing of the claim of `name`.
    pub fn new(has: bool, created: Option<u64>, name: &'a str) -> Self {
        Self { newcomer: !has, created: created.unwrap_or(u64::MAX), name }
    }

    /// Whether this claim comes before `other` by more than its name.
    pub fn is_senior_to(&self, other: &Self) -> bool {
        (self.newcomer, self.created) < (other.newcomer, other.created)
    }
}

/// How clients speak to a service: in the mode that it `has`, as long as a backend says so, else as the oldest one says. A backend
/// that says nothing says `default`.
pub fn mode(pool: &Pool, default: Mode, has: Option<Mode>) -> Mode {
    let says = |backend: &Backend| backend.mode.unwrap_or(default);
    let tcp = pool.backends().iter().filter(|b| b.transport == Transport::Tcp);
    let first = tcp.min_by_key(|b| (Some(says(b)) != has, b.created.unwrap_or(u64::MAX)));
    first.map_or(default, |first| says(first))
}
