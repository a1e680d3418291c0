//! `register stop`: a container stops under GETs and POSTs, and none fails, whatever its program does with the signal.

use std::time::Duration;

use e2e::agents::binary;
use e2e::docker::Spec;
use e2e::hosts::fleet::{Backend, Size};
use e2e::hosts::{Fleet, in_network};
use e2e::scene::{PATIENCE, routed};
use e2e::traffic::{Load, Plan, stop_all};
use e2e::{LabError, Result, haproxy, wait};

#[test]
fn a_container_that_register_stops_loses_no_request() -> Result<()> {
    for haproxy in haproxy::all()? {
        let version = haproxy.version.clone();
        in_network(async |lab, network| {
            let size = Size { etcd: 1, backends: 2, haproxy: Some(haproxy), ..Size::default() };
            let mut fleet = Fleet::start(lab, network, &size).await?;
            fleet.serve(&[0, 1, 1]).await?;
            // Its own signal to stop leaves a program no moment for anything.
            let rude = Spec { stop_signal: Some("SIGKILL".to_owned()), ..Backend::spec() };
            let rude = fleet.backends[0].docker.run(&rude).await?;
            routed(fleet.to(), rude.short()).await?;
            let graceful = fleet.backends[0].containers[0].name.clone();

            let plan = Plan { at_most: Duration::from_mins(5), ..Plan::mixed(fleet.to()) };
            let posts = Plan {
                at_most: Duration::from_mins(5),
                keep_alive: 4,
                closing: 4,
                ..Plan::posts(fleet.to(), "stopping")
            };
            let loads = vec![Load::start(&plan), Load::start(&posts)];
            let answered = |name: &str| loads.iter().map(|load| load.answered_by(name)).sum::<u64>();
            wait::until_true("load on both", PATIENCE, async || {
                [rude.short(), &graceful].iter().all(|name| answered(name) > 50)
            })
            .await?;
            let host = &fleet.backends[0].host;
            let (control, docker) = (lab.dir().join("b1-register-run/control.sock"), fleet.backends[0].dockerd.host());
            let discover = format!("http://{}", fleet.discover.address());
            let admin = format!("http://{}", fleet.backends[0].register.address());
            let args = ["stop", rude.short(), &graceful, "--grace", "1s", "--discover", &discover, "--admin", &admin];
            let args = args.into_iter().chain(["--docker-host", &docker, "--control"]).map(str::to_owned);
            let args = args.chain([control.display().to_string()]);
            let mut stopping = host.spawn(lab, "register-stop", &binary("register")?, args, &[])?;
            wait::until_true("the end of register stop", PATIENCE * 2, async || !stopping.is_running()).await?;
            let servers = fleet.servers().await?;
            let up = servers.values().filter(|status| status.starts_with("UP")).count();
            if up != 2 || stopping.log().lines().count() != 2 {
                return Err(LabError::new(format!("two should be left: {servers:?}\n{}", stopping.log())));
            }
            let stays = fleet.backends[1].containers[0].name.clone();
            let now = answered(&stays);
            wait::until_true("requests afterwards", PATIENCE, async || answered(&stays) > now + 100).await?;
            let report = stop_all(loads).await;
            println!("FIGURE register stop of two of four, HAProxy {version}: {}", report.summary());
            report.must_be_clean("register stop stopped two containers")
        })?;
    }
    Ok(())
}
