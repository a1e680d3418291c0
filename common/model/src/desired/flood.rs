//! Ports that nobody named: how many of one container are taken, and which are not.
//!
//! An image that exposes a range would else fill the registry by itself (`EXPOSE 10000-20000/udp` on the host's network: ten
//! thousand services).

use super::decision::Skip;
use super::ports::{Attachment, Candidate};
use super::settings::MaxPorts;
use crate::Transport;

/// Leaves in `ports` those that may be registered, and tells what became of the rest: at most one reason of each kind,
/// however many ports there are. `is_named` is true where a label names the port, `counts` where it would be registered.
///
/// A port of UDP on the host's network needs to be named: nothing says whether anybody listens there. Of the others the
/// lowest stay.
pub fn cap(
    ports: Vec<Candidate>,
    attachment: Attachment<'_>,
    MaxPorts(most): MaxPorts,
    is_named: impl Fn(&Candidate) -> bool,
    counts: impl Fn(&Candidate) -> bool,
) -> (Vec<Candidate>, Vec<Skip>) {
    let (mut taken, mut udp, mut over) = (0, Vec::new(), Vec::new());
    let mut kept = Vec::with_capacity(ports.len().min(most));
    for candidate in ports {
        let named = candidate.asked_for || is_named(&candidate);
        if named || candidate.unlisted || !counts(&candidate) {
            kept.push(candidate);
        } else if attachment == Attachment::Host && candidate.transport == Transport::Udp {
            udp.push(candidate.port);
        } else if taken == most {
            over.push(candidate.port);
        } else {
            taken += 1;
            kept.push(candidate);
        }
    }
    let mut skips = Vec::new();
    if let (Some(first), Some(last)) = (udp.first(), udp.last()) {
        skips.push(Skip::UdpOnHostNetwork { ports: udp.len(), first: *first, last: *last });
    }
    if let (Some(first), Some(last)) = (over.first(), over.last()) {
        skips.push(Skip::TooManyPorts { most, ports: over.len(), first: *first, last: *last });
    }
    (kept, skips)
}
