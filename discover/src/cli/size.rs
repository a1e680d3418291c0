//! `discover size`: what a fleet of a given size asks of its parts, and which flags it wants. Arithmetic alone, from figures that
//! docs/scale.md gives with the conditions under which they were measured.

use agent::say;
use clap::Args;
use serde_json::{Value, json};

use super::Failure;

/// Flags of `discover size`.
#[derive(Debug, Clone, Args)]
pub struct SizeArgs {
    /// How many services there are
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    services: u64,
    /// Backends of each service
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    backends: u64,
    /// Hosts that run discover and HAProxy
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    clients: u64,
    /// Containers on each host that runs register
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    per_host: u64,
    /// Changes of registrations a second, over the whole fleet
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    changes: u64,
    /// Checks a second that each HAProxy may make (discover's --check-rate); 0: as many as `inter 2s` makes
    #[arg(long, value_name = "NUMBER", default_value_t = 500)]
    check_rate: u64,
    /// Connections of clients that each HAProxy may have (discover's --maxconn)
    #[arg(long, value_name = "NUMBER", default_value_t = 4096)]
    maxconn: u64,
    /// The lease's time to live (register's --ttl), in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    ttl: u64,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Measured figures; docs/scale.md says where and how.
mod figures {
    /// Resident memory of discover without backends, and for each, in bytes.
    pub const DISCOVER: (u64, u64) = (16_000_000, 2_500);
    /// Resident memory of HAProxy without servers, and for each, in bytes.
    pub const HAPROXY: (u64, u64) = (20_000_000, 6_000);
    /// Resident memory of register without containers, and for each, in bytes.
    pub const REGISTER: (u64, u64) = (12_000_000, 10_000);
    /// Processor time of HAProxy for a check, in microseconds.
    pub const CHECK_US: f64 = 36.0;
    /// Bytes of a registration in etcd: key, value, and what is kept beside them.
    pub const REGISTRATION: u64 = 700;
    /// Processor time of etcd for the renewal of a lease, in microseconds: 1,000 leases of 10 s take 9 % of a core.
    pub const RENEWAL_US: f64 = 300.0;
    /// Requests a minute of an idle discover.
    pub const IDLE_REQUESTS: u64 = 4;
    /// Watchers that one etcd tells of a change within a second, and how many of them one connects to without relays.
    pub const TOLD_A_SECOND: u64 = 15_000;
    /// The most connections that one etcd or one relay is given here.
    pub const CONNECTIONS: u64 = 5_000;
    /// The most bytes that one etcd is given here: half of its default quota of 2 GB, as old revisions lie beside the new ones.
    pub const QUOTA: u64 = 1_000_000_000;
    /// `inter` unless said otherwise, in seconds.
    pub const INTER: u64 = 2;
}

/// What comes out.
#[derive(Debug, Clone, PartialEq)]
struct Fleet {
    backends: u64,
    hosts: u64,
    discover_bytes: u64,
    haproxy_bytes: u64,
    register_bytes: u64,
    /// Checks a second of each HAProxy.
    checks: f64,
    /// The interval that these mean, in seconds.
    inter: f64,
    descriptors: u64,
    etcd: Etcd,
}

/// What the registry is asked for.
#[derive(Debug, Clone, PartialEq)]
struct Etcd {
    bytes: u64,
    leases: u64,
    renewals: f64,
    watchers: u64,
    connections: u64,
    idle: f64,
    /// Changes told to watchers a second.
    told: u64,
    /// `etcd grpc-proxy` processes that carry the connections; 0: none is needed.
    relays: u64,
    /// Clusters, each with a part of the services under a prefix of its own.
    clusters: u64,
}

impl Fleet {
    fn of(args: &SizeArgs) -> Self {
        let backends = args.services.saturating_mul(args.backends);
        let hosts = backends.div_ceil(args.per_host);
        let memory = |(fixed, each): (u64, u64), number: u64| fixed.saturating_add(each.saturating_mul(number));
        let unbounded = backends as f64 / figures::INTER as f64;
        let checks = if args.check_rate == 0 { unbounded } else { unbounded.min(args.check_rate as f64) };
        let bytes = backends.saturating_mul(figures::REGISTRATION);
        let connections = args.clients + 2 * hosts;
        let told = args.changes.saturating_mul(args.clients);
        let relays = if connections > figures::CONNECTIONS { connections.div_ceil(figures::CONNECTIONS) } else { 0 };
        // A relay takes a change once and tells it on.
        let told_by_etcd = if relays == 0 { told } else { args.changes.saturating_mul(relays) };
        let clusters = bytes.div_ceil(figures::QUOTA).max(told_by_etcd.div_ceil(figures::TOLD_A_SECOND)).max(1);
        Self {
            backends,
            hosts,
            discover_bytes: memory(figures::DISCOVER, backends),
            haproxy_bytes: memory(figures::HAPROXY, backends),
            register_bytes: memory(figures::REGISTER, args.per_host),
            checks,
            inter: backends as f64 / checks,
            // Each client's connection has one to a server; one for each checked server and each service's listener; its own.
            descriptors: 2 * args.maxconn + backends + args.services + 200,
            etcd: Etcd {
                bytes,
                leases: hosts,
                renewals: hosts as f64 / (args.ttl as f64 / 3.0),
                watchers: args.clients + backends,
                connections,
                idle: (args.clients * figures::IDLE_REQUESTS) as f64 / 60.0,
                told,
                relays,
                clusters,
            },
        }
    }

    /// The flags and limits that differ from what is set by default.
    fn settings(&self, args: &SizeArgs) -> Vec<String> {
        let mut settings = Vec::new();
        let mut above = |number: u64, default: u64, flag: &str| {
            if number > default {
                settings.push(format!("discover {flag} {number}"));
            }
        };
        above(args.services, 10_000, "--max-services");
        above(args.backends, 10_000, "--max-backends");
        above(self.backends, 100_000, "--max-all-backends");
        if args.check_rate != 500 {
            settings.push(format!("discover --check-rate {}", args.check_rate));
        }
        if args.maxconn != 4096 {
            settings.push(format!("discover --maxconn {}", args.maxconn));
        }
        if args.ttl != 10 {
            settings.push(format!("register --ttl {}s", args.ttl));
        }
        let files = self.descriptors.next_power_of_two().max(65_536);
        settings.push(format!("LimitNOFILE={files} (ulimits.nofile) where HAProxy runs"));
        if self.etcd.bytes > figures::QUOTA {
            settings.push("etcd --quota-backend-bytes 8589934592, or several clusters".to_owned());
        }
        settings
    }

    fn json(&self, args: &SizeArgs) -> Value {
        let Etcd { bytes, leases, renewals, watchers, connections, idle, told, relays, clusters } = self.etcd;
        json!({
            "backends": self.backends,
            "hosts": self.hosts,
            "memory_bytes": {
                "discover": self.discover_bytes,
                "haproxy": self.haproxy_bytes,
                "register": self.register_bytes,
            },
            "checks": {
                "per_second": self.checks,
                "inter_s": self.inter,
                "processor": self.checks * figures::CHECK_US / 1e6,
                "per_second_at_each_backend": args.clients as f64 / self.inter,
            },
            "descriptors": self.descriptors,
            "etcd": {
                "bytes": bytes, "leases": leases, "renewals_per_second": renewals,
                "renewals_processor": renewals * figures::RENEWAL_US / 1e6, "watchers": watchers,
                "connections": connections, "idle_requests_per_second": idle, "changes_told_per_second": told,
                "relays": relays, "clusters": clusters,
            },
            "settings": self.settings(args),
        })
    }

    fn text(&self, args: &SizeArgs) -> String {
        let Etcd { bytes, leases, renewals, watchers, connections, idle, told, relays, clusters } = self.etcd;
        let mb = |bytes: u64| format!("{} MB", bytes.div_ceil(1_000_000));
        let percent = |us: f64, a_second: f64| format!("{:.1} % of a core", us * a_second / 1e4);
        let relays = match relays {
            0 => "no relay".to_owned(),
            number => format!("{number} relays (etcd grpc-proxy)"),
        };
        let lines = [
            format!(
                "{} services × {} = {} backends on {} hosts of {}; {} clients",
                args.services, args.backends, self.backends, self.hosts, args.per_host, args.clients
            ),
            String::new(),
            format!(
                "each client    discover {}, HAProxy {}, {} descriptors",
                mb(self.discover_bytes),
                mb(self.haproxy_bytes),
                self.descriptors
            ),
            format!(
                "               {:.0} checks a second (each server every {:.1} s), {}",
                self.checks,
                self.inter,
                percent(figures::CHECK_US, self.checks)
            ),
            format!("each backend   {:.1} checks a second from all clients", args.clients as f64 / self.inter),
            format!("each host      register {}", mb(self.register_bytes)),
            format!(
                "etcd           {} of registrations, {leases} leases ({renewals:.0} renewals a second, {})",
                mb(bytes),
                percent(figures::RENEWAL_US, renewals)
            ),
            format!(
                "               {connections} connections, {watchers} watches, {idle:.0} requests a second while idle"
            ),
            format!(
                "               {told} changes told a second at {} changes; {clusters} cluster{}, {relays}",
                args.changes,
                if clusters == 1 { "" } else { "s" }
            ),
            String::new(),
            "to set:".to_owned(),
        ];
        let settings = self.settings(args);
        lines.into_iter().chain(settings.into_iter().map(|line| format!("  {line}"))).collect::<Vec<_>>().join("\n")
    }
}

/// Prints what a fleet needs.
///
/// # Errors
/// None; the type is that of its neighbours.
pub fn size(args: &SizeArgs) -> Result<(), Failure> {
    let fleet = Fleet::of(args);
    match args.json {
        true => say!("{:#}", fleet.json(args)),
        false => say!("{}", fleet.text(args)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: SizeArgs,
    }

    fn args(line: &str) -> SizeArgs {
        Cli::try_parse_from(std::iter::once("size").chain(line.split_whitespace())).unwrap().args
    }

    fn fleet(line: &str) -> Fleet {
        Fleet::of(&args(line))
    }

    #[test]
    fn what_a_fleet_needs_follows_from_its_numbers() {
        let fleet = fleet("--services 5000 --backends 20 --clients 3000");
        assert_eq!((fleet.backends, fleet.hosts, fleet.descriptors), (100_000, 1000, 113_392));
        assert_eq!((fleet.checks, fleet.inter), (500.0, 200.0));
        assert_eq!((fleet.discover_bytes, fleet.haproxy_bytes), (266_000_000, 620_000_000));
        let Etcd { bytes, leases, watchers, connections, told, relays, clusters, .. } = fleet.etcd;
        assert_eq!((bytes, leases, watchers, connections), (70_000_000, 1000, 103_000, 5000));
        assert_eq!((told, relays, clusters), (30_000, 0, 2));
    }

    #[test]
    fn a_small_fleet_needs_nothing_but_what_is_set() {
        let line = "--services 20 --backends 10 --clients 30";
        let small = fleet(line);
        assert_eq!((small.checks, small.inter, small.etcd.relays, small.etcd.clusters), (100.0, 2.0, 0, 1));
        assert_eq!(small.settings(&args(line)), ["LimitNOFILE=65536 (ulimits.nofile) where HAProxy runs"]);
    }

    #[test]
    fn what_is_beyond_a_default_is_a_flag_to_set() {
        let line = "--services 20000 --backends 20000 --clients 20000 --check-rate 0 --maxconn 10000 --ttl 30";
        let large = fleet(line);
        let settings = large.settings(&args(line)).join("\n");
        for flag in [
            "--max-services 20000",
            "--max-backends 20000",
            "--max-all-backends 400000000",
            "--check-rate 0",
            "--maxconn 10000",
            "--ttl 30s",
            "--quota-backend-bytes",
        ] {
            assert!(settings.contains(flag), "{flag} is missing: {settings}");
        }
        assert!(large.etcd.relays > 0 && large.etcd.clusters > 1 && large.inter == 2.0);
        assert!(large.text(&args(line)).contains("relays (etcd grpc-proxy)"));
        assert_eq!(large.json(&args(line))["backends"], 400_000_000_u64);
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        for line in [
            "--services 0 --backends 1 --clients 1",
            "--services 1 --backends 1",
            "--services 1 --backends 1 --clients 1 --ttl 0",
        ] {
            assert!(Cli::try_parse_from(std::iter::once("size").chain(line.split_whitespace())).is_err(), "{line}");
        }
    }
}
