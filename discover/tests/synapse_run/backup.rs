//! EC2 instances with a second port for when the first one is dead, as the clay.io fork has it.

use testing::aws::AwsApi;

use super::support::traffic::HttpBackend;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn ec2tags_instances_serve_at_their_backup_port_when_the_other_one_is_dead() {
    let (etcd, dir, ec2) = (Etcd::start(), tempfile::tempdir().unwrap(), AwsApi::start().await);
    let (first, second) = (HttpBackend::start("first").await, HttpBackend::start("second").await);
    ec2.run(&["127.0.0.1".to_owned()]);
    let (port, ports) = (free_port(), [first.address.port(), second.address.port()]);
    let service = json!({
        "discovery": {
            "method": "ec2tag", "tag_name": "role", "tag_value": "web", "aws_region": "eu-west-1", "check_interval": 0.3,
            "aws_endpoint_url": ec2.url(), "aws_access_key_id": "test", "aws_secret_access_key": "test",
        },
        "backend_port_override": ports[0],
        "haproxy": {"port": port, "server_backup_port": ports[1], "server_options": "check inter 100ms fall 2"},
    });
    let config = config(dir.path(), &etcd, free_port(), json!({"instances": service}));
    std::fs::write(dir.path().join("synapse.json"), config.to_string()).unwrap();
    let (store, agent) = (etcd.store(), agent(dir.path()));
    let world = World { dir, etcd, store, port, agent };
    eventually("the instance answers", async || get(port).await == "first").await;
    let written = world.cfg();
    let line = format!("\tserver ip-127.0.0.1_127.0.0.1:{} 127.0.0.1:{} ", ports[1], ports[1]);
    let backup = written.lines().find(|l| l.starts_with(&line)).unwrap_or_else(|| panic!("{written}"));
    assert!(backup.split(' ').any(|word| word == "backup"), "{backup}");
    first.kill();
    eventually("its backup port answers", async || get(port).await == "second").await;
}
