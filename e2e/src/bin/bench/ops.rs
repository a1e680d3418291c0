//! What a change costs: each runtime operation, a whole turn, and check and reload beside them.

use std::time::Instant;

use discover::haproxy::api::ops::{Op, ServerParams, ServerRef};
use discover::haproxy::api::runtime::{DelOutcome, Runtime};
use e2e::figures::{Figure, Times};
use e2e::haproxy::{self, Haproxy};
use e2e::terminal::Terminal;
use e2e::traffic::stop_all;
use e2e::{Context, Lab, LabError, Result};
use model::Backend;

use crate::fleet::Fleet;
use crate::local::{Local, backend};
use crate::plain::Plain;

const SERVICES: usize = 20;
const BACKENDS: usize = 10;
const ROUNDS: u16 = 500;
const RELOADS: usize = 20;
const RATE: u32 = 2000;

/// With each HAProxy.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for haproxy in haproxy::all()? {
        let what = format!("operations and turns with HAProxy {}", haproxy.version);
        figures.extend(terminal.while_waiting(&what, Box::pin(with(lab, &haproxy))).await?);
    }
    Ok(figures)
}

async fn with(lab: &Lab, haproxy: &Haproxy) -> Result<Vec<Figure>> {
    let fleet = Fleet::new(SERVICES, BACKENDS).await?;
    let mut local = Local::start(lab, "ops", haproxy, fleet.desired()?).await?;
    fleet.routed().await?;
    let load = fleet.load(1, 1, RATE);
    let operations = operations(&local, haproxy).await?;
    let before = local.reloads();
    let turns = turns(&mut local, &fleet).await?;
    let reloads = local.reloads() - before;
    let ours = stop_all(load).await;
    drop(local);

    let fleet = Fleet::new(SERVICES, BACKENDS).await?;
    let plain = Plain::start(lab, haproxy, &fleet.sections()).await?;
    fleet.routed().await?;
    let load = fleet.load(1, 1, RATE);
    let mut times = Times::default();
    for _ in 0..RELOADS {
        times.push(plain.load(&fleet.sections()).await?);
    }
    let theirs = stop_all(load).await;
    let figure = |what: &str, value: String, goal: &str, how: String| Figure {
        what: format!("{what}, HAProxy {}", haproxy.version),
        value,
        goal: goal.to_owned(),
        conditions: format!(
            "{SERVICES} services of {BACKENDS} backends; {how}; asked for {RATE} requests/s or more meanwhile"
        ),
    };
    let each: Vec<String> = operations.iter().map(|(kind, times)| format!("{kind}: {times}")).collect();
    let one_by_one = format!("{ROUNDS} of each, one after the other over one session, each with its reply");
    let how = format!("{ROUNDS} turns of one server more and one less each, file written; {}", ours.summary());
    Ok(vec![
        figure("a runtime operation", each.join("; "), "", one_by_one),
        figure("a turn", format!("{turns}; {reloads} reloads"), "", how),
        figure("a reload on every change", times.to_string(), "", format!("{RELOADS} times; {}", theirs.summary())),
    ])
}

type Kinds = Vec<(&'static str, Times)>;

async fn operations(local: &Local, haproxy: &Haproxy) -> Result<Kinds> {
    let mut runtime = local.runtime();
    let mut kinds: Kinds = Vec::new();
    // 2.6 must not delete servers while requests may retry on them, so there they are left in maintenance, one for all rounds.
    let deletes = haproxy.version != "2.6";
    for round in 0..ROUNDS {
        let name = if deletes { format!("op{round}") } else { "op".to_owned() };
        let at = || ServerRef::new("s0", name.as_str()).during("naming a server");
        let params = ServerParams::parse("check inter 2s rise 3 fall 2").during("reading parameters")?;
        let address = ([127, 0, 0, 1], 9).into();
        if deletes || round == 0 {
            one(&mut runtime, &mut kinds, Op::AddServer(at()?, address, params)).await?;
            one(&mut runtime, &mut kinds, Op::EnableHealth(at()?)).await?;
        }
        one(&mut runtime, &mut kinds, Op::SetAddr(at()?, ([127, 0, 0, 1], 10 + round).into())).await?;
        one(&mut runtime, &mut kinds, Op::SetWeight(at()?, 0)).await?;
        one(&mut runtime, &mut kinds, Op::Ready(at()?)).await?;
        one(&mut runtime, &mut kinds, Op::Maint(at()?)).await?;
        if deletes {
            let (operation, began) = (Op::DelServer(at()?), Instant::now());
            let outcome = runtime.del_server(at()?).await.during("deleting a server")?;
            if outcome != DelOutcome::Deleted {
                return Err(LabError::new(format!("{operation}: {outcome:?}")));
            }
            note(&mut kinds, &operation, began);
        }
    }
    Ok(kinds)
}

async fn one(runtime: &mut Runtime, kinds: &mut Kinds, operation: Op) -> Result<()> {
    let began = Instant::now();
    runtime.run(operation.clone()).await.during(format!("doing {operation}"))?;
    note(kinds, &operation, began);
    Ok(())
}

fn note(kinds: &mut Kinds, operation: &Op, began: Instant) {
    let kind = operation.kind();
    match kinds.iter_mut().find(|(known, _)| *known == kind) {
        Some((_, times)) => times.push(began.elapsed()),
        None => {
            let mut times = Times::default();
            times.push(began.elapsed());
            kinds.push((kind, times));
        }
    }
}

async fn turns(local: &mut Local, fleet: &Fleet) -> Result<Times> {
    let (service, port) = ("s0", fleet.ports[0]);
    let mut times = Times::default();
    for round in 0..usize::from(ROUNDS) {
        let pool: Result<Vec<Backend>> =
            (round..round + BACKENDS).map(|n| backend(&format!("turn{n}"), fleet.address(n), port)).collect();
        local.want(service, pool?)?;
        times.push(local.turn().await?.0);
    }
    Ok(times)
}
