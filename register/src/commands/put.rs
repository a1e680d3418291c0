//! `register put`: one registration, with a lease of its own, for as long as the command runs and its check passes.

use agent::lifecycle::Lifecycle;
use model::{Host, Port, Status};
use registry::store::etcd::EtcdStore;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Failure, print};
use crate::cli::{Compat, PutArgs, TryWhat};
use crate::nerve::services::alone::Health;
use crate::own::health::Checks;
use crate::own::replaced::Waiting;
use crate::own::{Registration, hold, leave};

/// Registers until a signal comes, then drains and deletes.
///
/// # Errors
/// Wrong arguments; at the end a registry that does not answer.
pub async fn put(args: PutArgs) -> Result<(), Failure> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let args = args.with_etcdbridge(&variable).map_err(Failure::usage)?;
    let (Some(service), Some(place)) = (&args.service, &args.address) else {
        return Err(Failure::usage("the service and HOST:PORT are required"));
    };
    let (host, port) = address(place)?;
    let mut own = Registration::new(service, host.clone(), port, &args.own).map_err(Failure::usage)?;
    if let Some(id) = &args.replaces {
        own = own.replacing(id).map_err(Failure::usage)?;
    }
    let config = args.own.etcd.config_for_lease(args.own.form.ttl).map_err(Failure::usage)?;
    let store = EtcdStore::new(config);
    let mut lifecycle = Lifecycle::new();
    lifecycle.listen().map_err(Failure::runtime)?;
    let cancel = lifecycle.token();
    let ((held, lease), (want, wanted)) = (watch::channel(None), watch::channel(None));
    let mut printed = false;
    let told = |value: Option<&str>| {
        let Some(value) = value else { return };
        if !std::mem::replace(&mut printed, true) && print(&format!("{} {value}\n", own.key)).is_err() {
            warn!("Standard output is closed.");
        }
    };
    let what = args.check_command.clone().map_or_else(|| args.check.clone(), TryWhat::Command);
    let follow = async {
        let mut checks = Checks::start(&what, (host, port), &args.checks);
        loop {
            match checks.changed().await {
                Health::Up => drop(want.send_replace(own.value(Status::Up))),
                Health::Down(why) => {
                    info!(why, "Not healthy.");
                    want.send_replace(None);
                }
                Health::Undecided => {}
            }
        }
    };
    let below = own.siblings(&args.own);
    let waiting =
        Waiting { store: &store, prefix: &args.own.etcd.etcd_prefix, below: &below, service, id: &own.backend.id };
    let is_bridge = args.own.form.compat == Some(Compat::Etcdbridge);
    let ended = tokio::select! {
        biased;
        () = cancel.cancelled() => Ok(()),
        () = waiting.replaced(), if is_bridge => {
            info!(key = %own.key, "Another registration replaces this one: taking it back.");
            Ok(())
        }
        end = Box::pin(hold(&store, &own, wanted, &held, told)) => end.map(|never| match never {}),
        never = follow => never,
    };
    ended.map_err(Failure::runtime)?;
    let lease = *lease.borrow();
    match lease {
        Some(lease) => leave(&store, &own, lease).await.map_err(Failure::runtime),
        None => Ok(()),
    }
}

/// Reads `HOST:PORT`.
fn address(text: &str) -> Result<(Host, Port), Failure> {
    let wrong = |why: String| Failure::usage(format!("{text:?} is not HOST:PORT: {why}"));
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("the port is missing".into()))?;
    let host: Host = host.parse().map_err(|e: model::HostError| wrong(e.to_string()))?;
    let port: Port = port.parse().map_err(|_| wrong(format!("port {port:?} is not between 1 and 65535")))?;
    Ok((host, port))
}
