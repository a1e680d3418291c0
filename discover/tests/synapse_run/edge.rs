use super::*;

/// The edge stands beside sections of Synapse's making: a service keeps its own frontend, and routes come without a reload.
#[tokio::test(flavor = "multi_thread")]
async fn the_edge_serves_beside_synapses_sections() {
    for haproxy in programs().pop().into_iter().chain(making()) {
        the_edge_serves(&haproxy).await;
    }
}

async fn the_edge_serves(haproxy: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::start();
    let (store, port, edge) = (etcd.store(), free_port(), free_port());
    let mut config = config_with(haproxy, dir.path(), &etcd, port, json!({}));
    config["edge"] = json!({"listen": format!("127.0.0.1:{edge}"), "spare_sections": 2});
    std::fs::write(dir.path().join("synapse.json"), config.to_string()).unwrap();
    let agent = agent_of(dir.path(), haproxy);
    let world = World { dir, etcd, store, port, agent };
    let (a, b) = (http_server("a", Duration::ZERO).await, http_server("b", Duration::ZERO).await);
    world.put(1, a).await;
    eventually("a answers", async || get(port).await == "a").await;
    eventually("the edge knows no such host", async || get(edge).await.contains("404")).await;
    let value = json!({"host": b.ip(), "port": b.port(), "name": "n2", "routes": [{"host": "a"}]}).to_string();
    put(&world.etcd, "/nerve/web/n2/00000000000000000002", Some(&value)).await;
    eventually("the one that asks for it answers at the edge", async || get(edge).await == "b").await;
    for _ in 0..4 {
        assert_eq!(get(edge).await, "b", "the other one has no route");
    }
    assert_eq!(world.reloads(), 1, "{}", std::fs::read_to_string(world.path("log")).unwrap());
    let map = std::fs::read_to_string(world.path("haproxy.cfg.edge.map")).unwrap();
    // Where HAProxy makes sections, the two spare ones are left to sticky services.
    let section = if version(haproxy).branch() >= (3, 4) { "edge:3" } else { "edge:1" };
    assert!(map.contains(&format!("\na/ {section}|-|web\n")), "{map}");
}
