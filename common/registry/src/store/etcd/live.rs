//! One watch of a stream: what it has seen, and what a message means for it.

use etcd_client::{EventType, WatchResponse};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::cluster::entry;
use super::fault::Failure;
use crate::store::{Batch, Change, Fault, Position, Revision};

/// What a watch is told: the next message, or why there is none any more.
pub(super) type Delivery = Result<Batch, Fault>;

/// A watch that the server has been asked for.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) prefix: String,
    /// Of one key: one of many that share `out`.
    pub(super) exact: bool,
    /// What was known when it began.
    pub(super) from: Revision,
    /// Everything up to it was handed on.
    pub(super) seen: Position,
    pub(super) out: mpsc::Sender<Delivery>,
}

impl Live {
    /// Whether a message comes from the cluster that it watches.
    pub(super) fn same_cluster(&self, message: &WatchResponse) -> Result<(), Failure> {
        match message.header() {
            Some(header) if header.cluster_id() != self.seen.cluster => {
                let now = Position { cluster: header.cluster_id(), revision: Revision(header.revision()) };
                Err(Failure::of(Fault::ClusterChanged { seen: self.seen, now }))
            }
            _ => Ok(()),
        }
    }

    /// Takes in a message.
    pub(super) fn changes(&mut self, message: &WatchResponse) -> Result<Batch, Failure> {
        let is_news = |change: &Change| change.revision() > self.from || self.seen.revision > self.from;
        let changes: Vec<_> = message.events().iter().filter_map(change).filter(is_news).collect();
        // A sign of life's header is not to be trusted: before 3.4.25 and 3.5.8 its revision may run ahead of the events
        // (etcd issue 15220).
        if let Some(last) = changes.last().map(Change::revision) {
            if changes.iter().any(|change| change.revision() <= self.seen.revision) {
                return Err(Failure::of(Fault::Rewound { seen: self.seen.revision, now: last }));
            }
            self.seen.revision = last;
        }
        Ok(Batch { changes, at: self.seen })
    }

    /// Tells its owner that all is well; `Err` where there is none any more.
    pub(super) fn live(&self) -> Result<(), ()> {
        if self.exact {
            // Thousands of them share one reader, whom their number would only wake.
            return if self.out.is_closed() { Err(()) } else { Ok(()) };
        }
        match self.out.try_send(Ok(Batch { changes: Vec::new(), at: self.seen })) {
            Err(TrySendError::Closed(_)) => Err(()),
            Ok(()) | Err(TrySendError::Full(_)) => Ok(()),
        }
    }
}

fn change(event: &etcd_client::Event) -> Option<Change> {
    let kv = event.kv()?;
    let revision = Revision(kv.mod_revision());
    Some(match event.event_type() {
        EventType::Put => Change::Put(entry(kv)),
        EventType::Delete => Change::Delete { key: String::from_utf8_lossy(kv.key()).into(), revision },
    })
}

/// Whether what was seen is still in the store's past.
pub(super) fn same_past(seen: Position, now: Position) -> Result<(), Fault> {
    if now.cluster != seen.cluster {
        return Err(Fault::ClusterChanged { seen, now });
    }
    if now.revision < seen.revision {
        return Err(Fault::Rewound { seen: seen.revision, now: now.revision });
    }
    Ok(())
}
