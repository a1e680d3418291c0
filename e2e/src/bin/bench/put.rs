//! From a put to etcd to the first answer through HAProxy: discover alone.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use e2e::agents::Discover;
use e2e::figures::{Figure, Times, millis};
use e2e::scene::{PATIENCE, routed};
use e2e::server::Server;
use e2e::terminal::Terminal;
use e2e::traffic::first_answer;
use e2e::{Context, Etcd, Lab, LabError, Result, free_port, haproxy};

const PUTS: usize = 300;
/// How long what was deleted must be silent.
const QUIET: Duration = Duration::from_millis(20);

/// Put → first answer, and delete → last answer of what was deleted.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let haproxy = haproxy::newest()?;
    let etcd = Etcd::start();
    let _discover = Discover::new("discover", &haproxy).start(lab, &etcd).await?;
    // Servers of our own: a container's published port would add Docker's proxy to every request, and so to what is measured.
    let (stays, comes) = (Server::start("stays").await?, Server::start("comes").await?);
    let to = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let value = |address: SocketAddr| {
        format!(r#"{{"host":"{}","port":{},"service_port":{},"mode":"http"}}"#, address.ip(), address.port(), to.port())
    };
    let mut client = etcd.operator().await;
    let first = value(stays.address);
    client.put("/backends/bench/stays", first, None).await.during("putting into etcd")?;
    routed(to, &stays.name).await?;
    let second = value(comes.address);

    let (mut puts, mut deletes, mut resolution) = (Times::default(), Times::default(), Times::default());
    let measuring = async {
        for n in 0..PUTS {
            let (key, name) = (format!("/backends/bench/comes-{n}"), comes.name.clone());
            let probe = tokio::spawn(async move { first_answer(to, true, &name, PATIENCE).await });
            // Asked already when the key comes.
            tokio::time::sleep(Duration::from_millis(5)).await;
            let put = SystemTime::now();
            client.put(key.as_str(), second.clone(), None).await.during("putting into etcd")?;
            let first = probe.await.during("asking for the newcomer")??;
            if first.failed > 0 {
                return Err(LabError::new(format!("{} requests failed", first.failed)));
            }
            puts.push(first.at.duration_since(put).unwrap_or_default());
            resolution.push(first.resolution);
            deletes.push(delete(&mut client, &key, to, &comes.name, QUIET).await?);
        }
        Ok(())
    };
    terminal.while_waiting(&format!("{PUTS} puts and deletes"), measuring).await?;
    let conditions = format!(
        "{PUTS} times, one after the other; pool of 1 → 2 → 1, http section, HAProxy {}, one etcd; asked without pause \
         on one kept connection (resolution p50 {})",
        haproxy.version,
        millis(resolution.percentile(50))
    );
    let figure = |what: &str, times: &Times, goal: &str| Figure {
        what: what.to_owned(),
        value: times.to_string(),
        goal: goal.to_owned(),
        conditions: conditions.clone(),
    };
    Ok(vec![
        figure("etcd put sent → HAProxy routes to it", &puts, "p50 ≤ 3 ms, p99 ≤ 6 ms"),
        figure("etcd delete sent → last request to it", &deletes, ""),
    ])
}

/// Deletes the key, and asks until `name` has not answered for as long as `quiet`; gives the time from the deletion to its last answer.
pub async fn delete(
    client: &mut etcd_client::Client,
    key: &str,
    to: SocketAddr,
    name: &str,
    quiet: Duration,
) -> Result<Duration> {
    let deleted = SystemTime::now();
    client.delete(key, None).await.during("deleting from etcd")?;
    let mut http = e2e::http::Client::new(to, true, PATIENCE);
    let mut last = deleted;
    while last.elapsed().unwrap_or_default() < quiet {
        let reply = http.get("/").await.during("asking after a delete")?;
        if reply.status != 200 {
            return Err(LabError::new(format!("status {} after a delete", reply.status)));
        }
        if reply.name() == name {
            last = SystemTime::now();
        }
    }
    Ok(last.duration_since(deleted).unwrap_or_default())
}
