//! Tells, by its lease, a deletion that somebody meant from one that nobody did.
//!
//! | the key's lease | the deletion is |
//! |---|---|
//! | is that of a registrar that is there now | orderly: the agent lives |
//! | was a registrar's, which has gone too | an expiry, or a wiped registry |
//! | was never a registrar's, and lives | orderly: a hand took the key away |
//! | was never a registrar's, and has ended | an expiry |

use std::collections::HashSet;

use crate::store::{LeaseId, Position, Revision, Store, StoreError};
use model::Prefix;

/// Leases of strangers that are asked after at once. Where more end together, it is no hand.
const MOST_ASKED: usize = 16;

/// The leases under which a deletion up to `at` was orderly. `gone` are those of the deleted keys; `before` is a revision
/// at which the keys were still there.
///
/// # Errors
/// [`StoreError`] where the registrars at `at` cannot be listed. What else cannot be found out counts as an expiry.
pub(super) async fn orderly<S: Store>(
    store: &S,
    prefix: &Prefix,
    before: Revision,
    at: Position,
    gone: &HashSet<LeaseId>,
) -> Result<HashSet<LeaseId>, StoreError> {
    if gone.is_empty() {
        return Ok(HashSet::new());
    }
    let registrars = prefix.registrars();
    let now = match store.list_at(&registrars, at.revision).await {
        Err(e) if e.needs_list() => store.list(&registrars).await?,
        other => other?,
    };
    let mut orderly: HashSet<LeaseId> = now.entries.iter().filter_map(|e| e.lease).collect();
    let others: Vec<LeaseId> = gone.difference(&orderly).copied().collect();
    if others.is_empty() || others.len() > MOST_ASKED {
        return Ok(orderly);
    }
    let mut living = Vec::new();
    for lease in others {
        if matches!(store.time_to_live(lease).await, Ok(Some(_))) {
            living.push(lease);
        }
    }
    if living.is_empty() {
        return Ok(orderly);
    }
    let Ok(then) = store.list_at(&registrars, before).await else { return Ok(orderly) };
    let agents: HashSet<LeaseId> = then.entries.iter().filter_map(|e| e.lease).collect();
    orderly.extend(living.into_iter().filter(|lease| !agents.contains(lease)));
    Ok(orderly)
}
