//! The switches of haproxy's section, by what `discover run -c` does to files and calls: no HAProxy is needed to see that.

use std::path::{Path, PathBuf};
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::agent;
use crate::support::{eventually, free_port};

/// An agent whose commands write down that they were called.
struct World {
    dir: tempfile::TempDir,
    /// HAProxy takes no file without a listener.
    port: u16,
    agent: Option<Child>,
}

impl World {
    fn start(switches: Value) -> Self {
        let mut world = Self { dir: tempfile::tempdir().unwrap(), port: free_port(), agent: None };
        world.write(switches, 1);
        world.agent = Some(agent(world.dir.path()));
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, switches: Value, host: u16) {
        let note = |what: &str| format!("echo {what} >> {}", self.at("calls").display());
        let candidate = self.at("candidate.cfg");
        let mut haproxy = json!({
            "global": ["maxconn 9"], "defaults": ["mode http"],
            "config_file_path": self.at("haproxy.cfg"), "candidate_config_file_path": candidate, "do_socket": false,
            "reload_command": note("reload"), "restart_interval": 0,
            "check_command": format!("{}; ! grep -q 10.0.0.9 {}", note("check"), candidate.display()),
            "state_file_path": self.at("state.json"), "state_file_ttl": 60,
        });
        haproxy.as_object_mut().unwrap().extend(switches.as_object().unwrap().clone());
        let discovery = json!({"method": "base"});
        let servers = json!([{"host": format!("10.0.0.{host}"), "port": 80}]);
        let config = json!({
            "haproxy": haproxy, "file_output": {"output_directory": self.at("out")},
            "services": {"web": {"discovery": discovery, "default_servers": servers, "haproxy": {"port": self.port}}},
        });
        std::fs::write(self.at("synapse.json"), config.to_string()).unwrap();
    }

    /// Another config, and the answer to it: file_output comes after haproxy in a turn.
    async fn change(&self, switches: Value, host: u16) {
        self.write(switches, host);
        kill(Pid::from_raw(self.agent.as_ref().unwrap().id().try_into().unwrap()), Signal::SIGHUP).unwrap();
        self.turned(host).await;
    }

    async fn turned(&self, host: u16) {
        let wanted = format!("10.0.0.{host}");
        eventually("a turn", async || read(&self.at("out/web.json")).contains(&wanted)).await;
    }

    fn cfg(&self) -> String {
        read(&self.at("haproxy.cfg"))
    }

    fn calls(&self) -> Vec<String> {
        read(&self.at("calls")).lines().map(str::to_owned).collect()
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            let _ = kill(Pid::from_raw(agent.id().try_into().unwrap()), Signal::SIGTERM);
            let _ = agent.wait();
        }
    }
}

#[tokio::test]
async fn a_change_is_written_and_reloaded() {
    let world = World::start(json!({"do_checks": false, "check_command": "true"}));
    world.turned(1).await;
    eventually("the first reload", async || world.calls() == ["reload"]).await;
    let file = world.cfg();
    assert!(file.contains("maxconn 9") && file.contains("\tmode http") && file.contains("10.0.0.1:80"), "{file}");
    let state: Value = serde_json::from_str(&read(&world.at("state.json"))).unwrap();
    assert_eq!(state["web"]["10.0.0.1:80"]["haproxy_server_id"], 1);
}

#[tokio::test]
async fn do_writes_false_touches_no_file_and_calls_nobody() {
    let world = World::start(json!({"do_writes": false}));
    world.turned(1).await;
    assert_eq!((world.cfg().as_str(), world.calls().len()), ("", 0));
}

#[tokio::test]
async fn do_reloads_false_writes_and_does_not_reload() {
    let world = World::start(json!({"do_reloads": false}));
    world.turned(1).await;
    world.change(json!({"do_reloads": false}), 2).await;
    eventually("the second file", async || world.cfg().contains("10.0.0.2:80")).await;
    assert!(!world.calls().contains(&"reload".to_owned()), "{:?}", world.calls());
}

#[tokio::test]
async fn do_checks_has_the_candidate_judged_by_check_command() {
    let checked = json!({"do_checks": true});
    let world = World::start(checked.clone());
    world.turned(1).await;
    eventually("the first reload", async || world.calls() == ["check", "reload"]).await;
    world.change(checked, 9).await;
    eventually("the second check", async || world.calls().len() > 2).await;
    assert!(world.cfg().contains("10.0.0.1:80"), "the last good file stays");
    assert_eq!(world.calls().iter().filter(|call| *call == "reload").count(), 1, "and nothing is reloaded");
    assert!(read(&world.at("candidate.cfg")).contains("10.0.0.9"), "the candidate lies where it was asked for");
}
