//! Names of hosts, looked up once for all checks: hundreds of them must not each hold a thread in the resolver.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::sync::lock;
use model::Host;
use tokio::sync::Mutex as Turn;
use tokio::time::{Instant, timeout};

/// For how long an answer holds.
const FRESH: Duration = Duration::from_secs(10);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of one name. A second question waits for the answer to the first.
type Name = Arc<Turn<Option<(Instant, Result<Vec<IpAddr>, String>)>>>;

/// The names looked up so far.
#[derive(Debug, Default)]
pub(super) struct Resolver(Mutex<HashMap<Arc<str>, Name>>);

impl Resolver {
    /// The addresses of `host`, IPv4 first; an old answer where there is no new one.
    pub async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, String> {
        let name = match host {
            Host::Ip(ip) => return Ok(vec![*ip]),
            // Source: RFC 6761, section 6.3.
            Host::Name(name) if name.eq_ignore_ascii_case("localhost") => {
                return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
            }
            Host::Name(name) => name.clone(),
        };
        let known = Arc::clone(lock(&self.0).entry(name.clone()).or_default());
        let mut known = known.lock().await;
        if let Some((at, answer)) = &*known
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = match timeout(PATIENCE, tokio::net::lookup_host((&*name, 0))).await {
            Ok(Ok(found)) => {
                let mut found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
                found.sort();
                found.dedup();
                if found.is_empty() { Err(format!("{name} has no address")) } else { Ok(found) }
            }
            Ok(Err(e)) => Err(format!("looking up {name}: {e}")),
            Err(_) => Err(format!("looking up {name}: no answer within {PATIENCE:?}")),
        };
        let answer = match (answer, known.take()) {
            (Err(_), Some((_, Ok(old)))) => Ok(old),
            (answer, _) => answer,
        };
        *known = Some((Instant::now(), answer.clone()));
        answer
    }
}
