//! Sources that die under load: the others go on, and no pool loses a backend.

use std::net::IpAddr;
use std::path::Path;

use registry::store::etcd::EtcdStore;
use testing::aws::AwsApi;
use testing::dns::{DnsServer, Manner};
use testing::docker_api::{DockerApi, running};
use testing::marathon::{Marathon, task};
use testing::zookeeper::ZooKeeperServer;
use zookeeper::NodeKind;

use super::support::traffic::{HttpBackend, Load};
use super::*;

fn write(path: &Path, backends: &Value) {
    let new = path.with_extension("new");
    std::fs::write(&new, backends.to_string()).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// A container that publishes port 80 at this address.
fn container(address: SocketAddr) -> Value {
    let mut container = running(1, "example/web:1");
    let binding = json!([{"HostIp": "127.0.0.1", "HostPort": address.port().to_string()}]);
    container["NetworkSettings"]["Ports"] = json!({"80/tcp": binding});
    container
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_any_one_source_under_load_leaves_all_others_and_all_pools_untouched() {
    let (names, mut api) = (DnsServer::start().await, DockerApi::start());
    let (etcd, dir) = (Etcd::start(), tempfile::tempdir().unwrap());
    let (ec2, marathon, mut zookeeper) = (AwsApi::start().await, Marathon::start().await, ZooKeeperServer::start());
    let backend = HttpBackend::start("x").await;
    let own = json!([backend.address.to_string()]);
    let at = |name: &str| dir.path().join(name);
    for file in ["file.json", "left.json", "right.json", "witness.json"] {
        write(&at(file), &if file == "right.json" { json!([]) } else { own.clone() });
    }
    names.set("web.example", &[IpAddr::from([127, 0, 0, 1])]);
    api.put(container(backend.address));
    ec2.run(&["127.0.0.1".to_owned()]);
    marathon.set("/group/web", vec![task("one", "127.0.0.1", backend.address.port())], true);
    let operator = zookeeper.client();
    let path = "/nerve/web".parse().unwrap();
    operator.create_all(&path).await.unwrap();
    let data = json!({"host": "127.0.0.1", "port": backend.address.port(), "name": "x"}).to_string();
    operator.create(&path.child("x_1").unwrap(), data.as_bytes(), NodeKind::Persistent).await.unwrap();
    let file = |name: &str| json!({"method": "file", "path": at(name)});
    let discoveries = [
        ("file", file("file.json")),
        (
            "multi",
            json!({"method": "multi", "resolver": {"method": "union"}, "watchers": {"left": file("left.json"), "right": file("right.json")}}),
        ),
        (
            "dns",
            json!({"method": "dns", "nameserver": names.address(), "check_interval": 0.2,
            "servers": [{"host": "web.example", "port": backend.address.port()}]}),
        ),
        (
            "docker",
            json!({"method": "docker", "servers": [{"host": api.host()}], "image_name": "example/web", "container_port": 80,
            "check_interval": 1}),
        ),
        (
            "ec2tag",
            json!({"method": "ec2tag", "tag_name": "role", "tag_value": "web", "aws_region": "eu-west-1", "check_interval": 0.3,
            "aws_endpoint_url": ec2.url(), "aws_access_key_id": "test", "aws_secret_access_key": "test"}),
        ),
        (
            "marathon",
            json!({"method": "marathon", "marathon_api_url": marathon.url(), "application_name": "/group/web", "check_interval": 0.3}),
        ),
        ("zookeeper", json!({"method": "zookeeper", "hosts": [zookeeper.address().to_string()], "path": "/nerve/web"})),
        ("witness", file("witness.json")),
    ];
    let mut ports = vec![free_port()];
    let mut more = serde_json::Map::new();
    for (name, discovery) in discoveries {
        ports.push(free_port());
        let mut service = json!({"discovery": discovery, "haproxy": {"port": ports.last()}});
        if name == "ec2tag" {
            service["backend_port_override"] = json!(backend.address.port());
        }
        more.insert(name.to_owned(), service);
    }
    let config = config(dir.path(), &etcd, ports[0], Value::Object(more));
    std::fs::write(at("synapse.json"), config.to_string()).unwrap();
    let store: EtcdStore = etcd.store();
    let agent = agent(dir.path());
    let mut world = World { dir, etcd, store, port: ports[0], agent };
    world.put(1, backend.address).await;
    for port in &ports {
        eventually("each service answers", async || get(*port).await == "x").await;
    }
    let loads: Vec<Load> = ports.iter().map(|port| Load::start(*port, 2)).collect();
    let before = servers(&world);
    assert_eq!(before.len(), ports.len(), "{before:?}");

    let (mut ec2, mut marathon) = (Some(ec2), Some(marathon));
    let kills: [(&str, &str); 8] = [
        ("web", "etcd"),
        ("file", "file.json"),
        ("multi/left", "left.json"),
        ("dns", "dns"),
        ("docker/127.0.0.1", "docker"),
        ("ec2tag", "ec2"),
        ("marathon", "marathon"),
        ("zookeeper", "zookeeper"),
    ];
    for (n, (source, kill)) in kills.into_iter().enumerate() {
        match kill {
            "etcd" => world.etcd.kill(),
            "dns" => names.behave(Manner::Silent),
            "docker" => api.go_away(),
            "ec2" => drop(ec2.take()),
            "marathon" => drop(marathon.take()),
            "zookeeper" => zookeeper.kill(),
            file => std::fs::remove_file(world.path(file)).unwrap(),
        }
        // Which is dead is noticed, and the others are not: a change at another one comes through.
        let other = json!([{"host": "127.0.0.1", "port": backend.address.port(), "name": format!("turn{n}")}]);
        write(&world.path("witness.json"), &other);
        let out = world.path("out/witness.json");
        eventually("a change elsewhere", async || {
            std::fs::read_to_string(&out).is_ok_and(|text| text.contains(&format!("turn{n}")))
        })
        .await;
        for load in &loads {
            load.flows(30).await;
        }
        if !source.contains('/') {
            let log = world.path("log");
            eventually("the dead one is shown", async || {
                let log = std::fs::read_to_string(&log).unwrap();
                log.lines().any(|l| l.contains(&format!("\"{source}\"")) && l.contains("stale"))
            })
            .await;
        }
        let now = servers(&world);
        for server in before.iter().filter(|s| !s.starts_with("witness")) {
            assert!(now.contains(server), "after killing {source}: {server} is missing in {now:?}");
        }
    }
    for load in loads {
        assert!(load.finish().await > 0);
    }
}

/// Every server that is not disabled: its section's name and its line.
fn servers(world: &World) -> Vec<String> {
    let (mut section, mut servers) = (String::new(), Vec::new());
    for line in world.cfg().lines() {
        if let Some(name) = line.strip_prefix("backend ") {
            name.clone_into(&mut section);
        } else if line.starts_with("\tserver ") && !line.ends_with(" disabled") {
            servers.push(format!("{section}{line}"));
        }
    }
    servers
}
