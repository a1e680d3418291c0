//! A watch: a task that reads the stream, asks for signs of life, and ends with the first fault.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::fault::{Failure, classify, of_reason};
use super::pool::Retry;
use super::{DECODE_LIMIT, EtcdStore, entry, prefix_end};
use crate::store::{Batch, Change, Fault, Operation, Position, Revision, StoreError, WatchStream};

/// How many messages may wait for a slow reader; then the server holds the rest.
const QUEUE: usize = 16;

/// A watch of etcd.
#[derive(Debug)]
pub struct EtcdWatch {
    prefix: String,
    batches: mpsc::Receiver<Result<Batch, Fault>>,
    over: Option<Fault>,
    _reader: AbortOnDropHandle<()>,
}

impl WatchStream for EtcdWatch {
    async fn next(&mut self) -> Result<Batch, StoreError> {
        let fault = match &self.over {
            Some(fault) => fault.clone(),
            None => match self.batches.recv().await {
                Some(Ok(batch)) => return Ok(batch),
                Some(Err(fault)) => fault,
                None => Fault::Ended("its reader stopped".into()),
            },
        };
        self.over = Some(fault.clone());
        Err(StoreError::new(Operation::Watch, &self.prefix, fault))
    }
}

pub(super) async fn open(store: &EtcdStore, prefix: &str, after: Position) -> Result<EtcdWatch, StoreError> {
    let told = |fault| StoreError::new(Operation::Watch, prefix, fault);
    // This read also renews an expired token, which etcd-client does not do for a watch.
    let now = store.newest(Operation::Watch, prefix).await?;
    same_past(after, now).map_err(told)?;
    let next = after.revision.0 + 1;
    // No fragments: etcd-client hides the mark of the last one. Without them a revision never spans two messages.
    let options = || WatchOptions::new().with_range(prefix_end(prefix)).with_start_revision(next);
    let work = |client: etcd_client::Client| async move {
        let mut watch = client.watch_client().max_decoding_message_size(DECODE_LIMIT);
        let (asks, mut answers) = watch.watch(super::first_key(prefix), Some(options())).await?.split();
        let first = answers.message().await?; // says "created", and perhaps "canceled"
        Ok((asks, answers, first))
    };
    let ((asks, answers, first), index) = store.pool.call(Operation::Watch, prefix, Retry::Always, work).await?;
    let (out, batches) = mpsc::channel(QUEUE);
    let reader = Reader {
        store: store.clone(),
        index,
        prefix: prefix.to_owned(),
        cluster: after.cluster,
        seen: AtomicI64::new(after.revision.0),
        heard: AtomicU64::new(0),
        since: Instant::now(),
        out,
    };
    let first = first.ok_or_else(|| told(Fault::Ended("before it began".into())))?;
    if let Err(failure) = reader.take(&first).await {
        return Err(told(reader.give_up(failure)));
    }
    let task = tokio::spawn(async move { reader.run(asks, answers).await });
    Ok(EtcdWatch { prefix: prefix.to_owned(), batches, over: None, _reader: AbortOnDropHandle::new(task) })
}

/// Whether what was seen is still in the store's past.
fn same_past(seen: Position, now: Position) -> Result<(), Fault> {
    if now.cluster != seen.cluster {
        return Err(Fault::ClusterChanged { seen, now });
    }
    if now.revision < seen.revision {
        return Err(Fault::Rewound { seen: seen.revision, now: now.revision });
    }
    Ok(())
}

struct Reader {
    store: EtcdStore,
    index: usize,
    prefix: String,
    cluster: u64,
    /// The newest revision handed on.
    seen: AtomicI64,
    /// When the stream last spoke, in milliseconds after `since`.
    heard: AtomicU64,
    since: Instant,
    out: mpsc::Sender<Result<Batch, Fault>>,
}

impl Reader {
    async fn run(&self, asks: WatchRequestSender, answers: WatchResponseStream) {
        let failure = tokio::select! {
            failure = self.read(answers) => failure,
            failure = self.probe(asks) => failure,
        };
        let fault = self.give_up(failure);
        // Where nobody listens any more there is nobody to tell.
        drop(self.out.send(Err(fault)).await);
    }

    fn give_up(&self, failure: Failure) -> Fault {
        if failure.moves_on || matches!(failure.fault, Fault::Idle(_) | Fault::Ended(_)) {
            self.store.pool.leave(self.index);
        }
        failure.fault
    }

    async fn read(&self, mut answers: WatchResponseStream) -> Failure {
        loop {
            let taken = match answers.message().await {
                Ok(Some(message)) => self.take(&message).await,
                Ok(None) => Err(Failure::of(Fault::Ended("closed by the server".into()))),
                Err(error) => Err(classify(self.store.pool.name(self.index), &error)),
            };
            if let Err(failure) = taken {
                return failure;
            }
            self.hear();
        }
    }

    fn hear(&self) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(now, Ordering::Relaxed);
    }

    /// Hands one message on.
    async fn take(&self, message: &WatchResponse) -> Result<(), Failure> {
        let seen = self.position();
        if let Some(header) = message.header()
            && header.cluster_id() != self.cluster
        {
            let now = Position { cluster: header.cluster_id(), revision: Revision(header.revision()) };
            return Err(Failure::of(Fault::ClusterChanged { seen, now }));
        }
        if message.canceled() {
            // A compaction comes without a reason, and the stream stays open.
            return Err(match message.compact_revision() {
                0 => of_reason(self.store.pool.name(self.index), message.cancel_reason()),
                at => Failure::of(Fault::Compacted { at: Revision(at) }),
            });
        }
        if message.created() {
            return Ok(());
        }
        let changes: Vec<_> = message.events().iter().filter_map(change).collect();
        let Some(last) = changes.last().map(Change::revision) else {
            // A sign of life may be dropped when the reader has plenty to do. Its header's revision is not to be
            // trusted: before 3.4.25 and 3.5.8 it may run ahead of the events (etcd issue 15220).
            drop(self.out.try_send(Ok(Batch { changes, at: seen })));
            return Ok(());
        };
        if changes.iter().any(|change| change.revision() <= seen.revision) {
            return Err(Failure::of(Fault::Rewound { seen: seen.revision, now: last }));
        }
        self.seen.store(last.0, Ordering::Relaxed);
        drop(self.out.send(Ok(Batch { changes, at: self.position() })).await);
        Ok(())
    }

    fn position(&self) -> Position {
        Position { cluster: self.cluster, revision: Revision(self.seen.load(Ordering::Relaxed)) }
    }

    /// While the stream is quiet: asks it for a sign of life, and the store for its position, since a store that was
    /// restored from an older snapshot is quiet too.
    async fn probe(&self, mut asks: WatchRequestSender) -> Failure {
        let times = self.store.pool.config.timeouts;
        loop {
            sleep(times.probe).await;
            let quiet = (self.since + Duration::from_millis(self.heard.load(Ordering::Relaxed))).elapsed();
            // A reader of ours that is slow to take messages is no silence of the stream.
            if quiet >= times.idle && self.out.capacity() > 0 {
                return Failure::of(Fault::Idle(quiet));
            }
            if quiet < times.probe {
                continue;
            }
            if let Ok(Err(error)) = timeout(times.call, asks.request_progress()).await {
                return classify(self.store.pool.name(self.index), &error);
            }
            match self.store.newest(Operation::Watch, &self.prefix).await {
                Ok(now) => {
                    if let Err(fault) = same_past(self.position(), now) {
                        return Failure::of(fault);
                    }
                }
                Err(error) => return Failure::of(error.fault),
            }
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
