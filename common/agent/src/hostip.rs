//! The address under which other hosts reach this one (`HOST_IP`).
//!
//! It can be worked out only in the host's own network namespace: in a container on a bridge the route to etcd begins at the container's
//! address, which no other host reaches. Elsewhere it must be given, and the error says so.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
};

/// Why there is no usable address; each message says what to set.
#[derive(Debug, thiserror::Error)]
pub enum HostIpError {
    /// Given, but nothing in it.
    #[error("HOST_IP is empty; set it to the address at which other hosts reach this one, or unset it")]
    Empty,
    /// A name, a list, an address with a port …
    #[error("HOST_IP {given:?} is no IP address; set it to one that other hosts reach, such as 10.0.0.5")]
    NoAddress { given: String },
    /// An address at which no single other host can be reached.
    #[error("HOST_IP {address} is {kind} address; set it to one at which other hosts reach this one")]
    Unusable {
        /// What was given or found.
        address: IpAddr,
        /// With its article, such as "a multicast".
        kind: &'static str,
    },
    /// 127.0.0.0/8 or ::1, which each host takes for itself.
    #[error(
        "HOST_IP {address} is a loopback address; set it to one at which other hosts reach this one, or give --allow-loopback"
    )]
    Loopback {
        /// What was given or found.
        address: IpAddr,
    },
    /// Not in the host's network namespace.
    #[error(
        "HOST_IP is not set and cannot be worked out in a container's own network; set HOST_IP to the host's address \
         (docker run -e HOST_IP=…), or share the host's network (--network host)"
    )]
    NotHostNetwork,
    /// There is no route.
    #[error("working out HOST_IP from the route to {towards}; set HOST_IP")]
    Route {
        /// Usually etcd's endpoint.
        towards: SocketAddr,
        source: io::Error,
    },
}

/// Reads a `HOST_IP` and checks that other hosts can use it.
///
/// An IPv4 address in IPv6 form (`::ffff:10.0.0.5`) becomes IPv4; brackets around an IPv6 address are allowed.
///
/// # Errors
/// Empty, no address, unspecified, multicast, broadcast, link-local IPv6 (it means nothing without an interface), or loopback unless allowed.
pub fn validate(given: &str, allow_loopback: bool) -> Result<IpAddr, HostIpError> {
    let text = given.trim();
    if text.is_empty() {
        return Err(HostIpError::Empty);
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let address: IpAddr = bare.parse().map_err(|_| HostIpError::NoAddress { given: given.to_owned() })?;
    check(address, allow_loopback)
}

/// As [`validate`], of an address.
///
/// # Errors
/// As [`validate`].
pub fn check(address: IpAddr, allow_loopback: bool) -> Result<IpAddr, HostIpError> {
    let address = address.to_canonical();
    let kind = match address {
        _ if address.is_unspecified() => "an unspecified",
        _ if address.is_multicast() => "a multicast",
        IpAddr::V4(Ipv4Addr::BROADCAST) => "a broadcast",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "a link-local",
        _ if address.is_loopback() && !allow_loopback => return Err(HostIpError::Loopback { address }),
        _ => return Ok(address),
    };
    Err(HostIpError::Unusable { address, kind })
}

/// The address from which this host's packets to `towards` start. No packet is sent: connecting a UDP socket only looks the route up.
///
/// # Errors
/// There is no route.
pub fn source_address(towards: SocketAddr) -> Result<IpAddr, HostIpError> {
    let any: IpAddr = if towards.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let local = UdpSocket::bind((any, 0)).and_then(|socket| {
        // Port 0 is refused as a destination by some kernels; which port it is changes no route.
        socket.connect((towards.ip(), towards.port().max(1)))?;
        socket.local_addr()
    });
    local.map(|a| a.ip().to_canonical()).map_err(|source| HostIpError::Route { towards, source })
}

/// The addresses of this host's interfaces, IPv4 in its own form; `None` where the system does not say.
pub fn own_addresses() -> Option<BTreeSet<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let of = |storage: nix::sys::socket::SockaddrStorage| -> Option<IpAddr> {
        let v4 = storage.as_sockaddr_in().map(|at| at.ip().into());
        v4.or_else(|| storage.as_sockaddr_in6().map(|at| at.ip().into()))
    };
    Some(interfaces.filter_map(|interface| of(interface.address?)).map(|own| own.to_canonical()).collect())
}

/// Whether one of this host's interfaces has `address`; doubt counts as yes.
pub fn is_own(address: IpAddr) -> bool {
    own_addresses().is_none_or(|own| own.contains(&address))
}

/// `HOST_IP` if given, else the source address of the route to etcd where that is the host's.
///
/// # Errors
/// As [`validate`] and [`source_address`], or when this is not the host's network.
pub fn host_ip(given: Option<&str>, etcd: SocketAddr, allow_loopback: bool) -> Result<IpAddr, HostIpError> {
    match given {
        Some(text) => validate(text, allow_loopback),
        None if in_host_network() => check(source_address(etcd)?, allow_loopback),
        None => Err(HostIpError::NotHostNetwork),
    }
}

/// Whether this process is in the network namespace of its host, as far as /proc and /sys tell.
///
/// Doubt counts as no: an address that must be given is an error with a clear way out, a wrong one is published to every client.
pub fn in_host_network() -> bool {
    Signs::read(Path::new("/")).is_host_network()
}

/// What can be seen from inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signs {
    /// Whether PID 1 as seen from here shares our network namespace; `None` when we may not look (that needs ptrace's right on it).
    same_as_init: Option<bool>,
    /// Whether this is a container, by the marks that Docker, Podman, LXC and Kubernetes leave.
    container: bool,
    /// Whether there is what a container's own network does not have: a device with a driver's hardware behind it, or a bridge.
    host_device: bool,
}

impl Signs {
    fn read(root: &Path) -> Self {
        let ns = |pid: &str| fs::read_link(root.join("proc").join(pid).join("ns/net"));
        let same_as_init = match (ns("self"), ns("1")) {
            (Ok(own), Ok(init)) => Some(own == init),
            _ => None,
        };
        let exists = |path: &str| root.join(path).exists();
        let cgroup = fs::read_to_string(root.join("proc/1/cgroup")).unwrap_or_default();
        let container = exists(".dockerenv")
            || exists("run/.containerenv")
            || exists("var/run/secrets/kubernetes.io")
            || ["/docker/", "/docker-", "/kubepods", "/libpod", "/lxc/"].iter().any(|mark| cgroup.contains(mark));
        Self { same_as_init, container, host_device: host_device(root) }
    }

    /// - Not a container: in the host's namespace exactly when PID 1 is (a program may be in one made by `ip netns`).
    /// - A container: PID 1 is its own and proves nothing. With `--network host` it sees the host's hardware and bridges (docker0); on a
    ///   bridge it has one end of a veth pair, with macvlan or ipvlan a device on top of another: neither has hardware behind it.
    ///
    /// Not told apart: a container that was given a physical device, or a virtual machine of its own (Kata). Set `HOST_IP` there.
    fn is_host_network(self) -> bool {
        match self.same_as_init {
            Some(same) if !self.container => same,
            _ => self.host_device,
        }
    }
}

/// Source: Documentation/ABI/testing/sysfs-class-net of the kernel for `device`; `bridge` is what `brctl` looks for.
fn host_device(root: &Path) -> bool {
    let mut seen = BTreeSet::new();
    let mut found = false;
    for entry in fs::read_dir(root.join("sys/class/net")).into_iter().flatten().flatten() {
        let dir = entry.path();
        if !dir.is_dir() {
            continue; // such as the file bonding_masters
        }
        found |= dir.join("device").exists() || dir.join("bridge").exists();
        seen.insert(entry.file_name().to_string_lossy().into_owned());
    }
    // /sys shows the namespace that it was mounted in: `-v /sys:/sys` brings the host's into any container. /proc shows our own.
    let dev = fs::read_to_string(root.join("proc/self/net/dev")).unwrap_or_default();
    let own: BTreeSet<_> =
        dev.lines().filter_map(|l| l.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect();
    found && seen == own
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn addresses_that_others_can_use_pass() {
        for (given, wanted) in [
            ("10.0.0.5", "10.0.0.5"),
            (" 192.168.1.7\n", "192.168.1.7"),
            ("::ffff:10.0.0.5", "10.0.0.5"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("fd00::1", "fd00::1"),
        ] {
            assert_eq!(validate(given, false).unwrap().to_string(), wanted);
        }
        assert!(validate("127.0.0.2", true).is_ok() && validate("::1", true).is_ok());
    }

    #[test]
    fn each_unusable_address_says_what_to_set() {
        for given in [
            "",
            "  ",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "fe80::1",
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:0.0.0.0",
            "host",
            "10.0.0.5:80",
            "10.0.0.5,10.0.0.6",
            "010.0.0.1",
            "[::1",
            "1",
        ] {
            let err = validate(given, false).unwrap_err();
            assert!(err.to_string().contains("set it"), "{given:?}: {err}");
        }
        assert!(validate("0.0.0.0", true).is_err());
        assert!(validate("127.0.0.1", false).unwrap_err().to_string().contains("--allow-loopback"));
    }

    #[test]
    fn the_route_to_loopback_starts_at_loopback() {
        assert_eq!(source_address("127.0.0.9:2379".parse().unwrap()).unwrap().to_string(), "127.0.0.1");
        assert_eq!(source_address("127.0.0.9:0".parse().unwrap()).unwrap().to_string(), "127.0.0.1");
    }

    #[test]
    fn an_address_is_this_hosts_where_an_interface_has_it() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(!is_own("192.0.2.1".parse().unwrap()), "an address for documents");
    }

    #[test]
    fn a_given_address_is_taken_wherever_we_are() {
        let etcd = "127.0.0.1:2379".parse().unwrap();
        assert_eq!(host_ip(Some("10.0.0.5"), etcd, false).unwrap().to_string(), "10.0.0.5");
        assert!(matches!(host_ip(Some(""), etcd, false), Err(HostIpError::Empty)));
        assert!(host_ip(None, etcd, false).is_err()); // whichever way: a container's network, or a loopback address
    }

    proptest! {
        #[test]
        fn what_passes_is_unicast_and_passes_again(bytes in any::<[u8; 16]>(), v4 in any::<bool>(), loopback in any::<bool>()) {
            let address: IpAddr = if v4 { [bytes[0], bytes[1], bytes[2], bytes[3]].into() } else { bytes.into() };
            if let Ok(ip) = validate(&address.to_string(), loopback) {
                prop_assert!(!ip.is_unspecified() && !ip.is_multicast() && (loopback || !ip.is_loopback()));
                prop_assert_eq!(validate(&ip.to_string(), loopback).unwrap(), ip);
            }
        }
    }

    /// A tree like / with the given marks; `interfaces` are (name, what is in its directory of /sys/class/net).
    fn root(init_ns: Option<&str>, marks: &[&str], interfaces: &[(&str, &str)], own: &[&str]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let link = |path: &str, to: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(to, path).unwrap();
        };
        link("proc/self/ns/net", "net:[1]");
        if let Some(ns) = init_ns {
            link("proc/1/ns/net", ns);
        }
        marks.iter().for_each(|mark| put(mark, ""));
        interfaces.iter().for_each(|(name, what)| put(&format!("sys/class/net/{name}/{what}/x"), ""));
        let dev: String = own.iter().map(|name| format!("  {name}: 0 0\n")).collect();
        put("proc/self/net/dev", &format!("Inter-|   Receive\n face |bytes\n{dev}"));
        put("sys/class/net/bonding_masters", "");
        dir
    }

    #[test]
    fn the_hosts_network_is_told_from_a_containers() {
        let (host, veth) = ([("eth0", "device"), ("docker0", "bridge"), ("lo", "q")], [("eth0", "q"), ("lo", "q")]);
        let (host_own, veth_own) = (["docker0", "eth0", "lo"], ["eth0", "lo"]);
        let docker = [".dockerenv"];
        let check = |dir: TempDir| Signs::read(dir.path()).is_host_network();
        assert!(check(root(Some("net:[1]"), &[], &host, &host_own)), "bare host");
        assert!(check(root(Some("net:[1]"), &[], &veth, &veth_own)), "host whose own uplink is virtual");
        assert!(!check(root(Some("net:[2]"), &[], &host, &host_own)), "own namespace on a bare host");
        assert!(check(root(None, &[], &host, &host_own)), "bare host, not root");
        assert!(check(root(Some("net:[1]"), &docker, &host, &host_own)), "container, --network host");
        assert!(!check(root(Some("net:[1]"), &docker, &veth, &veth_own)), "container on a bridge");
        assert!(!check(root(Some("net:[1]"), &["run/.containerenv"], &veth, &veth_own)), "Podman");
        assert!(!check(root(Some("net:[1]"), &docker, &host, &veth_own)), "container with the host's /sys");
        assert!(!check(root(None, &docker, &[], &[])), "nothing to be seen");
    }
}
