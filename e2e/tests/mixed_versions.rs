//! Agents of two versions on one etcd, and each upgraded and taken back under load. OLD_PROGRAMS is a directory with `register` and
//! `discover` of another version, as `make mixed` builds them; without it both are this one.

use std::path::PathBuf;
use std::time::Duration;

use e2e::agents::{Agent, Discover, Register};
use e2e::docker::Spec;
use e2e::haproxy::Haproxy;
use e2e::scene::{Scene, each_haproxy, loopback};
use e2e::traffic::{Load, Plan};
use e2e::{Etcd, Lab, Result, free_port};

/// For an agent to end.
const END: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    This,
    Other,
}

impl Version {
    fn program(self, name: &str) -> Option<PathBuf> {
        let dir = std::env::var_os("OLD_PROGRAMS").filter(|_| self == Self::Other)?;
        Some(PathBuf::from(dir).join(name))
    }

    async fn register(self, lab: &Lab, etcd: &Etcd) -> Result<Agent> {
        Register { program: self.program("register"), ..Register::new("register") }.start(lab, etcd).await
    }

    async fn discover(self, lab: &Lab, etcd: &Etcd, haproxy: &Haproxy) -> Result<Agent> {
        Discover { program: self.program("discover"), ..Discover::new("discover", haproxy) }.start(lab, etcd).await
    }
}

/// Two versions work together in each order of upgrades, and back: no request fails, and nothing is registered anew.
#[test]
fn agents_of_two_versions_work_together_in_each_order_of_upgrades() -> Result<()> {
    use Version::{Other, This};
    each_haproxy(async |lab, haproxy| {
        let etcd = Etcd::start();
        let register = Other.register(lab, &etcd).await?;
        let discover = Other.discover(lab, &etcd, haproxy).await?;
        let mut scene = Scene { discover, register, etcd, docker: lab.docker().await? };
        let port = free_port();
        let (to, spec) = (loopback(port), Spec::served("web", port));
        let first = scene.serve(&spec, to).await?;
        let load = Load::start(&Plan::mixed(to));
        // register first, then discover, and back in the same order: every pair of versions is met.
        for (register, discover) in [(This, Other), (This, This), (Other, This), (Other, Other)] {
            let before = scene.entries("/backends/").await?;
            scene.register.process().stop(END).await?;
            scene.register = register.register(lab, &scene.etcd).await?;
            scene.discover.process().stop(END).await?;
            scene.discover = discover.discover(lab, &scene.etcd, haproxy).await?;
            let what = format!("register {register:?}, discover {discover:?}");
            assert_eq!(scene.entries("/backends/").await?, before, "{what}: written anew");
            let second = scene.serve(&spec, to).await?;
            second.stop(END).await?;
            scene.registered(&second, false).await?;
            load.so_far().must_be_clean(&what)?;
        }
        load.stop().await.must_be_clean("every pair of versions")?;
        drop(first);
        Ok(())
    })
}
