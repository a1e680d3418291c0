//! Ready means serving: what `/ready`, the metric, `status --ready` and the status say while HAProxy does not run what is desired.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use e2e::agents::{Agent, Discover, Register, binary};
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
        // A wrapper, whose name is not the one of the process that it executes.
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

/// What all of them say, if they agree: whether discover is ready. The command is the images' HEALTHCHECK.
async fn says(agent: &Agent) -> Result<bool> {
    let mut client = Client::new(agent.address(), false, PATIENCE);
    let reply = client.get("/ready").await.during("asking /ready")?;
    let page = client.get("/").await.during("asking for the page")?.body;
    let metric = agent.metric("discover_ready").await?;
    let reasons = agent.metric("discover_not_ready").await?;
    let status = agent.status().await?;
    let admin = format!("http://{}", agent.address());
    let command = Command::new(binary("discover")?).args(["status", "--ready", "--admin", &admin]).output();
    let command = command.during("running discover status --ready")?;
    let told = [
        reply.status == 200,
        page.contains(r#"class="pill good">ready<"#),
        metric == 1.0,
        reasons == 0.0,
        status["ready"] == "yes",
        command.status.success(),
    ];
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

/// Sends a signal to all of HAProxy's processes.
fn signal_haproxy(lab: &Lab, signal: Signal) -> Result<()> {
    lab.processes("haproxy")
        .into_iter()
        .try_for_each(|pid| kill(Pid::from_raw(pid), signal))
        .during("signalling HAProxy")
}

/// Ends HAProxy with its master, which is the eldest of its processes.
fn kill_haproxy(lab: &Lab) -> Result<()> {
    let master = *lab.processes("haproxy").first().during("HAProxy's master is not there")?;
    kill(Pid::from_raw(master), Signal::SIGKILL).during("killing HAProxy")
}

/// What keeps HAProxy from running what is desired, once it runs.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Refuses,
    Dies,
    Hangs,
}

impl Trouble {
    async fn begin(self, lab: &Lab, moody: &Moody) -> Result<()> {
        match self {
            Self::Refuses => moody.is("refuses"),
            Self::Dies => {
                moody.is("away")?;
                kill_haproxy(lab)
            }
            Self::Hangs => signal_haproxy(lab, Signal::SIGSTOP),
        }
    }

    fn end(self, lab: &Lab, moody: &Moody) -> Result<()> {
        match self {
            Self::Refuses | Self::Dies => moody.is("works"),
            Self::Hangs => signal_haproxy(lab, Signal::SIGCONT),
        }
    }
}

/// Waits until the agent's log has a warning or an error beyond that length.
async fn warned_since(agent: &Agent, length: usize, why: &str) -> Result<()> {
    let warned = async || {
        let log = agent.log();
        let fresh = log.get(length..).unwrap_or_default();
        fresh.contains(r#""level":"WARN""#) || fresh.contains(r#""level":"ERROR""#)
    };
    wait::until_true(&format!("a word in the log: {why}"), PATIENCE, warned).await
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
            let mut agent = started(lab, &discover, &etcd).await?;
            becomes(&agent, false, &format!("HAProxy {mood} at the start")).await?;
            warned_since(&agent, 0, mood).await?;
            moody.is("works")?;
            becomes(&agent, true, &format!("HAProxy works after it was {mood}")).await?;
            routed(to_first, &first.name).await?;
            for trouble in [Trouble::Refuses, Trouble::Dies, Trouble::Hangs] {
                let logged = agent.log().len();
                trouble.begin(lab, &moody).await?;
                // Something to bring about, which a HAProxy in trouble does not.
                let (later, to_later) = service(&etcd, &format!("later-{n}-{trouble:?}").to_lowercase()).await?;
                becomes(&agent, false, &format!("HAProxy {trouble:?}")).await?;
                warned_since(&agent, logged, &format!("{trouble:?}")).await?;
                trouble.end(lab, &moody)?;
                becomes(&agent, true, &format!("no more: {trouble:?}")).await?;
                routed(to_later, &later.name).await?;
            }
            agent.process().stop(PATIENCE).await?;
            if n == 0 {
                // It outlives discover, on the ports of the services.
                kill_haproxy(lab)?;
                wait::until_true("HAProxy's end", PATIENCE, async || lab.processes("haproxy").is_empty()).await?;
            }
        }
        a_reload_fails(lab, &etcd, &moody, to_first, &first.name).await
    })
}

/// The operator's own bind, which nobody tries beforehand, is taken: `haproxy -c` finds nothing, and the reload fails.
async fn a_reload_fails(lab: &Lab, etcd: &Etcd, moody: &Moody, to_first: SocketAddr, name: &str) -> Result<()> {
    let stranger = TcpListener::bind("127.0.0.1:0").during("taking a port")?;
    let theirs = stranger.local_addr().during("asking for the port")?;
    let templates = lab.subdir("templates")?;
    let header = include_str!("../../discover/src/generators/haproxy/file/templates/header.tera");
    let header = format!("{header}\nlisten mine\n\tbind {theirs}\n");
    std::fs::write(templates.join("header.tera"), header).during("writing a template")?;
    let flags = ["--templates", &templates.to_string_lossy()].map(str::to_owned);
    let discover = Discover::new("discover-1", &moody.haproxy).args(&flags.each_ref().map(String::as_str));
    let mut agent = started(lab, &discover, etcd).await?;
    becomes(&agent, false, "the reload fails").await?;
    warned_since(&agent, 0, "the reload fails").await?;
    routed(to_first, name).await?;
    drop(stranger);
    becomes(&agent, true, "the reload succeeds").await?;
    agent.process().stop(PATIENCE).await?;
    Ok(())
}

/// Starts discover, and waits until it answers at all.
async fn started(lab: &Lab, discover: &Discover, etcd: &Etcd) -> Result<Agent> {
    let agent = discover.spawn(lab, Some(&etcd.endpoint().authority()))?;
    let answers = async || Client::new(agent.address(), false, PATIENCE).get("/live").await.is_ok();
    wait::until_true("an agent that answers", PATIENCE, answers).await?;
    Ok(agent)
}

#[test]
fn register_lives_and_says_why_before_docker_has_answered() -> Result<()> {
    in_lab(async |lab| {
        let (etcd, socket) = (Etcd::start(), lab.dir().join("docker.sock"));
        let host = format!("unix://{}", socket.display());
        let register = Register::new("early").args(&["--docker-host", &host]);
        let mut agent = register.spawn(lab, &etcd.endpoint().authority())?;
        let mut client = Client::new(agent.address(), false, PATIENCE);
        let ready = wait::until("an answer", PATIENCE, async || client.get("/ready").await.ok()).await?;
        assert!(ready.status == 503 && ready.body.contains("Docker does not answer"), "{ready:?}");
        assert_eq!(client.get("/live").await.during("asking /live")?.status, 200);
        assert!(client.get("/").await.during("asking for the page")?.body.contains("not ready"));
        assert_eq!(agent.metric("register_not_ready").await?, 1.0);
        // The real one, which it finds by itself.
        std::os::unix::fs::symlink("/var/run/docker.sock", &socket).during("making a socket")?;
        agent.ready().await?;
        assert_eq!(agent.metric("register_ready").await?, 1.0);
        Ok(())
    })
}
