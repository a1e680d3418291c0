//! The switch that all hosts of a run hang on.

use std::net::Ipv4Addr;

use super::host::Holder;
use super::{Host, run_line};
use crate::{Lab, LabError, Result};

/// All networks of labs are 10.213.N.0/24.
const FIRST: [u8; 2] = [10, 213];
/// This process's own address in each of them, and the end of the cable that it holds.
const OBSERVER: u8 = 254;

/// A network of a run's own: a bridge in a namespace, and a cable to this machine, so that the test can reach every host
/// and is itself beside the links that it breaks. Dropping it ends it.
#[derive(Debug)]
pub struct Network {
    switch: Holder,
    number: u8,
    hosts: u8,
}

impl Network {
    /// An empty network, on a subnet that nobody on this machine uses.
    ///
    /// # Errors
    /// When there can be no namespaces, or all subnets are taken.
    pub async fn new(lab: &Lab) -> Result<Self> {
        let switch = Holder::start(lab, "switch").await?;
        switch.run("ip link add name lan type bridge")?;
        switch.run("ip link set lan up")?;
        // Several runs begin their search at different places.
        let start = u8::try_from(std::process::id() % 250).unwrap_or_default();
        for step in 0..250 {
            let number = (start + step) % 250 + 1;
            if is_taken(number)? {
                continue;
            }
            // The interface's name is the claim: there can be only one.
            let cable = format!("ip link add e2e{number} type veth peer name observer netns {}", switch.pid());
            if run_line(&cable).is_err() {
                continue;
            }
            switch.run("ip link set observer master lan up")?;
            let network = Self { switch, number, hosts: 0 };
            run_line(&format!("ip addr add {}/24 dev e2e{number}", network.observer()))?;
            run_line(&format!("ip link set e2e{number} up"))?;
            return Ok(network);
        }
        Err(LabError::new("every subnet of 10.213.0.0/16 is in use"))
    }

    /// One more host, reachable.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn host(&mut self, lab: &Lab, name: &str) -> Result<Host> {
        let holder = Holder::start(lab, name).await?;
        self.hosts += 1;
        let address = self.at(self.hosts);
        let switch_end = format!("h{}", self.hosts);
        self.switch.run(&format!("ip link add {switch_end} type veth peer name eth0 netns {}", holder.pid()))?;
        self.switch.run(&format!("ip link set {switch_end} master lan up"))?;
        holder.run("ip link set lo up")?;
        holder.run(&format!("ip addr add {address}/24 dev eth0"))?;
        holder.run("ip link set eth0 up")?;
        Ok(Host::new(lab, holder, name, address))
    }

    /// Where this process is in the network; forwarders listen here.
    pub fn observer(&self) -> Ipv4Addr {
        self.at(OBSERVER)
    }

    /// An address that no host has yet.
    pub fn spare_address(&mut self) -> Ipv4Addr {
        self.hosts += 1;
        self.at(self.hosts)
    }

    fn at(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(FIRST[0], FIRST[1], self.number, last)
    }
}

/// Whether this machine knows a way to the subnet already, other than its default one.
fn is_taken(number: u8) -> Result<bool> {
    let subnet = format!("{}.{}.{number}.0/24", FIRST[0], FIRST[1]);
    for way in ["match", "root"] {
        let routes = run_line(&format!("ip -4 route show to {way} {subnet}"))?;
        if routes.lines().any(|route| !route.starts_with("default")) {
            return Ok(true);
        }
    }
    Ok(false)
}
