//! How often a connection is pinged. No I/O; time is given.

use std::time::Duration;

use tokio::time::Instant;

/// Between two pings where more are not borne.
///
/// Source: gRPC's keepalive guide and grpc-go's `keepalive.EnforcementPolicy`: a server that was not told otherwise bears one in 5 minutes.
const RARE: Duration = Duration::from_secs(310);
/// Connections in a row that ended so soon that it was for their pings. One may have had another reason.
const CUTS: u32 = 2;

/// The pings of one endpoint.
///
/// A server that gets too many ends the connection at the fourth ping or later, and what comes through to us is only that it
/// ended: so does `etcd grpc-proxy` 3.4.
#[derive(Debug, Default)]
pub(super) struct Pings {
    connected: Option<Instant>,
    cuts: u32,
}

impl Pings {
    /// A connection is made: how often it is to be pinged, where nothing speaks against `usual`.
    pub(super) fn connects(&mut self, usual: Duration, now: Instant) -> Duration {
        self.connected = Some(now);
        if self.are_rare() { RARE } else { usual }
    }

    /// The connection is given up. Returns whether it is to be pinged rarely from now on.
    pub(super) fn left(&mut self, usual: Duration, now: Instant) -> bool {
        let Some(lived) = self.connected.take().map(|at| now.saturating_duration_since(at)) else { return false };
        if self.are_rare() || lived < usual * 3 {
            return false;
        }
        self.cuts = if lived < usual * 24 { self.cuts + 1 } else { 0 };
        self.are_rare()
    }

    fn are_rare(&self) -> bool {
        self.cuts >= CUTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_ends_connections_at_their_fourth_ping_is_pinged_rarely() {
        let (usual, mut now) = (Duration::from_secs(5), Instant::now());
        for (lives, rare) in [(&[20, 20][..], true), (&[20, 1, 30], true), (&[20, 900, 20], false), (&[1, 2, 3], false)]
        {
            let mut pings = Pings::default();
            let told = lives.iter().filter(|secs| {
                assert_eq!(pings.connects(usual, now), usual);
                now += Duration::from_secs(**secs);
                pings.left(usual, now)
            });
            assert_eq!(told.count(), usize::from(rare), "{lives:?}");
            assert_eq!(pings.connects(usual, now), if rare { RARE } else { usual }, "{lives:?}");
            assert!(!rare || !pings.left(usual, now + usual * 4), "it is said once");
        }
    }
}
