//! The guard's proof: a thousand backends whose agents all fall silent at once, under load.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use discover::haproxy::api::runtime::Runtime;
use discover::haproxy::api::tables::{OperState, ServerState};
use e2e::agents::{Agent, Discover, binary};
use e2e::figures::megabytes;
use e2e::registrars::{Registrars, Size, name, port};
use e2e::scene::entries;
use e2e::traffic::{Load, Plan, Report};
use e2e::{Context, Etcd, Lab, LabError, Result, haproxy, in_lab, wait};

/// How long anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);
/// The shortest that etcd grants.
const TTL: Duration = Duration::from_secs(2);
/// Agents that hold leases, discover with HAProxy, and the registry between them.
struct World {
    registrars: Registrars,
    discover: Agent,
    runtime: Runtime,
    etcd: Etcd,
    control: PathBuf,
    /// HAProxy's own address: the ports of the services are nobody else's there.
    address: Ipv4Addr,
}

impl World {
    /// All of it, every backend routed.
    async fn start(lab: &Lab, size: Size, args: &[&str]) -> Result<Self> {
        let etcd = Etcd::start();
        let registrars = Registrars::start(&etcd, size).await?;
        let mut discover = Discover::new("discover", &haproxy::newest()?).args(args);
        let [high, low] = [std::process::id() / 256, std::process::id()].map(|n| (n % 256) as u8);
        let address = Ipv4Addr::new(127, 78, high, low);
        discover.listen = Some(address);
        let (runtime, control) = (discover.runtime(lab)?, lab.dir().join("discover-run/control.sock"));
        let discover = discover.spawn(lab, Some(&etcd.endpoint().authority()))?;
        let mut world = Self { registrars, discover, runtime, etcd, control, address };
        world.discover.ready().await?;
        world.routed(size.services * size.each).await?;
        Ok(world)
    }

    /// HAProxy's servers; none while it does not answer.
    async fn servers(&mut self) -> Vec<ServerState> {
        self.runtime.reopen(); // a session stays with its worker, and a reload brings another
        self.runtime.servers_state(None).await.unwrap_or_default()
    }

    /// Waits until requests go to exactly so many servers.
    async fn routed(&mut self, count: usize) -> Result<()> {
        let mut seen = 0;
        let what = format!("{count} servers routed");
        let there = wait::until_true(&what, PATIENCE, async || {
            seen = self.servers().await.iter().filter(|server| takes_requests(server)).count();
            seen == count
        });
        there.await.during(format!("{seen} are"))
    }

    /// Waits until etcd holds exactly so many registrations.
    async fn registered(&self, count: usize) -> Result<()> {
        wait::until_true(&format!("{count} registrations"), PATIENCE, async || {
            entries(&self.etcd, "/backends/").await.is_ok_and(|entries| entries.len() == count)
        })
        .await
    }

    /// Waits until the guard holds exactly so many backends.
    async fn held(&self, count: usize) -> Result<()> {
        wait::until_true(&format!("{count} backends held"), PATIENCE, async || {
            self.discover.metric("discover_held_backends").await.is_ok_and(|held| held == count as f64)
        })
        .await
    }

    /// `discover diff`, as an operator runs it beside the agent.
    fn diff(&self, lab: &Lab) -> Result<String> {
        let haproxy = haproxy::newest()?;
        let mut command = Command::new(binary("discover")?);
        command.args(["diff", "--stats-port", "off", "--allow-loopback", "--listen"]).arg(self.address.to_string());
        command.arg("--dir").arg(Discover::new("discover", &haproxy).dir(lab)?).arg("--control").arg(&self.control);
        command.arg("--run-dir").arg(lab.dir().join("discover-run")).arg("--haproxy-bin").arg(&haproxy.path);
        let done =
            command.env("ETCD_HOST", self.etcd.endpoint().authority()).output().during("running discover diff")?;
        match done.status.success() {
            true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
            false => Err(LabError::new(String::from_utf8_lossy(&done.stderr).into_owned())),
        }
    }

    /// `discover release`, as an operator runs it.
    fn release(&self, service: usize) -> Result<String> {
        let mut command = Command::new(binary("discover")?);
        let done = command.args(["release", &name(service), "--control"]).arg(&self.control).output();
        let done = done.during("running discover release")?;
        match done.status.success() {
            true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
            false => Err(LabError::new(String::from_utf8_lossy(&done.stderr).into_owned())),
        }
    }
}

/// Whether new requests go there.
fn takes_requests(server: &ServerState) -> bool {
    !server.admin.in_maintenance() && !server.admin.draining() && server.weight > 0 && server.oper != OperState::Stopped
}

/// The load on the first so many services, together.
fn so_far(loads: &[Load]) -> Report {
    let mut all = Report::default();
    loads.iter().for_each(|load| all.add(load.so_far()));
    all
}

#[test]
fn a_thousand_backends_whose_leases_all_run_out_are_served_and_recover() -> Result<()> {
    const SIZE: Size = Size { services: 50, each: 20, agents: 10, ttl: TTL };
    const ALL: usize = SIZE.services * SIZE.each;
    in_lab(async |lab| {
        let began = Instant::now();
        let mut world = World::start(lab, SIZE, &[]).await?;
        println!("FIGURE {ALL} routed {:?} after the start", began.elapsed());
        // The last service is without load: it is let go in the end.
        let loads: Vec<_> = (0..SIZE.services - 1)
            .map(|service| {
                let to = (world.address, port(service)).into();
                Load::start(&Plan { keep_alive: 1, closing: 1, rate: 2, at_most: PATIENCE * 5, ..Plan::mixed(to) })
            })
            .collect();
        wait::until_true("load", PATIENCE, async || so_far(&loads).requests > 300).await?;

        let reloads = world.discover.metric("discover_reloads_total").await?;
        let processor = world.discover.process().processor_time()?;
        let memory = world.discover.resident_memory()?;
        let cut = Instant::now();
        world.registrars.freeze();
        world.registered(0).await?;
        world.held(ALL).await?;
        world.routed(ALL).await?;
        println!("FIGURE all leases ran out, {ALL} held, {:?} after the agents fell silent", cut.elapsed());
        wait::holds("service while all are held", TTL * 2, async || so_far(&loads).failed() == 0).await?;

        // What is dead indeed is found by HAProxy's checks: one of each service.
        let died = Instant::now();
        (0..SIZE.services).for_each(|service| world.registrars.kill(service, 7));
        world.routed(world.registrars.living()).await?;
        println!("FIGURE {} dead among them were out after {:?}", SIZE.services, died.elapsed());
        wait::until_true("3 × TTL", PATIENCE, async || cut.elapsed() > TTL * 3).await?;

        // A hold ends by release, and by return; who does not come back is held on.
        let last = SIZE.services - 1;
        let said = world.release(last)?;
        world.held(ALL - SIZE.each).await?;
        world.routed(world.registrars.living() - (SIZE.each - 1)).await.during(said)?;
        let thawed = Instant::now();
        world.registrars.thaw();
        world.registered(world.registrars.living()).await?;
        world.held(SIZE.services - 1).await?;
        world.routed(world.registrars.living()).await?;
        println!("FIGURE all back {:?} after the agents went on", thawed.elapsed());
        (0..last).try_for_each(|service| world.release(service).map(drop))?;
        world.held(0).await?;
        let gone = async || world.servers().await.len() == world.registrars.living();
        wait::until_true("no server but the living", PATIENCE, gone).await?;

        let report = e2e::traffic::stop_all(loads).await;
        let reloads = world.discover.metric("discover_reloads_total").await? - reloads;
        let processor = world.discover.process().processor_time()? - processor;
        let [before, after] = [memory, world.discover.resident_memory()?].map(megabytes);
        println!(
            "FIGURE {}; {reloads} reloads; discover took {processor:?} of a processor in {:?}, and {before} before, {after} after",
            report.summary(),
            cut.elapsed()
        );
        report.must_be_clean("every lease ran out at once")?;
        assert_eq!(reloads, 0.0, "what the guard does needs no reload");
        Ok(())
    })
}

#[test]
fn a_hold_whose_agents_never_return_ends_by_itself() -> Result<()> {
    const SIZE: Size = Size { services: 2, each: 10, agents: 2, ttl: TTL };
    in_lab(async |lab| {
        let mut world = World::start(lab, SIZE, &["--hold", "3s"]).await?;
        world.registrars.freeze();
        let cut = Instant::now();
        let log = async |what: &str| world.discover.log().matches(what).count();
        wait::until_true("both services held", PATIENCE, async || log("Registrations ran out together").await == 2)
            .await?;
        wait::until_true("the end of both holds", PATIENCE, async || log("Hold ended").await == 2).await?;
        world.routed(0).await?;
        println!("FIGURE two holds of 3 s had ended by themselves {:?} after the agents fell silent", cut.elapsed());
        world.registrars.thaw();
        world.routed(world.registrars.living()).await
    })
}

#[test]
fn a_diff_knows_what_the_agent_holds_and_says_where_none_could_be_asked() -> Result<()> {
    const SIZE: Size = Size { services: 1, each: 4, agents: 2, ttl: TTL };
    const NOTHING: &str = "nothing to do: HAProxy runs what the registry says\n";
    in_lab(async |lab| {
        let mut world = World::start(lab, SIZE, &[]).await?;
        assert_eq!(world.diff(lab)?, NOTHING);
        world.registrars.freeze();
        world.held(SIZE.each).await?;
        // The agent writes down what it holds at most once a second.
        let held = |said: &str| said.matches("held, not registered any more").count();
        let known = async || world.diff(lab).is_ok_and(|said| held(&said) == SIZE.each && said.ends_with(NOTHING));
        wait::until_true("the hold in the diff", PATIENCE, known).await?;
        world.discover.process().stop(PATIENCE).await?;
        let alone = world.diff(lab)?;
        assert!(alone.starts_with("no agent could be asked (") && alone.ends_with(NOTHING), "{alone}");
        assert_eq!(held(&alone), SIZE.each, "what the last one wrote counts, as it would for the next one: {alone}");
        world.registrars.thaw();
        Ok(())
    })
}
