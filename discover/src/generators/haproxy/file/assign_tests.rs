use std::time::Duration;

use model::Backend;
use proptest::prelude::*;
use tokio::time::Instant;

use super::super::settings::tests_support::settings;
use super::*;
use crate::generators::haproxy::file::wishes::Tenancy;

/// A backend: its id, the port it asks for (0: none), when it was created (0: not known).
type Asks<'a> = (&'a str, u16, u64);

fn pool(backends: &[Asks<'_>]) -> Arc<Pool> {
    let backend = |(id, port, created): &Asks<'_>| {
        let mut b = Backend::new(id.parse().unwrap(), "127.0.0.1".parse().unwrap(), 9.try_into().unwrap());
        (b.service_port, b.created) = (Port::new(*port), (*created > 0).then_some(*created));
        Arc::new(b)
    };
    Arc::new(backends.iter().map(backend).collect())
}

fn services(of: &[(&str, &[Asks<'_>])]) -> ServiceMap {
    of.iter().map(|(name, backends)| (name.parse().unwrap(), pool(backends))).collect()
}

/// What a discover chooses turn by turn.
struct Turns {
    tenants: Tenants,
    absent: BTreeSet<ServicePort>,
    now: Instant,
    wait: Duration,
}

impl Turns {
    fn new() -> Self {
        Self {
            tenants: Tenants::default(),
            absent: BTreeSet::new(),
            now: Instant::now(),
            wait: Duration::from_secs(10),
        }
    }

    fn turn(&mut self, services: &ServiceMap) -> Ports {
        self.tenants.review(services, self.wait, self.now);
        let standing = Standing { tenants: &self.tenants, absent: &self.absent, shut: &BTreeMap::new() };
        let ports = assign(services, &settings(), &standing);
        self.tenants.take(&ports.listed);
        ports
    }

    /// Who listens where, as `NAME:PORT`.
    fn listed(&mut self, of: &[(&str, &[Asks<'_>])]) -> Vec<String> {
        self.turn(&services(of)).listed.keys().map(|at| format!("{}:{}", at.service, at.port)).collect()
    }

    /// The sections, and the backends of each, as `SECTION=ID,ID`.
    fn sections(&mut self, of: &[(&str, &[Asks<'_>])]) -> Vec<String> {
        sections(&self.turn(&services(of)))
    }

    /// Another discover, that knows the file alone.
    fn restart(&mut self, listed: &[String]) {
        let section = |listed: &String| {
            let (name, port) = listed.rsplit_once(':').unwrap();
            format!("\n# service {name}\nlisten {name}\n\tbind 127.0.0.1:{port}\n\t# servers\n")
        };
        self.tenants = Tenants::default();
        self.tenants.recall(&listed.iter().map(section).collect::<String>());
    }

    /// The same, where the file was composed of these.
    fn restart_with(&mut self, ports: &Ports) {
        let section = |(at, pool): (&ServicePort, &PortPool)| {
            let (name, port, behind) = (pool.section(at), at.port, pool.behind(at.port));
            let servers = behind.backends().iter().map(|b| format!("\tserver {} 127.0.0.1:9 check\n", b.id));
            let servers: String = servers.collect();
            format!("\n# service {name}\nlisten {name}\n\tbind 127.0.0.1:{port}\n\t# servers\n{servers}")
        };
        self.tenants = Tenants::default();
        self.tenants.recall(&ports.listed.iter().map(section).collect::<String>());
    }
}

fn sections(ports: &Ports) -> Vec<String> {
    let section = |(at, pool): (&ServicePort, &PortPool)| {
        let behind = pool.behind(at.port);
        let ids: Vec<&str> = behind.backends().iter().map(|b| b.id.as_str()).collect();
        format!("{}@{}={}", pool.section(at), at.port, ids.join(","))
    };
    ports.listed.iter().map(section).collect()
}

fn at(service: &str, port: u16) -> ServicePort {
    ServicePort { service: service.parse().unwrap(), port: Port::new(port).unwrap() }
}

#[tokio::test]
async fn the_oldest_claim_has_a_port_and_nobody_who_comes_later_takes_it_whatever_the_names() {
    for intruder in ["0", "a-evil", "z-evil"] {
        let (web, evil): (&[Asks<'_>], &[Asks<'_>]) = (&[("w", 80, 5)], &[("0", 80, 9)]);
        assert_eq!(Turns::new().listed(&[("web", web), (intruder, evil)]), ["web:80"], "both at once");
        let mut turns = Turns::new();
        turns.listed(&[("web", web)]);
        assert_eq!(turns.listed(&[("web", web), (intruder, evil)]), ["web:80"]);
        let anew: &[Asks<'_>] = &[("w", 80, 99)];
        let both = services(&[("web", anew), (intruder, evil)]);
        let told = turns.turn(&both).unlisted[intruder].to_string();
        assert!(told.contains("belongs to service web, which was first"), "{told}");
        assert_eq!(turns.listed(&[("web", anew), (intruder, evil)]), ["web:80"], "its agent was restarted");
        turns.restart(&["web:80".to_owned()]);
        assert_eq!(turns.listed(&[("web", anew), (intruder, evil)]), ["web:80"], "discover was, too");
        turns.restart(&[]);
        assert_eq!(turns.listed(&[("web", anew), (intruder, evil)]), [format!("{intruder}:80")], "without a memory");
    }
}

#[tokio::test]
async fn a_service_that_has_gone_is_waited_for_and_one_that_asks_for_another_port_is_not() {
    let (web, evil): (&[Asks<'_>], &[Asks<'_>]) = (&[("w", 80, 5)], &[("0", 80, 9)]);
    let mut turns = Turns::new();
    turns.listed(&[("web", web), ("evil", evil)]);
    assert!(turns.listed(&[("evil", evil)]).is_empty(), "its container may be restarting");
    assert_eq!(turns.listed(&[("web", &[("w", 80, 50)]), ("evil", evil)]), ["web:80"]);
    turns.listed(&[("web", &[]), ("evil", evil)]);
    turns.now += Duration::from_secs(9);
    assert!(turns.listed(&[("evil", evil)]).is_empty());
    turns.now += Duration::from_secs(2);
    assert_eq!(turns.listed(&[("evil", evil)]), ["evil:80"]);
    assert_eq!(turns.listed(&[("web", web), ("evil", evil)]), ["evil:80"], "who serves now keeps it");
    let mut turns = Turns::new();
    turns.listed(&[("web", web), ("evil", evil)]);
    assert_eq!(turns.listed(&[("web", &[("w", 81, 5)]), ("evil", evil)]), ["evil:80", "web:81"]);
}

#[tokio::test]
async fn a_service_without_a_backend_that_works_yields_to_one_that_is_registered_and_waits_its_turn() {
    let (v1, v2): (&[Asks<'_>], &[Asks<'_>]) = (&[("old", 80, 1)], &[("new", 80, 7)]);
    let mut turns = Turns::new();
    turns.listed(&[("app-v1", v1)]);
    turns.absent = [at("app-v1", 80)].into();
    assert_eq!(turns.listed(&[("app-v1", v1)]), ["app-v1:80"], "nobody else wants it");
    assert_eq!(turns.listed(&[("app-v1", v1), ("app-v2", v2)]), ["app-v2:80"]);
    turns.absent.clear();
    assert_eq!(turns.listed(&[("app-v1", v1), ("app-v2", v2)]), ["app-v2:80"], "it is back, and waits");
}

#[tokio::test]
async fn a_backend_that_joins_a_service_does_not_move_it_to_another_port() {
    for id in ["0", "z"] {
        let mut turns = Turns::new();
        let first = ["web@80=w".to_owned(), format!("web:port-81@81={id}")];
        assert_eq!(
            turns.sections(&[("web", &[(id, 81, 9), ("w", 80, 5)])]),
            first,
            "the oldest's is called as the service"
        );
        let ports = turns.turn(&services(&[("web", &[(id, 81, 9), ("w", 80, 99)])]));
        assert_eq!(sections(&ports), first, "registered anew it still is");
        let told = ports.notes["web"][0].to_string();
        let other = if id == "0" { ("0", 81) } else { ("z", 81) };
        let expected =
            format!("backend {} asks for port {}, others for another: ports 80, 81 are served, ", other.0, other.1);
        assert!(told.starts_with(&expected), "{told}");
        assert_eq!(turns.sections(&[("web", &[(id, 81, 9), ("w", 0, 99)])]), first, "its port key is gone");
        let ports = turns.turn(&services(&[("web", &[("w", 0, 99)])]));
        assert_eq!(sections(&ports), ["web@80=w"]);
        assert_eq!(ports.notes["web"], [PortNote::Last(Port::new(80).unwrap())]);
        assert_eq!(turns.listed(&[("web", &[(id, 81, 9)])]), ["web:81"], "nobody asks for the first one any more");
    }
}

#[tokio::test]
async fn a_rolling_change_of_the_port_serves_both_until_the_old_registrations_go_and_moves_no_section() {
    let mut turns = Turns::new();
    assert_eq!(turns.sections(&[("web", &[("a", 80, 1), ("b", 80, 2)])]), ["web@80=a,b"]);
    assert_eq!(turns.sections(&[("web", &[("b", 80, 2), ("c", 81, 3)])]), ["web@80=b", "web:port-81@81=c"]);
    let ports = turns.turn(&services(&[("web", &[("c", 81, 3), ("d", 81, 4)])]));
    assert_eq!(sections(&ports), ["web:port-81@81=c,d"], "it runs under this name");
    turns.restart_with(&ports);
    assert_eq!(turns.sections(&[("web", &[("c", 81, 3), ("d", 81, 4)])]), ["web:port-81@81=c,d"]);
    assert_eq!(turns.sections(&[("web", &[("d", 81, 4), ("e", 82, 5)])]), ["web:port-81@81=d", "web@82=e"]);
    turns.tenants.loaded(&Default::default());
    turns.listed(&[("web", &[("e", 82, 5)])]);
    turns.now += Duration::from_secs(11);
    turns.listed(&[("web", &[("e", 82, 5)])]);
    assert_eq!(turns.sections(&[("web", &[("f", 81, 4), ("e", 82, 5)])]), ["web:port-81@81=f", "web@82=e"]);
    // All at once: one section, another port.
    assert_eq!(Turns::new().sections(&[("web", &[("a", 80, 1)])]), ["web@80=a"]);
    let mut turns = Turns::new();
    turns.listed(&[("web", &[("a", 80, 1)])]);
    assert_eq!(turns.sections(&[("web", &[("a", 81, 1)])]), ["web@81=a"]);
    assert_eq!(turns.sections(&[("web", &[("b", 82, 3)])]), ["web@82=b"], "nor does the port that waits keep the name");
}

#[tokio::test]
async fn a_port_whose_backends_have_gone_waits_for_them_though_the_service_has_others() {
    let (web, late): (&[Asks<'_>], &[Asks<'_>]) = (&[("a", 80, 1), ("b", 81, 2)], &[("l", 81, 9)]);
    let mut turns = Turns::new();
    turns.listed(&[("web", web), ("late", late)]);
    assert_eq!(turns.sections(&[("web", &web[..1]), ("late", late)]), ["web@80=a"], "its container may be restarting");
    assert_eq!(turns.sections(&[("web", web), ("late", late)]), ["web@80=a", "web:port-81@81=b"]);
    turns.listed(&[("web", &web[..1]), ("late", late)]);
    turns.now += Duration::from_secs(11);
    assert_eq!(turns.sections(&[("web", &web[..1]), ("late", late)]), ["late@81=l", "web@80=a"]);
    turns.absent = [at("late", 81)].into();
    let ports = turns.turn(&services(&[("web", web), ("late", late)]));
    assert_eq!(sections(&ports), ["web@80=a", "web:port-81@81=b"], "what is held and dead yields, port by port");
    assert!(ports.refused[&at("late", 81)].winner() == Some(at("web", 81)));
}

#[tokio::test]
async fn two_services_swap_their_ports_one_after_the_other_and_serve_all_the_time() {
    type Pools<'a> = [(&'a str, &'a [Asks<'a>]); 2];
    let mut turns = Turns::new();
    turns.listed(&[("a", &[("x", 80, 1)]), ("b", &[("m", 81, 2), ("n", 81, 3)])]);
    let step: Pools<'_> = [("a", &[("x", 81, 4)]), ("b", &[("m", 81, 2), ("n", 81, 3)])];
    let ports = turns.turn(&services(&step));
    assert_eq!(sections(&ports), ["a@80=x", "b@81=m,n"], "it stays until it can have the other");
    let told = ports.notes["a"][0].to_string();
    assert!(told.contains("port 81 belongs to service b") && told.ends_with("serves on port 80 until then"), "{told}");
    assert!(!ports.unlisted.contains_key("a"));
    turns.restart_with(&ports);
    assert_eq!(turns.sections(&step), ["a@80=x", "b@81=m,n"], "over a restart, too");
    let half: Pools<'_> = [("a", &[("x", 81, 4)]), ("b", &[("m", 80, 5), ("n", 81, 3)])];
    assert_eq!(turns.sections(&half), ["a@80=x", "b@81=m,n"], "half of the other one does not throw it out");
    assert_eq!(turns.sections(&half), ["a@80=x", "b@81=m,n"]);
    let swapped: Pools<'_> = [("a", &[("x", 81, 4)]), ("b", &[("m", 80, 5), ("n", 80, 6)])];
    assert_eq!(turns.sections(&swapped), ["a@81=x", "b@80=m,n"]);
    // One that never was behind a port does not come there because another is taken: it is not what its clients expect.
    let other: Pools<'_> = [("a", &[("x", 81, 4), ("new", 80, 7)]), ("b", &[("m", 80, 5), ("n", 80, 6)])];
    let ports = turns.turn(&services(&other));
    assert_eq!(sections(&ports), ["a@81=x", "b@80=m,n"]);
    assert!(ports.notes["a"][0].to_string().ends_with("backend new waits for it and serves on no port until then"));
}

#[tokio::test]
async fn who_stays_where_it_serves_yields_where_it_is_dead() {
    let mut turns = Turns::new();
    turns.listed(&[("a", &[("x", 80, 1)]), ("b", &[("m", 81, 2)])]);
    let step: [(&str, &[Asks<'_>]); 3] = [("a", &[("x", 81, 4)]), ("b", &[("m", 81, 2)]), ("c", &[("n", 80, 5)])];
    assert_eq!(turns.listed(&step), ["a:80", "b:81"]);
    turns.absent = [at("a", 80)].into();
    assert_eq!(turns.listed(&step), ["b:81", "c:80"]);
}

#[tokio::test]
async fn a_backend_without_a_port_is_where_it_was_and_a_newcomer_where_the_service_is() {
    let mut turns = Turns::new();
    assert_eq!(turns.sections(&[("web", &[("n", 0, 1), ("a", 80, 2)])]), ["web@80=n,a"], "what the others ask for");
    let two = &[("n", 0, 1), ("a", 80, 2), ("b", 81, 3)];
    assert_eq!(turns.sections(&[("web", two)]), ["web@80=n,a", "web:port-81@81=b"]);
    let ports = turns.turn(&services(&[("web", &[("n", 0, 1), ("a", 80, 2), ("b", 0, 3), ("m", 0, 4)])]));
    let expected = ["web@80=n,a,m", "web:port-81@81=b"];
    assert_eq!(sections(&ports), expected);
    turns.restart_with(&ports);
    assert_eq!(turns.sections(&[("web", &[("n", 0, 1), ("a", 80, 2), ("b", 0, 3), ("m", 0, 4)])]), expected);
}

#[tokio::test]
async fn a_service_has_no_more_ports_than_are_good_for_others_and_those_that_it_has_come_first() {
    let most = u16::try_from(MOST_PORTS).unwrap();
    let ids: Vec<String> = (0..=most).map(|n| format!("b{n}")).collect();
    let many: Vec<Asks<'_>> = ids.iter().zip(1000..).map(|(id, port)| (id.as_str(), port, 1)).collect();
    let mut turns = Turns::new();
    turns.listed(&[("web", &[("old", 9000, 99)])]);
    let all: Vec<Asks<'_>> = many.iter().copied().chain([("old", 9000, 99)]).collect();
    let ports = turns.turn(&services(&[("web", &all)]));
    assert!(ports.listed.len() == MOST_PORTS && ports.listed.contains_key(&at("web", 9000)));
    let told = ports.refused[&at("web", 1000 + most)].to_string();
    assert!(told.contains("at most 100 ports"), "{told}");
}

#[test]
fn a_port_that_a_container_publishes_or_a_program_has_is_nobodys() {
    let port = Port::new(80).unwrap();
    for shut in [Shut::Refused(BindReason::InUse), Shut::Container("old-web".into())] {
        let (tenants, absent, shut) = (Tenants::default(), BTreeSet::new(), BTreeMap::from([(port, shut)]));
        let standing = Standing { tenants: &tenants, absent: &absent, shut: &shut };
        let ports = assign(&services(&[("web", &[("w", 80, 1)]), ("x", &[("x", 81, 1)])]), &settings(), &standing);
        assert_eq!(ports.listed.keys().map(|at| at.service.as_str()).collect::<Vec<_>>(), ["x"]);
        let told = ports.unlisted["web"].to_string();
        assert!(told.contains("another program") || told.contains("container old-web"), "{told}");
        let denied = Unlisted::Closed(port, BindReason::Denied).to_string();
        assert_eq!(denied, "port 80 cannot be opened: ports below 1024 need root or CAP_NET_BIND_SERVICE");
    }
}

#[test]
fn who_had_which_port_is_read_from_a_file_also_from_an_edited_one() {
    let file = "# Written by discover\nglobal\n\tmaxconn 9\nlisten stats\n\tbind *:1936\n\n# service web\nlisten web\n\tbind :::80 v4v6\n\
                \tmode http\n\t# edited by hand\n\t# servers\n\tserver a 127.0.0.1:1\n\n# service db\nlisten db\n\tbind *:5432\n\t# servers\n\
                \n# service no port\n\tbind *:1\n# end of services\nfrontend edge\n\tbind *:443\n";
    let mut tenants = Tenants::default();
    tenants.recall(file);
    let port = |name: &str| tenants.ports_of(&name.parse().unwrap()).map(|(port, _)| port.get()).next();
    let (_, servers) = tenants.ports_of(&"web".parse().unwrap()).next().unwrap();
    assert_eq!(*servers, Tenancy::Recalled(["a".parse().unwrap()].into()));
    assert_eq!([port("web"), port("db"), port("edge"), port("stats")], [Some(80), Some(5432), None, None]);
    let before = tenants.clone();
    tenants.recall(&file.replace("*:5432", "*:80"));
    assert_eq!(tenants, before, "what is known counts more");
}

proptest! {
    /// Whatever comes, goes, is registered anew or restarts: who serves on a port keeps it for as long as a backend of it asks for it.
    #[test]
    fn who_serves_keeps_its_port_whatever_arrives_in_whatever_order(
        turns in prop::collection::vec(
            (prop::collection::btree_map(0usize..6, prop::collection::btree_map(0u8..4, (80u16..84, 0u64..9), 0..4), 0..6), any::<bool>()),
            1..12,
        ),
    ) {
        let names = ["0", "a-evil", "web", "z", "Z", "web.1"];
        let mut discover = Turns::new();
        discover.wait = Duration::ZERO;
        let mut before = Ports::default();
        for (pools, restart) in turns {
            let ids = ["0", "b", "x:1", "z@9"];
            let pools: Vec<(&str, Vec<Asks<'_>>)> = pools
                .iter()
                .map(|(n, of)| (names[*n], of.iter().map(|(id, (port, at))| (ids[usize::from(*id)], *port, *at)).collect()))
                .collect();
            let shown: Vec<(&str, &[Asks<'_>])> = pools.iter().map(|(name, of)| (*name, &**of)).collect();
            if restart {
                discover.restart_with(&before);
            }
            let known = discover.tenants.clone();
            let ports = discover.turn(&services(&shown));
            for (at, was) in &before.listed {
                let of = pools.iter().filter(|(name, _)| *name == at.service.as_str()).flat_map(|(_, of)| of);
                let asks = of.clone().any(|(_, port, _)| *port == at.port.get());
                let is = ports.listed.get(at);
                prop_assert!(!asks || is.is_some(), "{at:?} is lost: {ports:?}");
                if let Some(is) = is {
                    prop_assert_eq!(was.section(at), is.section(at), "a section that runs keeps its name");
                }
            }
            // Who asks for a port that its service has is behind that one, and nobody is behind two.
            for (name, of) in &pools {
                for (id, port, _) in of {
                    let all = ports.listed.range(ServicePort::all_of(&name.parse().unwrap()));
                    let behind = all.filter(|(at, pool)| pool.behind(at.port).backends().iter().any(|b| b.id.as_str() == *id));
                    let behind: Vec<u16> = behind.map(|(at, _)| at.port.get()).collect();
                    prop_assert!(behind.len() <= 1, "{name}/{id}: {behind:?}");
                    let granted = ports.listed.contains_key(&at(name, *port)) && !ports.refused.contains_key(&at(name, *port));
                    prop_assert!(!granted || behind == [*port], "{name}/{id} asks for {port}: {behind:?}");
                    prop_assert!(granted || ports.refused.contains_key(&at(name, *port)));
                }
            }
            let names: BTreeSet<Arc<str>> = ports.listed.iter().map(|(at, pool)| pool.section(at)).collect();
            prop_assert_eq!(names.len(), ports.listed.len(), "no two sections have one name");
            // The order of backends decides nothing either.
            let turned: Vec<(&str, Vec<Asks<'_>>)> =
                pools.iter().map(|(name, of)| (*name, of.iter().rev().copied().collect())).collect();
            let turned: Vec<(&str, &[Asks<'_>])> = turned.iter().map(|(name, of)| (*name, &**of)).collect();
            let mut same = Turns::new();
            (same.tenants, same.wait) = (known, Duration::ZERO);
            let same = same.turn(&services(&turned));
            prop_assert_eq!(&same.refused, &ports.refused);
            prop_assert_eq!(&same.listed, &ports.listed);
            let mut all: Vec<Port> = ports.listed.keys().map(|at| at.port).collect();
            all.sort_unstable();
            let of_all = all.len();
            all.dedup();
            prop_assert_eq!(all.len(), of_all, "a port has one service");
            before = ports;
        }
    }
}
