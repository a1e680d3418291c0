//! Which hosts a label may publish: what is nobody's address in particular is refused, in every notation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Host;

/// What `host` is, if no client can mean one machine by it: "a multicast address" and the like.
pub fn fault(host: &Host) -> Option<&'static str> {
    match host {
        Host::Ip(ip) => of_ip(plain(*ip)),
        Host::Name(name) => of_name(name),
    }
}

/// Whether `host` is this machine alone, by address or by name.
pub fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Ip(ip) => plain(*ip).is_loopback(),
        Host::Name(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            // Source: RFC 6761, 6.3; the others stand in the /etc/hosts of Debian, Ubuntu, Red Hat and Alpine.
            name.ends_with(".localhost")
                || matches!(
                    name.as_str(),
                    "localhost"
                        | "localhost.localdomain"
                        | "localhost4"
                        | "localhost6"
                        | "ip6-localhost"
                        | "ip6-loopback"
                )
        }
    }
}

/// The IPv4 address inside one of IPv6 that only carries it (`::ffff:a.b.c.d`, `::a.b.c.d`).
fn plain(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) if v6.segments()[..6] == [0; 6] && v6 != Ipv6Addr::LOCALHOST => match v6.to_ipv4() {
            Some(v4) => v4.into(),
            None => v6.into(),
        },
        other => other,
    }
}

fn of_ip(ip: IpAddr) -> Option<&'static str> {
    match ip {
        ip if ip.is_unspecified() => Some("the unspecified address"),
        ip if ip.is_multicast() => Some("a multicast address"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("the broadcast address"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        // Source: RFC 1122, 3.2.1.3 (0/8 is "this network"); RFC 1112, 4 (240/4 is reserved).
        IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.octets()[0] >= 240 => Some("an address of no host"),
        _ => None,
    }
}

/// A name that ends in a number is read as an address by the C library (`127.1`, `0x7f000001`).
///
/// Source: inet_aton(3); the WHATWG's URL standard, "ends in a number".
fn of_name(name: &str) -> Option<&'static str> {
    let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let hex = last.strip_prefix("0x").or(last.strip_prefix("0X"));
    let is_number = digits(last) || hex.is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    is_number.then_some("a number in another notation than an address has")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_machine_is_no_host_in_every_notation() {
        for bad in [
            "0.0.0.0",
            "::",
            "::ffff:0.0.0.0",
            "0.0.0.7",
            "224.0.0.1",
            "239.255.255.250",
            "ff02::1",
            "::ffff:224.0.0.1",
            "255.255.255.255",
            "::ffff:255.255.255.255",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "::a9fe:a9fe",
            "fe80::1",
            "febf::1",
            "240.0.0.1",
            "127.1",
            "0x7f.1",
            "2130706433",
            "0x7f000001",
            "10.0.0.010",
        ] {
            let Ok(host) = bad.parse::<Host>() else { continue };
            assert!(fault(&host).is_some(), "{bad}");
        }
        for good in [
            "10.0.0.1",
            "192.168.1.1",
            "2001:db8::1",
            "fd00::1",
            "127.0.0.1",
            "::1",
            "db.example",
            "h2",
            "0xcafe.example",
        ] {
            assert_eq!(fault(&good.parse().unwrap()), None, "{good}");
        }
    }

    #[test]
    fn loopback_is_known_by_address_and_by_name() {
        for host in [
            "127.0.0.1",
            "127.8.9.1",
            "::1",
            "::ffff:127.0.0.1",
            "::7f00:1",
            "localhost",
            "LOCALHOST",
            "a.localhost",
            "ip6-localhost",
        ] {
            assert!(is_loopback(&host.parse().unwrap()), "{host}");
        }
        for host in ["10.0.0.1", "mylocalhost", "localhost.example", "::2:0"] {
            assert!(!is_loopback(&host.parse().unwrap()), "{host}");
        }
    }
}
