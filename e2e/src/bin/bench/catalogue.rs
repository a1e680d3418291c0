//! A Synapse config with large catalogues: plan and render, without the write and HAProxy's own check.

use std::sync::Arc;
use std::time::{Duration, Instant};

use discover::generators::haproxy::file::synapse::SynapseComposer;
use discover::generators::haproxy::turn::plan::{Applied, Plan, plan};
use discover::haproxy::api::version::{Capabilities, Version};
use discover::reconcile::Policies;
use discover::synapse::load::load_with;
use e2e::figures::Figure;
use e2e::plot::{Line, Plot};
use e2e::terminal::Terminal;
use e2e::{Context, Lab, LabError, Result};
use model::{Backend, Pool, ServiceMap, ServiceName};
use serde_json::{Map, Value, json};

/// A catalogue's size, Synapse's figures on a like machine, and the goals: cold, all changed, one changed, nothing changed.
struct Catalogue {
    services: usize,
    backends: usize,
    synapse: [&'static str; 4],
    goals: [&'static str; 4],
}

const CATALOGUES: [Catalogue; 3] = [
    Catalogue {
        services: 1000,
        backends: 20,
        synapse: ["325–415 ms", "", "142–147 ms", "146 ms"],
        goals: ["≤ 25 ms", "≤ 30 ms", "≤ 0.5 ms", "≤ 0.1 ms"],
    },
    Catalogue { services: 10, backends: 2000, synapse: ["1.1 s", "3.1 s", "0.17 s", ""], goals: [""; 4] },
    Catalogue { services: 1, backends: 10_000, synapse: ["2.5 s", "7.4 s", "", ""], goals: ["≤ 15 ms", "", "", ""] },
];

/// How often each step but the first is measured; the median counts.
const ROUNDS: u16 = 15;

/// The catalogues of the plot, in services of 20 backends.
const SIZES: [usize; 7] = [10, 30, 100, 300, 1000, 2000, 4000];

/// What each catalogue costs.
pub async fn measure(lab: &Lab, _: Terminal) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for catalogue in &CATALOGUES {
        let times = steps(catalogue.services, catalogue.backends, lab)?;
        let what = ["cold", "all changed", "one service changed", "nothing changed"];
        for (n, time) in times.into_iter().enumerate() {
            let synapse = catalogue.synapse[n];
            let beside = if synapse.is_empty() { String::new() } else { format!("; Synapse: {synapse}") };
            figures.push(Figure {
                what: format!("{} × {}: {}", catalogue.services, catalogue.backends, what[n]),
                value: format!("{:.3} ms", time.as_secs_f64() * 1000.0),
                goal: catalogue.goals[n].to_owned(),
                conditions: format!("Synapse's config; policies, plan and the file's text, not written{beside}"),
            });
        }
    }
    Ok(figures)
}

/// What a change costs, against how much there is.
pub fn plot(lab: &Lab) -> Result<Plot> {
    let names = ["from nothing", "all changed", "one service changed", "nothing changed"];
    let mut lines: Vec<Line> = names.map(|n| Line { name: n.to_owned(), points: Vec::new() }).into();
    for services in SIZES {
        let servers = u32::try_from(20 * services).during("counting servers")?;
        for (line, time) in lines.iter_mut().zip(steps(services, 20, lab)?) {
            line.points.push((f64::from(servers), time.as_secs_f64() * 1000.0));
        }
    }
    Ok(Plot {
        title: "discover: policies, plan and the text of haproxy.cfg".to_owned(),
        x: "servers in the file (services of 20)".to_owned(),
        y: "milliseconds".to_owned(),
        lines,
    })
}

fn config(services: usize) -> Value {
    let service = |n: usize| {
        let haproxy = json!({"port": 1024 + n, "server_options": "check inter 2s rise 3 fall 2", "listen": ["mode http", "option httplog"]});
        (format!("service-{n:04}"), json!({"discovery": {"method": "base"}, "haproxy": haproxy}))
    };
    let services: Map<String, Value> = (0..services).map(service).collect();
    json!({"services": services, "haproxy": {"global": ["maxconn 9"], "defaults": ["mode http"], "server_order_seed": 1,
        "do_writes": false, "do_socket": false, "do_reloads": false}})
}

fn pool(service: usize, backends: usize, round: u16) -> Result<Arc<Pool>> {
    let backend = |n: usize| -> Result<Arc<Backend>> {
        let [high, low] = u16::try_from(n % 60_000).during("numbering")?.to_be_bytes();
        let host = format!("10.{}.{high}.{low}", service % 250).parse().during("making an address")?;
        let id = format!("b{n}").parse().during("making an id")?;
        let port = (8000 + round).try_into().during("making a port")?;
        Ok(Arc::new(Backend { name: Some(format!("node-{n}").into()), ..Backend::new(id, host, port) }))
    };
    Ok(Arc::new((0..backends).map(backend).collect::<Result<Pool>>()?))
}

/// The four steps on a catalogue of that size: cold, all changed, one service changed, nothing changed.
fn steps(services: usize, backends: usize, lab: &Lab) -> Result<[Duration; 4]> {
    let file = lab.dir().join(format!("catalogue-{services}.json"));
    std::fs::write(&file, config(services).to_string()).during("writing a config")?;
    let config = load_with(&file, &|_| None).during("reading the config")?.config;
    let names: Vec<ServiceName> = config.services.iter().map(|s| s.name.clone()).collect();
    let all = |round: u16| -> Result<ServiceMap> {
        let one = |(n, name): (usize, &ServiceName)| Ok((name.clone(), pool(n, backends, round)?));
        names.iter().enumerate().map(one).collect()
    };
    let can = Capabilities::of(&Version::OLDEST);
    let mut policies = Policies::new(&config);
    let mut composer = SynapseComposer::new(&config, None).ok_or_else(|| LabError::new("no haproxy section"))?;
    let mut applied = Applied::default();
    let mut turn = |answers: &ServiceMap| {
        let began = Instant::now();
        let services = policies.apply(answers, began.into());
        let layout = composer.compose(services, None, 0);
        let planned = plan(&layout, &applied, &can);
        let text = (planned != Plan::Unchanged).then(|| layout.pieces());
        let took = began.elapsed();
        std::hint::black_box(text);
        applied = Applied { layout, ..Applied::default() };
        took
    };
    let mut answers = all(0)?;
    let cold = turn(&answers);
    let (mut nothing, mut one, mut every) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let n = usize::from(round) % names.len();
        answers.insert(names[n].clone(), pool(n, backends, 100 + round)?);
        one.push(turn(&answers));
        // Not just after all changed: what that leaves behind is freed in the next turn.
        nothing.push(turn(&answers));
        answers = all(round)?;
        every.push(turn(&answers));
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    Ok([cold, median(every), median(one), median(nothing)])
}
