//! What 1,000 registrations ask of the store while nothing changes.

use std::time::Duration;

use e2e::figures::Figure;
use e2e::flock::{Flock, registered};
use e2e::terminal::Terminal;
use e2e::{Context, Etcd, Lab, Result, wait};

const CONTAINERS: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(60);
const HELD: Duration = Duration::from_secs(60);

/// Writes and renewals over a minute.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let etcd = Etcd::start();
    let flock = Flock::new(lab, CONTAINERS, &[]).await?;
    (0..CONTAINERS).for_each(|number| flock.start_silently(number));
    let agent = flock.agent(lab, &etcd, &[]).await?;
    let mut client = etcd.operator().await;
    let all = async || registered(&mut client).await.is_ok_and(|n| n == CONTAINERS);
    wait::until_true("1,000 containers in etcd", PATIENCE, all).await?;
    let mut revision = async || {
        let reply = client.get("/", None).await.during("asking etcd for its revision")?;
        Ok::<_, e2e::LabError>(reply.header().during("etcd's answer has no header")?.revision())
    };
    let (writes, beats) = (revision().await?, agent.metric("register_lease_beats_total").await?);
    terminal.while_waiting("holding them for a minute", tokio::time::sleep(HELD)).await;
    let (writes, beats) = (revision().await? - writes, agent.metric("register_lease_beats_total").await? - beats);
    Ok(vec![Figure {
        what: "1,000 registrations held for a minute".to_owned(),
        value: format!("{writes} writes, {beats} renewals of one lease"),
        goal: "0 writes".to_owned(),
        conditions: "TTL 10 s, one etcd; a refresher of each key writes: docker-register two keys per container every \
                     10 s, 12,000 a minute; Registrator with -ttl-refresh 4 one, 15,000 a minute (and its v3 fork as many \
                     lease grants)"
            .to_owned(),
    }])
}
