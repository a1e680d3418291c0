//! A config whose servers are HAProxy itself.

use std::time::Duration;

use serde_json::json;

use super::support::{eventually, free_port, get, http_server};
use super::{World, config};

#[tokio::test(flavor = "multi_thread")]
async fn a_default_server_that_is_haproxy_itself_is_left_out_and_the_others_are_served() {
    let world = World::start().await;
    let a = http_server("a", Duration::ZERO).await;
    world.put(1, a).await;
    let (own, late) = (free_port(), free_port());
    let service = |port: u16, servers: &[(&str, u16)]| {
        let servers: Vec<_> = servers.iter().map(|(host, port)| json!({"host": host, "port": port})).collect();
        json!({"discovery": {"method": "base"}, "default_servers": servers, "haproxy": {"port": port}})
    };
    let write = |more| {
        let text = config(world.dir.path(), &world.etcd, world.port, more).to_string();
        std::fs::write(world.path("synapse.json"), text).unwrap();
    };
    // Its own port, the next service's, and a port on which HAProxy listens later.
    let servers = [("localhost", own), ("127.0.0.1", world.port), ("::ffff:127.0.0.1", own), ("127.0.0.1", late)];
    write(json!({"itself": service(own, &servers)}));
    let section = || {
        let text = world.cfg();
        let rest = text.split("\nbackend itself\n").nth(1).unwrap_or_default();
        rest.split("\n# ").next().unwrap_or_default().to_owned()
    };
    eventually("the section is there", async || section().contains(&format!("127.0.0.1:{late}"))).await;
    assert_eq!(section().matches("\tserver ").count(), 1, "{}", world.cfg());
    write(json!({"itself": service(own, &servers), "late": service(late, &[("127.0.0.1", a.port())])}));
    eventually("the later listener answers", async || get(late).await == "a").await;
    assert!(!section().contains("\tserver "), "{}", world.cfg());
    for _ in 0..20 {
        assert_eq!((get(world.port).await.as_str(), get(late).await.as_str()), ("a", "a"));
    }
    let log = std::fs::read_to_string(world.path("log")).unwrap();
    assert!(log.contains("HAProxy itself listens there"), "{log}");
}
