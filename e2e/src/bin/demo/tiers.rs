//! `make demo-edge`: browser → client.local at the edge → client → service → memcached, two of each; any of them may stop
//! and start, and the chain goes on.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::http::Client;
use e2e::terminal::Terminal;
use e2e::traffic::{Load, Plan};
use e2e::{Context, LabError, Result, wait};

use crate::stack::{DISCOVER, Part, Stack, status_address};
use crate::{ROUTED, SERVING};

/// The host under which the edge serves the first tier.
const HOST: &str = "client.local";
/// From the edge inwards.
const TIERS: [&str; 3] = ["client", "service", "memcached"];
/// Begins the line in which a whoami names the tiers behind it (deploy/whoami/src/next.rs).
const CHAIN: &str = "Chain: ";
/// Answers that show the chain.
const SHOWN: usize = 4;
/// Answers that must come while one of a tier is down, and again once it is back.
const ENOUGH: u64 = 100;

/// Shows it.
///
/// # Errors
/// When a request fails, or a container does not come back.
pub async fn show(terminal: Terminal, stack: &Stack) -> Result<()> {
    let edge = stack.edge_address().await?;
    terminal.heading("Three tiers, two containers each");
    let serving = terminal.while_waiting("waiting until every hop is there", chain_of_all(stack, edge));
    serving.await?;
    let mut browser = Client::new(edge, false, ROUTED).host(HOST);
    for _ in 0..SHOWN {
        let chain = chain(&mut browser).await.during("the chain, which was complete")?;
        terminal.line(format_args!("     edge → {chain}"));
    }
    terminal.heading("One of each tier stops and comes back, under load");
    for tier in TIERS {
        stop_and_start(terminal, stack, edge, tier).await?;
    }
    terminal.heading("All of this goes on running");
    let discover = status_address(DISCOVER);
    for (what, how) in [
        ("the chain", format!("curl -H 'Host: {HOST}' http://{edge}/")),
        ("who is where", format!("curl http://{discover}/services")),
        ("discover's status", format!("http://{discover}/")),
        ("stop one yourself", format!("docker stop {}", stack.parts(TIERS[1]).await?[0].name)),
        ("stop and remove all", "make demo-edge-down".to_owned()),
    ] {
        terminal.line(format_args!("     {what:<21} {}", terminal.bold(how)));
    }
    Ok(())
}

/// One request's way: `client → service → memcached (visit N)`; `None` where a tier did not answer.
async fn chain(browser: &mut Client) -> Option<String> {
    let reply = browser.get("/").await.ok().filter(|reply| reply.status == 200)?;
    reply.body.lines().find_map(|line| line.strip_prefix(CHAIN)).map(str::to_owned)
}

/// Waits until each container of the first two tiers has been part of a whole chain.
async fn chain_of_all(stack: &Stack, edge: SocketAddr) -> Result<()> {
    let mut silent = Vec::new();
    for tier in &TIERS[..2] {
        silent.extend(stack.parts(tier).await?.into_iter().map(|part| part.host_name().to_owned()));
    }
    let mut browser = Client::new(edge, false, Duration::from_secs(2)).host(HOST);
    wait::until_true("chains through every container", SERVING, async || {
        if let Some(chain) = chain(&mut browser).await {
            silent.retain(|name| !chain.contains(name.as_str()));
        }
        silent.is_empty()
    })
    .await
}

/// Stops one of a tier under load, starts it again, and tells what was lost.
async fn stop_and_start(terminal: Terminal, stack: &Stack, edge: SocketAddr, tier: &str) -> Result<()> {
    let victim: Part = stack.parts(tier).await?.into_iter().next().during(format!("{tier} has no container"))?;
    let host = Some(HOST.to_owned());
    let load =
        Load::start(&Plan { keep_alive: 2, closing: 2, rate: 25, at_most: ROUTED * 6, host, ..Plan::mixed(edge) });
    let answers = || load.so_far().requests;
    let more = async |when: &str| {
        let wanted = answers() + ENOUGH;
        wait::until_true(&format!("requests {when}"), ROUTED, async || answers() >= wanted).await
    };
    let there_and_back = async {
        more("before").await?;
        stack.stop(&victim).await?;
        more("without it").await?;
        stack.start_again(&victim).await?;
        stack.routed(tier, 2).await?;
        more("with it again").await
    };
    terminal.while_waiting(&format!("stopping and starting {}", victim.name), there_and_back).await?;
    let report = load.stop().await;
    report.must_be_clean(&format!("{} stopped and started", victim.name))?;
    if report.requests < 3 * ENOUGH {
        return Err(LabError::new("too few requests to prove anything"));
    }
    let requests = report.requests;
    terminal.done(format_args!(
        "{} stopped and came back; {} of {requests} requests failed",
        victim.name,
        terminal.bold(0)
    ));
    Ok(())
}
