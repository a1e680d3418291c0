//! What a running agent offers to people: the admin server, and the control socket.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::admin::control::ControlServer;
use agent::admin::{AdminServer, Listen, StatusSource as _};
use agent::lifecycle::Lifecycle;
use agent::sync::lock;
use model::ServiceName;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::announce::announce;
use super::assembly::Assembly;
use super::{Failure, fleet};
use crate::api;
use crate::reconcile::Guard;
use crate::status::{StatusBoard, feeds};

/// How often it is looked whether HAProxy has another number of servers that can take a request.
const LOOK: Duration = Duration::from_secs(1);

/// Asks a running agent over its control socket where it writes what it remembers and holds.
pub(super) const STATE_ASKED: &str = "state_file";

/// Begins to serve both, where the flags say, until the end of `lifecycle`.
///
/// # Errors
/// [`Failure::Runtime`] when an address or a socket is taken.
pub(super) async fn serve(assembly: &Assembly, registry: Registry, lifecycle: &mut Lifecycle) -> Result<(), Failure> {
    let (args, board, cancel) = (&assembly.args, &assembly.board, lifecycle.token());
    if let Listen::At(address) = args.admin {
        let status = Arc::new(board.clone());
        let server = AdminServer::new("discover", status, Arc::new(registry), assembly.changes.subscribe());
        let access = args.access.access().map_err(|e| Failure::usage(&e))?;
        let server = server.with_routes(api::routes(board.clone())).with_routes(feeds::routes(board.clone()));
        let server = match args.source.registry("/fleet") {
            Ok((store, prefix)) => server.with_routes(fleet::routes(store, prefix)),
            Err(_) => server, // without a registry there is no fleet
        };
        let server = server.with_routes(agent::history::serve::routes(board.history())).with_access(access);
        let bound = server.bind(address, "--admin").await.map_err(Failure::runtime)?;
        lifecycle.spawn("admin", bound.run(cancel.clone()));
    }
    board.set_stats_port(args.haproxy.stats.port.0.filter(|_| args.config.is_none()).map(|port| port.get()));
    if let Some(path) = assembly.history_file.clone() {
        lifecycle.spawn("history", board.history().keep(path, cancel.clone()));
    }
    lifecycle.spawn(
        "changes",
        look_for_changes(board.clone(), assembly.changes.clone(), assembly.wake.clone(), cancel.clone()),
    );
    if args.announce {
        let (store, prefix) = args.source.registry("--announce")?;
        let node = board.host().parse().map_err(|e: model::NameError| Failure::usage(&e))?;
        lifecycle.spawn("announce", announce(store, prefix, node, cancel.clone()));
    }
    let (guard, wake, state) = (assembly.guard.clone(), assembly.wake.clone(), assembly.state_file.clone());
    let control = ControlServer::new(&args.control, move |request| {
        let answer = match request.get(STATE_ASKED) {
            Some(_) => Ok(json!({ STATE_ASKED: state })),
            None => {
                let answer = release(&guard, &request);
                wake.notify_one();
                answer
            }
        };
        async move { answer }
    });
    let control = control.bind().map_err(Failure::runtime)?;
    lifecycle.spawn("control", control.run(cancel));
    Ok(())
}

/// Has the history tell what HAProxy itself finds of its servers, within about a second.
async fn look_for_changes(
    board: StatusBoard,
    changes: watch::Sender<u64>,
    wake: Arc<Notify>,
    cancel: CancellationToken,
) -> Result<(), Infallible> {
    while cancel.run_until_cancelled(sleep(LOOK)).await.is_some() {
        if board.look_for_changes().await {
            changes.send_modify(|n| *n += 1);
            wake.notify_one(); // who is near may not suffice any more
        }
    }
    Ok(())
}

/// Answers a request over the control socket.
fn release(guard: &Mutex<Guard>, request: &Value) -> Result<Value, String> {
    let service = request["release"].as_str().ok_or("unknown request: release and state_file are known")?;
    let service: ServiceName = service.parse().map_err(|e: model::NameError| e.to_string())?;
    let released = lock(guard).release(&service);
    if released == 0 {
        return Err(format!("nothing is held for service {service}"));
    }
    Ok(json!({ "released": released }))
}
