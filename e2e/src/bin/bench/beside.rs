//! A change of one service while a crowd arrives in another, 10,000 backends or 2,000 whose words HAProxy refuses: from the put to the
//! first answer, and from the delete to the last.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use e2e::agents::Discover;
use e2e::figures::{Figure, Times};
use e2e::scene::{PATIENCE, routed};
use e2e::server::Server;
use e2e::terminal::Terminal;
use e2e::traffic::first_answer;
use e2e::{Context, Etcd, Lab, Result, free_port, haproxy};
use etcd_client::{Txn, TxnOp};

use crate::put::delete;

/// Keys in one transaction.
const BATCH: usize = 100;
/// Changes beside each crowd, at least.
const CHANGES: usize = 30;
/// How long what was deleted must be silent.
const QUIET: Duration = Duration::from_millis(200);

/// Who arrives.
#[derive(Clone, Copy)]
struct Crowd {
    what: &'static str,
    size: usize,
    /// Each brings a word of its own that HAProxy refuses.
    refused: bool,
}

const CROWDS: [Crowd; 2] = [
    Crowd { what: "10,000 that arrive", size: 10_000, refused: false },
    Crowd { what: "2,000 whose words HAProxy refuses", size: 2_000, refused: true },
];

/// Put → first answer and delete → last answer, again and again until all have arrived.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for crowd in CROWDS {
        figures.extend(Box::pin(beside(lab, terminal, crowd)).await?);
    }
    Ok(figures)
}

async fn beside(lab: &Lab, terminal: Terminal, arriving: Crowd) -> Result<Vec<Figure>> {
    let haproxy = haproxy::newest()?;
    let etcd = Etcd::start();
    let name = format!("discover-{}", arriving.size);
    let agent = Discover::new(&name, &haproxy).args(&["--check", "check inter 60s"]).start(lab, &etcd).await?;
    let (stays, comes) = (Server::start("stays").await?, Server::start("comes").await?);
    let (to, crowd) = (SocketAddr::from(([127, 0, 0, 1], free_port())), free_port());
    let value = |address: SocketAddr| {
        format!(r#"{{"host":"{}","port":{},"service_port":{},"mode":"http"}}"#, address.ip(), address.port(), to.port())
    };
    let mut client = etcd.operator().await;
    client.put("/backends/web/stays", value(stays.address), None).await.during("putting into etcd")?;
    routed(to, &stays.name).await?;
    let member = move |n: usize| {
        let host = format!("127.{}.{}.{}", 100 + n / 50_000, n / 200 % 250, n % 200 + 1);
        let words = match arriving.refused && n > 0 {
            true => format!(r#","haproxy_server_options":"check ssl verify none ciphers NONE{n}""#),
            false => String::new(),
        };
        (
            format!("/backends/crowd/n{n}"),
            format!(r#"{{"host":"{host}","port":9,"service_port":{crowd},"mode":"http"{words}}}"#),
        )
    };
    let (first, value_of_first) = member(0);
    client.put(first, value_of_first, None).await.during("putting into etcd")?;
    let (turns, operations) = counted(&agent).await?;

    let mut filler = etcd.operator().await;
    let filling = tokio::spawn(async move {
        for from in (1..arriving.size).step_by(BATCH) {
            let puts =
                (from..arriving.size.min(from + BATCH)).map(member).map(|(key, value)| TxnOp::put(key, value, None));
            filler.txn(Txn::new().and_then(puts.collect::<Vec<_>>())).await.during("filling etcd")?;
        }
        Result::Ok(())
    });
    let (mut puts, mut deletes) = (Times::default(), Times::default());
    let (began, second) = (SystemTime::now(), value(comes.address));
    let measuring = async {
        let mut n = 0;
        while n < CHANGES || !filling.is_finished() || agent.metric("discover_changes_waiting").await? > 0.0 {
            n += 1;
            let (key, name) = (format!("/backends/web/comes-{n}"), comes.name.clone());
            let probe = tokio::spawn(async move { first_answer(to, true, &name, PATIENCE).await });
            let put = SystemTime::now();
            client.put(key.as_str(), second.clone(), None).await.during("putting into etcd")?;
            let first = probe.await.during("asking for the newcomer")??;
            puts.push(first.at.duration_since(put).unwrap_or_default());
            deletes.push(delete(&mut client, &key, to, &comes.name, QUIET).await?);
        }
        Result::Ok(())
    };
    terminal.while_waiting(&format!("beside {}", arriving.what), measuring).await?;
    filling.await.during("filling etcd")??;
    let took = began.elapsed().unwrap_or_default();
    let (turns, operations) = {
        let now = counted(&agent).await?;
        (now.0 - turns, now.1 - operations)
    };
    let conditions = format!(
        "one after the other in {:.1} s, while they come in another service of HAProxy {}; {:.0} operations a turn in {turns:.0} turns, \
         {:.0} runs of haproxy -c",
        took.as_secs_f64(),
        haproxy.version,
        operations / turns.max(1.0),
        agent.metric("discover_config_checks_total").await?,
    );
    let figure = |what: &str, times: &Times| Figure {
        what: what.to_owned(),
        value: times.to_string(),
        goal: "max ≤ 1 s".to_owned(),
        conditions: conditions.clone(),
    };
    Ok(vec![
        figure(&format!("beside {}: etcd put sent → HAProxy routes to it", arriving.what), &puts),
        figure(&format!("beside {}: etcd delete sent → last request to it", arriving.what), &deletes),
    ])
}

async fn counted(agent: &e2e::agents::Agent) -> Result<(f64, f64)> {
    Ok((agent.metric("discover_turns_total").await?, agent.metric("discover_runtime_operations_total").await?))
}
