//! Endpoints that the cluster itself names: an agent that runs while all members it was given are replaced goes on.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::debug;

use super::config::{Endpoint, parse_endpoints};
use super::pool::{Pool, Retry};
use crate::store::Operation;

/// How often the cluster is asked who belongs to it, at most.
const EVERY: Duration = Duration::from_secs(60);

/// When the cluster was last asked.
#[derive(Debug, Default)]
pub(super) struct Members(Mutex<Option<Instant>>);

impl Members {
    /// Asks the cluster for its members, if the settings say so and it is time.
    pub(super) async fn learn(&self, pool: &Pool) {
        if !pool.config.discover_members {
            return;
        }
        let Ok(mut asked) = self.0.try_lock() else { return };
        if asked.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        *asked = Some(Instant::now());
        let work = |client: etcd_client::Client| async move { client.cluster_client().member_list().await };
        match pool.call(Operation::Position, "members", Retry::Always, work).await {
            Ok((answer, _)) => pool.add(answer.members().iter().filter(|m| !m.is_learner()).flat_map(|member| {
                let urls = member.client_urls().iter().filter_map(|url| parse_endpoints(url, None, false).ok());
                urls.flatten().filter(|endpoint| may_be_meant(endpoint, &pool.config.endpoints)).collect::<Vec<_>>()
            })),
            Err(error) => debug!(%error, "The cluster does not say who belongs to it."),
        }
    }
}

/// A member that advertises a loopback address means its own host, which is ours only where an endpoint given says so.
fn may_be_meant(endpoint: &Endpoint, given: &[Endpoint]) -> bool {
    !endpoint.is_loopback() || given.iter().any(Endpoint::is_loopback)
}
