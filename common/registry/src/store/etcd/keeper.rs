//! The renewal of one lease over a stream of its own, which is opened again, elsewhere, when it fails.

use std::time::Duration;

use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::{Instant, timeout};

use super::cluster::Cluster;
use super::fault::{Failure, classify, of_lease};
use super::pool::Retry;
use crate::store::{Fault, KeepAlive, LeaseId, Operation, StoreError};

/// The renewal of one of etcd's leases.
#[derive(Debug)]
pub struct EtcdKeeper {
    cluster: Cluster,
    lease: LeaseId,
    stream: Option<Stream>,
    /// When the lease ends, as the last answer had it.
    until: Instant,
}

#[derive(Debug)]
struct Stream {
    asks: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    index: usize,
}

impl Stream {
    async fn open(cluster: &Cluster, lease: LeaseId) -> Result<Self, StoreError> {
        let work = |client: etcd_client::Client| async move { client.lease_client().keep_alive(lease.0).await };
        let opened = cluster.pool.call(Operation::KeepAlive, &lease.to_string(), Retry::Always, work).await;
        let ((asks, answers), index) = opened.map_err(|error| of_lease(error, lease))?;
        Ok(Self { asks, answers, index })
    }

    async fn beat(&mut self) -> Result<i64, etcd_client::Error> {
        self.asks.keep_alive().await?;
        let ended = || etcd_client::Error::LeaseKeepAliveError("the stream ended".into());
        Ok(self.answers.message().await?.ok_or_else(ended)?.ttl())
    }
}

impl EtcdKeeper {
    pub(super) async fn open(cluster: &Cluster, lease: LeaseId) -> Result<Self, StoreError> {
        let stream = bounded(cluster, lease, Box::pin(Stream::open(cluster, lease))).await?;
        Ok(Self { cluster: cluster.clone(), lease, stream: Some(stream), until: Instant::now() })
    }

    async fn try_beat(&mut self, mut stream: Stream) -> Result<Duration, Failure> {
        let (after, endpoint) = (self.cluster.pool.config.timeouts.call, self.cluster.pool.name(stream.index));
        let failure = match timeout(after, stream.beat()).await {
            Ok(Ok(ttl)) if ttl > 0 => {
                self.stream = Some(stream);
                return Ok(Duration::from_secs(ttl.unsigned_abs()));
            }
            Ok(Ok(_)) => return Err(Failure::of(Fault::LeaseLost(self.lease))),
            Ok(Err(error)) => classify(&endpoint, &error),
            Err(_) => Failure::of(Fault::Timeout { endpoint, after }),
        };
        self.cluster.pool.leave(stream.index, &failure.fault);
        Err(failure)
    }
}

impl KeepAlive for EtcdKeeper {
    async fn beat(&mut self) -> Result<Duration, StoreError> {
        let (cluster, lease) = (self.cluster.clone(), self.lease);
        let ttl = bounded(&cluster, lease, Box::pin(self.beat_twice())).await?;
        self.until = Instant::now() + ttl;
        Ok(ttl)
    }
}

/// `work` on `lease`, given up in time: a call may take a third of the lease's time, so two and a half of them stay well
/// below all of it, however many endpoints are frozen. That is time for one that hangs, for the next, and for a third that
/// answers.
async fn bounded<T>(
    cluster: &Cluster,
    lease: LeaseId,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let after = cluster.pool.config.timeouts.call.mul_f32(2.5);
    timeout(after, work).await.unwrap_or_else(|_| {
        let fault = Fault::Timeout { endpoint: "any endpoint".to_owned(), after };
        Err(StoreError::new(Operation::KeepAlive, lease.to_string(), fault))
    })
}

/// What a renewal's second may hide: etcd tells a lease's time in whole ones.
const SECOND: Duration = Duration::from_secs(1);

impl EtcdKeeper {
    /// How long the lease lives, where somebody else has renewed it since the last answer: `etcd grpc-proxy` renews at a pace of its
    /// own, and answers then.
    async fn renewed_by_another(&self) -> Option<Duration> {
        let patience = self.cluster.pool.config.timeouts.call / 4;
        let ttl = timeout(patience, self.cluster.time_to_live(self.lease)).await.ok()?.ok()??;
        (Instant::now() + ttl > self.until + SECOND).then_some(ttl)
    }

    async fn beat_twice(&mut self) -> Result<Duration, StoreError> {
        let lease = self.lease;
        let told = |fault| StoreError::new(Operation::KeepAlive, lease.to_string(), fault);
        let mut last = None;
        // Once on the stream that there is, once on a new one. A dropped call drops its stream, and so no answer to
        // an older beat is ever taken for the newer one's.
        for _ in 0..2 {
            let stream = match self.stream.take() {
                Some(stream) => stream,
                None => Stream::open(&self.cluster, self.lease).await?,
            };
            match self.try_beat(stream).await {
                Ok(ttl) => return Ok(ttl),
                Err(failure) if matches!(failure.fault, Fault::LeaseLost(_)) => return Err(told(failure.fault)),
                Err(failure) => last = Some(failure.fault),
            }
            if matches!(last, Some(Fault::Timeout { .. }))
                && let Some(ttl) = self.renewed_by_another().await
            {
                return Ok(ttl);
            }
        }
        Err(told(last.unwrap_or_else(|| Fault::Ended("no beat was possible".into()))))
    }
}
