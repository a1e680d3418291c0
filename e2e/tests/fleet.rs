//! A fleet of Nerve and Synapse: what `register` writes to ZooKeeper goes through `discover` to HAProxy, and hosts move from
//! ZooKeeper to etcd one by one, under load.

use std::path::PathBuf;
use std::time::Duration;

use e2e::agents::Agent;
use e2e::haproxy::Haproxy;
use e2e::scene::{PATIENCE, each_haproxy, loopback, routed};
use e2e::server::Server;
use e2e::traffic::{Load, Plan};
use e2e::{Context, Etcd, Lab, LabError, Result, free_port, wait};
use serde_json::{Value, json};
use testing::zookeeper::ZooKeeperServer;
use zookeeper::{NodeKind, ZkPath, ZooKeeper, child};

const PATH: &str = "/nerve/services/web";
const NAMES: [&str; 3] = ["host-a", "host-b", "host-c"];

/// Where things are: a registry of each kind, and HAProxy's port.
struct Fleet<'a> {
    lab: &'a Lab,
    haproxy: &'a Haproxy,
    zookeeper: ZooKeeperServer,
    etcd: Etcd,
    port: u16,
}

impl Fleet<'_> {
    fn write(&self, name: &str, config: &Value) -> Result<PathBuf> {
        let path = self.lab.dir().join(name);
        std::fs::write(&path, config.to_string()).during(format!("writing {name}"))?;
        Ok(path)
    }

    fn zookeeper(&self) -> Value {
        json!({"method": "zookeeper", "hosts": [self.zookeeper.address().to_string()], "path": PATH})
    }

    fn etcd(&self) -> Value {
        json!({"method": "etcd", "hosts": [self.etcd.endpoint().authority()], "path": PATH})
    }

    /// Synapse's config; HAProxy by its commands.
    fn synapse(&self, discovery: &Value) -> Result<PathBuf> {
        let at = |name: &str| self.lab.dir().join(name).display().to_string();
        let (cfg, pid) = (at("haproxy.cfg"), at("haproxy.pid"));
        let start = format!("{} -W -D -p {pid} -f {cfg}", self.haproxy.path.display());
        let reload = format!("if [ -f {pid} ]; then kill -USR2 $(cat {pid}); else {start}; fi");
        let config = json!({
            "haproxy": {
                "global": [format!("stats socket {} mode 600 level admin", at("stats.sock")), "hard-stop-after 10s"],
                "defaults": ["mode http", "timeout connect 1s", "timeout client 10s", "timeout server 10s", "balance roundrobin", "option redispatch"],
                "config_file_path": cfg, "socket_file_path": at("stats.sock"), "reload_command": reload,
                "restart_interval": 1, "bind_address": "127.0.0.1",
            },
            "file_output": {"output_directory": at("out")},
            "services": {"web": {"discovery": discovery, "haproxy": {"port": self.port, "server_options": "check inter 500ms"}}},
        });
        self.write("synapse.json", &config)
    }

    /// Starts discover with this discovery.
    async fn discover(&self, discovery: &Value) -> Result<Agent> {
        let path = self.synapse(discovery)?;
        let mut agent = Agent::of_config(self.lab, "discover", &path)?;
        agent.ready().await?;
        Ok(agent)
    }

    /// Starts register on a host, as Nerve is started there.
    fn register(&self, server: &Server, reporters: &Value) -> Result<Agent> {
        let config = json!({
            "instance_id": &*server.name,
            "services": {"web": {
                "host": "127.0.0.1", "port": server.address.port(), "check_interval": 0.1,
                "checks": [{"type": "tcp", "timeout": 1}], "reporters": reporters,
            }},
        });
        let path = self.write(&format!("{}.json", server.name), &config)?;
        Agent::of_nerve(self.lab, &server.name, &path, &self.etcd.endpoint().authority())
    }

    fn in_zookeeper(&self) -> Value {
        json!([{"reporter_type": "zookeeper", "zk_hosts": [self.zookeeper.address().to_string()], "zk_path": PATH}])
    }

    fn in_etcd(&self) -> Value {
        let etcd = self.etcd.endpoint();
        json!([{"reporter_type": "etcd", "etcd_host": etcd.host, "etcd_port": etcd.port, "etcd_path": PATH}])
    }

    /// The ports that discover has written for the service.
    fn written(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(self.lab.dir().join("out/web.json")).unwrap_or_default();
        let backends: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
        let mut ports: Vec<u64> = backends.iter().filter_map(|backend| backend["port"].as_u64()).collect();
        ports.sort_unstable();
        ports
    }

    async fn until_written(&self, servers: &[&Server]) -> Result<()> {
        let mut ports: Vec<u64> = servers.iter().map(|server| server.address.port().into()).collect();
        ports.sort_unstable();
        wait::until_true(&format!("{ports:?} in the file"), PATIENCE, async || self.written() == ports).await
    }
}

/// A host where the old Nerve runs: a session of its own, and in it what Nerve writes.
async fn nerve(fleet: &Fleet<'_>, server: &Server) -> Result<ZooKeeper> {
    let zk = fleet.zookeeper.client();
    let path: ZkPath = PATH.parse().during("reading a path")?;
    zk.create_all(&path).await.during("making Nerve's path")?;
    let node = path.child(&child::plain(&server.name)).during("naming a node")?;
    let payload = json!({"host": "127.0.0.1", "port": server.address.port(), "name": &*server.name}).to_string();
    zk.create(&node, payload.as_bytes(), NodeKind::EphemeralSequential).await.during("registering as Nerve")?;
    Ok(zk)
}

async fn fleet<'a>(lab: &'a Lab, haproxy: &'a Haproxy) -> Fleet<'a> {
    Fleet { lab, haproxy, zookeeper: ZooKeeperServer::start(), etcd: Etcd::start(), port: free_port() }
}

async fn servers() -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for name in NAMES {
        servers.push(Server::start(name).await?);
    }
    Ok(servers)
}

/// Waits until the load has reached all of them again.
async fn reaches(load: &Load, servers: &[Server]) -> Result<()> {
    let before: Vec<u64> = servers.iter().map(|server| load.answered_by(&server.name)).collect();
    wait::until_true("load on every host", PATIENCE, async || {
        servers.iter().zip(&before).all(|(server, before)| load.answered_by(&server.name) > before + 5)
    })
    .await
}

#[test]
fn what_register_writes_to_zookeeper_is_routed_and_read_back_byte_for_byte() -> Result<()> {
    each_haproxy(async |lab, haproxy| {
        let (mut fleet, servers) = (fleet(lab, haproxy).await, servers().await?);
        let _discover = fleet.discover(&fleet.zookeeper()).await?;
        let mut agents = Vec::new();
        for server in &servers {
            agents.push(fleet.register(server, &fleet.in_zookeeper())?);
        }
        fleet.until_written(&servers.iter().collect::<Vec<_>>()).await?;
        let to = loopback(fleet.port);
        routed(to, &servers[0].name).await?;
        // ZooKeeper's own client sees Nerve's bytes, and Synapse's seven fields come out at the other end.
        let (zk, path) = (fleet.zookeeper.client(), PATH.parse::<ZkPath>().during("reading a path")?);
        let (mut names, _) = zk.children(&path, false).await.during("listing")?.during("no such path")?;
        names.sort();
        let stems: Vec<&str> = names.iter().filter_map(|name| name.rsplit_once('_')).map(|(stem, _)| stem).collect();
        assert_eq!(stems, NAMES);
        let node = format!("{PATH}/{}", names[0]);
        let want = format!(r#"{{"host":"127.0.0.1","port":{},"name":"host-a"}}"#, servers[0].address.port());
        let told = fleet.zookeeper.cli(&["get", &node]);
        assert!(told.lines().any(|line| line == want), "{told}");
        let out = std::fs::read_to_string(lab.dir().join("out/web.json")).during("reading the file")?;
        let fields = format!(
            r#"{{"name":"host-a","host":"127.0.0.1","port":{},"id":{},"weight":null,"haproxy_server_options":null,"labels":null}}"#,
            servers[0].address.port(),
            child::number(&names[0]).during("a node without a number")?
        );
        assert!(out.contains(&fields), "{fields} is not in {out}");

        let load = Load::start(&Plan::mixed(to));
        reaches(&load, &servers).await?;
        // A session ends, the server restarts, an agent is killed and comes back: nobody's request fails.
        let sid = fleet.zookeeper.four_letters("cons").during("asking for sessions")?;
        let first = sid.split("sid=0x").nth(1).and_then(|s| s.split(',').next()).during("no session")?;
        fleet.zookeeper.expire(i64::from_str_radix(first, 16).during("reading a session's id")?);
        reaches(&load, &servers).await?;
        fleet.zookeeper.restart();
        reaches(&load, &servers).await?;
        agents[1].crash_and_restart().await?;
        reaches(&load, &servers).await?;
        load.stop().await.must_be_clean("sessions ended and servers restarted")
    })
}

#[test]
fn a_fleet_moves_from_zookeeper_to_etcd_host_by_host_without_a_failed_request() -> Result<()> {
    each_haproxy(async |lab, haproxy| {
        let (fleet, servers) = (fleet(lab, haproxy).await, servers().await?);
        let mut nerves = Vec::new();
        for server in &servers {
            nerves.push(nerve(&fleet, server).await?);
        }
        let all: Vec<&Server> = servers.iter().collect();
        // The client hosts come first: as Synapse was, and then reading both, etcd preferred.
        let discover = fleet.discover(&fleet.zookeeper()).await?;
        fleet.until_written(&all).await?;
        let to = loopback(fleet.port);
        routed(to, &servers[0].name).await?;
        let load = Load::start(&Plan { at_most: Duration::from_mins(3), ..Plan::mixed(to) });
        reaches(&load, &servers).await?;
        let both = json!({
            "method": "multi", "resolver": {"method": "union"},
            "watchers": {"etcd": fleet.etcd(), "zookeeper": fleet.zookeeper()},
        });
        fleet.synapse(&both)?;
        let sources = async || discover.status().await.is_ok_and(|status| status.to_string().contains("web/zookeeper"));
        wait::until_true("discover to read both", PATIENCE, sources).await?;
        reaches(&load, &servers).await?;
        // Then host by host: register beside Nerve, and Nerve ends.
        let mut agents = Vec::new();
        for (server, nerve) in servers.iter().zip(nerves) {
            agents.push(fleet.register(server, &fleet.in_etcd())?);
            let mut client = fleet.etcd.operator().await;
            wait::until_true("the host in etcd", PATIENCE, async || {
                let options = etcd_client::GetOptions::new().with_prefix();
                let key = format!("{PATH}/{}/", server.name);
                client.get(key, Some(options)).await.is_ok_and(|reply| reply.kvs().len() == 1)
            })
            .await?;
            reaches(&load, &servers).await?;
            nerve.close().await.during("ending Nerve")?;
            reaches(&load, &servers).await?;
            fleet.until_written(&all).await?;
        }
        // At last only etcd is read, and ZooKeeper may go.
        fleet.synapse(&fleet.etcd())?;
        wait::until_true("discover to read etcd only", PATIENCE, async || !sources().await).await?;
        fleet.until_written(&all).await?;
        reaches(&load, &servers).await?;
        let Fleet { zookeeper, .. } = fleet;
        drop(zookeeper);
        reaches(&load, &servers).await?;
        let report = load.stop().await;
        report.must_be_clean("a fleet moved")?;
        if report.requests < 500 {
            return Err(LabError::new(format!("too few requests to prove anything: {report}")));
        }
        Ok(())
    })
}
