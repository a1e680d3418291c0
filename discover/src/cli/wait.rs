//! `discover wait`: for scripts that need a service before they go on.

use std::time::Duration;

use crate::client::View;
use clap::Args;
use model::ServiceName;
use tokio::time::{Instant, timeout_at};

use super::Failure;
use super::source::SourceArgs;

/// Flags of `discover wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The service
    service: ServiceName,
    /// How many of its backends must take clients; draining ones do not
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
    let mut view = args.source.client()?.view();
    let wanted = usize::try_from(args.count).unwrap_or(usize::MAX);
    for_services(&mut view, std::slice::from_ref(&args.service), wanted, args.timeout).await
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
