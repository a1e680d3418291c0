//! Ready means serving: what `/ready`, the metric, `status --ready` and the status say while HAProxy does not run what is desired.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use e2e::agents::{Agent, Discover, binary};
use e2e::haproxy::Haproxy;
use e2e::http::Client;
use e2e::scene::routed;
use e2e::server::Server;
use e2e::{Context, Etcd, Lab, LabError, Result, free_port, haproxy, in_lab, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long discover may take to notice, and to try again.
const PATIENCE: Duration = Duration::from_secs(90);

/// A HAProxy that works, cannot be started, or refuses every config, as it is told.
struct Moody {
    haproxy: Haproxy,
    mood: PathBuf,
}

impl Moody {
    fn new(lab: &Lab) -> Result<Self> {
        let real = haproxy::newest()?;
        let (program, mood) = (lab.dir().join("moody-haproxy"), lab.dir().join("mood"));
        let script = format!(
            "#!/bin/sh\nread -r mood < {mood}\n\
             [ \"$mood\" != away ] || exit 127\n\
             case \"$mood $*\" in \"refuses \"*-c*) echo '[ALERT] (1) : config : moody today' >&2; exit 1 ;; esac\n\
             exec {real} \"$@\"\n",
            mood = mood.display(),
            real = real.path.display(),
        );
        std::fs::write(&program, script).during("writing a HAProxy")?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).during("making it a program")?;
        Ok(Self { haproxy: Haproxy { path: program, ..real }, mood })
    }

    fn is(&self, mood: &str) -> Result<()> {
        std::fs::write(&self.mood, format!("{mood}\n")).during("changing a mood")
    }
}

/// What all of them say, if they agree: whether discover is ready.
async fn says(agent: &Agent) -> Result<bool> {
    let reply = Client::new(agent.address(), false, PATIENCE).get("/ready").await.during("asking /ready")?;
    let metric = agent.metric("discover_ready").await?;
    let reasons = agent.metric("discover_not_ready").await?;
    let status = agent.status().await?;
    let admin = format!("http://{}", agent.address());
    let command = Command::new(binary("discover")?).args(["status", "--ready", "--admin", &admin]).output();
    let command = command.during("running discover status --ready")?;
    let told = [reply.status == 200, metric == 1.0, reasons == 0.0, status["ready"] == "yes", command.status.success()];
    let ready = told[0];
    if told.iter().any(|told| *told != ready) {
        return Err(LabError::new(format!("they do not agree: {told:?}, {}, {status}", reply.body)));
    }
    if !ready {
        let why: serde_json::Value = serde_json::from_str(&reply.body).during("reading /ready")?;
        let (reason, detail) = (why["reason"].as_str(), why["detail"].as_str());
        let error = String::from_utf8_lossy(&command.stderr).into_owned();
        if reason.is_none() || detail.is_none_or(|detail| detail.is_empty() || !error.contains(detail)) {
            return Err(LabError::new(format!("no reason in {} or {error:?}", reply.body)));
        }
    }
    Ok(ready)
}

/// Waits until all of them say so.
async fn becomes(agent: &Agent, ready: bool, why: &str) -> Result<()> {
    let mut last = String::new();
    let what = format!("{why}: ready {ready}");
    let agree = wait::until_true(&what, PATIENCE, async || match says(agent).await {
        Ok(now) => now == ready,
        Err(error) => {
            last = format!("{error:?}");
            false
        }
    });
    let agreed = agree.await;
    agreed.during(format!("the last disagreement was {last:?}"))
}

/// An etcd with a service at its own port.
async fn service(etcd: &Etcd, name: &str) -> Result<(Server, SocketAddr)> {
    let (server, to) = (Server::start(name).await?, SocketAddr::from(([127, 0, 0, 1], free_port())));
    let value = format!(
        r#"{{"host":"{}","port":{},"service_port":{},"mode":"http"}}"#,
        server.address.ip(),
        server.address.port(),
        to.port()
    );
    etcd.operator().await.put(format!("/backends/{name}/a"), value, None).await.during("putting into etcd")?;
    Ok((server, to))
}

/// Ends HAProxy with its master, which is the eldest of its processes.
fn kill_haproxy(lab: &Lab) -> Result<()> {
    let master = *lab.processes("haproxy").first().during("HAProxy's master is not there")?;
    kill(Pid::from_raw(master), Signal::SIGKILL).during("killing HAProxy")
}

#[test]
fn ready_is_said_by_all_alike_while_haproxy_runs_what_is_desired_and_never_else() -> Result<()> {
    in_lab(async |lab| {
        let etcd = Etcd::start();
        let moody = Moody::new(lab)?;
        let (first, to_first) = service(&etcd, "first").await?;
        for (n, mood) in ["away", "refuses"].into_iter().enumerate() {
            moody.is(mood)?;
            let discover = Discover::new(&format!("discover-{n}"), &moody.haproxy);
            let mut agent = discover.spawn(lab, Some(&etcd.endpoint().authority()))?;
            let answers = async || Client::new(agent.address(), false, PATIENCE).get("/live").await.is_ok();
            wait::until_true("an agent that answers", PATIENCE, answers).await?;
            becomes(&agent, false, &format!("HAProxy {mood} at the start")).await?;
            moody.is("works")?;
            becomes(&agent, true, &format!("HAProxy works after it was {mood}")).await?;
            routed(to_first, &first.name).await?;

            moody.is("refuses")?;
            let (later, to_later) = service(&etcd, &format!("later-{n}")).await?;
            becomes(&agent, false, "HAProxy refuses a later config").await?;
            routed(to_first, &first.name).await?;
            moody.is("works")?;
            becomes(&agent, true, "HAProxy takes the later config").await?;
            routed(to_later, &later.name).await?;

            moody.is("away")?;
            kill_haproxy(lab)?;
            becomes(&agent, false, "HAProxy died and cannot be started").await?;
            moody.is("works")?;
            becomes(&agent, true, "HAProxy can be started again").await?;
            routed(to_later, &later.name).await?;
            agent.process().stop(PATIENCE).await?;
            // It outlives discover, on the ports of the services.
            kill_haproxy(lab)?;
            wait::until_true("HAProxy's end", PATIENCE, async || lab.processes("haproxy").is_empty()).await?;
        }
        Ok(())
    })
}
