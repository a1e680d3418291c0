//! This host's address over time: one that was given stays; one that was worked out is looked at again at each resync.
//!
//! It changes only once it is this host's no longer (a lease of DHCP's ran out, an interface went). Another way to etcd is no
//! reason to publish everything anew: the former address still leads here.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// What is known of the address that is published for what is bound to every address of the host (HOST_IP).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostAddress {
    /// The address; `None` where containers are published at their own addresses and there is no other.
    pub address: Option<IpAddr>,
    /// It is not looked at again: somebody set it, or this is not the host's own network, where nothing can be worked out.
    pub fixed: bool,
    /// When another one took its predecessor's place.
    pub changed: Option<SystemTime>,
}

impl HostAddress {
    /// One that somebody set, or none where none can be worked out.
    pub fn fixed(address: Option<IpAddr>) -> Self {
        Self { address, fixed: true, changed: None }
    }

    /// One that was worked out, where it could be.
    pub fn found(address: Option<IpAddr>) -> Self {
        Self { address, fixed: false, changed: None }
    }
}

/// How a host's address is seen.
pub trait Look {
    /// The address that would be worked out now; `None` while there is none, or it cannot be told.
    fn work_out(&self) -> impl Future<Output = Option<IpAddr>> + Send;

    /// Whether the host has this address.
    fn has(&self, address: IpAddr) -> bool;
}

/// Looks every `resync` until cancelled, and tells `known` of a change. One that is fixed is never looked at.
pub async fn follow(known: watch::Sender<HostAddress>, look: impl Look, resync: Duration, cancel: CancellationToken) {
    let mut ticks = interval(resync);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // the first is now, and all of it was found just now
    while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
        let before = *known.borrow();
        if before.fixed || before.address.is_some_and(|address| look.has(address)) {
            continue;
        }
        // A host that has no address for the moment keeps what it published: there is nothing better to say.
        let Some(Some(address)) = cancel.run_until_cancelled(look.work_out()).await else { continue };
        if before.address == Some(address) {
            continue;
        }
        let from = before.address.map(tracing::field::display);
        warn!(from, to = %address, "This host's address changed; publishing under the new one.");
        known.send_replace(HostAddress { address: Some(address), fixed: false, changed: Some(SystemTime::now()) });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::sleep;

    use super::*;

    const RESYNC: Duration = Duration::from_secs(30);

    /// The addresses of a made-up host, and the one that its way to etcd begins at.
    #[derive(Clone, Default)]
    struct Host(Arc<Mutex<(Vec<IpAddr>, Option<IpAddr>)>>);

    impl Host {
        fn is(&self, has: &[&str], way: Option<&str>) {
            let has = has.iter().map(|text| text.parse().unwrap()).collect();
            *self.0.lock().unwrap() = (has, way.map(|text| text.parse().unwrap()));
        }
    }

    impl Look for Host {
        async fn work_out(&self) -> Option<IpAddr> {
            self.0.lock().unwrap().1
        }

        fn has(&self, address: IpAddr) -> bool {
            self.0.lock().unwrap().0.contains(&address)
        }
    }

    /// The address after a while on that host, beginning with `known`; each step is two resyncs.
    async fn after(known: HostAddress, steps: &[(&[&str], Option<&str>)]) -> Vec<String> {
        let (host, cancel) = (Host::default(), CancellationToken::new());
        let (out, now) = watch::channel(known);
        let mut seen = Vec::new();
        let following = tokio::spawn(follow(out, host.clone(), RESYNC, cancel.clone()));
        for (has, way) in steps {
            host.is(has, *way);
            sleep(RESYNC * 2).await;
            seen.push(now.borrow().address.map_or_else(|| "none".to_owned(), |address| address.to_string()));
        }
        cancel.cancel();
        following.await.unwrap();
        seen
    }

    fn found(address: &str) -> HostAddress {
        HostAddress::found(Some(address.parse().unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_went_is_replaced_by_the_one_that_is_there_now() {
        let (old, new) = ("10.0.0.5", "10.0.0.6");
        let steps: [(&[&str], _); 3] = [(&[old], Some(old)), (&[], None), (&[new], Some(new))];
        assert_eq!(after(found(old), &steps).await, [old, old, new], "without any address the last one stays");
    }

    #[tokio::test(start_paused = true)]
    async fn another_way_to_etcd_changes_nothing_while_the_address_is_the_hosts() {
        let (old, vpn) = ("10.0.0.5", "172.16.0.9");
        let steps: [(&[&str], _); 2] = [(&[old, vpn], Some(vpn)), (&[vpn], Some(vpn))];
        assert_eq!(after(found(old), &steps).await, [old, vpn]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_was_given_stays_whatever_the_host_has() {
        let given = HostAddress::fixed(Some("192.0.2.7".parse().unwrap()));
        assert_eq!(after(given, &[(&["10.0.0.5"], Some("10.0.0.5"))]).await, ["192.0.2.7"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_could_not_be_worked_out_at_the_start_is_found_later() {
        assert_eq!(after(HostAddress::found(None), &[(&["10.0.0.5"], Some("10.0.0.5"))]).await, ["10.0.0.5"]);
    }
}
