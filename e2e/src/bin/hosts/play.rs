//! Hosts for a person to play with: commands come from standard input, one a line.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use e2e::hosts::fleet::Size;
use e2e::hosts::links::Way;
use e2e::hosts::{Fleet, Host, Link, Network};
use e2e::terminal::Terminal;
use e2e::traffic::Report;
use e2e::{Context, Lab, LabError, Result};
use nix::sys::signal::Signal;
use tokio::sync::mpsc;

const HELP: &str = "\
     run b1            start a container on a host
     kill b1           kill -9 the newest container of a host
     stop b1           docker stop it
     cut b1 e1 c1 …    cut a host off from others, or from all when none is named; in b1 …, out b1 …: one way only
     loss b1 0.05      lose that part of the packets between a host and all others
     heal b1           end all faults of a host's links
     freeze|thaw NAME  stop or continue a node of etcd (e1), a daemon (b1), register (b1/register) or discover (c1/discover)
     ls                who is routed
     quit              remove everything";

/// Brings hosts up and does what it is told until the input ends.
pub async fn play(lab: &Lab, network: &mut Network, size: &Size, terminal: Terminal) -> Result<()> {
    let fleet = terminal.while_waiting("starting hosts", Fleet::start(lab, network, size)).await?;
    let mut table = Table { fleet, faults: BTreeMap::new(), terminal };
    for host in table.hosts() {
        let enter = host.command("bash".as_ref(), [""; 0]);
        let words: Vec<_> = enter.1.iter().map(|word| word.to_string_lossy()).collect();
        terminal.line(format_args!("     {:<4} {:<14} nsenter {}", host.name(), host.address(), words.join(" ")));
    }
    for backend in &table.fleet.backends {
        terminal.line(format_args!("     {:<4} docker -H {}", backend.host.name(), backend.dockerd.host()));
    }
    terminal.line(format_args!("     HAProxy serves {} on http://{}/", e2e::hosts::fleet::SERVICE, table.fleet.to()));
    terminal.line(HELP);
    let mut lines = commands();
    while let Some(line) = lines.recv().await {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["quit" | "exit"] => break,
            words => {
                if let Err(error) = table.obey(words).await {
                    terminal.line(format_args!("     {} {error:?}", terminal.bad("failed:")));
                }
            }
        }
    }
    Ok(())
}

/// The lines of standard input. A thread reads them that ends with the program: nothing can interrupt such a read.
fn commands() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(std::result::Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

struct Table {
    fleet: Fleet,
    faults: BTreeMap<String, Vec<Link>>,
    terminal: Terminal,
}

impl Table {
    async fn obey(&mut self, words: &[&str]) -> Result<()> {
        match *words {
            ["ls"] => crate::table::once(self.terminal, &mut self.fleet, &Report::default()).await,
            ["run", host] => {
                let placed = self.backend(host)?.run().await?;
                let (name, address) = (placed.name.clone(), placed.address);
                self.terminal.done(format_args!("{name} at {address}"));
                Ok(())
            }
            ["kill", host] => match self.backend(host)?.containers.pop() {
                Some(placed) => placed.container.kill().await,
                None => Err(LabError::new(format!("{host} has no container"))),
            },
            ["stop", host] => match self.backend(host)?.containers.pop() {
                Some(placed) => placed.container.stop(Duration::from_secs(10)).await,
                None => Err(LabError::new(format!("{host} has no container"))),
            },
            [way @ ("cut" | "in" | "out"), host, ref others @ ..] => {
                let way = match way {
                    "in" => Way::In,
                    "out" => Way::Out,
                    _ => Way::Both,
                };
                let link = Link::cut(&self.host(host)?, &self.addresses(host, others)?, way)?;
                self.faults.entry(host.to_owned()).or_default().push(link);
                Ok(())
            }
            ["loss", host, part] => {
                let part = part.parse().during(format!("{part:?} is no part of 1"))?;
                let link = Link::lossy(&self.host(host)?, &self.addresses(host, &[])?, part)?;
                self.faults.entry(host.to_owned()).or_default().push(link);
                Ok(())
            }
            ["heal", host] => self.faults.remove(host).unwrap_or_default().iter().try_for_each(Link::heal),
            [word @ ("freeze" | "thaw"), name] => self.freeze(name, word == "freeze"),
            _ => {
                self.terminal.line(HELP);
                Ok(())
            }
        }
    }

    fn hosts(&self) -> Vec<Host> {
        let backends = self.fleet.backends.iter().map(|backend| &backend.host);
        let nodes = self.fleet.nodes.iter().map(|node| &node.host);
        backends.chain(nodes).chain([&self.fleet.client]).cloned().collect()
    }

    fn host(&self, name: &str) -> Result<Host> {
        self.hosts().into_iter().find(|host| host.name() == name).during(format!("there is no host {name}"))
    }

    fn addresses(&self, of: &str, others: &[&str]) -> Result<Vec<Ipv4Addr>> {
        if others.is_empty() {
            let others = self.hosts().into_iter().filter(|host| host.name() != of);
            return Ok(others.map(|host| host.address()).collect());
        }
        others.iter().map(|other| Ok(self.host(other)?.address())).collect()
    }

    fn backend(&mut self, name: &str) -> Result<&mut e2e::hosts::fleet::Backend> {
        let found = self.fleet.backends.iter_mut().find(|backend| backend.host.name() == name);
        found.during(format!("there is no backend host {name}"))
    }

    fn freeze(&mut self, name: &str, freeze: bool) -> Result<()> {
        let signal = if freeze { Signal::SIGSTOP } else { Signal::SIGCONT };
        if let Some(node) = self.fleet.nodes.iter().find(|node| node.host.name() == name) {
            match freeze {
                true => node.etcd.freeze(),
                false => node.etcd.thaw(),
            }
            return Ok(());
        }
        match name.split_once('/') {
            None => self.backend(name)?.dockerd.process().signal(signal),
            Some((host, "register")) => self.backend(host)?.register.process().signal(signal),
            Some((_, "discover")) => self.fleet.discover.process().signal(signal),
            Some(_) => Err(LabError::new(format!("there is no {name}"))),
        }
    }
}
