//! Resident memory of both agents.

use e2e::agents::Register;
use e2e::docker::Spec;
use e2e::figures::{Figure, megabytes};
use e2e::scene::{PATIENCE, Scene, remove_all, run_all};
use e2e::terminal::Terminal;
use e2e::{Context, Etcd, Lab, Result, haproxy, wait};

const CONTAINERS: usize = 100;
const SERVICES: usize = 20;

/// register with 100 containers, then discover with 20 services.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    Ok(vec![register(lab, terminal).await?, discover(lab, terminal).await?])
}

async fn register(lab: &Lab, terminal: Terminal) -> Result<Figure> {
    let docker = lab.docker().await?;
    let etcd = Etcd::start();
    let register = Register::new("crowded").start(lab, &etcd).await?;
    let specs = vec![Spec::whoami("crowd"); CONTAINERS];
    let starting = run_all(&docker, &specs);
    let containers = terminal.while_waiting(&format!("starting {CONTAINERS} containers"), starting).await?;
    let mut client = etcd.operator().await;
    let wanted = i64::try_from(CONTAINERS).during("counting containers")?;
    wait::until_true("all containers in etcd", PATIENCE, async || {
        let options = etcd_client::GetOptions::new().with_prefix().with_count_only();
        client.get("/backends/crowd/", Some(options)).await.is_ok_and(|reply| reply.count() == wanted)
    })
    .await?;
    let value = megabytes(register.resident_memory()?);
    terminal.while_waiting("removing them", remove_all(containers)).await?;
    Ok(Figure {
        what: "resident memory of register".to_owned(),
        value,
        goal: "≤ 14 MB".to_owned(),
        conditions: format!("{CONTAINERS} containers, all registered, just after they were started; VmRSS"),
    })
}

async fn discover(lab: &Lab, terminal: Terminal) -> Result<Figure> {
    let scene = Scene::start(lab, &haproxy::newest()?).await?;
    let starting = scene.services(SERVICES);
    let containers = terminal.while_waiting(&format!("starting {SERVICES} services"), starting).await?;
    let value = megabytes(scene.discover.resident_memory()?);
    terminal.while_waiting("removing them", remove_all(containers)).await?;
    Ok(Figure {
        what: "resident memory of discover".to_owned(),
        value,
        goal: "≤ 20 MB".to_owned(),
        conditions: format!("{SERVICES} services of one container each, all routed; VmRSS"),
    })
}
