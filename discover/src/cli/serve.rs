//! What a running agent offers to people: the admin server, and the control socket.

use std::sync::{Arc, Mutex, PoisonError};

use common::admin::control::ControlServer;
use common::admin::{AdminServer, Listen};
use common::lifecycle::Lifecycle;
use common::model::ServiceName;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use super::Failure;
use super::run::RunArgs;
use crate::api;
use crate::reconcile::Guard;
use crate::status::Shared;

/// What both are made of.
pub(super) struct Offer<'a> {
    pub(super) shared: &'a Shared,
    pub(super) registry: Registry,
    /// Counts the turns that changed something.
    pub(super) changed: watch::Receiver<u64>,
    pub(super) guard: &'a Arc<Mutex<Guard>>,
    /// Asks for a turn.
    pub(super) wake: &'a Arc<Notify>,
}

/// Begins to serve both, where `args` say, until the end of `lifecycle`.
///
/// # Errors
/// [`Failure::Runtime`] when an address or a socket is taken.
pub(super) async fn serve(offer: Offer<'_>, args: &RunArgs, lifecycle: &mut Lifecycle) -> Result<(), Failure> {
    let cancel = lifecycle.token();
    if let Listen::At(address) = args.admin {
        let status = Arc::new(offer.shared.clone());
        let server = AdminServer::new("discover", status, Arc::new(offer.registry), offer.changed);
        let access = args.access.access().map_err(|e| Failure::usage(&e))?;
        let server = server.with_routes(api::routes(offer.shared.clone())).with_access(access);
        let bound = server.bind(address, "--admin").await.map_err(Failure::runtime)?;
        lifecycle.spawn("admin", bound.run(cancel.clone()));
    }
    let (guard, wake) = (offer.guard.clone(), offer.wake.clone());
    let control = ControlServer::new(&args.control, move |request| {
        let answer = release(&guard, &request);
        wake.notify_one();
        async move { answer }
    });
    let control = control.bind().map_err(Failure::runtime)?;
    lifecycle.spawn("control", control.run(cancel));
    Ok(())
}

/// Answers a request over the control socket.
fn release(guard: &Mutex<Guard>, request: &Value) -> Result<Value, String> {
    let service = request["release"].as_str().ok_or("unknown request: release is the only one")?;
    let service: ServiceName = service.parse().map_err(|e: common::model::NameError| e.to_string())?;
    let released = guard.lock().unwrap_or_else(PoisonError::into_inner).release(&service);
    if released == 0 {
        return Err(format!("nothing is held for service {service}"));
    }
    Ok(json!({ "released": released }))
}
