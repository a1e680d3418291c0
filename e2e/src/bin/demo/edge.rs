//! The HTTP edge of `make demo`: a service by its host, two versions under two paths, and a blue/green hand-over under load.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::docker::Container;
use e2e::http::Client;
use e2e::terminal::Terminal;
use e2e::traffic::{Load, Plan};
use e2e::{Context, LabError, Result, wait};

use crate::ROUTED;
use crate::stack::Stack;

/// How long the last of the old may take to finish, and no answer of theirs may come after.
const QUIET: Duration = Duration::from_millis(500);
/// For `docker stop`; whoami ends at once when it is idle.
const GRACE: Duration = Duration::from_secs(10);

/// Shows it, and where it is.
///
/// # Errors
/// When a request fails, or a container does not come.
pub async fn show(terminal: Terminal, stack: &Stack) -> Result<SocketAddr> {
    let edge = stack.edge_address().await?;
    terminal.heading("By host and path, at the edge");
    let asked = answered(edge, "whoami.local", "/", |name| !name.is_empty());
    let name = terminal.while_waiting("asking the edge", asked).await?;
    terminal.line(format_args!("     curl -H 'Host: whoami.local' http://{edge}/ → {name}"));
    let versions = terminal.while_waiting("starting two versions of a shop", versions(stack, edge)).await?;
    for version in &versions {
        let path = format!("/{}", version.name);
        let reply = Client::new(edge, false, ROUTED).host("shop.local").get(&path).await;
        let name = reply.during(format!("asking for {path}"))?.name().to_owned();
        terminal.line(format_args!("     curl -H 'Host: shop.local' http://{edge}{path} → {name}"));
    }
    terminal.heading("From blue to green, under load");
    hand_over(terminal, stack, edge).await?;
    for version in versions {
        version.container.remove().await?;
    }
    Ok(edge)
}

struct Version {
    name: &'static str,
    container: Container,
}

/// `shop.local/v1` and `shop.local/v2`, two services under one host.
async fn versions(stack: &Stack, edge: SocketAddr) -> Result<Vec<Version>> {
    let mut versions = Vec::new();
    for name in ["v1", "v2"] {
        let (service, path) = (format!("shop-{name}"), format!("/{name}"));
        let labels = [("service", service.as_str()), ("80.vhost", "shop.local"), ("80.path", &path)];
        let container = stack.start(&service, &labels).await?;
        answered(edge, "shop.local", &path, |answer| answer == service).await?;
        versions.push(Version { name, container });
    }
    Ok(versions)
}

/// Two new containers of a service come, two old ones go; nobody notices.
async fn hand_over(terminal: Terminal, stack: &Stack, edge: SocketAddr) -> Result<()> {
    const LABELS: [(&str, &str); 2] = [("service", "page"), ("80.vhost", "page.local")];
    let start =
        async |colour| Ok::<_, LabError>([stack.start(colour, &LABELS).await?, stack.start(colour, &LABELS).await?]);
    let blue = start("blue").await?;
    let first = answered(edge, "page.local", "/", |name| name == "blue");
    terminal.while_waiting("blue serves page.local", first).await?;
    let plan = Plan { rate: 50, at_most: ROUTED * 3, host: Some("page.local".to_owned()), ..Plan::mixed(edge) };
    let load = Load::start(&plan);
    let moved = async {
        let green = start("green").await?;
        wait::until_true("answers of green", ROUTED, async || load.answered_by("green") > 20).await?;
        for container in &blue {
            container.stop(GRACE).await?;
        }
        tokio::time::sleep(QUIET).await;
        let old = load.answered_by("blue");
        wait::until_true("a hundred answers more", ROUTED, async || load.answered_by("green") > 120).await?;
        if load.answered_by("blue") != old {
            return Err(LabError::new("blue still answers, stopped as it is"));
        }
        Ok(green)
    };
    let green = terminal.while_waiting("starting green, stopping blue", moved).await?;
    let report = load.stop().await;
    report.must_be_clean("green took over from blue")?;
    let (blue_count, green_count) = (report.answered_by("blue"), report.answered_by("green"));
    terminal.done(format_args!("green answers in blue's place ({blue_count} answers of blue, {green_count} of green)"));
    terminal.done(format_args!("{} of {} requests failed", terminal.bold(0), report.requests));
    for container in blue.into_iter().chain(green) {
        container.remove().await?;
    }
    Ok(())
}

/// Asks the edge for a host until the answer's first line is as wanted.
///
/// # Errors
/// When it is not, in time.
pub async fn answered(edge: SocketAddr, host: &str, path: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
    let mut client = Client::new(edge, true, Duration::from_secs(2)).host(host);
    let mut name = String::new();
    wait::until_true(&format!("an answer of http://{host}{path} at {edge}"), ROUTED, async || {
        match client.get(path).await {
            Ok(reply) if reply.status == 200 && wanted(reply.name()) => name = reply.name().to_owned(),
            _ => return false,
        }
        true
    })
    .await?;
    Ok(name)
}
