use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::super::settings::tests_support::settings;
use super::*;

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
    absent: BTreeSet<ServiceName>,
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
        self.turn(&services(of)).listed.iter().map(|(name, port)| format!("{name}:{port}")).collect()
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
    turns.absent = ["app-v1".parse().unwrap()].into();
    assert_eq!(turns.listed(&[("app-v1", v1)]), ["app-v1:80"], "nobody else wants it");
    assert_eq!(turns.listed(&[("app-v1", v1), ("app-v2", v2)]), ["app-v2:80"]);
    turns.absent.clear();
    assert_eq!(turns.listed(&[("app-v1", v1), ("app-v2", v2)]), ["app-v2:80"], "it is back, and waits");
}

#[tokio::test]
async fn a_backend_that_joins_a_service_does_not_move_it_to_another_port() {
    for id in ["0", "z"] {
        let mut turns = Turns::new();
        assert_eq!(turns.listed(&[("web", &[(id, 81, 9), ("w", 80, 5)])]), ["web:80"], "the oldest counts");
        let both = services(&[("web", &[(id, 81, 9), ("w", 80, 99)])]);
        let ports = turns.turn(&both);
        assert_eq!(ports.listed["web"].get(), 80, "registered anew it still does");
        let told = ports.disputed["web"].to_string();
        assert!(told.contains(&format!("backend {id} asks for port 81")) && told.contains("80 counts"), "{told}");
        assert_eq!(turns.listed(&[("web", &[(id, 81, 9), ("w", 0, 99)])]), ["web:80"], "its port key is gone");
        let ports = turns.turn(&services(&[("web", &[("w", 0, 99)])]));
        assert_eq!((ports.listed["web"].get(), &ports.disputed["web"]), (80, &Disputed::Last(Port::new(80).unwrap())));
        assert_eq!(turns.listed(&[("web", &[(id, 81, 9)])]), ["web:81"], "nobody asks for the first one any more");
    }
}

#[test]
fn a_port_that_a_container_publishes_or_a_program_has_is_nobodys() {
    let port = Port::new(80).unwrap();
    for shut in [Shut::Refused(BindReason::InUse), Shut::Container("old-web".into())] {
        let (tenants, absent, shut) = (Tenants::default(), BTreeSet::new(), BTreeMap::from([(port, shut)]));
        let standing = Standing { tenants: &tenants, absent: &absent, shut: &shut };
        let ports = assign(&services(&[("web", &[("w", 80, 1)]), ("x", &[("x", 81, 1)])]), &settings(), &standing);
        assert_eq!(ports.listed.keys().map(|s| s.as_str()).collect::<Vec<_>>(), ["x"]);
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
    let port = |name: &str| tenants.port_of(&name.parse().unwrap()).map(Port::get);
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
        let mut before: BTreeMap<ServiceName, Port> = BTreeMap::new();
        for (pools, restart) in turns {
            let ids = ["0", "b", "x:1", "z@9"];
            let pools: Vec<(&str, Vec<Asks<'_>>)> = pools
                .iter()
                .map(|(n, of)| (names[*n], of.iter().map(|(id, (port, at))| (ids[usize::from(*id)], *port, *at)).collect()))
                .collect();
            let shown: Vec<(&str, &[Asks<'_>])> = pools.iter().map(|(name, of)| (*name, &**of)).collect();
            if restart {
                discover.restart(&before.iter().map(|(name, port)| format!("{name}:{port}")).collect::<Vec<_>>());
            }
            let known = discover.tenants.clone();
            let ports = discover.turn(&services(&shown));
            for (name, port) in &before {
                let asks = pools.iter().any(|(n, of)| *n == name.as_str() && of.iter().any(|(_, p, _)| *p == port.get()));
                prop_assert!(!asks || ports.listed.get(name) == Some(port), "{name} lost {port}: {ports:?}");
            }
            // The order of backends decides nothing either.
            let turned: Vec<(&str, Vec<Asks<'_>>)> =
                pools.iter().map(|(name, of)| (*name, of.iter().rev().copied().collect())).collect();
            let turned: Vec<(&str, &[Asks<'_>])> = turned.iter().map(|(name, of)| (*name, &**of)).collect();
            let mut same = Turns::new();
            (same.tenants, same.wait) = (known, Duration::ZERO);
            prop_assert_eq!(same.turn(&services(&turned)).listed, ports.listed.clone());
            let mut all: Vec<Port> = ports.listed.values().copied().collect();
            all.sort_unstable();
            let of_all = all.len();
            all.dedup();
            prop_assert_eq!(all.len(), of_all, "a port has one service");
            before = ports.listed;
        }
    }
}
