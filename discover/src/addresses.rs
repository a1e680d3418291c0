//! Which addresses backends may have. Pure.
//!
//! Writers of a registry are not the operator. Without a policy one key would make HAProxy serve what listens on this host's loopback
//! alone, or a cloud's metadata service (169.254.169.254). The policy judges addresses, never their spelling: names are judged by what
//! they resolve to ([`crate::names`]), and an IPv6 address also by the IPv4 address that it carries.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use clap::Args;
use model::Host;

/// An address or a network, `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    ip: IpAddr,
    bits: u8,
}

impl FromStr for Network {
    type Err = Unreadable;
    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let ip: IpAddr = ip.parse().map_err(|_| unreadable(text, "an address or a network such as 10.0.0.0/8"))?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most));
        Ok(Self { ip, bits: bits.ok_or_else(|| unreadable(text, "a network: too many bits"))? })
    }
}

impl Network {
    /// Whether the address is in it. An IPv4 address in IPv6's form is an IPv4 address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| width == 0 || (a ^ b) >> (128 - width) == 0;
        match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(ip)) => {
                let [ours, ip] = [ours, ip].map(|ip| u128::from(ip.to_bits()) << 96);
                same(ours, ip, self.bits.into())
            }
            (IpAddr::V6(ours), IpAddr::V6(ip)) => same(ours.to_bits(), ip.to_bits(), self.bits.into()),
            _ => false,
        }
    }

    /// Whether all of it is in `other`.
    pub fn is_within(&self, other: &Self) -> bool {
        self.bits >= other.bits && other.contains(self.ip)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

/// A text that is none of what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {accepted}")]
pub struct Unreadable {
    text: String,
    accepted: &'static str,
}

/// The refusal of a text.
pub fn unreadable(text: &str, accepted: &'static str) -> Unreadable {
    Unreadable { text: text.chars().take(80).collect(), accepted }
}

/// The operator's flags.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Addresses of backends")]
pub struct AddressArgs {
    /// Networks or addresses that backends may have; with ! before it, that they may not, such as 10.0.0.0/8,!10.0.9.0/24 [default: all but special ones]
    #[arg(long, env = "DISCOVER_BACKEND_NETWORKS", value_name = "NETWORKS", value_delimiter = ',')]
    pub backend_networks: Vec<NetworkRule>,
    /// Take backends at loopback addresses from the registry, too (for a demo on one host)
    #[arg(long, env = "DISCOVER_ALLOW_LOOPBACK")]
    pub allow_loopback: bool,
}

impl AddressArgs {
    /// The policy of these flags. `own` says that backends come from this host itself or from the operator's own config, where
    /// loopback is as good as any address.
    pub fn policy(&self, own: bool) -> AddressPolicy {
        AddressPolicy::new(self.backend_networks.clone(), self.allow_loopback, own)
    }

    /// The same for a Synapse config, whose `backend_networks` count where the flags name none.
    pub fn policy_with(&self, configured: &[NetworkRule]) -> AddressPolicy {
        let rules = if self.backend_networks.is_empty() { configured } else { &self.backend_networks };
        AddressPolicy::new(rules.to_vec(), self.allow_loopback, true)
    }
}

/// A network that backends may have their addresses in, or with `!` before it one that they may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkRule {
    network: Network,
    allowed: bool,
}

impl FromStr for NetworkRule {
    type Err = Unreadable;
    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let text = text.trim();
        let (allowed, network) = text.strip_prefix('!').map_or((true, text), |network| (false, network.trim_start()));
        Ok(Self { network: network.parse()?, allowed })
    }
}

/// Which addresses backends may have. The default takes no loopback, and all else that can be a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    rules: Vec<NetworkRule>,
    loopback: bool,
}

/// Why an address is refused; says what would allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressRefusal {
    /// An address of no single host: unspecified, multicast or broadcast. Nothing allows it.
    Nobody(&'static str),
    /// 127.0.0.0/8, ::1.
    Loopback,
    /// 169.254.0.0/16, fe80::/10.
    LinkLocal,
    Excluded(Network),
    /// In none of the networks that are listed.
    NotListed,
}

impl fmt::Display for AddressRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody(kind) => write!(f, "{kind} address, at which no backend can be"),
            Self::Loopback => f.write_str("a loopback address (--allow-loopback takes it)"),
            Self::LinkLocal => f.write_str("a link-local address (--backend-networks takes it where it lists it)"),
            Self::Excluded(network) => write!(f, "--backend-networks excludes {network}"),
            Self::NotListed => f.write_str("not in --backend-networks"),
        }
    }
}

impl AddressPolicy {
    /// The policy of these rules. Where they list no network, all of them are listed. Loopback counts with `allow_loopback`; with
    /// `own` also where no network is listed.
    pub fn new(rules: Vec<NetworkRule>, allow_loopback: bool, own: bool) -> Self {
        let lists = rules.iter().any(|rule| rule.allowed);
        Self { rules, loopback: allow_loopback || own && !lists }
    }

    /// Judges an address.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn judge(&self, ip: IpAddr) -> Result<(), AddressRefusal> {
        let ip = ip.to_canonical();
        self.judge_kind(ip)?;
        carried(ip).map_or(Ok(()), |v4| self.judge_kind(v4.into()))?;
        let mut listed = self.rules.iter().filter(|rule| rule.allowed).peekable();
        match listed.peek().is_none() || self.loopback && ip.is_loopback() || listed.any(|r| r.network.contains(ip)) {
            true => Ok(()),
            false => Err(AddressRefusal::NotListed),
        }
    }

    /// Judges a host, as far as it says where it is: names are judged again by what they resolve to.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn judge_host(&self, host: &Host) -> Result<(), AddressRefusal> {
        match host {
            Host::Ip(ip) => self.judge(*ip),
            Host::Name(name) => spelled(name).map_or(Ok(()), |ip| self.judge(ip)),
        }
    }

    /// What kind of address it is, and whether its network is excluded.
    fn judge_kind(&self, ip: IpAddr) -> Result<(), AddressRefusal> {
        let link_local = match ip {
            IpAddr::V4(ip) if ip.octets()[0] == 0 => return Err(AddressRefusal::Nobody("an unspecified")), // RFC 1122: 0.0.0.0/8
            IpAddr::V4(Ipv4Addr::BROADCAST) => return Err(AddressRefusal::Nobody("a broadcast")),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => return Err(AddressRefusal::Nobody("an unspecified")),
            _ if ip.is_multicast() => return Err(AddressRefusal::Nobody("a multicast")),
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if let Some(rule) = self.rules.iter().find(|rule| !rule.allowed && rule.network.contains(ip)) {
            return Err(AddressRefusal::Excluded(rule.network));
        }
        // A wide network such as 0.0.0.0/0 does not mean these; one that lies within them does.
        let listed = |kinds: [&str; 2]| {
            let kinds = kinds.map(|kind| kind.parse::<Network>());
            let within = |network: &Network| kinds.iter().flatten().any(|kind| network.is_within(kind));
            self.rules.iter().any(|r| r.allowed && r.network.contains(ip) && within(&r.network))
        };
        match () {
            () if ip.is_loopback() && !self.loopback && !listed(["127.0.0.0/8", "::1"]) => {
                Err(AddressRefusal::Loopback)
            }
            () if link_local && !listed(["169.254.0.0/16", "fe80::/10"]) => Err(AddressRefusal::LinkLocal),
            () => Ok(()),
        }
    }
}

/// The host as an address, where its name means one to every resolver. For hosts that the operator's own
/// settings name: what is an address is not resolved, so no answer is held against the policy.
pub fn literal(host: Host) -> Host {
    let meant = if let Host::Name(name) = &host { spelled(name) } else { None };
    meant.map_or(host, Host::Ip)
}

/// The IPv4 address that an IPv6 address carries: IPv4-compatible (RFC 4291), translated (RFC 2765, RFC 6052) or 6to4 (RFC 3056). Mapped ones
/// are IPv4 addresses already.
fn carried(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    let of = |[high, low]: [u16; 2]| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None, // :: and ::1 are themselves
        [0, 0, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => of([high, low]),
        [0x64, 0xff9b, .., high, low] => of([high, low]),
        [0x2002, high, low, ..] => of([high, low]),
        _ => None,
    }
}

/// The address that a name means to every resolver: a name for loopback (RFC 6761), or a number as `inet_aton` reads it (`0x7f000001`).
fn spelled(name: &str) -> Option<IpAddr> {
    let name = name.to_ascii_lowercase();
    let top = name.rsplit('.').next().unwrap_or_default();
    if top == "localhost" || name == "localhost.localdomain" || matches!(&*name, "ip6-localhost" | "ip6-loopback") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    let number = |part: &str| match part.strip_prefix("0x") {
        Some(hex) if !hex.starts_with('+') => u64::from_str_radix(hex, 16).ok(),
        None if part.starts_with('0') => u64::from_str_radix(part, 8).ok(),
        None if part.bytes().all(|b| b.is_ascii_digit()) => part.parse().ok(),
        _ => None,
    };
    let parts: Vec<u64> = name.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last().filter(|(_, first)| first.len() < 4)?;
    let rest = 8 * (4 - first.len());
    if first.iter().any(|part| *part > 255) || *last >> rest != 0 {
        return None;
    }
    let high = first.iter().fold(0, |all, part| all << 8 | part) << rest;
    Some(Ipv4Addr::from_bits(u32::try_from(high | last).ok()?).into())
}

#[cfg(test)]
#[path = "addresses_tests.rs"]
mod tests;
