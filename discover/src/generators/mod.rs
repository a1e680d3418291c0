//! What turns the desired state into files and running state.
//!
//! A generator is one folder or file here and one line in [`Generators`](crate::agent): a pure `plan`, and an `apply`
//! that does all of the I/O and makes no choices.

pub mod file_output;
pub mod haproxy;
pub mod nginx;
pub mod output;
pub mod prometheus;
pub mod template;

use std::error::Error;
use std::future::Future;

use tokio::time::Instant;

use crate::reconcile::Desired;

/// Turns the desired state into files and running state.
pub trait Generator: Send {
    /// What is to be done; equal states give a plan that does nothing.
    type Plan: Send;
    /// Why applying failed. Whatever happened, the next turn plans from what then runs.
    type Error: Error + Send + Sync + 'static;

    /// Brings up what was applied last, from what is left of it, before any source has answered: a restart while the
    /// registry is away serves the last state. Never changes what runs.
    fn resume(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Asks the world what a plan must know of it (are ports free, which address has a name), and brings the generator's caches to
    /// `desired`: what is expensive to render is rendered here, and what is left out is logged here. Changes nothing outside.
    fn prepare(&mut self, _desired: &Desired) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// What leads from what is applied to `desired`, which was prepared. Pure: no I/O, no clock but `now`, no logs and no counters;
    /// equal states give equal plans.
    fn plan(&self, desired: &Desired, now: Instant) -> Self::Plan;

    /// Carries out `plan`: the only I/O that changes anything.
    ///
    /// # Errors
    /// The generator's own; what was applied before the failure is known to the next plan.
    fn apply(&mut self, plan: Self::Plan) -> impl Future<Output = Result<Outcome, Self::Error>> + Send;

    /// Waits until something beside the turns asks for one. Must be cancel-safe.
    fn due(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// What came of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything desired is applied.
    Done,
    /// Something waits for its time (a reload's minimum interval, a server that is still busy): plan again then.
    Again(Instant),
}
