//! Which ids of servers are given by discover. Pure.

use std::num::NonZeroU32;

/// Above what HAProxy and registrants give.
pub const FIRST: u32 = 1 << 24;
/// How many ids there are. HAProxy's consistent hashing reads the lowest 20 bits of an id, and servers that agree in them would share one
/// place.
///
/// Source: src/lb_chash.c, which multiplies an id by `SRV_EWGHT_RANGE` (4096) in 32 bits.
pub const COUNT: u32 = 1 << 20;

/// Whether ids like this one are given here.
pub fn is_given_here(id: u32) -> bool {
    (FIRST..FIRST + COUNT).contains(&id)
}

/// An id as the registry and HAProxy write it, if it is one that is given here.
pub fn given(id: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(id).filter(|id| is_given_here(id.get()))
}
