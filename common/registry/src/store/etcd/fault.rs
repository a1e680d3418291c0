//! From what etcd and its transport say to a [`Fault`].

use std::error::Error as StdError;
use std::io::ErrorKind;

use etcd_client::Error;

use crate::store::{Fault, LeaseId, Revision, StoreError};

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) fault: Fault,
    /// Whether the call surely did not reach the store.
    pub(super) unsent: bool,
    /// Whether another endpoint, or a new connection, may do better.
    pub(super) moves_on: bool,
}

impl Failure {
    pub(super) fn of(fault: Fault) -> Self {
        let moves_on = matches!(fault, Fault::Unavailable { .. } | Fault::Timeout { .. } | Fault::NotV3 { .. });
        Self { fault, unsent: false, moves_on }
    }

    /// The settings do not work: nothing was sent.
    pub(super) fn bad_config(why: String) -> Self {
        Self { unsent: true, ..Self::of(Fault::BadConfig(why)) }
    }
}

/// What `error` of `endpoint` means. Lease and revision in the fault are left at 0: the caller knows which it asked for.
pub(super) fn classify(endpoint: &str, error: &Error) -> Failure {
    let endpoint = endpoint.to_owned();
    let failure = match error {
        Error::InvalidUri(_) | Error::InvalidArgs(_) => return Failure::bad_config(error.to_string()),
        Error::GRpcStatus(status) => Failure::of(of_status(endpoint, status.code() as i32, status.message(), status)),
        Error::LeaseKeepAliveError(why) if why.contains("lease not found") => {
            return Failure::of(Fault::LeaseLost(LeaseId(0)));
        }
        Error::TransportError(cause) => {
            Failure::of(Fault::Unavailable { endpoint, why: chain(String::new(), causes(cause)) })
        }
        Error::IoError(cause) => Failure::of(Fault::Unavailable { endpoint, why: chain(String::new(), causes(cause)) }),
        other => Failure::of(Fault::Unavailable { endpoint, why: other.to_string() }),
    };
    let unsent = match error {
        Error::GRpcStatus(status) => never_connected(status),
        Error::TransportError(cause) => never_connected(cause),
        _ => false,
    };
    Failure { unsent, ..failure }
}

/// Names the lease that a fault is about.
pub(super) fn of_lease(error: StoreError, lease: LeaseId) -> StoreError {
    match error.fault {
        Fault::LeaseLost(_) => StoreError { fault: Fault::LeaseLost(lease), ..error },
        _ => error,
    }
}

/// The reason that a canceled watch gave: a gRPC error as text.
pub(super) fn of_reason(endpoint: &str, reason: &str) -> Failure {
    let endpoint = endpoint.to_owned();
    if reason.contains("permission denied") {
        return Failure::of(Fault::Denied { endpoint });
    }
    if ["invalid auth token", "authentication is not enabled", "no leader"].iter().any(|text| reason.contains(text)) {
        return Failure::of(Fault::Unavailable { endpoint, why: reason.to_owned() });
    }
    Failure::of(Fault::Ended(if reason.is_empty() { "canceled by the server" } else { reason }.to_owned()))
}

/// Source of the texts: etcd's `api/v3rpc/rpctypes/error.go`; of the numbers: gRPC's status codes.
fn of_status(endpoint: String, code: i32, message: &str, status: &(dyn StdError + 'static)) -> Fault {
    let has = |text: &str| message.contains(text);
    let why = message.to_owned();
    match code {
        _ if has("required revision has been compacted") => Fault::Compacted { at: Revision(0) },
        _ if has("required revision is a future revision") => Fault::Rewound { seen: Revision(0), now: Revision(0) },
        _ if has("requested lease not found") => Fault::LeaseLost(LeaseId(0)),
        _ if has("etcdserver: permission denied") => Fault::Denied { endpoint },
        _ if has("authentication failed") || has("user name is empty") => Fault::Unauthenticated { endpoint, why },
        // The token went with a restart, or rights were changed: a new connection brings a new token.
        16 => Fault::Unavailable { endpoint, why },
        // Authentication was switched off while we held a token: a new connection goes without.
        _ if has("authentication is not enabled") => Fault::Unavailable { endpoint, why },
        _ if has("revision of auth store is old") => Fault::Unavailable { endpoint, why },
        8 if has("database space exceeded") => Fault::NoSpace { endpoint, why },
        12 => Fault::NotV3 { endpoint, why: format!("the call is not implemented there ({why})") },
        // Source: tonic's decoder, which speaks so before it takes in a message.
        11 if has("message length too large") => Fault::TooLarge { endpoint, why },
        // Invalid argument, not found, exists already, failed precondition, out of range.
        3 | 5 | 6 | 9 | 11 => Fault::Refused { endpoint, why },
        // A status' own text tells its causes in Rust's debug notation; its message and the causes' texts say more.
        _ => Fault::Unavailable { endpoint, why: chain(why, causes(status).skip(1)) },
    }
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |e: &&'a (dyn StdError + 'static)| (*e).source())
}

/// A text and then the causes, each told once.
fn chain<'a>(mut text: String, causes: impl Iterator<Item = &'a (dyn StdError + 'static)>) -> String {
    for said in causes.map(ToString::to_string) {
        if text.contains(&said) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&said);
    }
    text
}

fn never_connected(error: &(dyn StdError + 'static)) -> bool {
    causes(error).filter_map(|e| e.downcast_ref::<std::io::Error>()).any(|e| {
        use ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
        matches!(e.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
    })
}
