//! What all watchers have in common.

use super::*;
use discover::watchers::poll::Pace;

#[test]
fn a_fleet_that_starts_at_once_is_spread_out() {
    let pace = Pace::every(Some(5.0), 30).starting_within(Some(20.0));
    assert_eq!((pace.every, pace.start_within), (Duration::from_secs(5), Duration::from_secs(20)));
    // What is made of it: discover::watchers::poll::tests.
    assert_eq!(Pace::every(None, 30).starting_within(None).start_within, Duration::ZERO);
}

#[test]
fn what_is_wrong_names_its_key_path() {
    for (discovery, path) in [
        (json!({"method": "file"}), "services.web.discovery.path: is required"),
        (json!({"method": "dns"}), "services.web.discovery.servers: is required"),
        (json!({"method": "dns", "servers": [{"port": 1}]}), "services.web.discovery.servers[0].host: is required"),
        (json!({"method": "dns", "servers": [{"host": "h"}]}), "services.web.discovery.servers[0].port: is required"),
        (
            json!({"method": "dns", "nameserver": "ns", "servers": [{"host": "h", "port": 1}]}),
            "services.web.discovery.nameserver: \"ns\" is no IP address",
        ),
        (json!({"method": "etcd"}), "services.web.discovery.path: is required"),
    ] {
        let error = refused(discovery.clone());
        assert!(error.contains(path), "{discovery}: {error}");
    }
}
