//! The reporters at work: one for each destination, made when something is to go there, ended when nothing is.

#[cfg(test)]
#[path = "outlets_tests.rs"]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent::telemetry::Chain;
use agent::watch::replace;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::nerve::reporters::{AnyTarget, Ends, Frame, Payload, Placement, ReporterError, Standing, Wanted, withdrawn};
use crate::publish::PublishError;

/// How long a reporter has to withdraw the last of what it had.
const FAREWELL: Duration = Duration::from_secs(10);
/// When a reporter that gave up is tried again.
///
/// Source: Nerve's main loop relaunches what died within 10 s.
const AGAIN: Duration = Duration::from_secs(10);
/// How long all of them have at the end.
const END: Duration = Duration::from_secs(5);

/// One reporter.
struct Outlet {
    wanted: watch::Sender<Arc<Wanted>>,
    standing: watch::Receiver<Standing>,
    ends: Ends,
    number: u64,
    /// Somebody else runs it.
    foreign: bool,
    /// Something was there, at some time.
    published: bool,
    /// Nothing is to go there any more, since then.
    closing: Option<Instant>,
    /// What outlives the agent is still to be removed there: it does not end before that is confirmed.
    owes: bool,
    /// Why it gave up, and when it is tried again.
    failed: Option<(String, Instant)>,
    /// Passes on that it has something to tell.
    _bell: AbortOnDropHandle<()>,
}

impl Outlet {
    /// Gives the reporter what it is to publish. What outlives the agent and is not wanted any more stays to be removed
    /// until the registry has confirmed that it is gone.
    fn bring_to(&mut self, mut wanted: Wanted, now: Instant) {
        let ends = wanted.is_empty() && !self.foreign;
        {
            let standing = self.standing.borrow();
            self.published |= !standing.published.is_empty();
            for (placement, absent) in withdrawn(&self.wanted.borrow()) {
                if !standing.absent.contains(&placement) {
                    wanted.entry(placement).or_insert(absent);
                }
            }
        }
        self.closing = ends.then(|| self.closing.unwrap_or(now));
        self.owes = ends && !wanted.is_empty();
        replace(&self.wanted, Arc::new(wanted));
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Outlets {
    open: BTreeMap<String, Outlet>,
    tasks: JoinSet<(String, u64, Result<(), ReporterError>)>,
    bell: Arc<Notify>,
    numbers: u64,
}

impl Outlets {
    /// A reporter that somebody else runs, and which begins with `wanted`.
    pub fn foreign(
        &mut self,
        destination: &str,
        wanted: Wanted,
    ) -> (watch::Receiver<Arc<Wanted>>, watch::Sender<Standing>) {
        let (outlet, inputs) = self.outlet(wanted, Ends::default(), true);
        self.open.insert(destination.to_owned(), outlet);
        inputs
    }

    fn outlet(
        &mut self,
        wanted: Wanted,
        ends: Ends,
        foreign: bool,
    ) -> (Outlet, (watch::Receiver<Arc<Wanted>>, watch::Sender<Standing>)) {
        self.numbers += 1;
        let (wanted, receiver) = watch::channel(Arc::new(wanted));
        let (out, standing) = watch::channel(Standing::default());
        let (mut told, bell) = (standing.clone(), Arc::clone(&self.bell));
        let ring = tokio::spawn(async move {
            while told.changed().await.is_ok() {
                bell.notify_one();
            }
        });
        let bell = AbortOnDropHandle::new(ring);
        let outlet = Outlet {
            wanted,
            standing,
            ends,
            number: self.numbers,
            foreign,
            closing: None,
            owes: false,
            failed: None,
            published: false,
            _bell: bell,
        };
        (outlet, (receiver, out))
    }

    /// Gives each reporter what it is to publish; makes and ends reporters as that asks for.
    pub fn bring_to(&mut self, mut wanted: BTreeMap<String, Wanted>, frame: &Frame) {
        let now = Instant::now();
        for (destination, outlet) in &mut self.open {
            outlet.bring_to(wanted.remove(destination).unwrap_or_default(), now);
        }
        self.open.retain(|destination, outlet| {
            let Some(since) = outlet.closing else { return true };
            let done = outlet.standing.borrow().published.is_empty() || outlet.failed.is_some();
            if (done || now >= since + FAREWELL) && !outlet.owes {
                let what = if outlet.published { "any more" } else { "yet: no service of it has been up" };
                info!(at = %destination, "Nothing is published there {what}.");
                outlet.ends.withdraw.cancel();
                outlet.ends.stop.cancel();
            }
            !outlet.ends.stop.is_cancelled()
        });
        let again: Vec<String> = self
            .open
            .iter()
            .filter(|(_, outlet)| outlet.failed.as_ref().is_some_and(|(_, at)| now >= *at))
            .map(|(destination, _)| destination.clone())
            .collect();
        for destination in again {
            if let Some(outlet) = self.open.remove(&destination) {
                wanted.insert(destination, Wanted::clone(&outlet.wanted.borrow()));
            }
        }
        for (destination, wanted) in wanted {
            self.start(destination, wanted, frame);
        }
    }

    fn start(&mut self, destination: String, wanted: Wanted, frame: &Frame) {
        let Some(target) = wanted.keys().next().map(|placement| placement.target.clone()) else { return };
        let ends = Ends::default();
        let (outlet, (receiver, out)) = self.outlet(wanted, ends.clone(), false);
        let (number, name) = (outlet.number, destination.clone());
        info!(at = %destination, "Publishing there.");
        self.open.insert(destination, outlet);
        let running = AnyTarget::reporter(&target, frame, receiver, out, ends);
        self.tasks.spawn(async move { (name, number, running.await) });
    }

    /// Waits until a reporter has something to tell, or ends. Cancel-safe.
    ///
    /// # Errors
    /// When somebody else is in the agent's place.
    pub async fn changed(&mut self) -> Result<(), ReporterError> {
        let bell = Arc::clone(&self.bell);
        let (destination, number, end) = tokio::select! {
            () = bell.notified() => return Ok(()),
            Some(end) = self.tasks.join_next() => match end {
                Ok(end) => end,
                Err(e) => return Err(e.into()),
            },
        };
        let Some(outlet) = self.open.get_mut(&destination).filter(|o| o.number == number) else { return Ok(()) };
        let why = match end {
            Ok(()) => "it ended early".to_owned(),
            Err(e) if matches!(e.downcast_ref(), Some(PublishError::Claim(_))) => return Err(e),
            Err(e) => Chain(&*e).to_string(),
        };
        warn!(at = %destination, why, "A reporter gave up; trying again in 10 s.");
        outlet.failed = Some((why, Instant::now() + AGAIN));
        Ok(())
    }

    /// When something is to be done, whatever reporters tell.
    pub fn deadline(&self) -> Option<Instant> {
        let of = |o: &Outlet| {
            let failed = o.failed.as_ref().map(|(_, at)| *at);
            let farewell = o.closing.filter(|_| !o.owes).map(|since| since + FAREWELL);
            failed.into_iter().chain(farewell).min()
        };
        self.open.values().filter_map(of).min()
    }

    /// Whether the registry holds this payload under `placement`.
    pub fn holds(&self, placement: &Placement, payload: &Payload, frame: &Frame) -> bool {
        let outlet = self.open.get(&placement.target.destination(frame));
        outlet.is_some_and(|outlet| outlet.standing.borrow().published.get(placement) == Some(payload))
    }

    /// Why `placement` is not published as it is wanted, in a word and a reason.
    pub fn hindrance(&self, placement: &Placement, frame: &Frame) -> Option<(&'static str, String)> {
        let outlet = self.open.get(&placement.target.destination(frame))?;
        if let Some((why, _)) = &outlet.failed {
            return Some(("failed", why.clone()));
        }
        let standing = outlet.standing.borrow();
        let refused = standing.refused.get(placement).map(|why| ("refused", why.clone()));
        refused.or_else(|| standing.away.as_ref().map(|(why, _)| ("away", why.clone())))
    }

    /// Ends all of them: with `drain` everything is withdrawn first, for which there is so much time.
    pub async fn end(&mut self, drain: Option<Duration>) {
        if let Some(wait) = drain {
            let empty = async {
                for outlet in self.open.values() {
                    outlet.wanted.send_modify(|wanted| *wanted = Arc::new(withdrawn(wanted)));
                }
                for outlet in self.open.values_mut() {
                    let rest = outlet.wanted.borrow().clone();
                    let done = |s: &Standing| s.published.is_empty() && rest.keys().all(|it| s.absent.contains(it));
                    let _ = outlet.standing.wait_for(done).await; // it has ended: so be it
                }
            };
            if timeout(wait, empty).await.is_err() {
                warn!("Not everything was withdrawn in time.");
            }
        }
        for outlet in self.open.values() {
            if drain.is_some() {
                outlet.ends.withdraw.cancel();
            }
            outlet.ends.stop.cancel();
        }
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(END, all).await.is_err() {
            warn!("A reporter did not end in time.");
        }
    }
}
