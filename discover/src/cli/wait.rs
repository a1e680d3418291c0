//! `discover wait`: for scripts that need a service before they go on.
//!
//! It reads the registry; then, where an agent answers on this host, it asks that for the state of the backends, as its HAProxy sees them.

use std::time::Duration;

use crate::client::View;
use clap::Args;
use model::ServiceName;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Failure;
use super::agent_view::{Told, ViewArgs};
use super::source::SourceArgs;

/// Between two questions to the agent.
const POLL: Duration = Duration::from_millis(250);

/// Flags of `discover wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    view: ViewArgs,
    /// The service
    service: ServiceName,
    /// How many of its backends must take clients: by their registrations, and as the HAProxy of this host sees them, if there is one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Waits until the service is there.
///
/// # Errors
/// [`Failure::Usage`] for wrong flags, [`Failure::Runtime`] when it is not there in time.
pub async fn wait(args: WaitArgs) -> Result<(), Failure> {
    let deadline = Instant::now() + args.timeout;
    let mut view = args.source.client()?.view();
    let wanted = usize::try_from(args.count).unwrap_or(usize::MAX);
    for_services(&mut view, std::slice::from_ref(&args.service), wanted, args.timeout).await?;
    let path = format!("/services/{}", args.service);
    loop {
        let Some(Told { address, answer }) = args.view.ask(&path).await? else { return Ok(()) };
        if answer.is_object() && answer["up"].is_null() {
            return Ok(()); // an older agent, which does not ask HAProxy
        }
        let up = answer["up"].as_u64().unwrap_or(0);
        if up >= u64::from(args.count) {
            return Ok(());
        }
        let now = Instant::now();
        if now >= deadline {
            let seen_by = answer["seen_by"].as_str().unwrap_or("it does not route the service");
            let (after, service) = (humantime::format_duration(args.timeout), &args.service);
            let why = format!(
                "after {after}: {service} has {wanted} registered and {up} of {wanted} that can take a request, says the agent at {address} \
                 ({seen_by}; --registered counts registrations alone)"
            );
            return Err(Failure::Runtime(why.into()));
        }
        sleep_until(deadline.min(now + POLL)).await;
    }
}

/// Waits until each of `services` has `wanted` backends that take clients.
///
/// # Errors
/// [`Failure::Runtime`] that says how far it came.
pub(super) async fn for_services(
    view: &mut View,
    services: &[ServiceName],
    wanted: usize,
    patience: Duration,
) -> Result<(), Failure> {
    let there = timeout_at(
        Instant::now() + patience,
        view.wait_for(|now| services.iter().all(|service| now.live(service).count() >= wanted)),
    );
    if let Ok(ended) = there.await {
        return ended.map_err(Failure::runtime);
    }
    let count = |service: &ServiceName| (service.clone(), view.services().live(service).count());
    let missing = services.iter().map(count).filter(|(_, live)| *live < wanted);
    let missing: Vec<String> = missing.map(|(service, live)| format!("{service} has {live} of {wanted}")).collect();
    let why = match view.error() {
        Some(error) => error,
        None if view.observation().snapshot().is_none() => "the source has not answered".to_owned(),
        None => "backends that take clients".to_owned(),
    };
    Err(Failure::Runtime(
        format!("after {}: {} ({why})", humantime::format_duration(patience), missing.join(", ")).into(),
    ))
}
