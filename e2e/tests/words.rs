//! What both programs say: at their start, of HAProxy, of a socket without rights, and into a pipe that nobody reads.

use std::process::{Command, Stdio};

use discover::haproxy::api::runtime::Runtime;
use e2e::agents::{Agent, Discover, Register, binary};
use e2e::scene::{PATIENCE, each_haproxy, loopback, routed};
use e2e::server::Server;
use e2e::{Context, Etcd, Result, free_port, haproxy, in_lab, wait};
use serde_json::{Value, json};

/// The events of an agent's log.
fn events(agent: &Agent) -> Vec<Value> {
    agent.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The messages among them of HAProxy's own.
fn haproxys(agent: &Agent) -> Vec<String> {
    let own = |event: &Value| event["fields"]["source"] == "haproxy" || event["source"] == "haproxy";
    let message = |event: &Value| event["fields"]["message"].as_str().or(event["message"].as_str()).map(str::to_owned);
    events(agent).iter().filter(|event| own(event)).filter_map(message).collect()
}

async fn put(etcd: &Etcd, key: &str, server: &Server, port: u16) -> Result<()> {
    let value = json!({"host": "127.0.0.1", "port": server.address.port(), "service_port": port, "mode": "http"});
    etcd.operator().await.put(key, value.to_string(), None).await.during("registering")?;
    Ok(())
}

#[test]
fn an_agent_says_once_who_it_is_what_it_reads_and_what_it_writes() -> Result<()> {
    in_lab(async |lab| {
        let etcd = Etcd::start();
        let discover = Discover::new("discover", &haproxy::newest()?).start(lab, &etcd).await?;
        let register = Register::new("n1").start(lab, &etcd).await?;
        for (agent, words) in [(&discover, ["haproxy.cfg", "state.json"]), (&register, ["n1", "/backends"])] {
            let log = agent.log();
            let starts: Vec<&str> = log.lines().filter(|line| line.contains("\"Starting.\"")).collect();
            let [start] = starts[..] else { panic!("{log}") };
            let common = [env!("CARGO_PKG_VERSION"), &etcd.endpoint().authority()];
            for word in words.iter().chain(&common) {
                assert!(start.contains(word), "{word} is not in {start}");
            }
        }
        Ok(())
    })
}

#[test]
fn what_haproxy_says_is_in_the_log_as_its_own_and_the_proxies_that_a_reload_stops_are_one_line() -> Result<()> {
    each_haproxy(async |lab, haproxy| {
        let etcd = Etcd::start();
        let agent = Discover::new("discover", haproxy).args(&["--reload-interval", "0s"]).start(lab, &etcd).await?;
        let server = Server::start("web").await?;
        let ports = [free_port(), free_port()];
        put(&etcd, "/backends/web/one", &server, ports[0]).await?;
        routed(loopback(ports[0]), "web").await?;
        put(&etcd, "/backends/other/one", &server, ports[1]).await?;
        routed(loopback(ports[1]), "web").await?;
        let stopped = || haproxys(&agent).iter().filter(|said| said.ends_with("proxies stopped")).count();
        wait::until_true("a line for the worker that was replaced", PATIENCE, async || stopped() > 0).await?;
        let said = haproxys(&agent);
        assert!(said.iter().any(|line| line.contains("Loading success")), "{said:?}");
        assert!(!said.iter().any(|line| line.contains("cumulated conns")), "{said:?}");
        Ok(())
    })
}

/// A header of one's own, whose socket allows less than discover needs.
#[test]
fn a_runtime_socket_without_rights_costs_one_warning_and_no_reload() -> Result<()> {
    each_haproxy(async |lab, haproxy| {
        let (etcd, templates, port) = (Etcd::start(), lab.subdir("templates")?, free_port());
        let header = include_str!("../../discover/src/generators/haproxy/file/templates/header.tera");
        std::fs::write(templates.join("header.tera"), header.replace("level admin", "level operator"))
            .during("writing the header")?;
        let discover = Discover::new("discover", haproxy).args(&["--templates", &templates.to_string_lossy()]);
        let (agent, mut runtime) = (discover.start(lab, &etcd).await?, discover.runtime(lab)?);
        let (one, two) = (Server::start("one").await?, Server::start("two").await?);
        put(&etcd, "/backends/web/one", &one, port).await?;
        routed(loopback(port), "one").await?;
        agent.quiet().await?;
        let reloads = agent.metric("discover_reloads_total").await?;
        for round in 1..=3 {
            put(&etcd, "/backends/web/two", &two, port).await?;
            servers(&mut runtime, 2).await.during(format!("adding, round {round}"))?;
            etcd.operator().await.delete("/backends/web/two", None).await.during("deleting")?;
            servers(&mut runtime, 1).await.during(format!("removing, round {round}"))?;
        }
        assert_eq!(agent.metric("discover_reloads_total").await?, reloads, "{}", agent.log());
        let log = agent.log();
        let hints = log.lines().filter(|line| line.contains("level admin")).count();
        assert_eq!(hints, 2, "one of the check at the start, one of the first change: {log}");
        assert!(!log.contains("refused"), "{log}");
        Ok(())
    })
}

/// Waits until so many servers of `web` take requests.
async fn servers(runtime: &mut Runtime, count: usize) -> Result<()> {
    wait::until_true(&format!("{count} servers"), PATIENCE, async || {
        runtime.reopen();
        let rows = runtime.servers_state(None).await.unwrap_or_default();
        rows.iter().filter(|row| !row.admin.in_maintenance()).count() == count
    })
    .await
}

#[test]
fn a_pipe_that_nobody_reads_ends_every_command_quietly() -> Result<()> {
    in_lab(async |lab| {
        let etcd = Etcd::start();
        let agent = Discover::new("discover", &haproxy::newest()?).files_only().start(lab, &etcd).await?;
        let server = Server::start("web").await?;
        put(&etcd, "/backends/web/one", &server, free_port()).await?;
        let (admin, dir) = (agent.address().to_string(), lab.subdir("elsewhere")?);
        let dir = dir.to_string_lossy();
        let place = ["--dir", &dir, "--run-dir", &dir];
        let nerve = format!("{dir}/nerve.json");
        std::fs::write(&nerve, r#"{"instance_id": "i", "services": {}}"#).during("writing a config")?;
        let backends = format!("{dir}/backends.json");
        std::fs::write(&backends, r#"{"web": [{"host": "127.0.0.1", "port": 1, "service_port": 2}]}"#)
            .during("writing backends")?;
        let both: [&[&str]; 8] = [
            &["--help"],
            &["help"],
            &["help", "run"],
            &["--version"],
            &["version"],
            &["completions", "bash"],
            &["ls"],
            &["ls", "--json"],
        ];
        let own = [
            ("discover", vec!["status", "--admin", &admin]),
            ("discover", vec!["status", "--json", "--admin", &admin]),
            ("discover", [&["check"][..], &place].concat()),
            ("discover", [&["diff", "--haproxy", "files"][..], &place].concat()),
            ("discover", vec!["render", "--backends", &backends]),
            ("discover", vec!["watch"]),
            ("register", vec!["check", "-c", &nerve]),
            ("register", vec!["plan"]),
            ("register", vec!["explain"]),
        ];
        let common = ["register", "discover"].into_iter().flat_map(|program| both.map(|args| (program, args.to_vec())));
        for (program, args) in common.chain(own) {
            let (reader, writer) = std::io::pipe().during("making a pipe")?;
            drop(reader);
            let mut command = Command::new(binary(program)?);
            command.args(&args).env("ETCD_HOST", etcd.endpoint().authority()).stdin(Stdio::null()).stdout(writer);
            let ended = command.output().during("running it")?;
            let said = String::from_utf8_lossy(&ended.stderr);
            assert!(!said.contains("panicked") && !said.contains("roken pipe"), "{program} {args:?}: {said}");
            assert_eq!(ended.status.code(), Some(0), "{program} {args:?}: {said}");
        }
        Ok(())
    })
}
