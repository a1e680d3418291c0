//! Links that break. The rules stand in the host's own namespace, before everything that Docker does to packets, and
//! concern only packets from and to the other address: the test itself reaches both hosts all the time.
//!
//! Source: iptables(8) and iptables-extensions(8), `statistic`; the table `raw` sees a packet before any address is
//! rewritten, and `mangle`'s POSTROUTING sees those that the host sends and those that it forwards for its containers.

use std::net::Ipv4Addr;

use super::Host;
use crate::Result;

/// Which packets a fault concerns, as the host sees it where the fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Both directions.
    Both,
    /// What comes from the other host.
    In,
    /// What goes to the other host.
    Out,
}

/// A fault on the link between two hosts. Dropping it leaves the fault: [`Self::heal`] ends it.
#[derive(Debug)]
#[must_use]
pub struct Link {
    host: Host,
    rules: Vec<String>,
}

impl Link {
    /// Cuts `host` off from `others`; packets vanish without a word.
    ///
    /// # Errors
    /// When a rule cannot be set.
    pub fn cut(host: &Host, others: &[Ipv4Addr], way: Way) -> Result<Self> {
        Self::fault(host, others, way, "")
    }

    /// Loses this part of all packets between `host` and `others`, 0 to 1.
    ///
    /// # Errors
    /// As [`Self::cut`].
    pub fn lossy(host: &Host, others: &[Ipv4Addr], part: f64) -> Result<Self> {
        Self::fault(host, others, Way::Both, &format!("-m statistic --mode random --probability {part:.4}"))
    }

    fn fault(host: &Host, others: &[Ipv4Addr], way: Way, which: &str) -> Result<Self> {
        let mut link = Self { host: host.clone(), rules: Vec::new() };
        for address in others {
            let inward = format!("-t raw {{}} PREROUTING -s {address} {which} -j DROP");
            let outward = format!("-t mangle {{}} POSTROUTING -d {address} {which} -j DROP");
            link.rules.extend((way != Way::Out).then_some(inward));
            link.rules.extend((way != Way::In).then_some(outward));
        }
        link.each("-A")?;
        Ok(link)
    }

    /// Cuts again what was healed.
    ///
    /// # Errors
    /// When a rule cannot be set.
    pub fn again(&self) -> Result<()> {
        self.each("-A")
    }

    /// Ends the fault; it may be made again.
    ///
    /// # Errors
    /// When a rule cannot be taken away.
    pub fn heal(&self) -> Result<()> {
        self.each("-D")
    }

    fn each(&self, action: &str) -> Result<()> {
        self.rules
            .iter()
            .try_for_each(|rule| self.host.run(&format!("iptables -w {}", rule.replace("{}", action))).map(drop))
    }
}
