//! The tables of naming and addressing; what a container says in labels and variables, and what rubbish there must not do.

mod flood;
mod many;
mod networks;
mod rubbish;
mod vocabulary;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::Status;

/// A running container on the default bridge, built up word by word.
fn container(number: u32, image: &str) -> Container {
    Container {
        id: format!("{:0<64}", format!("{number:x}")).parse().unwrap(),
        name: format!("c{number}"),
        image: image.to_owned(),
        labels: BTreeMap::new(),
        env: BTreeMap::new(),
        state: State::Running,
        health: None,
        network_mode: "bridge".to_owned(),
        networks: networks(&[("bridge", "172.17.0.2", "")]),
        ports: Vec::new(),
        stop_signal: 15,
        stop_timeout: Duration::from_secs(10),
        started_at: format!("2026-01-01T00:00:{number:02}Z"),
        pid: Some(1),
    }
}

fn networks(of: &[(&str, &str, &str)]) -> BTreeMap<String, Network> {
    let network = |v4: &str, v6: &str| Network { ipv4: v4.parse().ok(), ipv6: v6.parse().ok() };
    of.iter().map(|(name, v4, v6)| ((*name).to_owned(), network(v4, v6))).collect()
}

/// `80`, `80/udp`, `80=0.0.0.0:8080`, `80=0.0.0.0:8080,:::8080`.
fn port(text: &str) -> ContainerPort {
    let (inside, outside) = text.split_once('=').unwrap_or((text, ""));
    let (number, transport) = inside.split_once('/').unwrap_or((inside, "tcp"));
    let binding = |text: &str| {
        let (ip, port) = text.rsplit_once(':').unwrap();
        Binding { ip: ip.parse().ok(), port: port.parse().unwrap() }
    };
    ContainerPort {
        port: number.parse().unwrap(),
        transport: transport.parse().unwrap(),
        published: outside.split(',').filter(|t| !t.is_empty()).map(binding).collect(),
    }
}

impl Container {
    fn ports(mut self, ports: &[&str]) -> Self {
        self.ports = ports.iter().map(|text| port(text)).collect();
        self
    }
    fn label(mut self, text: &str) -> Self {
        let (key, value) = text.split_once('=').unwrap();
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }
    fn env(mut self, text: &str) -> Self {
        let (key, value) = text.split_once('=').unwrap();
        self.env.insert(key.to_owned(), value.to_owned());
        self
    }
}

fn settings() -> Settings {
    Settings { host_ip: Some("10.0.0.5".parse().unwrap()), ..Settings::default() }
}

fn map(containers: impl IntoIterator<Item = Container>) -> ContainerMap {
    containers.into_iter().map(|c| (c.id.clone(), Arc::new(c))).collect()
}

/// What a decider that remembers makes of `containers`, in the order of [`decide`].
fn remembered(decider: &mut Decider, containers: &ContainerMap) -> Vec<Decision> {
    decider.decide(containers);
    decide::in_order(containers).into_iter().flat_map(|c| decider.of(&c.id)).map(|d| (**d).clone()).collect()
}

fn all(containers: &[Container], settings: &Settings) -> Vec<String> {
    decide(&map(containers.iter().cloned()), settings).iter().map(line).collect()
}

/// `service/id host:port`, the id without its zeros; or why not.
fn line(decision: &Decision) -> String {
    match &decision.outcome {
        Outcome::Register(c) => {
            let id = c.backend.id.as_str().replacen("000000000", "", 1);
            format!("{}/{id} {}", c.service, c.backend.address())
        }
        Outcome::Skip(skip) => match decision.port {
            Some((port, _)) => format!("{port} {}", skip.as_str()),
            None => skip.as_str().to_owned(),
        },
    }
}

fn one(container: Container, settings: &Settings) -> Vec<String> {
    all(&[container], settings)
}

fn only(container: Container) -> Candidate {
    let decisions = decide(&map([container]), &settings());
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    decisions[0].candidate().unwrap_or_else(|| panic!("{}", decisions[0])).clone()
}

const PUBLISHED: &str = "80=0.0.0.0:49153,:::49153";

#[test]
fn names_and_ids_follow_the_number_of_eligible_ports() {
    let web = || container(0xabc, "acme/web:1.2");
    for (ports, expected) in [
        (&[PUBLISHED][..], vec!["web/abc 10.0.0.5:49153"]),
        (&[PUBLISHED, "443"], vec!["web/abc 10.0.0.5:49153", "443 not_published"]),
        (&["80=0.0.0.0:1", "443=0.0.0.0:2"], vec!["web-80/abc 10.0.0.5:1", "web-443/abc 10.0.0.5:2"]),
        (&["53=0.0.0.0:53", "53/udp=0.0.0.0:53"], vec!["web/abc 10.0.0.5:53", "web/abc:udp 10.0.0.5:53"]),
        (&["80=127.0.0.1:1", "443=0.0.0.0:2"], vec!["80 loopback_only", "web/abc 10.0.0.5:2"]),
        (&[], vec!["no_port"]),
    ] {
        assert_eq!(one(web().ports(ports), &settings()), expected, "{ports:?}");
    }
    let named = web().ports(&["80=0.0.0.0:1", "443=0.0.0.0:2"]);
    assert_eq!(
        one(named.clone().label("register.80.service=front").env("SERVICE_443_NAME=tls"), &settings()),
        ["front/abc 10.0.0.5:1", "tls/abc 10.0.0.5:2"]
    );
    assert_eq!(
        one(named.clone().label("register.80.service=x").label("register.443.service=x"), &settings()),
        ["x/abc:80 10.0.0.5:1", "x/abc:443 10.0.0.5:2"],
        "several ports in one service need the port in the id"
    );
    assert_eq!(
        one(named.clone().label("register.service=x"), &settings()),
        ["x-80/abc 10.0.0.5:1", "x-443/abc 10.0.0.5:2"]
    );
    assert_eq!(
        one(named.label("register.443.ignore=yes"), &settings()),
        ["web/abc 10.0.0.5:1", "443 ignored"],
        "an ignored port does not count"
    );
}

#[test]
fn a_faulty_label_leaves_out_its_registration_and_changes_no_other_name() {
    let two = container(0xabc, "web").ports(&["80=0.0.0.0:1", "443=0.0.0.0:2"]);
    for label in [
        "register.80.weight=heavy",
        "register.80.mode=udp",
        "register.80.service-port=0",
        "register.80.check=ping",
        "register.80.check.interval=never",
        "register.80.check.path=health",
        "register.80.address=0.0.0.0",
        "register.80.health=maybe",
        "register.80.drain=sometimes",
        "register.80.id=a/b",
        "SERVICE_80_CHECK_HTTP=health",
    ] {
        let decisions = one(two.clone().label(label), &settings());
        let check = if label.contains(".check.interval") {
            // Without a check an interval has nothing to say.
            one(two.clone().label(label).label("register.80.check=tcp"), &settings())
        } else {
            decisions
        };
        assert_eq!(check, ["80 bad_label", "web-443/abc 10.0.0.5:2"], "{label}");
    }
    let decision = &decide(&map([two.label("register.80.weight=heavy")]), &settings())[0];
    assert!(
        decision.to_string().contains(r#"register.80.weight="heavy" is not a whole number from 0 to 256"#),
        "{decision}"
    );
}

#[test]
fn addresses_follow_the_rules_in_their_order() {
    let web = |ports: &[&str]| container(0xabc, "web").ports(ports);
    let v6 = || Settings { host_ip: Some("2001:db8::5".parse().unwrap()), ..Settings::default() };
    let loopback = || Settings { allow_loopback: true, ..settings() };
    let internal = || Settings { internal: true, ..settings() };
    for (case, container, settings, expected) in [
        ("label first", web(&[PUBLISHED]).label("register.address=192.0.2.9"), settings(), "web/abc 192.0.2.9:49153"),
        ("its port", web(&["80"]).label("register.80.address=lb.example:81"), settings(), "web/abc lb.example:81"),
        (
            "v6 label",
            web(&["80"]).label("register.80.address=[2001:db8::1]:81"),
            settings(),
            "web/abc [2001:db8::1]:81",
        ),
        ("specific", web(&["80=192.0.2.7:8080"]), settings(), "web/abc 192.0.2.7:8080"),
        ("empty ip", web(&["80=:8080"]), settings(), "web/abc 10.0.0.5:8080"),
        ("v6 host", web(&["80=0.0.0.0:1,:::2"]), v6(), "web/abc [2001:db8::5]:2"),
        ("v4 host", web(&["80=:::2,0.0.0.0:1"]), settings(), "web/abc 10.0.0.5:1"),
        ("only v6 wildcard", web(&["80=:::2"]), settings(), "web/abc 10.0.0.5:2"),
        ("loopback", web(&["80=127.0.0.1:1"]), settings(), "80 loopback_only"),
        ("allowed", web(&["80=127.0.0.1:1"]), loopback(), "web/abc 127.0.0.1:1"),
        ("loopback beside", web(&["80=127.0.0.1:1,192.0.2.7:2"]), loopback(), "web/abc 192.0.2.7:2"),
        ("mapped loopback", web(&["80=::ffff:127.0.0.1:1"]), settings(), "80 loopback_only"),
        ("no HOST_IP", web(&[PUBLISHED]), Settings::default(), "80 host_ip_missing"),
        ("no HOST_IP needed", web(&["80=192.0.2.7:8080"]), Settings::default(), "web/abc 192.0.2.7:8080"),
        (
            "HOST_IP unspecified",
            web(&[PUBLISHED]),
            Settings { host_ip: Some("::".parse().unwrap()), ..Settings::default() },
            "80 host_ip_missing",
        ),
        (
            "HOST_IP loopback",
            web(&[PUBLISHED]),
            Settings { host_ip: Some("127.0.0.1".parse().unwrap()), ..Settings::default() },
            "80 loopback_only",
        ),
        ("exposed", web(&["80"]), settings(), "80 not_published"),
        ("internal", web(&["80"]), internal(), "web/abc 172.17.0.2:80"),
        ("internal beats published", web(&[PUBLISHED]), internal(), "web/abc 172.17.0.2:80"),
        ("asked for", web(&[]).label("register.port=9000"), settings(), "web/abc 172.17.0.2:9000"),
        ("asked for, published", web(&[PUBLISHED]).label("register.port=80"), settings(), "web/abc 10.0.0.5:49153"),
        ("network label", web(&["80"]).label("register.network=bridge"), settings(), "web/abc 172.17.0.2:80"),
        ("wrong network", web(&["80"]).label("register.network=x"), settings(), "80 bad_label"),
        ("localhost label", web(&["80"]).label("register.address=localhost"), settings(), "80 loopback_only"),
    ] {
        assert_eq!(one(container, &settings), [expected], "{case}");
    }
}

#[test]
fn one_of_several_networks_is_chosen_by_label_setting_or_name_never_by_chance() {
    let mut web = container(0xabc, "web").ports(&["80"]);
    web.networks = networks(&[("zeta", "10.2.0.2", "2001:db8:2::2"), ("alpha", "10.1.0.2", ""), ("beta", "", "")]);
    let internal = Settings { internal: true, ..settings() };
    let v6 = Settings {
        family: Family::Ipv6,
        networks: NetworkChoice { name: Some("zeta".into()), ..NetworkChoice::default() },
        ..internal.clone()
    };
    assert_eq!(one(web.clone(), &internal), ["web/abc 10.1.0.2:80"]);
    assert_eq!(one(web.clone(), &v6), ["web/abc [2001:db8:2::2]:80"]);
    assert_eq!(one(web.clone().label("register.80.network=zeta"), &internal), ["web/abc 10.2.0.2:80"]);
    assert_eq!(one(web.label("register.network=beta"), &internal), ["80 no_address"]);
}

#[test]
fn the_host_network_and_a_borrowed_one() {
    let mut host = container(0xabc, "web").ports(&["80"]);
    host.network_mode = "host".into();
    host.networks = networks(&[("host", "", "")]);
    assert_eq!(one(host.clone(), &settings()), ["web/abc 10.0.0.5:80"]);
    host.ports.clear();
    assert_eq!(one(host.clone(), &settings()), ["no_port"]);
    assert_eq!(one(host.label("register.port=8080"), &settings()), ["web/abc 10.0.0.5:8080"]);

    let owner = container(0xabc, "pause").ports(&["80=0.0.0.0:1"]);
    let mut guest = container(0xdef, "web");
    guest.network_mode = format!("container:{}", owner.id.as_str());
    guest.networks.clear();
    assert_eq!(one(guest.clone(), &settings()), ["network_owner_missing"]);
    let stopped = Container { state: State::Exited, ..owner };
    assert_eq!(all(&[stopped, guest], &settings()), ["stopped", "network_owner_missing"]);
}

#[test]
fn states_health_and_filters_keep_a_container_out() {
    let web = || container(0xabc, "web").ports(&[PUBLISHED]);
    assert_eq!(one(Container { state: State::Paused, ..web() }, &settings()), ["paused"]);
    assert_eq!(one(Container { state: State::Restarting, ..web() }, &settings()), ["stopped"]);
    for (health, policy, expected) in [
        (Health::Starting, HealthPolicy::Hide, "80 health_starting"),
        (Health::Unhealthy, HealthPolicy::Hide, "80 unhealthy"),
        (Health::Healthy, HealthPolicy::Hide, "web/abc 10.0.0.5:49153"),
        (Health::Unhealthy, HealthPolicy::Down, "web/abc 10.0.0.5:49153"),
        (Health::Unhealthy, HealthPolicy::Ignore, "web/abc 10.0.0.5:49153"),
    ] {
        let settings = Settings { health: policy, ..settings() };
        assert_eq!(one(Container { health: Some(health), ..web() }, &settings), [expected]);
    }
    let sick = Container { health: Some(Health::Unhealthy), ..web() }.label("register.health=down");
    assert_eq!(only(sick).backend.status, Status::Down);
    for (filter, admitted) in [
        ("label=team=a", true),
        ("label=team=b", false),
        ("label=team", true),
        ("name=c*", true),
        ("name=d*", false),
        ("network=bridge", true),
        ("network=other", false),
    ] {
        let settings = Settings { filters: vec![filter.parse().unwrap()], ..settings() };
        let expected = if admitted { "web/abc 10.0.0.5:49153" } else { "filtered" };
        assert_eq!(one(web().label("team=a"), &settings), [expected], "{filter}");
    }
    // What another agent's container asks for is not for us to judge.
    let faulty = web().label("register.port=eighty");
    let foreign = Settings { filters: vec!["name=d*".parse().unwrap()], ..settings() };
    assert!(decide(&map([faulty]), &foreign).iter().all(|decision| decision.warnings.is_empty()));
    let either = Settings { filters: vec!["name=x".parse().unwrap(), "name=c*".parse().unwrap()], ..settings() };
    assert_eq!(one(web(), &either), ["web/abc 10.0.0.5:49153"]);
}

#[test]
fn of_two_claims_the_earlier_container_keeps_its_own() {
    let first = container(2, "web").ports(&["80=0.0.0.0:1"]).label("SERVICE_ID=same");
    let mut second = container(1, "web").ports(&["80=0.0.0.0:2"]).label("SERVICE_ID=same");
    second.started_at = "2027".into();
    assert_eq!(all(&[second.clone(), first.clone()], &settings()), ["web/same 10.0.0.5:1", "80 same_id"]);
    let address = second.clone().ports(&["80=0.0.0.0:1"]).label("SERVICE_ID=other");
    assert_eq!(all(&[address, first], &settings())[1], "80 same_address");
}

#[test]
fn explain_says_which_rule_gave_what_and_prints_no_control_characters() {
    let mut web = container(0xabc, "acme/web:1").ports(&[PUBLISHED]);
    web.name = "a\u{1b}[2Jb".into();
    let decisions = decide(&map([web]), &settings());
    assert_eq!(
        decisions[0].to_string(),
        "abc000000000 a\\u{1b}[2Jb 80/tcp: web/abc000000000 at 10.0.0.5:49153 (up)\n    \
         service: image acme/web:1 → web\n    \
         id: container id → abc000000000\n    \
         address: published binding 0.0.0.0:49153 → HOST_IP 10.0.0.5"
    );
}
