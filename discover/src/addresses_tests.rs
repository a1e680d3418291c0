use proptest::prelude::*;

use super::*;

fn policy(rules: &[&str]) -> AddressPolicy {
    AddressPolicy::new(rules.iter().map(|r| r.parse().unwrap()).collect(), false, false)
}

fn judged(policy: &AddressPolicy, host: &str) -> Result<(), AddressRefusal> {
    policy.judge_host(&host.parse().unwrap())
}

/// Every way to write an IPv4 address that a registration's host can have.
fn spellings(ip: Ipv4Addr) -> Vec<String> {
    let ([a, b, c, d], n) = (ip.octets(), ip.to_bits());
    let [high, low] = [n >> 16, n & 0xffff];
    vec![
        ip.to_string(),
        format!("::ffff:{ip}"),
        format!("[::ffff:{high:x}:{low:x}]"),
        format!("::{ip}"),
        format!("::ffff:0:{ip}"),
        format!("64:ff9b::{ip}"),
        format!("2002:{high:x}:{low:x}::1"),
        format!("0x{n:x}"),
        format!("0X{n:X}"),
        format!("{a}.{b}.{c}.0x{d:x}"),
        format!("0x{a:x}.0x{:x}", n & 0xff_ffff),
        format!("0{a:o}.{b}.0x{low:x}"),
    ]
}

#[test]
fn what_is_no_hosts_address_is_refused_in_every_spelling_and_whatever_is_listed() {
    let never = ["0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.255", "255.255.255.255"];
    for rules in [policy(&[]), policy(&["0.0.0.0/0", "::/0"]), policy(&["0.0.0.0", "224.0.0.1", "0.0.0.0/8"])] {
        for ip in never.map(|ip| ip.parse().unwrap()) {
            // `::0.0.0.0` is `::`, and `::0.0.0.1` is `::1`.
            for host in spellings(ip) {
                assert!(matches!(judged(&rules, &host), Err(AddressRefusal::Nobody(_))), "{host}");
            }
        }
        for host in ["::", "[::]", "ff02::1", "ff0e::1"] {
            assert!(matches!(judged(&rules, host), Err(AddressRefusal::Nobody(_))), "{host}");
        }
    }
}

#[test]
fn loopback_is_refused_in_every_spelling_unless_it_is_allowed() {
    let mut hosts: Vec<String> =
        ["127.0.0.1", "127.1.2.3", "127.255.255.254"].iter().flat_map(|ip| spellings(ip.parse().unwrap())).collect();
    let names = ["::1", "localhost", "LOCALHOST", "a.localhost", "localhost.localdomain", "ip6-localhost"];
    hosts.extend(names.map(str::to_owned));
    for host in &hosts {
        for refusing in [policy(&[]), policy(&["0.0.0.0/0", "::/0"]), policy(&["10.0.0.0/8"])] {
            assert_eq!(judged(&refusing, host), Err(AddressRefusal::Loopback), "{host}");
        }
        assert_eq!(judged(&AddressPolicy::new(Vec::new(), true, false), host), Ok(()), "{host}");
        assert_eq!(judged(&AddressPolicy::new(Vec::new(), false, true), host), Ok(()), "{host}");
        let listing = AddressPolicy::new(vec!["10.0.0.0/8".parse().unwrap()], false, true);
        assert_eq!(judged(&listing, host), Err(AddressRefusal::Loopback), "{host}: the operator lists what counts");
    }
    assert_eq!(judged(&policy(&["127.0.0.0/8"]), "127.0.0.9"), Ok(()));
    assert_eq!(judged(&policy(&["127.0.0.1", "10.0.0.0/8"]), "127.0.0.9"), Err(AddressRefusal::Loopback));
}

#[test]
fn link_local_addresses_need_a_network_of_their_own() {
    for host in spellings("169.254.169.254".parse().unwrap()).iter().map(String::as_str).chain(["fe80::1", "febf::1"]) {
        for refusing in [policy(&[]), policy(&["0.0.0.0/0", "::/0"]), AddressPolicy::new(Vec::new(), true, false)] {
            assert_eq!(judged(&refusing, host), Err(AddressRefusal::LinkLocal), "{host}");
        }
    }
    assert_eq!(judged(&policy(&["169.254.7.0/24"]), "169.254.7.9"), Ok(()));
    assert_eq!(judged(&policy(&["169.254.7.0/24"]), "169.254.169.254"), Err(AddressRefusal::LinkLocal));
    assert_eq!(judged(&policy(&["fe80::/10"]), "fe80::1"), Ok(()));
}

#[test]
fn networks_are_listed_and_excluded() {
    let some = policy(&["10.0.0.0/8", "!10.0.9.0/24", "fd00::/8"]);
    let excluded = Err(AddressRefusal::Excluded("10.0.9.0/24".parse().unwrap()));
    assert_eq!(judged(&some, "10.1.2.3"), Ok(()));
    assert_eq!(judged(&some, "::ffff:10.1.2.3"), Ok(()), "it is an IPv4 address");
    assert_eq!(judged(&some, "fd00::9"), Ok(()));
    for host in spellings("10.0.9.7".parse().unwrap()) {
        assert_eq!(judged(&some, &host), excluded, "{host}");
    }
    for host in ["11.0.0.1", "2001:db8::1", "64:ff9b::10.1.2.3"] {
        assert_eq!(judged(&some, host), Err(AddressRefusal::NotListed), "{host}");
    }
    let but_one = policy(&["!fd00:ec2::254"]);
    assert!(judged(&but_one, "fd00:ec2::254").is_err() && judged(&but_one, "fd00:ec2::253").is_ok());
    assert_eq!(judged(&but_one, "8.8.8.8"), Ok(()));
    for bad in ["", "!", "10.0.0.0/33", "x", "!!10.0.0.1", "10.0.0.1-10.0.0.9"] {
        assert!(bad.parse::<NetworkRule>().is_err(), "{bad}");
    }
}

#[test]
fn plain_names_are_left_to_what_they_resolve_to() {
    for host in ["web", "0xbeef.example", "localhost.example.com", "0x1ffffffff", "a0x7f000001"] {
        assert_eq!(judged(&policy(&[]), host), Ok(()), "{host}");
    }
}

proptest! {
    #[test]
    fn an_address_is_judged_alike_in_every_spelling(bits in any::<u32>(), allowed in any::<bool>()) {
        let ip = Ipv4Addr::from_bits(bits);
        let policy = AddressPolicy::new(vec!["!77.0.0.0/8".parse().unwrap()], allowed, false);
        let plain = policy.judge(ip.into());
        // `::` and `::1` are no IPv4 addresses.
        for host in spellings(ip).iter().filter(|_| bits > 1) {
            prop_assert_eq!(judged(&policy, host), plain, "{}", host);
        }
    }

    #[test]
    fn a_network_holds_what_has_its_bits(ip in any::<u32>(), other in any::<u32>(), bits in 0..=32u32) {
        let network: Network = format!("{}/{bits}", Ipv4Addr::from_bits(ip)).parse().unwrap();
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        prop_assert_eq!(network.contains(Ipv4Addr::from_bits(other).into()), ip & mask == other & mask);
        prop_assert!(network.contains(Ipv4Addr::from_bits(ip).into()) && network.is_within(&network));
    }

    #[test]
    fn numbers_are_read_as_the_system_reads_them(text in "(0x[0-9a-f]{1,9}|0[0-7]{1,4}|[1-9][0-9]{0,4})(\\.(0x[0-9a-f]{1,4}|0[0-7]{1,3}|[0-9]{1,3})){0,4}") {
        use std::net::ToSocketAddrs;
        if let Some(ip) = spelled(&text) {
            let system = (text.as_str(), 0).to_socket_addrs().ok().and_then(|mut all| all.next()).map(|at| at.ip());
            prop_assert_eq!(system, Some(ip), "{}", text);
        }
    }
}

#[test]
fn a_network_is_an_address_with_its_bits() {
    assert!("10.0.0.0/33".parse::<Network>().is_err() && "x".parse::<Network>().is_err());
    assert_eq!("10.0.0.1".parse::<Network>().unwrap().to_string(), "10.0.0.1/32");
}
