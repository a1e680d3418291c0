//! One stream of gRPC with any number of watches on it. A task reads it and hands each watch its own; while it is quiet it is
//! asked for signs of life. A fault of one watch ends that watch, one of the stream ends all; each is opened again by its
//! owner, from where it was.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use etcd_client::{WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::cluster::{Cluster, DECODE_LIMIT, first_key, prefix_end};
use super::fault::{Failure, classify, of_reason};
use super::live::{Delivery, Live, same_past};
use super::pool::Retry;
use crate::store::{Fault, Operation, Position, Revision, StoreError};
use agent::sync::lock;

/// How many messages may wait for one slow reader; then all wait for it, and soon no longer.
const QUEUE: usize = 4;

/// Where a watch begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begin {
    /// What is known already.
    pub(super) after: Position,
    /// The revision that the server is asked to begin with.
    pub(super) from: i64,
    /// One key, and not all that begin so.
    pub(super) exact: bool,
}

/// A watch that has begun: the server's number of it, and what it is told.
pub(super) type Begun = (i64, mpsc::Receiver<Delivery>);

/// An open stream; dropped with its last watch, and closed thereby.
#[derive(Debug)]
pub(super) struct Stream {
    shared: Arc<SharedStream>,
    _reader: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct SharedStream {
    cluster: Cluster,
    /// Of the endpoint.
    index: usize,
    /// What is to be sent.
    asks: mpsc::UnboundedSender<Ask>,
    watches: Mutex<Watches>,
    /// When the stream last spoke, in milliseconds after `since`.
    heard: AtomicU64,
    since: Instant,
}

#[derive(Debug, Default)]
struct Watches {
    /// Asked for and not created yet: the server answers in this order.
    asked: VecDeque<Asked>,
    /// By the server's number.
    live: BTreeMap<i64, Live>,
    /// Why the stream takes no more, once it does not.
    closed: Option<Fault>,
}

#[derive(Debug)]
struct Asked {
    watch: Live,
    created: oneshot::Sender<Result<i64, Fault>>,
}

#[derive(Debug)]
enum Ask {
    Watch { prefix: String, begin: Begin },
    Cancel(i64),
    Life,
}

impl Stream {
    /// A new stream with its first watch.
    pub(super) async fn open(cluster: &Cluster, prefix: &str, begin: Begin) -> Result<(Arc<Self>, Begun), StoreError> {
        let told = |fault| StoreError::new(Operation::Watch, prefix, fault);
        let work = |client: etcd_client::Client| async move {
            let mut watch = client.watch_client().max_decoding_message_size(DECODE_LIMIT);
            let opened = watch.watch(first_key(prefix), Some(options(prefix, begin))).await?;
            let (asks, mut answers) = opened.split();
            let first = answers.message().await?; // says "created", and perhaps "canceled"
            Ok((asks, answers, first))
        };
        let ((sender, answers, first), index) =
            cluster.pool.call(Operation::Watch, prefix, Retry::Always, work).await?;
        let first = first.ok_or_else(|| told(Fault::Ended("before it began".into())))?;
        let (asks, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(SharedStream {
            cluster: cluster.clone(),
            index,
            asks,
            watches: Mutex::default(),
            heard: AtomicU64::new(0),
            since: Instant::now(),
        });
        let (out, batches) = mpsc::channel(QUEUE);
        let created = shared.expect(&mut shared.watches(), prefix, begin, out);
        shared.created(&first);
        let created = created.await.unwrap_or_else(|_| Err(Fault::Ended("before it began".into())));
        let id = created.map_err(told)?;
        let reader = tokio::spawn(shared.clone().run(sender, queue, answers));
        Ok((Arc::new(Self { shared, _reader: AbortOnDropHandle::new(reader) }), (id, batches)))
    }

    /// One more watch.
    ///
    /// Cancel-safe: a watch that nobody waited for is given up at its next message.
    pub(super) async fn watch(&self, prefix: &str, begin: Begin) -> Result<Begun, Fault> {
        let (out, batches) = mpsc::channel(QUEUE);
        let created = self.ask_for(prefix, begin, out)?;
        let late = |_| Fault::Ended("the server does not begin it".into());
        let created = timeout(self.shared.cluster.pool.config.timeouts.call, created).await.map_err(late)?;
        let id = created.map_err(|_| Fault::Ended("its stream ended".into()))??;
        Ok((id, batches))
    }

    /// Asks for one more watch, which tells its news on `out`. The server's number of it comes later.
    pub(super) fn ask_for(&self, prefix: &str, begin: Begin, out: mpsc::Sender<Delivery>) -> Result<Created, Fault> {
        let mut watches = self.shared.watches();
        if let Some(fault) = &watches.closed {
            return Err(fault.clone());
        }
        let created = self.shared.expect(&mut watches, prefix, begin, out);
        self.shared.ask(Ask::Watch { prefix: prefix.to_owned(), begin });
        Ok(created)
    }

    /// Whether it may be joined: it works, at the endpoint that calls go to.
    pub(super) fn takes_more(&self) -> bool {
        self.fault().is_none() && self.shared.cluster.pool.is_current(self.shared.index)
    }

    /// Why it takes no more watches; those that it has may go on.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.shared.watches().closed.clone()
    }

    /// Ends a watch.
    pub(super) fn leave(&self, id: i64) {
        if self.shared.watches().live.remove(&id).is_some() {
            self.shared.ask(Ask::Cancel(id));
        }
    }
}

/// What is asked for. No fragments: etcd-client hides the mark of the last one. Without them a revision never spans two
/// messages.
fn options(prefix: &str, begin: Begin) -> WatchOptions {
    let options = WatchOptions::new().with_start_revision(begin.from);
    if begin.exact { options } else { options.with_range(prefix_end(prefix)) }
}

/// The server's number of a watch, once it has begun.
pub(super) type Created = oneshot::Receiver<Result<i64, Fault>>;

impl SharedStream {
    fn watches(&self) -> MutexGuard<'_, Watches> {
        lock(&self.watches)
    }

    fn ask(&self, ask: Ask) {
        let _ = self.asks.send(ask); // nobody sends any more: the stream has ended, and all of them know
    }

    /// Another watch is asked for next.
    fn expect(&self, watches: &mut Watches, prefix: &str, begin: Begin, out: mpsc::Sender<Delivery>) -> Created {
        let (created, outcome) = oneshot::channel();
        let Begin { after, exact, .. } = begin;
        let watch = Live { prefix: prefix.to_owned(), exact, from: after.revision, seen: after, out };
        watches.asked.push_back(Asked { watch, created });
        outcome
    }

    async fn run(
        self: Arc<Self>,
        sender: WatchRequestSender,
        queue: mpsc::UnboundedReceiver<Ask>,
        answers: WatchResponseStream,
    ) {
        // Writing does not wait for reading: a server that is not read does not read either.
        let failure = tokio::select! {
            failure = self.read(answers) => failure,
            failure = self.write(sender, queue) => failure,
            failure = self.probe() => failure,
        };
        let mut watches = self.watches();
        let fault = self.give_up(&mut watches, failure);
        for (_, watch) in std::mem::take(&mut watches.live) {
            let _ = watch.out.try_send(Err(fault.clone())); // one that is full finds it in the stream
        }
        for asked in watches.asked.drain(..) {
            let _ = asked.created.send(Err(fault.clone()));
        }
    }

    /// Closes the stream to new watches; another endpoint is tried next where that may help.
    fn give_up(&self, watches: &mut Watches, failure: Failure) -> Fault {
        if failure.moves_on || matches!(failure.fault, Fault::Idle(_) | Fault::Ended(_)) {
            self.cluster.pool.leave(self.index, &failure.fault);
        }
        watches.closed = Some(failure.fault.clone());
        failure.fault
    }

    async fn write(&self, mut sender: WatchRequestSender, mut queue: mpsc::UnboundedReceiver<Ask>) -> Failure {
        while let Some(ask) = queue.recv().await {
            let sent = match ask {
                Ask::Watch { prefix, begin } => sender.watch(first_key(&prefix), Some(options(&prefix, begin))).await,
                Ask::Cancel(id) => sender.cancel(id).await,
                Ask::Life => sender.request_progress().await,
            };
            if let Err(error) = sent {
                return classify(&self.cluster.pool.name(self.index), &error);
            }
        }
        Failure::of(Fault::Ended("nobody asks any more".into())) // never: the queue's other end is in `self`
    }

    async fn read(&self, mut answers: WatchResponseStream) -> Failure {
        loop {
            match answers.message().await {
                Ok(Some(message)) => self.take(&message).await,
                Ok(None) => return Failure::of(Fault::Ended("closed by the server".into())),
                Err(error) => return classify(&self.cluster.pool.name(self.index), &error),
            }
            self.hear();
        }
    }

    fn hear(&self) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(now, Ordering::Relaxed);
    }

    /// Hands one message on.
    async fn take(&self, message: &WatchResponse) {
        self.hear();
        if message.created() {
            return self.created(message);
        }
        if message.watch_id() < 0 {
            return self.tell_of_life(); // it is of no watch
        }
        let id = message.watch_id();
        let Some((out, news)) = self.judge(id, message) else { return };
        match out.try_send(news) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(Ok(batch))) if batch.changes.is_empty() => {} // a mere sign of life
            Err(TrySendError::Full(news)) => {
                // The others wait, too; one that does not read any more must not stop them.
                if timeout(self.cluster.pool.config.timeouts.call, out.send(news)).await.is_err() {
                    self.watches().live.remove(&id);
                    self.ask(Ask::Cancel(id));
                }
            }
        }
    }

    /// The server's answer to what was asked for first.
    fn created(&self, message: &WatchResponse) {
        let mut watches = self.watches();
        let Some(Asked { watch, created }) = watches.asked.pop_front() else { return };
        if let Err(failure) = watch.same_cluster(message).and_then(|()| self.canceled(message)) {
            // What one refused may have made it deaf (etcd 3.4), and its rights may be of yesterday.
            let fault = self.give_up(&mut watches, failure);
            let _ = created.send(Err(fault)); // nobody waits any more
            return;
        }
        let id = message.watch_id();
        let _ = watch.live(); // one that has gone already is found out below
        watches.live.insert(id, watch);
        if created.send(Ok(id)).is_err() {
            watches.live.remove(&id);
            self.ask(Ask::Cancel(id));
        }
    }

    /// What a message means for its watch, and where that is told.
    fn judge(&self, id: i64, message: &WatchResponse) -> Option<(mpsc::Sender<Delivery>, Delivery)> {
        let mut watches = self.watches();
        let watch = watches.live.get_mut(&id)?;
        let out = watch.out.clone();
        let read = watch.same_cluster(message).and_then(|()| self.canceled(message));
        match read.and_then(|()| watch.changes(message)) {
            Ok(batch) => Some((out, Ok(batch))),
            Err(failure) => {
                watches.live.remove(&id);
                // One that was compacted or whose past is another leaves the stream as it is.
                let fault = match failure.fault {
                    Fault::Unavailable { .. } | Fault::Ended(_) => self.give_up(&mut watches, failure),
                    fault => {
                        self.ask(Ask::Cancel(id));
                        fault
                    }
                };
                Some((out, Err(fault)))
            }
        }
    }

    fn canceled(&self, message: &WatchResponse) -> Result<(), Failure> {
        match (message.canceled(), message.compact_revision()) {
            (false, _) => Ok(()),
            // A compaction comes without a reason, and the stream stays open.
            (true, 0) => Err(of_reason(&self.cluster.pool.name(self.index), message.cancel_reason())),
            (true, at) => Err(Failure::of(Fault::Compacted { at: Revision(at) })),
        }
    }

    /// Every watch hears that the stream is alive, but one that has plenty to do.
    fn tell_of_life(&self) {
        self.watches().live.retain(|id, watch| {
            let gone = watch.live().is_err();
            if gone {
                self.ask(Ask::Cancel(*id));
            }
            !gone
        });
    }

    /// While the stream is quiet: asks it for a sign of life, and the store for its position, since a store that was
    /// restored from an older snapshot is quiet too.
    async fn probe(&self) -> Failure {
        let times = self.cluster.pool.config.timeouts;
        let mut last = i64::MIN;
        loop {
            let quiet = self.quiet();
            // That one of our readers is slow is no silence of the stream: that takes less.
            if quiet >= times.idle {
                return Failure::of(Fault::Idle(times.idle));
            }
            if quiet < times.probe {
                sleep(times.probe - quiet).await;
                continue;
            }
            self.ask(Ask::Life);
            if let Some((id, prefix)) = self.after(last) {
                last = id;
                match self.cluster.newest(Operation::Watch, &prefix).await {
                    Ok(now) => self.compare(now),
                    Err(StoreError { fault: fault @ Fault::Denied { .. }, .. }) => self.end(&[id], |_| fault.clone()),
                    Err(error) => return Failure::of(error.fault),
                }
            }
            sleep(times.idle.saturating_sub(times.probe)).await;
        }
    }

    /// The watch after that one, and its prefix. Each has its turn, as it may have lost its rights.
    fn after(&self, last: i64) -> Option<(i64, String)> {
        let watches = self.watches();
        let after = watches.live.range((Excluded(last), Unbounded)).next();
        after.or(watches.live.iter().next()).map(|(id, watch)| (*id, watch.prefix.clone()))
    }

    /// How long the stream has said nothing.
    fn quiet(&self) -> Duration {
        (self.since + Duration::from_millis(self.heard.load(Ordering::Relaxed))).elapsed()
    }

    /// Ends the watches whose past is not the store's.
    fn compare(&self, now: Position) {
        let strangers: Vec<i64> = {
            let watches = self.watches();
            watches.live.iter().filter(|(_, w)| same_past(w.seen, now).is_err()).map(|(id, _)| *id).collect()
        };
        self.end(&strangers, |watch| same_past(watch.seen, now).err().unwrap_or(Fault::Ended("its past".into())));
    }

    fn end(&self, ids: &[i64], fault: impl Fn(&Live) -> Fault) {
        let mut watches = self.watches();
        for id in ids {
            if let Some(watch) = watches.live.remove(id) {
                let _ = watch.out.try_send(Err(fault(&watch))); // a full one ends as one that is read too slowly
                self.ask(Ask::Cancel(*id));
            }
        }
    }
}
